//! Bundles: filled, emptied and freed by several participants at once, some of which die meanwhile.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{beside, beside_death, check, check_deaths, dies, tables};
use ndarray::Ix1;
use ndshm::error::{BundleError, LeaseError};
use ndshm::{BundleHandle, Handle, HandleTable, Segment, model};

type Vector = Handle<u64, Ix1>;

fn segment(seats: u32) -> Segment {
    loom_tests::segment(512, seats, 8)
}

/// Creates a bundle of this participant with one part.
fn bundle_of_one(table: &HandleTable) -> (BundleHandle, Vector) {
    let bundle = table.bundle().unwrap();
    let x = table.from_elem(1, 1u64).unwrap();
    bundle.insert("a", x).unwrap();
    (bundle.handle(), x)
}

/// Inserts a new array. Returns `true` if the bundle was there.
#[track_caller]
fn insert(table: &HandleTable, bundle: BundleHandle, name: &str) -> bool {
    let inserted = table.open_bundle(bundle).and_then(|bundle| {
        let y = table.from_elem(1, 2u64).unwrap();
        let inserted = bundle.insert(name, y);
        if inserted.is_err() {
            // After an error the array may already have been freed with the bundle.
            let _ = table.free(y);
        }
        inserted
    });
    match inserted {
        Ok(()) => true,
        Err(BundleError::Lease(LeaseError::Stale { .. })) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Returns the values of the parts, sorted by their names.
#[track_caller]
fn values(table: &HandleTable, bundle: BundleHandle) -> Vec<u64> {
    let bundle = table.open_bundle(bundle).unwrap();
    let parts = bundle.parts().unwrap();
    let value = |name: &str| {
        let part: Vector = bundle.get(name).unwrap();
        table.read(part).unwrap()[0]
    };
    parts.iter().map(|part| value(&part.name)).collect()
}

/// Asserts that no bundle and no part is left.
#[track_caller]
fn assert_empty(table: &HandleTable) {
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!(
        (found.live, found.retired, found.in_transit),
        (0, 0, 0),
        "{found}"
    );
}

/// I1: two participants insert at once: neither part is lost, and both are whole.
#[test]
fn two_insertions_lose_no_part() {
    check(1, || {
        let [first, second] = tables(&segment(2));
        let bundle = first.bundle().unwrap().handle();
        let insert_b = move |second: &HandleTable| insert(second, bundle, "b");
        let (ours, theirs, second) = beside(second, insert_b, || insert(&first, bundle, "a"));
        assert!(ours && theirs);
        assert_eq!(values(&second, bundle), [2, 2]);
        second.free(bundle).unwrap();
        assert_empty(&second);
    });
}

/// I1: an insertion beside the free of its bundle fails, or was faster; nothing is left.
#[test]
fn an_insertion_beside_a_free_leaves_nothing() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let (bundle, x) = bundle_of_one(&first);
        let free = move |second: &HandleTable| second.free(bundle).unwrap();
        let (_, (), second) = beside(second, free, || insert(&first, bundle, "b"));
        assert!(second.read(x).is_err(), "the part outlived its bundle");
        assert_empty(&second);
    });
}

/// I1: a bundle that takes the slot of a bundle that is being freed keeps its parts.
#[test]
fn a_bundle_in_a_reused_slot_keeps_its_parts() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let (bundle, _) = bundle_of_one(&first);
        let z = first.uninit::<u64, _>(1).unwrap();
        let free = move |second: &HandleTable| second.free(bundle).unwrap();
        let ((next, y), (), second) = beside(second, free, || {
            // The participant that ends the last lease of a slot can reuse it where no other slot
            // is free.
            drop(first.open_bundle(bundle));
            bundle_of_one(&first)
        });
        assert_eq!(second.read(y).unwrap()[0], 1, "a part is lost");
        second.free(next).unwrap();
        second.free(z).unwrap();
        assert_empty(&second);
    });
}

/// I1: a bundle is freed with its owner and leaves nothing, even if another participant has it open
/// and its slot is reused at once.
#[test]
fn a_bundle_open_elsewhere_is_freed_with_its_owner() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let (bundle, _) = bundle_of_one(&second);
        let y = second.uninit::<u64, _>(1).unwrap();
        second.detach(y).unwrap();
        let other = thread::spawn(move || drop(second));
        drop(first.open_bundle(bundle));
        let z = first.uninit::<u64, _>(1).unwrap();
        other.join().unwrap();
        first.free(y).unwrap();
        first.free(z).unwrap();
        assert_empty(&first);
    });
}

/// I1: a part is removed while it is being inserted.
#[test]
fn a_removal_beside_an_insertion() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let bundle = first.bundle().unwrap().handle();
        let remove = move |second: &HandleTable| second.open_bundle(bundle).unwrap().remove("a");
        let (inserted, removed, second) = beside(second, remove, || insert(&first, bundle, "a"));
        assert!(inserted);
        match removed {
            Ok(()) => assert_eq!(values(&second, bundle), [0; 0]),
            Err(BundleError::NotFound { .. }) => assert_eq!(values(&second, bundle), [2]),
            Err(error) => panic!("{error}"),
        }
        second.free(bundle).unwrap();
        assert_empty(&second);
    });
}

/// I1, I7: death between any two steps of an insertion into a bundle of another participant, which
/// reads it meanwhile: the part is in the bundle, or gone.
#[test]
fn death_while_inserting() {
    check_deaths(1, |steps| {
        let [survivor, second] = tables(&segment(2));
        let (bundle, _) = bundle_of_one(&survivor);
        let insert_b = move |second: &HandleTable| assert!(insert(second, bundle, "b"));
        let (during, died) = beside_death(&survivor, second, steps, insert_b, || {
            values(&survivor, bundle)
        });
        let after = values(&survivor, bundle);
        assert!(during.len() <= after.len(), "a part is lost");
        assert!(died || after == [1, 2]);
        assert_eq!(survivor.arrays().count(), after.len(), "a part is left");
        survivor.free(bundle).unwrap();
        assert_empty(&survivor);
        died
    });
}

/// I1, I7: death between any two steps of creating, filling and emptying a bundle. Nothing of it is
/// left, and the survivor's array is untouched.
#[test]
fn death_with_a_bundle() {
    check_deaths(1, |steps| {
        let [survivor, second] = tables(&segment(2));
        let x = survivor.from_elem(1, 3u64).unwrap();
        let fill_and_empty = |second: &HandleTable| {
            let (bundle, _) = bundle_of_one(second);
            second.open_bundle(bundle).unwrap().remove("a").unwrap();
        };
        let (_, died) = beside_death(&survivor, second, steps, fill_and_empty, || {
            survivor.reap().unwrap()
        });
        assert_eq!(survivor.read(x).unwrap()[0], 3);
        survivor.free(x).unwrap();
        if died {
            assert_empty(&survivor);
        }
        died
    });
}

/// I1, I7: death between any two steps of freeing a bundle: it is whole, or nothing of it is left.
#[test]
fn death_while_freeing_a_bundle() {
    check_deaths(1, |steps| {
        let [survivor, second] = tables(&segment(2));
        let (bundle, x) = bundle_of_one(&survivor);
        let free = move |second: &HandleTable| second.free(bundle).unwrap();
        let (opened, died) = beside_death(&survivor, second, steps, free, || {
            survivor.open_bundle(bundle).is_ok()
        });
        match survivor.open_bundle(bundle) {
            Ok(_) => {
                assert!(died && opened, "the bundle was freed");
                assert_eq!(values(&survivor, bundle), [1]);
                survivor.free(bundle).unwrap();
            }
            Err(_) => assert!(survivor.read(x).is_err(), "the part outlived its bundle"),
        }
        assert_empty(&survivor);
        died
    });
}

/// I1, I7: a reaper may die at any step. The record of a bundle that is already gone is retired
/// after its parts. So a participant that frees a bundle and finds no record knows that the parts
/// are gone as well.
#[test]
fn death_of_a_reaper_of_a_bundle() {
    check_deaths(1, |steps| {
        let segment = loom_tests::segment(256, 4, 4);
        let [survivor, dead, reaper] = tables(&segment);
        let gone = model::mortal(&segment, 1, u64::MAX, || {
            // Reapers go by slots: the first is for the record, then comes its part, then the
            // bundle.
            let first = dead.uninit::<u64, _>(8).unwrap();
            let x = dead.from_elem(1, 1u64).unwrap();
            let bundle = dead.bundle().unwrap();
            dead.free(first).unwrap();
            bundle.insert("a", x).unwrap();
            model::die();
        });
        assert!(gone.is_none(), "no dead participant to reap");
        let reaped = model::mortal(&segment, 2, steps, || {
            reaper.reap().unwrap();
            // Return the table: this model does not cover leaving.
            reaper
        });
        let (parts, live) = (survivor.arrays().count(), survivor.verify().unwrap().live);
        assert!(
            parts == 0 || live > parts,
            "the record went before its part"
        );
        survivor.reap().unwrap();
        assert_empty(&survivor);
        reaped.is_none()
    });
}

/// I1, I7: a participant dies between removing a part and freeing it. The part is found and freed,
/// even if the participant that inserted it has not given it away yet.
#[test]
fn death_while_removing_a_new_part_leaves_none() {
    check_deaths(1, |steps| {
        let segment = segment(4);
        let [survivor, second, third] = tables(&segment);
        let (ours, y) = (
            survivor.bundle().unwrap(),
            survivor.from_elem(1, 2u64).unwrap(),
        );
        let bundle = ours.handle();
        let other = thread::spawn(move || {
            let died = dies(second, steps, |second| {
                let _ = second.open_bundle(bundle).unwrap().remove("a");
            });
            third.reap().unwrap();
            (died, third)
        });
        ours.insert("a", y).unwrap();
        let (died, third) = other.join().unwrap();
        drop(third);
        survivor.reap().unwrap();
        let left = values(&survivor, bundle).len();
        assert_eq!(survivor.arrays().count(), left, "a part is left");
        survivor.free(bundle).unwrap();
        drop(ours);
        assert_empty(&survivor);
        died
    });
}
