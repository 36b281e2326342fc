//! Where the tables of a mapping are, by their addresses.

use super::*;
use crate::layout::HintTree;
use crate::sync::Atom;
use crate::word::SlotIndex;

#[test]
fn every_table_is_at_its_offset_in_full_length() {
    let options = Segment::options().capacity(1 << 20).seats(128);
    let segment = options.in_process().unwrap();
    let memory = segment.memory();
    let layout = memory.layout();
    let base = memory.header().as_ptr().addr();
    fn place<W>(words: &[Atom<W>], base: usize) -> (u64, usize) {
        ((words.as_ptr().addr() - base) as u64, words.len())
    }
    let at = |words: &[Atom]| place(words, base);
    assert_eq!(at(memory.header()), (0, 64));
    assert_eq!(place(memory.spans(), base), (layout.spans, 1024));
    assert_eq!(place(memory.slots(), base), (layout.slots, 1 << 16));
    assert_eq!(place(memory.names(), base), (layout.names, 2048));
    assert_eq!(at(memory.name_counts()), (layout.name_counts, 64));
    let hints = HintTree::new(&layout.geometry);
    assert_eq!(memory.tree(), &hints);
    assert_eq!(at(memory.hints()), (layout.hints, hints.total_words()));
    for seat in [0, 1, 5, 127] {
        let word = memory.seat_word(seat);
        let offset = layout.seats + seat as u64 * 128;
        assert_eq!(std::ptr::from_ref(word).addr() - base, offset as usize);
        assert_eq!(at(memory.seat_card(seat)), (offset + 8, 15));
    }
    for slot in [0, 1, 77, 65_535] {
        let readers = layout.readers + slot as u64 * 16;
        let index = SlotIndex::new(slot);
        assert_eq!(at(memory.readers(index)), (readers, 2));
        let pins = layout.pins + slot as u64 * 16;
        assert_eq!(at(memory.pins(index)), (pins, 2));
        let descriptor = layout.descriptors + slot as u64 * 128;
        assert_eq!(at(memory.descriptor(index)), (descriptor, 16));
    }
    for schema in [0, 1, 7, 255] {
        let offset = layout.schemas + schema as u64 * 2048;
        assert_eq!(at(memory.schema(schema)), (offset, 256));
    }
}

#[test]
fn an_extent_is_within_the_data_region_or_refused() {
    let segment = Segment::options().capacity(1 << 20).in_process().unwrap();
    let memory = segment.memory();
    let (base, data) = (
        memory.header().as_ptr().addr(),
        memory.layout().data as usize,
    );
    let at = |offset, len| {
        let found = memory.data(offset, len)?;
        Some(found.addr().get() - base - data)
    };
    assert_eq!(at(0, 1 << 20), Some(0));
    assert_eq!(at(77, 1), Some(77));
    assert_eq!(at((1 << 20) - 1, 1), Some((1 << 20) - 1));
    assert_eq!(at(1 << 20, 0), Some(1 << 20), "nothing, one past the end");
    for (offset, len) in [
        (0, (1 << 20) + 1),
        (1 << 20, 1),
        (1, u64::MAX),
        (u64::MAX, 1),
    ] {
        assert_eq!(at(offset, len), None, "{len} at {offset}");
    }
    let control = |offset, len| {
        let words = memory.control(offset, len)?;
        Some((words.as_ptr().addr() - base - data, words.len()))
    };
    assert_eq!(control(0, 3), Some((0, 3)));
    assert_eq!(control(64, 2), Some((64, 2)));
    assert_eq!(control((1 << 20) - 8, 1), Some(((1 << 20) - 8, 1)));
    for (offset, len) in [(4, 1), ((1 << 20) - 8, 2), (0, usize::MAX), (u64::MAX, 1)] {
        assert_eq!(control(offset, len), None, "{len} at {offset}");
    }
}
