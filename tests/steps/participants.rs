//! Operations on seats and on the whole segment: joining, leaving, reaping, verifying.

use std::time::Duration;

use ndarray::Axis;

use crate::ground::Ground;
use crate::operations::{Operation, dead};
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("join", join),
    ("leave", leave),
    ("the first use after a fork", first_use),
    ("reap", reap),
    ("verify", verify),
];

fn join(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        mark();
        let table = ground.join();
        mark();
        drop(table);
    });
    ground.survive(run);
}

fn leave(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        table.zeros::<u8, _>(100).unwrap();
        let detached = table.zeros::<f32, _>(100).unwrap();
        table.detach(detached).unwrap();
        mark();
        drop(table);
        mark();
    });
    ground.survive(run);
}

fn first_use(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        mark();
        ground.table.seat().unwrap();
        mark();
    });
    ground.survive(run);
}

fn reap(run: &mut Run) {
    let ground = Ground::new();
    let read = ground.table.from_elem(2, 0u64).unwrap();
    let rows = ground.table.from_elem(4, 0u64).unwrap();
    let tiles = ground.table.partition(rows.write(), Axis(0), 2).unwrap();
    let queue = ground.table.queue::<u64>(2).unwrap();
    let round = tiles.begin().unwrap();
    let (tiles_name, queue_name) = (tiles.handle(), queue.handle());
    run.victim(|| {
        // Join first, because joining reaps, too.
        let table = ground.join();
        dead(|| {
            let table = ground.join();
            table.zeros::<u64, _>(5).unwrap();
            std::mem::forget(table.read(read).unwrap());
            let mut guard = table.write(ground.array).unwrap();
            guard[0] = 1;
            std::mem::forget(guard);
            let tiles = table.open_partition(tiles_name).unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            std::mem::forget(part.claim().unwrap());
            let queue = table.open_queue(queue_name).unwrap();
            queue.push(1).unwrap();
            crate::support::exit_at_once(0);
        });
        mark();
        table.reap().unwrap();
        mark();
    });
    ground.table.reap().unwrap();
    let missing = round.finish(Duration::ZERO);
    assert!(missing.is_err(), "a tile is torn, the other was not begun");
    drop(tiles);
    assert_eq!(queue.pop().unwrap(), Some(1));
    drop(queue);
    assert!(ground.table.read(rows).is_err(), "torn, so poisoned");
    assert!(
        ground.table.read(ground.array).is_err(),
        "half-written, so poisoned"
    );
    ground.table.write(read).unwrap().fill(1);
    ground.survive(run);
}

fn verify(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        mark();
        assert!(table.verify().unwrap().is_clean());
        mark();
    });
    drop(queue);
    ground.survive(run);
}
