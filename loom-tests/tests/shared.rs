//! A participant that several threads of a process share: what they do at once beside each other
//! and beside another participant.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{assert_all_free, check, is_busy, options, segment, tables};
use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Segment, SharedTable};

type Vector = Handle<u64, Ix1>;

/// Joins a segment as a shared table and another participant. The other has made one array.
fn one_array(segment: &Segment) -> (SharedTable, HandleTable, Vector) {
    let [first, second] = tables(segment);
    let x = second.from_elem(1, 0).unwrap();
    (SharedTable::new(first), second, x)
}

/// Runs `act` on another thread that shares the table.
fn thread<R: 'static>(
    table: &SharedTable,
    act: impl FnOnce(&SharedTable) -> R + 'static,
) -> thread::JoinHandle<R> {
    let table = table.clone();
    thread::spawn(move || act(&table))
}

/// I5, I6: two threads with one seat exclude each other as two participants do, and neither loses
/// the other's work.
#[test]
fn writers_of_two_threads_lose_no_addition() {
    check(4, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let add = move |table: &SharedTable| {
            let added = table.write(x).map(|mut x| x[0] += 1);
            assert!(added.is_ok() || is_busy(&added), "{added:?}");
            u64::from(added.is_ok())
        };
        let beside = thread(&table, add);
        let added = add(&table) + beside.join().unwrap();
        assert!(added >= 1, "both were refused");
        assert_eq!(other.read(x).unwrap()[0], added);
    });
}

/// I5: a writer of another participant is refused until the readers of both threads have ended,
/// although they have one bit.
#[test]
fn readers_of_two_threads_keep_a_writer_out() {
    check(2, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let read = move |table: &SharedTable| {
            let seen = table.read(x).map(|x| x[0]);
            assert!(matches!(seen, Ok(0 | 1)) || is_busy(&seen), "{seen:?}");
        };
        let beside = thread(&table, read);
        let writer = thread::spawn(move || {
            let added = other.write(x).map(|mut x| x[0] += 1);
            assert!(added.is_ok() || is_busy(&added), "{added:?}");
            other
        });
        read(&table);
        beside.join().unwrap();
        let other = writer.join().unwrap();
        other.write(x).unwrap()[0] += 1;
    });
}

/// I1, I4: one thread fills an array without the lock while the other frees one and makes one. The
/// three arrays have bytes of their own, and nothing leaks.
#[test]
fn an_array_is_filled_beside_the_calls_of_another_thread() {
    check(4, || {
        let (table, other, x) = one_array(&segment(128, 2, 2));
        let beside = thread(&table, move |table| {
            table.free(x).unwrap();
            table.from_elem(1, 5u64)
        });
        let y = table.from_elem(1, 7u64);
        let z = beside.join().unwrap();
        for (made, value) in [(y, 7), (z, 5)] {
            // There are two slots, and `x` may still have one of them.
            if let Ok(made) = made {
                assert_eq!(table.read(made).unwrap()[0], value);
                table.free(made).unwrap();
            }
        }
        drop(table);
        assert_all_free(&other, 2);
    });
}

/// I6: pages are given back without the lock, while another thread and another participant look for
/// a slot. The slot passes on after that.
#[test]
fn a_slot_passes_on_after_its_pages_are_given_back_without_the_lock() {
    check(3, || {
        let segment = options(128, 2, 2).retain(0).in_process().unwrap();
        let [first, second] = tables(&segment);
        let table = SharedTable::new(first);
        let x: Vector = table.from_elem(16, 0).unwrap();
        let beside = thread(&table, |table| {
            if let Ok(y) = table.from_elem(16, 1u64) {
                assert_eq!(table.read(y).unwrap()[15], 1);
                table.free(y).unwrap();
            }
        });
        table.free(x).unwrap();
        beside.join().unwrap();
        drop(table);
        second.from_elem(16, 2u64).expect("nothing leaks");
    });
}

/// I4, I5: a thread frees an array under the lease of the other. The bytes stay until that ends,
/// and then the slot is FREE.
#[test]
fn free_under_the_lease_of_another_thread() {
    check(4, || {
        let (table, other, x) = one_array(&segment(64, 2, 2));
        let beside = thread(&table, move |table| match table.read(x) {
            Ok(guard) => assert_eq!(guard[0], 0, "a reader sees another array's bytes"),
            Err(error) => assert!(matches!(error, LeaseError::Stale { .. }), "{error}"),
        });
        table.free(x).unwrap();
        if let Ok(y) = table.from_elem(1, 7u64) {
            assert_eq!(table.read(y).unwrap()[0], 7);
            table.free(y).unwrap();
        }
        beside.join().unwrap();
        drop(table);
        assert_all_free(&other, 1);
    });
}
