//! Owners: of several participants that adopt an array, one gets it, and neither a reaper nor a
//! death takes it from that one or gives it to two.

use loom::thread;
use loom_tests::{assert_all_free, beside, beside_death, check, check_deaths, join, segment};
use ndshm::error::LeaseError;
use ndshm::{HandleTable, Segment, model};

use crate::{Vector, assert_gone};

/// Arrays of one number that the segment of a model holds.
const SLOTS: usize = 1;

/// Creates a segment with room for [`SLOTS`] arrays.
fn small(seats: u32) -> Segment {
    segment(64, seats, 2)
}

fn unowned(table: &HandleTable) -> Vector {
    let x = table.from_elem(1, 7u64).expect("a slot is free");
    table.detach(x).unwrap();
    x
}

/// Creates an array whose owner, in `seat`, is dead and not reaped. A participant that joins later
/// reaps it.
fn of_the_dead(segment: &Segment, seat: usize) -> Vector {
    let dead = join(segment);
    assert_eq!(dead.seat().unwrap(), seat);
    let mut made = None;
    let made_here = &mut made;
    model::mortal(segment, seat, u64::MAX, move || {
        *made_here = Some(dead.from_elem(1, 7u64).expect("a slot is free"));
        model::die()
    });
    made.expect("it was made before the death")
}

fn adopts(table: &HandleTable, x: Vector) -> bool {
    match table.adopt(x) {
        Ok(()) => true,
        Err(LeaseError::Owned { .. } | LeaseError::Stale { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// I3: two participants adopt an array that nobody owns: one of them does. It leaves, and the array
/// with it.
#[test]
fn one_of_two_adopts_what_nobody_owns() {
    check(3, || {
        let segment = small(2);
        let survivor = join(&segment);
        let x = unowned(&survivor);
        let second = join(&segment);
        let adopt = move |table: &HandleTable| adopts(table, x);
        let (ours, theirs, second) = beside(second, adopt, || adopts(&survivor, x));
        assert!(ours != theirs, "adopted by {}", usize::from(ours) * 2);
        drop(second);
        assert_eq!(survivor.read(x).is_ok(), ours, "it goes with its owner");
        if ours {
            survivor.free(x).unwrap();
        }
        assert_gone(&survivor, SLOTS);
    });
}

/// I3: an array passes from a participant to the next one in the same seat. A third one that asks for
/// the owner is told the two in their order, and nobody in between.
#[test]
fn owners_of_one_seat_are_told_in_their_order() {
    check(2, || {
        let segment = small(2);
        let survivor = join(&segment);
        let first = join(&segment);
        let x = first.from_elem(1, 7u64).expect("a slot is free");
        let before = first.peer().unwrap();
        let pass = move || {
            first.detach(x).unwrap();
            let segment = first.segment().clone();
            drop(first);
            let next = join(&segment);
            assert!(adopts(&next, x));
            next
        };
        let passing = thread::spawn(pass);
        let told = [(); 2].map(|()| survivor.owner(x).expect("it is live"));
        let next = passing.join().unwrap();
        let after = next.peer().unwrap();
        assert_ne!(before, after);
        let place = |owner| match owner {
            Some(owner) if owner == before => 0,
            None => 1,
            Some(owner) if owner == after => 2,
            Some(owner) => panic!("{owner:?} never was its owner"),
        };
        assert!(told.map(place).is_sorted(), "{told:?}");
        assert_eq!(survivor.owner(x).unwrap(), Some(after));
        drop(next);
        assert_gone(&survivor, SLOTS);
    });
}

/// I3, I7: two participants adopt the array of a dead one: one of them does.
#[test]
fn one_of_two_adopts_what_a_dead_participant_owns() {
    check(3, || {
        let segment = small(4);
        let survivor = join(&segment);
        let second = join(&segment);
        let x = of_the_dead(&segment, 2);
        let adopt = move |table: &HandleTable| adopts(table, x);
        let (ours, theirs, second) = beside(second, adopt, || adopts(&survivor, x));
        assert!(ours != theirs, "adopted twice, or not at all");
        drop(second);
        survivor.reap().unwrap();
        assert_eq!(survivor.read(x).is_ok(), ours, "it goes with its owner");
        if ours {
            survivor.free(x).unwrap();
        }
        assert_gone(&survivor, SLOTS);
    });
}

/// I3, I7: a participant adopts the array of a dead one beside a reaper: the adopter has it, or it
/// is freed.
#[test]
fn an_adopter_or_the_reaper_gets_an_array() {
    check(3, || {
        let segment = small(4);
        let survivor = join(&segment);
        let second = join(&segment);
        let x = of_the_dead(&segment, 2);
        let adopt = move |table: &HandleTable| adopts(table, x);
        let (report, theirs, second) = beside(second, adopt, || survivor.reap().expect("a reap"));
        let later = survivor.reap().unwrap();
        let freed = report.arrays_freed + later.arrays_freed;
        assert_eq!(freed, usize::from(!theirs), "by both, or by none");
        assert_eq!(second.read(x).is_ok(), theirs);
        if theirs {
            second.free(x).unwrap();
        }
        drop(second);
        assert_gone(&survivor, SLOTS);
    });
}

/// I3, I4: an array is freed while another participant adopts it: it is gone, and its slot is free.
#[test]
fn an_array_freed_beside_an_adopter_is_gone() {
    check(3, || {
        let segment = small(2);
        let survivor = join(&segment);
        let x = unowned(&survivor);
        let second = join(&segment);
        let adopt = move |table: &HandleTable| adopts(table, x);
        let ((), _, second) = beside(second, adopt, || survivor.free(x).unwrap());
        assert!(survivor.read(x).is_err());
        drop(second);
        assert_gone(&survivor, SLOTS);
    });
}

/// I1, I3, I7: death between any two steps of adopting an array that nobody owns: the dead
/// participant had it and it is freed, or the survivor adopts it.
#[test]
fn death_while_adopting() {
    check_deaths(2, |steps| {
        let segment = small(2);
        let survivor = join(&segment);
        let x = unowned(&survivor);
        let second = join(&segment);
        let adopt = move |table: &HandleTable| _ = adopts(table, x);
        let (ours, died) = beside_death(&survivor, second, steps, adopt, || adopts(&survivor, x));
        let later = adopts(&survivor, x);
        assert!(!(ours && later), "adopted twice");
        assert_eq!(survivor.read(x).is_ok(), ours || later);
        survivor.free(x).ok();
        assert_gone(&survivor, SLOTS);
        died
    });
}

/// I1, I3, I7: death between any two steps of adopting the array of another dead participant: the
/// survivor adopts it from either.
#[test]
fn death_while_adopting_from_the_dead() {
    check_deaths(2, |steps| {
        let segment = small(4);
        let survivor = join(&segment);
        let second = join(&segment);
        let x = of_the_dead(&segment, 2);
        let other = loom::thread::spawn(move || {
            loom_tests::dies(second, steps, |table| _ = adopts(table, x))
        });
        let early = adopts(&survivor, x);
        let died = other.join().unwrap();
        let late = adopts(&survivor, x);
        assert!(!(early && late), "adopted twice");
        assert!(!died || early || late, "a dead participant holds its lock");
        survivor.reap().unwrap();
        assert!(survivor.read(x).is_ok() || !died, "reaped from its adopter");
        survivor.free(x).ok();
        survivor.reap().unwrap();
        assert_all_free(&survivor, SLOTS);
        died
    });
}
