//! Sleeping on the low half of a word, across processes.
#![expect(clippy::disallowed_types, reason = "the type of the kernel's call")]

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use rustix::thread::futex;

use crate::sync::{Atom, Word};

impl<W: Word> Atom<W> {
    /// Returns the half that the kernel compares. On little-endian machines it comes first.
    fn low_half(&self) -> &AtomicU32 {
        // SAFETY: the first four bytes of an eight-byte atomic, which live and are aligned as long
        // as it. Only the kernel accesses them as a half.
        unsafe { &*core::ptr::from_ref(self).cast::<AtomicU32>() }
    }

    /// Returns the half behind the low one.
    fn high_half(&self) -> &AtomicU32 {
        let low = core::ptr::from_ref(self).cast::<AtomicU32>();
        // SAFETY: the word has eight bytes, so its second half is inside it.
        let high = unsafe { low.add(1) };
        // SAFETY: as in `low_half`.
        unsafe { &*high }
    }

    /// Sleeps at most `timeout` while the low half is `expected`. May wake up spuriously.
    pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
        sleep(self.low_half(), expected, timeout);
    }

    /// Works like [`wait`](Atom::wait), with the high half.
    pub(crate) fn wait_high(&self, expected: u32, timeout: Duration) {
        sleep(self.high_half(), expected, timeout);
    }

    /// Wakes all sleepers of the high half.
    pub(crate) fn wake_high(&self) {
        let _ = futex::wake(self.high_half(), futex::Flags::empty(), i32::MAX as u32);
    }

    /// Wakes all sleepers of the low half.
    pub(crate) fn wake_all(&self) {
        let _ = futex::wake(self.low_half(), futex::Flags::empty(), i32::MAX as u32);
    }
}

/// Sleeps at most `timeout` while `half` is `expected`.
fn sleep(half: &AtomicU32, expected: u32, timeout: Duration) {
    let timeout = futex::Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // Every outcome, including an error, makes the caller look again.
    let _ = futex::wait(half, futex::Flags::empty(), expected, Some(&timeout));
}
