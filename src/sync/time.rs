//! Time: the system's clock. In a model time does not pass.

use core::time::Duration;

#[cfg(loom)]
pub(crate) use model::Instant;
#[cfg(not(loom))]
pub(crate) use std::time::Instant;

/// A check that is due at intervals.
pub(crate) struct Interval {
    length: Duration,
    last: Instant,
}

impl Interval {
    /// Begins the first interval now.
    pub(crate) fn new(length: Duration) -> Interval {
        Interval {
            length,
            last: Instant::now(),
        }
    }

    /// Returns `true` if the check is due, and then begins the next interval. In a model it always
    /// is, because any time may have passed between two steps.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = cfg!(loom) || now - self.last >= self.length;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

#[cfg(loom)]
mod model {
    use core::ops::{Add, Sub};
    use core::time::Duration;

    /// The only moment of a model.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant;

    impl Instant {
        pub(crate) fn now() -> Instant {
            Instant
        }

        pub(crate) fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    impl Sub for Instant {
        type Output = Duration;

        fn sub(self, _earlier: Instant) -> Duration {
            Duration::ZERO
        }
    }

    impl Add<Duration> for Instant {
        type Output = Instant;

        fn add(self, _later: Duration) -> Instant {
            self
        }
    }
}
