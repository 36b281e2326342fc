use std::time::Duration;

use ndarray::Axis;

use super::*;
use crate::sync::Atom;
use crate::{Handle, Segment};

fn table() -> HandleTable {
    let segment = Segment::options().capacity(1 << 20).seats(4).in_process();
    HandleTable::join(&segment.unwrap()).unwrap()
}

#[test]
fn a_table_in_use_is_clean_and_counted() {
    let table = table();
    assert_eq!(table.verify().unwrap().slots, 0);
    let other = HandleTable::join(table.segment()).unwrap();
    let read = table.zeros::<f64, _>(10).unwrap();
    let written = table.zeros::<f64, _>((3, 4)).unwrap();
    let freed = other.zeros::<bool, _>(7).unwrap();
    let pinned = other.zeros::<u8, _>(70).unwrap();
    let _pins = (table.pin(pinned).unwrap(), other.pin(read).unwrap());
    other.free(pinned).unwrap();
    let detached = other.zeros::<u8, _>(7).unwrap();
    other.detach(detached).unwrap();
    let _reader = other.read(read).unwrap();
    let _writer = other.write(written).unwrap();
    let last = table.read(freed).unwrap();
    other.free(freed).unwrap();
    let rows = table.zeros::<f32, _>((8, 2)).unwrap();
    let tiles = table.partition(rows.write(), Axis(0), 2).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let tile = part.claim().unwrap().unwrap();
    let queue = table.queue::<u64>(4).unwrap();
    queue.push(1).unwrap();

    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.seats, found.in_transit), (2, 0), "{found}");
    // The partition's words and the queue's are arrays, too.
    assert_eq!((found.live, found.retired), (6, 2), "{found}");
    // Readers: `read`, `freed`, the participant's place, and the partition and queue in use.
    assert_eq!((found.writers, found.readers), (2, 5), "{found}");
    assert_eq!(found.pins, 2, "{found}");
    let states = [found.free, found.reserved, found.live, found.retired];
    assert_eq!(states.iter().sum::<usize>(), found.slots, "{found}");

    drop(tile);
    drop((part, last));
    round.finish(Duration::from_secs(0)).unwrap_err();
    assert_eq!(table.verify().unwrap().retired, 1);
    drop((queue, tiles, _reader, _writer, _pins));
    drop(other);
    let found = table.verify().unwrap();
    assert_eq!(
        (found.seats, found.readers, found.writers + found.pins),
        (1, 0, 0),
        "{found}"
    );
    assert!(found.is_clean(), "{found}");
}

/// Writes `bits` into a word and expects exactly one damage report, for that word.
fn finds<W: Word>(table: &HandleTable, offset: u64, word: &Atom<W>, bits: u64, what: &str) {
    let before = word.load(Ordering::Relaxed);
    word.store(W::from_bits(bits), Ordering::Relaxed);
    let found = table.verify().unwrap();
    word.store(before, Ordering::Relaxed);
    let at: Vec<_> = found.damage.iter().map(|damage| damage.offset).collect();
    assert_eq!(at, [offset], "{bits:#x}: {found}");
    assert!(found.to_string().contains(what), "{found}");
    assert!(table.verify().unwrap().is_clean(), "it was put back");
}

#[test]
fn damage_is_found_where_it_is() {
    let table = table();
    let memory = table.segment().memory();
    let layout = memory.layout();
    let x = table.zeros::<f64, _>(10).unwrap();
    let slot = |handle: Handle<_, _>| table.core.slot(handle.into()).unwrap().0.index;
    let live = slot(x);
    let gone = table.zeros::<f64, _>(10).unwrap();
    let free = slot(gone);
    table.free(gone).unwrap();

    let header = memory.header();
    finds(
        &table,
        24,
        &header[Header::PERSISTENT],
        2,
        "persistence flag",
    );

    let span = &memory.spans()[1];
    finds(&table, layout.spans + 8, span, !0, "invalid entry");
    let third = &memory.spans()[2];
    let first = memory.spans()[0].load(Ordering::Relaxed).bits();
    finds(&table, layout.spans + 16, third, first, "invalid entry");
    finds(&table, layout.spans + 8, span, first, "overlaps");

    let word = |slot: SlotIndex| {
        let offset = layout.slots + slot.get() as u64 * 8;
        (offset, &memory.slots()[slot.get()])
    };
    let bits = |slot: SlotIndex| memory.slots()[slot.get()].load(Ordering::Relaxed).bits();
    let (at, live_word) = word(live);
    finds(
        &table,
        at,
        live_word,
        bits(live) & !7 | 5,
        "the state of the slot is invalid",
    );
    let control = bits(live) | 1 << 5;
    finds(
        &table,
        layout.descriptor_at(live),
        live_word,
        control,
        "whether the array is internal",
    );
    // In a round without an opener; without an owner; owned by a FREE seat; by a missing seat.
    finds(
        &table,
        at,
        live_word,
        bits(live) | 1 << 6,
        "the fields of the slot contradict each other",
    );
    finds(
        &table,
        at,
        live_word,
        bits(live) & !(0xfff << 20),
        "the fields of the slot contradict each other",
    );
    let owner = |seat: u64| bits(live) & !(0xfff << 20) | seat << 20;
    finds(
        &table,
        at,
        live_word,
        owner(2),
        "the array's owner is a free seat",
    );
    finds(
        &table,
        at,
        live_word,
        owner(5),
        "the seat number is out of range",
    );
    let writer = bits(live) | 3 << 8;
    finds(
        &table,
        at,
        live_word,
        writer,
        "a write lease belongs to a free seat",
    );
    let (at, free_word) = word(free);
    finds(
        &table,
        at,
        free_word,
        bits(free) | 1 << 8,
        "the fields of the slot contradict each other",
    );
    finds(
        &table,
        at,
        free_word,
        bits(free) | 1 | 4 << 20,
        "an unfinished array belongs to a free seat",
    );

    let row = |slot: SlotIndex| layout.readers + slot.get() as u64 * 8;
    let what = "a read lease belongs to a free seat";
    finds(&table, row(live), &memory.readers(live)[0], 1 << 2, what);
    let what = "the seat number is out of range";
    finds(&table, row(live), &memory.readers(live)[0], 1 << 4, what);
    // Once a participant has pinned an array, the rows of all arrays are checked.
    drop(table.pin(table.zeros::<u8, _>(1).unwrap()).unwrap());
    let row = |slot: SlotIndex| layout.pins + slot.get() as u64 * 8;
    let what = "a pin belongs to a free seat";
    finds(&table, row(live), &memory.pins(live)[0], 1 << 2, what);
    let what = "the seat number is out of range";
    finds(&table, row(live), &memory.pins(live)[0], 1 << 4, what);

    let words = memory.descriptor(live);
    let at = layout.descriptors + (live.get() * Layout::DESCRIPTOR_WORDS * 8) as u64;
    finds(
        &table,
        at,
        &words[0],
        !0,
        "the description of the array is invalid",
    );
    let length = words[1].load(Ordering::Relaxed);
    words[1].store(1 << 30, Ordering::Relaxed);
    assert_eq!(
        table.verify().unwrap().damage[0].what,
        "the array's shape needs more bytes than the array has"
    );
    words[1].store(length, Ordering::Relaxed);
}

#[test]
fn damage_within_partitions_and_queues_is_found() {
    let table = table();
    let memory = table.segment().memory();
    let x = table.zeros::<f64, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 5).unwrap();
    let queue = table.queue::<u64>(4).unwrap();
    let mut words = Vec::new();
    for span in Spans::of(memory).iter() {
        for position in 0..span.count {
            let index = span.slot(&memory.layout().geometry, position);
            let slot = Slot::of(memory, index).unwrap();
            let is_control = |slot: SlotIndex| {
                Descriptor::load(memory.descriptor(slot)).is_some_and(|found| found.is_control())
            };
            if slot.word().is_live(0) && is_control(index) {
                words.push(span.extent(position));
            }
        }
    }
    assert_eq!(words.len(), 2);
    for extent in words {
        let all = memory
            .control(extent.offset, (extent.size() / 8) as usize)
            .unwrap();
        let before: Vec<u64> = all
            .iter()
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        let restore = || {
            for (word, &old) in all.iter().zip(&before) {
                word.store(old, Ordering::Relaxed);
            }
        };
        for word in all {
            word.store(!0, Ordering::Relaxed);
        }
        let found = table.verify().unwrap();
        restore();
        assert_eq!(found.damage.len(), 1, "{found}");
        assert_eq!(found.damage[0].offset, memory.layout().data + extent.offset);
        // Damage one word at a time: never a panic, and a report if the word is a claim or a
        // cell's.
        let mut finds = 0;
        for (word, &old) in all.iter().zip(&before) {
            for value in [!0, 3 << 40, old ^ 1 << 63] {
                word.store(value, Ordering::Relaxed);
                finds += usize::from(!table.verify().unwrap().is_clean());
            }
            word.store(old, Ordering::Relaxed);
        }
        assert!(finds > 4, "{finds}");
        assert!(table.verify().unwrap().is_clean());
    }
    drop((tiles, queue));
}
