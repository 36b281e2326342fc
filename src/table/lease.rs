//! Leases of whole arrays: the recorded right to read or to write.

use ndarray::Dimension;

use super::core::Core;
use super::locate::Located;
use super::recursive::Released;
use super::slot::{Hindered, Refused, ReleaseOutcome, Shared, Slot, Turned};
use super::wait_word::WaitWord;
use crate::descriptor::{HalfWritten, PoisonNote, WrongKind};
use crate::element::{Element, schema};
use crate::handle::AnyHandle;
use crate::table::error::{BoxedLeaseError, LeaseError};
use crate::word::{Purpose, SeatId, SlotIndex};

impl Core {
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

    /// Keeps a slot that the caller is about to retire from being reused, until the result is
    /// dropped. Returns `None` if the array was freed meanwhile.
    pub(super) fn hold_for_retire<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
    ) -> Option<SharedLease<'t>> {
        let (_, generation) = handle.unpack(self.segment.key());
        self.footprint.add(slot.index);
        let shared = slot.hold_for_retire(generation, self.own_seat())?;
        Some(self.shared_lease(slot, handle, shared))
    }

    /// Takes a shared lease. The caller builds the value that releases it.
    #[inline(always)]
    pub(super) fn take_shared(
        &self,
        handle: AnyHandle,
    ) -> Result<(Slot<'_>, Shared), BoxedLeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle }.into());
        };
        self.footprint.add(slot.index);
        match slot.try_shared(generation, me) {
            Ok(shared) => Ok((slot, shared)),
            Err(turned) => Err(self.turned_away(handle, turned)),
        }
    }

    /// Finishes an attempt that was turned away, and returns its error. Finds the slot again: a slot
    /// that is passed on would be written to memory for every lease.
    #[cold]
    fn turned_away(&self, handle: AnyHandle, turned: Turned) -> BoxedLeaseError {
        let Some((slot, generation)) = self.slot(handle) else {
            return LeaseError::Stale { handle }.into();
        };
        let (why, tail) = slot.turned_away(turned, generation, self.own_seat());
        self.refuse(handle, why, tail)
    }

    /// Finishes an attempt that was hindered, as [`turned_away`](Core::turned_away) does.
    #[cold]
    fn hindered(&self, handle: AnyHandle, by: Hindered) -> BoxedLeaseError {
        let Some((slot, generation)) = self.slot(handle) else {
            return LeaseError::Stale { handle }.into();
        };
        let (why, tail) = slot.hindered(by, generation, self.own_seat());
        self.refuse(handle, why, tail)
    }

    /// Takes an exclusive lease. The caller builds the value that releases it.
    #[inline(always)]
    pub(super) fn take_exclusive(
        &self,
        handle: AnyHandle,
        purpose: Purpose,
    ) -> Result<Slot<'_>, BoxedLeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle }.into());
        };
        self.footprint.add(slot.index);
        match slot.try_exclusive(generation, me, purpose) {
            Ok(()) => {
                if purpose == Purpose::Recover {
                    self.note_half_written(slot);
                }
                Ok(slot)
            }
            Err(by) => Err(self.hindered(handle, by)),
        }
    }

    /// Notes that this participant may write all of a poisoned array, which it has leased: from
    /// here on torn tiles do not account for the poison.
    pub(super) fn note_half_written(&self, slot: Slot<'_>) {
        let words = self.segment.memory().descriptor(slot.index);
        PoisonNote::now(std::process::id(), HalfWritten::Array).store(words);
    }

    /// Takes a shared lease, also of a poisoned array. The caller must not look at half-written
    /// elements.
    pub(crate) fn lease_poisoned(&self, handle: AnyHandle) -> Result<SharedLease<'_>, LeaseError> {
        let me = self.enter()?;
        let (slot, generation) = self.slot(handle).ok_or(LeaseError::Stale { handle })?;
        self.footprint.add(slot.index);
        match slot.lock_poisoned(generation, me) {
            Ok(shared) => Ok(self.shared_lease(slot, handle, shared)),
            Err((why, tail)) => Err(self.refuse(handle, why, tail).into()),
        }
    }

    /// Calls [`Core::locate`] and checks the elements. The caller has a lease.
    #[inline(always)]
    pub(super) fn locate_checked<T: Element, D: Dimension>(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
    ) -> Result<Located<T, D>, BoxedLeaseError> {
        let located = self.locate(slot, handle)?;
        located.check(handle)?;
        Ok(located)
    }

    /// Reads and checks the descriptor. The caller has a lease, or validates afterwards.
    #[inline(always)]
    pub(crate) fn locate<T: Element, D: Dimension>(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
    ) -> Result<Located<T, D>, BoxedLeaseError> {
        let same_schema = |index, text: &'static str| self.is_record::<T>(index, text);
        self.tables().locate(slot, handle, same_schema)
    }

    /// Returns `true` if the layout at `index` is that of record `T`, with this `text`.
    pub(crate) fn is_record<T: Element>(&self, index: u16, text: &str) -> bool {
        let record = core::any::TypeId::of::<T>();
        if self.schemas.borrow().get(&record) == Some(&index) {
            return true;
        }
        let same = schema::schema_index_matches(self.segment.memory(), index, text);
        if same {
            self.schemas.borrow_mut().insert(record, index);
        }
        same
    }

    /// Finishes a refused lease or pin, and returns its error.
    #[cold]
    pub(super) fn refuse(
        &self,
        handle: AnyHandle,
        why: Refused,
        tail: ReleaseOutcome,
    ) -> BoxedLeaseError {
        let (slot, _) = handle.unpack(self.segment.key());
        self.hint_if_freed(slot, tail);
        self.lease_error(handle, slot, why).into()
    }

    #[cold]
    fn lease_error(&self, handle: AnyHandle, slot: SlotIndex, why: Refused) -> LeaseError {
        match why {
            Refused::Stale => LeaseError::Stale { handle },
            Refused::Busy(seat) => self.busy(handle, seat),
            Refused::Control => WrongKind::control(handle).into(),
            Refused::Poisoned => self.poisoned(handle, slot),
        }
    }

    /// Returns the error of an array that is poisoned.
    #[cold]
    pub(crate) fn poisoned(&self, handle: AnyHandle, slot: SlotIndex) -> LeaseError {
        let note = PoisonNote::load(self.segment.memory().descriptor(slot));
        let rows = note
            .torn_in
            .map(|at| self.above.torn_rows(self, at, handle));
        LeaseError::Poisoned {
            handle,
            name: self.above.name_of(self, handle),
            pid: note.pid,
            unix_time: note.time,
            what: note.what,
            rows: rows.unwrap_or_default(),
        }
    }

    /// Takes a shared lease for a participant in a round of `opener`, on an array that the round
    /// reads. The caller then looks if the round still runs.
    pub(crate) fn lease_in_round(
        &self,
        handle: AnyHandle,
        opener: SeatId,
    ) -> Result<SharedLease<'_>, LeaseError> {
        let me = self.enter()?;
        let (slot, generation) = self.slot(handle).ok_or(LeaseError::Stale { handle })?;
        self.footprint.add(slot.index);
        let mut taken = slot.lock_shared(generation, me);
        if let Err((Refused::Busy(_), tail)) = taken {
            self.hint_if_freed(slot.index, tail);
            taken = slot.lock_beside(generation, opener, me);
        }
        match taken {
            Ok(shared) => Ok(self.shared_lease(slot, handle, shared)),
            Err((why, tail)) => Err(self.refuse(handle, why, tail).into()),
        }
    }

    /// Takes a participant's place in a round, on an array that the round writes.
    pub(crate) fn lease_tiles(
        &self,
        slot: SlotIndex,
        generation: u32,
        opener: SeatId,
    ) -> Result<SharedLease<'_>, LeaseError> {
        let me = self.enter()?;
        let handle = self.handle_of(slot, generation);
        let slot = Slot::of(self.segment.memory(), slot).ok_or(LeaseError::Stale { handle })?;
        self.footprint.add(slot.index);
        match slot.lock_tiles(generation, opener, me) {
            Ok(shared) => Ok(self.shared_lease(slot, handle, shared)),
            Err((why, tail)) => Err(self.refuse(handle, why, tail).into()),
        }
    }

    #[inline(always)]
    pub(super) fn shared_lease<'t>(
        &'t self,
        slot: Slot<'t>,
        handle: AnyHandle,
        shared: Shared,
    ) -> SharedLease<'t> {
        if shared == Shared::Recursive {
            self.recursive.add(slot.index);
        }
        SharedLease {
            table: self,
            slot,
            handle,
            token: self.token(),
        }
    }

    #[inline(always)]
    pub(super) fn exclusive_lease<'t>(
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

    /// Releases one lease beyond the seat's bit. Returns `false` if there is none.
    pub(super) fn release_recursive(&self, slot: SlotIndex) -> bool {
        if !self.recursive.any() {
            return false;
        }
        match self.recursive.release(slot) {
            Released::None => false,
            Released::Last => {
                self.own_releases.count();
                true
            }
            Released::OneOfMany => true,
        }
    }

    /// Returns the word on which to sleep until a lease of this seat ends that leaves its bit set.
    pub(super) fn wait_word_of_own_leases(&self) -> WaitWord {
        self.own_releases.wait_word()
    }

    /// Returns `true` if the seat has more leases on a slot than its bit tells.
    pub(super) fn has_recursive(&self, slot: SlotIndex) -> bool {
        self.recursive.of(slot) > 0
    }
}

/// A shared lease, or a place in a round. Dropping it releases it.
pub(crate) struct SharedLease<'t> {
    table: &'t Core,
    pub(crate) slot: Slot<'t>,
    pub(crate) handle: AnyHandle,
    token: u64,
}

impl<'t> SharedLease<'t> {
    pub(crate) fn table(&self) -> &'t Core {
        self.table
    }

    /// Returns `true` in the process that took the lease, and `false` in a child of it.
    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        self.table.is_of(self.token)
    }

    /// Makes a drop do nothing: the lease lasts until its participant leaves or dies.
    pub(crate) fn keep(&mut self) {
        self.token = !self.token;
    }

    /// Detaches the lease from the borrow of its table. It lasts until the table [resumes] and
    /// drops it.
    ///
    /// [resumes]: Core::resume
    pub(crate) fn part(self) -> PartedLease {
        core::mem::ManuallyDrop::new(self).parted()
    }

    /// Returns what [`part`](SharedLease::part) does. The caller forgets this value.
    pub(crate) fn parted(&self) -> PartedLease {
        PartedLease {
            slot: self.slot.index,
            handle: self.handle,
            token: self.token,
        }
    }
}

/// Takes a list of leases, and detaches each from the borrow of its table.
pub(crate) fn part_all(leases: &mut Vec<SharedLease<'_>>) -> Vec<PartedLease> {
    let leases = core::mem::take(leases);
    leases.into_iter().map(SharedLease::part).collect()
}

/// A lease without the borrow of its table: a shared one, or the exclusive one of a round. Dropping
/// it does not release the lease.
#[must_use = "the lease lasts until the table resumes it"]
pub(crate) struct PartedLease {
    slot: SlotIndex,
    handle: AnyHandle,
    token: u64,
}

impl PartedLease {
    pub(crate) fn slot(&self) -> SlotIndex {
        self.slot
    }
}

impl Core {
    /// Returns the lease that was detached from this table.
    pub(crate) fn resume(&self, parted: PartedLease) -> Option<SharedLease<'_>> {
        Some(SharedLease {
            table: self,
            slot: Slot::of(self.segment.memory(), parted.slot)?,
            handle: parted.handle,
            token: parted.token,
        })
    }
}

impl SharedLease<'_> {
    /// Releases the lease if it is this process's.
    #[cold]
    fn drop_slowly(&self) {
        // A lease that crossed a fork belongs to the parent.
        if self.is_ours() && !self.table.release_recursive(self.slot.index) {
            let tail = self.slot.unlock_shared(self.table.seat.get());
            self.table.hint_if_freed(self.slot.index, tail);
        }
    }
}

impl Drop for SharedLease<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let table = self.table;
        // Out of line: a call after which this function goes on costs every release saved registers.
        if !table.is_plainly_of(self.token) || table.recursive.any() {
            return self.drop_slowly();
        }
        let tail = self.slot.unlock_shared(table.seat.get());
        table.hint_if_freed(self.slot.index, tail);
    }
}

impl Core {
    /// Returns the lease of a round that was detached from this table.
    pub(crate) fn resume_round(&self, parted: PartedLease) -> Option<ExclusiveLease<'_>> {
        Some(ExclusiveLease {
            table: self,
            slot: Slot::of(self.segment.memory(), parted.slot)?,
            handle: parted.handle,
            round: true,
            token: parted.token,
            panicking: std::thread::panicking(),
        })
    }
}

/// An exclusive lease. Dropping it releases it.
pub(crate) struct ExclusiveLease<'t> {
    table: &'t Core,
    pub(crate) slot: Slot<'t>,
    pub(crate) handle: AnyHandle,
    round: bool,
    token: u64,
    /// A panic was already under way when the lease was taken, so it says nothing of this array.
    panicking: bool,
}

impl<'t> ExclusiveLease<'t> {
    pub(crate) fn table(&self) -> &'t Core {
        self.table
    }

    /// Leases the array to repair torn tiles. Releasing such a lease, also by a panic, leaves the
    /// poison as it is, and its note.
    pub(crate) fn for_mending(mut self) -> Self {
        self.panicking = true;
        self
    }

    /// Releases the lease and clears the poison, by one step.
    pub(crate) fn mended(self) {
        let lease = core::mem::ManuallyDrop::new(self);
        if lease.table.is_of(lease.token) {
            let tail = lease.slot.mend(lease.table.seat.get());
            lease.table.hint_if_freed(lease.slot.index, tail);
        }
    }

    /// Clears the poison of the leased array.
    pub(crate) fn heal(&self) {
        self.table.heal(self.slot, self.handle);
    }

    #[cold]
    fn drop_slowly(&self) {
        // A lease that crossed a fork belongs to the parent.
        if !self.table.is_of(self.token) {
            return;
        }
        let (slot, me) = (self.slot, self.table.seat.get());
        let poison = !self.panicking && std::thread::panicking();
        let tail = if self.round {
            // The round ends early, and participants may still hold tiles. The opener knows that a
            // dropped round is half-done; only a death poisons.
            slot.orphan(me, false)
        } else {
            if poison {
                let words = self.table.segment.memory().descriptor(slot.index);
                PoisonNote::now(std::process::id(), HalfWritten::Array).store(words);
            }
            slot.unlock_exclusive(me, poison)
        };
        self.table.hint_if_freed(slot.index, tail);
    }

    /// Detaches the lease of a round from the borrow of its table, as [`SharedLease::part`] does.
    pub(crate) fn part_round(self) -> PartedLease {
        let lease = core::mem::ManuallyDrop::new(self);
        PartedLease {
            slot: lease.slot.index,
            handle: lease.handle,
            token: lease.token,
        }
    }

    /// Releases the lease of a round that is over. All of its tiles are done or torn, and a torn
    /// tile has already poisoned the array.
    pub(crate) fn end_round(mut self) {
        self.round = false;
    }
}

impl Drop for ExclusiveLease<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Out of line: panics are rare, and a round lasts long.
        if !self.table.is_plainly_of(self.token) || self.round || std::thread::panicking() {
            return self.drop_slowly();
        }
        let tail = self.slot.unlock_exclusive(self.table.seat.get(), false);
        self.table.hint_if_freed(self.slot.index, tail);
    }
}
