//! How long to spin before sleeping.

/// A bounded spin.
pub(super) struct Spin {
    yields: u32,
}

/// Turns in which the processor is kept, 2 µs or so: an answer from another processor takes less.
const PAUSES: u32 = 100;

impl Spin {
    /// For a pool of `workers` and its parent. After the pauses the processor is offered to others
    /// in each turn: who is waited for may need this very one. Where each has its own, some 50 µs
    /// of that save the 100 µs that waking a sleeper on an idle processor takes.
    pub(super) fn of(workers: usize) -> Spin {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Spin {
            yields: if workers < processors { 200 } else { 100 },
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
        for _ in 0..self.yields {
            if let Some(found) = ready() {
                return Some(found);
            }
            std::thread::yield_now();
        }
        ready()
    }
}
