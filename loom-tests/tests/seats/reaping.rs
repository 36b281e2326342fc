//! Reapers that die, and what they leave to the participants after them.

use std::mem::ManuallyDrop;

use loom::thread;
use loom_tests::{check, check_deaths, is_busy, join, segment, tables};
use ndshm::error::LeaseError;
use ndshm::model;

use crate::{assert_gone, is_poisoned};

/// I7: a reaper that dies between any two steps leaves the rest to the next one. Two concurrent
/// reapers reap once.
#[test]
fn death_of_a_reaper() {
    check_deaths(1, |steps| {
        let segment = segment(128, 4, 2);
        let [survivor, dead, reaper] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        // Dies with a write lease and an array of its own.
        let gone = model::mortal(&segment, 1, u64::MAX, || {
            let dead = dead;
            let _own = dead.uninit::<u64, _>(1).unwrap();
            let _x = dead.write(x).unwrap();
            model::die();
        });
        assert!(gone.is_none());
        let mortal = segment.clone();
        let other = thread::spawn(move || {
            model::mortal(&mortal, 2, steps, || {
                reaper.reap().unwrap();
                // Returned, so that it leaves afterwards: it dies in the reap, not while it leaves.
                reaper
            })
            .is_none()
        });
        survivor.reap().unwrap();
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        assert!(is_poisoned(&survivor, x));
        survivor.clear_poison(x).unwrap();
        survivor.write(x).unwrap().fill(1);
        survivor.free(x).unwrap();
        assert_gone(&survivor, 2);
        died
    });
}

/// I1, I6: a participant that finds an array poisoned learns the dead writer's pid, however soon
/// after the reap it looks.
#[test]
fn poison_names_the_dead_writer() {
    check(3, || {
        let segment = segment(64, 3, 2);
        let [first, second] = tables(&segment);
        let x = first.from_elem(1, 0u64).unwrap();
        let third = join(&segment);
        model::mortal(&segment, 1, u64::MAX, || {
            let _held = second.write(x);
            model::die()
        });
        let reaper = thread::spawn(move || {
            third.reap().unwrap();
            third
        });
        match first.write(x).map(drop) {
            Err(LeaseError::Poisoned { pid, .. }) => assert_eq!(pid, std::process::id()),
            refused => assert!(is_busy(&refused), "{refused:?}"),
        }
        let _third = reaper.join().unwrap();
    });
}

/// I1, I6: a slot that a dead participant reserved passes to the next owner after all writes of the
/// dead participant.
#[test]
fn writes_of_the_dead_come_before_the_next_owner() {
    check_deaths(1, |steps| {
        let segment = segment(64, 3, 2);
        let [first, second, third] = tables(&segment);
        let mortal = segment.clone();
        let reaper = thread::spawn(move || {
            let second = ManuallyDrop::new(second);
            let life = model::mortal(&mortal, 1, steps, || second.from_elem(1, 7u64).is_ok());
            third.reap().unwrap();
            (life.is_none(), third)
        });
        if let Ok(x) = first.from_elem(1, 1u64) {
            assert_eq!(first.read(x).unwrap()[0], 1);
        }
        let (died, _third) = reaper.join().unwrap();
        died
    });
}
