//! Rounds without a pool: participants that wait for a round to be opened, and for its end.
#![cfg(all(loom, not(shuttle)))]

use core::time::Duration;

use loom::thread;
use loom_tests::{check, check_deaths, segment, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, PartitionError, RoundError};
use ndshm::partition::{Entered, OwnedMember, OwnedPartition};
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

/// I1, I7: the opener dies at any step. Participants that wait for its round are told its end, and
/// the next round is whole.
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

/// Enters the round that runs, by a value that does not borrow the table.
fn enter_owned(tiles: &mut OwnedPartition, table: &HandleTable) -> Option<OwnedMember> {
    match tiles.enter_next(table, 0, Duration::ZERO) {
        Ok(Entered::Member(member)) => Some(member),
        Ok(_) | Err(RoundError::NotOpened { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Opens a partition by a value that does not borrow the table.
fn open_owned(table: &HandleTable, name: PartitionHandle<Group>) -> OwnedPartition {
    let name = PartitionHandle::from_bits(name.to_bits());
    table.open_untyped(name).unwrap()
}

/// I5, I6: a participant claims a tile by a token, and is dropped with it, with a done tile or with
/// none. A tile that is out is torn before anybody can lease its array; a done tile stays done.
#[test]
fn a_dropped_value_tears_what_is_out() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles(2));
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 1).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let round = tiles.begin().unwrap();
        let other = thread::spawn(move || {
            let mut tiles = open_owned(&second, name);
            let mut out = None;
            if let Some(mut member) = enter_owned(&mut tiles, &second) {
                if let Some(token) = member.claim(&second).unwrap() {
                    let at = token.tile();
                    drop(model::access(&second, x, at..at + 1, true));
                    member.done(&second, token).unwrap();
                }
                if let Some(token) = member.claim(&second).unwrap() {
                    let at = token.tile();
                    drop(model::access(&second, x, at..at + 1, true));
                    out = Some(at);
                }
                drop(member);
            }
            // Releases what it has left.
            second.reap().unwrap();
            drop(tiles);
            (out, second)
        });
        if let Some(mut part) = tiles.enter().unwrap() {
            work(&mut part);
        }
        let outcome = round.finish(PATIENCE);
        let (out, _second) = other.join().unwrap();
        match (outcome, out) {
            (Ok(()), None) => drop(first.read(x).unwrap()),
            (Err(RoundError::Torn { tiles, .. }), Some(out)) => {
                assert_eq!(tiles, [out]);
                assert!(matches!(first.read(x), Err(LeaseError::Poisoned { .. })));
            }
            (outcome, out) => panic!("{outcome:?} {out:?}"),
        }
        let _ = first.clear_poison(x);
        first.write(x).unwrap().fill(1);
    });
}

/// I1, I5, I7: a participant that claims by tokens dies at any step, also while it is dropped and
/// its leases are released. Its tiles are done or torn, and the next round is whole.
#[test]
fn death_with_a_token() {
    check_deaths(1, |steps| {
        let segment = room_for_tiles(2);
        let [survivor, mortal] = tables(&segment);
        let x = survivor.from_elem(2, 0u64).unwrap();
        let tiles = survivor.partition(x.write(), Axis(0), 1).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        let round = tiles.begin().unwrap();
        let died = loom_tests::dies(mortal, steps, move |table| {
            let mut tiles = open_owned(table, name);
            let mut member = enter_owned(&mut tiles, table).unwrap();
            let token = member.claim(table).unwrap().unwrap();
            member.done(table, token).unwrap();
            member.claim(table).unwrap().unwrap();
            drop(member);
            table.reap().unwrap();
        });
        survivor.reap().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        let rest = work(&mut part);
        drop(part);
        match round
            .try_finish()
            .unwrap_or_else(|_| panic!("a tile is held"))
        {
            Ok(()) => assert!(died && rest > 0),
            Err(RoundError::Torn { tiles, .. }) => assert_eq!(tiles.len(), 1),
            Err(error) => panic!("{error}"),
        }
        let _ = survivor.clear_poison(x);
        survivor.write(x).unwrap().fill(0);
        assert_eq!(run_round(&tiles).unwrap(), 2);
        died
    });
}

/// I5: the table leaves while a participant has a tile out, and another table takes its seat and
/// the same tile. Dropping the participant does not touch that tile. A participant whose table
/// lives tears its tile at once, before the table's next call.
#[test]
fn a_value_tears_for_the_seat_of_its_table_alone() {
    check(1, || {
        let segment = room_for_tiles(2);
        let [first] = tables(&segment);
        let x = first.from_elem(2, 0u64).unwrap();
        let tiles = first.partition(x.write(), Axis(0), 2).unwrap();
        let name: PartitionHandle<Group> = tiles.handle();
        for outlives in [true, false] {
            let round = tiles.begin().unwrap();
            let table = loom_tests::join(&segment);
            let mut theirs = open_owned(&table, name);
            let after = round.number() - 1;
            let Ok(Entered::Member(mut member)) = theirs.enter_next(&table, after, PATIENCE) else {
                panic!("the round runs");
            };
            member.claim(&table).unwrap().unwrap();
            if !outlives {
                drop(member);
                let outcome = round.try_finish().expect("the tile is torn at once");
                assert!(matches!(outcome, Err(RoundError::Torn { .. })));
                continue;
            }
            drop(table);
            let outcome = round.try_finish().expect("the leave has torn the tile");
            assert!(matches!(outcome, Err(RoundError::Torn { .. })));
            first.clear_poison(x).unwrap();
            let round = tiles.begin().unwrap();
            let next = loom_tests::join(&segment);
            let others = next.open_partition(name).unwrap();
            let mut part = others.enter().unwrap().unwrap();
            let mut tile = part.claim().unwrap().unwrap();
            drop((member, theirs));
            tile.views()[0] += 1;
            drop(tile);
            drop(part);
            round.finish(PATIENCE).unwrap();
        }
    });
}
