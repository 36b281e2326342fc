//! Geometry of a segment, the resulting offsets, and the header word that records it.

mod scale;

use crate::word::{Field, SeatId, SlotIndex, SpanIndex};
pub(crate) use scale::SCALE;

/// The version of the layout that this crate writes and reads. It is independent of the crate's
/// version.
pub const LAYOUT_VERSION: u32 = 6;

/// The first two bytes of every segment's file, as a little-endian number, by which tools recognize
/// segments. A segment that is not initialized yet starts with zeros.
pub const SEGMENT_MAGIC: u16 = 0xa75e;

/// The four numbers that determine the layout of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Bytes of the data region.
    pub(crate) capacity: u64,
    /// Number of seats; a power of two.
    pub(crate) seats: u32,
    /// Entries of the span table; a power of two.
    pub(crate) spans: u32,
    /// Maximum number of slots in a span; a power of two, at most 64.
    pub(crate) span_slots: u32,
}

impl Geometry {
    /// The capacity is a multiple of this.
    pub(crate) const CAPACITY_UNIT: u64 = SCALE.capacity_unit;
    /// Largest capacity in bytes that a span's base and the header word can hold.
    pub(crate) const MAX_CAPACITY: u64 = (Header::CAPACITY.max()) * Self::CAPACITY_UNIT;
    /// Largest number of slots. A handle's index can hold it, and with it the tables take less than
    /// a tenth of the default reservation.
    pub(crate) const MAX_SLOTS: u64 = 1 << 28;
    /// Slots of a span in every segment shared between processes: one hint word for each span.
    pub(crate) const SPAN_SLOTS: u32 = SCALE.span_slots;

    /// Smallest number of spans of a segment. A span of large extents has few of them, because it
    /// may take only a 256th of the capacity (see `span.rs`). So some 512 such spans, and one more
    /// for each size class, use the whole capacity at any extent size. With fewer entries a small
    /// segment would be full while most of it is empty.
    pub(crate) const MIN_SPANS: u32 = SCALE.min_spans;

    pub(crate) fn slots(&self) -> usize {
        self.spans as usize * self.span_slots as usize
    }

    /// Returns the span of a slot, and the slot's position in the span.
    #[inline]
    pub(crate) const fn place_of(slot: SlotIndex) -> (SpanIndex, usize) {
        let per_span = Self::SPAN_SLOTS as usize;
        let span = SpanIndex::new(slot.get() / per_span);
        (span, slot.get() % per_span)
    }

    /// Returns the number of name buckets: one for 32 slots. If one array in twenty has a name, a
    /// bucket holds one or two names.
    pub(crate) fn buckets(&self) -> usize {
        let (min, max) = SCALE.buckets;
        (self.slots() / 32).clamp(min, max)
    }

    /// Returns the number of words in a slot's row of bits, one bit for each seat.
    pub(crate) fn row_words(&self) -> usize {
        self.seats.div_ceil(64) as usize
    }
}

/// The header. Its first word has the fields magic 16 | layout version 8 | capacity in 64 KiB units
/// 30 | log2 seats 4 | log2 spans 5 | pinned 1. A segment of zeros lacks only this word: one
/// compare-and-swap of it initializes the segment.
pub(crate) struct Header;

impl Header {
    const MAGIC: Field = Field::first(16);
    const VERSION: Field = Self::MAGIC.then(8);
    const CAPACITY: Field = Self::VERSION.then(30);
    const SEATS: Field = Self::CAPACITY.then(4);
    const SPANS: Field = Self::SEATS.then(5);
    const PINNED: Field = Self::SPANS.then(1);
    const MAGIC_VALUE: u64 = SEGMENT_MAGIC as u64;

    /// Words of the header.
    pub(crate) const WORDS: usize = 64;

    // The words in use, by their offset.
    /// The word of [`Header::encode`]; 0 until the segment is initialized.
    pub(crate) const ALIVE: usize = 0;
    /// The random key that handles are xored with; 0 until the first use.
    pub(crate) const KEY: usize = 1;
    /// Hint: lower bound of the appended entries in the span table.
    pub(crate) const SPANS_HINT: usize = 2;
    /// 1 if the name stays when the last process leaves.
    pub(crate) const PERSISTENT: usize = 3;
    /// Hint: bytes of free extents that keep their pages, a wrapping sum of signed reports.
    pub(crate) const RETAINED: usize = 4;
    /// Hint: not 0 once an array was named; until then lookups skip the buckets.
    pub(crate) const NAMES: usize = 5;
    /// The random number by which processes recognize the segment; 0 until the first use. It is not
    /// the key: an id does not help to make handles.
    pub(crate) const ID: usize = 6;
    /// The inode of the file once the tables that every process touches were allocated in it. A
    /// creator that dies early leaves an initialized segment without them. So does a copy of the
    /// file, in which zeros have become holes.
    pub(crate) const BACKED: usize = 7;

    pub(crate) fn encode(geometry: &Geometry) -> u64 {
        let word = Self::MAGIC.set(0, Self::MAGIC_VALUE);
        let word = Self::VERSION.set(word, u64::from(LAYOUT_VERSION));
        let word = Self::CAPACITY.set(word, geometry.capacity / Geometry::CAPACITY_UNIT);
        let word = Self::SEATS.set(word, u64::from(geometry.seats.ilog2()));
        Self::SPANS.set(word, u64::from(geometry.spans.ilog2()))
    }

    /// Adds to a word of [`encode`](Header::encode) whether the segment keeps all of its pages.
    pub(crate) fn with_pinned(word: u64, pinned: bool) -> u64 {
        Self::PINNED.set(word, u64::from(pinned))
    }

    /// Returns `true` if nobody may give pages of the segment back. The mark is part of the word
    /// that initializes the segment, so every process that can use the segment sees it.
    pub(crate) fn is_pinned(word: u64) -> bool {
        Self::PINNED.get(word) != 0
    }

    pub(crate) fn decode(word: u64) -> Result<Geometry, HeaderError> {
        if Self::MAGIC.get(word) != Self::MAGIC_VALUE {
            return Err(HeaderError::NotOurs { found: word });
        }
        let version = Self::VERSION.get(word) as u32;
        if version != LAYOUT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let geometry = Geometry {
            capacity: Self::CAPACITY.get(word) * Geometry::CAPACITY_UNIT,
            seats: 1 << Self::SEATS.get(word),
            spans: 1 << Self::SPANS.get(word),
            span_slots: Geometry::SPAN_SLOTS,
        };
        let fits = geometry.capacity > 0
            && geometry.seats <= SeatId::MAX_SEATS
            && geometry.slots() as u64 <= Geometry::MAX_SLOTS;
        match fits {
            true => Ok(geometry),
            false => Err(HeaderError::NotOurs { found: word }),
        }
    }
}

/// The reason for refusing a header word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    NotOurs { found: u64 },
    Version { found: u32 },
}

/// Offsets of the tables, in bytes from the start of the mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) geometry: Geometry,
    pub(crate) seats: u64,
    pub(crate) spans: u64,
    pub(crate) slots: u64,
    pub(crate) readers: u64,
    pub(crate) pins: u64,
    pub(crate) descriptors: u64,
    pub(crate) schemas: u64,
    pub(crate) names: u64,
    pub(crate) hints: u64,
    pub(crate) data: u64,
    /// Bytes of the whole mapping.
    pub(crate) total: u64,
}

impl Layout {
    /// Words of a seat's entry: its word, and information about the participant for tools.
    pub(crate) const SEAT_WORDS: usize = 16;
    /// Words of a descriptor.
    pub(crate) const DESCRIPTOR_WORDS: usize = 16;
    /// Words of a schema: state and hash, length, text.
    pub(crate) const SCHEMA_WORDS: usize = SCALE.schema_words;
    /// Number of struct layouts that a segment can record.
    pub(crate) const SCHEMAS: usize = SCALE.schemas;
    const TABLE_ALIGN: u64 = 4096;
    const DATA_ALIGN: u64 = 2 << 20;

    /// Returns the offset of a slot's descriptor.
    pub(crate) fn descriptor_at(&self, slot: SlotIndex) -> u64 {
        self.descriptors + (slot.get() * Self::DESCRIPTOR_WORDS * 8) as u64
    }

    pub(crate) fn new(geometry: Geometry) -> Layout {
        let mut end = (Header::WORDS * 8) as u64;
        let mut table = |words: usize| {
            let start = end.next_multiple_of(Self::TABLE_ALIGN);
            end = start + words as u64 * 8;
            start
        };
        let slots_count = geometry.slots();
        let seats = table(geometry.seats as usize * Self::SEAT_WORDS);
        let spans = table(geometry.spans as usize);
        let slots = table(slots_count);
        let readers = table(slots_count * geometry.row_words());
        let pins = table(slots_count * geometry.row_words());
        let descriptors = table(slots_count * Self::DESCRIPTOR_WORDS);
        let schemas = table(Self::SCHEMAS * Self::SCHEMA_WORDS);
        let names = table(geometry.buckets());
        let hints = table(HintTree::new(&geometry).total_words());
        let data = end.next_multiple_of(Self::DATA_ALIGN);
        Layout {
            geometry,
            seats,
            spans,
            slots,
            readers,
            pins,
            descriptors,
            schemas,
            names,
            hints,
            data,
            total: data + geometry.capacity,
        }
    }
}

/// Indices of the words in the hint trees: one leaf word for each span, and for each size class the
/// levels of 64-ary summaries above the leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HintTree {
    leaves: usize,
    level: [usize; Self::LEVELS],
}

impl HintTree {
    /// Number of summary levels: enough for 64^4 spans, or 64 in a model. A geometry has at most
    /// 2^22 spans.
    pub(crate) const LEVELS: usize = SCALE.hint_levels;

    pub(crate) fn new(geometry: &Geometry) -> HintTree {
        let leaves = geometry.spans as usize;
        let mut below = leaves;
        let level = core::array::from_fn(|_| {
            below = below.div_ceil(64);
            below
        });
        HintTree { leaves, level }
    }

    pub(crate) fn total_words(&self) -> usize {
        self.leaves + SCALE.classes as usize * self.level.iter().sum::<usize>()
    }

    /// Returns the index of a span's leaf word.
    pub(crate) fn leaf(&self, span: usize) -> usize {
        span
    }

    /// Returns the index of word `at` of `level` for `class`. Level 0 is just above the leaves.
    pub(crate) fn summary(&self, class: u32, level: usize, at: usize) -> usize {
        let class_words: usize = self.level.iter().sum();
        let below: usize = self.level[..level].iter().sum();
        self.leaves + class as usize * class_words + below + at
    }

    /// Returns the lowest level that has one word.
    pub(crate) fn top(&self) -> usize {
        self.level
            .iter()
            .position(|&words| words == 1)
            .unwrap_or(Self::LEVELS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: Geometry = Geometry {
        capacity: 16 << 40,
        seats: 256,
        spans: 1 << 16,
        span_slots: 64,
    };

    #[test]
    fn golden_offsets_of_the_default_geometry() {
        let layout = Layout::new(DEFAULT);
        assert_eq!(LAYOUT_VERSION, 6, "a new version needs a new golden test");
        assert_eq!(Header::encode(&DEFAULT), 0x4210_0000_0006_a75e);
        assert_eq!(
            [layout.seats, layout.spans, layout.slots, layout.readers],
            [0x1000, 0x9000, 0x8_9000, 0x208_9000]
        );
        assert_eq!(
            [
                layout.pins,
                layout.descriptors,
                layout.schemas,
                layout.names,
                layout.hints,
                layout.data
            ],
            [
                0xa08_9000,
                0x1208_9000,
                0x3208_9000,
                0x3210_9000,
                0x3220_9000,
                0x3240_0000
            ]
        );
        assert_eq!(layout.total, layout.data + (16 << 40));
    }

    #[test]
    fn header_fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[
            Header::MAGIC,
            Header::VERSION,
            Header::CAPACITY,
            Header::SEATS,
            Header::SPANS,
            Header::PINNED,
        ]);
    }

    #[test]
    fn hint_words_are_distinct() {
        let geometry = Geometry {
            spans: 1 << 13,
            ..DEFAULT
        };
        let tree = HintTree::new(&geometry);
        let mut seen = std::collections::HashSet::new();
        for span in 0..geometry.spans as usize {
            assert!(seen.insert(tree.leaf(span)));
        }
        for class in 0..SCALE.classes {
            for level in 0..HintTree::LEVELS {
                for at in 0..tree.level[level] {
                    assert!(seen.insert(tree.summary(class, level, at)));
                }
            }
        }
        assert_eq!(seen.len(), tree.total_words());
        assert_eq!(seen.into_iter().max(), Some(tree.total_words() - 1));
    }

    proptest! {
        #[test]
        fn the_header_round_trips(units in 1u64..1 << 30, seats in 0u32..12, spans in 0u32..23) {
            let geometry = Geometry {
                capacity: units * Geometry::CAPACITY_UNIT,
                seats: 1 << seats,
                spans: 1 << spans,
                span_slots: Geometry::SPAN_SLOTS,
            };
            let word = Header::encode(&geometry);
            prop_assert_eq!(Header::decode(word), Ok(geometry));
            prop_assert!(!Header::is_pinned(word));
            let pinned = Header::with_pinned(word, true);
            prop_assert_eq!(Header::decode(pinned), Ok(geometry));
            prop_assert!(Header::is_pinned(pinned));
            prop_assert_eq!(Header::with_pinned(pinned, false), word);
        }

        #[test]
        fn decoding_any_header_is_total(word: u64) {
            if let Ok(geometry) = Header::decode(word) {
                let layout = Layout::new(geometry);
                prop_assert!(layout.total > layout.data);
            }
        }
    }
}
