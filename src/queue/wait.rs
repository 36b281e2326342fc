//! Waiting for a job or for a free cell: a brief spin, then sleeps of bounded length.

use core::time::Duration;

use bytemuck::Pod;

use super::Queue;
use super::cells::Event;
use crate::queue::error::{PushError, QueueError};
use crate::seat::REAP_INTERVAL;
use crate::sync::spin;
use crate::sync::time::Instant;

/// Spin turns that yield the processor, after those that keep it.
const YIELDS: u32 = 100;

/// The result of one attempt.
pub(super) enum Attempt<R> {
    Over(R),
    /// Not yet. Try again after the event.
    NotYet(Event),
}

impl<T: Pod> Queue<'_, T> {
    /// Pops the oldest job, and waits for one for at most `timeout`. Returns `None` if none came,
    /// and at once if the queue is closed and drained ([`is_drained`](Queue::is_drained) tells
    /// which).
    ///
    /// Spins briefly, then sleeps until a producer wakes it. At least every 20 ms it also reaps
    /// dead participants, so it never hangs on them. A queue whose owner has died is closed then.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// use std::time::Duration;
    ///
    /// queue.push(7)?;
    /// assert_eq!(queue.pop_timeout(Duration::from_secs(10))?, Some(7));
    /// assert_eq!(queue.pop_timeout(Duration::from_millis(1))?, None);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop`](Queue::pop). Also returns [`QueueError::Join`] if the search for dead
    /// participants fails.
    #[doc(alias("recv_timeout", "get"))]
    pub fn pop_timeout(&self, timeout: Duration) -> Result<Option<T>, QueueError> {
        let outcome = self.wait(timeout, || match self.pop()? {
            Some(job) => Ok(Attempt::Over(Some(job))),
            None => Ok(self.not_yet()),
        })?;
        Ok(outcome.flatten())
    }

    /// Pushes a job, and waits for a free cell for at most `timeout`.
    ///
    /// Waits as [`pop_timeout`](Queue::pop_timeout) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// use std::time::Duration;
    ///
    /// for job in 0..4 {
    ///     queue.push_timeout(job, Duration::from_secs(10))?;
    /// }
    /// let refused = queue.push_timeout(4, Duration::from_millis(1));
    /// assert!(refused.is_err_and(|refused| refused.is_full()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`push`](Queue::push). Returns [`PushError::Full`] if no cell became free, and
    /// [`PushError::Closed`] at once if the queue is closed.
    #[doc(alias("send_timeout", "put"))]
    pub fn push_timeout(&self, job: T, timeout: Duration) -> Result<(), PushError<T>> {
        let full = QueueError::Full {
            capacity: self.capacity(),
        };
        let outcome = self.wait(timeout, || match self.try_push(&job) {
            Ok(()) => Ok(Attempt::Over(())),
            Err(QueueError::Full { .. }) => Ok(Attempt::NotYet(Event::Popped)),
            Err(error) => Err(error),
        });
        match outcome {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(PushError::new(job, full)),
            Err(error) => Err(PushError::new(job, error)),
        }
    }
}

impl<T> Queue<'_, T> {
    /// Returns the next step of a consumer that has found no job.
    pub(super) fn not_yet<R>(&self) -> Attempt<Option<R>> {
        match self.is_closed() {
            true if self.is_drained() => Attempt::Over(None),
            // No push can follow. The consumer of the last job moves the other end.
            true => Attempt::NotYet(Event::Popped),
            false => Attempt::NotYet(Event::Pushed),
        }
    }

    /// Repeats `attempt` until it is over. Returns `None` after `timeout`. A model neither spins
    /// nor times out: a lost wake-up is a deadlock.
    pub(super) fn wait<R>(
        &self,
        timeout: Duration,
        attempt: impl Fn() -> Result<Attempt<R>, QueueError>,
    ) -> Result<Option<R>, QueueError> {
        let mut event = match attempt()? {
            Attempt::Over(result) => return Ok(Some(result)),
            Attempt::NotYet(event) => event,
        };
        let start = Instant::now();
        if self.looked.get().is_none() {
            self.looked.set(Some(start));
        }
        self.spin(event);
        loop {
            // Set the flag before the attempt: see `Cells::advance_to`.
            let marked = self.cells.mark_sleeper(event);
            match attempt()? {
                Attempt::Over(result) => return Ok(Some(result)),
                Attempt::NotYet(next) if next != event => {
                    event = next;
                    continue;
                }
                Attempt::NotYet(_) => {}
            }
            // Across calls, so that many short waits also notice a death.
            if self
                .looked
                .get()
                .is_some_and(|at| at.elapsed() >= REAP_INTERVAL)
            {
                self.table.reap()?;
                // Its owner has died, and nobody can open it any more. To those that have it open it
                // ends as if the owner had dropped it.
                if self.table.tables().was_freed(self.handle) {
                    self.cells.close();
                }
                self.looked.set(Some(Instant::now()));
                continue;
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Ok(None);
            }
            let nap = REAP_INTERVAL.min(timeout.saturating_sub(waited));
            self.cells.sleep(event, marked, nap);
        }
    }

    /// Spins for a moment, until the event comes.
    fn spin(&self, event: Event) {
        let seen = self.cells.now(event);
        let moved = || (self.cells.now(event) != seen).then_some(());
        let _ = spin::pausing(moved).or_else(|| spin::yielding(YIELDS, moved, || true));
    }
}
