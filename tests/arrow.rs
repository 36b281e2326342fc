//! Arrays lent to Arrow: they share the bytes, and the lease lasts until the last clone is dropped,
//! on any thread.

mod support;

use std::time::Duration;

use arrow_array::types::ArrowPrimitiveType;
use arrow_array::{Array, PrimitiveArray};
use ndarray::{Array1, Array2, Ix1, ShapeBuilder, array};
use ndshm::arrow::ArrowElement;
use ndshm::error::{ArrowError, LeaseError, PoolError};
use ndshm::{Element, Handle, HandleTable, Pool, Segment};
use support::{Child, Pipe, table};

fn busy<T: Element>(table: &HandleTable, x: Handle<T, Ix1>) -> bool {
    matches!(table.write(x), Err(LeaseError::Busy { .. }))
}

fn same<T: ArrowElement + From<u8> + PartialEq>(table: &HandleTable) {
    let own = Array1::from_iter((0..100u8).map(T::from));
    let x = table.from_array(&own).unwrap();
    let lent: PrimitiveArray<T::Arrow> = table.lend_arrow(x).unwrap();
    assert_eq!(lent.data_type(), &T::Arrow::DATA_TYPE);
    assert!(lent.values().iter().eq(own.iter()));
    assert_eq!(lent.null_count(), 0);
    // Arrow sees the array's own bytes, not a copy.
    let place = table.attach(x).unwrap().as_ptr();
    assert_eq!(lent.values().as_ptr(), place.cast());
    let part = lent.slice(90, 10);
    drop(lent);
    assert!(busy(table, x), "a part keeps the lease");
    assert!(part.values().iter().eq(own.iter().skip(90)));
    drop(part);
    assert!(!busy(table, x));
}

fn every_type_is_lent_as_it_is() {
    let table = table();
    same::<u8>(&table);
    same::<u16>(&table);
    same::<i16>(&table);
    same::<u32>(&table);
    same::<i32>(&table);
    same::<u64>(&table);
    same::<i64>(&table);
    same::<f32>(&table);
    same::<f64>(&table);
    let x = table.from_array(&array![-1i8, 2]).unwrap();
    assert_eq!(&table.lend_arrow(x).unwrap().values()[..], [-1, 2]);
    let empty = table.zeros::<f64, _>(0).unwrap();
    assert_eq!(table.lend_arrow(empty).unwrap().len(), 0);
}

fn rows_are_lists_of_fixed_length() {
    let table = table();
    let own = Array2::from_shape_fn((4, 3), |(i, j)| (10 * i + j) as f32);
    let x = table.from_array(&own).unwrap();
    let lent = table.lend_arrow_rows(x).unwrap();
    assert_eq!((lent.len(), lent.value_length()), (4, 3));
    for (row, expected) in own.rows().into_iter().enumerate() {
        let values = lent.value(row);
        let values = values
            .as_any()
            .downcast_ref::<PrimitiveArray<arrow_array::types::Float32Type>>()
            .unwrap();
        assert!(values.values().iter().eq(expected));
    }
    assert!(matches!(table.write(x), Err(LeaseError::Busy { .. })));
    drop(lent);
    assert!(table.write(x).is_ok());

    for shape in [(0, 3), (5, 0), (0, 0)] {
        let x = table.zeros::<u8, _>(shape).unwrap();
        let lent = table.lend_arrow_rows(x).unwrap();
        assert_eq!((lent.len(), lent.value_length()), (shape.0, shape.1 as i32));
    }
    let x = table.zeros::<u8, _>((3, 4).f()).unwrap();
    let error = table.lend_arrow_rows(x).unwrap_err();
    assert!(matches!(error, ArrowError::Fortran { .. }), "{error}");
    assert!(table.write(x).is_ok(), "an error holds no lease");
    let x = table.zeros::<u8, _>((0, 3_000_000_000)).unwrap();
    let error = table.lend_arrow_rows(x).unwrap_err();
    assert!(
        matches!(
            error,
            ArrowError::RowLength {
                length: 3_000_000_000,
                ..
            }
        ),
        "{error}"
    );
}

fn the_last_of_many_threads_releases_the_lease() {
    let segment = Segment::anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_array(&Array1::from_iter(0..10_000u64)).unwrap();
    for _ in 0..50 {
        let lent = table.lend_arrow(x).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let lent = lent.clone();
                std::thread::spawn(move || lent.values().iter().sum::<u64>())
            })
            .collect();
        drop(lent);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), 49_995_000);
        }
        assert!(!busy(&table, x));
    }
    let seats = ndshm::Observer::from_fd(segment.inheritable_fd().unwrap())
        .unwrap()
        .seats()
        .unwrap();
    assert_eq!(seats.len(), 1, "the seat of each lent array was released");
}

fn a_lent_array_outlives_its_handle_and_its_table() {
    let segment = Segment::anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(1000, 7u32).unwrap();
    let lent = table.lend_arrow(x).unwrap();
    table.free(x).unwrap();
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    for _ in 0..100 {
        // Arrays of the same size do not get the lent bytes.
        let other = table.from_elem(1000, 9u32).unwrap();
        table.detach(other).unwrap();
    }
    let y = table.from_elem(1000, 8u32).unwrap();
    let also = table.lend_arrow(y).unwrap();
    drop(table);
    assert!(lent.values().iter().all(|&value| value == 7));
    assert!(also.values().iter().all(|&value| value == 8));
    drop((lent, also));
    let table = HandleTable::join(&segment).unwrap();
    assert_eq!(table.arrays().count(), 100, "the lent arrays are free now");
    assert!(table.verify().unwrap().is_clean());
}

/// Returns the number of occupied seats.
fn seats(segment: &Segment) -> usize {
    let observer = ndshm::Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
    observer.seats().unwrap().len()
}

fn a_thousand_lent_columns_share_a_seat() {
    let segment = Segment::options().seats(3).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let columns: Vec<Handle<u64, Ix1>> = (0..1000)
        .map(|at| table.from_elem(10, at).unwrap())
        .collect();
    let lend = |&column| table.lend_arrow(column).unwrap();
    let lent: Vec<PrimitiveArray<_>> = columns.iter().map(lend).collect();
    assert_eq!(seats(&segment), 2);
    let other = HandleTable::join(&segment).unwrap();
    for (at, (lent, column)) in lent.iter().zip(&columns).enumerate() {
        assert!(lent.values().iter().all(|&value| value == at as u64));
        assert!(busy(&other, *column));
    }
    // Each clone is dropped on another thread and releases only its own lease.
    let mut lent = lent.into_iter();
    for (at, &column) in columns.iter().enumerate().take(10) {
        let first = lent.next();
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert!(!busy(&other, column));
        assert!(busy(&other, columns[at + 1]));
    }
    // The same array is lent twice: it is released when both are dropped.
    let twice = [lend(&columns[0]), lend(&columns[0])];
    let [first, second] = twice;
    drop(first);
    assert!(busy(&other, columns[0]));
    drop(second);
    assert!(!busy(&other, columns[0]));
    drop(lent);
    assert_eq!(
        seats(&segment),
        2,
        "the lender has left, the other participant has not"
    );
    assert!(columns.iter().all(|&column| !busy(&other, column)));
    assert!(other.verify().unwrap().is_clean());
}

fn without_a_free_seat_nothing_is_lent() {
    let segment = Segment::options().seats(2).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let other = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u8, _>(5).unwrap();
    let error = table.lend_arrow(x).unwrap_err();
    assert!(matches!(error, ArrowError::Join { .. }), "{error}");
    assert!(error.to_string().starts_with(&x.to_string()), "{error}");
    drop(other);
    drop(table.lend_arrow(x).unwrap());
    let guard = table.write(x).unwrap();
    let error = table.lend_arrow(x).unwrap_err();
    assert!(
        matches!(error, ArrowError::Lease(LeaseError::Busy { .. })),
        "{error}"
    );
    drop(guard);
    assert_eq!(seats(&segment), 1, "a refusal keeps no seat");
    assert!(table.lend_arrow(x).is_ok());
}

fn threads_lend_and_drop_at_once() {
    let segment = Segment::options().seats(16).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(100, 3u64).unwrap();
    // This loan keeps the seat: leaving the seat would release all of its leases.
    let other = table.from_elem(1, 1u8).unwrap();
    let kept = table.lend_arrow(other).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mine = HandleTable::join(&segment).unwrap();
                for _ in 0..500 {
                    let lent = mine.lend_arrow(x).unwrap();
                    assert_eq!(lent.values().iter().sum::<u64>(), 300);
                }
            });
        }
    });
    assert!(!busy(&table, x));
    assert_eq!(seats(&segment), 2);
    drop(kept);
    assert_eq!(seats(&segment), 1);
    assert!(table.verify().unwrap().is_clean());
}

fn a_lent_array_that_crossed_a_fork_belongs_to_the_parent() {
    let table = table();
    let x = table.from_elem(5, 1u8).unwrap();
    let y = table.from_elem(5, 2u8).unwrap();
    let lent = table.lend_arrow(x).unwrap();
    let child = Child::fork(|| {
        // Drop the child's copy of the lease and of the lender's seat.
        drop(lent.clone());
        let own = table.lend_arrow(y).unwrap();
        assert!(busy(&table, y));
        drop(own);
        assert!(!busy(&table, y));
        // SAFETY: the child has its own copy of the value, which it does not use again.
        drop(unsafe { std::ptr::read(&lent) });
        assert!(busy(&table, x), "the parent's lease is in force");
    });
    child.join();
    assert!(busy(&table, x), "a child did not release it");
    assert_eq!(lent.values()[..], [1; 5]);
    drop(lent);
    assert!(!busy(&table, x));
    table.reap().unwrap();
    assert_eq!(seats(table.segment()), 1);
    assert!(table.verify().unwrap().is_clean());
}

fn no_pool_is_forked_while_an_array_is_lent() {
    let table = table();
    let x = table.zeros::<u8, _>(5).unwrap();
    let lent = table.lend_arrow(x).unwrap();
    let refused = Pool::fork(&table, 1).map(drop).unwrap_err();
    assert!(
        matches!(refused, PoolError::LeaseHeld { handle } if handle == x.into()),
        "{refused}"
    );
    drop(lent);
    Pool::fork(&table, 1).unwrap();
}

fn arrays_lent_by_a_killed_process_are_reaped() {
    let table = table();
    let x = table.zeros::<u8, _>(5).unwrap();
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        let _lent = table.lend_arrow(x).unwrap();
        pipe.send(1);
        std::thread::sleep(Duration::from_secs(1000));
    });
    pipe.receive();
    assert!(busy(&table, x));
    child.kill();
    table.reap().unwrap();
    assert!(!busy(&table, x));
}

fn main() {
    support::run_tests![
        every_type_is_lent_as_it_is,
        rows_are_lists_of_fixed_length,
        the_last_of_many_threads_releases_the_lease,
        a_lent_array_outlives_its_handle_and_its_table,
        a_thousand_lent_columns_share_a_seat,
        without_a_free_seat_nothing_is_lent,
        threads_lend_and_drop_at_once,
        a_lent_array_that_crossed_a_fork_belongs_to_the_parent,
        no_pool_is_forked_while_an_array_is_lent,
        arrays_lent_by_a_killed_process_are_reaped,
    ];
}
