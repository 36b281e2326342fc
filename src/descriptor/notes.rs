//! Tests of the words beside shape and type: their places, and the descriptions made from them.

use super::*;
use crate::element::testing::HeapMemory;
use crate::sync::Word;

fn words() -> Vec<Atom> {
    (0..Layout::DESCRIPTOR_WORDS)
        .map(|_| Atom::zero())
        .collect()
}

/// Returns index and value of the words that are not 0.
fn written(words: &[Atom]) -> Vec<(usize, u64)> {
    let values = words.iter().map(|word| word.load(Ordering::Relaxed));
    values
        .enumerate()
        .filter(|&(_, value)| value != 0)
        .collect()
}

#[test]
fn each_note_has_a_word_of_its_own() {
    let at = words();
    Descriptor::note_committed(&at, 21);
    assert_eq!(written(&at), [(11, 21)]);
    assert_eq!(Descriptor::committed(&at), 21);
    Descriptor::note_name(&at, BucketIndex::new(22));
    assert_eq!(written(&at), [(11, 21), (12, 22)]);
    assert_eq!(Descriptor::named_in(&at), BucketIndex::new(22));

    let at = words();
    Descriptor::store_bucket(&at, BucketIndex::new(6), 9);
    Descriptor::bundle(&at).store(BucketWord::from_bits(5), Ordering::Relaxed);
    Descriptor::store_part(&at, BucketIndex::new(7), 9);
    let expected = [(2, 9 << 32 | 7), (3, 5), (13, 9 << 32 | 8)];
    assert_eq!(written(&at), expected);
    Descriptor::clear_part(&at);
    assert_eq!(written(&at), expected[..2]);

    let at = words();
    let what = HalfWritten::Round;
    PoisonNote {
        pid: 3,
        time: 4,
        what,
        torn_in: None,
    }
    .store(&at);
    assert_eq!(written(&at), [(9, 2 << 32 | 3), (10, 4)]);
    for what in [HalfWritten::Array, HalfWritten::Tiles, HalfWritten::Round] {
        let note = PoisonNote {
            pid: 3,
            time: 4,
            what,
            torn_in: Some(SlotIndex::new((1 << 22) - 1)),
        };
        note.store(&at);
        assert_eq!(PoisonNote::load(&at), note);
    }
}

#[test]
fn a_bucket_or_bundle_is_returned_only_for_its_own_generation() {
    let at = words();
    assert_eq!(Descriptor::bucket(&at, 0), None);
    assert_eq!(Descriptor::part_of(&at, 0), None);
    for number in [0, 6, u32::MAX as usize - 1].map(BucketIndex::new) {
        Descriptor::store_bucket(&at, number, 9);
        Descriptor::store_part(&at, number, 9);
        assert_eq!(Descriptor::bucket(&at, 9), Some(number));
        assert_eq!(Descriptor::part_of(&at, 9), Some(number));
        assert_eq!(Descriptor::bucket(&at, 8), None);
        assert_eq!(Descriptor::part_of(&at, 10), None);
    }
    Descriptor::clear_part(&at);
    assert_eq!(Descriptor::part_of(&at, 9), None);
}

#[test]
fn the_order_is_kept_where_it_makes_a_difference() {
    let dtype = DType::Scalar(ScalarType::F32);
    let order = |shape: &[usize]| Descriptor::untyped(&dtype, 0, Order::F, shape).order;
    assert_eq!(order(&[2, 3]), Order::F);
    assert_eq!(order(&[2, 1, 3]), Order::F);
    for same in [&[][..], &[5], &[1, 5, 1], &[1, 1], &[0, 3], &[3, 0]] {
        assert_eq!(order(same), Order::C, "{same:?}");
    }
    let plain = Descriptor::untyped(&dtype, 0, Order::C, &[2, 3]);
    assert_eq!(plain.order, Order::C);
}

#[test]
fn control_words_are_of_one_kind() {
    let queue = Descriptor::control(ControlKind::Queue, 10);
    assert!(queue.is_control_of(ControlKind::Queue));
    assert!(!queue.is_control_of(ControlKind::Pool));
    // The index of a layout must not be read as a kind.
    let dtype = DType::Scalar(ScalarType::F32);
    let array = Descriptor::untyped(&dtype, ControlKind::Queue as u16, Order::C, &[10]);
    assert!(!array.is_control_of(ControlKind::Queue));
}

#[test]
fn bytes_are_those_of_elements_or_of_words() {
    let memory = HeapMemory::new();
    let control = Descriptor::control(ControlKind::Queue, 10);
    assert_eq!(control.bytes_in(&memory), Some(80));
    let dtype = DType::Scalar(ScalarType::F32);
    let array = Descriptor::untyped(&dtype, 0, Order::C, &[3, 5]);
    assert_eq!(array.bytes_in(&memory), Some(60));
    // The segment does not have the layout of this record.
    let unknown = Descriptor {
        code: RECORD,
        ..array
    };
    assert_eq!(unknown.bytes_in(&memory), None);
}

#[test]
fn half_written_parts_are_described_in_words() {
    let said =
        [HalfWritten::Array, HalfWritten::Tiles, HalfWritten::Round].map(|what| what.to_string());
    assert_eq!(
        said,
        ["all of it", "tiles of it", "it in a round of its own"]
    );
}
