//! Slots and spans: finding a free slot, reserving it, handing it over; and the hints that lead to
//! it.
#![cfg(all(loom, not(shuttle)))]

use std::collections::HashSet;

use loom::thread;
use loom_tests::{assert_all_free, beside, check, join, options, segment, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::LeaseError;
use ndshm::{AnyHandle, Handle, HandleTable, model};

type Vector = Handle<u64, Ix1>;

fn write(table: &HandleTable, x: Vector, value: u64) {
    table.write(x).expect("no other participant holds it")[0] = value;
}

/// I1, I4, I6: a slot goes from one participant to another. Its owner has it alone, and after all
/// accesses of the previous owner.
#[test]
fn a_freed_slot_has_one_next_owner() {
    check(4, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.from_elem(1, 0).unwrap();
        let other = thread::spawn(move || {
            write(&first, x, 1);
            first.free(x).unwrap();
            let again = first.from_elem(1, 2);
            (first, again)
        });
        let taken = second.from_elem(1, 3);
        if let Ok(y) = taken {
            write(&second, y, 4);
            assert!(matches!(second.read(x), Err(LeaseError::Stale { .. })));
        }
        let (_first, again) = other.join().unwrap();
        assert!(
            taken.is_ok() != again.is_ok(),
            "exactly one has the freed slot"
        );
    });
}

/// I1, I2, I4: two participants allocate, write, free and allocate again in a segment that has a
/// slot for each of them. Neither gets `Full`, and they never share a slot.
#[test]
fn two_allocators_never_share_a_slot() {
    check(3, || {
        let life = |table: HandleTable, value| {
            let x = table.from_elem(1, value).expect("a slot is free");
            write(&table, x, value + 1);
            table.free(x).unwrap();
            let y = table.from_elem(1, value + 2).expect("a slot is free");
            assert!(table.free(x).is_err(), "a stale handle was freed");
            (table, y)
        };
        let [first, second] = tables(&segment(128, 2, 2));
        let other = thread::spawn(move || life(second, 10));
        let (first, x) = life(first, 20);
        let (second, y) = other.join().unwrap();
        assert_ne!(AnyHandle::from(x), AnyHandle::from(y));
        assert_eq!(
            (first.read(y).unwrap()[0], second.read(x).unwrap()[0]),
            (12, 22)
        );
    });
}

/// I2: two participants that need a new span append one each: no slot is lost or given out twice.
#[test]
fn two_new_spans_are_distinct() {
    check(3, || {
        let life = |table: HandleTable| {
            let handles = [(); 2].map(|()| table.from_elem(1, 1u64).expect("a slot is free"));
            (table, handles)
        };
        let [first, second] = tables(&segment(256, 2, 4));
        let other = thread::spawn(move || life(second));
        let (first, mine) = life(first);
        let (_second, others) = other.join().unwrap();
        let distinct: HashSet<_> = mine.into_iter().chain(others).collect();
        assert_eq!(distinct.len(), 4);
        assert!(
            first.from_elem(1, 1u64).is_err(),
            "all of the capacity is in use"
        );
    });
}

/// I2: spans of two size classes that are appended at once do not overlap (loom sees the bytes of
/// both being written).
#[test]
fn spans_of_two_classes_do_not_overlap() {
    check(3, || {
        let [first, second] = tables(&segment(384, 2, 4));
        let other = thread::spawn(move || (second.from_elem(1, 1u64).unwrap(), second));
        let large = first.from_elem(16, 2u64).unwrap();
        let (small, _second) = other.join().unwrap();
        assert_eq!(first.read(large).unwrap().sum(), 32);
        assert_eq!(first.read(small).unwrap().sum(), 1);
    });
}

/// I2: a participant shares the slots in its cache and leaves, while another searches. Hints may be
/// set too late or taken in vain, but the search finds a slot that is free throughout, and then the
/// other slot.
#[test]
fn a_search_finds_a_free_slot_while_hints_move() {
    check(3, || {
        let [first, second] = tables(&segment(128, 2, 2));
        let x = first.uninit::<u64, _>(1).unwrap();
        let _y = first.uninit::<u64, _>(1).unwrap();
        first.free(x).unwrap();
        // Shares x's slot, which only its cache lists, and frees y.
        let leaver = thread::spawn(move || drop(first));
        second
            .uninit::<u64, _>(1)
            .expect("a slot was free throughout");
        leaver.join().unwrap();
        assert_all_free(&second, 1);
    });
}

/// I2: two searchers clear a summary word while a third participant enters a slot below it.
#[test]
fn a_hint_survives_two_searchers() {
    check(2, || {
        // Nothing is retained: a freed slot goes to the hint tree at once.
        let options = options(128, 4, 2).retain(0);
        let [first, searchers @ ..] = tables::<3>(&options.in_process().unwrap());
        let x = first.uninit::<u64, _>(1).unwrap();
        let y = first.uninit::<u64, _>(1).unwrap();
        first.free(x).unwrap();
        let searchers = searchers.map(|table| {
            thread::spawn(move || {
                let found = table.uninit::<u64, _>(1).ok();
                (table, found)
            })
        });
        first.free(y).unwrap();
        let searchers = searchers.map(|searcher| searcher.join().unwrap());
        let found = searchers
            .iter()
            .filter(|(_, found)| found.is_some())
            .count();
        assert!(found >= 1, "a slot was free throughout");
        for _ in found..2 {
            first
                .uninit::<u64, _>(1)
                .expect("an unfound slot is still free");
        }
        first.uninit::<u64, _>(1).expect_err("two slots");
    });
}

/// I2: a slot is free at every moment, but it moves behind the search, from the last slot to the
/// first. One scan would report that the segment is full.
#[test]
fn a_free_slot_that_moves_is_found() {
    check(3, || {
        let [owner, mover, searcher] = tables(&segment(192, 4, 4));
        let first = owner.uninit::<u64, _>(1).unwrap();
        let _middle = owner.uninit::<u64, _>(1).unwrap();
        let last = mover.uninit::<u64, _>(1).unwrap();
        // Only the cache of `mover` lists this slot.
        mover.free(last).unwrap();
        let other = thread::spawn(move || {
            owner.free(first).unwrap();
            let _ = mover.uninit::<u64, _>(1);
            (owner, mover)
        });
        searcher
            .uninit::<u64, _>(1)
            .expect("a slot was free at every moment");
        let _tables = other.join().unwrap();
    });
}

/// I4, I8: `attach` of an array that is freed and replaced by an array of another shape gives the
/// shape that belongs to the handle, or `Stale`.
#[test]
fn attach_beside_a_reuse_never_returns_the_next_array() {
    check(4, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.uninit::<u64, _>(2).unwrap();
        let other = thread::spawn(move || {
            first.free(x).unwrap();
            let y = first.uninit::<u64, _>(3).unwrap();
            (first, y)
        });
        match second.attach(x) {
            Ok(seen) => assert_eq!(seen.shape(), [2]),
            Err(error) => assert!(matches!(error, LeaseError::Stale { .. }), "{error}"),
        }
        let (_first, y) = other.join().unwrap();
        assert_eq!(second.attach(y).unwrap().shape(), [3]);
    });
}

/// I6: a handle may reach another participant by a way that orders nothing. A participant that
/// finds its array LIVE finds the descriptor and the elements written.
#[test]
fn a_live_array_is_written_whole() {
    check(4, || {
        // The same steps in another segment of the same key predict the handle.
        let twin = join(&segment(64, 2, 2));
        let x = twin.from_elem(1, 0u64).unwrap();
        let [first, second] = tables(&segment(64, 2, 2));
        let other = thread::spawn(move || {
            assert_eq!(first.from_elem(1, 7).unwrap(), x);
            first
        });
        match second.read(x) {
            Ok(x) => assert_eq!(x[0], 7),
            Err(error) => assert!(matches!(error, LeaseError::Stale { .. }), "{error}"),
        }
        let _first = other.join().unwrap();
        assert_eq!(second.read(x).unwrap()[0], 7);
    });
}

/// I4, I8: a slot becomes the slot of a partition beside an `attach` with its old handle. The
/// result is the old array or `Stale`, never another array.
#[test]
fn attach_beside_a_new_partition_never_returns_it() {
    check(2, || {
        // As large as the words of the partition, which therefore reuse its slot.
        const LENGTH: usize = 56;
        let [first, second] = tables(&segment(2 * 448, 2, 2));
        let x = first.uninit::<u64, _>(LENGTH).unwrap();
        let y = first.uninit::<u64, _>(LENGTH).unwrap();
        let other = thread::spawn(move || {
            first.free(x).unwrap();
            drop(first.partition(y.write(), Axis(0), LENGTH).unwrap());
            first
        });
        match second.attach(x) {
            Ok(array) => assert_eq!(array.shape(), [LENGTH]),
            Err(LeaseError::Stale { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let _first = other.join().unwrap();
    });
}

/// Frees a slot under a reader, with or without another hint in its word, beside a search.
fn a_hint_and_a_search(beside_another: bool) {
    // Nothing is retained: a freed slot goes to the hint tree at once.
    let options = options(128, 2, 2).retain(0);
    let [first, second] = tables(&options.in_process().unwrap());
    let x = first.uninit::<u64, _>(1).unwrap();
    let y = first.uninit::<u64, _>(1).unwrap();
    let reader = second.read(x).unwrap();
    first.free(x).unwrap();
    if beside_another {
        first.free(y).unwrap();
    }
    let search = |first: &HandleTable| first.uninit::<u64, _>(1).is_ok();
    // The last holder enters the slot in the hints.
    let ((), found, _first) = beside(first, search, || drop(reader));
    assert!(
        found || !beside_another,
        "a slot was free from the beginning"
    );
    if !found || beside_another {
        second.uninit::<u64, _>(1).expect("the slot is free");
        assert_eq!(model::sweeps(&second), 0, "the hint is lost");
    }
}

/// I2: a hint leads to its slot. A search beside the setting of a hint finds the slot, or leaves
/// the hint to the next search, which needs no sweep.
#[test]
fn a_hint_leads_to_its_slot() {
    check(2, || a_hint_and_a_search(false));
}

/// I2: the same for a hint in a word that already holds another hint.
#[test]
fn a_hint_beside_another_leads_to_its_slot() {
    check(2, || a_hint_and_a_search(true));
}
