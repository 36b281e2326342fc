//! Joining and leaving.

use loom::thread;
use loom_tests::{assert_all_free, check, check_deaths, join, segment};
use ndshm::{HandleTable, Peer, bytemuck, model};

use crate::assert_gone;

/// I1: two participants that join at once get different seats; a third is refused.
#[test]
fn two_joins_take_different_seats() {
    check(3, || {
        let segment = segment(64, 2, 2);
        let other = {
            let segment = segment.clone();
            thread::spawn(move || join(&segment))
        };
        let first = join(&segment);
        let second = other.join().unwrap();
        assert_ne!(first.seat().unwrap(), second.seat().unwrap());
        assert!(HandleTable::join(&segment).is_err());
    });
}

/// I1, I2: a participant leaves while another joins: the seat changes hands whole, or the newcomer
/// takes another. All arrays of the leaver are free.
#[test]
fn a_join_beside_a_leave_takes_a_whole_seat() {
    check(3, || {
        let segment = segment(64, 2, 2);
        let first = join(&segment);
        first.uninit::<u64, _>(1).unwrap();
        let other = {
            let segment = segment.clone();
            thread::spawn(move || join(&segment))
        };
        drop(first);
        let newcomer = other.join().unwrap();
        assert_all_free(&newcomer, 1);
        let second = join(&segment);
        assert_ne!(newcomer.seat().unwrap(), second.seat().unwrap());
    });
}

/// A check beside a participant that joins, allocates, writes, leaves and joins again reports no
/// damage.
#[test]
fn verify_beside_joins_and_leaves_reports_no_damage() {
    check(2, || {
        let segment = segment(64, 2, 2);
        let survivor = join(&segment);
        let other = {
            let segment = segment.clone();
            thread::spawn(move || {
                let second = join(&segment);
                let x = second.uninit::<u64, _>(1).unwrap();
                drop(second.write(x).unwrap());
            })
        };
        let found = survivor.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        other.join().unwrap();
        let found = survivor.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        assert_eq!(
            (found.seats, found.free, found.in_transit),
            (1, found.slots, 0)
        );
    });
}

/// I7: a participant whose word is seen is alive until it leaves, also for threads that have not
/// seen its lock before.
#[test]
fn a_participant_that_is_seen_is_alive() {
    check(3, || {
        let segment = segment(64, 2, 2);
        let survivor = join(&segment);
        let other = {
            let segment = segment.clone();
            thread::spawn(move || join(&segment))
        };
        // Seat 1 in its first epoch.
        let newcomer: Peer = bytemuck::cast([1_u64, 1]);
        if survivor.verify().unwrap().seats == 2 {
            assert!(survivor.is_alive(newcomer).unwrap());
        }
        let other = other.join().unwrap();
        assert_eq!(other.peer().unwrap(), newcomer);
        assert!(survivor.is_alive(newcomer).unwrap());
        drop(other);
        assert!(!survivor.is_alive(newcomer).unwrap());
    });
}

/// I1, I7: death while joining, and while leaving. The seat can still be taken, also while the
/// survivor reaps.
#[test]
fn death_while_joining_or_leaving() {
    check_deaths(3, |steps| {
        let segment = segment(64, 2, 2);
        let survivor = join(&segment);
        let mortal = segment.clone();
        let other = thread::spawn(move || {
            model::mortal(&mortal, 1, steps, || drop(join(&mortal))).is_none()
        });
        survivor.reap().unwrap();
        let died = other.join().unwrap();
        assert_gone(&survivor, 1);
        died
    });
}
