//! The pool: jobs, sleeping and waking, the barrier, and the death of a worker at every step.
//!
//! loom's futex has no timeouts: a wake-up that is lost is a deadlock, and fails the model.
#![cfg(loom)]

use loom_tests::{check, check_deaths};
use ndarray::Axis;
use ndshm::{HandleTable, OnDeath, Pool, PoolError, Segment, model};

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
    check("a_call_on_one_worker", 1, || {
        let segment = segment(1);
        let table = HandleTable::join(&segment).unwrap();
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by).unwrap();
        assert_eq!(table.write(x).unwrap()[0], 6);
    });
}
