//! The sizes that a model has smaller than a real segment, because each of its words is an object
//! of the model checker.

/// Sizes of a segment's tables, and the defaults of its options.
pub(crate) struct Scale {
    /// The capacity is a multiple of this.
    pub(crate) capacity_unit: u64,
    /// Bytes of a page. No two spans share one.
    pub(crate) page: u64,
    /// Number of size classes. Each has its own words in the hint trees.
    pub(crate) classes: u32,
    /// Number of summary levels in a hint tree.
    pub(crate) hint_levels: usize,
    /// A span may take at most this part of the capacity: one in so many.
    pub(crate) span_share: u64,
    /// Maximum number of slots in a span.
    pub(crate) span_slots: u32,
    /// Smallest number of spans of a segment.
    pub(crate) min_spans: u32,
    /// Smallest and largest number of name buckets.
    pub(crate) buckets: (usize, usize),
    /// Number of buckets that share a counter.
    pub(crate) bucket_group: usize,
    /// Number of struct layouts that a segment can record, and the words of one.
    pub(crate) schemas: usize,
    pub(crate) schema_words: usize,
    /// The default number of seats.
    pub(crate) default_seats: u32,
    /// The smallest default for the number of arrays. Elsewhere the least number of spans has more.
    pub(crate) min_default_arrays: u64,
    /// The default capacity of an in-process segment.
    pub(crate) in_process_capacity: u64,
}

impl Scale {
    /// A real segment.
    const REAL: Scale = Scale {
        capacity_unit: 64 << 10,
        page: 4096,
        // 64 bytes to 64 TiB.
        classes: 66,
        hint_levels: 4,
        span_share: 256,
        span_slots: 64,
        min_spans: 1024,
        buckets: (1, usize::MAX),
        bucket_group: 32,
        schemas: 256,
        schema_words: 256,
        default_seats: 256,
        min_default_arrays: 0,
        in_process_capacity: 64 << 30,
    };

    /// A segment under Miri, where cost grows with the bytes of the tables.
    const MIRI: Scale = Scale {
        min_spans: 16,
        in_process_capacity: 1 << 20,
        ..Scale::REAL
    };

    /// A segment in a model: size classes up to 512 bytes, two slots in a span.
    const MODEL: Scale = Scale {
        capacity_unit: 64,
        page: 64,
        classes: 8,
        hint_levels: 1,
        span_share: 1,
        span_slots: 2,
        min_spans: 1,
        buckets: (2, 2),
        bucket_group: 1,
        schemas: 2,
        schema_words: 6,
        default_seats: 2,
        min_default_arrays: 4,
        in_process_capacity: 256,
    };
}

/// The sizes in this build.
pub(crate) const SCALE: Scale = match (cfg!(loom), cfg!(miri)) {
    (true, _) => Scale::MODEL,
    (_, true) => Scale::MIRI,
    _ => Scale::REAL,
};
