//! The spans in which a participant may have left something under its seat.

use core::cell::Cell;

use crate::layout::Geometry;
use crate::memory::Memory;
use crate::word::{SlotIndex, SpanIndex};

/// The spans in which a participant may hold something: each slot that it has reserved, leased,
/// pinned or owned is in one of them.
///
/// Private memory, which only grows: what was given back again, by any means, costs a look when the
/// participant leaves. A participant that dies takes it along, so a reaper looks at all spans.
pub(crate) struct Footprint {
    /// One bit per span.
    spans: Box<[Cell<u64>]>,
    /// The span of the last slot, which is in `spans` already.
    last: Cell<usize>,
}

impl Footprint {
    /// Creates the footprint of a participant that holds nothing.
    pub(crate) fn new(memory: &Memory) -> Footprint {
        let spans = memory.spans().len().div_ceil(64);
        Footprint {
            spans: vec![Cell::new(0); spans].into_boxed_slice(),
            last: Cell::new(usize::MAX),
        }
    }

    /// Adds the span of a slot.
    #[inline(always)]
    pub(crate) fn add(&self, slot: SlotIndex) {
        let (span, _) = Geometry::place_of(slot);
        if span.get() != self.last.get() {
            self.add_span(span);
        }
    }

    // Not inlined: most slots are in the span of the one before.
    #[inline(never)]
    fn add_span(&self, span: SpanIndex) {
        if let Some(word) = self.spans.get(span.get() / 64) {
            word.set(word.get() | 1 << (span.get() % 64));
            self.last.set(span.get());
        }
    }

    /// Forgets all spans: from here on this is the footprint of another participant.
    pub(crate) fn clear(&self) {
        self.spans.iter().for_each(|word| word.set(0));
        self.last.set(usize::MAX);
    }

    /// Returns the spans, in order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanIndex> {
        self.spans.iter().enumerate().flat_map(|(at, word)| {
            let mut bits = word.get();
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(SpanIndex::new(at * 64 + bit))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    #[test]
    fn each_span_of_an_added_slot_is_there_once() {
        let segment = Segment::in_process().unwrap();
        let memory = segment.memory();
        let last = memory.slots().len() - 1;
        let footprint = Footprint::new(memory);
        assert_eq!(footprint.spans().count(), 0);
        for slot in [0, 1, last, 0, 64 * 64, last] {
            footprint.add(SlotIndex::new(slot));
        }
        let spans = [0, 64, memory.spans().len() - 1].map(SpanIndex::new);
        assert_eq!(Vec::from_iter(footprint.spans()), spans);
        // A handle may name any slot.
        footprint.add(SlotIndex::new(last + 1));
        footprint.clear();
        assert_eq!(footprint.spans().count(), 0);
        footprint.add(SlotIndex::new(last));
        assert_eq!(Vec::from_iter(footprint.spans()), [spans[2]]);
    }
}
