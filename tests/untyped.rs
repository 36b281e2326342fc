//! Untyped arrays equal typed ones in type, shape, order, leases and refusals.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::{ArrayD, Axis, Dimension, Ix1, Ix2, IxDyn, ShapeBuilder, array};
use ndshm::bytemuck::{self, Pod, Zeroable};
use ndshm::element::{DType, Order, ScalarType};
use ndshm::error::{AllocError, LeaseError};
use ndshm::untyped::{Locked, Mode};
use ndshm::{AnyHandle, Complex, Element, Handle, HandleTable, Segment};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    id: u32,
    parts: [u16; 2],
    at: [f64; 2],
}
ndshm::record!(Point {
    id: u32,
    parts: [u16; 2],
    at: [f64; 2]
});

fn table() -> HandleTable {
    HandleTable::join(&Segment::in_process().unwrap()).unwrap()
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::C), Just(Order::F)]
}

/// Asserts that an array created without its type equals the one of the typed call.
fn same_as_typed<T: Element>(table: &HandleTable, shape: &[usize], order: Order) {
    let typed = table
        .zeros::<T, _>(IxDyn(shape).set_f(order == Order::F))
        .unwrap();
    let any = table.zeros_untyped(&T::dtype(), shape, order).unwrap();
    assert_eq!(
        any.downcast::<T, IxDyn>(table).unwrap(),
        Handle::from_bits(any.to_bits())
    );
    let (left, right) = (table.info(typed).unwrap(), table.info(any).unwrap());
    assert_eq!(left.dtype, right.dtype);
    assert_eq!(left.shape, right.shape);
    assert_eq!(left.order, right.order, "{shape:?}");
    assert_eq!(left.bytes, right.bytes);
    let guard = table.read_untyped(any).unwrap();
    assert_eq!(guard.bytes().len() as u64, left.bytes);
    assert_eq!(guard.dtype(), &T::dtype());
    assert_eq!(guard.shape(), shape);
    assert_eq!(guard.order(), left.order);
    assert_eq!(guard.handle(), any);
    assert!(guard.bytes().iter().all(|&byte| byte == 0));
    drop(guard);
    table.free(any).unwrap();
    table.free(typed).unwrap();
}

proptest! {
    #[test]
    fn untyped_arrays_equal_typed_ones(
        shape in prop::collection::vec(0usize..4, 0..=8),
        order in order(),
    ) {
        let table = table();
        same_as_typed::<u8>(&table, &shape, order);
        same_as_typed::<i8>(&table, &shape, order);
        same_as_typed::<u16>(&table, &shape, order);
        same_as_typed::<i16>(&table, &shape, order);
        same_as_typed::<u32>(&table, &shape, order);
        same_as_typed::<i32>(&table, &shape, order);
        same_as_typed::<u64>(&table, &shape, order);
        same_as_typed::<i64>(&table, &shape, order);
        same_as_typed::<u128>(&table, &shape, order);
        same_as_typed::<i128>(&table, &shape, order);
        same_as_typed::<f32>(&table, &shape, order);
        same_as_typed::<f64>(&table, &shape, order);
        same_as_typed::<Complex<f32>>(&table, &shape, order);
        same_as_typed::<Complex<f64>>(&table, &shape, order);
        same_as_typed::<bool>(&table, &shape, order);
        same_as_typed::<Point>(&table, &shape, order);
    }

    #[test]
    fn bytes_are_in_memory_order(rows in 0usize..9, columns in 0usize..9, order in order()) {
        let table = table();
        let shape = (rows, columns).set_f(order == Order::F);
        let x = table.from_shape_fn(shape, |(row, column)| (10 * row + column) as i32).unwrap();
        let guard = table.read(x).unwrap();
        let bytes = table.read_untyped(x).unwrap();
        let expected = guard.as_slice_memory_order().unwrap();
        prop_assert_eq!(bytes.bytes(), bytemuck::cast_slice::<i32, u8>(expected));
    }
}

#[test]
fn a_record_made_by_layout_is_opened_as_its_struct() {
    let segment = Segment::in_process().unwrap();
    let (one, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let any = one
        .zeros_untyped(&Point::dtype(), &[2, 3], Order::F)
        .unwrap();
    let point = Point {
        id: 7,
        parts: [1, 2],
        at: [0.5, -1.5],
    };
    let size = size_of::<Point>();
    one.write_untyped(any).unwrap().bytes_mut()[size..2 * size]
        .copy_from_slice(bytemuck::bytes_of(&point));

    let x = any.downcast::<Point, Ix2>(&other).unwrap();
    let guard = other.read(x).unwrap();
    // The second element in Fortran order.
    assert_eq!(guard[[1, 0]], point);
    assert_eq!(guard[[0, 1]], Point::zeroed());
    // The same layout has the same index, however it was registered in the segment.
    let typed = other.zeros::<Point, _>((2, 3)).unwrap();
    assert_eq!(one.info(typed).unwrap().dtype, one.info(any).unwrap().dtype);
    assert!(matches!(
        any.downcast::<f64, Ix2>(&other),
        Err(LeaseError::WrongKind(_))
    ));
}

#[test]
fn typed_and_untyped_leases_exclude_each_other() {
    let segment = Segment::in_process().unwrap();
    let (one, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let x = one.from_elem(4, 1u8).unwrap();
    let busy = |result: Result<(), LeaseError>| matches!(result, Err(LeaseError::Busy { .. }));

    let written = one.write_untyped(x).unwrap();
    assert!(busy(other.read(x).map(drop)));
    assert!(busy(other.read_untyped(x).map(drop)));
    assert!(busy(other.write_untyped(x).map(drop)));
    drop(written);

    let read = one.read_untyped(x).unwrap();
    let again = one.read_untyped(x).unwrap();
    assert!(other.read(x).is_ok());
    assert!(busy(other.write(x).map(drop)));
    drop(read);
    assert!(busy(other.write_untyped(x).map(drop)));
    drop(again);
    assert!(other.write_untyped(x).is_ok());

    one.free(x).unwrap();
    assert!(matches!(
        other.read_untyped(x),
        Err(LeaseError::Stale { .. })
    ));
}

#[test]
fn a_panic_while_bytes_are_written_poisons() {
    let table = table();
    let x = table.zeros::<f32, _>(4).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = table.write_untyped(x).unwrap();
        guard.bytes_mut()[0] = 1;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    assert!(matches!(
        table.read_untyped(x),
        Err(LeaseError::Poisoned { .. })
    ));
    table.clear_poison(x).unwrap();
    assert_eq!(table.read_untyped(x).unwrap().bytes()[0], 1);
}

#[test]
fn an_invalid_bool_is_refused_by_the_typed_lease() {
    let table = table();
    let any = table
        .zeros_untyped(&ScalarType::Bool.into(), &[3], Order::C)
        .unwrap();
    let x = any.downcast::<bool, Ix1>(&table).unwrap();
    table.write_untyped(any).unwrap().bytes_mut()[1] = 1;
    assert_eq!(table.read(x).unwrap().view(), array![false, true, false]);
    table.write_untyped(any).unwrap().bytes_mut()[2] = 2;
    let error = table.read(x).unwrap_err();
    assert!(
        matches!(&error, LeaseError::InvalidElement { error, .. } if error.index == 2),
        "{error}"
    );
    assert_eq!(table.read_untyped(any).unwrap().bytes(), [0, 1, 2]);
}

#[test]
fn reused_memory_is_zeroed() {
    let table = table();
    for bytes in [64, 5000, 1 << 20] {
        let old = table.from_elem(bytes, 0xffu8).unwrap();
        table.free(old).unwrap();
        let any = table
            .zeros_untyped(&ScalarType::U8.into(), &[bytes], Order::C)
            .unwrap();
        let guard = table.read_untyped(any).unwrap();
        assert!(guard.bytes().iter().all(|&byte| byte == 0), "{bytes}");
    }
}

#[test]
fn uninit_arrays_keep_recycled_bytes_except_of_bools() {
    let table = table();
    for bytes in [64, 5000, 1 << 20] {
        let make = |scalar: ScalarType| {
            let old = table.from_elem(bytes, 0xa5u8).unwrap();
            table.free(old).unwrap();
            let new = table.uninit_untyped(&scalar.into(), &[bytes], Order::C);
            let new = new.unwrap();
            let found = table.read_untyped(new).unwrap().bytes().to_vec();
            table.free(new).unwrap();
            found
        };
        assert!(
            make(ScalarType::U8).iter().all(|&byte| byte == 0xa5),
            "{bytes}"
        );
        assert!(
            make(ScalarType::Bool).iter().all(|&byte| byte == 0),
            "{bytes}"
        );
    }
}

proptest! {
    #[test]
    fn an_array_has_the_bytes_that_it_was_made_from(
        shape in prop::collection::vec(0usize..6, 0..4),
        order in order(),
        seed: u8,
    ) {
        let table = table();
        let len = 2 * shape.iter().product::<usize>();
        let bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
        let dtype = DType::from(ScalarType::U16);
        let any = table.from_bytes(&dtype, &shape, order, &bytes).unwrap();
        prop_assert_eq!(table.read_untyped(any).unwrap().bytes().to_vec(), &bytes[..]);
        prop_assert_eq!(&table.info(any).unwrap().shape, &shape);
        let found = bytes.len() as u64 + 1;
        let longer = [&bytes[..], &[0]].concat();
        let error = table.from_bytes(&dtype, &shape, order, &longer).unwrap_err();
        let wrong = matches!(
            error,
            AllocError::WrongLength { expected, found: f, .. } if expected == len as u64 && f == found
        );
        prop_assert!(wrong, "{}", error);
        prop_assert_eq!(table.arrays().count(), 1);
    }
}

#[test]
fn a_large_array_is_copied_in_parts() {
    let table = table();
    let bytes: Vec<u8> = (0..(20 << 20) + 5).map(|at: u32| (at / 7) as u8).collect();
    let any = table
        .from_bytes(&ScalarType::I8.into(), &[bytes.len()], Order::C, &bytes)
        .unwrap();
    assert!(table.read_untyped(any).unwrap().bytes() == bytes);
}

#[test]
fn threads_fill_an_array_that_nobody_sees_before() {
    let segment = Segment::in_process().unwrap();
    let (table, other) = (
        HandleTable::join(&segment).unwrap(),
        HandleTable::join(&segment).unwrap(),
    );
    let mut made = table.builder(&u32::dtype(), &[8, 100], Order::C).unwrap();
    assert_eq!(
        (made.dtype(), made.shape(), made.order()),
        (&u32::dtype(), &[8, 100][..], Order::C)
    );
    std::thread::scope(|scope| {
        for (row, part) in made.bytes_mut().chunks_mut(400).enumerate() {
            scope.spawn(move || bytemuck::cast_slice_mut::<u8, u32>(part).fill(row as u32));
        }
    });
    assert_eq!(other.arrays().count(), 0);
    assert_eq!(other.verify().unwrap().reserved, 1);
    let x = made
        .publish()
        .unwrap()
        .downcast::<u32, Ix2>(&other)
        .unwrap();
    let rows = other.read(x).unwrap();
    assert!(rows.indexed_iter().all(|((row, _), &x)| x == row as u32));
}

#[test]
fn a_builder_that_is_dropped_or_unwound_allocates_nothing() {
    let table = table();
    let dtype = u8::dtype();
    drop(table.builder(&dtype, &[1000], Order::C).unwrap());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut made = table.builder(&dtype, &[1000], Order::C).unwrap();
        made.bytes_mut()[0] = 1;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    let suspended = table.builder(&dtype, &[1000], Order::C).unwrap().suspend();
    drop(table.resume(suspended).unwrap());
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.reserved, found.live), (0, 0));
}

#[test]
fn a_suspended_builder_goes_through_other_threads() {
    let table = table();
    let made = table.builder(&u8::dtype(), &[3, 2], Order::F).unwrap();
    let made = made.suspend();
    assert_eq!(
        (made.dtype(), made.shape(), made.order()),
        (&u8::dtype(), &[3, 2][..], Order::F)
    );
    assert_eq!(made.bytes().len(), 6);
    let made = std::thread::spawn(move || {
        let mut bytes = made.bytes();
        // SAFETY: the table outlives the thread, and nobody else accesses the bytes meanwhile.
        unsafe { bytes.as_mut() }.copy_from_slice(&[1, 2, 3, 4, 5, 6]);
        made
    });
    let mut made = table.resume(made.join().unwrap()).unwrap();
    made.bytes_mut()[0] = 9;
    let x = made.suspend();
    let x = table.resume(x).unwrap().publish().unwrap();
    let x = x.downcast::<u8, Ix2>(&table).unwrap();
    assert_eq!(
        table.read(x).unwrap().view(),
        array![[9, 4], [2, 5], [3, 6]]
    );
}

#[test]
fn another_table_does_not_resume_a_builder() {
    let segment = Segment::in_process().unwrap();
    let join = || HandleTable::join(&segment).unwrap();
    let refused = |outcome: Result<ndshm::untyped::ArrayBuilder<'_>, AllocError>| {
        matches!(outcome, Err(AllocError::OtherTable))
    };
    let (mut one, two) = (join(), join());
    let make = |table: &HandleTable| {
        table
            .builder(&u8::dtype(), &[10], Order::C)
            .unwrap()
            .suspend()
    };
    assert!(refused(two.resume(make(&one))));
    // The first slot of another segment has the same word, and its owner the same seat.
    let apart = table();
    assert_eq!(apart.seat().unwrap(), one.seat().unwrap());
    let theirs = make(&apart);
    assert!(refused(one.resume(theirs)));
    // The next table has the seat, and the slot is free or another array's.
    for allocate in [false, true] {
        let left = make(&one);
        let seat = one.seat().unwrap();
        drop(one);
        one = join();
        assert_eq!(one.seat().unwrap(), seat);
        let x = allocate.then(|| one.builder(&u8::dtype(), &[10], Order::C).unwrap());
        assert!(refused(one.resume(left)));
        drop(x);
        let found = one.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        assert_eq!(found.reserved, 0);
    }
}

#[test]
fn invalid_shapes_are_refused_without_a_leak() {
    let table = table();
    let dtype = DType::from(ScalarType::F64);
    let error = table
        .zeros_untyped(&dtype, &[1; 9], Order::C)
        .unwrap_err()
        .to_string();
    assert!(error.contains("9 axes: at most 8"), "{error}");
    for shape in [&[usize::MAX, 2][..], &[usize::MAX / 8, 0], &[1 << 61]] {
        let error = table.zeros_untyped(&dtype, shape, Order::C).unwrap_err();
        assert!(matches!(error, AllocError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("f64 (8 bytes each)"), "{error}");
    }
    assert_eq!(table.arrays().count(), 0);
    let shape = IxDyn(&[2, 0, 3]);
    let empty = table
        .zeros_untyped(&dtype, shape.slice(), Order::F)
        .unwrap();
    let empty = empty.downcast::<f64, IxDyn>(&table).unwrap();
    assert_eq!(table.read(empty).unwrap().view(), ArrayD::zeros(shape));
}

#[test]
fn partitions_are_not_lent_as_bytes() {
    let table = table();
    let x = table.zeros::<f64, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
    let words = AnyHandle::from(tiles.handle());
    for error in [
        table.read_untyped(words).map(drop).unwrap_err(),
        table.write_untyped(words).map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, LeaseError::WrongKind(_)), "{error}");
        assert!(error.to_string().contains("partition"), "{error}");
    }
}

/// Checks a guard that is passed on. Under Miri this fails if a guard holds a reference: an
/// argument's reference must be valid until the function returns, and here another writer comes
/// before that.
#[test]
fn a_guard_may_be_dropped_in_a_function_it_was_passed_to() {
    fn end<G>(guard: G, other: &HandleTable, x: AnyHandle) {
        drop(guard);
        other.write_untyped(x).unwrap().bytes_mut().fill(1);
    }
    let segment = Segment::in_process().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let other = HandleTable::join(&segment).unwrap();
    let x = AnyHandle::from(table.zeros::<u8, _>(8).unwrap());
    end(table.read_untyped(x).unwrap(), &other, x);
    let mut guard = table.write_untyped(x).unwrap();
    assert_eq!(guard.bytes(), [1; 8]);
    guard.bytes_mut().fill(2);
    end(guard, &other, x);
    assert_eq!(table.read_untyped(x).unwrap().bytes(), [1; 8]);
}

/// Asserts that a value gives nothing back, and says why.
#[track_caller]
fn not_held(outcome: Result<(), LeaseError>, part: &str) {
    match outcome {
        Err(error @ LeaseError::NotHeld { .. }) => {
            assert!(error.to_string().contains(part), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

fn is_busy<T>(outcome: Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Busy { .. }))
}

fn is_poisoned<T>(outcome: Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Poisoned { .. }))
}

/// Locks exclude guards and each other, in one table and between two.
#[test]
fn locks_exclude_as_guards_do() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let x = table
        .from_array(&array![[1.5f64, 2.5], [3.5, 4.5]])
        .unwrap();
    let mut read = table.lock(x, Mode::Read).unwrap();
    assert_eq!((read.shape(), read.order()), (&[2, 2][..], Order::C));
    assert_eq!((read.dtype(), read.mode()), (&f64::dtype(), Mode::Read));
    assert_eq!((read.handle(), read.bytes().len()), (x.into(), 32));
    assert_eq!(
        read.bytes().cast::<f64>().as_ptr().cast_const(),
        table.attach(x).unwrap().as_ptr()
    );
    assert!(is_busy(table.write(x)) && is_busy(other.lock(x, Mode::Write)));
    let mut second = table.lock(x, Mode::Read).unwrap();
    let guard = table.read(x).unwrap();
    table.unlock(&mut read, false).unwrap();
    assert!(is_busy(other.write(x)), "one of three leases is given back");
    table.unlock(&mut second, true).unwrap();
    assert!(is_busy(other.write(x)), "a guard is left");
    drop(guard);
    drop(other.write(x).expect("a reader poisons nothing"));

    let mut write = table.lock(x, Mode::Write).unwrap();
    assert!(is_busy(table.read(x)) && is_busy(other.lock(x, Mode::Read)));
    assert!(is_busy(table.lock(x, Mode::Recover)));
    table.unlock(&mut write, false).unwrap();
    assert_eq!(table.read(x).unwrap()[(1, 1)], 4.5);
}

/// Whatever is unlocked twice, by another table, or by a later table of the same seat, gives
/// nothing back.
#[test]
fn only_the_table_that_locked_unlocks_and_only_once() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let x = other.zeros::<u64, _>(4).unwrap();
    other.detach(x).unwrap();
    for mode in [Mode::Read, Mode::Write, Mode::Recover] {
        let mut locked = table.lock(x, mode).unwrap();
        not_held(other.unlock(&mut locked, true), "another table");
        assert!(locked.is_held() && is_busy(other.write(x)));
        table.unlock(&mut locked, false).unwrap();
        assert!(!locked.is_held());
        // The same seat has the array again, and its lease is not the one of `locked`.
        let guard = table.write(x).unwrap();
        not_held(table.unlock(&mut locked, true), "given back before");
        assert!(is_busy(other.read(x)));
        drop(guard);
        assert!(!is_poisoned(table.read(x)));
    }
    let mut old = table.lock(x, Mode::Read).unwrap();
    let seat = table.seat().unwrap();
    let segment = table.segment().clone();
    drop(table);
    let next = HandleTable::join(&segment).unwrap();
    assert_eq!(next.seat().unwrap(), seat);
    let guard = next.read(x).unwrap();
    not_held(next.unlock(&mut old, false), "has left");
    assert!(
        is_busy(other.write(x)),
        "the next holder of the seat lost its lease"
    );
    drop(guard);
    drop(other.write(x).unwrap());
    // Another segment's seat with the same number.
    let far = self::table();
    not_held(far.unlock(&mut old, false), "another table");
}

/// A poisoning unlock leaves the note that a guard leaves; the recovery clears it.
#[test]
fn an_unlock_poisons_and_recovers_as_a_guard_does() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let mut write = table.lock(x, Mode::Write).unwrap();
    table.unlock(&mut write, true).unwrap();
    let by_unlock = table.read(x).unwrap_err().to_string();
    table.clear_poison(x).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = table.write(x).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    let by_guard = table.read(x).unwrap_err().to_string();
    let cause = |text: &str| text.split("noticed").next().unwrap().to_owned();
    assert_eq!(cause(&by_unlock), cause(&by_guard));

    assert!(is_poisoned(table.lock(x, Mode::Write)) && is_poisoned(table.lock(x, Mode::Read)));
    let mut recover = table.lock(x, Mode::Recover).unwrap();
    table.unlock(&mut recover, true).unwrap();
    assert!(is_poisoned(table.read(x)));
    let mut recover = table.lock(x, Mode::Recover).unwrap();
    table.unlock(&mut recover, false).unwrap();
    assert!(table.read(x).is_ok());
    // Words of the crate are refused, and stay as they are.
    let queue = table.queue::<u64>(4).unwrap();
    for mode in [Mode::Read, Mode::Write, Mode::Recover] {
        let refused = table.lock(queue.handle(), mode);
        assert!(
            matches!(refused, Err(LeaseError::WrongKind(_))),
            "{refused:?}"
        );
    }
    queue.push(1).unwrap();
}

/// A table that leaves gives its locks up: an array locked for writing is poisoned.
#[test]
fn a_forgotten_lock_ends_with_its_table() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let [x, y] = [(); 2].map(|()| other.zeros::<u64, _>(4).unwrap());
    let kept: [Locked; 2] = [
        table.lock(x, Mode::Read).unwrap(),
        table.lock(y, Mode::Write).unwrap(),
    ];
    drop(table);
    assert!(other.write(x).is_ok() && is_poisoned(other.read(y)));
    drop(kept);
}
