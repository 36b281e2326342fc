//! Torn tiles after their round: reading the rest, repairing the tiles, and telling whose poison an
//! array has.
#![cfg(all(loom, not(shuttle)))]

use std::time::Duration;

use loom_tests::{beside, beside_death, check, check_deaths, tables};
use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, RoundError};
use ndshm::untyped::Mode;
use ndshm::{Handle, HandleTable, Partition, PartitionHandle, Write};

type Vector = Handle<u64, Ix1>;
type Tiles = PartitionHandle<Write<u64, Ix1>>;
type Pair = (Write<u64, Ix1>, Write<u64, Ix1>);

/// Joins a segment with room for two vectors and two partitions as two participants, the first of
/// which creates a vector of `length` zeros.
fn two_participants(length: usize) -> ([HandleTable; 2], Vector) {
    let tables: [HandleTable; 2] = tables(&loom_tests::segment(1024, 2, 4));
    let x = tables[0].from_elem(length, 0).expect("there is room");
    (tables, x)
}

/// Divides the vector into tiles of one element.
fn divide(table: &HandleTable, x: Vector) -> Partition<'_, Write<u64, Ix1>> {
    table
        .partition(x.write(), Axis(0), 1)
        .expect("there is room")
}

/// Runs a round that writes 1 to every element, and tears tile 0.
fn tear(tiles: &Partition<'_, Write<u64, Ix1>>) {
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views()[0] = 1;
        if tile.index() == 0 {
            tile.tear();
        }
    }
    drop(part);
    let torn = round.finish(Duration::MAX);
    assert!(matches!(torn, Err(RoundError::Torn { .. })), "{torn:?}");
}

/// Looks at a shared word. A participant may die here, between two accesses to elements.
fn place_to_die(table: &HandleTable, x: Vector) {
    assert!(table.info(x).is_ok());
}

/// Returns `true` if the call was refused, because an array is leased or a round is not settled.
fn is_busy<T>(outcome: &Result<T, RoundError>) -> bool {
    let busy = |error: &RoundError| {
        matches!(
            error,
            RoundError::Running { .. } | RoundError::Lease(LeaseError::Busy { .. })
        )
    };
    outcome.as_ref().err().is_some_and(busy)
}

fn is_poisoned<T>(outcome: &Result<T, RoundError>) -> bool {
    matches!(outcome, Err(RoundError::Lease(LeaseError::Poisoned { .. })))
}

/// Reads the tiles that are not torn. Returns `None` if they are leased.
fn rest(tiles: &Partition<'_, Write<u64, Ix1>>) -> Option<Vec<(usize, u64)>> {
    let rest = tiles.read_rest();
    if is_busy(&rest) {
        return None;
    }
    let rest = rest.unwrap();
    let tiles = rest.iter().map(|tile| {
        let tile = tile.unwrap();
        (tile.index(), tile.views()[0])
    });
    Some(tiles.collect())
}

/// I5, I6: a reader of the rest beside a repair. It reads whole tiles only, and the repaired one with
/// the values of the repair.
#[test]
fn the_rest_is_read_beside_a_repair() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let name: Tiles = tiles.handle();
        let theirs = move |table: &HandleTable| rest(&table.open_partition(name).unwrap());
        let ours = || tiles.recover(|_, mut tile| tile[0] = 7);
        let (repaired, read, _second) = beside(second, theirs, ours);
        match &read {
            None => {}
            Some(read) if read.len() == 1 => assert_eq!(read[..], [(1, 1)]),
            Some(read) => assert_eq!(read[..], [(0, 7), (1, 1)]),
        }
        match repaired {
            Ok(repaired) => {
                assert_eq!(repaired, 1);
                assert_eq!(first.read(x).unwrap().to_vec(), [7, 1]);
            }
            // Each may find the other one's lease, and back out.
            refused => assert!(is_busy(&refused), "{refused:?}"),
        }
    });
}

/// I5, I6: two participants repair the torn tiles at once. Each tile is repaired once, and the array
/// is whole after it.
#[test]
fn two_repairs_exclude_each_other() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let name: Tiles = tiles.handle();
        let repair = |tiles: &Partition<'_, Write<u64, Ix1>>| {
            let outcome = tiles.recover(|_, mut tile| tile[0] += 1);
            assert!(outcome.is_ok() || is_busy(&outcome), "{outcome:?}");
            outcome.unwrap_or(0) as u64
        };
        let theirs = move |table: &HandleTable| repair(&table.open_partition(name).unwrap());
        let (ours, theirs, _second) = beside(second, theirs, || repair(&tiles));
        assert!(ours + theirs <= 1, "repaired twice");
        let last = repair(&tiles);
        assert_eq!(ours + theirs + last, 1, "repaired once");
        assert_eq!(first.read(x).unwrap().to_vec(), [2, 1]);
        assert!(tiles.torn().unwrap().is_empty());
    });
}

/// I5: the next round opens beside a repair. It is refused, or all is repaired.
#[test]
fn the_next_round_opens_after_the_repair() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let name: Tiles = tiles.handle();
        let theirs = move |table: &HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            match tiles.begin() {
                Ok(round) => {
                    let mut part = tiles.enter().unwrap().unwrap();
                    while let Some(mut tile) = part.claim().unwrap() {
                        tile.views()[0] += 10;
                    }
                    drop(part);
                    round.finish(Duration::MAX).unwrap();
                    true
                }
                refused => {
                    assert!(is_busy(&refused) || is_poisoned(&refused), "{refused:?}");
                    false
                }
            }
        };
        let ours = || tiles.recover(|_, mut tile| tile[0] = 7);
        let (repaired, ran, _second) = beside(second, theirs, ours);
        if repaired.is_err() {
            assert!(is_busy(&repaired) && !ran, "{repaired:?}");
            tiles.recover(|_, mut tile| tile[0] = 7).unwrap();
        }
        let more = if ran { 10 } else { 0 };
        assert_eq!(first.read(x).unwrap().to_vec(), [7 + more, 1 + more]);
    });
}

/// I1, I5, I7: a participant dies while it repairs. The tile is torn or repaired, never taken for
/// whole in between, and another participant finishes.
#[test]
fn death_in_a_repair() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let name: Tiles = tiles.handle();
        let theirs = move |table: &HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            let outcome = tiles.recover(|_, mut tile| {
                tile[0] = 5;
                place_to_die(table, x);
                tile[0] = 7;
            });
            assert!(outcome.is_ok() || is_busy(&outcome), "{outcome:?}");
        };
        let (read, died) = beside_death(&first, second, steps, theirs, || rest(&tiles));
        for (tile, found) in read.iter().flatten().copied() {
            assert_eq!(found, [7, 1][tile]);
        }
        // Nothing but the tile was written, so its poison is told from others.
        let torn = tiles.torn().unwrap();
        let read = rest(&tiles).expect("nobody has the array");
        assert_eq!(torn.len() + read.len(), 2);
        let repaired = tiles.recover(|_, mut tile| tile[0] = 7).unwrap();
        assert_eq!(repaired, torn.len());
        assert_eq!(first.read(x).unwrap().to_vec(), [7, 1]);
        died
    });
}

/// I1, I7: a participant dies while it repairs tiles of two arrays. Wherever that is, the poison of
/// both is still put down to the tiles.
#[test]
fn death_in_a_repair_of_two_arrays() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(1);
        let y = first.from_elem(1, 0u64).unwrap();
        let tiles = first.partition((x.write(), y.write()), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        part.claim().unwrap().unwrap().tear();
        drop(part);
        round.finish(Duration::MAX).unwrap_err();
        let name: PartitionHandle<Pair> = tiles.handle();
        let repair = |tiles: &Partition<'_, Pair>| {
            tiles
                .recover(|_, (mut x, mut y)| {
                    x[0] = 7;
                    y[0] = 7;
                })
                .unwrap();
        };
        let theirs = move |table: &HandleTable| repair(&table.open_partition(name).unwrap());
        let ((), died) = beside_death(&first, second, steps, theirs, || ());
        repair(&tiles);
        for array in [x, y] {
            assert_eq!(first.read(array).unwrap()[0], 7);
        }
        died
    });
}

/// I5, I7: a participant dies in a round. Then the other tiles can be read, and the torn ones
/// repaired, without a look at the whole array.
#[test]
fn death_in_a_round_leaves_the_rest() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let name: Tiles = tiles.handle();
        let round = tiles.begin().unwrap();
        let work = move |table: &HandleTable, tiles: &Partition<'_, Write<u64, Ix1>>| {
            if let Some(mut part) = tiles.enter().unwrap() {
                while let Some(mut tile) = part.claim().unwrap() {
                    tile.views()[0] = 5;
                    place_to_die(table, x);
                    tile.views()[0] = 1;
                }
            }
        };
        let theirs = move |table: &HandleTable| work(table, &table.open_partition(name).unwrap());
        let ((), died) = beside_death(&first, second, steps, theirs, || ());
        work(&first, &tiles);
        let torn = match round.finish(Duration::MAX) {
            Err(RoundError::Torn { tiles, .. }) => tiles,
            outcome => {
                outcome.unwrap();
                Vec::new()
            }
        };
        let read = rest(&tiles).expect("nobody has the array");
        assert_eq!(read.len() + torn.len(), 2);
        for (tile, found) in read {
            assert!(found == 1 && !torn.contains(&tile), "tile {tile}: {found}");
        }
        assert_eq!(
            tiles.recover(|_, mut tile| tile[0] = 1).unwrap(),
            torn.len()
        );
        assert_eq!(first.read(x).unwrap().to_vec(), [1, 1]);
        died
    });
}

/// I5, I7: a participant dies while it repairs all of a poisoned array. Nobody takes a tile for
/// whole that it has half-written.
#[test]
fn death_in_a_recovery_is_not_put_down_to_tiles() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let handle = x;
        let theirs = move |table: &HandleTable| {
            let outcome = table.recover(x, |mut x| {
                x[1] = 5;
                place_to_die(table, handle);
                x.fill(8);
            });
            assert!(
                outcome.is_ok() || loom_tests::is_busy(&outcome),
                "{outcome:?}"
            );
        };
        let (read, died) =
            beside_death(&first, second, steps, theirs, || match tiles.read_rest() {
                Ok(rest) => rest.tile(1).unwrap().views()[0],
                Err(_) => 1,
            });
        assert!([1, 8].contains(&read), "{read}");
        match tiles.read_rest() {
            Ok(rest) => {
                let found = rest.tile(1).unwrap().views()[0];
                assert!([1, 8].contains(&found), "{found}");
            }
            refused => assert!(is_poisoned(&refused), "{refused:?}"),
        }
        died
    });
}

/// I5: a recovery of all of a poisoned array fails, beside a participant that accepts the torn tiles.
/// The poison of the recovery stays.
#[test]
fn torn_tiles_are_accepted_beside_a_failed_recovery() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        tear(&tiles);
        let theirs = move |table: &HandleTable| {
            // As a guard that a panic drops.
            let Ok(mut locked) = table.lock(x, Mode::Recover) else {
                return false;
            };
            table.unlock(&mut locked, true).unwrap();
            true
        };
        let (accepted, panicked, _second) = beside(second, theirs, || tiles.clear_poison());
        let read = first.read(x).map(|x| x[1]);
        match panicked {
            true => assert!(matches!(read, Err(LeaseError::Poisoned { .. }))),
            false => assert_eq!((accepted.unwrap(), read.unwrap()), (1, 1)),
        }
    });
}

/// I5: two partitions divide one array. The poison of the second one's tiles is never cleared, or
/// read past, by the torn tiles of the first.
#[test]
fn torn_tiles_of_two_partitions_are_told_apart() {
    check(2, || {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let others = divide(&first, x);
        tear(&tiles);
        let name: Tiles = others.handle();
        let theirs = move |table: &HandleTable| {
            // It accepts the array, and then tears both tiles of a round of the other partition.
            if table.clear_poison(x).is_err() {
                return false;
            }
            let others = table.open_partition(name).unwrap();
            let Ok(round) = others.begin() else {
                return false;
            };
            let mut part = others.enter().unwrap().unwrap();
            while let Some(mut tile) = part.claim().unwrap() {
                tile.views()[0] = 5;
                tile.tear();
            }
            drop(part);
            round.finish(Duration::MAX).unwrap_err();
            true
        };
        let ours = || {
            if let Some(read) = rest_or_refused(&tiles) {
                assert!(read.iter().all(|&(_, found)| found == 1), "{read:?}");
            }
            tiles.clear_poison()
        };
        let (_cleared, torn, _second) = beside(second, theirs, ours);
        if torn {
            assert!(first.read(x).is_err(), "the poison of others was cleared");
            assert!(is_poisoned(&tiles.read_rest()));
            assert!(is_poisoned(&tiles.clear_poison()));
            assert_eq!(others.read_rest().unwrap().torn().len(), 2);
            assert_eq!(others.clear_poison().unwrap(), 2);
        }
    });
}

/// Reads the tiles that are not torn. Returns `None` if the arrays are leased, or poisoned by others.
fn rest_or_refused(tiles: &Partition<'_, Write<u64, Ix1>>) -> Option<Vec<(usize, u64)>> {
    match tiles.read_rest() {
        refused if is_poisoned(&refused) || is_busy(&refused) => None,
        _ => rest(tiles),
    }
}

/// I7: the opener dies in its round. The poison is that of a round that nobody has ended, also if a
/// tile of it is torn at the same time.
#[test]
fn a_round_given_up_is_not_put_down_to_tiles() {
    check_deaths(1, |steps| {
        let ([first, second], x) = two_participants(2);
        let tiles = divide(&first, x);
        let name: Tiles = tiles.handle();
        let theirs = move |table: &HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            tear(&tiles);
        };
        let ours = || {
            if let Ok(Some(mut part)) = tiles.enter()
                && let Ok(Some(tile)) = part.claim()
            {
                tile.tear();
            }
        };
        let ((), died) = beside_death(&first, second, steps, theirs, ours);
        let given_up = matches!(
            tiles.wait_finished(1, Duration::ZERO),
            Err(RoundError::GivenUp { .. })
        );
        if given_up && first.read(x).is_err() {
            let cleared = tiles.clear_poison();
            assert!(is_poisoned(&cleared), "{cleared:?}");
            assert!(is_poisoned(&tiles.read_rest()));
        }
        died
    });
}
