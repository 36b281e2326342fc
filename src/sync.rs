//! The atomics of the protocol: only this module names them. They come from the `atomic` crate in
//! production (`native.rs`), and from a model checker in a build for models (`model.rs`).
//!
//! Protocol code sees [`Atom<W>`], a 64-bit word that decodes to `W`. Every operation is
//! `#[track_caller]`, so a model checker's report names the line of the protocol instead of this
//! file.

pub(crate) mod list;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod native;
pub(crate) mod park;
pub(crate) mod spin;
pub(crate) mod time;

use core::marker::PhantomData;
use core::slice;

pub(crate) use core::sync::atomic::Ordering;
pub(crate) use imp::{Backoff, Cell, Mutex};
#[cfg(loom)]
use model as imp;
#[cfg(loom)]
pub(crate) use model::{checker, clock, die, site, until_death};
#[cfg(not(loom))]
use native as imp;

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
///
/// [`typed`](Atom::typed) and [`typed_slice`](Atom::typed_slice) say what a word decodes to: arrays
/// of control words have words of several kinds.
///
/// `native.rs` and `model.rs` add the operations in which the two builds differ: `zero`,
/// `publish_owned`, `read_after_change`, `set_owned`, `wait` and `wake_all`. [`change`](imp::change) and
/// [`look`](imp::look) are the orders of production.
#[repr(transparent)]
pub(crate) struct Atom<W = u64> {
    cell: Cell,
    word: PhantomData<W>,
}

impl<W: Word> Atom<W> {
    #[track_caller]
    #[inline(always)]
    pub(crate) fn load(&self, order: Ordering) -> W {
        W::from_bits(self.cell.load(imp::look(order)))
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
            .compare_exchange(
                current.bits(),
                new.bits(),
                imp::change(success),
                imp::look(failure),
            )
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
        W::from_bits(self.cell.fetch_or(0, imp::change(order)))
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
    /// Returns the same word as one that decodes to `W`.
    #[inline(always)]
    pub(crate) fn typed<W: Word>(&self) -> &Atom<W> {
        &Self::typed_slice(slice::from_ref(self))[0]
    }

    /// Returns the same words as words that decode to `W`.
    #[inline(always)]
    pub(crate) fn typed_slice<W: Word>(words: &[Self]) -> &[Atom<W>] {
        let first = words.as_ptr().cast::<Atom<W>>();
        // SAFETY: `Atom<W>` and `Atom<u64>` are `repr(transparent)` over the same `Cell`, so both
        // slices have the same layout, and they access a word by the same atomic operations.
        // Decoding is total: no bits are invalid in a word of `W`. The borrow of `words` goes on.
        unsafe { slice::from_raw_parts(first, words.len()) }
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.cell.fetch_or(bits, imp::change(order))
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.cell.fetch_and(bits, imp::change(order))
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.cell.fetch_add(value, imp::change(order))
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.cell.fetch_max(value, imp::change(order))
    }
}
