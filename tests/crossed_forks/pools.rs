//! Pools, running calls, ready tiles and contexts of workers.

use ndarray::{Axis, Ix1};
use ndshm::error::{PoolError, RoundError};
use ndshm::{Error, OnFailure, Pool, TileContext};

use crate::InChild::{DoesNothing, Refuses};
use crate::{Ground, Row, Vector};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("Pool", "for_each, run, broadcast, map_collect, start, prefault", Refuses, pool),
    ("Pool", "pids, workers, deaths, seed, stats, set_profiling, drop", DoesNothing, pool_private),
    ("RunningCall", "wait_any, finish", Refuses, running),
    ("RunningCall", "done, pids, deaths, stats, on_failure, drop", DoesNothing, running_drop),
    ("ReadyTile", "index, range, rerun, drop", DoesNothing, ready),
    ("FailedTile", "repair", Refuses, failed),
    ("FailedTile", "index, range, worker, message, rerun, drop", DoesNothing, failed),
    ("WorkerContext", "barrier, for_each", Refuses, worker),
];

fn add_one(mut x: ndarray::ArrayViewMut1<'_, u64>, (): &(), _: &TileContext<'_>) {
    x += 1;
}

fn pool(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    ground.cross_kept(&mut pool, |pool| {
        let forked = |error: PoolError| matches!(error, PoolError::Forked);
        assert!(pool.for_each(&tiles, &(), add_one).is_err_and(forked));
        assert!(pool.run(&(), |_, _| Ok(0u64)).is_err_and(forked));
        assert!(pool.broadcast(&(), |_, _| 0u64).is_err_and(forked));
        assert!(
            pool.map_collect(&tiles, &(), |_, _, _| 0u64)
                .is_err_and(forked)
        );
        assert!(pool.start(&tiles, &(), add_one).is_err_and(forked));
        assert!(pool.prefault(&tiles).is_err_and(forked));
    });
    pool.for_each(&tiles, &(), add_one).unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn pool_private(ground: &Ground) {
    let mut pool = Some(Pool::fork(&ground.table, 1).unwrap());
    let pids = pool.as_ref().unwrap().pids();
    ground.cross_kept(&mut pool, |crossed| {
        let pool = crossed.as_mut().unwrap();
        assert_eq!(
            (pool.pids(), pool.workers(), pool.deaths()),
            (pids.clone(), 1, 0)
        );
        pool.set_profiling(true);
        assert!(pool.stats().is_empty(), "the workers are the parent's");
        drop(crossed.take());
    });
    let mut pool = pool.unwrap();
    assert_eq!(pool.broadcast(&(), |_, _| 7u64).unwrap(), [7]);
    assert_eq!(pool.pids(), pids);
}

fn running(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = Some(pool.start(&tiles, &(), add_one).unwrap());
    ground.cross_kept(&mut running, |crossed| {
        let forked = |error: PoolError| matches!(error, PoolError::Forked);
        assert!(crossed.as_mut().unwrap().wait_any(1).is_err_and(forked));
        assert!(crossed.take().unwrap().finish().is_err_and(forked));
    });
    running.unwrap().finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn running_drop(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = Some(pool.start(&tiles, &(), add_one).unwrap());
    ground.cross_kept(&mut running, |running| {
        let child = running.take().unwrap();
        assert!(child.done() <= 10);
        assert_eq!((child.deaths(), child.stats().len()), (0, 0));
        assert!(child.pids()[0].is_some());
        drop(child.on_failure(OnFailure::Skip));
    });
    let mut running = running.unwrap();
    // The child has closed no job: tiles that are sent off again are run.
    for ready in running.wait_any(10).unwrap().ready {
        ready.rerun();
    }
    running.finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 200);
}

fn ready(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let mut running = pool.start(&tiles, &(), add_one).unwrap();
    let mut ready: Vec<_> = running.wait_any(10).unwrap().ready.collect();
    ground.cross_kept(&mut ready, |ready| {
        let first = ready.swap_remove(0);
        assert_eq!((first.index(), first.range()), (0, 0..10));
        first.rerun();
        ready.clear();
    });
    assert_eq!(
        tiles.progress().unwrap().held,
        10,
        "the child sent a tile off"
    );
    drop(ready);
    running.finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 100);
}

fn failed(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 1).unwrap();
    let started = pool.start(&tiles, &(), |mut x, (), tile| {
        x += 1;
        if tile.run() == 0 {
            std::panic::resume_unwind(Box::new("no"));
        }
    });
    let mut running = started.unwrap().on_failure(OnFailure::Skip);
    let mut sent = 0;
    while sent < 10 {
        let mut failed: Vec<_> = running.wait_any(10).unwrap().failed.collect();
        sent += failed.len();
        ground.cross_kept(&mut failed, |failed| {
            if let Some(first) = failed.pop() {
                assert_eq!(
                    (first.range().start, first.worker()),
                    (10 * first.index(), 0)
                );
                assert_eq!(first.message(), "no");
                let refused = first.repair(|_| panic!("the tile is the parent's"));
                assert!(matches!(refused, Err(PoolError::Round(RoundError::Forked))));
            }
            failed.drain(..).for_each(|failed| failed.rerun());
        });
        failed.into_iter().for_each(|failed| failed.rerun());
    }
    running.finish().unwrap();
    assert_eq!(ground.table.read(x).unwrap().sum(), 200);
}

fn worker(ground: &Ground) {
    let x: Vector = ground.table.zeros(100).unwrap();
    let tiles = ground.table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&ground.table, 2).unwrap();
    let refused = pool
        .broadcast(&[tiles.handle().to_bits()], |worker, &[bits]: &[u64; 1]| {
            // SAFETY: a forked worker has one thread.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let forked = |error: Error| error.to_string().contains("forked by a worker");
                let table = worker.table();
                let name = ndshm::PartitionHandle::<ndshm::Write<u64, Ix1>>::from_bits(bits);
                let tiles = table.open_partition(name).unwrap();
                let refused = worker.barrier().is_err_and(|error| forked(error.into()))
                    && worker.for_each(&tiles, |_, _| ()).is_err_and(forked);
                crate::support::exit_at_once(i32::from(!refused));
            }
            let mut status = 0;
            // SAFETY: `status` is a place to write to; the pid is of an own child, which ends.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            // The workers' own barrier still works.
            worker.barrier().unwrap();
            u64::from(status == 0)
        })
        .unwrap();
    assert_eq!(refused, [1, 1]);
}
