//! Leases of whole arrays: the recorded right to read or to write.

use ndarray::{ArrayViewMut, Dimension};

use super::HandleTable;
use super::attach::Located;
use super::slot::{Refused, Shared, Slot, Tail};
use crate::array::{ReadGuard, WriteGuard};
use crate::descriptor::{HalfWritten, PoisonNote};
use crate::element::Element;
use crate::error::LeaseError;
use crate::handle::{AnyHandle, Handle};
use crate::names;
use crate::partition::control::Control;
use crate::queue;
use crate::word::Purpose;

impl HandleTable {
    /// Leases an array for reading: until the guard is dropped nobody writes it, in any process.
    ///
    /// Any number of participants may read at once, and one may hold several guards. Arrays of
    /// `bool` are scanned for bytes that are no `bool`.
    ///
    /// # Errors
    /// - [`LeaseError::Stale`], [`LeaseError::TypeMismatch`].
    /// - [`LeaseError::Busy`] while somebody writes it. Nobody is waited for. Of those who try at
    ///   the same moment, some to read and one to write, all may be told `Busy`; and so may a
    ///   participant that reads already and asks again while somebody tries to write.
    /// - [`LeaseError::Poisoned`] after a writer has died or panicked.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub fn read<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<ReadGuard<'_, T, D>, LeaseError> {
        let handle = AnyHandle::from(handle);
        let (slot, shared) = self.take_shared(handle)?;
        // Before there is a value that gives the lease back: it would be kept in memory.
        match self.locate_checked(slot, handle) {
            Ok(located) => Ok(ReadGuard::new(
                self.shared_lease(slot, handle, shared),
                located,
            )),
            Err(error) => {
                drop(self.shared_lease(slot, handle, shared));
                Err(error)
            }
        }
    }

    /// Leases an array for writing: until the guard is dropped nobody else reads or writes it.
    ///
    /// A guard that is dropped by a panic, or that dies with its process, poisons the array.
    ///
    /// # Errors
    /// As [`read`](HandleTable::read); [`LeaseError::Busy`] also while somebody reads, this
    /// participant included.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub fn write<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<WriteGuard<'_, T, D>, LeaseError> {
        let handle = AnyHandle::from(handle);
        let slot = self.take_exclusive(handle, Purpose::Write)?;
        // As in `read`.
        match self.locate_checked(slot, handle) {
            Ok(located) => Ok(WriteGuard::new(
                self.exclusive_lease(slot, handle, Purpose::Write),
                located,
            )),
            Err(error) => {
                drop(self.exclusive_lease(slot, handle, Purpose::Write));
                Err(error)
            }
        }
    }

    /// Leases an array that is poisoned, shows it to `look`, who sees to it that its contents are
    /// good, and takes the poison away. In one step for everybody else: nobody has the array in
    /// between. One that is not poisoned is shown as well.
    ///
    /// Where the contents need not be looked at, [`clear_poison`](HandleTable::clear_poison) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, LeaseError, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(3)?;
    /// # let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
    /// #     let mut half = table.write(x).unwrap();
    /// #     half[0] = f64::NAN;
    /// #     std::panic::resume_unwind(Box::new(()));
    /// # }));
    /// if let Err(LeaseError::Poisoned { pid, what, .. }) = table.read(x) {
    ///     eprintln!("process {pid} was writing {what}");
    ///     let repaired = table.recover(x, |mut view| {
    ///         let bad = view.iter_mut().filter(|x| x.is_nan());
    ///         bad.map(|x| *x = 0.0).count()
    ///     })?;
    ///     assert_eq!(repaired, 1);
    /// }
    /// assert_eq!(table.read(x)?.sum(), 0.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](HandleTable::write), but for `Poisoned`. [`LeaseError::InvalidElement`] if bytes
    /// are no values of `T`: then the array stays as it is, and can only be freed.
    ///
    /// # Panics
    /// If `look` does; the array then is poisoned still.
    #[cfg_attr(loom, track_caller)]
    pub fn recover<T: Element, D: Dimension, R>(
        &self,
        handle: Handle<T, D>,
        look: impl FnOnce(ArrayViewMut<'_, T, D>) -> R,
    ) -> Result<R, LeaseError> {
        let lease = self.lease_exclusive(AnyHandle::from(handle), Purpose::Recover)?;
        let located = self.locate_checked(lease.slot, lease.handle)?;
        let mut guard = WriteGuard::new(lease, located);
        let seen = look(guard.view_mut());
        guard.heal();
        Ok(seen)
    }

    pub(crate) fn lease_shared(&self, handle: AnyHandle) -> Result<SharedLease<'_>, LeaseError> {
        let (slot, shared) = self.take_shared(handle)?;
        Ok(self.shared_lease(slot, handle, shared))
    }

    pub(crate) fn lease_exclusive(
        &self,
        handle: AnyHandle,
        purpose: Purpose,
    ) -> Result<ExclusiveLease<'_>, LeaseError> {
        let slot = self.take_exclusive(handle, purpose)?;
        Ok(self.exclusive_lease(slot, handle, purpose))
    }

    /// Keeps the slot of a bundle, which the caller is about to free, from being another's until the
    /// result is dropped. `None` if there is no bundle.
    pub(crate) fn keep_bundle<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
    ) -> Option<SharedLease<'t>> {
        if !names::is_bundle(self.segment.memory(), slot) {
            return None;
        }
        let (_, generation) = handle.unpack(self.segment.key());
        let shared = slot.keep(generation, self.own_seat())?;
        Some(self.shared_lease(slot, handle, shared))
    }

    /// As [`HandleTable::keep_bundle`], for a queue that owns arrays.
    pub(crate) fn keep_queue<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
    ) -> Option<SharedLease<'t>> {
        if !queue::owns_arrays(self.segment.memory(), slot) {
            return None;
        }
        let (_, generation) = handle.unpack(self.segment.key());
        let shared = slot.keep(generation, self.own_seat())?;
        Some(self.shared_lease(slot, handle, shared))
    }

    /// Takes a shared lease; the caller makes the value that gives it back.
    #[inline(always)]
    fn take_shared(&self, handle: AnyHandle) -> Result<(Slot<'_>, Shared), LeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle });
        };
        match slot.lock_shared(generation, me) {
            Ok(shared) => Ok((slot, shared)),
            Err((why, tail)) => Err(self.refuse(slot, handle, why, tail)),
        }
    }

    /// Takes an exclusive lease; the caller makes the value that gives it back.
    #[inline(always)]
    fn take_exclusive(&self, handle: AnyHandle, purpose: Purpose) -> Result<Slot<'_>, LeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle });
        };
        match slot.lock_exclusive(generation, me, purpose) {
            Ok(()) => Ok(slot),
            Err((why, tail)) => Err(self.refuse(slot, handle, why, tail)),
        }
    }

    /// [`HandleTable::locate`], and a look at the elements. The caller has a lease.
    #[inline(always)]
    fn locate_checked<T: Element, D: Dimension>(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
    ) -> Result<Located<T, D>, LeaseError> {
        let located = self.locate(slot, handle)?;
        located.check(handle)?;
        Ok(located)
    }

    /// What is left to do after a refused lease, and the error.
    #[cold]
    fn refuse(&self, slot: Slot<'_>, handle: AnyHandle, why: Refused, tail: Tail) -> LeaseError {
        self.follow(slot, tail);
        self.lease_error(handle, slot, why)
    }

    /// The place of a participant in a round, on an array that the round writes.
    pub(crate) fn lease_tiles(
        &self,
        slot: usize,
        generation: u32,
        opener: crate::word::SeatId,
    ) -> Result<SharedLease<'_>, LeaseError> {
        let me = self.enter()?;
        let handle = self.handle_of(slot, generation);
        let slot = Slot::of(self.segment.memory(), slot).ok_or(LeaseError::Stale { handle })?;
        match slot.lock_tiles(generation, opener, me) {
            Ok(shared) => Ok(self.shared_lease(slot, handle, shared)),
            Err((why, tail)) => Err(self.refuse(slot, handle, why, tail)),
        }
    }

    #[inline(always)]
    fn shared_lease<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
        shared: Shared,
    ) -> SharedLease<'t> {
        if shared == Shared::Again {
            *self.again.borrow_mut().entry(slot.index).or_insert(0) += 1;
        }
        SharedLease {
            table: self,
            slot,
            handle,
            token: self.token(),
        }
    }

    #[inline(always)]
    fn exclusive_lease<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
        purpose: Purpose,
    ) -> ExclusiveLease<'t> {
        ExclusiveLease {
            table: self,
            slot,
            handle,
            round: purpose == Purpose::Round,
            token: self.token(),
            panicking: std::thread::panicking(),
        }
    }

    /// Poisons the arrays that the tiles of a partition write. The caller holds a tile.
    pub(crate) fn poison_written(&self, control: &Control<'_>) {
        let memory = self.segment.memory();
        for (index, generation) in control.written() {
            let Some(slot) = Slot::of(memory, index) else {
                continue;
            };
            // Who was first has said who it was. An error says that the array was freed meanwhile.
            let word = slot.word();
            if word.is_live(generation) && !word.is_poisoned() {
                let note = PoisonNote::now(std::process::id(), HalfWritten::Tiles);
                note.store(memory.descriptor(index));
                let _ = slot.change(|word| word.poison(generation));
            }
        }
    }

    /// Whether one more lease than the seat's bit stands for was held, and is given back now.
    #[inline]
    fn drop_again(&self, slot: usize) -> bool {
        let mut again = self.again.borrow_mut();
        if again.is_empty() {
            return false;
        }
        let Some(count) = again.get_mut(&slot) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            again.remove(&slot);
        }
        true
    }
}

/// A shared lease, or a place in a round; given back on drop.
pub(crate) struct SharedLease<'t> {
    table: &'t HandleTable,
    pub(crate) slot: Slot<'t>,
    pub(crate) handle: AnyHandle,
    token: u64,
}

impl<'t> SharedLease<'t> {
    pub(crate) fn table(&self) -> &'t HandleTable {
        self.table
    }

    /// Returns `true` in the process that took the lease, and `false` in a child of it.
    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        self.table.is_of(self.token)
    }

    /// Parts the lease from the borrow of its table. It lasts until the table [resumes] and drops it.
    ///
    /// [resumes]: HandleTable::resume
    #[cfg(feature = "arrow")]
    pub(crate) fn part(self) -> PartedLease {
        let lease = core::mem::ManuallyDrop::new(self);
        PartedLease {
            slot: lease.slot.index,
            handle: lease.handle,
            token: lease.token,
        }
    }
}

/// A shared lease without the borrow of its table. Dropping it gives nothing back.
#[cfg(feature = "arrow")]
#[must_use = "the lease lasts until the table resumes it"]
pub(crate) struct PartedLease {
    slot: usize,
    handle: AnyHandle,
    token: u64,
}

#[cfg(feature = "arrow")]
impl HandleTable {
    /// Returns the lease that was parted from this table.
    pub(crate) fn resume(&self, parted: PartedLease) -> Option<SharedLease<'_>> {
        Some(SharedLease {
            table: self,
            slot: Slot::of(self.segment.memory(), parted.slot)?,
            handle: parted.handle,
            token: parted.token,
        })
    }
}

impl Drop for SharedLease<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // A lease that crossed a fork is the parent's.
        if self.is_ours() && !self.table.drop_again(self.slot.index) {
            let tail = self.slot.unlock_shared(self.table.seat.get());
            self.table.follow(self.slot, tail);
        }
    }
}

/// An exclusive lease; given back on drop.
pub(crate) struct ExclusiveLease<'t> {
    table: &'t HandleTable,
    pub(crate) slot: Slot<'t>,
    pub(crate) handle: AnyHandle,
    round: bool,
    token: u64,
    /// A panic was under way already when the lease was taken: it says nothing of this array.
    panicking: bool,
}

impl<'t> ExclusiveLease<'t> {
    pub(crate) fn table(&self) -> &'t HandleTable {
        self.table
    }

    /// Takes the poison off the array that this lease is for.
    pub(crate) fn heal(&self) {
        let me = self.table.seat.get();
        let (_, generation) = self.handle.unpack(self.table.segment.key());
        // Nothing to do if it is not poisoned.
        let _ = self.slot.change(|word| word.heal(generation, me));
    }

    #[cold]
    fn drop_slowly(&self) {
        let (slot, me) = (self.slot, self.table.seat.get());
        let poison = !self.panicking && std::thread::panicking();
        let tail = if self.round {
            // The round ends early: participants may still hold tiles. What is half-done by a
            // round that was given up is for its opener to know; only a death poisons.
            slot.orphan(me, false)
        } else {
            if poison {
                let words = self.table.segment.memory().descriptor(slot.index);
                PoisonNote::now(std::process::id(), HalfWritten::Array).store(words);
            }
            slot.unlock_exclusive(me, poison)
        };
        self.table.follow(slot, tail);
    }

    /// Gives back the lease of a round that is over: all of its tiles are done or torn, and a torn
    /// one has poisoned the array already.
    pub(crate) fn end_round(mut self) {
        self.round = false;
    }
}

impl Drop for ExclusiveLease<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.table.is_of(self.token) {
            return;
        }
        // A panic is the exception, and a round lasts long.
        if self.round || std::thread::panicking() {
            return self.drop_slowly();
        }
        let tail = self.slot.unlock_exclusive(self.table.seat.get(), false);
        self.table.follow(self.slot, tail);
    }
}
