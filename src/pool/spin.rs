//! How long to spin before sleeping.

use core::cell::Cell;
use core::time::Duration;
use std::time::Instant;

/// A bounded spin, which adapts to whether other programs compete for the processors.
///
/// Yielding pays while the processors belong to the pool: each turn costs less than a microsecond,
/// and saves waking a sleeper. It costs dearly once another program is ready to run: the kernel
/// then charges every yield as a whole time slice (some milliseconds), so that a process which
/// yields a hundred times gives up its share of the processor without having used it. A yield that
/// takes longer than [`LOST`] therefore ends the spin, and for a while the pool sleeps instead.
pub(super) struct Spin {
    yields: u32,
    /// When yields are tried again, and how long they were put off the last time.
    crowded: Cell<Option<Crowded>>,
}

#[derive(Clone, Copy)]
struct Crowded {
    until: Instant,
    pause: Duration,
}

/// Turns in which the processor is kept, 2 µs or so: an answer from another processor takes less.
const PAUSES: u32 = 100;

/// A yield that takes longer than this was a time slice of another process.
const LOST: Duration = Duration::from_micros(500);

/// How long yields are avoided after the first lost slice. It doubles with each attempt that loses
/// another one, so that attempts cost a small part of the pool's share.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest time for which yields are avoided.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

impl Spin {
    /// For a pool of `workers` and its parent. After the pauses the processor is offered to others
    /// in each turn: who is waited for may need this very one. Where each has its own, some 50 µs
    /// of that save the 100 µs that waking a sleeper on an idle processor takes.
    pub(super) fn of(workers: usize) -> Spin {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Spin {
            yields: if workers < processors { 200 } else { 100 },
            crowded: Cell::new(None),
        }
    }

    /// Asks `ready` until it gives something, or time is up. In a model time is up at once: who
    /// sleeps looks first.
    pub(super) fn until<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        if cfg!(loom) {
            return None;
        }
        for _ in 0..PAUSES {
            if let Some(found) = ready() {
                return Some(found);
            }
            core::hint::spin_loop();
        }
        let mut before = Instant::now();
        if self
            .crowded
            .get()
            .is_some_and(|crowded| before < crowded.until)
        {
            return ready();
        }
        for _ in 0..self.yields {
            if let Some(found) = ready() {
                return Some(found);
            }
            std::thread::yield_now();
            let now = Instant::now();
            if self.note(now - before, now) {
                return ready();
            }
            before = now;
        }
        // Enough yields in a row took no longer than they should.
        self.crowded.set(None);
        ready()
    }

    /// Notes how long a yield took. Returns `true` if a time slice was lost.
    fn note(&self, took: Duration, now: Instant) -> bool {
        if took < LOST {
            return false;
        }
        let last = self.crowded.get().map(|crowded| crowded.pause);
        let pause = last.map_or(FIRST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE));
        self.crowded.set(Some(Crowded {
            until: now + pause,
            pause,
        }));
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lost_slice_puts_yields_off_for_longer_each_time() {
        let spin = Spin::of(1);
        let now = Instant::now();
        assert!(!spin.note(LOST / 2, now));
        assert!(spin.crowded.get().is_none());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(spin.note(LOST, now));
            let crowded = spin.crowded.get().unwrap();
            assert_eq!(crowded.until, now + crowded.pause);
            pauses.push(crowded.pause);
        }
        assert_eq!(pauses[..3], [20, 40, 80].map(Duration::from_millis));
        assert_eq!(pauses[7], LONGEST_PAUSE);
    }

    #[test]
    fn no_yields_while_they_are_put_off() {
        let spin = Spin::of(1);
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            None::<()>
        };
        spin.crowded.set(Some(Crowded {
            until: Instant::now() + Duration::from_secs(1000),
            pause: FIRST_PAUSE,
        }));
        assert_eq!(spin.until(ask), None);
        assert_eq!(asked.get(), PAUSES + 1, "it sleeps after the pauses");
    }
}
