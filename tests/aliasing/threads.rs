//! Pools of threads: kernels, results, parameters, and tiles that are run again.

use ndarray::Axis;
use ndshm::Pool;
use ndshm::error::PoolError;

use super::table;

const WORKERS: usize = 2;

#[test]
fn kernels_write_their_tiles() {
    let table = table();
    let x = table.zeros::<u64, _>((6, 2)).unwrap();
    let y = table.from_elem((6, 2), 3u64).unwrap();
    let tiles = table.partition((x.write(), y.read()), Axis(0), 2).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    // The first parameters fit beside the arguments; the others need an array of their own.
    for by in [[1u64; 2], [2; 2]] {
        pool.for_each(&tiles, &by, |(mut x, y), by, _| {
            x.zip_mut_with(&y, |x, y| *x += by[0] * y)
        })
        .unwrap();
    }
    pool.for_each(&tiles, &[1u64; 100], |(mut x, _), by, tile| {
        x += by[tile.index()]
    })
    .unwrap();
    let sums = pool
        .map_collect(&tiles, &(), |(x, _), (), _| x.sum())
        .unwrap();
    assert_eq!(sums, [40, 40, 40]);
    assert_eq!(table.read(x).unwrap().sum(), 120);
}

#[test]
fn a_loop_runs_in_the_workers() {
    let table = table();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    let handle = tiles.handle();
    let counts = pool
        .run(&handle.to_bits(), |worker, &tiles| {
            let tiles = worker.table().open_partition(ndshm::PartitionHandle::<
                ndshm::Write<u64, ndarray::Ix1>,
            >::from_bits(tiles))?;
            for _ in 0..2 {
                worker.for_each(&tiles, |mut x, _| x += 1)?;
                worker.barrier()?;
            }
            Ok(worker.worker() as u64)
        })
        .unwrap();
    assert_eq!(counts, [0, 1]);
    assert_eq!(table.read(x).unwrap().to_vec(), [2; 4]);
}

#[test]
fn workers_stay_in_a_round() {
    let table = table();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut steps = pool.steps(&tiles);
    for by in 1..=2 {
        steps.for_each(&by, |mut x, &by, _| x += by).unwrap();
        steps.for_each_unit(&(), |mut x, (), _| x *= 2).unwrap();
    }
    assert_eq!(steps.map_collect(&(), |x, (), _| x[0]).unwrap(), [8; 4]);
    drop(steps);
    pool.run(&tiles.handle(), |worker, &tiles| {
        let tiles = worker.table().open_partition(tiles)?;
        worker.steps(&tiles, |steps| {
            (0..3).try_for_each(|_| steps.for_each(|mut x, _| x += 1))
        })
    })
    .unwrap();
    assert_eq!(table.read(x).unwrap().to_vec(), [11; 4]);
}

#[test]
fn ready_tiles_run_again() {
    let table = table();
    let x = table.zeros::<u64, _>(3).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    let mut sent = 0;
    while sent < 6 {
        for mut ready in running.wait_any(1).unwrap().ready {
            ready.views()[0] += 10;
            ready.rerun();
            sent += 1;
        }
    }
    running.finish().unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 3 + 11 * sent);
}

#[test]
fn a_kernel_that_panics_tears_its_tile() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let outcome = pool.for_each(&tiles, &(), |mut x, (), tile| {
        x += 1;
        assert!(tile.index() != 2, "no");
    });
    assert!(matches!(
        outcome,
        Err(PoolError::KernelPanicked { tile: 2, .. })
    ));
    table.clear_poison(x).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 4);
}

#[cfg(feature = "rand")]
#[test]
fn primitives_sum_resample_and_gather() {
    let table = table();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let x = table.from_shape_fn(9, |at| at as f64).unwrap();
    assert_eq!(pool.sum(x).unwrap(), 36.0);
    let index = table.zeros::<u64, _>(9).unwrap();
    let weights = table.from_elem(9, 1.0).unwrap();
    pool.resample_systematic(weights, 0.5, index).unwrap();
    let to = table.zeros::<f64, _>(9).unwrap();
    pool.gather(x, index, to).unwrap();
    assert_eq!(table.read(to).unwrap().sum(), 36.0);
}
