//! The tables of an observed segment, mapped as far as they are in use.
//!
//! The tables with an entry for each slot reserve hundreds of MiB in a segment of the default size.
//! To save address space, an observer maps their entries for the appended spans, and as many again.
//! When more spans are appended, it maps a larger part, and keeps the former mapping: references
//! into it stay valid for as long as the observer lives.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use super::super::os::mapping::{Mapping, map_error};
use crate::layout::{Geometry, Layout};
use crate::memory::Memory;
use crate::segment::error::SegmentError;
use crate::sync::Ordering;

/// Number of spans in the smallest mapping. Each level has twice the spans of the previous level.
const FIRST: usize = 256;

/// Number of levels, enough for the largest number of spans that a header can hold.
const LEVELS: usize = 15;

const _: () =
    assert!((FIRST << (LEVELS - 1)) as u64 * Geometry::SPAN_SLOTS as u64 >= Geometry::MAX_SLOTS);

/// One mapping of the tables. The fields drop in this order.
struct Mapped {
    memory: Memory,
    _mapping: Mapping,
}

pub(super) struct Tables {
    first: Mapped,
    larger: [OnceLock<Mapped>; LEVELS],
}

impl Tables {
    /// Maps the tables for the spans that are appended according to `is_appended`.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        layout: &Layout,
        is_appended: impl Fn(usize) -> bool,
    ) -> Result<Tables, SegmentError> {
        let level = level(layout, is_appended);
        Ok(Tables {
            first: Mapped::map(fd, layout, FIRST << level)?,
            larger: [const { OnceLock::new() }; LEVELS],
        })
    }

    /// Returns the largest mapping so far.
    pub(super) fn memory(&self) -> &Memory {
        let larger = self.larger.iter().rev().find_map(OnceLock::get);
        &larger.unwrap_or(&self.first).memory
    }

    /// Returns a mapping with the slots of all currently appended spans.
    pub(super) fn grown(&self, fd: BorrowedFd<'_>) -> Result<&Memory, SegmentError> {
        let memory = self.memory();
        let layout = memory.layout();
        // Relaxed: an entry publishes no other memory, and never changes again.
        let is_appended = |span: usize| !memory.spans()[span].load(Ordering::Relaxed).is_empty();
        let level = level(layout, is_appended);
        if memory.slots().len() >= slots(layout, FIRST << level) {
            return Ok(memory);
        }
        let mapped = Mapped::map(fd, layout, FIRST << level)?;
        // If another thread was faster, its mapping is of the same size.
        Ok(&self.larger[level].get_or_init(|| mapped).memory)
    }
}

/// Returns the lowest level that has all appended spans. Entries of the span table are set in
/// order.
fn level(layout: &Layout, is_appended: impl Fn(usize) -> bool) -> usize {
    let spans = layout.geometry.spans as usize;
    let mut level = 0;
    while FIRST << level < spans && is_appended(FIRST << level) {
        level += 1;
    }
    level
}

fn slots(layout: &Layout, spans: usize) -> usize {
    let spans = spans.min(layout.geometry.spans as usize);
    spans * layout.geometry.span_slots as usize
}

impl Mapped {
    /// Maps the tables with the slots of the first `spans` spans.
    fn map(fd: BorrowedFd<'_>, layout: &Layout, spans: usize) -> Result<Mapped, SegmentError> {
        let slots = slots(layout, spans);
        let row = |words: usize| slots as u64 * words as u64 * 8;
        let parts = [
            (0, layout.slots),
            (layout.slots, row(1)),
            (layout.readers, row(layout.geometry.row_words())),
            (layout.pins, row(layout.geometry.row_words())),
            (layout.descriptors, row(Layout::DESCRIPTOR_WORDS)),
            (layout.schemas, layout.data - layout.schemas),
        ];
        let bytes = parts.iter().map(|&(_, len)| len).sum();
        let (mapping, starts) =
            Mapping::of_file_parts(fd, parts).map_err(|errno| map_error(errno, bytes))?;
        let [head, slots_at, readers, pins, descriptors, tail] = starts;
        debug_assert_eq!(head, 0);
        let in_tail = |offset: u64| tail + (offset - layout.schemas);
        let mapped = Layout {
            geometry: Geometry {
                capacity: 0,
                ..layout.geometry
            },
            slots: slots_at,
            readers,
            pins,
            descriptors,
            schemas: tail,
            names: in_tail(layout.names),
            name_counts: in_tail(layout.name_counts),
            hints: in_tail(layout.hints),
            data: in_tail(layout.data),
            total: in_tail(layout.data),
            ..*layout
        };
        // SAFETY: each part of the mapping has the bytes that are accessed there: `mapped` has the
        // offsets of the parts, `slots` is the number of their entries, and the file has the size
        // that its header records (`geometry_in`). The mapping starts at a page, and lives as long
        // as the `Memory`, in one struct with it. It is not writable: an observer stores nothing.
        let memory = unsafe { Memory::of_parts(mapping.base(), *layout, mapped, slots) };
        Ok(Mapped {
            memory,
            _mapping: mapping,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(spans: u32) -> Layout {
        Layout::new(Geometry {
            capacity: 1 << 30,
            seats: 2,
            spans,
            span_slots: Geometry::SPAN_SLOTS,
        })
    }

    #[test]
    fn a_level_has_all_carved_spans() {
        let level_of = |spans: u32, appended: usize| {
            level(&layout(spans), |span| {
                assert!(span < spans as usize, "there is no entry {span}");
                span < appended
            })
        };
        assert_eq!([0, 1, 256].map(|appended| level_of(1024, appended)), [0; 3]);
        assert_eq!([257, 512].map(|appended| level_of(1024, appended)), [1; 2]);
        assert_eq!([513, 1024].map(|appended| level_of(1024, appended)), [2; 2]);
        assert_eq!([0, 256].map(|appended| level_of(256, appended)), [0; 2]);
        let most = (Geometry::MAX_SLOTS / 64) as u32;
        assert_eq!(level_of(most, most as usize), LEVELS - 1);
    }

    #[test]
    fn slots_are_those_of_the_spans_that_there_are() {
        assert_eq!(slots(&layout(1024), 256), 256 * 64);
        assert_eq!(slots(&layout(1024), 1024), 1024 * 64);
        assert_eq!(slots(&layout(1024), 2048), 1024 * 64);
    }
}
