//! The spans in which a participant may have left something under its seat.

use core::cell::{Cell, RefCell};

use crate::layout::Geometry;
use crate::word::{SlotIndex, SpanIndex};

/// The spans in which a participant may hold something: each slot that it has reserved, leased,
/// pinned or owned is in one of them.
///
/// Private memory, which only grows: what was given back again, by any means, costs a look when the
/// participant leaves. A participant that dies takes it along, so a reaper looks at all spans.
pub(crate) struct Footprint {
    /// One bit per span, up to the last span in the footprint. Spans are appended in order, so that
    /// memory and time follow the spans in use, not those that the segment may have.
    spans: RefCell<Vec<u64>>,
    /// The span of the last slot, which is in `spans` already.
    last: Cell<usize>,
}

impl Footprint {
    /// Creates the footprint of a participant that holds nothing.
    pub(crate) fn new() -> Footprint {
        Footprint {
            spans: RefCell::default(),
            last: Cell::new(usize::MAX),
        }
    }

    /// Adds the span of a slot, which the segment has.
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
        let (at, bit) = (span.get() / 64, span.get() % 64);
        let mut spans = self.spans.borrow_mut();
        if spans.len() <= at {
            spans.resize(at + 1, 0);
        }
        spans[at] |= 1 << bit;
        self.last.set(span.get());
    }

    /// Forgets all spans: from here on this is the footprint of another participant.
    pub(crate) fn clear(&self) {
        self.spans.borrow_mut().clear();
        self.last.set(usize::MAX);
    }

    /// Returns the spans, in order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanIndex> + use<> {
        let words = self.spans.borrow().clone();
        words.into_iter().enumerate().flat_map(|(at, mut bits)| {
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
        let footprint = Footprint::new();
        assert_eq!(footprint.spans().count(), 0);
        for slot in [0, 1, last, 0, 64 * 64, last] {
            footprint.add(SlotIndex::new(slot));
        }
        let spans = [0, 64, memory.spans().len() - 1].map(SpanIndex::new);
        assert_eq!(Vec::from_iter(footprint.spans()), spans);
        footprint.clear();
        assert_eq!(footprint.spans().count(), 0);
        footprint.add(SlotIndex::new(last));
        assert_eq!(Vec::from_iter(footprint.spans()), [spans[2]]);
    }

    #[test]
    fn it_is_as_large_as_the_spans_in_use() {
        let footprint = Footprint::new();
        let words = || footprint.spans.borrow().capacity();
        assert_eq!(words(), 0);
        footprint.add(SlotIndex::new(0));
        assert!((1..64).contains(&words()), "of a segment of any size");
    }
}
