//! The handle table: one participant's view of a segment.
//!
//! `README.md` beside this file describes the protocol and argues why it suffices.

pub(crate) mod alloc;
pub(crate) mod attach;
mod cache;
mod create;
#[cfg(not(loom))]
mod global;
pub(crate) mod hints;
pub(crate) mod info;
pub(crate) mod lease;
#[cfg(not(loom))]
mod prefault;
#[cfg(not(loom))]
pub(crate) mod roster;
#[cfg(loom)]
pub(crate) mod runs;
mod scrape;
pub(crate) mod slot;
mod sweep;
mod trim;
#[cfg(not(loom))]
mod untyped;

use core::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};

use crate::descriptor::Descriptor;
#[cfg(not(loom))]
use crate::error::Error;
use crate::error::{ForeignLock, FreeError, JoinError, LeaseError};
use crate::handle::AnyHandle;
use crate::names::{Emptied, Following, Recall};
use crate::queue;
use crate::seat::{self, ReapReport};
use crate::segment::fork::TokenWord;
use crate::segment::{self, Segment};
use crate::span::{Extent, Spans};
use crate::word::{SeatId, SlotWord};
use alloc::Allocator;
use cache::Cache;
use slot::{Slot, Tail};

pub use create::Owned;
pub use info::ArrayInfo;
#[cfg(all(feature = "npy", not(loom)))]
pub(crate) use untyped::NewBytes;
#[cfg(not(loom))]
pub use untyped::{UntypedReadGuard, UntypedWriteGuard};

/// A participant of a segment: allocates, leases and frees its arrays.
///
/// All participants of a segment see the same table; a table value is one *seat* in it. A seat
/// belongs to one thread: the value may be sent to another thread, but not shared. Another thread
/// joins for a seat of its own, which takes microseconds.
///
/// A table may cross a `fork`: the child's copy takes a seat of its own at its first use, and
/// dropping the guards that crossed with it does nothing.
///
/// Dropping the table releases its seat and frees the arrays that it owns and has not
/// [detached](HandleTable::detach).
///
/// ```
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>((1000, 3))?;
/// table.write(x)?.fill(1.5);
/// assert_eq!(table.read(x)?.sum(), 4500.0);
/// table.free(x)?;
/// assert!(table.read(x).is_err());
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct HandleTable {
    segment: Segment,
    /// This table's place among the tables of the process.
    #[cfg(not(loom))]
    place: roster::Place,
    seat: Cell<SeatId>,
    /// The process that the seat belongs to.
    token: Cell<u64>,
    /// Tells which process this is.
    process: TokenWord,
    cache: RefCell<Cache>,
    /// Shared leases that this seat has on a slot beyond the first.
    again: RefCell<HashMap<usize, usize>>,
    /// Schema index of each record type used here.
    schemas: RefCell<HashMap<std::any::TypeId, u16>>,
    /// Buckets in which this participant has named something.
    named: RefCell<BTreeSet<usize>>,
    /// Names that were found here.
    recall: RefCell<Recall>,
    /// An allocation has reaped: names of the freed arrays may be left.
    untidy_names: Cell<bool>,
}

impl HandleTable {
    /// Takes a seat in `segment`. Reaps the seats of participants that died.
    ///
    /// # Errors
    /// [`JoinError::SeatLocked`] if a process outside the crate locks seats.
    /// [`JoinError::SeatsFull`] if every seat belongs to a living participant, or is being checked
    /// by another process.
    pub fn join(segment: &Segment) -> Result<HandleTable, JoinError> {
        let token = segment::fork::process_token();
        if segment.token() != token {
            segment.rebind()?;
        }
        let seat = seat::join(segment)?;
        let table = HandleTable {
            segment: segment.clone(),
            #[cfg(not(loom))]
            place: roster::Place::enter(segment, seat, token),
            seat: Cell::new(seat),
            token: Cell::new(token),
            process: TokenWord::of_this_process(),
            cache: RefCell::new(Cache::new(segment.retain_limit())),
            again: RefCell::default(),
            schemas: RefCell::default(),
            named: RefCell::default(),
            recall: RefCell::default(),
            untidy_names: Cell::new(false),
        };
        table.reap()?;
        Ok(table)
    }

    /// Opens the named segment and takes a seat in it.
    #[cfg(not(loom))]
    pub fn open(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open(name)?)?)
    }

    /// Opens the named segment, or creates it, and takes a seat in it.
    #[cfg(not(loom))]
    pub fn open_or_create(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open_or_create(name)?)?)
    }

    /// Returns the number of searches through all slots.
    #[cfg(loom)]
    pub(crate) fn sweeps(&self) -> u64 {
        self.cache.borrow().sweeps
    }

    /// Returns the segment.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Returns this participant's seat number, from 0. It is unique among the living participants.
    pub fn seat(&self) -> Result<usize, JoinError> {
        Ok(self.enter()?.index().unwrap_or(0))
    }

    /// Takes back everything that dead participants held: their arrays, leases and seats.
    ///
    /// Waits for nobody. Joining also reaps, and so does an allocation before it reports that the
    /// segment is full.
    ///
    /// A process that may read the segment's file can lock a seat, which then cannot be reaped.
    /// [`ReapReport::locked`] counts such seats, and [`foreign_locks`](HandleTable::foreign_locks)
    /// names the processes.
    pub fn reap(&self) -> Result<ReapReport, JoinError> {
        let report = seat::reap(&self.segment, self.enter()?)?;
        if self.untidy_names.replace(false) || report.names {
            self.forget_all_dead();
        }
        Ok(report)
    }

    /// Returns the locks on seats that processes outside the crate hold; see [`ForeignLock`]. Reads
    /// `/proc` of all processes to name the holders.
    ///
    /// ```
    /// let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// assert!(table.foreign_locks().is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn foreign_locks(&self) -> Vec<ForeignLock> {
        let seats = 0..self.segment.memory().layout().geometry.seats as usize;
        seats
            .filter_map(|seat| self.segment.foreign_lock(seat))
            .collect()
    }

    /// Frees an array. Its handle is stale at once, in every process. If the array is leased, its
    /// bytes are released with the last lease.
    ///
    /// # Errors
    /// [`FreeError::Stale`] if it was freed before. [`FreeError::Internal`] if the handle names
    /// memory that the crate keeps for itself, as a pool's mailbox.
    pub fn free(&self, handle: impl Into<AnyHandle>) -> Result<(), FreeError> {
        let handle = handle.into();
        if let Some(following) = self.retire(handle, true)? {
            self.free_following(following);
        }
        Ok(())
    }

    /// Frees the contents of a slot, also of a control array that the crate keeps for itself.
    /// Returns the items to free with it.
    pub(crate) fn free_slot(&self, handle: AnyHandle) -> Result<Option<Following<'_>>, FreeError> {
        self.retire(handle, false)
    }

    /// Frees the contents of a slot and returns the items to free with it. Refuses the crate's own
    /// control arrays if `user` is set.
    #[inline(always)]
    fn retire(&self, handle: AnyHandle, user: bool) -> Result<Option<Following<'_>>, FreeError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(FreeError::Stale { handle });
        };
        // Load the word before reading the page state. This Acquire pairs with the publisher's
        // Release, so the page state read below belongs to this array.
        let word = slot.word();
        if user
            && word.is_control()
            && let Some(what) = self.look().internal(slot, generation)
        {
            return Err(FreeError::Internal { handle, what });
        }
        let memory = self.segment.memory();
        let Some(extent) = Spans::of(memory).extent(slot.index) else {
            return Err(FreeError::Stale { handle });
        };
        let backed = self.backed(slot, &extent);
        if word.is_named() {
            return self.free_named(handle, slot.index, word, extent, backed);
        }
        let Ok(retired) = slot.retire(word, generation, me) else {
            return Err(FreeError::Stale { handle });
        };
        if retired.is_named() {
            // The array was named after we read the word. It is not a bundle, because bundles are
            // named from creation to free.
            let following = Following::name(memory, slot);
            self.give_back_named(slot.index, retired, extent, backed);
            return Ok(Some(following));
        }
        self.give_back(slot, retired, extent, backed);
        Ok(None)
    }

    /// Retires an array that had a name when `word` was read; see [`HandleTable::retire`].
    #[cold]
    fn free_named(
        &self,
        handle: AnyHandle,
        slot: usize,
        word: SlotWord,
        extent: Extent,
        backed: u64,
    ) -> Result<Option<Following<'_>>, FreeError> {
        let memory = self.segment.memory();
        let (_, generation) = handle.unpack(self.segment.key());
        let slot = Slot::of(memory, slot).ok_or(FreeError::Stale { handle })?;
        let mut following = Following::name(memory, slot);
        let kept = self.keep_bundle(slot, handle);
        let queue = match kept {
            Some(_) => None,
            None => self.keep_queue(slot, handle),
        };
        let Ok(retired) = slot.retire(word, generation, self.own_seat()) else {
            return Err(FreeError::Stale { handle });
        };
        following.bundle = kept.map(|kept| Emptied::of(memory, kept));
        self.give_back(slot, retired, extent, backed);
        if let Some(kept) = queue {
            queue::free_arrays(&self.segment, kept.slot, self.own_seat());
        }
        Ok(Some(following))
    }

    /// Calls [`HandleTable::give_back`], out of line for the rare case.
    #[cold]
    fn give_back_named(&self, slot: usize, retired: SlotWord, extent: Extent, backed: u64) {
        if let Some(slot) = Slot::of(self.segment.memory(), slot) {
            self.give_back(slot, retired, extent, backed);
        }
    }

    /// Releases the extent of a slot that this participant has just retired.
    #[inline(always)]
    fn give_back(&self, slot: Slot<'_>, retired: SlotWord, extent: Extent, backed: u64) {
        self.allocator(&mut self.cache.borrow_mut(), self.seat.get())
            .give_back(slot, retired, extent, backed, |extent| {
                self.segment.punch(extent.offset, extent.size())
            });
    }

    /// Returns the committed bytes of a LIVE slot's extent.
    #[inline]
    fn backed(&self, slot: Slot<'_>, extent: &Extent) -> u64 {
        if extent.size() <= crate::span::WHOLE_COMMIT {
            return extent.size();
        }
        Descriptor::committed(self.segment.memory().descriptor(slot.index)).min(extent.size())
    }

    /// Makes an array outlive its owner: it lives until a participant frees it.
    ///
    /// # Errors
    /// [`LeaseError::Stale`]. [`LeaseError::Internal`] if the handle names memory that the crate
    /// keeps for itself. [`LeaseError::Queued`] if a queue owns the array.
    pub fn detach(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.change_owner(handle.into(), |_| SeatId::NONE)
    }

    /// Makes this participant the owner of an array. The array is freed when this participant
    /// leaves or dies, unless it is detached.
    ///
    /// # Errors
    /// As [`detach`](HandleTable::detach).
    pub fn adopt(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.change_owner(handle.into(), |me| me)
    }

    fn change_owner(
        &self,
        handle: AnyHandle,
        owner: impl Fn(SeatId) -> SeatId,
    ) -> Result<(), LeaseError> {
        let owner = owner(self.enter()?);
        match self.change(handle, |word, generation| word.own(generation, owner)) {
            // A LIVE array that cannot be owned is QUEUED.
            Err(LeaseError::Busy { handle, .. }) => Err(LeaseError::Queued { handle }),
            outcome => outcome,
        }
    }

    /// Declares the contents of a poisoned array good again. The caller has checked them (see
    /// [`attach`](HandleTable::attach)) or is about to overwrite them. Use
    /// [`recover`](HandleTable::recover) for exclusive access meanwhile.
    ///
    /// A poisoned array may still have readers: a participant that died while it tried to write,
    /// before it checked for readers, counts as a writer.
    ///
    /// # Errors
    /// [`LeaseError::Busy`] while a round whose opener died still has participants.
    pub fn clear_poison(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.enter()?;
        self.change(handle.into(), SlotWord::clear_poison)
    }

    fn change(
        &self,
        handle: AnyHandle,
        next: impl Fn(SlotWord, u32) -> Option<SlotWord>,
    ) -> Result<(), LeaseError> {
        let (slot, generation) = self.look().usable(handle)?;
        match slot.change(|word| next(word, generation)) {
            Ok(_) => Ok(()),
            Err(word) if word.is_live(generation) => Err(self.busy(handle, word.writer())),
            Err(_) => Err(LeaseError::Stale { handle }),
        }
    }

    fn busy(&self, handle: AnyHandle, seat: SeatId) -> LeaseError {
        let pid = self.pid_of(seat);
        let seats = self.segment.memory().layout().geometry.seats as usize;
        let lock = seat
            .index()
            .filter(|&index| index < seats)
            .and_then(|index| self.segment.foreign_lock(index));
        let name = self.name_of(handle);
        match lock {
            None => LeaseError::Busy { handle, name, pid },
            Some(lock) => LeaseError::Blocked {
                handle,
                name,
                pid,
                lock,
            },
        }
    }

    pub(crate) fn pid_of(&self, seat: SeatId) -> u32 {
        seat::Card::of(self.segment.memory(), seat).pid
    }

    /// Returns the slot and generation that a handle names, if the segment has such a slot.
    #[inline]
    pub(crate) fn slot(&self, handle: AnyHandle) -> Option<(Slot<'_>, u32)> {
        self.look().slot(handle)
    }

    pub(crate) fn handle_of(&self, slot: usize, generation: u32) -> AnyHandle {
        AnyHandle::pack(self.segment.key(), slot, generation)
    }

    /// Returns this participant's seat. Takes one first in a child that a fork has made.
    #[inline]
    pub(crate) fn enter(&self) -> Result<SeatId, JoinError> {
        match self.process.is(self.token.get()) {
            true => Ok(self.seat.get()),
            false => self.join_again(),
        }
    }

    /// Returns `true` if this process took the seat under `token`. Returns `false` for a parent's
    /// token, and in a child before its first use.
    #[inline]
    pub(crate) fn is_of(&self, token: u64) -> bool {
        token == self.token.get() && self.process.is(token)
    }

    /// Returns the seat. The caller has [entered](HandleTable::enter).
    pub(crate) fn own_seat(&self) -> SeatId {
        self.seat.get()
    }

    /// Returns the number by which this process knows the table; see `roster.rs`.
    pub(crate) fn number(&self) -> u64 {
        #[cfg(not(loom))]
        return self.place.number();
        // A model forks no process.
        #[cfg(loom)]
        return 0;
    }

    /// Returns how many shared leases this participant has on a slot, its places in rounds
    /// included.
    pub(crate) fn shared_leases(&self, slot: usize) -> usize {
        let has_bit =
            Slot::of(self.segment.memory(), slot).is_some_and(|slot| slot.has_bit(self.own_seat()));
        let again = self.again.borrow().get(&slot).copied().unwrap_or(0);
        usize::from(has_bit) + again
    }

    pub(crate) fn recall(&self) -> &RefCell<Recall> {
        &self.recall
    }

    /// Makes the next reap look at the names if `needed` is set.
    pub(crate) fn tidy_names_later(&self, needed: bool) {
        self.untidy_names.set(self.untidy_names.get() || needed);
    }

    /// Notes that this participant has named something in `bucket`.
    pub(crate) fn remember_named(&self, bucket: usize) {
        self.named.borrow_mut().insert(bucket);
    }

    /// Returns the noted buckets and clears the note.
    pub(crate) fn take_named(&self) -> BTreeSet<usize> {
        self.named.take()
    }

    pub(crate) fn token(&self) -> u64 {
        self.token.get()
    }

    /// Ends like an exiting process: the seat is not released, so others reap it.
    #[cfg(loom)]
    pub(crate) fn exit_without_leaving(self) {
        self.token.set(0);
    }

    /// Takes a seat for a child at its first use of a table that crossed a fork.
    #[cold]
    fn join_again(&self) -> Result<SeatId, JoinError> {
        let token = segment::fork::process_token();
        if self.segment.token() != token {
            self.segment.rebind()?;
        }
        let seat = seat::join(&self.segment)?;
        // The parent's records belong to the parent.
        *self.cache.borrow_mut() = Cache::new(self.segment.retain_limit());
        self.again.borrow_mut().clear();
        self.named.borrow_mut().clear();
        self.seat.set(seat);
        self.token.set(token);
        #[cfg(not(loom))]
        self.place.set(seat, token);
        Ok(seat)
    }

    #[inline]
    fn allocator<'a, 'c>(&'a self, cache: &'c mut Cache, me: SeatId) -> Allocator<'a, 'c> {
        Allocator {
            segment: &self.segment,
            cache,
            me,
        }
    }

    /// Enters every free slot that only this participant knows of in the hints.
    fn share_cache(&self) {
        let memory = self.segment.memory();
        let hints = hints::Hints::of(memory);
        let (recent, filling) = self.cache.borrow_mut().drain();
        for freed in recent {
            hints.set(freed.extent.class, freed.slot as usize);
        }
        for filling in filling {
            for position in filling.next..filling.span.count {
                let slot = filling.span.slot(&memory.layout().geometry, position);
                hints.set(filling.span.class, slot);
            }
        }
    }

    /// Enters a slot in the hints if the caller's tail check has made it FREE.
    #[inline]
    pub(crate) fn follow(&self, slot: Slot<'_>, tail: Tail) {
        if let Tail::Freed(word) = tail {
            self.share(slot, word);
        }
    }

    #[cold]
    fn share(&self, slot: Slot<'_>, word: SlotWord) {
        if let Some(extent) = Spans::of(self.segment.memory()).extent(slot.index)
            && let Some(slot) = Slot::of(self.segment.memory(), slot.index)
        {
            self.allocator(&mut self.cache.borrow_mut(), self.seat.get())
                .share(slot, word, extent, |extent| {
                    self.segment.punch(extent.offset, extent.size())
                });
        }
    }
}

impl Drop for HandleTable {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        self.place.leave();
        if !self.is_of(self.token.get()) {
            // The table crossed a fork unused: the seat is the parent's.
            return;
        }
        self.forget_own_names();
        self.share_cache();
        seat::leave(&self.segment, self.seat.get());
    }
}

impl core::fmt::Debug for HandleTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HandleTable")
            .field("segment", &self.segment)
            .field("seat", &self.seat.get())
            .finish_non_exhaustive()
    }
}
