//! What loom explores at all, and what it refuses: the ground that the other models stand on.
#![cfg(all(loom, not(shuttle)))]
#![expect(
    clippy::disallowed_types,
    reason = "what is counted here is outside of the model"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use loom::thread;
use loom_tests::{check, must_fail, segment};
use ndshm::{HandleTable, model};

/// loom itself overlooks that a change may come before another thread's look if the changer looks
/// first; the crate's words make up for it. Both outcomes must occur.
#[test]
fn a_look_before_and_after_a_change() {
    let seen = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let note = seen.clone();
    check("a_look_before_and_after_a_change", 3, move || {
        let segment = segment(64, 2);
        let first = HandleTable::join(&segment).unwrap();
        let second = HandleTable::join(&segment).unwrap();
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

/// Two accesses to the same bytes that no lease orders.
#[test]
fn accesses_without_a_lease() {
    must_fail("accesses_without_a_lease", 2, "Causality violation", || {
        let segment = segment(64, 2);
        let first = HandleTable::join(&segment).unwrap();
        let second = HandleTable::join(&segment).unwrap();
        let x = first.uninit::<u64, _>(2).unwrap();
        let other = thread::spawn(move || drop(model::access(&second, x, 0..1, true)));
        drop(model::access(&first, x, 0..2, false));
        other.join().unwrap();
    });
}

/// The same, beside a lease that the other one does not ask for.
#[test]
fn an_access_beside_a_lease() {
    must_fail("an_access_beside_a_lease", 2, "Causality violation", || {
        let segment = segment(64, 2);
        let first = HandleTable::join(&segment).unwrap();
        let second = HandleTable::join(&segment).unwrap();
        let x = first.uninit::<u64, _>(1).unwrap();
        let other = thread::spawn(move || drop(second.write(x)));
        drop(model::access(&first, x, 0..1, false));
        other.join().unwrap();
    });
}
