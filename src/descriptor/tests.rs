//! Tests of the descriptor: round trips, totality, and agreement with ndarray.

use super::*;
use crate::element::Complex;
use crate::element::schema::{intern, schema_index_matches};
use crate::element::testing::HeapMemory;
use ndarray::{ArrayD, Ix0, Ix1, Ix2, Ix3, IxDyn};
use proptest::prelude::*;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Particle {
    x: f64,
    pos: [f64; 3],
}
crate::record!(Particle {
    x: f64,
    pos: [f64; 3]
});

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Pair {
    left: u32,
    right: u32,
}
crate::record!(Pair {
    left: u32,
    right: u32
});

fn words(bits: [u64; Layout::DESCRIPTOR_WORDS]) -> Vec<Atom> {
    let atom = |bits| {
        let word = Atom::zero();
        word.store(bits, Ordering::Relaxed);
        word
    };
    bits.into_iter().map(atom).collect()
}

fn text_of<T: Element>() -> &'static str {
    match T::KIND {
        Kind::Record(schema) => schema.text(),
        Kind::Scalar(scalar) => scalar.name(),
    }
}

/// Stores the descriptor of an array of `T` and loads it again.
fn described<T: Element>(schema: u16, order: Order, shape: &[usize]) -> Option<Descriptor> {
    let words = words([0; Layout::DESCRIPTOR_WORDS]);
    Descriptor::store_typed::<T>(&words, schema, order, shape);
    Descriptor::load(&words)
}

fn stored(descriptor: &Descriptor) -> Vec<Atom> {
    let words = words([0; Layout::DESCRIPTOR_WORDS]);
    descriptor.store(&words);
    words
}

fn matches<T: Element, D: Dimension>(
    descriptor: &Descriptor,
    memory: &Memory,
    same_schema: impl Fn(u16, &'static str) -> bool,
) -> Result<(), WrongKind> {
    let words = stored(descriptor);
    let loaded = Descriptor::load_typed::<T, D>(&words, &same_schema);
    match Descriptor::why_not::<T, D>(&words, memory, AnyHandle::from_bits(1), &same_schema) {
        Some(mismatch) => {
            assert!(loaded.is_none());
            Err(mismatch)
        }
        None => Ok(()),
    }
}

fn shape_of<T: Element, D: Dimension>(descriptor: &Descriptor) -> Option<Shape<D>> {
    let loaded = Descriptor::load_typed::<T, D>(&stored(descriptor), |_, _| false);
    loaded.map(|(shape, _)| shape)
}

#[test]
fn fields_do_not_overlap() {
    crate::word::testing::assert_disjoint(&[CODE, SCHEMA, AXES, ORDER]);
    crate::word::testing::assert_disjoint(&[
        PoisonNote::PID,
        PoisonNote::WHAT,
        PoisonNote::TORN_IN,
    ]);
}

#[test]
fn golden_words() {
    let descriptor = described::<f64>(0, Order::F, &[5, 7]).unwrap();
    let words = words([0; Layout::DESCRIPTOR_WORDS]);
    descriptor.store(&words);
    let what = HalfWritten::Tiles;
    let (pid, time) = (11, 13);
    let torn_in = Some(SlotIndex::new(5));
    PoisonNote {
        pid,
        time,
        what,
        torn_in,
    }
    .store(&words);
    let stored: Vec<u64> = words
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect();
    let golden = [
        0x0102_0000_000c,
        5,
        7,
        0,
        0,
        0,
        0,
        0,
        0,
        6 << 40 | 1 << 32 | 11,
        13,
        0,
        0,
        0,
        0,
        0,
    ];
    assert_eq!(stored, golden);
    let record = described::<Particle>(0x1234, Order::C, &[]).unwrap();
    assert_eq!(record.encode(), 0x1234_0100);
    assert_eq!(
        Descriptor::control(ControlKind::Partition, 1).encode(),
        0x1_0001_0101
    );
}

#[test]
fn zeros_are_no_descriptor() {
    assert_eq!(
        Descriptor::load(&words([0; Layout::DESCRIPTOR_WORDS])),
        None
    );
}

#[test]
fn axes_of_an_earlier_array_are_not_seen() {
    let words = words([9; Layout::DESCRIPTOR_WORDS]);
    let descriptor = described::<u8>(0, Order::C, &[4]).unwrap();
    descriptor.store(&words);
    assert_eq!(
        words[2].load(Ordering::Relaxed),
        9,
        "only the own axes are written"
    );
    assert_eq!(Descriptor::load(&words), Some(descriptor));
}

#[test]
fn nine_axes_are_too_many() {
    assert!(described::<u8>(0, Order::C, &[1; MAX_AXES]).is_some());
    assert!(described::<u8>(0, Order::C, &[1; MAX_AXES + 1]).is_none());
}

#[test]
fn sizes_beyond_isize_are_refused_also_beside_an_empty_axis() {
    let bytes = |shape: &[usize], size| described::<u8>(0, Order::C, shape).unwrap().bytes(size);
    let most = isize::MAX as usize;
    assert_eq!(bytes(&[], 16), Some(16));
    assert_eq!(bytes(&[most], 1), Some(most as u64));
    assert_eq!(bytes(&[most + 1], 1), None);
    assert_eq!(bytes(&[most, 3], 1), None);
    assert_eq!(bytes(&[1 << 32, 1 << 32], 8), None);
    assert_eq!(bytes(&[0, 5], 8), Some(0));
    assert_eq!(bytes(&[1 << 40, 0, 1 << 40], 1), None);
}

#[test]
fn a_mismatch_names_both_sides() {
    let memory = HeapMemory::new();
    let by_text = |index, text| schema_index_matches(&memory, index, text);
    let found = described::<f32>(0, Order::C, &[1, 2, 3]).unwrap();
    assert_eq!(matches::<f32, Ix3>(&found, &memory, by_text), Ok(()));
    assert_eq!(matches::<f32, IxDyn>(&found, &memory, by_text), Ok(()));
    let error = matches::<f64, Ix2>(&found, &memory, by_text).unwrap_err();
    assert_eq!(error.expected, "an array of f64 with 2 axes");
    assert_eq!(error.found, "an array of f32 with 3 axes");
    let error = matches::<Complex<f32>, IxDyn>(&found, &memory, by_text).unwrap_err();
    assert_eq!(
        error.expected,
        "an array of Complex<f32> with any number of axes"
    );
    assert!(matches::<f32, Ix1>(&found, &memory, by_text).is_err());
    assert!(matches::<Pair, Ix3>(&found, &memory, by_text).is_err());

    let control = Descriptor::control(ControlKind::Pool, 4);
    let error = matches::<u64, Ix1>(&control, &memory, by_text).unwrap_err();
    assert_eq!(error.found, "the mailbox of a pool");
    assert!(control.is_control() && !found.is_control());
    assert_eq!(control.dtype(&memory), None);
}

#[test]
fn records_are_told_apart_by_their_layout() {
    let memory = HeapMemory::new();
    let by_text = |index, text| schema_index_matches(&memory, index, text);
    let pair = intern(&memory, text_of::<Pair>()).unwrap();
    let particle = intern(&memory, text_of::<Particle>()).unwrap();
    assert_ne!(pair, particle);

    let array = described::<Particle>(particle, Order::C, &[10]).unwrap();
    assert_eq!(matches::<Particle, Ix1>(&array, &memory, by_text), Ok(()));
    assert_eq!(array.schema(), Some(particle));
    assert_eq!(array.dtype(&memory), Some(Particle::dtype()));
    let error = matches::<Pair, Ix1>(&array, &memory, by_text).unwrap_err();
    assert_eq!(
        error.expected,
        "an array of {left: u32 @0, right: u32 @4} of 8 bytes with 1 axis"
    );
    assert_eq!(
        error.found,
        "an array of {x: f64 @0, pos: [f64; 3] @8} of 32 bytes with 1 axis"
    );

    let unknown = described::<Particle>(99, Order::C, &[]).unwrap();
    let error = matches::<Particle, Ix0>(&unknown, &memory, by_text).unwrap_err();
    assert_eq!(error.found, "an array of unreadable layout 99 with 0 axes");
}

#[test]
fn an_opaque_type_is_told_by_its_text() {
    let memory = HeapMemory::new();
    let half = OpaqueType::new("<f2", 2, 2).unwrap();
    let text = half.to_text();
    let dtype = DType::from(half);
    let index = intern(&memory, &text).unwrap();
    let array = Descriptor::untyped(&dtype, index, Order::F, &[2, 3]);
    assert_eq!(array.encode(), 0x0102_0000_0102);
    assert_eq!(Descriptor::load(&stored(&array)), Some(array));
    assert_eq!(array.dtype(&memory), Some(dtype));
    let error = matches::<u16, Ix2>(&array, &memory, |_, _| true).unwrap_err();
    let found = r#"an array of opaque "<f2" of 2 bytes aligned to 2 with 2 axes"#;
    assert_eq!(error.found, found);
    assert!(
        error
            .to_string()
            .ends_with("no type of Rust has such elements")
    );
    // A record's text under this code, and the reverse, are no types.
    let record = intern(&memory, text_of::<Pair>()).unwrap();
    assert_eq!(
        Descriptor::untyped(&Pair::dtype(), index, Order::C, &[]).dtype(&memory),
        None
    );
    let swapped = Descriptor {
        schema: record,
        ..array
    };
    assert_eq!(swapped.dtype(&memory), None);
    assert!(matches::<Pair, Ix2>(&swapped, &memory, |_, _| true).is_err());
}

#[test]
fn an_index_is_not_asked_for_where_there_is_none() {
    let memory = HeapMemory::new();
    let array = described::<u8>(0, Order::C, &[]).unwrap();
    let never = |_: u16, _: &'static str| panic!("a scalar has no schema");
    assert_eq!(matches::<u8, Ix0>(&array, &memory, never), Ok(()));
    assert!(matches::<Particle, Ix0>(&array, &memory, never).is_err());
}

fn orders() -> impl Strategy<Value = Order> {
    prop::sample::select([Order::C, Order::F].as_slice())
}

proptest! {
    #[test]
    fn what_is_stored_is_loaded(
        before: [u64; Layout::DESCRIPTOR_WORDS],
        schema: u16,
        order in orders(),
        shape in prop::collection::vec(any::<usize>(), 0..=MAX_AXES),
    ) {
        let words = words(before);
        for descriptor in [
            described::<i16>(schema, order, &shape),
            described::<Particle>(schema, order, &shape),
        ] {
            let descriptor = descriptor.unwrap();
            descriptor.store(&words);
            let lengths: Vec<usize> = descriptor.shape().iter().map(|&len| len as usize).collect();
            prop_assert_eq!(&lengths, &shape);
            prop_assert_eq!(Descriptor::load(&words), Some(descriptor));
        }
    }

    #[test]
    fn a_poison_note_touches_no_axis(pid: u32, time: u64, shape: [usize; MAX_AXES]) {
        let words = words([0; Layout::DESCRIPTOR_WORDS]);
        let descriptor = described::<u8>(0, Order::C, &shape).unwrap();
        descriptor.store(&words);
        let what = [HalfWritten::Array, HalfWritten::Tiles, HalfWritten::Round][time as usize % 3];
        let torn_in = Some(SlotIndex::new(pid as usize % (1 << 22)));
        let note = PoisonNote { pid, time, what, torn_in };
        note.store(&words);
        prop_assert_eq!(PoisonNote::load(&words), note);
        prop_assert_eq!(Descriptor::load(&words), Some(descriptor));
    }

    #[test]
    fn decoding_is_total(
        mut bits: [u64; Layout::DESCRIPTOR_WORDS],
        code in prop::sample::select([0, 1, 12, 15, 16, 0x100, 0x101, 0x102, 0x103].as_slice()),
        axes in 0u64..10,
        order in 0u64..3,
    ) {
        let memory = HeapMemory::new();
        for near in [false, true] {
            if near {
                let schema = SCHEMA.get(bits[0]);
                let word = SCHEMA.set(CODE.set(0, code), schema);
                bits[0] = ORDER.set(AXES.set(word, axes), order);
            }
            if let Some(descriptor) = Descriptor::load(&words(bits)) {
                prop_assert_eq!(descriptor.encode(), bits[0]);
                prop_assert!(descriptor.shape().len() <= MAX_AXES);
                let _ = (descriptor.bytes(16), descriptor.dtype(&memory));
                let _ = shape_of::<u8, IxDyn>(&descriptor);
                let _ = matches::<Pair, Ix2>(&descriptor, &memory, |_, _| false);
            } else if near {
                prop_assert!([0, 16, 0x103].contains(&code) || axes > 8 || order > 1);
            }
        }
    }

    #[test]
    fn shape_order_and_bytes_are_those_of_ndarray(
        order in orders(),
        shape in prop::collection::vec(0usize..5, 0..=5),
    ) {
        let descriptor = described::<u16>(0, order, &shape).unwrap();
        let array = ArrayD::<u16>::zeros(shape_of::<u16, IxDyn>(&descriptor).unwrap());
        prop_assert_eq!(array.shape(), &shape[..]);
        prop_assert_eq!(descriptor.bytes(2), Some(array.len() as u64 * 2));
        let contiguous = match order {
            Order::C => array.is_standard_layout(),
            Order::F => array.t().is_standard_layout(),
        };
        prop_assert!(contiguous);
        prop_assert_eq!(shape_of::<u16, Ix2>(&descriptor).is_some(), shape.len() == 2);
    }
}
