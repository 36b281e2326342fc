//! Rounds whose opener or participant dies.

use loom::thread;
use loom_tests::{beside_death, check, check_deaths, is_busy, segment, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, RoundError};
use ndshm::{HandleTable, Partition, PartitionHandle, Segment, Write, model};

use crate::is_poisoned;

type Group = Write<u64, Ix1>;

/// Creates a segment with room for a vector and the words of its partition.
fn room_for_tiles(seats: u32) -> Segment {
    segment(576, seats, 4)
}

/// Writes the first element of the tiles that can be claimed in the round.
fn fill_all(tiles: &Partition<'_, Group>, value: u64) {
    let mut part = tiles.enter().unwrap().expect("the round runs");
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views()[0] = value;
    }
}

/// Writes the first element of one tile, if a round runs that has one.
fn fill_one(tiles: &Partition<'_, Group>) {
    if let Some(mut part) = tiles.enter().unwrap()
        && let Some(mut tile) = part.claim().unwrap()
    {
        tile.views()[0] = 1;
    }
}

/// I1, I5, I7: death of a participant of a round. The round ends, its tiles are done or torn, and
/// torn tiles poison the array before any other participant can lease it.
#[test]
fn death_in_a_tile() {
    check_deaths(1, |steps| {
        let segment = room_for_tiles(2);
        let [survivor, second] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 1).unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let fill = move |second: &HandleTable| {
            fill_one(&second.open_partition(name).unwrap());
        };
        let (_, died) = beside_death(&survivor, second, steps, fill, || survivor.reap().unwrap());
        fill_all(&tiles, 1);
        match round.try_finish().expect("no tile is held") {
            Ok(()) => assert_eq!(survivor.read(x).unwrap().to_vec(), [1, 1]),
            Err(RoundError::Torn { rows, .. }) => {
                assert!(died && rows.len() == 1 && rows[0] == (0..1), "{rows:?}");
                assert!(is_poisoned(&survivor, x));
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
    check_deaths(1, |steps| {
        let segment = room_for_tiles(2);
        let [survivor, second] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 1).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let open = move |second: &HandleTable| {
            let tiles = second.open_partition(name).unwrap();
            drop(tiles.begin());
        };
        let ((), died) = beside_death(&survivor, second, steps, open, || fill_one(&tiles));
        match survivor.write(x) {
            Ok(_) => {}
            Err(LeaseError::Poisoned { .. }) => {
                assert!(died, "poisoned by a living participant");
                survivor.clear_poison(x).unwrap();
            }
            refused => panic!("{refused:?}"),
        }
        let round = tiles.begin().unwrap();
        fill_all(&tiles, 2);
        round.try_finish().expect("no tile is held").unwrap();
        assert_eq!(survivor.read(x).unwrap().to_vec(), [2, 2]);
        died
    });
}

/// I5: a round that is given up while a participant holds a tile has no opener. Readers and writers
/// of the whole array are refused as long as the participant is in it.
#[test]
fn a_round_without_an_opener_refuses_leases() {
    check(2, || {
        let segment = room_for_tiles(2);
        let [first, second] = tables(&segment);
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

/// I5, I6: a third participant reaps the holder of a tile, and the opener may end the round at any
/// moment. The opener then finds the array poisoned.
#[test]
fn torn_rows_are_poisoned_before_the_round_ends() {
    check(2, || {
        let segment = room_for_tiles(4);
        let [opener, dead, reaper] = tables(&segment);
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
            assert!(is_poisoned(&opener, x));
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
