//! Size classes, and the append-only table that divides the data region into spans of one class.

use crate::layout::{Geometry, Header, SCALE};
use crate::memory::Memory;
use crate::sync::Ordering;
use crate::word::{SlotIndex, SpanIndex, SpanWord};

/// Extents up to this size are committed whole, so the next owner finds them backed.
pub(crate) const WHOLE_COMMIT: u64 = 64 << 10;

/// Number of size classes.
pub(crate) const CLASSES: u32 = SCALE.classes;
/// Classes below this one are multiples of 64 bytes up to 256.
const FIRST_STEPPED: u32 = 4;
/// From this class on, sizes are powers of two: 128 KiB and up.
const FIRST_BIG: u32 = FIRST_STEPPED + 4 * 8;
const HUGE_PAGE: u64 = 2 << 20;

/// Returns the bytes of an extent of `class`: four steps a doubling up to 64 KiB, then powers of
/// two.
///
/// All sizes are multiples of 64, so every array starts at a cache line and is aligned for the
/// widest vectors. For this reason the steps up to 256 bytes are 64.
#[inline]
pub(crate) const fn class_size(class: u32) -> u64 {
    CLASS_SIZES[class as usize]
}

const CLASS_SIZES: [u64; CLASSES as usize] = {
    let mut sizes = [0; CLASSES as usize];
    let mut class = 0;
    while class < CLASSES {
        sizes[class as usize] = compute_class_size(class);
        class += 1;
    }
    sizes
};

const fn compute_class_size(class: u32) -> u64 {
    if class < FIRST_STEPPED {
        64 * (class as u64 + 1)
    } else if class < FIRST_BIG {
        let doubling = (class - FIRST_STEPPED) / 4;
        let step = (class - FIRST_STEPPED) % 4;
        (64 << doubling) * (5 + step as u64)
    } else {
        (128 << 10) << (class - FIRST_BIG)
    }
}

/// Returns the bytes of an extent of `class` that are committed for an array of `bytes`.
#[inline]
pub(crate) fn committed_size(class: u32, bytes: u64) -> u64 {
    match class_size(class) {
        whole if whole <= WHOLE_COMMIT => whole,
        _ => bytes,
    }
}

/// Returns the smallest class that holds `bytes`; `None` if there is none.
#[inline]
pub(crate) fn class_of(bytes: u64) -> Option<u32> {
    let last = bytes.max(1) - 1;
    let class = if bytes <= 256 {
        (last / 64) as u32
    } else if bytes <= 64 << 10 {
        let doubling = last.ilog2() - 8;
        FIRST_STEPPED + 4 * doubling + ((last - (256 << doubling)) / (64 << doubling)) as u32
    } else {
        FIRST_BIG + (last.ilog2() + 1) - 17
    };
    (class < CLASSES).then_some(class)
}

/// Returns the alignment of spans of `class`. No two spans share a page, so processes that allocate
/// at once do not touch the same page.
fn base_alignment(class: u32) -> u64 {
    match class_size(class) {
        size if class >= FIRST_BIG => size.min(HUGE_PAGE),
        _ => SCALE.page,
    }
}

/// A span: `count` neighbouring extents of one size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) index: SpanIndex,
    pub(crate) class: u32,
    pub(crate) base: u64,
    pub(crate) count: u32,
}

impl Span {
    /// Decodes `word` as the entry at `index`. Returns `None` if no participant can have written
    /// it.
    ///
    /// The entry has no count: it follows from class, base and geometry.
    fn decode(geometry: &Geometry, index: SpanIndex, word: SpanWord) -> Option<Span> {
        let class = word.class().filter(|&class| class < CLASSES)?;
        let count = extents_at(geometry, class, word.base())?;
        Some(Span {
            index,
            class,
            base: word.base(),
            count,
        })
    }

    /// Returns the end of the span in the data region.
    pub(crate) fn end(&self) -> u64 {
        self.base + class_size(self.class) * u64::from(self.count)
    }

    /// Returns the index of the slot at `position` in this span.
    pub(crate) fn slot(&self, geometry: &Geometry, position: u32) -> SlotIndex {
        let first = self.index.get() * geometry.span_slots as usize;
        SlotIndex::new(first + position as usize)
    }

    /// Returns the extent of the slot at `position`.
    pub(crate) fn extent(&self, position: u32) -> Extent {
        let size = class_size(self.class);
        Extent {
            offset: self.base + size * u64::from(position),
            class: self.class,
        }
    }
}

/// The bytes of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// Offset from the start of the data region.
    pub(crate) offset: u64,
    pub(crate) class: u32,
}

impl Extent {
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        class_size(self.class)
    }

    /// Returns `true` if the extent has a page that it shares with no other extent, wherever it
    /// starts.
    pub(crate) fn has_own_pages(&self) -> bool {
        self.size() >= 2 * SCALE.page
    }
}

/// Returns the number of extents of `class` in a span at `base`; `None` if not one fits.
fn extents_at(geometry: &Geometry, class: u32, base: u64) -> Option<u32> {
    let size = class_size(class);
    let room = geometry.capacity.checked_sub(base)? / size;
    let share = (geometry.capacity / SCALE.span_share / size).max(1);
    let count = room.min(share).min(u64::from(geometry.span_slots)) as u32;
    (count > 0).then_some(count)
}

/// Outcome of appending a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum AppendOutcome {
    /// A new span, appended by this call.
    New(Span),
    /// There is no room: in the table if `entries`, else in the data region.
    Exhausted { entries: bool },
    /// The caller could not back the words of the new span's slots.
    Unbacked,
    /// The entry holds bytes that no participant writes.
    Corrupt { index: SpanIndex },
}

/// The span table of a segment.
#[derive(Clone, Copy)]
pub(crate) struct Spans<'m> {
    memory: &'m Memory,
}

impl<'m> Spans<'m> {
    #[inline]
    pub(crate) fn of(memory: &'m Memory) -> Self {
        Spans { memory }
    }

    #[inline]
    fn geometry(&self) -> &'m Geometry {
        &self.memory.layout().geometry
    }

    /// Returns the span at `index`, if it is appended.
    pub(crate) fn get(&self, index: SpanIndex) -> Option<Span> {
        // Relaxed, here and below: an entry publishes no other memory and never changes again. A
        // slot of the span comes only from a participant that had seen the entry.
        let word = self
            .memory
            .spans()
            .get(index.get())?
            .load(Ordering::Relaxed);
        self.decode(index, word)
    }

    /// Decodes `word` as the entry at `index`.
    pub(crate) fn decode(&self, index: SpanIndex, word: SpanWord) -> Option<Span> {
        Span::decode(self.geometry(), index, word)
    }

    /// Returns the extent of `slot`, if its span is appended and the extent is inside the data
    /// region.
    ///
    /// Does not check that the span has so many extents, which would take two divisions. A slot
    /// that is or was LIVE is always one of them.
    #[inline]
    pub(crate) fn extent(&self, slot: SlotIndex) -> Option<Extent> {
        let (span, position) = Geometry::place_of(slot);
        let word = self.memory.spans().get(span.get())?.load(Ordering::Relaxed);
        let class = word.class()?;
        let size = *CLASS_SIZES.get(class as usize)?;
        let offset = word.base() + size * position as u64;
        (offset.checked_add(size)? <= self.geometry().capacity).then_some(Extent { offset, class })
    }

    /// Returns all appended spans, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Span> + 'm {
        (0..self.memory.spans().len()).map_while(move |index| self.get(SpanIndex::new(index)))
    }

    /// Appends a span of `class` by one compare-and-swap of the first empty entry.
    ///
    /// Entry k never changes once it is set, and determines where entry k + 1 begins. So a
    /// participant that dies meanwhile leaves either nothing or a whole span, with slots that are
    /// FREE and clean.
    ///
    /// `back` allocates pages for the slots of the span with this index. It runs before any
    /// participant can find the span and touch the slots.
    pub(crate) fn append_span(
        &self,
        class: u32,
        mut back: impl FnMut(usize) -> bool,
    ) -> AppendOutcome {
        let entries = self.memory.spans();
        let hint = &self.memory.header()[Header::SPANS_HINT];
        let mut index = usize::try_from(hint.load(Ordering::Relaxed))
            .unwrap_or(0)
            .min(entries.len());
        // The hint is too large only if it was damaged. A hint that is too small costs steps.
        while index > 0 && entries[index - 1].load(Ordering::Relaxed).is_empty() {
            index -= 1;
        }
        let mut end = match index
            .checked_sub(1)
            .map(|last| self.get(SpanIndex::new(last)))
        {
            None => 0,
            Some(Some(span)) => span.end(),
            Some(None) => {
                let index = SpanIndex::new(index - 1);
                return AppendOutcome::Corrupt { index };
            }
        };
        loop {
            let Some(entry) = entries.get(index) else {
                return AppendOutcome::Exhausted { entries: true };
            };
            let base = end.next_multiple_of(base_alignment(class));
            let Some(count) = extents_at(self.geometry(), class, base) else {
                return AppendOutcome::Exhausted { entries: false };
            };
            if !back(index) {
                return AppendOutcome::Unbacked;
            }
            let empty = SpanWord::default();
            // Set to { class, base }: the span exists, and all of its slots are FREE and clean.
            match entry.compare_exchange(
                empty,
                SpanWord::new(class, base),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    hint.fetch_max(index as u64 + 1, Ordering::Relaxed);
                    return AppendOutcome::New(Span {
                        index: SpanIndex::new(index),
                        class,
                        base,
                        count,
                    });
                }
                Err(other) => {
                    let index = SpanIndex::new(index);
                    match Span::decode(self.geometry(), index, other) {
                        Some(span) => end = span.end(),
                        None => return AppendOutcome::Corrupt { index },
                    }
                }
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn classes_ascend_and_are_multiples_of_a_cache_line() {
        for class in 1..CLASSES {
            assert!(class_size(class) > class_size(class - 1));
        }
        assert!((0..CLASSES).all(|class| class_size(class).is_multiple_of(64)));
        assert_eq!(class_size(FIRST_BIG - 1), 64 << 10);
        assert_eq!(class_size(CLASSES - 1), 1 << 46);
        assert!(class_size(CLASSES - 1) >= Geometry::MAX_CAPACITY);
    }

    #[test]
    fn no_class_holds_more_than_the_largest() {
        assert_eq!(class_of(1 << 46), Some(CLASSES - 1));
        assert_eq!(class_of((1 << 46) + 1), None);
        assert_eq!(class_of(u64::MAX), None);
        assert_eq!(class_of(0), Some(0));
    }

    #[test]
    fn the_least_span_table_uses_any_capacity_with_any_one_size() {
        for capacity in [1u64 << 20, 5 << 20, 64 << 20, 1 << 30] {
            let geometry = Geometry {
                capacity,
                seats: 1,
                spans: Geometry::MIN_SPANS,
                span_slots: Geometry::SPAN_SLOTS,
            };
            // Smaller ones run out of slots first: there are 64 a span.
            let smallest = capacity / geometry.slots() as u64;
            for class in (0..CLASSES).filter(|&class| class_size(class) >= smallest.max(SCALE.page))
            {
                let (mut base, mut spans) = (0, 0);
                while let Some(count) = extents_at(&geometry, class, base) {
                    base += u64::from(count) * class_size(class);
                    base = base.next_multiple_of(base_alignment(class));
                    spans += 1;
                }
                assert!(spans <= geometry.spans, "{spans} spans of class {class}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_class_is_the_smallest_that_fits(bytes in prop_oneof![0u64..1 << 20, 0u64..1 << 46]) {
            let class = class_of(bytes).unwrap();
            prop_assert!(class_size(class) >= bytes);
            prop_assert!(class == 0 || class_size(class - 1) < bytes);
        }

        #[test]
        fn a_span_stays_inside_the_capacity(bits: u64, units in 1u64..1 << 30) {
            let geometry = Geometry {
                capacity: units * Geometry::CAPACITY_UNIT,
                seats: 1,
                spans: 64,
                span_slots: 64,
            };
            use crate::sync::Word;
            if let Some(span) = Span::decode(&geometry, SpanIndex::new(0), SpanWord::from_bits(bits)) {
                prop_assert!(span.end() <= geometry.capacity);
            }
        }
    }
}
