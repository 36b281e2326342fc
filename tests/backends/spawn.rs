//! Workers of programs with threads, and of programs that do not call `become_worker`.

use ndarray::Axis;
use ndshm::Pool;
use ndshm::error::PoolError;
use rayon::prelude::*;

use crate::support::{KINDS, Kind, table};
use crate::{kill_at_tile_5, support, with_each_pool};

/// Environment variable: if set, `main` leaves out its first line, `become_worker`.
pub const FORGETFUL: &str = "NDSHM_TEST_FORGETFUL";

pub fn spawn_works_beside_threads_and_fork_does_not() {
    let table = table();
    let x = table.from_shape_fn(1000, |i| i as u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let threaded: u64 = (0..1000u64).into_par_iter().sum();
    let mut pool = Pool::spawn(&table, 2).unwrap();
    let sum = pool
        .map_reduce(
            &tiles,
            &(),
            |x, (), _| x.sum(),
            0,
            |sum, part: u64| sum + part,
        )
        .unwrap();
    assert_eq!(sum, threaded);
    assert!(matches!(
        Pool::fork(&table, 1),
        Err(PoolError::Threads { .. })
    ));
}

pub fn kernels_may_use_rayon() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.for_each(tiles, &(), |mut x, (), tile| {
            let sum: u32 = (0..1000u32).into_par_iter().map(|x| x % 10).sum();
            x.fill(sum + tile.index() as u32);
        })
        .unwrap();
        let total = table.read(x).unwrap().sum();
        assert_eq!(total, 100 * 4500 + 10 * 45, "{kind:?}");
        let threads = pool
            .broadcast(&(), |_, ()| rayon::current_num_threads() as u64)
            .unwrap();
        let processors = std::thread::available_parallelism().unwrap().get();
        if kind != Kind::Threads {
            assert_eq!(threads, [(processors / 2).max(1) as u64; 2], "{kind:?}");
        }
    });
}

pub fn fork_is_refused_after_rayon() {
    let table = table();
    let sum: u32 = (0..1000u32).into_par_iter().sum();
    assert_eq!(sum, 499_500);
    match Pool::fork(&table, 2).unwrap_err() {
        PoolError::Threads { threads } => assert!(threads > 1),
        other => panic!("{other}"),
    }
}

/// Checks a parent that starts threads after the fork: dead workers are not replaced, the others go
/// on.
pub fn threads_started_after_a_fork_prevent_replacements() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    assert_eq!((0..10u32).into_par_iter().sum::<u32>(), 45);
    let outcome = pool.for_each(&tiles, &(), kill_at_tile_5);
    assert!(matches!(outcome, Err(PoolError::WorkerDied { .. })));
    table.clear_poison(x).unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(2))
        .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 200);
    assert_eq!(pool.pids().iter().flatten().count(), 1);
    // A barrier would wait for the missing worker.
    let outcome = pool.run(&(), |worker, ()| Ok(worker.barrier()?));
    assert!(matches!(outcome, Err(PoolError::Threads { .. })));
    let outcome = pool.for_each(&tiles, &(), kill_at_tile_5);
    assert!(matches!(outcome, Err(PoolError::WorkerDied { .. })));
    table.clear_poison(x).unwrap();
    let outcome = pool.for_each(&tiles, &(), |mut x, (), _| x.fill(2));
    assert!(
        matches!(outcome, Err(PoolError::Threads { .. })),
        "no worker is left"
    );
}

pub fn fork_with_threads_works_beside_a_sleeping_thread() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    // SAFETY: the other thread holds no lock: it sleeps until its channel closes. The kernel takes
    // none.
    let mut pool = unsafe { Pool::fork_with_threads(&table, 2) }.unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(3))
        .unwrap();
    drop(pool);
    assert_eq!(table.read(x).unwrap().sum(), 300);
    drop(end);
    assert!(thread.join().unwrap().is_err());
}

/// Runs as a worker that does not call `become_worker` first.
pub fn forget_to_become_a_worker() -> ! {
    let table = table();
    match Pool::spawn(&table, 1) {
        Err(PoolError::NotAWorker) => support::exit_at_once(7),
        _ => support::exit_at_once(8),
    }
}

pub fn spawn_reports_a_missing_become_worker() {
    let table = table();
    // SAFETY: this test's process has one thread.
    unsafe { std::env::set_var(FORGETFUL, "1") };
    match Pool::spawn(&table, 2).unwrap_err() {
        error @ PoolError::WorkerNotStarted { code: Some(7), .. } => {
            assert!(error.to_string().contains("become_worker"), "{error}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(table.reap().unwrap().seats, 0);
}
