//! Calls that the parent follows while they run: it waits for single tiles, sends work back, and
//! cancels.

use core::time::Duration;

use super::{ForeignPool, OpenCall, TableAccess, Words};
use crate::pool::error::PoolError;
use crate::sync::time::Instant;

impl<A: TableAccess> ForeignPool<A> {
    /// Announces the open call to the workers once more: those that have answered get it again, as
    /// a new call of [`ForeignWorker::next`](super::super::ForeignWorker::next). Does nothing if no
    /// call is open, or if the call was cancelled.
    ///
    /// For work that is sent back, such as tiles by
    /// [`OwnedRound::again`](crate::partition::OwnedRound::again). A worker that is in the call
    /// gets it again once it has answered. [`end`](ForeignPool::end) returns the last answer of each
    /// worker, also if it was given before the last announcement.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let mut pool = ForeignPool::new(&table, 1)?;
    /// let mut worker = ForeignWorker::attach(&other, pool.handle(), None, second)?;
    /// pool.call(1, b"work")?;
    /// for _ in 0..3 {
    ///     let call = worker.next(second)?.expect("it is open");
    ///     assert_eq!(call.bytes, b"work");
    ///     worker.finish(b"")?;
    ///     pool.announce()?;
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn announce(&mut self) -> Result<(), PoolError> {
        self.check_ours()?;
        if self.call.as_ref().is_some_and(|call| !call.cancelled) {
            let job = self.words()?.mailbox.announce();
            self.call = self.call.take().map(|call| OpenCall {
                job,
                closed: false,
                ..call
            });
        }
        Ok(())
    }

    /// Waits until `ready` returns `true`, until every worker of the open call has answered, died or
    /// left, until a death is noticed, or until `timeout`. Returns `false` only after the timeout.
    /// Does not close the call.
    ///
    /// `ready` is called often, and before the first sleep. A worker calls
    /// [`notify`](super::super::ForeignWorker::notify) when it may have become true.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicU32, Ordering};
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let mut pool = ForeignPool::new(&table, 1)?;
    /// let mut worker = ForeignWorker::attach(other, pool.handle(), None, second)?;
    /// pool.call(1, b"")?;
    /// let steps = AtomicU32::new(0);
    /// std::thread::scope(|threads| {
    ///     threads.spawn(|| {
    ///         worker.next(second).unwrap();
    ///         for _ in 0..3 {
    ///             steps.fetch_add(1, Ordering::Release);
    ///             worker.notify().unwrap();
    ///         }
    ///         worker.finish(b"").unwrap();
    ///     });
    ///     while !pool.wait_until(second, || steps.load(Ordering::Acquire) >= 2)? {}
    ///     assert!(steps.load(Ordering::Acquire) >= 2);
    ///     Ok::<(), ndshm::Error>(())
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn wait_until(
        &mut self,
        timeout: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<bool, PoolError> {
        self.check_ours()?;
        let (start, deaths) = (Instant::now(), self.deaths);
        loop {
            let seen = self.words()?.mailbox.events();
            if self.look.is_due() {
                self.look_around(true)?;
            }
            if ready() || self.deaths != deaths {
                return Ok(true);
            }
            let words = self.words()?;
            if self.all_have_ended(&words) {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            let is_over = |words: &Words<'_>| ready() || self.all_have_ended(words);
            self.sleep(seen, timeout.saturating_sub(start.elapsed()), is_over)?;
        }
    }

    /// Returns `true` if all expected workers have served the call, and no late one is in it. Acquires
    /// the writes of the workers before their answers.
    fn all_have_ended(&self, words: &Words<'_>) -> bool {
        self.all_have_served(words) && self.nobody_is_in(words)
    }

    /// Cancels the open call: no worker begins it any more. Does not wait.
    ///
    /// A worker in the call learns of it by
    /// [`is_wanted`](super::super::ForeignWorker::is_wanted). [`wait`](ForeignPool::wait) then waits
    /// until no worker is in the call, and [`end`](ForeignPool::end) returns the answers of those
    /// that gave one. Does nothing if no call is open.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{Answer, ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let mut pool = ForeignPool::new(&table, 1)?;
    /// let mut worker = ForeignWorker::attach(&other, pool.handle(), None, second)?;
    /// pool.call(1, b"")?;
    /// worker.next(second)?.expect("it is open");
    /// assert!(worker.is_wanted());
    /// pool.cancel()?;
    /// assert!(!worker.is_wanted());
    /// assert!(!pool.wait(Duration::ZERO)?, "the worker is in the call");
    /// worker.finish(b"stopped")?;
    /// assert!(pool.wait(second)?);
    /// assert_eq!(pool.end()?[0].outcome, Answer::Finished(b"stopped".to_vec()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn cancel(&mut self) -> Result<(), PoolError> {
        self.check_ours()?;
        if self.call.is_some() {
            self.words()?.mailbox.close_job();
        }
        if let Some(call) = &mut self.call {
            call.closed = true;
            call.cancelled = true;
        }
        Ok(())
    }
}
