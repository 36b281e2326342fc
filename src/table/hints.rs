//! Hint bits: where a free slot of a class may be. A wrong hint costs time, never correctness.
//!
//! Each span has a leaf word with one bit per slot. Each size class has a tree of three or four
//! levels of summary words above the leaves; a summary bit says that the word below may be
//! non-zero. Bits are set from the leaf upwards, after the slot's word says FREE. They are cleared
//! from the leaf upwards, and after clearing a summary bit the word below is read once more. A
//! death in between leaves wrong bits: the next search clears surplus bits, and the sweep makes up
//! for missing ones.

use crate::layout::HintTree;
use crate::memory::Memory;
use crate::span::{Span, Spans};
use crate::sync::{Atom, Ordering};
use crate::word::{SlotIndex, SpanIndex};

/// The hint trees of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Hints<'m> {
    words: &'m [Atom],
    tree: &'m HintTree,
    spans: Spans<'m>,
    span_slots: usize,
}

impl<'m> Hints<'m> {
    pub(crate) fn of(memory: &'m Memory) -> Self {
        Hints {
            words: memory.hints(),
            tree: memory.tree(),
            spans: Spans::of(memory),
            span_slots: memory.layout().geometry.span_slots as usize,
        }
    }

    fn leaf(&self, span: usize) -> &'m Atom {
        &self.words[self.tree.leaf(span)]
    }

    fn summary(&self, class: u32, level: usize, at: usize) -> &'m Atom {
        &self.words[self.tree.summary(class, level, at)]
    }

    /// Sets the hint that `slot`, of a span of `class`, may be free. Returns `true` unless it was
    /// set before.
    pub(crate) fn set(&self, class: u32, slot: SlotIndex) -> bool {
        let span = slot.get() / self.span_slots;
        let bit = 1 << (slot.get() % self.span_slots);
        let leaf = self.leaf(span);
        // Release, here and below: pairs with the Acquire in `take`. The slot's word is FREE.
        let is_new = leaf.load(Ordering::Relaxed) & bit == 0
            && leaf.fetch_or(bit, Ordering::Release) & bit == 0;
        // Continue upwards even if the leaf was set: the participant that set it may have died
        // here.
        let mut at = span;
        for level in 0..=self.tree.top() {
            let summary = self.summary(class, level, at / 64);
            let bit = 1 << (at % 64);
            if summary.load(Ordering::Relaxed) & bit == 0 {
                summary.fetch_or(bit, Ordering::Release);
            }
            at /= 64;
        }
        is_new
    }

    /// Takes one hint of `class` out of the tree. Returns the span of a slot that may be free, and
    /// the position of the slot in it.
    pub(crate) fn take(&self, class: u32) -> Option<(Span, u32)> {
        // Each turn returns or clears a bit. The loop is bounded except for bits that others set
        // meanwhile, which is their progress.
        'descent: loop {
            let mut at = 0;
            for level in (0..=self.tree.top()).rev() {
                // Acquire: pairs with the Release in `set`; the word below is then seen, too.
                let bits = self.summary(class, level, at).load(Ordering::Acquire);
                if bits == 0 {
                    if level == self.tree.top() {
                        return None;
                    }
                    self.clear_empty(class, level + 1, at, || {
                        self.summary(class, level, at).load(Ordering::Relaxed) == 0
                    });
                    continue 'descent;
                }
                at = at * 64 + bits.trailing_zeros() as usize;
            }
            let Some(span) = self
                .spans
                .get(SpanIndex::new(at))
                .filter(|span| span.class == class)
            else {
                self.clear_empty(class, 0, at, || true);
                continue;
            };
            let leaf = self.leaf(at);
            let bits = leaf.load(Ordering::Relaxed);
            if bits == 0 {
                self.clear_empty(class, 0, at, || leaf.load(Ordering::Relaxed) == 0);
                continue;
            }
            let position = bits.trailing_zeros();
            // The hint is ours alone if we cleared it: two searches never try the same slot.
            // Acquire: pairs with the Release in `set`; the slot is then seen FREE.
            let bit = 1 << position;
            if leaf.fetch_and(!bit, Ordering::Acquire) & bit != 0 && position < span.count {
                return Some((span, position));
            }
        }
    }

    /// Returns `true` if the hints of `class` lead to `slot`.
    pub(crate) fn leads_to(&self, class: u32, slot: SlotIndex) -> bool {
        let (mut at, mut bit) = (slot.get() / self.span_slots, slot.get() % self.span_slots);
        // Relaxed: the result is only counted.
        let is_set = |word: &Atom, bit: usize| word.load(Ordering::Relaxed) >> bit & 1 == 1;
        let leaf = is_set(self.leaf(at), bit);
        leaf && (0..=self.tree.top()).all(|level| {
            (at, bit) = (at / 64, at % 64);
            is_set(self.summary(class, level, at), bit)
        })
    }

    /// Clears the summary bit of child `at`. Sets it again if the child is not empty after all: the
    /// participant that filled it may have seen our bit still set.
    fn clear_empty(&self, class: u32, level: usize, at: usize, is_empty: impl Fn() -> bool) {
        let summary = self.summary(class, level, at / 64);
        let bit = 1 << (at % 64);
        // Relaxed: a hint that is set meanwhile may be missed. The sweep then finds the slot.
        summary.fetch_and(!bit, Ordering::Relaxed);
        if !is_empty() {
            summary.fetch_or(bit, Ordering::Relaxed);
        }
    }
}
