//! How long to spin before sleeping.

/// A bounded spin.
pub(super) struct Spin {
    rounds: u32,
}

impl Spin {
    /// For a pool of `workers` and its parent. Where each has a processor of its own, a spin of
    /// some 50 µs saves the 100 µs that waking a sleeper on an idle processor takes; where they
    /// share, it would only take time from those who are waited for.
    pub(super) fn of(workers: usize) -> Spin {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Spin {
            rounds: if workers < processors { 2000 } else { 200 },
        }
    }

    /// Asks `ready` until it gives something, or time is up.
    pub(super) fn until<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        for _ in 0..self.rounds {
            if let Some(found) = ready() {
                return Some(found);
            }
            core::hint::spin_loop();
        }
        ready()
    }
}
