//! Words in production: lock-free atomics, and the kernel's futex.

#[cfg(not(miri))]
mod futex;
#[cfg(miri)]
mod lot;

use core::marker::PhantomData;

use super::{Atom, Ordering, Word};

pub(crate) use std::sync::Mutex;
pub(crate) use std::time::Instant;

/// The atomic in a word.
pub(crate) type Cell = atomic::Atomic<u64>;

const _: () = assert!(
    Cell::is_lock_free(),
    "a word that falls back to a process-local lock is not shared between processes"
);

impl<W: Word> Atom<W> {
    /// Creates a word of zeros, which is the empty state of every kind of word.
    pub(crate) const fn zero() -> Self {
        Atom {
            cell: Cell::new(0),
            word: PhantomData,
        }
    }

    /// Replaces `owned` by `new`. Only the caller may change the word.
    ///
    /// A release store, which costs a fifth of a compare-and-swap. The word names the caller as the
    /// owner of a state that no other live participant leaves. Concurrent
    /// [`read_modify_write`](Atom::read_modify_write)s do not change the value: they write back the
    /// value that they read (the compiler may even turn them into a fence and a load).
    #[track_caller]
    #[inline(always)]
    pub(crate) fn publish_owned(&self, owned: W, new: W) {
        // Not a debug assertion: in a damaged segment the word may be anything.
        if cfg!(test) {
            assert!(self.load(Ordering::Relaxed) == owned);
        }
        self.store(new, Ordering::Release);
    }
}

/// Waits a little longer each time.
pub(crate) struct Backoff {
    inner: crossbeam_utils::Backoff,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff {
            inner: crossbeam_utils::Backoff::new(),
        }
    }

    /// Spins, and later yields the processor.
    pub(crate) fn snooze(&self) {
        self.inner.snooze();
    }

    /// Returns `true` if it is time to sleep instead.
    pub(crate) fn is_completed(&self) -> bool {
        self.inner.is_completed()
    }
}
