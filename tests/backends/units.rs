//! Calls on units of tiles: each tile once, with the guarantees of `for_each`.

use ndarray::{ArrayViewMut1, ArrayViewMut2, Axis, Ix1, Ix2, ShapeBuilder};
use ndshm::error::{LeaseError, PoolError};
use ndshm::{
    Grid, Handle, HandleTable, OnFailure, Partition, PartitionHandle, Pool, TileContext,
    UnitContext, Write,
};
use rand_core::Rng;

use crate::support::{Child, KINDS, PROCESSES, die, start, table};

/// Runs `test` with a pool of two workers of each kind, and with a serial one.
fn with_pools(test: impl Fn(&str, &HandleTable, &mut Pool<'_>)) {
    for kind in KINDS {
        Child::fork(|| {
            let table = table();
            test(&format!("{kind:?}"), &table, &mut start(kind, &table, 2));
        })
        .join();
    }
    let table = table();
    test("serial", &table, &mut Pool::serial(&table).unwrap());
}

/// Tiles in units of three: 5,000 of 8 numbers. Tile 100 is in the unit of 99, 100 and 101.
fn threes(table: &HandleTable) -> (Handle<u32, Ix1>, Partition<'_, Write<u32, Ix1>>) {
    let x = table.zeros::<u32, _>(40_000).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 8).unwrap();
    assert_eq!(tiles.claimed_with(100), 99..102);
    (x, tiles)
}

const UNIT: [usize; 3] = [99, 100, 101];
const ROWS: std::ops::Range<usize> = 792..816;

/// Adds the number of its tile to each element, from 1.
fn mark(mut x: ArrayViewMut2<u32>, _: &(), unit: &UnitContext) {
    let first: Vec<_> = unit.tiles().next().unwrap().sides().collect();
    for tile in unit.tiles() {
        let mut part = x.view_mut();
        for (side, first) in tile.sides().zip(&first) {
            // The view of a cyclic tile has its elements alone.
            if side.step == 1 {
                let start = first.range.start;
                let range = side.range.start - start..side.range.end - start;
                part.slice_axis_inplace(Axis(side.axis), range.into());
            }
        }
        part += tile.index() as u32 + 1;
    }
}

fn mark_tile(mut x: ArrayViewMut2<u32>, _: &(), tile: &TileContext) {
    x += tile.index() as u32 + 1;
}

pub fn units_have_the_elements_of_their_tiles() {
    with_pools(|kind, table, pool| {
        let uneven: Vec<usize> = (0..=9000).map(|at| at * at / 9000).collect();
        let grids = [
            ((9000, 3), Grid::blocks([(Axis(0), 2)])),
            ((3, 9001), Grid::blocks([(Axis(1), 1)])),
            ((9000, 2), Grid::bounds(Axis(0), uneven)),
            ((9000, 2), Grid::cyclic(Axis(0), 4000)),
            ((301, 101), Grid::blocks([(Axis(0), 3), (Axis(1), 2)])),
            ((101, 301), Grid::blocks([(Axis(1), 3), (Axis(0), 2)])),
        ];
        for (shape, grid) in grids {
            for fortran in [false, true] {
                let [x, y] = [(); 2].map(|()| table.zeros(shape.set_f(fortran)).unwrap());
                let of = |x: Handle<u32, Ix2>| table.partition_by(x.write(), &grid).unwrap();
                assert!(of(x).tiles() > 2048, "{grid:?}");
                for _ in 0..2 {
                    pool.for_each_unit(&of(x), &(), mark).unwrap();
                    pool.for_each(&of(y), &(), mark_tile).unwrap();
                }
                let (x, y) = (table.read(x).unwrap(), table.read(y).unwrap());
                assert_eq!(*x, *y, "{kind}: {grid:?}");
            }
        }
    });
}

pub fn units_have_the_rows_of_their_tiles() {
    with_pools(|kind, table, pool| {
        let x = table.from_shape_fn(5000, |i| i as u64).unwrap();
        let sums = table.zeros::<u64, _>((5000, 2)).unwrap();
        let all = table.from_elem(3, 10u64).unwrap();
        let group = (x.read(), sums.per_tile(), all.whole());
        let tiles = table.partition(group, Axis(0), 1).unwrap();
        pool.for_each_unit(&tiles, &(), |(x, mut sums, all), (), unit| {
            assert_eq!((x.len(), all.len()), (unit.indices().len(), 3));
            assert_eq!(unit.range(), unit.indices());
            for (&x, mut sum) in x.iter().zip(sums.rows_mut()) {
                sum[0] = x;
                sum[1] = x + all.sum();
            }
        })
        .unwrap();
        let sums = table.read(sums).unwrap();
        let expected = |((tile, at), &sum): ((usize, usize), &u64)| sum == (tile + 30 * at) as u64;
        assert!(sums.indexed_iter().all(expected), "{kind}");
    });
}

pub fn few_tiles_are_units_of_one() {
    with_pools(|_, table, pool| {
        let x = table.zeros::<u32, _>((2048, 2)).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        pool.for_each_unit(&tiles, &(), |mut x, (), unit| {
            assert_eq!(unit.tiles().len(), 1);
            x += 1;
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 4096);
    });
}

pub fn tiles_of_units_draw_their_own_numbers() {
    with_pools(|kind, table, pool| {
        let draws = [(); 2].map(|()| {
            let x = table.zeros::<u64, _>(5000).unwrap();
            (x, table.partition(x.write(), Axis(0), 1).unwrap())
        });
        let first = pool.seed();
        pool.for_each(&draws[0].1, &(), |mut x, (), tile| {
            x[0] = tile.rng().next_u64();
        })
        .unwrap();
        // The first call of another pool.
        let mut other = Pool::builder().seed(first).serial(table).unwrap();
        other
            .for_each_unit(&draws[1].1, &(), |mut x, (), unit| {
                for (x, tile) in x.iter_mut().zip(unit.tiles()) {
                    *x = tile.rng().next_u64();
                }
            })
            .unwrap();
        let [tiles, units] = draws.map(|(x, _)| table.read(x).unwrap());
        assert_eq!(*tiles, *units, "{kind}");
    });
}

pub fn stats_count_the_tiles_of_units() {
    with_pools(|kind, table, pool| {
        let (x, tiles) = threes(table);
        pool.set_profiling(true);
        pool.for_each_unit(&tiles, &(), |mut x, (), _| x += 1)
            .unwrap();
        let run: u64 = pool.stats().iter().map(|worker| worker.tiles).sum();
        assert_eq!(run, 5000, "{kind}");
        assert_eq!(table.read(x).unwrap().sum(), 40_000);
    });
}

pub fn workers_may_loop_over_units() {
    with_pools(|kind, table, pool| {
        let (x, tiles) = threes(table);
        pool.run(&tiles.handle(), |worker, &tiles| {
            let tiles = worker.table().open_partition(tiles)?;
            for _ in 0..3 {
                worker.for_each_unit(&tiles, |mut x, unit| x += unit.step() as u32)?;
            }
            Ok(())
        })
        .unwrap();
        // Each round has two barriers, and begins after the first.
        assert_eq!(table.read(x).unwrap().sum(), 40_000 * (1 + 3 + 5), "{kind}");
    });
}

/// Fills the unit with 7, after a panic at tile 100 if its first number is 0.
fn panic_at_first(mut x: ArrayViewMut1<u32>, _: &(), unit: &UnitContext) {
    let fails = unit.indices().contains(&100) && x[0] == 0;
    x.fill(7);
    if fails {
        std::panic::resume_unwind(Box::new("no hundreds"));
    }
}

fn die_at_first(mut x: ArrayViewMut1<u32>, _: &(), unit: &UnitContext) {
    let dies = unit.indices().contains(&100) && x[0] == 0;
    x.fill(7);
    if dies {
        die();
    }
}

fn torn(tiles: &Partition<'_, Write<u32, Ix1>>) -> Vec<usize> {
    let torn = tiles.torn().unwrap();
    torn.iter().map(|torn| torn.tile).collect()
}

/// Repairs the torn unit of tiles with 100 in each element. All others have 7.
fn repair(table: &HandleTable, x: Handle<u32, Ix1>, tiles: &Partition<'_, Write<u32, Ix1>>) {
    assert_eq!(torn(tiles), UNIT);
    assert_eq!(tiles.read_rest().unwrap().iter().count(), 4997);
    tiles.recover(|_, mut x| x.fill(100)).unwrap();
    let x = table.read(x).unwrap();
    let expected = |(at, &x): (usize, &u32)| x == if ROWS.contains(&at) { 100 } else { 7 };
    assert!(x.iter().enumerate().all(expected));
}

pub fn a_panic_tears_its_unit() {
    with_pools(|kind, table, pool| {
        let (x, tiles) = threes(table);
        for policy in [OnFailure::Fail, OnFailure::Skip] {
            pool.set_on_failure(policy);
            table.write(x).unwrap().fill(0);
            match pool.for_each_unit(&tiles, &(), panic_at_first) {
                Err(PoolError::KernelPanicked {
                    tile,
                    rows,
                    message,
                    ..
                }) => assert_eq!((tile, rows, &*message), (99, ROWS, "no hundreds"), "{kind}"),
                other => panic!("{kind}: {other:?}"),
            }
            assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
            repair(table, x, &tiles);
        }
        pool.set_on_failure(OnFailure::RunAgain);
        table.write(x).unwrap().fill(0);
        pool.for_each_unit(&tiles, &(), panic_at_first).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 280_000, "{kind}");
    });
}

pub fn a_death_tears_its_unit() {
    for kind in PROCESSES {
        let table = table();
        let (x, tiles) = threes(&table);
        let mut pool = start(kind, &table, 2);
        for policy in [OnFailure::Fail, OnFailure::Skip] {
            pool.set_on_failure(policy);
            table.write(x).unwrap().fill(0);
            match pool.for_each_unit(&tiles, &(), die_at_first) {
                Err(PoolError::WorkerDied { tiles, rows, .. }) => {
                    assert_eq!(tiles, UNIT, "{kind:?}");
                    assert_eq!(rows, [792..800, 800..808, 808..816], "{kind:?}");
                }
                other => panic!("{kind:?}: {other:?}"),
            }
            repair(&table, x, &tiles);
        }
        let deaths = pool.deaths();
        pool.set_on_failure(OnFailure::RunAgain);
        table.write(x).unwrap().fill(0);
        pool.for_each_unit(&tiles, &(), die_at_first).unwrap();
        assert_eq!(pool.deaths(), deaths + 1, "{kind:?}");
        assert_eq!(table.read(x).unwrap().sum(), 280_000, "{kind:?}");
    }
}

/// A panic in a unit of a worker's own loop fails the call, and its round ends with the unit torn.
pub fn a_panic_in_a_loop_over_units_tears_the_unit() {
    with_pools(|kind, table, pool| {
        let (x, tiles) = threes(table);
        let loops = |worker: &ndshm::WorkerContext<'_>,
                     tiles: &PartitionHandle<Write<u32, Ix1>>| {
            let tiles = worker.table().open_partition(*tiles)?;
            worker.for_each_unit(&tiles, |x, unit| panic_at_first(x, &(), unit))
        };
        let failed = pool.run(&tiles.handle(), loops);
        assert!(
            matches!(failed, Err(PoolError::WorkerFailed { .. })),
            "{kind}"
        );
        assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
        assert!(table.clear_poison(x).is_ok(), "{kind}");
    });
}

/// The tile in the middle of a unit has a byte that is no `bool`: it is torn alone.
pub fn an_invalid_tile_leaves_its_unit() {
    with_pools(|kind, table, pool| {
        let x = table.from_elem(5000, false).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut attached = table.attach(x).unwrap();
        // SAFETY: byte 100 is inside the array.
        let byte = unsafe { attached.as_mut_ptr().cast::<u8>().add(100) };
        // SAFETY: nothing else accesses the array.
        unsafe { byte.write(7) };
        match pool.for_each_unit(&tiles, &(), |mut x, (), _| x.fill(true)) {
            Err(PoolError::KernelPanicked {
                tile,
                rows,
                message,
                ..
            }) => {
                assert_eq!((tile, rows), (100, 100..101), "{kind}");
                assert!(message.contains("0x07"), "{kind}: {message}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        // SAFETY: as above.
        unsafe { byte.write(1) };
        table.clear_poison(x).unwrap();
        assert!(table.read(x).unwrap().iter().all(|&x| x), "{kind}");
    });
}
