//! Torn tiles after their round: which tiles can be read, what repairs them, and which poison is
//! not theirs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::error::{HalfWritten, LeaseError, RoundError};
use ndshm::partition::{AccessMode, Group, UntypedGroup};
use ndshm::untyped::Mode;
use ndshm::{Handle, HandleTable, Partition, Pool, Segment, Write};

const DEADLINE: Duration = Duration::from_secs(10);

type Tiles<'t> = Partition<'t, Write<u64, Ix1>>;

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

/// Runs a round in which the tiles with `torn` are torn and the others are passed to `write`.
fn round<G: Group>(
    tiles: &Partition<'_, G>,
    torn: impl Fn(usize) -> bool,
    write: impl Fn(usize, G::Views<'_>),
) -> Result<(), RoundError> {
    let round = tiles.begin()?;
    let mut part = tiles.enter()?.expect("a round runs");
    while let Some(mut tile) = part.claim()? {
        match torn(tile.index()) {
            true => tile.tear(),
            false => write(tile.index(), tile.views()),
        }
    }
    drop(part);
    round.finish(DEADLINE)
}

/// Creates 0..12 and runs a round that adds 100, with tile 1 (4..8) torn.
fn torn_numbers(table: &HandleTable) -> (Handle<u64, Ix1>, Tiles<'_>) {
    let x = table.from_shape_fn(12, |i| i as u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    round(&tiles, |tile| tile == 1, |_, mut x| x += 100).unwrap_err();
    (x, tiles)
}

fn torn_tiles<G: Group>(tiles: &Partition<'_, G>) -> Vec<usize> {
    let torn = tiles.torn().unwrap();
    torn.iter().map(|torn| torn.tile).collect()
}

#[track_caller]
fn assert_poisoned<T>(outcome: Result<T, RoundError>, expected: HalfWritten) {
    match outcome.map(drop) {
        Err(RoundError::Lease(LeaseError::Poisoned { what, .. })) => assert_eq!(what, expected),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_busy<T>(outcome: Result<T, RoundError>) {
    let outcome = outcome.map(drop);
    let busy = matches!(outcome, Err(RoundError::Lease(LeaseError::Busy { .. })));
    assert!(busy, "{outcome:?}");
}

/// Each call that touches torn tiles is refused.
#[track_caller]
fn assert_not_theirs(tiles: &Tiles<'_>, what: HalfWritten) {
    assert_poisoned(tiles.read_rest(), what);
    assert_poisoned(tiles.recover(|_, _| panic!("not called")), what);
    assert_poisoned(tiles.clear_poison(), what);
    assert!(tiles.torn().unwrap().is_empty());
}

#[test]
fn the_rest_is_read_and_the_torn_tile_is_refused() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    let other = HandleTable::join(table.segment()).unwrap();
    let tiles = other.open_partition(tiles.handle()).unwrap();
    let refused = other.read(x).map(drop);
    assert!(matches!(refused, Err(LeaseError::Poisoned { rows, .. }) if rows.iter().eq([&(4..8)])));
    let rest = tiles.read_rest().unwrap();
    assert_eq!((rest.torn()[0].tile, &rest.torn()[0].rows), (1, &(4..8)));
    let read: Vec<_> = rest.iter().map(|tile| tile.unwrap().range()).collect();
    assert_eq!(read, [0..4, 8..12]);
    assert_eq!(rest.tile(2).unwrap().views().to_vec(), [108, 109, 110, 111]);
    let refused = rest.tile(1).unwrap_err().to_string();
    assert!(
        refused.contains("rows 4..8") && refused.contains("clear_poison"),
        "{refused}"
    );
    assert!(matches!(
        rest.tile(3),
        Err(RoundError::NoSuchTile { tiles: 3, .. })
    ));
    // A reader of the rest keeps everybody else out, as any reader does.
    assert!(matches!(
        table.recover(x, |_| ()),
        Err(LeaseError::Busy { .. })
    ));
    assert_busy(tiles.recover(|_, _| ()));
    assert_busy(tiles.clear_poison());
    let second = tiles.read_rest().unwrap();
    drop(rest);
    assert_busy(tiles.clear_poison());
    drop(second);
    assert_eq!(tiles.clear_poison().unwrap(), 1);
    assert_eq!(table.read(x).unwrap().sum(), 66 + 800);
}

#[test]
fn without_poison_all_tiles_are_read() {
    let table = table();
    let x = table.from_shape_fn(12, |i| i as u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    let sum = || {
        let rest = tiles.read_rest().unwrap();
        assert!(rest.torn().is_empty());
        rest.iter()
            .map(|tile| tile.unwrap().views().sum())
            .sum::<u64>()
    };
    assert_eq!(sum(), 66);
    assert_eq!(tiles.recover(|_, _| panic!("not called")).unwrap(), 0);
    round(&tiles, |_| false, |_, mut x| x += 1).unwrap();
    assert_eq!(sum(), 78);
    let running = tiles.begin().unwrap();
    assert_busy(tiles.read_rest());
    assert_busy(tiles.clear_poison());
    drop(running);
}

#[test]
fn torn_tiles_are_repaired_in_one_call() {
    let table = table();
    let x = table.from_shape_fn(12, |i| i as u64).unwrap();
    let y = table.zeros::<f32, _>((3, 2)).unwrap();
    let z = table.from_elem(12, 1u64).unwrap();
    let group = (x.write(), y.per_tile(), z.read());
    let tiles = table.partition(group, Axis(0), 4).unwrap();
    round(
        &tiles,
        |tile| tile != 0,
        |_, (mut x, mut y, _)| {
            x += 100;
            y.fill(1.0);
        },
    )
    .unwrap_err();
    assert!(table.read(y).is_err() && table.read(z).is_ok());
    assert!(matches!(
        tiles.begin(),
        Err(RoundError::Lease(LeaseError::Poisoned { .. }))
    ));
    {
        let rest = tiles.read_rest().unwrap();
        let tile = rest.tile(0).unwrap();
        let (x, y, z) = tile.views();
        assert_eq!((x.len(), y.to_vec(), z.sum()), (4, vec![1.0, 1.0], 4));
    }
    let mut seen = Vec::new();
    let repaired = tiles.recover(|tile, (mut x, mut y, z)| {
        seen.push((tile.tile, tile.rows.clone(), tile.round));
        x.assign(&z);
        y.fill(2.0);
    });
    assert_eq!(repaired.unwrap(), 2);
    assert_eq!(seen, [(1, 4..8, 1), (2, 8..12, 1)]);
    assert_eq!(table.read(x).unwrap().sum(), 406 + 8);
    assert_eq!(table.read(y).unwrap().sum(), 10.0);
    // The round counts as whole: a participant that waits for its end late is told so.
    tiles.wait_finished(1, Duration::ZERO).unwrap();
    let progress = tiles.progress().unwrap();
    assert_eq!((progress.done, progress.torn), (3, 0));
    round(&tiles, |_| false, |_, _| ()).unwrap();
}

#[test]
fn a_panic_leaves_the_other_tiles_torn() {
    let table = table();
    let x = table.from_shape_fn(12, |i| i as u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    round(&tiles, |tile| tile % 2 == 1, |_, mut x| x += 100).unwrap_err();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tiles.recover(|tile, mut x| {
            x.fill(7);
            if tile.tile == 3 {
                resume_unwind(Box::new(()));
            }
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(torn_tiles(&tiles), [3, 5]);
    assert!(
        matches!(table.read(x), Err(LeaseError::Poisoned { rows, .. }) if rows == [6..8, 10..12])
    );
    assert_eq!(
        tiles.read_rest().unwrap().tile(1).unwrap().views().sum(),
        14
    );
    assert_eq!(tiles.recover(|_, mut x| x.fill(8)).unwrap(), 2);
    assert_eq!(
        table.read(x).unwrap().sum(),
        1 + 200 + 14 + 9 + 200 + 16 + 17 + 200 + 16
    );
}

/// An array that was repaired on its own is poisoned again by a panic in the repair of its tile.
#[test]
fn a_panic_poisons_an_array_that_was_whole() {
    let table = table();
    let [x, y] = [(); 2].map(|()| table.zeros::<u64, _>(4).unwrap());
    let tiles = table.partition((x.write(), y.write()), Axis(0), 2).unwrap();
    round(&tiles, |tile| tile == 0, |_, _| ()).unwrap_err();
    table.clear_poison(x).unwrap();
    assert_eq!(torn_tiles(&tiles), [0]);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tiles.recover(|_, (mut x, _)| {
            x[0] = 7;
            resume_unwind(Box::new(()));
        })
    }));
    assert!(panicked.is_err());
    assert!(table.read(x).is_err() && table.read(y).is_err());
    assert_eq!(tiles.recover(|_, (mut x, _)| x.fill(0)).unwrap(), 1);
    assert!(table.read(x).is_ok() && table.read(y).is_ok());
}

#[test]
fn arrays_repaired_on_their_own_leave_no_torn_tile() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    table.clear_poison(x).unwrap();
    assert!(tiles.torn().unwrap().is_empty());
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 3);
    assert_eq!(tiles.recover(|_, _| panic!("not called")).unwrap(), 0);
    round(&tiles, |_| false, |_, _| ()).unwrap();
}

#[test]
fn the_poison_of_a_writer_of_the_whole_array_is_not_theirs() {
    let table = table();
    // After the tiles were accepted.
    let (x, tiles) = torn_numbers(&table);
    tiles.clear_poison().unwrap();
    let write = || {
        let mut x = table.write(x).unwrap();
        x[0] = 0;
        resume_unwind(Box::new(()));
    };
    assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
    assert_not_theirs(&tiles, HalfWritten::Array);
    // After the array was accepted on its own, while the round is torn.
    let (x, tiles) = torn_numbers(&table);
    table.clear_poison(x).unwrap();
    let write = || {
        let mut x = table.write(x).unwrap();
        x[0] = 0;
        resume_unwind(Box::new(()));
    };
    assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
    assert_not_theirs(&tiles, HalfWritten::Array);
    // In a repair of all of the array.
    let (x, tiles) = torn_numbers(&table);
    let repair = || table.recover(x, |_| resume_unwind(Box::new(())));
    let repaired = catch_unwind(AssertUnwindSafe(|| -> Result<(), LeaseError> { repair() }));
    assert!(repaired.is_err());
    assert_not_theirs(&tiles, HalfWritten::Array);
    table.recover(x, |_| ()).unwrap();
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 3);
}

#[test]
fn the_poison_of_another_partition_is_not_theirs() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    let others = table.partition(x.write(), Axis(0), 6).unwrap();
    assert!(others.begin().is_err(), "the array is poisoned");
    assert_not_theirs(&others, HalfWritten::Tiles);
    table.clear_poison(x).unwrap();
    round(&others, |tile| tile == 0, |_, _| ()).unwrap_err();
    let theirs = tiles.clear_poison().unwrap_err().to_string();
    assert!(theirs.contains("rows 0..6"), "{theirs}");
    assert!(tiles.torn().unwrap().is_empty());
    assert!(tiles.read_rest().is_err() && tiles.recover(|_, _| ()).is_err());
    assert_eq!(torn_tiles(&others), [0]);
    others.clear_poison().unwrap();
    assert!(table.read(x).is_ok());
}

#[test]
fn a_freed_partition_accounts_for_nothing() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    drop(tiles);
    // The new partition has the slot of the old one.
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    assert_not_theirs(&tiles, HalfWritten::Tiles);
    table.recover(x, |_| ()).unwrap();
    round(&tiles, |tile| tile == 2, |_, _| ()).unwrap_err();
    assert_eq!(torn_tiles(&tiles), [2]);
    tiles.clear_poison().unwrap();
}

#[test]
fn a_round_given_up_accounts_for_nothing() {
    let table = table();
    let x = table.zeros::<u64, _>(12).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    part.claim().unwrap().unwrap().tear();
    drop(part);
    drop(round);
    assert_not_theirs(&tiles, HalfWritten::Tiles);
    table.clear_poison(x).unwrap();
}

#[test]
fn half_written_bytes_of_torn_tiles_are_not_looked_at() {
    let table = table();
    let x = table.zeros::<bool, _>(4).unwrap();
    let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    let untyped = table.partition(group, Axis(0), 2).unwrap();
    let torn = round(&untyped, |tile| tile == 0, |_, _| ());
    torn.unwrap_err();
    untyped
        .recover(|_, parts| {
            // SAFETY: the torn tile is ours alone, and its first element has one byte.
            unsafe { parts[0].first().write(7) };
        })
        .unwrap();
    let torn = round(&untyped, |tile| tile == 0, |_, _| ());
    torn.unwrap_err();
    let rest = untyped.read_rest().unwrap();
    assert!(!rest.tile(1).unwrap().views()[0].is_writable());
    drop(rest);
    let bits = untyped.handle().to_bits();
    let handle = ndshm::PartitionHandle::<Write<bool, Ix1>>::from_bits(bits);
    let tiles = table.open_partition(handle).unwrap();
    let rest = tiles.read_rest().unwrap();
    assert_eq!(rest.iter().count(), 1);
    drop(rest);
    let refused = tiles.recover(|_, _| panic!("not called"));
    assert!(matches!(
        refused,
        Err(RoundError::Lease(LeaseError::InvalidElement { .. }))
    ));
    assert_eq!(torn_tiles(&tiles), [0]);
    untyped
        // SAFETY: as above.
        .recover(|_, parts| unsafe { parts[0].first().write(1) })
        .unwrap();
    assert_eq!(table.read(x).unwrap().to_vec(), [true, false, false, false]);
}

/// Tiles that are claimed together are repaired one by one.
#[test]
fn tiles_of_a_unit_are_repaired_one_by_one() {
    let table = table();
    let x = table.zeros::<u8, _>(5000).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    assert!(tiles.claimed_with(0).len() > 1);
    let is_torn = |tile: usize| [0, 2, 4999].contains(&tile);
    round(&tiles, is_torn, |_, mut x| x.fill(1)).unwrap_err();
    assert_eq!(torn_tiles(&tiles), [0, 2, 4999]);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tiles.recover(|tile, mut x| match tile.tile {
            0 => x.fill(2),
            _ => resume_unwind(Box::new(())),
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(torn_tiles(&tiles), [2, 4999]);
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 4998);
    assert_eq!(tiles.recover(|_, mut x| x.fill(2)).unwrap(), 2);
    let sum: usize = table.read(x).unwrap().iter().map(|&x| usize::from(x)).sum();
    assert_eq!(sum, 5003);
    round(&tiles, |_| false, |_, _| ()).unwrap();
}

/// Tiles of arrays that are only read may be torn, but nothing is half-written.
#[test]
fn arrays_that_are_only_read_need_no_repair() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.read(), Axis(0), 2).unwrap();
    round(&tiles, |tile| tile == 0, |_, _| ()).unwrap_err();
    assert!(tiles.torn().unwrap().is_empty());
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 2);
    assert_eq!(tiles.recover(|_, _| panic!("not called")).unwrap(), 0);
    round(&tiles, |_| false, |_, _| ()).unwrap();
}

#[test]
fn a_freed_array_or_partition_is_refused() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    table.free(x).unwrap();
    let stale = |outcome: Result<(), RoundError>| {
        matches!(outcome, Err(RoundError::Lease(LeaseError::Stale { .. })))
    };
    assert!(stale(tiles.read_rest().map(drop)));
    assert!(stale(tiles.clear_poison().map(drop)));
    assert!(tiles.torn().unwrap().is_empty());
    let (_, tiles) = torn_numbers(&table);
    let other = HandleTable::join(table.segment()).unwrap();
    let opened = other.open_partition(tiles.handle()).unwrap();
    drop(tiles);
    assert!(opened.torn().is_err());
    assert!(stale(opened.read_rest().map(drop)));
    assert!(stale(opened.recover(|_, _| ()).map(drop)));
}

/// After a panic in a kernel, the remedies that the errors name work as written.
#[test]
fn the_errors_of_a_pool_name_rows_and_remedy() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::threads(&table, 2).unwrap();
    let mut run = |bad: u64| {
        pool.for_each(&tiles, &bad, |mut x, &bad, context| {
            x.fill(1);
            if context.index() as u64 == bad {
                resume_unwind(Box::new("bad input"));
            }
        })
    };
    run(3).unwrap_err();
    let refused = run(100).unwrap_err().to_string();
    let remedies = ["rows 30..40", "recover", "clear_poison", "read_rest"];
    assert!(
        remedies.iter().all(|text| refused.contains(text)),
        "{refused}"
    );
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 9);
    assert_eq!(tiles.clear_poison().unwrap(), 1);
    run(100).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 100);
}

/// A recovery that has waited for its lease is one of the whole array: if it is given up, the torn
/// tiles do not account for the poison.
#[test]
fn a_recovery_that_has_waited_is_one_of_the_whole_array() {
    let table = table();
    let (x, tiles) = torn_numbers(&table);
    let [recoverer, third] = [(); 2].map(|()| HandleTable::join(table.segment()).unwrap());
    let same = third.open_partition(tiles.handle()).unwrap();
    let rest = tiles.read_rest().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let locked = recoverer.lock_timeout(x, Mode::Recover, DEADLINE).unwrap();
            // Leaves with the array half-repaired.
            drop((locked, recoverer));
        });
        // The waiting writer turns readers away.
        let start = Instant::now();
        while same.read_rest().is_ok() {
            assert!(start.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
        drop(rest);
    });
    assert_not_theirs(&tiles, HalfWritten::Array);
    table.recover(x, |mut x| x.fill(0)).unwrap();
}
