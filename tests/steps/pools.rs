//! Calls of pools: the parent, and a worker in the same process, die at any step of the report of a
//! failed tile, its repair and its next run, or at any step from a unit of tiles to the next.

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::{OnFailure, Partition, Pool, TileContext, UnitContext, Write};

use crate::ground::Ground;
use crate::operations::Operation;
use crate::run::Run;
use crate::support::DEADLINE;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("a tile fails, and is reported", fail),
    ("repair a failed tile, and run it again", repair),
    ("run a unit of tiles, and claim the next", unit),
    ("a unit of tiles fails", failed_unit),
    ("two calls that keep their round", kept),
];

/// Fills the tile. Its first run leaves it half-written, and panics.
fn fill(mut x: ArrayViewMut1<'_, u64>, (): &(), tile: &TileContext<'_>) {
    let run = tile.run() + 1;
    x[0] = run;
    if run == 1 {
        std::panic::resume_unwind(Box::new("half-way"));
    }
    x[1] = run;
}

fn fail(run: &mut Run) {
    failing(run, true);
}

fn repair(run: &mut Run) {
    failing(run, false);
}

/// Runs a call in a victim. Its operation is the part up to the report of the failure, or the part
/// after it.
fn failing(run: &mut Run, up_to_report: bool) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 2).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        if up_to_report {
            mark();
        }
        let started = pool.start(&tiles, &(), fill).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut failed = running.wait_any(1).unwrap().failed;
        let failed = failed.next().expect("its first run fails");
        mark();
        failed.repair(|mut x| x.fill(7)).unwrap().rerun();
        let ready = running.wait_any(1).unwrap().ready;
        assert_eq!(ready.count(), 1);
        running.finish().unwrap();
        if !up_to_report {
            mark();
        }
        drop(pool);
        drop(tiles);
    });
    ground.survive(run);
}

fn kept(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 2).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        let mut steps = pool.steps(&tiles);
        steps.for_each(&1, |mut x, &one, _| x.fill(one)).unwrap();
        mark();
        steps.for_each(&1, |mut x, &one, _| x.fill(one)).unwrap();
        drop(steps);
        mark();
    });
    ground.survive(run);
}

/// Fills the unit. The operation begins with the second unit half-written, and ends with the third
/// claimed.
fn fill_unit(mut x: ArrayViewMut1<'_, u64>, (): &(), unit: &UnitContext<'_>) {
    let first = unit.indices().start;
    if first == 4 {
        mark();
    }
    x[0] = 1;
    if first == 2 {
        mark();
    }
    x.fill(1);
}

fn panic_in_the_second(mut x: ArrayViewMut1<'_, u64>, (): &(), unit: &UnitContext<'_>) {
    if unit.indices().start == 2 {
        x[0] = 1;
        mark();
        std::panic::resume_unwind(Box::new("the second unit"));
    }
    fill_unit(x, &(), unit);
}

fn unit(run: &mut Run) {
    in_units(run, |pool, tiles| {
        pool.for_each_unit(tiles, &(), fill_unit).unwrap();
    });
}

fn failed_unit(run: &mut Run) {
    in_units(run, |pool, tiles| {
        let failed = pool.for_each_unit(tiles, &(), panic_in_the_second);
        failed.unwrap_err();
    });
}

/// Runs a call in a victim, on units of two tiles of two numbers each. Only the units that it can have
/// held are half-written, and only if the array is poisoned. The next round runs all tiles.
fn in_units(run: &mut Run, call: impl Fn(&mut Pool<'_>, &Partition<'_, Write<u64, Ix1>>)) {
    const TILES: usize = 2050;
    let ground = Ground::new();
    let x = ground.table.zeros::<u64, _>(2 * TILES).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 2).unwrap();
    assert_eq!(tiles.claimed_with(2), 2..4);
    let name = tiles.handle();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.open_partition(name).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        call(&mut pool, &tiles);
    });
    ground.table.reap().unwrap();
    // The victim opened the round, so its death poisons the whole array.
    let is_poisoned = ground.table.info(x).unwrap().poisoned;
    if is_poisoned {
        ground.table.clear_poison(x).unwrap();
    }
    let all = ground.table.read(x).unwrap();
    for index in 0..TILES {
        let tile = [all[2 * index], all[2 * index + 1]];
        let was_run = tile == [1, 1] || tile == [0, 0] && index >= 4;
        let was_held = is_poisoned && (2..6).contains(&index);
        assert!(was_run || was_held, "tile {index}: {tile:?}");
    }
    drop(all);
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().fill(2);
    }
    drop(part);
    round.finish(DEADLINE).unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 4 * TILES as u64);
    drop(tiles);
    ground.table.free(x).unwrap();
    ground.survive(run);
}
