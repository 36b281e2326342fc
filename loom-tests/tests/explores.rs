//! The basis of all other models: the interleavings that loom explores, and the accesses that it
//! refuses.
#![cfg(all(loom, not(shuttle)))]
#![expect(
    clippy::disallowed_types,
    reason = "the counters here are outside of the model"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use loom::thread;
use loom_tests::{check, join, must_race, segment, tables};
use ndarray::{ArrayViewMut2, Axis};
use ndshm::{HandleTable, Partition, Pool, model};

/// Checks that a change comes before another thread's load, and after it. loom alone misses the
/// first order if the changing thread loads the word first; the crate's words make up for it. Both
/// outcomes must occur.
#[test]
fn a_load_before_and_after_a_change_both_occur() {
    let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let note = seen.clone();
    check(3, move || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.uninit::<u64, _>(1).unwrap();
        let other = thread::spawn(move || {
            first.free(x).unwrap();
            first
        });
        let was_live = second.attach(x).is_ok();
        note[usize::from(was_live)].fetch_add(1, SeqCst);
        let _first = other.join().unwrap();
    });
    let [stale, live] = &*seen;
    assert!(stale.load(SeqCst) > 0, "no execution frees before the look");
    assert!(live.load(SeqCst) > 0, "no execution frees after the look");
}

const SOURCE: &str = include_str!("explores.rs");

/// Two accesses to the same bytes that no lease orders.
#[test]
fn accesses_without_a_lease_race() {
    let places = ["0..1, true", "0..2, false"];
    must_race(2, SOURCE, places, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.uninit::<u64, _>(2).unwrap();
        let other = thread::spawn(move || drop(model::access(&second, x, 0..1, true)));
        drop(model::access(&first, x, 0..2, false));
        other.join().unwrap();
    });
}

/// Refuses the race also if only one of the two participants takes the lease.
#[test]
fn an_access_beside_a_lease_races() {
    let places = ["second.write", "model::access"];
    must_race(2, SOURCE, places, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.uninit::<u64, _>(1).unwrap();
        let other = thread::spawn(move || drop(second.write(x)));
        drop(model::access(&first, x, 0..1, false));
        other.join().unwrap();
    });
}

/// Refuses a view that outlives its lease, although it has ended when the other thread writes.
#[test]
fn a_view_that_outlives_its_lease_races() {
    let places = ["view_mut_unsynchronized", "second.write"];
    must_race(2, SOURCE, places, || {
        let [first, second] = tables(&segment(192, 2, 4));
        let x = first.uninit::<u64, _>(1).unwrap();
        let gate = first.uninit::<u64, _>(1).unwrap();
        let shut = first.write(gate).unwrap();
        let other = thread::spawn(move || {
            if second.write(gate).is_ok() {
                drop(second.write(x));
            }
        });
        let mut place = first.attach(x).unwrap();
        // SAFETY: the model must find this race; no other thread runs at this moment.
        let mut view = unsafe { place.view_mut_unsynchronized() };
        view[0] = 1;
        drop(shut);
        drop(place);
        other.join().unwrap();
    });
}

/// Refuses a view without a lease beside a view with a lease.
#[test]
fn a_view_beside_a_lease_races() {
    let places = ["view_unsynchronized", "second.write"];
    must_race(2, SOURCE, places, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.from_elem(1, 0u64).unwrap();
        let other = thread::spawn(move || drop(second.write(x)));
        let place = first.attach(x).unwrap();
        // SAFETY: the view is not used.
        let _ = unsafe { place.view_unsynchronized() };
        other.join().unwrap();
    });
}

/// Writes disjoint parts without a lease, of elements that are smaller than a word: no race. With
/// an `overlap` of one element the parts race.
fn parts_without_a_lease(overlap: usize) {
    let [first, second] = tables(&segment(64, 2, 2));
    let x = first.from_elem(5, 0u8).unwrap();
    let write = move |table: &HandleTable, part: core::ops::Range<usize>| {
        let mut place = table.attach(x).unwrap();
        // SAFETY: the parts are disjoint, or the model must find the race.
        let mut part = unsafe { place.slice_mut_unsynchronized(Axis(0), part) };
        part.fill(1);
    };
    let other = thread::spawn(move || {
        write(&second, 0..2 + overlap);
        second
    });
    write(&first, 2..5);
    let _second = other.join().unwrap();
    assert_eq!(first.read(x).unwrap().to_vec(), [1; 5]);
}

#[test]
fn neighbours_do_not_race() {
    check(3, || parts_without_a_lease(0));
}

#[test]
fn parts_that_overlap_race() {
    let places = ["slice_mut_unsynchronized"; 2];
    must_race(2, SOURCE, places, || {
        parts_without_a_lease(1);
    });
}

/// Tiles of neighbouring `f32`, which share a word: the columns of a matrix of two rows.
#[test]
fn tiles_that_share_a_word_do_not_race() {
    check(1, || {
        let [first, second] = tables(&segment(1024, 2, 4));
        let x = first.from_elem((2, 2), 1f32).unwrap();
        let tiles = first.partition(x.write(), Axis(1), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let work = |tiles: &Partition<'_, _>| {
            if let Some(mut part) = tiles.enter().unwrap() {
                while let Some(mut tile) = part.claim().unwrap() {
                    let mut x: ArrayViewMut2<'_, f32> = tile.views();
                    x += 1.0;
                }
            }
        };
        let other = thread::spawn(move || {
            work(&second.open_partition(name).unwrap());
            second
        });
        work(&tiles);
        round.finish(Duration::ZERO).unwrap();
        let _second = other.join().unwrap();
        assert_eq!(first.read(x).unwrap().sum(), 8.0);
    });
}

/// The report of a race with a tile of a call names the call.
#[test]
fn a_view_during_a_call_races() {
    let places = ["pool.start", "view_unsynchronized"];
    must_race(2, SOURCE, places, || {
        let table = join(&segment(4096, 2, 16));
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
        let place = table.attach(x).unwrap();
        // SAFETY: the view is not used.
        let _ = unsafe { place.view_unsynchronized() };
        running.finish().unwrap();
    });
}

/// No model sees an access by a pointer.
#[test]
fn an_access_by_a_pointer_is_not_detected() {
    check(2, || {
        let [first, second] = tables(&segment(64, 2, 2));
        let x = first.from_elem(1, 0u64).unwrap();
        let other = thread::spawn(move || drop(second.write(x)));
        let place = first.attach(x).unwrap();
        // SAFETY: aligned, and alive. Outside of a model this would be a race; here all threads are
        // coroutines of one thread.
        assert_eq!(unsafe { place.as_ptr().read() }, 0);
        other.join().unwrap();
    });
}

/// Reads an array without a lease, then lets the other participant in, which writes it.
fn a_look_and_a_write(attach_anew: bool) {
    let [first, second] = tables(&segment(192, 2, 4));
    let x = first.from_elem(1, 7u64).unwrap();
    let gate = first.from_elem(1, 0u64).unwrap();
    let shut = first.write(gate).unwrap();
    let other = thread::spawn(move || {
        if second.write(gate).is_ok() {
            second.write(x).unwrap()[0] = 8;
        }
        second
    });
    let mut place = Some(first.attach(x).unwrap());
    // SAFETY: the other participant does not write before it has the gate.
    let seen = unsafe { place.as_ref().unwrap().view_unsynchronized() }[0];
    if attach_anew {
        place = None;
    }
    drop(shut);
    drop(place);
    assert_eq!(seen, 7);
    let _second = other.join().unwrap();
}

/// The check is stricter than necessary: a view counts for as long as it could live, which is the
/// life of the value that it borrows from.
#[test]
fn a_view_whose_lender_is_kept_races() {
    let places = ["let seen", "second.write(x)"];
    must_race(2, SOURCE, places, || {
        a_look_and_a_write(false);
    });
}

#[test]
fn a_view_whose_lender_is_dropped_does_not_race() {
    check(3, || a_look_and_a_write(true));
}
