//! Seats: joining, leaving, and reaping a participant that died at any instruction.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{assert_all_free, check, check_deaths, dies, is_busy, options, segment};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, RoundError};
use ndshm::{Handle, HandleTable, PartitionHandle, Segment, Write, model};

type Vector = Handle<u64, Ix1>;

/// Joins as the survivor, in seat 0, and as the participant that is to die, in seat 1.
fn two_participants(segment: &Segment) -> (HandleTable, HandleTable) {
    (join(segment), join(segment))
}

fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).expect("a seat is free")
}

/// Reaps, and asserts that seat 1 and its memory can be taken again.
fn assert_gone(survivor: &HandleTable, free: usize) {
    survivor.reap().unwrap();
    let found = survivor.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.seats, found.in_transit, found.readers), (1, 0, 0));
    let again = join(survivor.segment());
    assert_eq!(again.seat().unwrap(), 1, "its seat can be taken");
    assert_all_free(&again, free);
}

/// I1: two participants that join at once get different seats; a third is refused.
#[test]
fn two_that_join() {
    check("two_that_join", 3, || {
        let segment = segment(64, 2);
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
fn one_that_joins_while_one_leaves() {
    check("one_that_joins_while_one_leaves", 3, || {
        let segment = segment(64, 2);
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
fn a_check_beside_one_that_comes_and_goes() {
    check("a_check_beside_one_that_comes_and_goes", 2, || {
        let segment = segment(64, 2);
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

/// I1, I7: death while joining, and while leaving. The seat can still be taken, also while the
/// survivor reaps.
#[test]
fn death_at_the_door() {
    check_deaths("death_at_the_door", 3, |steps| {
        let segment = segment(64, 2);
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

/// I1, I2, I7: death between any two steps of allocating, filling, freeing and leaving, while the
/// survivor allocates. No slot leaks, and none exists twice.
#[test]
fn death_while_allocating() {
    check_deaths("death_while_allocating", 2, |steps| {
        let segment = segment(128, 2);
        let (survivor, second) = two_participants(&segment);
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

/// Reads an array of two equal numbers, one of which a dead writer may have changed. Returns `true`
/// if they are equal.
fn look(table: &HandleTable, x: Vector) -> Result<bool, LeaseError> {
    table.read(x).map(|x| x[0] == x[1])
}

/// I1, I5, I7: death between any two steps of a write lease. During the lease every other
/// participant is refused. Afterwards the array is whole, or poisoned until a participant clears
/// the poison.
#[test]
fn death_while_writing() {
    check_deaths("death_while_writing", 2, |steps| {
        let segment = segment(64, 2);
        let (survivor, second) = two_participants(&segment);
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
        let during = look(&survivor, x);
        match during {
            Ok(whole) => assert!(whole, "half-written, but not poisoned"),
            Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        match look(&survivor, x) {
            Ok(whole) => assert!(whole, "half-written, but not poisoned"),
            Err(LeaseError::Poisoned { .. }) => {
                assert!(died, "poisoned by a living participant");
                survivor.clear_poison(x).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        survivor.write(x).unwrap().fill(2);
        assert!(look(&survivor, x).unwrap());
        died
    });
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
fn recovery_beside_recovery() {
    check("recovery_beside_recovery", 3, || {
        let segment = segment(64, 2);
        let survivor = join(&segment);
        let x = half_written(&survivor);
        let second = join(&segment);
        let mend = move |table: &HandleTable| table.recover(x, |mut view| view.fill(2)).is_ok();
        let other = thread::spawn(move || {
            if let Ok(whole) = look(&second, x) {
                assert!(whole, "half-written, but not poisoned");
            }
            (mend(&second), second)
        });
        let first = mend(&survivor);
        let (then, second) = other.join().unwrap();
        assert!(first || then, "no other participant holds it");
        assert!(look(&second, x).unwrap());
    });
}

/// I1, I7: death between any two steps of a recovery: the array is whole, or still poisoned.
#[test]
fn death_while_recovering() {
    check_deaths("death_while_recovering", 2, |steps| {
        let segment = segment(64, 2);
        let survivor = join(&segment);
        let x = half_written(&survivor);
        let second = join(&segment);
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                second.recover(x, |mut view| view.fill(2)).unwrap();
            })
        });
        match look(&survivor, x) {
            Ok(whole) => assert!(whole, "half-written, but not poisoned"),
            Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        match look(&survivor, x) {
            Ok(whole) => assert!(whole, "half-written, but not poisoned"),
            Err(LeaseError::Poisoned { .. }) => assert!(died),
            Err(error) => panic!("{error}"),
        }
        survivor.recover(x, |mut view| view.fill(3)).unwrap();
        assert!(look(&survivor, x).unwrap());
        died
    });
}

/// I1, I7: death between any two steps of a read lease of an array that the survivor frees. The
/// slot is FREE once the dead participant is reaped.
#[test]
fn death_while_reading() {
    check_deaths("death_while_reading", 2, |steps| {
        let segment = segment(64, 2);
        let (survivor, second) = two_participants(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                drop(look(second, x));
            })
        });
        survivor.free(x).unwrap();
        let died = other.join().unwrap();
        assert_gone(&survivor, 1);
        died
    });
}

/// Creates a segment with room for a vector and the words of its partition.
fn room_for_tiles(seats: u32) -> Segment {
    let options = options().capacity(576).seats(seats).arrays(4);
    options.in_process().expect("a model's segment")
}

/// I1, I5, I7: death of a participant of a round. The round ends, its tiles are done or torn, and
/// torn tiles poison the array before any other participant can lease it.
#[test]
fn death_in_a_tile() {
    check_deaths("death_in_a_tile", 1, |steps| {
        let segment = room_for_tiles(2);
        let (survivor, second) = two_participants(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                let tiles = second.open_partition(name).unwrap();
                if let Some(mut part) = tiles.enter().unwrap()
                    && let Some(mut tile) = part.claim().unwrap()
                {
                    tile.views()[0] = 1;
                }
                drop(tiles);
            })
        });
        survivor.reap().unwrap();
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        let mut part = tiles.enter().unwrap().expect("the round runs");
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views()[0] = 1;
        }
        drop(part);
        match round.try_finish().expect("no tile is held") {
            Ok(()) => assert_eq!(survivor.read(x).unwrap().to_vec(), [1, 1]),
            Err(RoundError::Torn { rows, .. }) => {
                assert!(died && rows.len() == 1 && rows[0] == (0..1), "{rows:?}");
                assert!(matches!(
                    look(&survivor, x),
                    Err(LeaseError::Poisoned { .. })
                ));
                survivor.clear_poison(x).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        survivor.write(x).unwrap().fill(3);
        died
    });
}

/// I5, I7: death of the opener of a round in which another participant takes part. The array stays
/// closed to all others until that participant has left; then it is poisoned. The next round is
/// whole.
#[test]
fn death_of_an_opener() {
    check_deaths("death_of_an_opener", 1, |steps| {
        let segment = room_for_tiles(2);
        let (survivor, second) = two_participants(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 1).unwrap();
        let name: PartitionHandle<Write<u64, Ix1>> = tiles.handle();
        let other = thread::spawn(move || {
            dies(second, steps, |second| {
                let tiles = second.open_partition(name).unwrap();
                drop(tiles.begin());
                drop(tiles);
            })
        });
        if let Some(mut part) = tiles.enter().unwrap()
            && let Some(mut tile) = part.claim().unwrap()
        {
            tile.views()[0] = 1;
        }
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        match survivor.write(x) {
            Ok(_) => {}
            Err(LeaseError::Poisoned { .. }) => {
                assert!(died, "poisoned by a living participant");
                survivor.clear_poison(x).unwrap();
            }
            refused => panic!("{refused:?}"),
        }
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().expect("the round runs");
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views()[0] = 2;
        }
        drop(part);
        round.try_finish().expect("no tile is held").unwrap();
        assert_eq!(survivor.read(x).unwrap().to_vec(), [2, 2]);
        died
    });
}

/// I5: a round that is given up while a participant holds a tile has no opener. Readers and writers
/// of the whole array are refused as long as the participant is in it.
#[test]
fn an_orphaned_round() {
    check("an_orphaned_round", 2, || {
        let segment = room_for_tiles(2);
        let (first, second) = two_participants(&segment);
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let theirs = second.open_partition(name).unwrap();
        let mut part = theirs.enter().unwrap().expect("the round runs");
        let mut tile = part.claim().unwrap().expect("all tiles are open");
        drop(round);
        assert!(is_busy(&first.write(x)), "a participant is in it");
        assert!(is_busy(&first.read(x)), "a participant writes in it");
        tile.views()[0] = 1;
        drop(tile);
        drop(part);
        drop(theirs);
        // The participant has left the round; now it leaves the table, which races with the reap.
        let other = thread::spawn(move || drop(second));
        first.reap().unwrap();
        first.write(x).unwrap()[0] = 2;
        other.join().unwrap();
    });
}

/// I7: a reaper that dies between any two steps leaves the rest to the next one. Two concurrent
/// reapers reap once.
#[test]
fn death_of_a_reaper() {
    check_deaths("death_of_a_reaper", 1, |steps| {
        let options = options().capacity(128).seats(4).arrays(2);
        let segment = options.in_process().unwrap();
        let (survivor, dead) = two_participants(&segment);
        let reaper = join(&segment);
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
                // Return the table: this model does not cover leaving.
                reaper
            })
            .is_none()
        });
        survivor.reap().unwrap();
        let died = other.join().unwrap();
        survivor.reap().unwrap();
        assert!(matches!(
            look(&survivor, x),
            Err(LeaseError::Poisoned { .. })
        ));
        survivor.clear_poison(x).unwrap();
        survivor.write(x).unwrap().fill(1);
        survivor.free(x).unwrap();
        assert_gone(&survivor, 2);
        died
    });
}

/// I5, I6: a third participant reaps the holder of a tile, and the opener may end the round at any
/// moment. The opener then finds the array poisoned.
#[test]
fn a_reap_beside_the_opener() {
    check("a_reap_beside_the_opener", 2, || {
        let segment = room_for_tiles(4);
        let (opener, dead) = two_participants(&segment);
        let reaper = join(&segment);
        let x = opener.from_elem(2, 0u64).unwrap();
        let tiles = opener.partition(x.write(), Axis(0), 2).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        model::mortal(&segment, 1, u64::MAX, || {
            let dead = dead;
            let tiles = dead.open_partition(name).unwrap();
            let mut part = tiles.enter().unwrap().expect("the round runs");
            let mut tile = part.claim().unwrap().expect("all tiles are open");
            tile.views()[0] = 1;
            model::die();
        });
        let other = thread::spawn(move || {
            reaper.reap().unwrap();
            reaper
        });
        let check_torn = |outcome| {
            assert!(matches!(outcome, Err(RoundError::Torn { .. })));
            let seen = look(&opener, x);
            assert!(matches!(seen, Err(LeaseError::Poisoned { .. })), "{seen:?}");
        };
        match round.try_finish() {
            Ok(outcome) => {
                check_torn(outcome);
                other.join().unwrap();
            }
            Err(round) => {
                other.join().unwrap();
                check_torn(round.try_finish().expect("the tile is torn"));
            }
        }
    });
}

/// Creates a segment with room for a small array, and `seats` seats.
fn room_for(seats: u32) -> Segment {
    let options = options().capacity(64).seats(seats).arrays(2);
    options.in_process().expect("a model's segment")
}

/// I1, I6: a participant that finds an array poisoned learns the dead writer's pid, however soon
/// after the reap it looks.
#[test]
fn poison_tells_by_whom() {
    check("poison_tells_by_whom", 3, || {
        let segment = room_for(3);
        let (first, second) = two_participants(&segment);
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
fn a_reservation_of_the_dead_is_used_again() {
    check_deaths("a_reservation_of_the_dead_is_used_again", 1, |steps| {
        let segment = room_for(3);
        let (first, second) = two_participants(&segment);
        let third = join(&segment);
        let mortal = segment.clone();
        let reaper = thread::spawn(move || {
            let second = core::mem::ManuallyDrop::new(second);
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
