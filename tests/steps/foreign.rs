//! Operations on foreign pools: whatever a death interrupts, the survivor is told, and the place or
//! the pool is free again.

use std::time::Duration;

use ndshm::pool::foreign::{Answer, ForeignPool, ForeignWorker};

use crate::ground::Ground;
use crate::operations::{Operation, simple};
use crate::run::Run;
use crate::support::DEADLINE;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("make a foreign pool", pool),
    ("attach to a foreign pool", attach),
    ("answer a foreign call", answer),
    ("leave a foreign pool", leave),
    ("call foreign workers", call),
    ("announce a foreign call again, and cancel it", announce),
];

/// Bytes that fit neither the mailbox nor a report.
const LONG: [u8; 500] = [7; 500];

fn pool(run: &mut Run) {
    simple(run, |table, _| drop(ForeignPool::new(table, 1).unwrap()));
}

/// Returns a pool on the ground, and another table of its segment.
fn new(ground: &Ground) -> ForeignPool<&ndshm::HandleTable> {
    ForeignPool::new(&ground.table, 1).unwrap()
}

/// Checks that the victim's place is free, and that another worker can answer from it.
fn assert_works(ground: &Ground, mut pool: ForeignPool<&ndshm::HandleTable>) {
    assert!(pool.pids().unwrap().iter().all(Option::is_none));
    let table = ground.join();
    let place = Some(0);
    let mut worker = ForeignWorker::attach(&table, pool.handle(), place, DEADLINE).unwrap();
    pool.call(2, b"x").unwrap();
    let call = worker.next(DEADLINE).unwrap().unwrap();
    worker.finish(&call.bytes).unwrap();
    assert!(pool.wait(DEADLINE).unwrap());
    let answers = pool.end().unwrap();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].outcome, Answer::Finished(b"x".to_vec()));
    drop(pool);
    assert!(worker.next(DEADLINE).unwrap_err().is_gone());
}

fn attach(run: &mut Run) {
    let ground = Ground::new();
    let pool = new(&ground);
    run.victim(|| {
        let table = ground.join();
        mark();
        let worker = ForeignWorker::attach(&table, pool.handle(), None, Duration::ZERO).unwrap();
        mark();
        // An undisturbed victim ends like a killed one.
        std::mem::forget(worker);
    });
    assert_works(&ground, pool);
    ground.survive(run);
}

/// The victim comes during a call, and dies while it answers.
fn answer(run: &mut Run) {
    let ground = Ground::new();
    let mut pool = ForeignPool::new(&ground.table, 2).unwrap();
    let handle = pool.handle();
    let other = ground.join();
    let mut other = ForeignWorker::attach(other, handle, None, DEADLINE).unwrap();
    pool.call(1, &LONG).unwrap();
    run.victim(|| {
        let table = ground.join();
        let mut worker = ForeignWorker::attach(&table, handle, None, DEADLINE).unwrap();
        let call = worker.next(DEADLINE).unwrap().unwrap();
        mark();
        worker.finish(&call.bytes).unwrap();
        mark();
        std::mem::forget(worker);
    });
    let call = other.next(DEADLINE).unwrap().unwrap();
    other.finish(&call.bytes).unwrap();
    drop(other);
    assert!(pool.wait(DEADLINE).unwrap());
    for answer in pool.end().unwrap() {
        match answer.outcome {
            Answer::Finished(bytes) => assert_eq!(bytes, LONG),
            Answer::Died | Answer::Lost => {}
            other => panic!("{other:?}"),
        }
    }
    assert_works(&ground, pool);
    ground.survive(run);
}

/// A whole call in one process, which dies as parent and as worker.
fn call(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let (table, other) = (ground.join(), ground.join());
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let mut worker = ForeignWorker::attach(&other, handle, None, DEADLINE).unwrap();
        mark();
        pool.call(1, &LONG).unwrap();
        let call = worker.next(DEADLINE).unwrap().unwrap();
        worker.finish(&call.bytes).unwrap();
        assert!(pool.wait(DEADLINE).unwrap());
        pool.end().unwrap();
        mark();
    });
    ground.survive(run);
}

fn announce(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let (table, other) = (ground.join(), ground.join());
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let mut worker = ForeignWorker::attach(&other, handle, None, DEADLINE).unwrap();
        mark();
        pool.call(1, b"x").unwrap();
        worker.next(DEADLINE).unwrap().unwrap();
        worker.finish(b"first").unwrap();
        pool.announce().unwrap();
        worker.next(DEADLINE).unwrap().unwrap();
        pool.cancel().unwrap();
        assert!(!worker.is_wanted());
        worker.notify().unwrap();
        worker.finish(b"second").unwrap();
        assert!(pool.wait(DEADLINE).unwrap());
        pool.end().unwrap();
        mark();
    });
    ground.survive(run);
}

fn leave(run: &mut Run) {
    let ground = Ground::new();
    let pool = new(&ground);
    run.victim(|| {
        let table = ground.join();
        let worker = ForeignWorker::attach(&table, pool.handle(), None, DEADLINE).unwrap();
        mark();
        drop(worker);
        mark();
    });
    assert_works(&ground, pool);
    ground.survive(run);
}
