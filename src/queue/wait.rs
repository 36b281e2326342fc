//! Waiting for a job or for a free cell: a brief spin, then sleep in bounded steps.

use core::time::Duration;
use std::time::Instant;

use bytemuck::Pod;

use super::Queue;
use super::cells::Event;
use crate::error::{PushError, QueueError};
use crate::sync::Backoff;

/// The longest sleep without a look around: what a waker that died before it woke anybody costs,
/// and a job that a dead consumer was taking out.
const LOOK_AROUND: Duration = Duration::from_millis(20);

/// What one attempt came to.
enum Attempt<R> {
    Over(R),
    /// Nothing yet: there may be after the event.
    NotYet,
}

impl<T: Pod> Queue<'_, T> {
    /// Takes the oldest job out, and waits for one for at most `timeout`; `None` if none came, or at
    /// once when the queue is closed and drained ([`is_drained`](Queue::is_drained) tells which).
    ///
    /// Spins briefly, then sleeps until a producer wakes it. At least every 20 ms it also takes back
    /// what dead participants held, so that it does not hang on them.
    ///
    /// # Errors
    /// As [`pop`](Queue::pop); [`QueueError::Join`] if the dead cannot be looked for.
    pub fn pop_wait(&self, timeout: Duration) -> Result<Option<T>, QueueError> {
        let outcome = self.wait(Event::Pushed, timeout, || match self.pop()? {
            Some(job) => Ok(Attempt::Over(Some(job))),
            None if self.is_closed() && self.is_drained() => Ok(Attempt::Over(None)),
            None => Ok(Attempt::NotYet),
        })?;
        Ok(outcome.flatten())
    }

    /// Puts a job in, and waits for a free cell for at most `timeout`.
    ///
    /// Waits as [`pop_wait`](Queue::pop_wait) does.
    ///
    /// # Errors
    /// As [`push`](Queue::push): [`PushError::Full`] if no cell became free,
    /// [`PushError::Closed`] at once when the queue is closed.
    pub fn push_wait(&self, job: T, timeout: Duration) -> Result<(), PushError<T>> {
        let full = QueueError::Full {
            capacity: self.capacity(),
        };
        let outcome = self.wait(Event::Popped, timeout, || match self.try_push(&job) {
            Ok(()) => Ok(Attempt::Over(())),
            Err(QueueError::Full { .. }) => Ok(Attempt::NotYet),
            Err(error) => Err(error),
        });
        match outcome {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(PushError::new(job, full)),
            Err(error) => Err(PushError::new(job, error)),
        }
    }

    /// Attempts until it is over; `None` after `timeout`.
    fn wait<R>(
        &self,
        event: Event,
        timeout: Duration,
        attempt: impl Fn() -> Result<Attempt<R>, QueueError>,
    ) -> Result<Option<R>, QueueError> {
        let backoff = Backoff::new();
        // Before the attempt: what changes after it is a reason for the next one.
        let mut seen = self.cells.now(event);
        if let Attempt::Over(result) = attempt()? {
            return Ok(Some(result));
        }
        while !backoff.is_completed() {
            backoff.snooze();
            let now = self.cells.now(event);
            if now != seen {
                seen = now;
                if let Attempt::Over(result) = attempt()? {
                    return Ok(Some(result));
                }
            }
        }
        let start = Instant::now();
        let mut looked = start;
        loop {
            // The flag first, then the attempt: see `Cells::reach`.
            let dozed = self.cells.doze(event);
            if let Attempt::Over(result) = attempt()? {
                return Ok(Some(result));
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Ok(None);
            }
            self.cells
                .sleep(event, dozed, LOOK_AROUND.min(timeout - waited));
            if looked.elapsed() >= LOOK_AROUND {
                self.table.reap()?;
                looked = Instant::now();
            }
        }
    }
}
