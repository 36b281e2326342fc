//! Leases at the forks of a pool: no worker is forked while a guard exists that a kernel could
//! reach as a copy.

mod support;

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::error::PoolError;
use ndshm::{AnyHandle, Handle, HandleTable, OnFailure, Pool, Segment, TileContext, WriteGuard};
use std::cell::RefCell;
use support::{Child, Flag, table};

fn main() {
    ndshm::become_worker();
    support::run_tests![
        a_lease_of_another_table_prevents_a_fork,
        a_lease_in_another_segment_prevents_a_fork,
        every_kind_of_lease_prevents_a_fork,
        a_lease_prevents_the_replacement_of_a_dead_worker,
        a_call_without_workers_fails_beside_a_lease,
        leases_of_the_call_do_not_prevent_a_replacement,
        another_lease_of_an_array_of_the_call_prevents_a_replacement,
        a_tile_held_by_the_parent_prevents_a_replacement,
        leases_that_crossed_a_fork_do_not_count,
        a_worker_may_start_a_pool,
        spawned_workers_start_beside_leases,
    ];
}

thread_local! {
    /// The guard that a kernel would find if it was forked while the guard existed.
    static GUARD: RefCell<Option<WriteGuard<'static, u64, Ix1>>> = const { RefCell::new(None) };
}

fn leaked(segment: &Segment) -> &'static HandleTable {
    Box::leak(Box::new(HandleTable::join(segment).unwrap()))
}

#[track_caller]
fn assert_held<T>(outcome: Result<T, PoolError>, x: impl Into<AnyHandle>) {
    let x = x.into();
    match outcome {
        Err(PoolError::LeaseHeld { handle }) => assert_eq!(handle, x),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a worker was forked"),
    }
}

fn use_the_guard(_: ArrayViewMut1<u64>, _: &(), tile: &TileContext) {
    GUARD.with(|guard| {
        if let Some(guard) = guard.borrow_mut().as_mut() {
            guard[tile.index()] = u64::from(std::process::id());
        }
    });
}

fn abort_at_tile_0(_: ArrayViewMut1<u64>, _: &(), tile: &TileContext) {
    if tile.index() == 0 {
        std::process::abort();
    }
}

fn a_lease_of_another_table_prevents_a_fork() {
    let table = table();
    let other = leaked(table.segment());
    let shared = other.zeros::<u64, _>(4).unwrap();
    GUARD.set(Some(other.write(shared).unwrap()));
    assert_held(Pool::fork(&table, 2), shared);
    // SAFETY: there is no other thread.
    assert_held(unsafe { Pool::fork_with_threads(&table, 2) }, shared);
    GUARD.set(None);
    drop(Pool::fork(&table, 2).unwrap());
}

fn a_lease_in_another_segment_prevents_a_fork() {
    let other = leaked(&Segment::anonymous().unwrap());
    let x = other.zeros::<u64, _>(4).unwrap();
    let guard = other.read(x).unwrap();
    assert_held(Pool::fork(&table(), 1), x);
    drop(guard);
    Pool::fork(&table(), 1).unwrap();
}

fn every_kind_of_lease_prevents_a_fork() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let fork = || Pool::fork(&table, 1).map(drop);
    fork().unwrap();
    {
        let _guard = table.read(x).unwrap();
        assert_held(fork(), x);
    }
    {
        let _guard = table.read_untyped(x).unwrap();
        assert_held(fork(), x);
    }
    {
        let _guard = table.write_untyped(x).unwrap();
        assert_held(fork(), x);
    }
    table.recover(x, |_| assert_held(fork(), x)).unwrap();
    // A round, a participant of it, and a tile: like the round, each is a lease of the array.
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    let round = tiles.begin().unwrap();
    assert_held(fork(), x);
    {
        let mut part = tiles.enter().unwrap().unwrap();
        let _tile = part.claim().unwrap().unwrap();
        assert_held(fork(), x);
    }
    drop(round);
    // A guard that is never dropped stays in force for ever.
    fork().unwrap();
    std::mem::forget(table.read(x).unwrap());
    assert_held(fork(), x);
}

fn a_lease_prevents_the_replacement_of_a_dead_worker() {
    let table = leaked(&Segment::anonymous().unwrap());
    let shared = table.zeros::<u64, _>(4).unwrap();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::fork(table, 2).unwrap();
    let died = pool.for_each(&tiles, &(), abort_at_tile_0);
    assert!(matches!(died, Err(PoolError::WorkerDied { .. })));
    table.clear_poison(x).unwrap();
    GUARD.set(Some(table.write(shared).unwrap()));
    for _ in 0..20 {
        pool.for_each(&tiles, &(), use_the_guard).unwrap();
    }
    let guard = GUARD.take().unwrap();
    assert_eq!(
        guard.to_vec(),
        [0; 4],
        "a worker reached the parent's guard"
    );
    assert_eq!(pool.pids().iter().flatten().count(), 1);
    // A barrier would wait for the missing worker.
    assert_held(pool.run(&(), |_, ()| Ok(())), shared);
    drop(guard);
    pool.for_each(&tiles, &(), use_the_guard).unwrap();
    assert_eq!(pool.pids().iter().flatten().count(), 2);
}

fn a_call_without_workers_fails_beside_a_lease() {
    let table = table();
    let (x, y) = (
        table.zeros::<u64, _>(4).unwrap(),
        table.zeros::<u64, _>(4).unwrap(),
    );
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::fork(&table, 1).unwrap();
    assert!(pool.for_each(&tiles, &(), abort_at_tile_0).is_err());
    table.clear_poison(x).unwrap();
    let guard = table.read(y).unwrap();
    assert_held(pool.for_each(&tiles, &(), use_the_guard), y);
    drop(guard);
    pool.for_each(&tiles, &(), use_the_guard).unwrap();
}

/// Aborts in the first run of a tile, after raising a flag.
fn abort_once(mut x: ArrayViewMut1<u64>, flag: u64, tile: &TileContext) {
    if tile.index() == 3 && !Flag::is_raised(flag) {
        Flag::raise(flag);
        std::process::abort();
    }
    x += 1;
}

fn leases_of_the_call_do_not_prevent_a_replacement() {
    let table = table();
    let (x, y) = (
        table.zeros::<u64, _>(8).unwrap(),
        table.zeros::<u64, _>(8).unwrap(),
    );
    // One array is written, one is read twice: the round has a lease for each use.
    let tiles = table
        .partition((x.write(), y.read(), y.whole()), Axis(0), 1)
        .unwrap();
    let mut pool = Pool::fork(&table, 1).unwrap();
    pool.set_on_failure(OnFailure::RunAgain);
    let flag = Flag::new();
    pool.for_each(&tiles, &flag.number, |(x, _, _), &flag, tile| {
        abort_once(x, flag, tile)
    })
    .unwrap();
    assert_eq!((table.read(x).unwrap().sum(), pool.deaths()), (8, 1));
    // Now the parent takes part in the round, too.
    let flag = Flag::new();
    let mut running = pool
        .start(&tiles, &flag.number, |(x, _, _), &flag, tile| {
            abort_once(x, flag, tile)
        })
        .unwrap();
    assert_eq!(running.wait_any(8).unwrap().len(), 8);
    running.finish().unwrap();
    assert_eq!((table.read(x).unwrap().sum(), pool.deaths()), (16, 2));
}

fn another_lease_of_an_array_of_the_call_prevents_a_replacement() {
    let table = table();
    let (x, y) = (
        table.zeros::<u64, _>(8).unwrap(),
        table.zeros::<u64, _>(8).unwrap(),
    );
    let tiles = table.partition((x.write(), y.read()), Axis(0), 1).unwrap();
    let mut pool = Pool::fork(&table, 1).unwrap();
    pool.set_on_failure(OnFailure::RunAgain);
    // Take one more lease of an array that the call itself reads.
    let guard = table.read(y).unwrap();
    let flag = Flag::new();
    let outcome = pool.for_each(&tiles, &flag.number, |(x, _), &flag, tile| {
        abort_once(x, flag, tile)
    });
    assert!(
        matches!(outcome, Err(PoolError::WorkerDied { .. })),
        "{outcome:?}"
    );
    assert_eq!(pool.pids(), [None], "no worker was forked beside the guard");
    drop(guard);
    table.clear_poison(x).unwrap();
    pool.for_each(&tiles, &flag.number, |(x, _), &flag, tile| {
        abort_once(x, flag, tile)
    })
    .unwrap();
}

fn a_tile_held_by_the_parent_prevents_a_replacement() {
    let table = table();
    let x = table.zeros::<u64, _>(8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::fork(&table, 1).unwrap();
    pool.set_on_failure(OnFailure::RunAgain);
    let (go, flag) = (Flag::new(), Flag::new());
    let flags = [go.number, flag.number];
    let mut running = pool
        .start(&tiles, &flags, |x, &[go, flag], tile| {
            Flag::wait(go);
            abort_once(x, flag, tile);
        })
        .unwrap();
    // The parent claims a tile itself, and holds its views when the worker dies.
    let mut part = tiles.enter().unwrap().unwrap();
    let mut held = part.claim().unwrap().unwrap();
    assert_ne!(held.index(), 3, "the worker begins with tile 0");
    Flag::raise(go.number);
    let outcome = running.wait_any(8).map(|ready| ready.len());
    assert!(
        matches!(outcome, Err(PoolError::WorkerDied { .. })),
        "{outcome:?}"
    );
    held.views()[0] += 1;
}

fn leases_that_crossed_a_fork_do_not_count() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let guard = table.write(x).unwrap();
    Child::fork(|| {
        // The guard belongs to the parent. Only this process's own leases count.
        let y = table.zeros::<u64, _>(4).unwrap();
        drop(Pool::fork(&table, 1).unwrap());
        let own = table.read(y).unwrap();
        assert_held(Pool::fork(&table, 1), y);
        drop(own);
        Pool::fork(&table, 1).unwrap();
    })
    .join();
    assert_held(Pool::fork(&table, 1), x);
    drop(guard);
}

fn a_worker_may_start_a_pool() {
    let table = table();
    let x = table.zeros::<u64, _>(6).unwrap();
    for spawn in [false, true] {
        let mut pool = match spawn {
            false => Pool::fork(&table, 2).unwrap(),
            true => Pool::spawn(&table, 2).unwrap(),
        };
        // The parameters and the results need arrays of their own.
        let sums = pool
            .run(&[x; 40], |worker, x: &[Handle<u64, Ix1>; 40]| {
                if worker.worker() == 0 {
                    let tiles = worker.table().partition(x[39].write(), Axis(0), 2)?;
                    let mut inner = Pool::fork(worker.table(), 2)?;
                    inner.for_each(&tiles, &(), |mut x, (), _| x += 1)?;
                    let parts = inner.map_collect(&tiles, &(), |x, (), _| x.sum())?;
                    return Ok(parts.iter().sum());
                }
                Ok(0u64)
            })
            .unwrap();
        assert_eq!(sums, [6 + 6 * u64::from(spawn), 0]);
        // The error names the lease that a kernel holds.
        let errors = pool
            .run(&x, |worker, &x: &Handle<u64, Ix1>| {
                let Ok(_guard) = worker.table().read(x) else {
                    return Ok(2u64);
                };
                match Pool::fork(worker.table(), 1) {
                    Err(PoolError::LeaseHeld { handle }) if handle == x.into() => Ok(1),
                    _ => Ok(0),
                }
            })
            .unwrap();
        assert_eq!(errors, [1, 1]);
    }
}

fn spawned_workers_start_beside_leases() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let y = table.zeros::<u64, _>(4).unwrap();
    let _guard = table.write(y).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::spawn(&table, 2).unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 4);
}
