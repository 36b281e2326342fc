//! Leases: the right to read or write an array, also of an array that is freed meanwhile.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{assert_all_free, beside, check, is_busy, options, segment, tables};
use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::untyped::Mode;
use ndshm::{Handle, HandleTable, model};

type Vector = Handle<u64, Ix1>;

/// Joins a segment of one array as `N` participants, the first of which creates the array.
fn one_array<const N: usize>() -> ([HandleTable; N], Vector) {
    let seats = N.next_power_of_two() as u32;
    let tables: [HandleTable; N] = tables(&segment(64, seats, 2));
    let x = tables[0].from_elem(1, 0).unwrap();
    (tables, x)
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
fn a_reader_and_a_writer_exclude_each_other() {
    check(4, || {
        let ([first, second], x) = one_array();
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
fn two_writers_lose_no_addition() {
    check(4, || {
        let ([first, second], x) = one_array();
        let add = move |table: &HandleTable| (0..2).filter(|_| try_add(table, x).is_ok()).count();
        let (added, others, _second) = beside(second, add, || add(&first));
        assert!(added + others >= 1, "both were refused");
        assert_eq!(try_read(&first, x).unwrap(), (added + others) as u64);
    });
}

/// I5, I6: two readers and a writer.
#[test]
fn two_readers_and_a_writer_exclude_each_other() {
    check(2, || {
        let ([first, readers @ ..], x) = one_array::<3>();
        let readers =
            readers.map(|table| thread::spawn(move || (try_read(&table, x).is_ok(), table)));
        let wrote = try_add(&first, x).is_ok();
        let readers = readers.map(|reader| reader.join().unwrap());
        // All three may have been refused; that leaves no trace.
        assert_eq!(try_read(&readers[0].1, x).unwrap(), u64::from(wrote));
        try_add(&first, x).unwrap();
    });
}

/// I4, I5: an array is freed under a reader. The reader keeps its bytes, the handle is stale at
/// once, and the slot is FREE after the last lease, whichever participant ends it. Nothing leaks.
#[test]
fn free_under_a_reader() {
    check(4, || {
        let ([first, second], x) = one_array();
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
    check(4, || {
        let ([first, second], x) = one_array();
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
fn one_of_two_frees_succeeds() {
    check(4, || {
        let ([first, second], x) = one_array();
        let free = move |table: &HandleTable| table.free(x).is_ok();
        let (freed, others, second) = beside(second, free, || free(&first));
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
    check(2, || {
        let ([first, reader, writer], x) = one_array();
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
    check(4, || {
        let options = options(128, 2, 2).retain(0);
        let [first, second] = tables(&options.in_process().unwrap());
        let x = first.from_elem(16, 0u64).unwrap();
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
fn two_leases_of_one_seat_both_keep_writers_out() {
    check(4, || {
        let ([first, second], x) = one_array();
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
fn accesses_before_a_free_come_before_the_next_owner() {
    check(3, || {
        let ([first, second], x) = one_array();
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
fn accesses_of_the_last_reader_come_before_the_next_owner() {
    check(2, || {
        let ([first, second, third], x) = one_array();
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
fn the_last_of_two_readers_frees_the_slot() {
    check(3, || {
        let ([first, second, third], x) = one_array();
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
fn a_slot_passes_on_after_its_pages_are_given_back() {
    check(3, || {
        let options = options(128, 2, 2).retain(0);
        let [first, second] = tables(&options.in_process().unwrap());
        let x = first.from_elem(16, 0u64).unwrap();
        let next = thread::spawn(move || {
            let y = second.from_elem(16, 1u64);
            (y.is_ok(), second)
        });
        first.free(x).unwrap();
        let (_, _second) = next.join().unwrap();
    });
}

/// I5: a lease without a lifetime counts beside a guard of the same seat, and keeps writers out.
#[test]
fn a_lock_beside_a_guard_of_its_seat_keeps_writers_out() {
    check(4, || {
        let ([first, second], x) = one_array();
        let writer = thread::spawn(move || {
            let _ = try_add(&second, x);
            second
        });
        if let Ok(outer) = first.read(x) {
            match first.lock(x, Mode::Read) {
                Ok(mut locked) => first.unlock(&mut locked, false).unwrap(),
                refused => assert!(is_busy(&refused), "{refused:?}"),
            }
            assert!(outer[0] <= 1);
        }
        let _second = writer.join().unwrap();
        try_add(&first, x).unwrap();
    });
}

/// I5, I6: of a lock for writing and a reader only one is admitted, and each sees the accesses
/// under the one before. The access lasts until the unlock.
#[test]
fn a_lock_for_writing_and_a_reader_exclude_each_other() {
    check(4, || {
        let ([first, second], x) = one_array();
        let reader = thread::spawn(move || {
            let seen = try_read(&second, x);
            assert!(matches!(seen, Ok(0)) || is_busy(&seen), "{seen:?}");
            second
        });
        match first.lock(x, Mode::Write) {
            Ok(mut locked) => first.unlock(&mut locked, false).unwrap(),
            refused => assert!(is_busy(&refused), "{refused:?}"),
        }
        let _second = reader.join().unwrap();
        try_add(&first, x).unwrap();
    });
}
