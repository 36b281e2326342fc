//! Words of a model checker: its own atomics, on which a thread can die between two operations.

pub(crate) mod checker;
pub(crate) mod clock;
mod mortal;
pub(crate) mod site;
mod time;

use core::marker::PhantomData;
use core::time::Duration;

use super::{Atom, Ordering, Word};
pub(crate) use checker::Mutex;
use checker::{Condvar, lazy_static};
pub(crate) use mortal::{MortalU64 as Cell, die, until_death};
pub(crate) use time::Instant;

impl<W: Word> Atom<W> {
    /// Creates a word of zeros, which is the empty state of every kind of word.
    pub(crate) fn zero() -> Self {
        Atom {
            cell: Cell::new(0),
            word: PhantomData,
        }
    }

    /// Replaces `owned` by `new`. Only the caller may change the word.
    ///
    /// A compare-and-swap, because loom does not order a store against a concurrent
    /// [`read_modify_write`](Atom::read_modify_write). It also checks the ownership.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn publish_owned(&self, owned: W, new: W) {
        let outcome = self.compare_exchange(owned, new, Ordering::Release, Ordering::Relaxed);
        assert!(outcome.is_ok(), "an owned word was changed by another");
    }

    /// Reads what [`read_modify_write`](Atom::read_modify_write) reads, after the caller's own
    /// read-modify-write of another word.
    ///
    /// A read-modify-write, because loom does not give sequentially consistent accesses their total
    /// order. `native.rs` argues why a load does it in production.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn read_after_change(&self, order: Ordering) -> W {
        self.read_modify_write(order)
    }
}

impl Atom<u64> {
    /// Sets `bits`, which only the caller changes. Returns `true` if one of them was set before.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn set_owned(&self, bits: u64, order: Ordering) -> bool {
        self.fetch_or(bits, order) & bits != 0
    }
}

/// Returns `order`, which the model checker or a weakening replaces. Production is stronger.
pub(super) const fn change(order: Ordering) -> Ordering {
    order
}

/// Returns `order`, as [`change`] does.
pub(super) const fn look(order: Ordering) -> Ordering {
    order
}

lazy_static! {
    /// The sleepers of all words. The kernel has one such place per word.
    static ref LOT: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
}

/// A futex for models. It has no timeouts, so a lost wake-up is a deadlock.
impl<W: Word> Atom<W> {
    /// Sleeps while the low half is `expected`, until a thread wakes all.
    pub(crate) fn wait(&self, expected: u32, _timeout: Duration) {
        if mortal::is_gone() {
            return;
        }
        let guard = LOT.0.lock().unwrap_or_else(|lot| lot.into_inner());
        if self.cell.load_alive(Ordering::Relaxed) as u32 == expected {
            drop(LOT.1.wait(guard));
        }
    }

    /// Works like [`wait`](Atom::wait), with the high half.
    pub(crate) fn wait_high(&self, expected: u32, _timeout: Duration) {
        if mortal::is_gone() {
            return;
        }
        let guard = LOT.0.lock().unwrap_or_else(|lot| lot.into_inner());
        if (self.cell.load_alive(Ordering::Relaxed) >> 32) as u32 == expected {
            drop(LOT.1.wait(guard));
        }
    }

    /// Does nothing: the caller also calls [`wake_all`](Atom::wake_all), which wakes all.
    #[expect(clippy::unused_self, reason = "as in production")]
    pub(crate) fn wake_high(&self) {}

    /// Wakes the sleepers of all words, which look again.
    pub(crate) fn wake_all(&self) {
        if mortal::is_gone() {
            return;
        }
        drop(LOT.0.lock());
        LOT.1.notify_all();
    }
}

/// Lets another thread of the model run.
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff
    }

    /// Yields to another thread.
    pub(crate) fn snooze(&self) {
        checker::yield_now();
    }

    /// Returns `false`: a model has no time.
    pub(crate) fn is_completed(&self) -> bool {
        false
    }
}
