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

    /// Reads what [`read_modify_write`](Atom::read_modify_write) reads, after the caller's own
    /// read-modify-write of another word.
    ///
    /// If a participant that changes this word then looks at the other one, at least one of the two
    /// sees the other's change. More is not ordered: what the caller did before does not happen
    /// before later changes of this word.
    ///
    /// A load: both participants' changes and looks have one total order (see [`change`]), and the
    /// looks come after the changes. On x86 the caller's change was a locked instruction, which has
    /// emptied the store buffer. A second one would find it empty.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn read_after_change(&self, _order: Ordering) -> W {
        self.load(Ordering::SeqCst)
    }
}

impl Atom<u64> {
    /// Sets `bits`, which only the caller changes. Returns `true` if one of them was set before.
    ///
    /// A load before the change tells that. To return it, the change would be a loop of
    /// compare-and-swaps on x86, which other participants' bits turn back.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn set_owned(&self, bits: u64, order: Ordering) -> bool {
        let was_set = self.load(Ordering::Relaxed) & bits != 0;
        self.fetch_or(bits, order);
        was_set
    }
}

/// Returns the order in which production changes a word by a read-modify-write that asks for
/// `order`.
///
/// All of these changes, and all looks that acquire, have one total order, on which
/// [`read_after_change`](Atom::read_after_change) relies. x86 has no weaker read-modify-write. On
/// AArch64 an AcqRel one takes the same instructions; a Relaxed one gets those of an AcqRel one.
#[inline(always)]
pub(super) const fn change(_order: Ordering) -> Ordering {
    Ordering::SeqCst
}

/// Returns the order in which production loads a word for a look that asks for `order`.
#[inline(always)]
pub(super) const fn look(order: Ordering) -> Ordering {
    match order {
        Ordering::Relaxed => Ordering::Relaxed,
        _ => Ordering::SeqCst,
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
