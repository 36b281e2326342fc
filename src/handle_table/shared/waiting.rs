//! Leases of whole arrays that wait. The steps of a wait are taken under the lock; its sleeps are
//! not.

use std::ops::ControlFlow;
use std::time::Duration;

use ndarray::Dimension;

use super::SharedTable;
use super::guards::{
    Held, SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard, SharedWriteGuard,
};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::locate::Located;
use crate::table::locked::{Locked, Mode, Ticket};
use crate::table::wait::{Look, Next, Waiter};

impl SharedTable {
    /// Leases an array for reading as [`read`](SharedTable::read) does, and waits as
    /// [`lock_timeout`](SharedTable::lock_timeout) does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut lease = table.write(x)?;
    /// let other = table.clone();
    /// let reader = std::thread::spawn(move || {
    ///     Ok::<_, ndshm::Error>(other.read_timeout(x, Duration::from_secs(60))?.sum())
    /// });
    /// lease.fill(1.5);
    /// drop(lease);                                         // the reader wakes up
    /// assert_eq!(reader.join().unwrap()?, 4.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](SharedTable::read), but [`LeaseError::TimedOut`] instead of `Busy`.
    #[track_caller]
    pub fn read_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<SharedReadGuard<T, D>, LeaseError> {
        match self.read(handle) {
            Err(LeaseError::Busy { .. }) => {
                let (held, located) = self.wait_for(handle, Mode::Read, timeout)?;
                Ok(SharedReadGuard::new(held, located))
            }
            taken => taken,
        }
    }

    /// Leases an array for writing as [`write`](SharedTable::write) does, and waits as
    /// [`lock_timeout`](SharedTable::lock_timeout) does.
    ///
    /// While it waits for readers to leave, it turns new ones away: see
    /// [`HandleTable::write_timeout`](crate::HandleTable::write_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let patience = Duration::from_secs(60);
    /// std::thread::scope(|threads| {
    ///     for _ in 0..4 {
    ///         threads.spawn(|| table.write_timeout(x, patience).unwrap()[0] += 1.0);
    ///     }
    /// });
    /// assert_eq!(table.read_timeout(x, patience)?[0], 4.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](SharedTable::write), but [`LeaseError::TimedOut`] instead of `Busy`.
    #[track_caller]
    pub fn write_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<SharedWriteGuard<T, D>, LeaseError> {
        match self.write(handle) {
            Err(LeaseError::Busy { .. }) => {
                let (held, located) = self.wait_for(handle, Mode::Write, timeout)?;
                Ok(SharedWriteGuard::new(held, located))
            }
            taken => taken,
        }
    }

    /// Leases an array for reading as [`read_untyped`](SharedTable::read_untyped) does, and waits as
    /// [`lock_timeout`](SharedTable::lock_timeout) does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(2, 258_u16)?;
    /// let lease = table.read_untyped_timeout(x, Duration::from_secs(10))?; // waits for a writer
    /// assert_eq!(lease.bytes(), [2, 1, 2, 1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_timeout`](SharedTable::read_timeout), but for `InvalidElement`.
    pub fn read_untyped_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        timeout: Duration,
    ) -> Result<SharedUntypedReadGuard, LeaseError> {
        let locked = self.lock_timeout(handle, Mode::Read, timeout)?;
        Ok(SharedUntypedReadGuard::new(self, locked))
    }

    /// Leases an array for writing as [`write_untyped`](SharedTable::write_untyped) does, and waits
    /// as [`lock_timeout`](SharedTable::lock_timeout) does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u8, _>(4)?;
    /// table.write_untyped_timeout(x, Duration::from_secs(10))?.bytes_mut().fill(7);
    /// assert_eq!(table.read(x)?.to_vec(), [7; 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_timeout`](SharedTable::write_timeout), but for `InvalidElement`.
    pub fn write_untyped_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        timeout: Duration,
    ) -> Result<SharedUntypedWriteGuard, LeaseError> {
        let locked = self.lock_timeout(handle, Mode::Write, timeout)?;
        Ok(SharedUntypedWriteGuard::new(self, locked))
    }

    /// Leases an array as [`lock`](SharedTable::lock) does, and waits for other leases to end, for at
    /// most `timeout`. Other threads use the table meanwhile.
    ///
    /// Spins briefly, then sleeps until the lease may be had. Looks for dead holders at least every
    /// 20 ms, and ends their leases. Participants that wait to write come before those that
    /// wait to read. With `Duration::MAX` it waits without end.
    ///
    /// A thread that waits for a lease of its own waits until the timeout: leases belong to all
    /// threads of the table.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ndshm::{Segment, SharedTable};
    /// use ndshm::untyped::Mode;
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let guard = table.read(x)?;
    /// let other = std::thread::spawn(move || {
    ///     std::thread::sleep(Duration::from_millis(5));
    ///     drop(guard);
    /// });
    /// let mut locked = table.lock_timeout(x, Mode::Write, Duration::from_secs(10))?;
    /// table.unlock(&mut locked, false)?;
    /// # other.join().unwrap();
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](SharedTable::lock), but [`LeaseError::TimedOut`] with a holder instead of `Busy`.
    pub fn lock_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Locked, LeaseError> {
        self.lock_while(handle, mode, timeout, || true)
    }

    /// Works like [`lock_timeout`](SharedTable::lock_timeout), and calls `goes_on` at least every 20
    /// ms: the wait ends when it returns `false`. For programs whose waits can be interrupted.
    ///
    /// `goes_on` may use the table. If it panics, nothing is left of the wait.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ndshm::{Segment, SharedTable};
    /// use ndshm::error::LeaseError;
    /// use ndshm::untyped::Mode;
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let guard = table.read(x)?;
    /// let mut turns = 0;
    /// let ended = table.lock_while(x, Mode::Write, Duration::MAX, || {
    ///     turns += 1;
    ///     turns < 3                                        // or: no signal has come
    /// });
    /// assert!(matches!(ended, Err(LeaseError::TimedOut { .. })));
    /// # drop(guard);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock_timeout`](SharedTable::lock_timeout). [`LeaseError::TimedOut`] also when `goes_on`
    /// has returned `false`, with the time that the call has waited.
    pub fn lock_while(
        &self,
        handle: impl Into<AnyHandle>,
        mode: Mode,
        timeout: Duration,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<Locked, LeaseError> {
        let handle = handle.into();
        match self.lock(handle, mode) {
            Err(LeaseError::Busy { .. }) => {
                let waiting = Waiting::new(self, handle, mode, timeout);
                waiting.run(&mut goes_on, |core, ticket| core.locked(ticket))?
            }
            taken => taken,
        }
    }

    /// Waits for a lease, and looks for invalid elements without the lock.
    fn wait_for<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        mode: Mode,
        timeout: Duration,
    ) -> Result<(Held, Located<T, D>), LeaseError> {
        let handle = AnyHandle::from(handle);
        let waiting = Waiting::new(self, handle, mode, timeout);
        let locate = |core: &Core, ticket| (ticket, core.locate_leased(&ticket));
        let (ticket, located) = waiting.run(|| true, locate)?;
        self.hold(handle, ticket, located)
    }
}

/// A wait of one thread. Dropping it withdraws its announced writer.
struct Waiting<'t> {
    table: &'t SharedTable,
    waiter: Waiter,
}

impl<'t> Waiting<'t> {
    fn new(table: &'t SharedTable, handle: AnyHandle, mode: Mode, timeout: Duration) -> Self {
        Waiting {
            table,
            waiter: Waiter::new(handle, mode, timeout, true),
        }
    }

    /// Waits for the lease, and passes it to `then` under the lock of the table.
    fn run<R>(
        mut self,
        mut goes_on: impl FnMut() -> bool,
        mut then: impl FnMut(&Core, Ticket) -> R,
    ) -> Result<R, LeaseError> {
        let segment = self.table.segment();
        let Waiting { table, waiter } = &mut self;
        waiter.spin(segment.memory(), segment.key());
        loop {
            let looked = table.with(|core| {
                Ok::<_, LeaseError>(match core.look(waiter)? {
                    Look::Taken(slot, shared) => {
                        ControlFlow::Break(then(core, core.ticket(slot, waiter, shared)))
                    }
                    Look::NotYet(word) => ControlFlow::Continue(word),
                })
            })??;
            let word = match looked {
                ControlFlow::Break(result) => return Ok(result),
                ControlFlow::Continue(word) => word,
            };
            match waiter.next() {
                Next::Sleep(nap) => word.sleep(segment.memory(), nap),
                Next::Reap => {
                    let reaped = table.reap();
                    table.with(|core| core.unless_failed(waiter, reaped))??;
                }
                Next::TimedOut => return Err(table.with(|core| core.timed_out(waiter))?),
            }
            if !goes_on() {
                return Err(table.with(|core| core.timed_out(waiter))?);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.waiter.is_announced() {
            // A forked child has announced nothing.
            let _ = self.table.with(|core| core.withdraw(&mut self.waiter));
        }
    }
}
