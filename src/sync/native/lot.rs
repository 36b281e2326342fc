//! A futex for Miri, which counts the kernel's load of half a word as an access of the program, and
//! refuses accesses of two sizes to one atomic.

use core::time::Duration;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::sync::{Atom, Ordering, Word};

/// The sleepers of all words.
static LOT: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

impl<W: Word> Atom<W> {
    /// Sleeps at most `timeout` while the low half is `expected`. May wake up spuriously.
    pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
        let guard = LOT.0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.load(Ordering::Relaxed).bits() as u32 == expected {
            drop(LOT.1.wait_timeout(guard, timeout));
        }
    }

    /// Works like [`wait`](Atom::wait), with the high half.
    pub(crate) fn wait_high(&self, expected: u32, timeout: Duration) {
        let guard = LOT.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (self.load(Ordering::Relaxed).bits() >> 32) as u32 == expected {
            drop(LOT.1.wait_timeout(guard, timeout));
        }
    }

    /// Works like [`wake_all`](Atom::wake_all).
    pub(crate) fn wake_high(&self) {
        self.wake_all();
    }

    /// Wakes the sleepers of all words, which look again.
    pub(crate) fn wake_all(&self) {
        drop(LOT.0.lock());
        LOT.1.notify_all();
    }
}
