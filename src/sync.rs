//! The atomics of the protocol: only this module names them. They come from the `atomic` crate in
//! production, and from a model checker under `cfg(loom)` (from loom, or from shuttle if
//! `cfg(shuttle)` is also set).
//!
//! Protocol code sees [`Atom<W>`], a 64-bit word that decodes to `W`. Every operation is
//! `#[track_caller]`, so a model checker's report names the line of the protocol instead of this
//! file.

#[cfg(loom)]
pub(crate) mod checker;
#[cfg(loom)]
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod list;
#[cfg(loom)]
mod mortal;
pub(crate) mod park;
#[cfg(loom)]
pub(crate) mod site;
pub(crate) mod spin;
pub(crate) mod time;

use core::marker::PhantomData;

pub(crate) use core::sync::atomic::Ordering;
#[cfg(loom)]
pub(crate) use mortal::{die, until_death};

#[cfg(not(loom))]
type Cell = atomic::Atomic<u64>;
#[cfg(loom)]
type Cell = mortal::MortalU64;

#[cfg(not(loom))]
const _: () = assert!(
    Cell::is_lock_free(),
    "a word that falls back to a process-local lock is not shared between processes"
);

/// A value that is packed into one 64-bit word. Decoding is total: every bit pattern is a value.
pub(crate) trait Word: Copy + Eq {
    fn from_bits(bits: u64) -> Self;
    fn bits(self) -> u64;
}

impl Word for u64 {
    fn from_bits(bits: u64) -> Self {
        bits
    }
    fn bits(self) -> u64 {
        self
    }
}

/// One shared word.
///
/// `repr(transparent)`: in production the bytes of a mapping are cast to a slice of these.
#[repr(transparent)]
pub(crate) struct Atom<W = u64> {
    cell: Cell,
    word: PhantomData<W>,
}

impl<W: Word> Atom<W> {
    #[cfg(not(loom))]
    pub(crate) const fn zero() -> Self {
        Atom {
            cell: Cell::new(0),
            word: PhantomData,
        }
    }

    /// Creates a word of zeros, which is the empty state of every kind of word.
    #[cfg(loom)]
    pub(crate) fn zero() -> Self {
        Atom {
            cell: Cell::new(0),
            word: PhantomData,
        }
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> W {
        W::from_bits(self.cell.load(order))
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn store(&self, value: W, order: Ordering) {
        self.cell.store(value.bits(), order);
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn compare_exchange(
        &self,
        current: W,
        new: W,
        success: Ordering,
        failure: Ordering,
    ) -> Result<W, W> {
        self.cell
            .compare_exchange(current.bits(), new.bits(), success, failure)
            .map(W::from_bits)
            .map_err(W::from_bits)
    }

    /// Reads by a read-modify-write that changes nothing.
    ///
    /// A read-modify-write reads the newest value in the word's modification order and takes a
    /// place in that order. A validation needs this, and a load does not give it.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn read_modify_write(&self, order: Ordering) -> W {
        W::from_bits(self.cell.fetch_or(0, order))
    }

    /// Replaces `owned` by `new`. Only the caller may change the word.
    ///
    /// In production a release store, which costs a fifth of a compare-and-swap. The word names the
    /// caller as the owner of a state that no other live participant leaves. Concurrent
    /// [`read_modify_write`](Atom::read_modify_write)s do not change the value: they write back the
    /// value that they read (the compiler may even turn them into a fence and a load). Under loom a
    /// compare-and-swap, because loom does not order a store against such a read-modify-write. It
    /// also checks the ownership.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn publish_owned(&self, owned: W, new: W) {
        #[cfg(not(loom))]
        {
            // Not a debug assertion: in a damaged segment the word may be anything.
            if cfg!(test) {
                assert!(self.load(Ordering::Relaxed) == owned);
            }
            self.store(new, Ordering::Release);
        }
        #[cfg(loom)]
        {
            let outcome = self.compare_exchange(owned, new, Ordering::Release, Ordering::Relaxed);
            assert!(outcome.is_ok(), "an owned word was changed by another");
        }
    }

    /// Applies `next` by compare-and-swap until one succeeds or `next` returns `None`. Returns the
    /// words before and after, or the word for which `next` returned `None`.
    ///
    /// Lock-free: another turn means that another participant's change took effect.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut next: impl FnMut(W) -> Option<W>,
    ) -> Result<(W, W), W> {
        let mut seen = self.load(failure);
        while let Some(new) = next(seen) {
            match self.compare_exchange(seen, new, success, failure) {
                Ok(_) => return Ok((seen, new)),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }
}

impl Atom<u64> {
    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.cell.fetch_or(bits, order)
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.cell.fetch_and(bits, order)
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.cell.fetch_add(value, order)
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.cell.fetch_max(value, order)
    }
}

#[cfg(not(any(loom, miri)))]
mod futex {
    //! Sleeping on the low half of a word, across processes.
    #![expect(clippy::disallowed_types, reason = "the type of the kernel's call")]

    use core::sync::atomic::AtomicU32;
    use core::time::Duration;

    use rustix::thread::futex;

    use super::Atom;

    impl Atom<u64> {
        /// Returns the half that the kernel compares. On little-endian machines it comes first.
        fn low_half(&self) -> &AtomicU32 {
            // SAFETY: the first four bytes of an eight-byte atomic, which live and are aligned as
            // long as it. Only the kernel accesses them as a half.
            unsafe { &*core::ptr::from_ref(self).cast::<AtomicU32>() }
        }

        /// Sleeps at most `timeout` while the low half is `expected`. May wake up spuriously.
        pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
            let timeout = futex::Timespec {
                tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            // Every outcome, including an error, makes the caller look again.
            let flags = futex::Flags::empty();
            let _ = futex::wait(self.low_half(), flags, expected, Some(&timeout));
        }

        /// Wakes all sleepers of the word.
        pub(crate) fn wake_all(&self) {
            let _ = futex::wake(self.low_half(), futex::Flags::empty(), i32::MAX as u32);
        }
    }
}

#[cfg(miri)]
mod futex {
    //! A futex for Miri, which counts the kernel's load of half a word as an access of the program,
    //! and refuses accesses of two sizes to one atomic.

    use core::time::Duration;
    use std::sync::{Condvar, Mutex, PoisonError};

    use super::{Atom, Ordering};

    /// The sleepers of all words.
    static LOT: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

    impl Atom<u64> {
        /// Sleeps at most `timeout` while the low half is `expected`. May wake up spuriously.
        pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
            let guard = LOT.0.lock().unwrap_or_else(PoisonError::into_inner);
            if self.load(Ordering::Relaxed) as u32 == expected {
                drop(LOT.1.wait_timeout(guard, timeout));
            }
        }

        /// Wakes the sleepers of all words, which look again.
        pub(crate) fn wake_all(&self) {
            drop(LOT.0.lock());
            LOT.1.notify_all();
        }
    }
}

#[cfg(loom)]
mod futex {
    //! A futex for models. It has no timeouts, so a lost wake-up is a deadlock.

    use core::time::Duration;

    use super::checker::{Condvar, Mutex, lazy_static};
    use super::{Atom, Ordering, mortal};

    lazy_static! {
        /// The sleepers of all words. The kernel has one such place per word.
        static ref LOT: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());
    }

    impl Atom<u64> {
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

        /// Wakes the sleepers of all words, which look again.
        pub(crate) fn wake_all(&self) {
            if mortal::is_gone() {
                return;
            }
            drop(LOT.0.lock());
            LOT.1.notify_all();
        }
    }
}
