//! Operations on partitions and their rounds.

use std::cell::Cell;
use std::time::Duration;

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::partition::{
    AccessMode, Claimed, Entered, OwnedMember, OwnedPartition, TileToken, UntypedGroup,
};
use ndshm::{Grid, HandleTable, Partition, PartitionHandle, Round, RoundMember, Write};

use crate::ground::{Ground, Vector};
use crate::operations::{Operation, simple};
use crate::run::Run;
use crate::support::DEADLINE;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("make a partition", partition),
    ("a round of one's own", round),
    ("two rounds with the same leases", kept),
    ("tiles of another's round, the last one too", tiles),
    ("given tiles, and rows of tiles", given),
    ("tiles by tokens", tokens),
    ("a round by a value that is dropped", dropped),
    ("give a round up", give_up),
    ("free a partition", free),
    ("wait for a round and for its end", wait),
    ("read the rest of torn tiles", rest),
    ("repair torn tiles", repair),
    ("accept torn tiles", accept),
];

type Tiles = PartitionHandle<Write<u64, Ix1>>;
type Pair = (Write<u64, Ix1>, Write<u64, Ix1>);

fn partition(run: &mut Run) {
    simple(run, |table, array| {
        drop(table.partition(array.write(), Axis(0), 1).unwrap());
    });
}

fn round(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        mark();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        fill(&mut part);
        drop(part);
        round.finish(DEADLINE).unwrap();
        mark();
    });
    ground.survive(run);
}

fn kept(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        fill(&mut part);
        mark();
        let round = round.try_next().expect("all tiles are done").unwrap();
        assert!(part.follow());
        fill(&mut part);
        drop(part);
        round.finish(DEADLINE).unwrap();
        mark();
    });
    ground.survive(run);
}

fn fill(part: &mut RoundMember<'_, '_, Write<u64, Ix1>>) {
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().fill(1);
    }
}

fn tiles(run: &mut Run) {
    let ground = Ground::new();
    let tiles = ground
        .table
        .partition(ground.array.write(), Axis(0), 1)
        .unwrap();
    let round = tiles.begin().unwrap();
    let name: Cell<Tiles> = Cell::new(tiles.handle());
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name.get()).unwrap();
        mark();
        let mut part = tiles.enter().unwrap().unwrap();
        fill(&mut part);
        drop(part);
        mark();
    });
    end_of_a_round(&ground, &tiles, round);
    drop(tiles);
    ground.survive(run);
}

/// Ends a round of the survivor, in which a victim took part.
pub fn end_of_a_round(
    ground: &Ground,
    tiles: &Partition<'_, Write<u64, Ix1>>,
    round: Round<'_, '_, Write<u64, Ix1>>,
) {
    // The survivor runs the tiles that were not begun, and waits for no other participant.
    let mut part = tiles.enter().unwrap().unwrap();
    fill(&mut part);
    drop(part);
    let torn = round.finish(DEADLINE).is_err();
    assert_eq!(tiles.wait_finished(1, DEADLINE).is_err(), torn);
    match ground.table.read(ground.array) {
        Ok(all) => assert!(!torn && all.iter().all(|&x| x == 1), "{all:?}"),
        Err(error) => assert!(torn, "{error}"),
    }
    if torn {
        ground.table.clear_poison(ground.array).unwrap();
        ground.table.write(ground.array).unwrap().fill(1);
    }
}

/// Creates a partition of the ground's array, and of another one, with its first tile torn.
fn torn(ground: &Ground) -> (Partition<'_, Pair>, Vector) {
    let other = ground.table.zeros::<u64, _>(2).unwrap();
    let group = (ground.array.write(), other.write());
    let tiles = ground.table.partition(group, Axis(0), 1).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        let (mut x, mut y) = tile.views();
        x.fill(1);
        y.fill(1);
        if tile.index() == 0 {
            tile.tear();
        }
    }
    drop(part);
    round.finish(DEADLINE).unwrap_err();
    (tiles, other)
}

fn fill_both((mut x, mut y): (ArrayViewMut1<'_, u64>, ArrayViewMut1<'_, u64>)) {
    x.fill(2);
    y.fill(2);
}

/// Runs `act` in a victim on a partition with a torn tile, and repairs what it has left.
fn with_torn(run: &mut Run, act: impl Fn(&Partition<'_, Pair>)) {
    let ground = Ground::new();
    let (tiles, other) = torn(&ground);
    let name = tiles.handle();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name).unwrap();
        mark();
        act(&tiles);
        mark();
    });
    ground.table.reap().unwrap();
    // Whatever the victim has reached, its death is put down to the tile: the rest can be read, and
    // one call makes all of it whole.
    let left = tiles.torn().unwrap();
    let rest = tiles.read_rest().unwrap();
    for tile in rest.iter() {
        let tile = tile.unwrap();
        let (x, y) = tile.views();
        assert!(x[0] == y[0] && (1..=2).contains(&x[0]), "{x} {y}");
    }
    assert_eq!(rest.iter().count() + left.len(), 2);
    drop(rest);
    let repaired = tiles.recover(|_, both| fill_both(both)).unwrap();
    assert_eq!(repaired, left.len());
    assert!(tiles.torn().unwrap().is_empty());
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        fill_both(tile.views());
    }
    drop(part);
    round.finish(DEADLINE).unwrap();
    drop(tiles);
    assert_eq!(ground.table.read(other).unwrap().sum(), 4);
    ground.table.free(other).unwrap();
    ground.survive(run);
}

fn rest(run: &mut Run) {
    with_torn(run, |tiles| {
        let rest = tiles.read_rest().unwrap();
        assert_eq!(rest.tile(1).unwrap().views().0[0], 1);
        drop(rest);
    });
}

fn repair(run: &mut Run) {
    with_torn(run, |tiles| {
        assert_eq!(tiles.recover(|_, both| fill_both(both)).unwrap(), 1);
    });
}

fn accept(run: &mut Run) {
    with_torn(run, |tiles| assert_eq!(tiles.clear_poison().unwrap(), 1));
}

fn give_up(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        mark();
        drop(round);
        mark();
    });
    ground.survive(run);
}

fn free(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 1).unwrap();
        mark();
        drop(tiles);
        mark();
    });
    ground.survive(run);
}

fn wait(run: &mut Run) {
    let ground = Ground::new();
    let tiles = ground
        .table
        .partition(ground.array.write(), Axis(0), 1)
        .unwrap();
    let round = tiles.begin().unwrap();
    let name: Cell<Tiles> = Cell::new(tiles.handle());
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name.get()).unwrap();
        mark();
        let Entered::Member(mut part) = tiles.enter_next(0, DEADLINE).unwrap() else {
            panic!("the round runs");
        };
        fill(&mut part);
        drop(part);
        let nap = Duration::from_micros(10);
        tiles.wait_finished(1, nap).unwrap_err();
        mark();
    });
    end_of_a_round(&ground, &tiles, round);
    drop(tiles);
    ground.survive(run);
}

/// Claims given tiles of a partition with a row for each tile. A row is half-written only where the
/// array is poisoned.
fn given(run: &mut Run) {
    let ground = Ground::new();
    let rows = ground.table.zeros::<u64, _>((2, 2)).unwrap();
    let group = (ground.array.write(), rows.per_tile());
    let tiles = ground.table.partition(group, Axis(0), 1).unwrap();
    let round = tiles.begin().unwrap();
    let name = tiles.handle();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name).unwrap();
        mark();
        let mut part = tiles.enter().unwrap().unwrap();
        for index in [1, 0] {
            let Claimed::Tile(mut tile) = part.claim_at(index).unwrap() else {
                panic!("nobody has it");
            };
            let (mut x, mut row) = tile.views();
            x.fill(1);
            row.fill(1);
        }
        drop(part);
        mark();
    });
    ground.table.reap().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    for index in [0, 1] {
        match part.claim_at(index).unwrap() {
            Claimed::Tile(mut tile) => {
                let (mut x, mut row) = tile.views();
                x.fill(1);
                row.fill(1);
            }
            Claimed::Done | Claimed::Torn => {}
            other => panic!("{other:?}"),
        }
    }
    drop(part);
    let torn = round.finish(DEADLINE).is_err();
    drop(tiles);
    assert_eq!(ground.table.read(ground.array).is_err(), torn);
    match ground.table.read(rows) {
        Ok(rows) => assert!(!torn && rows.iter().all(|&x| x == 1), "{rows:?}"),
        Err(error) => assert!(torn, "{error}"),
    }
    if torn {
        ground.table.clear_poison(ground.array).unwrap();
        ground.table.write(ground.array).unwrap().fill(1);
    }
    ground.table.free(rows).unwrap();
    ground.survive(run);
}

/// Returns the partition of the ground's array, by values that do not borrow the table.
fn owned(ground: &Ground, table: &HandleTable) -> OwnedPartition {
    let group = UntypedGroup::new([(ground.array.into(), AccessMode::Write)]);
    let grid = Grid::blocks([(Axis(0), 1)]);
    table.partition_untyped(group, &grid).unwrap()
}

/// Fills a tile with ones.
fn fill_by(member: &mut OwnedMember, table: &HandleTable, token: TileToken) {
    let first = member.parts(table, token).unwrap()[0].first();
    // SAFETY: the tile is claimed and writable, and has one `u64`.
    unsafe { first.cast::<u64>().write(1) };
}

fn tokens(run: &mut Run) {
    let ground = Ground::new();
    let tiles = ground
        .table
        .partition(ground.array.write(), Axis(0), 1)
        .unwrap();
    let round = tiles.begin().unwrap();
    let name = PartitionHandle::from_bits(tiles.handle().to_bits());
    run.victim(|| {
        let table = ground.join();
        let mut tiles = table.open_untyped(name).unwrap();
        mark();
        let Entered::Member(mut member) = tiles.enter_next(&table, 0, DEADLINE).unwrap() else {
            panic!("the round runs");
        };
        while let Some(token) = member.claim(&table).unwrap() {
            fill_by(&mut member, &table, token);
            member.done(&table, token).unwrap();
        }
        member.leave(&table).unwrap();
        mark();
    });
    end_of_a_round(&ground, &tiles, round);
    drop(tiles);
    ground.survive(run);
}

/// Drops a participant with a tile, its round and its partition; then the table releases what they
/// have left.
fn dropped(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let mut tiles = owned(&ground, &table);
        let round = tiles.begin(&table).unwrap();
        let Entered::Member(mut member) = tiles.enter_next(&table, 0, DEADLINE).unwrap() else {
            panic!("the round runs");
        };
        let token = member.claim(&table).unwrap().unwrap();
        mark();
        fill_by(&mut member, &table, token);
        drop(member);
        drop(round);
        drop(tiles);
        table.reap().unwrap();
        mark();
    });
    ground.survive(run);
}
