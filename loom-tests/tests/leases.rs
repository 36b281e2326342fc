//! Leases: the right to read or write an array, also of an array that is freed meanwhile.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{assert_all_free, check, is_busy, options, segment};
use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Segment, model};

type Vector = Handle<u64, Ix1>;

/// Creates a segment of one array, and the table of seat 0, which owns the array.
fn one_array() -> (Segment, HandleTable, Vector) {
    let segment = segment(64, 2);
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(1, 0).unwrap();
    (segment, table, x)
}

/// Reads the element if the lease is granted.
fn try_read(table: &HandleTable, x: Vector) -> Result<u64, LeaseError> {
    table.read(x).map(|x| x[0])
}

/// Adds one to the element if the lease is granted.
fn try_add(table: &HandleTable, x: Vector) -> Result<(), LeaseError> {
    table.write(x).map(|mut x| x[0] += 1)
}

/// I5, I6: a read lease and a write lease exclude each other, and each sees the accesses under the
/// one before. A refused lease leaves no trace.
#[test]
fn reader_and_writer() {
    check("reader_and_writer", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let writer = thread::spawn(move || {
            let added = try_add(&first, x);
            assert!(added.is_ok() || is_busy(&added), "{added:?}");
            (first, added.is_ok())
        });
        let seen = try_read(&second, x);
        assert!(matches!(seen, Ok(0 | 1)) || is_busy(&seen), "{seen:?}");
        let again = try_read(&second, x);
        if let (Ok(before), Ok(after)) = (seen, again) {
            assert!(before <= after, "a reader sees an older value");
        }
        let (first, added) = writer.join().unwrap();
        assert_eq!(try_read(&second, x).unwrap(), u64::from(added));
        try_add(&second, x).unwrap();
        assert_eq!(try_read(&first, x).unwrap(), u64::from(added) + 1);
    });
}

/// I5, I6: neither of two writers loses the other's work, and never are both refused.
#[test]
fn writer_and_writer() {
    check("writer_and_writer", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let other = thread::spawn(move || {
            let added = (0..2).filter(|_| try_add(&second, x).is_ok()).count();
            (second, added)
        });
        let added = (0..2).filter(|_| try_add(&first, x).is_ok()).count();
        let (_second, others) = other.join().unwrap();
        assert!(added + others >= 1, "both were refused");
        assert_eq!(try_read(&first, x).unwrap(), (added + others) as u64);
    });
}

/// I5, I6: two readers and a writer.
#[test]
fn two_readers_and_a_writer() {
    check("two_readers_and_a_writer", 2, || {
        let segment = options().capacity(64).seats(4).arrays(2);
        let segment = segment.in_process().unwrap();
        let first = HandleTable::join(&segment).unwrap();
        let x = first.from_elem(1, 0u64).unwrap();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let table = HandleTable::join(&segment).unwrap();
                thread::spawn(move || (try_read(&table, x).is_ok(), table))
            })
            .collect();
        let wrote = try_add(&first, x).is_ok();
        let readers: Vec<_> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        // All three may have been refused; that leaves no trace.
        assert_eq!(try_read(&readers[0].1, x).unwrap(), u64::from(wrote));
        try_add(&first, x).unwrap();
    });
}

/// I4, I5: an array is freed under a reader. The reader keeps its bytes, the handle is stale at
/// once, and the slot is FREE after the last lease, whichever participant ends it. Nothing leaks.
#[test]
fn free_under_a_reader() {
    check("free_under_a_reader", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let reader = thread::spawn(move || {
            match try_read(&second, x) {
                Ok(seen) => assert_eq!(seen, 0, "a reader sees another array's bytes"),
                Err(error) => assert!(matches!(error, LeaseError::Stale { .. }), "{error}"),
            }
            second
        });
        first.free(x).unwrap();
        assert!(matches!(try_read(&first, x), Err(LeaseError::Stale { .. })));
        // In the same bytes, unless the reader still holds them.
        let y = first.from_elem(1, 7u64);
        let _second = reader.join().unwrap();
        if let Ok(y) = y {
            assert_eq!(try_read(&first, y).unwrap(), 7);
            first.free(y).unwrap();
        }
        assert_all_free(&first, 1);
    });
}

/// I4, I5: an array is freed under a writer, which does not write into the next array.
#[test]
fn free_under_a_writer() {
    check("free_under_a_writer", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let writer = thread::spawn(move || {
            let added = try_add(&second, x);
            assert!(
                matches!(added, Ok(()) | Err(LeaseError::Stale { .. })),
                "{added:?}"
            );
            second
        });
        first.free(x).unwrap();
        let y = first.from_elem(1, 7u64);
        let _second = writer.join().unwrap();
        if let Ok(y) = y {
            assert_eq!(
                try_read(&first, y).unwrap(),
                7,
                "the late writer hit another array"
            );
            first.free(y).unwrap();
        }
        assert_all_free(&first, 1);
    });
}

/// I4: of two participants that free an array, exactly one succeeds.
#[test]
fn free_and_free() {
    check("free_and_free", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let other = thread::spawn(move || (second.free(x).is_ok(), second));
        let freed = first.free(x).is_ok();
        let (others, second) = other.join().unwrap();
        assert!(
            freed != others,
            "freed {} times",
            u8::from(freed) + u8::from(others)
        );
        assert_all_free(&second, 1);
    });
}

/// I4, I5: a reader, a writer and a freeing participant; the last of them frees the slot, exactly
/// once.
#[test]
fn free_under_a_reader_and_a_writer() {
    check("free_under_a_reader_and_a_writer", 2, || {
        let segment = options().capacity(64).seats(4).arrays(2);
        let segment = segment.in_process().unwrap();
        let first = HandleTable::join(&segment).unwrap();
        let x = first.from_elem(1, 0u64).unwrap();
        let reader = HandleTable::join(&segment).unwrap();
        let writer = HandleTable::join(&segment).unwrap();
        let reader = thread::spawn(move || {
            let _ = try_read(&reader, x);
            reader
        });
        let writer = thread::spawn(move || {
            let _ = try_add(&writer, x);
            writer
        });
        first.free(x).unwrap();
        let _tables = (reader.join().unwrap(), writer.join().unwrap());
        assert_all_free(&first, 1);
    });
}

/// I4, I5: like `free_under_a_reader`, but the freeing participant gives pages back first (RETIRED
/// → RESERVED → FREE): nothing touches the bytes before the reader has left.
#[test]
fn free_that_cleans_up_under_a_reader() {
    check("free_that_cleans_up_under_a_reader", 4, || {
        let segment = options().capacity(128).seats(2).arrays(2).retain(0);
        let segment = segment.in_process().unwrap();
        let first = HandleTable::join(&segment).unwrap();
        let x = first.from_elem(16, 0u64).unwrap();
        let second = HandleTable::join(&segment).unwrap();
        let reader = thread::spawn(move || {
            let _ = try_read(&second, x);
            second
        });
        first.free(x).unwrap();
        let y = first.uninit::<u64, _>(16);
        let _second = reader.join().unwrap();
        if let Ok(y) = y {
            first.free(y).unwrap();
        }
        first.uninit::<u64, _>(16).expect("nothing leaks");
    });
}

/// I5: a participant with two read leases keeps writers out until it has ended both.
#[test]
fn two_leases_of_one_seat() {
    check("two_leases_of_one_seat", 4, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let writer = thread::spawn(move || {
            let _ = try_add(&second, x);
            second
        });
        if let Ok(outer) = first.read(x) {
            match first.read(x) {
                Ok(inner) => assert_eq!(inner[0], outer[0]),
                // A writer that our first lease is about to refuse.
                refused => assert!(is_busy(&refused), "{refused:?}"),
            }
            assert!(outer[0] <= 1);
        }
        let _second = writer.join().unwrap();
        try_add(&first, x).unwrap();
    });
}

/// I6: all accesses of the freeing participant, with or without a lease, come before those of the
/// next owner, even if a reader ends the last lease.
#[test]
fn free_comes_after_all_that_the_freer_did() {
    check("free_comes_after_all_that_the_freer_did", 3, || {
        let (segment, first, x) = one_array();
        let second = HandleTable::join(&segment).unwrap();
        let other = thread::spawn(move || {
            drop(second.read(x));
            if let Ok(y) = second.from_elem(1, 3u64) {
                assert_eq!(try_read(&second, y).unwrap(), 3);
            }
            second
        });
        drop(model::access(&first, x, 0..1, false).unwrap());
        first.free(x).unwrap();
        let _second = other.join().unwrap();
    });
}

/// I6: the last reader, the freeing participant and the next owner run at once. The reader's
/// accesses come before those of the next owner.
#[test]
fn a_slot_from_hand_to_hand() {
    check("a_slot_from_hand_to_hand", 2, || {
        let segment = options().capacity(64).seats(4).arrays(2);
        let segment = segment.in_process().unwrap();
        let [first, second, third] = [(); 3].map(|()| HandleTable::join(&segment).unwrap());
        let x = first.from_elem(1, 0u64).unwrap();
        let reader = thread::spawn(move || {
            drop(second.read(x));
            second
        });
        let next = thread::spawn(move || {
            let y = third.from_elem(1, 1u64);
            (y.is_ok(), third)
        });
        first.free(x).unwrap();
        let _second = reader.join().unwrap();
        let (_, _third) = next.join().unwrap();
    });
}

/// I1: an array is freed under two readers that leave at once: the last one finds it retired.
#[test]
fn two_readers_of_what_was_freed() {
    check("two_readers_of_what_was_freed", 3, || {
        let segment = options().capacity(64).seats(4).arrays(2);
        let segment = segment.in_process().unwrap();
        let [first, second, third] = [(); 3].map(|()| HandleTable::join(&segment).unwrap());
        let x = first.from_elem(1, 0u64).unwrap();
        let mine = second.read(x).unwrap();
        let other = thread::spawn(move || {
            drop(third.read(x));
            third
        });
        first.free(x).unwrap();
        drop(mine);
        let _third = other.join().unwrap();
        assert_all_free(&first, 1);
    });
}

/// I6: a slot whose pages are given back when it is freed passes to the next owner only after that.
#[test]
fn a_slot_that_is_cleaned() {
    check("a_slot_that_is_cleaned", 3, || {
        let segment = options().capacity(128).seats(2).arrays(2).retain(0);
        let segment = segment.in_process().unwrap();
        let [first, second] = [(); 2].map(|()| HandleTable::join(&segment).unwrap());
        let x = first.from_elem(16, 0u64).unwrap();
        let next = thread::spawn(move || {
            let y = second.from_elem(16, 1u64);
            (y.is_ok(), second)
        });
        first.free(x).unwrap();
        let (_, _second) = next.join().unwrap();
    });
}
