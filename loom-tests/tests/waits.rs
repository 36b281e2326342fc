//! Rounds without a pool: participants that wait for a round to be opened, and for its end.
#![cfg(all(loom, not(shuttle)))]

use core::time::Duration;

use loom::thread;
use loom_tests::{check, check_deaths, segment, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, PartitionError, RoundError};
use ndshm::partition::Entered;
use ndshm::{HandleTable, Partition, PartitionHandle, Segment, Write, model};

type Group = Write<u64, Ix1>;

const PATIENCE: Duration = Duration::MAX;

/// Creates a segment with room for a vector and the words of its partition.
fn room_for_tiles(seats: u32) -> Segment {
    segment(576, seats, 4)
}

/// Adds one to the first element of each tile that can be claimed. Returns their number.
fn work(part: &mut ndshm::RoundMember<'_, '_, Group>) -> usize {
    let mut done = 0;
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views()[0] += 1;
        done += 1;
    }
    done
}

/// Waits for the round after `last`, takes part in it, and leaves. Returns the number of its tiles
/// that were run here, or `None` if there was nothing to do.
fn next_round(tiles: &Partition<'_, Group>, last: u64) -> Option<usize> {
    match tiles.enter_next(last, PATIENCE).unwrap() {
        Entered::Member(mut part) => {
            assert_eq!(part.round(), last + 1);
            Some(work(&mut part))
        }
        Entered::Over { round } => {
            assert_eq!(round, last + 1);
            None
        }
        _ => panic!("the partition is live"),
    }
}

/// Opens a round, runs the tiles that are left, and ends it.
fn run_round(tiles: &Partition<'_, Group>) -> Result<usize, RoundError> {
    let round = tiles.begin()?;
    let done = tiles.enter()?.map_or(0, |mut part| work(&mut part));
    round.finish(PATIENCE)?;
    Ok(done)
}

/// I6, I7: a participant that sleeps until a round opens, or is about to, is woken, and so is one
/// that waits for its end. When the round is over, the writes to its tiles happen before, and its
/// arrays can be leased.
#[test]
fn sleepers_are_woken_by_the_opening_and_by_the_end() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles(2));
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name).unwrap();
            let ran = next_round(&tiles, 0);
            tiles.wait_finished(1, PATIENCE).unwrap();
            drop(model::access(&second, x, 0..2, false));
            assert_eq!(second.read(x).unwrap().to_vec(), [1, 0]);
            drop(tiles);
            (ran, second)
        });
        let mine = run_round(&tiles).unwrap();
        let (theirs, _second) = other.join().unwrap();
        assert_eq!(mine + theirs.unwrap_or(0), 1, "the tile is claimed once");
    });
}

/// I7: the owner frees the partition while a participant opens it, and waits for a round that will
/// not come. The participant is told that nothing is left to do.
#[test]
fn a_free_wakes_those_who_wait_for_a_round() {
    check(2, || {
        let [first, second] = tables(&room_for_tiles(2));
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let other = thread::spawn(move || {
            match second.open_partition(name) {
                Ok(tiles) => {
                    let entered = tiles.enter_next(0, PATIENCE).unwrap();
                    assert!(matches!(entered, Entered::Freed), "{entered:?}");
                }
                Err(error) => assert!(matches!(error, PartitionError::Freed { .. }), "{error}"),
            }
            second
        });
        drop(tiles);
        let _second = other.join().unwrap();
    });
}

/// I6: a participant that waits for the end of a round is told the torn tile, whatever it has read
/// of the claims before.
#[test]
fn those_who_wait_for_an_end_are_told_the_torn_tiles() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles(2));
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name).unwrap();
            let waited = tiles.wait_finished(1, PATIENCE);
            drop(tiles);
            (waited, second)
        });
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        part.claim().unwrap().unwrap().tear();
        drop(part);
        assert!(round.finish(PATIENCE).is_err());
        let (waited, _second) = other.join().unwrap();
        match waited {
            Err(RoundError::Torn { tiles, .. }) => assert_eq!(tiles, [0]),
            other => panic!("{other:?}"),
        }
    });
}

/// I1, I7: the opener dies at any step. Those who wait for its round are told its end, and the next
/// round is whole.
#[test]
fn death_of_an_opener_ends_the_wait() {
    check_deaths(1, |steps| {
        let segment = room_for_tiles(4);
        let [survivor, mortal, reaper] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 2).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let other = thread::spawn(move || {
            let open = move |table: &HandleTable| {
                let tiles = table.open_partition(name).unwrap();
                run_round(&tiles).unwrap();
            };
            let died = loom_tests::dies(mortal, steps, open);
            if died {
                reaper.reap().unwrap();
                model::time_out();
            }
            let tiles = reaper.open_partition(name).unwrap();
            if tiles.progress().unwrap().round == 0 {
                // It may have died between the leases and the opening.
                let _ = reaper.clear_poison(x);
                run_round(&tiles).unwrap();
            }
            drop(tiles);
            (died, reaper)
        });
        let outcome = tiles.wait_finished(1, PATIENCE);
        let is_whole = outcome.is_ok();
        let (died, _reaper) = other.join().unwrap();
        match outcome {
            Ok(()) => {}
            Err(RoundError::GivenUp { round: 1 }) => assert!(died, "given up without a death"),
            Err(error) => panic!("{error}"),
        }
        match survivor.read(x) {
            Ok(x) => assert!(!is_whole || x[0] == 1),
            Err(LeaseError::Poisoned { .. }) => assert!(died && !is_whole),
            Err(error) => panic!("{error}"),
        }
        let _ = survivor.clear_poison(x);
        run_round(&tiles).unwrap();
        tiles.wait_finished(2, PATIENCE).unwrap();
        died
    });
}
