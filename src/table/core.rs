//! The core of a handle table: one participant's seat in a segment, and its private notes.

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::above::Above;
use super::alloc::{Allocator, Cleaning};
use super::cache::{Cache, Filling};
use super::hints::Hints;
use super::inbox::Inbox;
use super::locate::TableView;
use super::name_cache::NameCache;
use super::roster;
use super::slot::{ReleaseOutcome, Slot};
use super::wait_word::ReleaseCount;
use crate::handle::AnyHandle;
use crate::seat::JoinError;
use crate::seat::{self, Footprint, ReapReport};
use crate::segment::ForeignLock;
use crate::segment::fork::TokenWord;
use crate::segment::{self, Segment};
use crate::span::Spans;
use crate::table::error::LeaseError;
use crate::word::{BucketIndex, SeatId, SlotIndex, SlotWord};

/// A participant of a segment, as all that allocates and leases sees it. Users have it as a
/// [`HandleTable`](crate::HandleTable).
///
/// Dropping it releases nothing: [`Core::leave`] does.
pub struct Core {
    /// The layers above the table.
    pub(super) above: &'static dyn Above,
    pub(super) segment: Segment,
    /// This table's place among the tables of the process.
    pub(super) place: roster::Place,
    pub(super) seat: Cell<SeatId>,
    /// The process that the seat belongs to.
    token: Cell<u64>,
    /// Tells which process this is.
    process: TokenWord,
    /// The spans in which the seat may hold something. Add to it before the slot's word or row names
    /// the seat, or before the call returns.
    pub(crate) footprint: Footprint,
    pub(super) cache: RefCell<Cache>,
    /// Shared leases that this seat has on a slot beyond the first.
    pub(super) recursive: RefCell<HashMap<SlotIndex, usize>>,
    /// Wakes threads of a shared table that wait for leases of the seat.
    pub(super) own_releases: ReleaseCount,
    /// The number of this participant's pins of each array, at least one.
    pub(super) pins: RefCell<BTreeMap<AnyHandle, usize>>,
    /// Schema index of each record type used here.
    pub(super) schemas: RefCell<HashMap<std::any::TypeId, u16>>,
    /// Buckets in which this participant has named something.
    named: RefCell<BTreeSet<BucketIndex>>,
    /// Names that were found here.
    names: RefCell<NameCache>,
    /// What dropped values that do not borrow the table have left behind.
    pub(super) inbox: RefCell<Inbox>,
    /// An allocation has reaped: names of the freed arrays may be left.
    untidy_names: Cell<bool>,
}

impl Core {
    /// Takes a seat in `segment`.
    pub(crate) fn join(segment: &Segment, above: &'static dyn Above) -> Result<Core, JoinError> {
        let token = segment::fork::process_token();
        if segment.token() != token {
            segment.rebind()?;
        }
        let seat = seat::join(segment, above)?;
        Ok(Core {
            above,
            segment: segment.clone(),
            place: roster::Place::enter(segment, seat, token),
            seat: Cell::new(seat),
            token: Cell::new(token),
            process: TokenWord::of_this_process(),
            footprint: Footprint::new(),
            cache: RefCell::new(Cache::new(segment.retain_limits())),
            recursive: RefCell::default(),
            own_releases: ReleaseCount::default(),
            pins: RefCell::default(),
            schemas: RefCell::default(),
            named: RefCell::default(),
            names: RefCell::default(),
            inbox: RefCell::new(Inbox::new()),
            untidy_names: Cell::new(false),
        })
    }

    /// Releases the seat and all that it holds. The table is not used afterwards.
    pub(crate) fn leave(&self) {
        self.place.leave();
        // If the table crossed a fork unused, the seat is the parent's. If the process has left the
        // segment, others take the seat back.
        if !self.is_of(self.token.get()) || self.segment.has_left() {
            return;
        }
        self.inbox.borrow().close();
        self.above.forget_own_names(self);
        self.leave_cache();
        seat::leave(&self.segment, self.seat.get(), &self.footprint, self.above);
    }

    /// Returns the number of searches through all slots.
    #[cfg(loom)]
    pub(crate) fn sweeps(&self) -> u64 {
        self.cache.borrow().sweeps
    }

    /// Returns the segment.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Returns this participant's seat number, from 0. It is unique among the living participants.
    pub(crate) fn seat(&self) -> Result<usize, JoinError> {
        Ok(self.enter()?.index().unwrap_or(0))
    }

    /// Takes back everything that dead participants held: their arrays, leases and seats. Then
    /// removes the names of arrays that were freed.
    pub(crate) fn reap(&self) -> Result<ReapReport, JoinError> {
        let me = self.enter()?;
        self.empty_inbox();
        let report = self.reap_seats(me)?;
        self.tidy_names(&report);
        Ok(report)
    }

    /// Removes the names of arrays that a reap has freed.
    pub(crate) fn tidy_names(&self, report: &ReapReport) {
        if self.untidy_names.replace(false) || report.names {
            self.above.forget_dead_names(self);
        }
    }

    /// Takes back everything that dead participants held, but leaves the names of freed arrays.
    pub(super) fn reap_seats(&self, me: SeatId) -> Result<ReapReport, JoinError> {
        seat::reap(&self.segment, me, self.above)
    }

    /// Returns the locks on seats that processes outside the crate hold; see [`ForeignLock`]. Reads
    /// `/proc` of all processes to name the holders.
    pub(crate) fn foreign_locks(&self) -> Vec<ForeignLock> {
        let seats = 0..self.segment.memory().layout().geometry.seats as usize;
        seats
            .filter_map(|seat| self.segment.foreign_lock(seat))
            .collect()
    }

    /// Makes an array outlive its owner: it lives until a participant frees it.
    pub(crate) fn detach(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        let me = self.enter()?;
        let (slot, generation) = self.tables().usable(handle)?;
        slot.change(|word| word.detach(generation, me))
            .map(drop)
            .map_err(|word| self.not_ours(handle, generation, word))
    }

    /// Makes this participant the owner of an array that nobody or a dead participant owns. The
    /// array is freed when this participant leaves or dies, unless it is detached.
    pub(crate) fn adopt(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        let me = self.enter()?;
        let (slot, generation) = self.tables().usable(handle)?;
        self.footprint.add(slot.index);
        // Unowned → owned by `me`, by one compare-and-swap: one of several adopters succeeds.
        let adopt_from = |from| slot.change(|word| word.adopt(generation, from, me));
        let Err(word) = adopt_from(SeatId::NONE) else {
            return Ok(());
        };
        let owner = word.owner();
        if !word.is_live(generation) || !word.is_owned_by(owner) || owner == me {
            return Err(self.not_ours(handle, generation, word));
        }
        // With the lock of a dead owner's seat we act for the owner, and no reaper does.
        match seat::acting_for_the_dead(&self.segment, owner, me, || adopt_from(owner))? {
            Some(outcome) => outcome
                .map(drop)
                .map_err(|word| self.not_ours(handle, generation, word)),
            None => Err(self.not_ours(handle, generation, slot.word())),
        }
    }

    /// Returns the error for a change of ownership that `word` refuses.
    #[cold]
    fn not_ours(&self, handle: AnyHandle, generation: u32, word: SlotWord) -> LeaseError {
        if !word.is_live(generation) {
            LeaseError::Stale { handle }
        } else if word.is_queued() {
            LeaseError::Queued { handle }
        } else {
            let owner = word.owner();
            LeaseError::Owned {
                handle,
                name: self.above.name_of(self, handle),
                pid: self.pid_of(owner),
                is_own: owner == self.own_seat(),
            }
        }
    }

    /// Declares the contents of a poisoned array good again. The caller has checked them (see
    /// [`attach`](crate::HandleTable::attach)) or is about to overwrite them. Use
    /// [`recover`](crate::HandleTable::recover) for exclusive access meanwhile.
    pub(crate) fn clear_poison(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.enter()?;
        self.change(handle.into(), SlotWord::clear_poison)
    }

    fn change(
        &self,
        handle: AnyHandle,
        next: impl Fn(SlotWord, u32) -> Option<SlotWord>,
    ) -> Result<(), LeaseError> {
        let (slot, generation) = self.tables().usable(handle)?;
        match slot.change(|word| next(word, generation)) {
            Ok(_) => Ok(()),
            Err(word) if word.is_live(generation) => Err(self.busy(handle, word.writer())),
            Err(_) => Err(LeaseError::Stale { handle }),
        }
    }

    pub(super) fn busy(&self, handle: AnyHandle, seat: SeatId) -> LeaseError {
        let pid = self.pid_of(seat);
        let seats = self.segment.memory().layout().geometry.seats as usize;
        let lock = seat
            .index()
            .filter(|&index| index < seats)
            .and_then(|index| self.segment.foreign_lock(index));
        let name = self.above.name_of(self, handle);
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
        seat::ParticipantInfo::of(self.segment.memory(), seat).pid
    }

    /// Returns the segment's tables.
    #[inline]
    pub(crate) fn tables(&self) -> TableView<'_> {
        TableView {
            memory: self.segment.memory(),
            key: self.segment.key(),
        }
    }

    /// Returns the slot and generation that a handle names, if the segment has such a slot.
    #[inline]
    pub(crate) fn slot(&self, handle: AnyHandle) -> Option<(Slot<'_>, u32)> {
        self.tables().slot(handle)
    }

    pub(crate) fn handle_of(&self, slot: SlotIndex, generation: u32) -> AnyHandle {
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

    /// Returns `true` if `token` is that of this process, whichever table it belongs to.
    pub(super) fn is_process(&self, token: u64) -> bool {
        self.process.is(token)
    }

    /// Returns the epoch of this participant's seat, which ends when the participant leaves.
    pub(crate) fn epoch(&self) -> u64 {
        seat::epoch(self.segment.memory(), self.own_seat())
    }

    /// Clears the poison of an array that this participant has leased exclusively.
    pub(super) fn heal(&self, slot: Slot<'_>, handle: AnyHandle) {
        let me = self.own_seat();
        let (_, generation) = handle.unpack(self.segment.key());
        // An error means that the array is not poisoned.
        let _ = slot.change(|word| word.heal(generation, me));
    }

    /// Returns the seat. The caller has [entered](crate::HandleTable::enter).
    pub(crate) fn own_seat(&self) -> SeatId {
        self.seat.get()
    }

    /// Returns the number by which this process knows the table; see `roster.rs`.
    pub(crate) fn number(&self) -> u64 {
        self.place.number()
    }

    /// Returns how many shared leases this participant has on a slot, its places in rounds
    /// included.
    pub(crate) fn shared_leases(&self, slot: SlotIndex) -> usize {
        let has_bit =
            Slot::of(self.segment.memory(), slot).is_some_and(|slot| slot.has_bit(self.own_seat()));
        let recursive = self.recursive.borrow().get(&slot).copied().unwrap_or(0);
        usize::from(has_bit) + recursive
    }

    pub(crate) fn name_cache(&self) -> &RefCell<NameCache> {
        &self.names
    }

    /// Makes the next reap look at the names if `needed` is set.
    pub(crate) fn tidy_names_later(&self, needed: bool) {
        self.untidy_names.set(self.untidy_names.get() || needed);
    }

    /// Notes that this participant has named something in `bucket`.
    pub(crate) fn remember_named(&self, bucket: BucketIndex) {
        self.named.borrow_mut().insert(bucket);
    }

    /// Returns the noted buckets and clears the note.
    pub(crate) fn take_named(&self) -> BTreeSet<BucketIndex> {
        self.named.take()
    }

    pub(crate) fn token(&self) -> u64 {
        self.token.get()
    }

    /// Ends like an exiting process: the seat is not released, so others reap it.
    #[cfg(loom)]
    pub(crate) fn exit_without_leaving(&self) {
        self.token.set(0);
    }

    /// Takes a seat for a child at its first use of a table that crossed a fork.
    #[cold]
    fn join_again(&self) -> Result<SeatId, JoinError> {
        let token = segment::fork::process_token();
        if self.segment.token() != token {
            self.segment.rebind()?;
        }
        let seat = seat::join(&self.segment, self.above)?;
        // The parent's records belong to the parent.
        self.footprint.clear();
        self.renew_cache();
        self.recursive.borrow_mut().clear();
        self.pins.borrow_mut().clear();
        self.named.borrow_mut().clear();
        self.inbox.replace(Inbox::new());
        self.seat.set(seat);
        self.token.set(token);
        self.place.set(seat, token);
        Ok(seat)
    }

    fn renew_cache(&self) {
        let mut cache = self.cache.borrow_mut();
        let is_deferring = cache.is_deferring();
        *cache = Cache::new(self.segment.retain_limits());
        if is_deferring {
            cache.defer();
        }
    }

    /// Leaves it to the caller to give pages back to the system, by
    /// [`take_deferred`](Core::take_deferred) after each call.
    pub(crate) fn defer_cleaning(&self) {
        self.cache.borrow_mut().defer();
    }

    /// Returns the slots to clean: the caller gives their pages back now.
    pub(crate) fn take_deferred(&self) -> Vec<Cleaning> {
        self.cache.borrow_mut().take_deferred()
    }

    #[inline]
    pub(super) fn allocator<'a, 'c>(
        &'a self,
        cache: &'c mut Cache,
        me: SeatId,
    ) -> Allocator<'a, 'c> {
        Allocator {
            segment: &self.segment,
            cache,
            me,
        }
    }

    /// Enters every free slot that only this participant knows of in the hints. Gives their pages
    /// back as far as the segment retains enough already.
    fn leave_cache(&self) {
        let mut cache = self.cache.borrow_mut();
        let (recent, filling) = cache.drain();
        self.share_spans(filling);
        let mut allocator = self.allocator(&mut cache, self.seat.get());
        for freed in recent {
            allocator.share(
                SlotIndex::new(freed.slot as usize),
                freed.word,
                freed.extent,
            );
        }
        allocator.report_shared();
        for cleaning in cache.take_deferred() {
            cleaning.run(&self.segment, self.seat.get());
        }
    }

    /// Notes that the pages of all free extents were given back.
    pub(crate) fn forget_shared(&self) {
        self.cache.borrow_mut().forget_shared();
    }

    /// Enters every free slot that only this participant knows of in the hints. The caller gives
    /// their pages back.
    pub(crate) fn share_cache(&self) {
        let hints = Hints::of(self.segment.memory());
        let (recent, filling) = self.cache.borrow_mut().drain();
        for freed in recent {
            hints.set(freed.extent.class, SlotIndex::new(freed.slot as usize));
        }
        self.share_spans(filling);
    }

    /// Enters the rest of the spans that this participant was filling in the hints.
    fn share_spans(&self, filling: Vec<Filling>) {
        let memory = self.segment.memory();
        let hints = Hints::of(memory);
        for filling in filling {
            for position in filling.next..filling.span.count {
                let slot = filling.span.slot(&memory.layout().geometry, position);
                hints.set(filling.span.class, slot);
            }
        }
    }

    /// Enters a slot in the hints if the caller's release check has made it FREE.
    #[inline]
    pub(crate) fn hint_if_freed(&self, slot: SlotIndex, tail: ReleaseOutcome) {
        if let Some(word) = tail.freed(self.segment.memory(), slot) {
            self.push_free_hint(slot, word);
        }
    }

    #[cold]
    pub(super) fn push_free_hint(&self, slot: SlotIndex, word: SlotWord) {
        if let Some(extent) = Spans::of(self.segment.memory()).extent(slot) {
            self.allocator(&mut self.cache.borrow_mut(), self.seat.get())
                .push_free_hint(slot, word, extent);
        }
    }
}
