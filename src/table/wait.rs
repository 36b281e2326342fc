//! Waiting for a lease: sleeps of bounded length on the slot word.
//!
//! `README.md` beside this file has the steps, and argues that no wake-up is lost. A waiter takes
//! its steps by [`Core::look`] and sleeps in between. It needs no table for the sleep, so a
//! `SharedTable` sleeps without its lock.

use core::time::Duration;

use super::core::Core;
use super::locked::{Locked, Mode, Stay, Ticket};
use super::slot::{Refused, Shared, Slot};
use super::wait_word::WaitWord;
use crate::handle::AnyHandle;
use crate::memory::Memory;
use crate::seat::{JoinError, REAP_INTERVAL};
use crate::sync::spin;
use crate::sync::time::Instant;
use crate::table::error::LeaseError;
use crate::word::{Purpose, SeatId, SlotIndex};

/// Spin turns that yield the processor, after those that keep it.
const YIELDS: u32 = 100;

/// The state of one wait for a lease.
pub(crate) struct Waiter {
    handle: AnyHandle,
    mode: Mode,
    timeout: Duration,
    start: Instant,
    /// The last reap, if there was one.
    looked: Option<Instant>,
    /// Several threads may hold leases of this seat.
    is_shared: bool,
    /// The slot that the waiter has put its seat into as the writer, with its mark, and the
    /// participant that did.
    announced: Option<(SlotIndex, Stay)>,
    /// The holder for whom it waits.
    holder: SeatId,
}

/// The result of one look.
pub(crate) enum Look<'t> {
    /// The lease holds. For an exclusive lease the second value means nothing.
    Taken(Slot<'t>, Shared),
    /// Sleep, and look again.
    NotYet(WaitWord),
}

/// The next step of a waiter after a look.
pub(crate) enum Next {
    /// Sleep for at most this long.
    Sleep(Duration),
    /// Reap dead participants: one of them may be the holder.
    Reap,
    TimedOut,
}

impl Waiter {
    pub(crate) fn new(handle: AnyHandle, mode: Mode, timeout: Duration, is_shared: bool) -> Waiter {
        Waiter {
            handle,
            mode,
            timeout,
            start: Instant::now(),
            looked: None,
            is_shared,
            announced: None,
            holder: SeatId::NONE,
        }
    }

    /// Returns the next step. Reaps once before the timeout: many short waits also notice a death.
    pub(crate) fn next(&mut self) -> Next {
        let now = Instant::now();
        let waited = now - self.start;
        let is_over = waited >= self.timeout;
        if is_over && self.looked.is_some() {
            return Next::TimedOut;
        }
        if is_over || now - self.looked.unwrap_or(self.start) >= REAP_INTERVAL {
            self.looked = Some(now);
            return Next::Reap;
        }
        Next::Sleep(REAP_INTERVAL.min(self.timeout.saturating_sub(waited)))
    }

    /// Spins for a moment, until the array looks as if it could be had. Sets no flag, so nobody pays
    /// for a wake-up.
    pub(crate) fn spin(&self, memory: &Memory, key: u64) {
        let (slot, _) = self.handle.unpack(key);
        let Some(slot) = Slot::of(memory, slot) else {
            return;
        };
        let is_free = || {
            let unwritten = slot.word().writer().is_none();
            let unread = self.mode == Mode::Read || slot.any_reader().is_none();
            (unwritten && unread).then_some(())
        };
        if !self.timeout.is_zero() {
            let _ = spin::pausing(is_free).or_else(|| spin::yielding(YIELDS, is_free, || true));
        }
    }

    /// Returns `true` if the waiter keeps others out: see [`Core::withdraw`].
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.is_some()
    }
}

/// Returns the purpose of an exclusive lease.
fn purpose(mode: Mode) -> Purpose {
    match mode {
        Mode::Recover => Purpose::Recover,
        Mode::Read | Mode::Write => Purpose::Write,
    }
}

impl Core {
    /// Leases an array, and waits for other leases to end. The caller builds the value that releases
    /// the lease. A model neither spins nor times out: a lost wake-up is a deadlock.
    #[cold]
    pub(super) fn wait_for(
        &self,
        handle: AnyHandle,
        mode: Mode,
        timeout: Duration,
    ) -> Result<(Slot<'_>, Shared), LeaseError> {
        let memory = self.segment.memory();
        let mut waiter = Waiter::new(handle, mode, timeout, false);
        waiter.spin(memory, self.segment.key());
        loop {
            let word = match self.look(&mut waiter)? {
                Look::Taken(slot, shared) => return Ok((slot, shared)),
                Look::NotYet(word) => word,
            };
            match waiter.next() {
                Next::Sleep(nap) => word.sleep(memory, nap),
                Next::Reap => {
                    let reaped = self.reap();
                    self.unless_failed(&mut waiter, reaped)?;
                }
                Next::TimedOut => return Err(self.timed_out(&mut waiter)),
            }
        }
    }

    /// Looks once if the lease can be had. After an error nothing is left of the waiter.
    pub(crate) fn look(&self, waiter: &mut Waiter) -> Result<Look<'_>, LeaseError> {
        let looked = match waiter.mode {
            Mode::Read => self.look_to_read(waiter),
            Mode::Write | Mode::Recover => self.look_to_write(waiter),
        };
        match &looked {
            Ok(Look::Taken(slot, _)) if waiter.mode == Mode::Recover => {
                self.note_half_written(*slot);
            }
            Ok(_) => {}
            Err(_) => self.withdraw(waiter),
        }
        looked
    }

    /// Withdraws the waiter if a reap before its next look has failed. Returns an error, too, if the
    /// holder is dead and cannot be reaped.
    pub(crate) fn unless_failed<R>(
        &self,
        waiter: &mut Waiter,
        reaped: Result<R, JoinError>,
    ) -> Result<(), LeaseError> {
        let error = match reaped {
            Err(error) => error.into(),
            Ok(_) => match self.busy(waiter.handle, waiter.holder) {
                blocked @ LeaseError::Blocked { .. } => blocked,
                _ => return Ok(()),
            },
        };
        self.withdraw(waiter);
        Err(error)
    }

    fn look_to_read(&self, waiter: &mut Waiter) -> Result<Look<'_>, LeaseError> {
        let handle = waiter.handle;
        let me = self.enter()?;
        // A lease of a value that was dropped is none of one's own.
        self.empty_inbox();
        let (slot, generation) = self.slot(handle).ok_or(LeaseError::Stale { handle })?;
        self.footprint.add(slot.index);
        loop {
            if !waiter.is_shared && slot.reads_already(generation, me) {
                return Ok(Look::Taken(slot, Shared::Recursive));
            }
            match slot.lock_shared(generation, me) {
                Ok(shared) => return Ok(Look::Taken(slot, shared)),
                Err((Refused::Busy(holder), tail)) => {
                    self.hint_if_freed(slot.index, tail);
                    waiter.holder = holder;
                }
                Err((why, tail)) => return Err(self.refuse(handle, why, tail).into()),
            }
            if !waiter.is_shared && slot.word().is_written_by(me) {
                return Err(self.deadlock(handle));
            }
            // `None`: the writer has gone since.
            if let Some(seen) = slot.wait(generation) {
                return Ok(Look::NotYet(WaitWord::Slot(slot.index, seen)));
            }
        }
    }

    fn look_to_write(&self, waiter: &mut Waiter) -> Result<Look<'_>, LeaseError> {
        let handle = waiter.handle;
        let me = self.enter()?;
        // A lease of a value that was dropped is none of one's own.
        self.empty_inbox();
        let (slot, generation) = self.slot(handle).ok_or(LeaseError::Stale { handle })?;
        self.footprint.add(slot.index);
        // A seat that the process has left is not acted for.
        waiter.announced = waiter.announced.filter(|(_, stay)| *stay == self.stay());
        loop {
            if waiter.is_announced() {
                return self.look_for_readers(waiter, slot, generation, me);
            }
            match slot.lock_exclusive(generation, me, purpose(waiter.mode)) {
                Ok(()) => return Ok(Look::Taken(slot, Shared::First)),
                Err((Refused::Busy(holder), tail)) => {
                    self.hint_if_freed(slot.index, tail);
                    waiter.holder = holder;
                }
                Err((why, tail)) => return Err(self.refuse(handle, why, tail).into()),
            }
            if !waiter.is_shared && (slot.word().is_written_by(me) || slot.has_bit(me)) {
                return Err(self.deadlock(handle));
            }
            if let Some(seen) = slot.wait(generation) {
                return Ok(Look::NotYet(WaitWord::Slot(slot.index, seen)));
            }
            // There is no writer: the array has readers, or had some.
            let (mark, announced) = slot.announce(generation, me, purpose(waiter.mode));
            let mark = self.shared_lease(slot, handle, mark);
            if announced {
                core::mem::forget(mark);
                waiter.announced = Some((slot.index, self.stay()));
            }
        }
    }

    /// Looks if the readers have gone for which the announced waiter waits.
    fn look_for_readers<'t>(
        &self,
        waiter: &mut Waiter,
        slot: Slot<'t>,
        generation: u32,
        me: SeatId,
    ) -> Result<Look<'t>, LeaseError> {
        let mut found = slot.any_other_reader(me);
        if found.is_some() {
            // Set the flag before the look that decides: a reader that goes later finds it.
            let _ = slot.wait(generation);
            found = slot.any_other_reader(me);
        }
        // After the look: a free that came before the last reader has gone is seen.
        if !slot.word().is_live(generation) {
            return Err(LeaseError::Stale {
                handle: waiter.handle,
            });
        }
        if let Some((reader, seen)) = found {
            waiter.holder = reader;
            return Ok(Look::NotYet(WaitWord::Row(slot.index, reader, seen)));
        }
        // A thread of this process may have a lease by the same bit.
        if self.has_recursive(slot.index) {
            waiter.holder = me;
            return Ok(Look::NotYet(self.wait_word_of_own_leases()));
        }
        // Before the first access: from here on a death poisons the array.
        slot.clear_bit(me);
        waiter.announced = None;
        Ok(Look::Taken(slot, Shared::First))
    }

    /// Removes the writer and the mark of a waiter, if it has announced them.
    pub(crate) fn withdraw(&self, waiter: &mut Waiter) {
        let Some((slot, stay)) = waiter.announced.take() else {
            return;
        };
        if !self.is_of(self.token()) || stay != self.stay() {
            return;
        }
        let Some(slot) = Slot::of(self.segment.memory(), slot) else {
            return;
        };
        // The writer first: a writer without its mark would count as one that writes.
        let tail = slot.unlock_exclusive(self.own_seat(), false);
        self.hint_if_freed(slot.index, tail);
        drop(self.shared_lease(slot, waiter.handle, Shared::First));
    }

    /// Returns the error of a wait that has ended after its timeout, and withdraws the waiter.
    #[cold]
    pub(crate) fn timed_out(&self, waiter: &mut Waiter) -> LeaseError {
        self.withdraw(waiter);
        match self.busy(waiter.handle, waiter.holder) {
            LeaseError::Busy { handle, name, pid } => LeaseError::TimedOut {
                handle,
                name,
                pid,
                waited: waiter.timeout.min(waiter.start.elapsed()),
            },
            blocked => blocked,
        }
    }

    #[cold]
    fn deadlock(&self, handle: AnyHandle) -> LeaseError {
        LeaseError::Deadlock {
            handle,
            name: self.above.name_of(self, handle),
        }
    }

    /// Leases an array as [`lock`](Core::lock) does, and waits for other leases to end.
    pub(crate) fn lock_timeout(
        &self,
        handle: AnyHandle,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Locked, LeaseError> {
        let ticket = match self.take(handle, mode) {
            Err(LeaseError::Busy { .. }) => {
                let (slot, shared) = self.wait_for(handle, mode, timeout)?;
                self.waited_ticket(slot, handle, mode, shared)
            }
            taken => taken?,
        };
        self.locked(ticket)
    }

    /// Returns the record of the lease that a waiter has taken.
    pub(crate) fn ticket(&self, slot: Slot<'_>, waiter: &Waiter, shared: Shared) -> Ticket {
        self.waited_ticket(slot, waiter.handle, waiter.mode, shared)
    }

    fn waited_ticket(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
        mode: Mode,
        shared: Shared,
    ) -> Ticket {
        if mode == Mode::Read {
            // Counted; the ticket releases it.
            core::mem::forget(self.shared_lease(slot, handle, shared));
        }
        self.ticket_of(slot.index, handle, mode)
    }
}
