//! Guards, untyped guards, views without a lease, and the tiles of a round.

use std::time::Duration;

use ndarray::{Array2, ArrayViewMut1, Axis, Ix1, Ix2, ShapeBuilder, Zip, s};
use ndshm::element::{DType, Order, ScalarType};
use ndshm::error::LeaseError;
use ndshm::untyped::{UntypedReadGuard, UntypedWriteGuard};
use ndshm::{Complex, Grid, Handle, HandleTable};

use super::table;

#[test]
fn guards_lend_views_of_parts() {
    let table = table();
    let x = table
        .from_shape_fn((4, 3), |(i, j)| (i * 3 + j) as u64)
        .unwrap();
    let mut guard = table.write(x).unwrap();
    {
        let (mut upper, mut lower) = guard.view_mut().split_at(Axis(0), 2);
        Zip::from(&mut upper)
            .and(&mut lower)
            .for_each(std::mem::swap);
    }
    guard.view_mut().invert_axis(Axis(1));
    guard.slice_mut(s![.., 0]).fill(0);
    assert!(matches!(table.read(x), Err(LeaseError::Busy { .. })));
    drop(guard);
    let (one, two) = (table.read(x).unwrap(), table.read(x).unwrap());
    let (a, b) = (one.view(), two.view());
    assert_eq!(a, b);
    assert_eq!(a.row(1).to_vec(), [0, 10, 11]);
}

#[test]
fn arrays_of_every_order_and_element() {
    let table = table();
    let mut values = Array2::from_elem((2, 3).f(), Complex::new(1.0f64, 2.0));
    values[(1, 2)] = Complex::new(-1.0, 0.5);
    let x = table.from_array(&values).unwrap();
    assert_eq!(*table.read(x).unwrap(), values);
    let flags = table.from_elem(5, true).unwrap();
    table.write(flags).unwrap()[3] = false;
    assert_eq!(
        table.read(flags).unwrap().to_vec(),
        [true, true, true, false, true]
    );
    let empty = table.zeros::<f32, _>((0, 7)).unwrap();
    assert_eq!(table.write(empty).unwrap().len(), 0);
    let scalar = table.from_elem((), 7i128).unwrap();
    assert_eq!(table.read(scalar).unwrap().first(), Some(&7));
}

#[test]
fn freed_memory_is_used_again() {
    let table = table();
    let x = table.uninit::<u32, _>((3, 2)).unwrap();
    table.write(x).unwrap().fill(5);
    assert_eq!(table.read(x).unwrap().sum(), 30);
    table.free(x).unwrap();
    // The next array takes the same slot.
    let y = table.zeros::<u32, _>((3, 2)).unwrap();
    assert_eq!(table.read(y).unwrap().sum(), 0);
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
}

/// Checks a guard that is passed by value and ends inside the callee. The array is then freed, and
/// its next owner writes it.
#[test]
fn a_guard_may_be_dropped_in_a_function_it_was_passed_to() {
    fn consume_read(guard: UntypedReadGuard<'_>, table: &HandleTable, x: Handle<u8, Ix1>) -> u8 {
        let first = guard.bytes()[0];
        drop(guard);
        table.write(x).unwrap().fill(9);
        first
    }
    fn consume_write(mut guard: UntypedWriteGuard<'_>, table: &HandleTable, x: Handle<u8, Ix1>) {
        guard.bytes_mut()[1] = 4;
        drop(guard);
        table.write(x).unwrap()[0] = 5;
    }
    let table = table();
    let x = table.from_elem(64, 3u8).unwrap();
    let guard = table.read_untyped(x).unwrap();
    assert_eq!(consume_read(guard, &table, x), 3);
    let guard = table.write_untyped(x).unwrap();
    consume_write(guard, &table, x);
    assert_eq!(table.read(x).unwrap().to_vec()[..3], [5, 4, 9]);
    // The same with the typed guards.
    let consume = |guard: ndshm::WriteGuard<'_, u8, Ix1>| {
        drop(guard);
        table.write(x).unwrap()[2] = 6;
    };
    consume(table.write(x).unwrap());
    assert_eq!(table.read(x).unwrap()[2], 6);
}

#[test]
fn untyped_guards_lend_bytes() {
    let table = table();
    let dtype = DType::from(ScalarType::F64);
    let any = table.zeros_untyped(&dtype, &[2, 2], Order::C).unwrap();
    table.write_untyped(any).unwrap().bytes_mut()[..8].copy_from_slice(&2.5f64.to_ne_bytes());
    let x: Handle<f64, Ix2> = table.info(any).unwrap().handle.downcast(&table).unwrap();
    assert_eq!(table.read(x).unwrap()[(0, 0)], 2.5);
    assert_eq!(table.read_untyped(any).unwrap().bytes().len(), 32);
}

#[test]
fn views_without_a_lease_reach_the_elements() {
    let table = table();
    let x = table.zeros::<u16, _>(8).unwrap();
    let (mut one, mut two) = (table.attach(x).unwrap(), table.attach(x).unwrap());
    // SAFETY: the two parts do not overlap, and there is no other view.
    let mut left = unsafe { one.slice_mut_unsynchronized(Axis(0), 0..4) };
    // SAFETY: as above.
    let mut right = unsafe { two.slice_mut_unsynchronized(Axis(0), 4..8) };
    left.fill(1);
    right.fill(2);
    left[3] = right[0];
    // SAFETY: the views above are not used any more.
    let whole = unsafe { one.view_unsynchronized() };
    assert_eq!(whole.sum(), 3 + 2 + 8);
}

#[test]
fn tiles_of_a_round_lend_their_rows() {
    let table = table();
    let x = table.zeros::<u64, _>((4, 4)).unwrap();
    let y = table.from_elem((4, 4), 2u64).unwrap();
    let grid = Grid::blocks([(Axis(0), 2), (Axis(1), 3)]);
    let tiles = table.partition_by((x.write(), y.read()), &grid).unwrap();
    let round = tiles.begin().unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let theirs = other.open_partition(tiles.handle()).unwrap();
    let mut mine = tiles.enter().unwrap().unwrap();
    let mut second = theirs.enter().unwrap().unwrap();
    // Both participants hold a tile at once; columns of a row interleave in memory.
    while let Some(mut tile) = mine.claim().unwrap() {
        let (mut x, y) = tile.views();
        if let Some(mut tile) = second.claim().unwrap() {
            let (mut other_x, other_y) = tile.views();
            other_x.zip_mut_with(&other_y, |x, y| *x += y);
        }
        x.zip_mut_with(&y, |x, y| *x += 2 * y);
    }
    drop((mine, second));
    round.finish(Duration::from_secs(30)).unwrap();
    let x = table.read(x).unwrap();
    assert!(x.iter().all(|&x| x == 2 || x == 4), "{x}");
}

#[test]
fn an_array_left_by_a_dead_writer_is_recovered() {
    let table = table();
    let x = table.zeros::<u8, _>(16).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let torn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut guard = other.write(x).unwrap();
        guard[0] = 1;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(torn.is_err());
    assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    table
        .recover(x, |mut x: ArrayViewMut1<'_, u8>| x.fill(2))
        .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 32);
}

#[test]
fn a_builder_is_written_by_threads_and_published() {
    let table = table();
    let other = HandleTable::join(table.segment()).unwrap();
    let dtype = DType::from(ScalarType::U8);
    let mut made = table.builder(&dtype, &[8], Order::C).unwrap();
    std::thread::scope(|scope| {
        for (part, value) in made.bytes_mut().chunks_mut(4).zip(1..) {
            scope.spawn(move || part.fill(value));
        }
    });
    let made = made.suspend();
    let made = std::thread::spawn(move || {
        // SAFETY: the table outlives the thread, and nobody else accesses the byte meanwhile.
        unsafe { made.bytes().cast::<u8>().write(9) };
        made
    });
    let mut made = table.resume(made.join().unwrap()).unwrap();
    made.bytes_mut()[7] = 7;
    // The array is another participant's before `publish` returns its argument's memory.
    let x = made.publish().unwrap();
    other.write_untyped(x).unwrap().bytes_mut()[1] = 8;
    assert_eq!(
        table.read_untyped(x).unwrap().bytes(),
        [9, 8, 1, 1, 2, 2, 2, 7]
    );
    drop(table.builder(&dtype, &[8], Order::C).unwrap());
}
