//! Time: the system's clock. In a model time does not pass.

use core::time::Duration;

pub(crate) use super::imp::Instant;

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
