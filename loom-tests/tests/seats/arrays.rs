//! Death while allocating, writing, recovering and reading.

use loom::thread;
use loom_tests::{beside, beside_death, check, check_deaths, join, segment, tables};
use ndshm::error::LeaseError;
use ndshm::{HandleTable, model};

use crate::{Vector, assert_gone, is_poisoned, look};

/// I1, I2, I7: death between any two steps of allocating, filling, freeing and leaving, while the
/// survivor allocates. No slot leaks, and none exists twice.
#[test]
fn death_while_allocating() {
    check_deaths(2, |steps| {
        let segment = segment(128, 2, 2);
        let [survivor, second] = tables(&segment);
        let mortal = segment.clone();
        let other = thread::spawn(move || {
            let life = || {
                let x = second.from_elem(1, 1u64).expect("a slot is free");
                second.free(x).unwrap();
                drop(second);
            };
            model::mortal(&mortal, 1, steps, life).is_none()
        });
        let y = survivor.from_elem(1, 2u64).expect("a slot is free");
        let died = other.join().unwrap();
        assert_eq!(survivor.read(y).unwrap()[0], 2);
        survivor.free(y).unwrap();
        assert_gone(&survivor, 2);
        died
    });
}

/// I1, I5, I7: death between any two steps of a write lease. During the lease every other
/// participant is refused. Afterwards the array is whole, or poisoned until a participant clears
/// the poison.
#[test]
fn death_while_writing() {
    check_deaths(2, |steps| {
        let segment = segment(64, 2, 2);
        let [survivor, second] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let mortal = segment.clone();
        let other = thread::spawn(move || {
            // Return the table, so that it stays with the dead: dropped by a living thread, it
            // would leave.
            let life = move || {
                if let Ok(mut x) = second.write(x) {
                    x[0] = 1;
                    // Any operation on a shared word is a place to die between the two writes.
                    let _ = second.segment().is_persistent();
                    x[1] = 1;
                }
                second
            };
            model::mortal(&mortal, 1, steps, life).is_none()
        });
        survivor.reap().unwrap();
        assert_whole_or_refused(&survivor, x);
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        if is_poisoned(&survivor, x) {
            assert!(died, "poisoned by a living participant");
            survivor.clear_poison(x).unwrap();
        }
        survivor.write(x).unwrap().fill(2);
        assert!(look(&survivor, x).unwrap());
        died
    });
}

/// Reads the array, which must be whole unless it is poisoned or has a writer.
fn assert_whole_or_refused(table: &HandleTable, x: Vector) {
    match look(table, x) {
        Ok(whole) => assert!(whole, "half-written, but not poisoned"),
        Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Creates an array of two equal numbers that a participant in seat 1 left half-written. That
/// participant is dead and reaped.
fn half_written(survivor: &HandleTable) -> Vector {
    let x = survivor.from_elem(2, 0u64).unwrap();
    let segment = survivor.segment();
    let dead = join(segment);
    model::mortal(segment, 1, u64::MAX, || {
        let mut half = dead.write(x).unwrap();
        half[0] = 1;
        model::die()
    });
    survivor.reap().unwrap();
    x
}

/// I5, I6: two participants recover an array at once: one after the other, or one is refused. A
/// reader in between finds the array poisoned or whole.
#[test]
fn two_recoveries_exclude_each_other() {
    check(3, || {
        let segment = segment(64, 2, 2);
        let survivor = join(&segment);
        let x = half_written(&survivor);
        let second = join(&segment);
        let mend = move |table: &HandleTable| table.recover(x, |mut view| view.fill(2)).is_ok();
        let look_and_mend = move |second: &HandleTable| {
            if let Ok(whole) = look(second, x) {
                assert!(whole, "half-written, but not poisoned");
            }
            mend(second)
        };
        let (first, then, second) = beside(second, look_and_mend, || mend(&survivor));
        assert!(first || then, "no other participant holds it");
        assert!(look(&second, x).unwrap());
    });
}

/// I1, I7: death between any two steps of a recovery: the array is whole, or still poisoned.
#[test]
fn death_while_recovering() {
    check_deaths(2, |steps| {
        let segment = segment(64, 2, 2);
        let survivor = join(&segment);
        let x = half_written(&survivor);
        let second = join(&segment);
        let recover = move |second: &HandleTable| {
            second.recover(x, |mut view| view.fill(2)).unwrap();
        };
        let ((), died) = beside_death(&survivor, second, steps, recover, || {
            assert_whole_or_refused(&survivor, x);
        });
        assert!(died || !is_poisoned(&survivor, x));
        survivor.recover(x, |mut view| view.fill(3)).unwrap();
        assert!(look(&survivor, x).unwrap());
        died
    });
}

/// I1, I7: death between any two steps of a read lease of an array that the survivor frees. The
/// slot is FREE once the dead participant is reaped.
#[test]
fn death_while_reading() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(64, 2, 2));
        let x = survivor.from_elem(2, 0u64).unwrap();
        let read = move |second: &HandleTable| drop(look(second, x));
        let ((), died) = beside_death(&survivor, second, steps, read, || {
            survivor.free(x).unwrap();
        });
        assert_gone(&survivor, 1);
        died
    });
}
