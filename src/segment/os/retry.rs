//! Retries of a call until its timeout.

use std::time::{Duration, Instant};

use crate::segment::error::SegmentError;

/// The end of the retries of a call, and the pause before the next one.
pub(crate) struct RetryDeadline {
    start: Instant,
    timeout: Duration,
    pause: Duration,
}

impl RetryDeadline {
    /// Starts the time of a call.
    pub(crate) fn new(timeout: Duration) -> RetryDeadline {
        RetryDeadline {
            start: Instant::now(),
            timeout,
            pause: Duration::from_micros(50),
        }
    }

    /// Sleeps, longer each time. Returns `false` when the time is up.
    pub(crate) fn wait(&mut self) -> bool {
        let left = self.timeout.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(Duration::from_millis(10));
        true
    }

    /// Returns the error for a name that other processes keep changing.
    pub(crate) fn unsettled(&self, name: &str) -> SegmentError {
        SegmentError::NameContended {
            name: name.into(),
            waited: self.start.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_longer_than_the_one_before() {
        let mut deadline = RetryDeadline::new(Duration::from_millis(100));
        let mut turns = 0;
        while deadline.wait() {
            turns += 1;
        }
        // 50 us doubled to 10 ms are 8 turns, in 13 ms.
        assert!(turns <= 20, "{turns}");
    }
}
