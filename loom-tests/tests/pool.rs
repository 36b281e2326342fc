//! The pool: jobs, sleeping and waking, the barrier, and the death of a worker at every step.
//!
//! loom's futex has no timeouts: a wake-up that is lost is a deadlock, and fails the model.
#![cfg(loom)]

use loom_tests::{check, check_deaths};
use ndarray::Axis;
use ndshm::{HandleTable, Pool, PoolError, Segment, model};

/// A segment for a parent and `workers` workers.
fn segment(workers: u32) -> Segment {
    Segment::options()
        .capacity(4096)
        .seats(workers + 1)
        .arrays(16)
        .in_process()
        .unwrap()
}

/// I5, I6, I7: a call is seen by a worker that spins, sleeps or is about to sleep; when it is over
/// the arrays are the parent's again, with all that was written.
#[test]
fn a_call_on_one_worker() {
    check("a_call_on_one_worker", 2, || {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by)
            .unwrap();
        assert_eq!(table.write(x).unwrap()[0], 6);
    });
}

/// I6: parameters and results are those of the call, also of the next one, which reuses their
/// words.
#[test]
fn two_calls_in_a_row() {
    check("two_calls_in_a_row", 1, || {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.read(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        for by in [5, 7] {
            let got = pool
                .map_collect(&tiles, &by, |x, &by: &u64, _| x[0] + by)
                .unwrap();
            assert_eq!(got, [1 + by]);
        }
    });
}

/// I5, I6: two workers share the tiles; whoever comes late finds nothing left, and nobody is in
/// the call when it is over.
#[test]
fn a_call_on_two_workers() {
    check("a_call_on_two_workers", 1, || {
        let segment = segment(2);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(2, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 2).unwrap();
        pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by)
            .unwrap();
        assert_eq!(table.write(x).unwrap().to_vec(), [6, 6]);
    });
}

/// I6: what a worker wrote before a barrier is seen by all after it.
#[test]
fn a_barrier_of_two() {
    check("a_barrier_of_two", 1, || {
        let segment = segment(2);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(1, 1u64).unwrap();
        let mut pool = Pool::threads(&table, 2).unwrap();
        let seen = pool.run(&x, |worker, &x| {
            if worker.worker() == 0 {
                worker.table().write(x)?[0] = 7;
            }
            worker.barrier()?;
            // Without a lease: the barrier alone orders it.
            drop(model::access(worker.table(), x, 0..1, false)?);
            Ok(7u64)
        });
        assert_eq!(seen.unwrap(), [7, 7]);
    });
}

/// I7: a worker that returns while another waits for it at a barrier breaks that barrier.
#[test]
fn a_barrier_that_one_does_not_reach() {
    check("a_barrier_that_one_does_not_reach", 1, || {
        let segment = segment(2);
        let table = HandleTable::join(&segment).unwrap();
        let mut pool = Pool::threads(&table, 2).unwrap();
        let outcome = pool.run(&(), |worker, ()| {
            if worker.worker() == 0 {
                worker.barrier()?;
            }
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker: 0, .. } => {}
            other => panic!("{other}"),
        }
    });
}

/// I1, I5, I7: a worker that is killed before any of its steps: the call ends, whole or with the
/// torn tile, and the next one finds a worker.
#[test]
fn death_of_a_worker() {
    check_deaths("death_of_a_worker", 1, |steps| {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let first = pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by);
        let died = match first {
            Ok(()) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        };
        // Not poisoned if it had not begun.
        let _ = table.clear_poison(x);
        table.write(x).unwrap().fill(0);
        if died {
            pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by)
                .unwrap();
            assert_eq!(table.read(x).unwrap()[0], 5);
        }
        died
    });
}

/// I7: a worker that is killed in a call with a barrier: the other one comes to its end.
#[test]
fn death_before_a_barrier() {
    check_deaths("death_before_a_barrier", 1, |steps| {
        let segment = segment(2);
        let table = HandleTable::join(&segment).unwrap();
        let mut pool = model::mortal_pool(&table, 2, steps).unwrap();
        match pool.run(&(), |worker, ()| Ok(worker.barrier()?)) {
            Ok(_) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        }
    });
}
