//! Tiles and rounds: several participants write one array at once, each a part of its own.
#![cfg(all(loom, not(shuttle)))]

use loom::thread;
use loom_tests::{check, check_deaths, is_busy, must_race, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, RoundError};
use ndshm::partition::{Claimed, PerTile};
use ndshm::{Handle, HandleTable, Partition, PartitionHandle, Round, Segment, Write, model};

type Vector = Handle<u64, Ix1>;
type Group = Write<u64, Ix1>;

/// Creates a segment with room for a vector (64 bytes, a span of two) and the words of its
/// partition (448 bytes).
fn segment() -> Segment {
    loom_tests::segment(576, 2, 4)
}

/// Joins a segment as two participants, the first of which creates a vector of `length` zeros.
fn two_participants(length: usize) -> ([HandleTable; 2], Vector) {
    let tables: [HandleTable; 2] = tables(&segment());
    let x = tables[0].from_elem(length, 0).expect("there is room");
    (tables, x)
}

/// Divides the vector into tiles of one element.
fn divide(table: &HandleTable, x: Vector) -> Partition<'_, Group> {
    table
        .partition(x.write(), Axis(0), 1)
        .expect("there is room")
}

/// Enters the round, if one runs, and adds one to every element whose tile it can claim. Returns
/// the number of tiles.
fn work(tiles: &Partition<'_, Group>) -> usize {
    let mut done = 0;
    if let Some(mut part) = tiles.enter().expect("the arrays are live") {
        while let Some(mut tile) = part.claim().expect("any bytes are valid numbers") {
            tile.views()[0] += 1;
            done += 1;
        }
    }
    done
}

/// Runs `act` on the partition as another participant, in a thread of its own. Returns its table as
/// well.
fn other<R: 'static>(
    table: HandleTable,
    tiles: &Partition<'_, Group>,
    act: impl FnOnce(&Partition<'_, Group>) -> R + 'static,
) -> thread::JoinHandle<(R, HandleTable)> {
    let name = tiles.handle();
    thread::spawn(move || {
        let tiles = table.open_partition(name).expect("the partition is live");
        let result = act(&tiles);
        drop(tiles);
        (result, table)
    })
}

/// Waits until the round is over.
fn finish(mut round: Round<'_, '_, Group>) -> Result<(), RoundError> {
    loop {
        match round.try_finish() {
            Ok(outcome) => return outcome,
            Err(unfinished) => round = unfinished,
        }
        thread::yield_now();
    }
}

/// I5, I6: two participants write disjoint tiles. Each tile is claimed once, and the participant
/// that ends the round sees all writes of the round. Then the other participant opens a round.
#[test]
fn each_tile_of_a_round_is_claimed_once() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let name: PartitionHandle<Group> = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, work);
        let done = work(&tiles);
        finish(round).unwrap();
        assert_eq!(first.read(x).unwrap().to_vec(), [1, 1]);
        let (others, second) = other.join().unwrap();
        assert_eq!(done + others, 2, "each tile is claimed once");
        // No word was reset, and no claim is left over.
        let again = second.open_partition(name).unwrap();
        let round = again.begin().unwrap();
        assert_eq!((round.number(), work(&tiles)), (2, 2));
        finish(round).unwrap();
        assert_eq!(second.write(x).unwrap().to_vec(), [2, 2]);
    });
}

/// I5, I6: tiles are claimed two at a time, and a participant leaves after one of them. The other
/// runs the rest, each tile once, and the round is whole.
#[test]
fn tiles_of_a_unit_left_half_way_are_claimed_again() {
    check(2, || {
        let ([first, second], x) = two_participants(3);
        let tiles = divide(&first, x);
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, |tiles| {
            let mut ran = 0;
            if let Some(mut part) = tiles.enter().unwrap()
                && let Some(mut tile) = part.claim().unwrap()
            {
                tile.views()[0] += 1;
                ran = 1;
            }
            ran
        });
        let mine = work(&tiles);
        let (others, _second) = other.join().unwrap();
        // The other participant may have left a tile after we looked for one.
        let rest = match round.try_finish() {
            Ok(outcome) => {
                outcome.unwrap();
                0
            }
            Err(round) => {
                let rest = work(&tiles);
                finish(round).unwrap();
                rest
            }
        };
        assert_eq!(mine + others + rest, 3, "each tile is run once");
        assert_eq!(first.read(x).unwrap().to_vec(), [1, 1, 1]);
    });
}

/// I5, I6: the tiles of a unit are counted once, and after the unit was released. While the opener
/// holds a tile of one unit, its round is not over, whatever the other participant has counted.
#[test]
fn a_unit_is_counted_once() {
    check(1, || {
        let ([first, second], x) = two_participants(4);
        let tiles = divide(&first, x);
        let mut round = tiles.begin().unwrap();
        let other = other(second, &tiles, work);
        let mut part = tiles.enter_at(1, 2).unwrap().expect("the round runs");
        let mut done = 0;
        while let Some(mut tile) = part.claim().unwrap() {
            round = round.try_finish().expect_err("a tile is held");
            tile.views()[0] += 1;
            done += 1;
        }
        drop(part);
        finish(round).unwrap();
        assert_eq!(first.read(x).unwrap().to_vec(), [1; 4]);
        let (others, _second) = other.join().unwrap();
        assert_eq!(done + others, 4, "each tile is run once");
    });
}

/// I5, I6: two participants claim given tiles, in opposite orders, among tiles that are claimed two
/// at a time. Each tile is run once; a tile that is refused is held, or done by the other one; and
/// the tiles that they give up in between are left to claim.
#[test]
fn given_tiles_are_claimed_once() {
    fn run(tiles: &Partition<'_, Group>, order: [usize; 2]) -> usize {
        let mut done = 0;
        if let Some(mut part) = tiles.enter().unwrap() {
            for index in order {
                match part.claim_at(index).unwrap() {
                    Claimed::Tile(mut tile) => {
                        tile.views()[0] += 1;
                        done += 1;
                    }
                    Claimed::Held { .. } | Claimed::Done | Claimed::Over => {}
                    other => panic!("{other:?}"),
                }
            }
            while let Some(mut tile) = part.claim().unwrap() {
                tile.views()[0] += 1;
                done += 1;
            }
        }
        done
    }
    check(1, || {
        let ([first, second], x) = two_participants(3);
        let tiles = divide(&first, x);
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, |tiles| run(tiles, [2, 1]));
        let mine = run(&tiles, [0, 2]);
        let (others, _second) = other.join().unwrap();
        let rest = work(&tiles);
        finish(round).unwrap();
        assert_eq!(mine + others + rest, 3, "each tile is run once");
        assert_eq!(first.read(x).unwrap().to_vec(), [1, 1, 1]);
    });
}

/// I5, I6: each tile has a row of a second array beside its own part. Nobody else can lease that
/// array during the round, and the end of the round sees all rows.
#[test]
fn rows_of_tiles_are_written_in_the_round() {
    type Pair = (Write<u64, Ix1>, PerTile<u64, Ix1>);
    fn sum(tiles: &Partition<'_, Pair>) {
        if let Some(mut part) = tiles.enter().unwrap() {
            while let Some(mut tile) = part.claim().unwrap() {
                let (mut x, mut row) = tile.views();
                x[0] += 1;
                row.fill(x.sum() + 10);
            }
        }
    }
    check(1, || {
        let [first, second] = tables(&loom_tests::segment(1024, 2, 4));
        let [x, y] = [(); 2].map(|()| first.from_elem(2, 0u64).unwrap());
        let tiles = first
            .partition((x.write(), y.per_tile()), Axis(0), 1)
            .unwrap();
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name).unwrap();
            sum(&tiles);
            let read = second.read(y).map(|y| y.to_vec());
            drop(tiles);
            (read, second)
        });
        sum(&tiles);
        round.finish(core::time::Duration::MAX).unwrap();
        let (read, _second) = other.join().unwrap();
        assert!(is_busy(&read) || read.unwrap() == [11, 11]);
        assert_eq!(first.read(y).unwrap().to_vec(), [11, 11]);
    });
}

/// I1, I5, I7: a participant dies among tiles that are claimed two at a time. The tiles that it had
/// not run are torn, and those that it had run are whole.
#[test]
fn death_in_a_unit_tears_only_tiles_not_run() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(3);
        let tiles = divide(&first, x);
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let (of, seat) = (first.segment().clone(), second.seat().unwrap());
        let other = thread::spawn(move || {
            model::mortal(&of, seat, steps, move || {
                let tiles = second.open_partition(name).unwrap();
                let ran = work(&tiles);
                drop(tiles);
                (ran, second)
            })
        });
        let mine = work(&tiles);
        let others = other.join().unwrap();
        first.reap().unwrap();
        let mut left = Vec::new();
        match round.try_finish() {
            Ok(Ok(())) => {}
            Ok(Err(RoundError::Torn { tiles, .. })) => left = tiles,
            Ok(Err(other)) => panic!("{other}"),
            Err(round) => {
                // It died after it had entered, and before it claimed the open tiles.
                work(&tiles);
                finish(round).unwrap();
            }
        }
        if let Some((ran, _)) = &others {
            assert!(left.is_empty(), "torn without a death");
            assert!(mine + ran <= 3, "each tile is run once");
        }
        let _ = first.clear_poison(x);
        for (at, &ran) in first.read(x).unwrap().iter().enumerate() {
            assert!(
                ran == 1 || left.contains(&at) && ran <= 1,
                "tile {at} was run {ran} times"
            );
        }
        others.is_none()
    });
}

/// I5, I6: a late participant finds the round over or running, and gets no tile of it once the
/// arrays have another owner.
#[test]
fn a_late_participant_gets_no_tile_of_a_finished_round() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, work);
        let done = work(&tiles);
        let unfinished = match round.try_finish() {
            Ok(outcome) => {
                outcome.unwrap();
                match first.write(x) {
                    Ok(mut x) => x[1] = 10,
                    // The other participant is still in the round, without a tile.
                    refused => assert!(is_busy(&refused), "{refused:?}"),
                }
                None
            }
            Err(round) => Some(round),
        };
        let (others, _second) = other.join().unwrap();
        assert_eq!(done + others, 1, "a tile is claimed once");
        if let Some(round) = unfinished {
            finish(round).unwrap();
        }
        let x = first.write(x).unwrap();
        assert!(matches!(x.to_vec()[..], [1, 0 | 10]));
    });
}

/// I1, I5: two participants open the next round at once: one succeeds, and its round is whole.
#[test]
fn two_openers_run_whole_rounds() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let run = |tiles: &Partition<'_, Group>| match tiles.begin() {
            Ok(round) => {
                let mine = work(tiles);
                finish(round).unwrap();
                Some(mine)
            }
            Err(RoundError::Running { .. } | RoundError::Lease(_)) => None,
            Err(error) => panic!("{error}"),
        };
        let other = other(second, &tiles, run);
        let ran = run(&tiles);
        let (others, _second) = other.join().unwrap();
        let rounds = ran.iter().chain(&others).count() as u64;
        assert!(rounds >= 1, "both were refused");
        assert_eq!(first.read(x).unwrap().to_vec(), [rounds, 0]);
    });
}

/// I5: a round is given up while a participant may hold a tile. Readers and writers of the whole
/// array get it only after that participant has left.
#[test]
fn a_round_given_up_stays_closed_until_all_have_left() {
    check(3, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, work);
        drop(round);
        let seen = first.read(x).map(|x| x.sum());
        assert!(seen.is_ok() || is_busy(&seen), "{seen:?}");
        match first.write(x) {
            Ok(mut x) => x[0] = 10,
            refused => assert!(is_busy(&refused), "{refused:?}"),
        }
        let _second = other.join().unwrap();
        first.write(x).unwrap()[1] = 10;
        // Tiles that the last round left open are claimed in the next one.
        let round = tiles.begin().unwrap();
        assert_eq!(work(&tiles), 2);
        finish(round).unwrap();
    });
}

/// I4, I5: the array is freed while a participant may hold a tile of it. Its bytes go to the next
/// array only after the round and the participant are gone, and then they do.
#[test]
fn free_during_a_round() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let name = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            let tiles = second.open_partition(name);
            if let Ok(tiles) = &tiles
                && let Ok(Some(mut part)) = tiles.enter()
                && let Ok(Some(mut tile)) = part.claim()
            {
                tile.views()[0] += 1;
            }
            drop(tiles);
            second
        });
        first.free(x).unwrap();
        drop(round);
        // One slot of this class is free; a second array can only reuse x's slot.
        let y = first.from_elem(2, 0u64).unwrap();
        let z = first.from_elem(2, 5u64);
        let _second = other.join().unwrap();
        if let Ok(z) = z {
            assert_eq!(first.read(z).unwrap().to_vec(), [5, 5]);
            first.free(z).unwrap();
        }
        first.uninit::<u64, _>(2).expect("nothing leaks");
        assert_eq!(first.read(y).unwrap().to_vec(), [0, 0]);
    });
}

/// The models detect an overlap: a second access to the rows of a held tile is refused.
#[test]
fn an_overlap_is_refused() {
    let places = ["part.claim()", "model::access"];
    must_race(2, include_str!("tiles.rs"), places, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let _round = tiles.begin().unwrap();
        let other = other(second, &tiles, work);
        // Access the rows without a claim.
        drop(model::access(&first, x, 0..1, true));
        other.join().unwrap();
    });
}

/// I5: a participant that enters while a round is being opened finds it closed, or open with its
/// arrays.
#[test]
fn an_open_round_has_closed_its_arrays() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let other = other(second, &tiles, |tiles| {
            let entered = tiles.enter();
            assert!(entered.is_ok(), "{:?}", entered.err());
        });
        let round = tiles.begin().unwrap();
        let _second = other.join().unwrap();
        assert_eq!(work(&tiles), 2);
        finish(round).unwrap();
    });
}

/// I6: the participant that ends a round sees everything that was done in it, also by participants
/// that have not left it.
fn an_end_while_another_is_still_in(torn: bool) {
    let ([first, second], x) = two_participants(2);
    let tiles = divide(&first, x);
    let name = tiles.handle();
    let round = tiles.begin().unwrap();
    let other = thread::spawn(move || {
        let tiles = second.open_partition(name).unwrap();
        if let Some(mut part) = tiles.enter().unwrap() {
            while let Some(mut tile) = part.claim().unwrap() {
                tile.views()[0] += 1;
                if torn {
                    tile.tear();
                    break;
                }
            }
            // Stay in the round. Without a torn tile, those that were run are counted.
            core::mem::forget(part);
        }
        core::mem::forget(tiles);
        second
    });
    if let Some(mut part) = tiles.enter().unwrap()
        && torn
        && let Some(tile) = part.claim().unwrap()
    {
        tile.tear();
    }
    work(&tiles);
    let outcome = finish(round);
    assert_eq!(outcome.is_err(), torn, "{outcome:?}");
    if torn {
        first.clear_poison(x).unwrap();
    }
    let sum = first.read(x).unwrap().sum();
    assert!(if torn { sum <= 2 } else { sum == 2 });
    let _second = other.join().unwrap();
}

#[test]
fn the_end_of_a_round_sees_all_its_writes() {
    check(1, || an_end_while_another_is_still_in(false));
}

#[test]
fn the_end_of_a_torn_round_sees_all_its_writes() {
    check(1, || an_end_while_another_is_still_in(true));
}

/// I5, I6: a participant forgets its tile and leaves while the opener ends the round. The round is
/// torn, and no later lease gets the array as if it were whole.
#[test]
fn a_forgotten_tile_is_torn() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let round = tiles.begin().unwrap();
        let other = other(second, &tiles, |tiles| {
            let mut forgotten = false;
            if let Ok(Some(mut part)) = tiles.enter()
                && let Some(tile) = part.claim().unwrap()
            {
                core::mem::forget(tile);
                forgotten = true;
            }
            forgotten
        });
        work(&tiles);
        let torn = finish(round).is_err();
        let written = first.write(x).map(drop);
        assert_eq!(matches!(written, Err(LeaseError::Poisoned { .. })), torn);
        let (forgotten, _second) = other.join().unwrap();
        assert_eq!(forgotten, torn);
    });
}

/// I5: a participant enters a round while its opener gives it up and opens a round on another
/// partition of the same array. The participant is in neither, or alone in its tile.
#[test]
fn a_round_given_up_shares_no_tile_with_the_next() {
    check(2, || {
        let [first, second] = tables(&loom_tests::segment(1024, 2, 4));
        let x = first.from_elem(1, 0u64).unwrap();
        let (left, next) = (divide(&first, x), divide(&first, x));
        let given_up = left.begin().unwrap();
        let other = other(second, &left, |tiles| {
            if let Ok(Some(mut part)) = tiles.enter()
                && let Some(mut tile) = part.claim().unwrap()
            {
                tile.views()[0] += 1;
            }
        });
        drop(given_up);
        if let Ok(round) = next.begin() {
            assert_eq!(work(&next), 1);
            finish(round).unwrap();
        }
        let _second = other.join().unwrap();
    });
}
