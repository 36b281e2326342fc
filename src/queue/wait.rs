//! Waiting for a job or for a free cell: a brief spin, then sleep in bounded steps.

use core::time::Duration;
use std::time::Instant;

use bytemuck::Pod;

use super::Queue;
use super::cells::Event;
use crate::error::{PushError, QueueError};

/// The longest sleep without a look around: what a waker that died before it woke anybody costs,
/// and a job that a dead consumer was taking out.
const LOOK_AROUND: Duration = Duration::from_millis(20);

/// Turns of spinning in which the processor is kept, 2 µs or so.
const PAUSES: u32 = 100;
/// Turns in which it is offered to others: who is waited for may need this very one.
const YIELDS: u32 = 100;

/// What one attempt came to.
pub(super) enum Attempt<R> {
    Over(R),
    /// Nothing yet: there may be after the event.
    NotYet(Event),
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
        let outcome = self.wait(timeout, || match self.pop()? {
            Some(job) => Ok(Attempt::Over(Some(job))),
            None => Ok(self.not_yet()),
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
    /// What a consumer that has found no job does next.
    pub(super) fn not_yet<R>(&self) -> Attempt<Option<R>> {
        match self.is_closed() {
            true if self.is_drained() => Attempt::Over(None),
            // No more pushes: whoever takes out the last job says so at the other end.
            true => Attempt::NotYet(Event::Popped),
            false => Attempt::NotYet(Event::Pushed),
        }
    }

    /// Attempts until it is over; `None` after `timeout`. In a model it does not spin, and there
    /// are no timeouts: a wake-up that is lost is a deadlock.
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
        let mut looked = start;
        self.spin(event);
        loop {
            // The flag first, then the attempt: see `Cells::reach`.
            let dozed = self.cells.doze(event);
            match attempt()? {
                Attempt::Over(result) => return Ok(Some(result)),
                Attempt::NotYet(next) if next != event => {
                    event = next;
                    continue;
                }
                Attempt::NotYet(_) => {}
            }
            let waited = start.elapsed();
            if waited >= timeout && !cfg!(loom) {
                return Ok(None);
            }
            let nap = LOOK_AROUND.min(timeout.saturating_sub(waited));
            self.cells.sleep(event, dozed, nap);
            if looked.elapsed() >= LOOK_AROUND && !cfg!(loom) {
                self.table.reap()?;
                looked = Instant::now();
            }
        }
    }

    /// Gives the event a moment to come.
    fn spin(&self, event: Event) {
        let turns = if cfg!(loom) { 0 } else { PAUSES + YIELDS };
        let seen = self.cells.now(event);
        for turn in 0..turns {
            if self.cells.now(event) != seen {
                return;
            }
            match turn < PAUSES {
                true => core::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
    }
}
