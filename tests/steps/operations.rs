//! The operations during which victims are killed: one function each, with the survivor's
//! expectations. This module has what several of them need.

use ndshm::HandleTable;

use crate::ground::{Ground, Vector};
use crate::run::Run;
use crate::support::Child;
use crate::tracer::mark;
use crate::{
    arrays, bundles, foreign, names, participants, pools, queues, rounds, segments, shared, waiting,
};

/// An operation, and the function that performs it once.
pub type Operation = (&'static str, fn(&mut Run));

/// All operations.
pub const OPERATIONS: [&[Operation]; 11] = [
    participants::OPERATIONS,
    arrays::OPERATIONS,
    rounds::OPERATIONS,
    queues::OPERATIONS,
    foreign::OPERATIONS,
    pools::OPERATIONS,
    names::OPERATIONS,
    bundles::OPERATIONS,
    segments::OPERATIONS,
    shared::OPERATIONS,
    waiting::OPERATIONS,
];

/// Performs an operation of a victim that has a seat, on the unchanged ground.
pub fn simple(run: &mut Run, operation: impl FnOnce(&HandleTable, Vector)) {
    let ask = |table: &HandleTable, _| {
        // The first allocation of a process measures the available memory: only "allocate 2 MiB"
        // tests that part.
        table.zeros::<u8, _>(5000).unwrap();
    };
    prepared(run, ask, |table, array, ()| operation(table, array));
}

/// Works like [`simple`], with a victim that prepares something first.
pub fn prepared<P>(
    run: &mut Run,
    prepare: impl FnOnce(&HandleTable, Vector) -> P,
    operation: impl FnOnce(&HandleTable, Vector, P),
) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let before = prepare(&table, ground.array);
        mark();
        operation(&table, ground.array, before);
        mark();
    });
    ground.survive(run);
}

/// Runs `life` in a child that ends without releasing anything.
pub fn dead(life: impl FnOnce()) {
    let child = Child::fork(|| {
        life();
        crate::support::exit_at_once(0);
    });
    child.join();
}
