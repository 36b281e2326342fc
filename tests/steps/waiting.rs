//! Operations of leases that wait, and of the leases for which others wait.

use std::time::Duration;

use ndshm::error::LeaseError;
use ndshm::untyped::Mode;
use ndshm::{HandleTable, SharedTable};

use crate::ground::{Ground, Vector};
use crate::operations::{Operation, dead};
use crate::run::Run;
use crate::support::{Child, DEADLINE, Pipe};
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("wait to write behind a reader, in vain", write_in_vain),
    ("wait to read behind a writer, in vain", read_in_vain),
    ("wait to write behind a dead reader", write_behind_the_dead),
    ("wait to read behind a dead writer", read_behind_the_dead),
    ("give back a read lease to a waiting writer", end_reading),
    ("give back a write lease to a waiting reader", end_writing),
    (
        "shared: wait to write behind a reader, in vain",
        shared_write_in_vain,
    ),
];

/// Waits for a write lease, and adds one to both elements.
fn add(table: &HandleTable, array: Vector, timeout: Duration) -> Result<(), LeaseError> {
    let mut guard = table.write_timeout(array, timeout)?;
    guard[0] += 1;
    guard[1] += 1;
    Ok(())
}

/// Runs `operation` in a victim while `lease` lasts.
fn against<L>(run: &mut Run, ground: &Ground, lease: L, operation: impl FnOnce(&HandleTable)) {
    run.victim(|| {
        let table = ground.join();
        mark();
        operation(&table);
        mark();
    });
    drop(lease);
}

fn write_in_vain(run: &mut Run) {
    let ground = Ground::new();
    let lease = ground.table.read(ground.array).unwrap();
    against(run, &ground, lease, |table| {
        let refused = add(table, ground.array, Duration::ZERO);
        assert!(matches!(refused, Err(LeaseError::TimedOut { .. })));
    });
    ground.survive(run);
}

fn read_in_vain(run: &mut Run) {
    let ground = Ground::new();
    let lease = ground.table.write(ground.array).unwrap();
    against(run, &ground, lease, |table| {
        let refused = table
            .read_timeout(ground.array, Duration::ZERO)
            .map(|x| x[0]);
        assert!(matches!(refused, Err(LeaseError::TimedOut { .. })));
    });
    ground.survive(run);
}

/// Runs `operation` in a victim, with an array that a dead participant holds.
fn behind_the_dead<L>(
    run: &mut Run,
    hold: impl Fn(&HandleTable, Vector) -> L,
    operation: impl FnOnce(&HandleTable, Vector),
) {
    let ground = Ground::new();
    run.victim(|| {
        // Join first, because joining reaps, too.
        let table = ground.join();
        dead(|| {
            let table = ground.join();
            std::mem::forget(hold(&table, ground.array));
            crate::support::exit_at_once(0);
        });
        mark();
        operation(&table, ground.array);
        mark();
    });
    ground.survive(run);
}

fn write_behind_the_dead(run: &mut Run) {
    behind_the_dead(
        run,
        |table, array| std::mem::forget(table.read(array).unwrap()),
        |table, array| add(table, array, Duration::ZERO).unwrap(),
    );
}

fn read_behind_the_dead(run: &mut Run) {
    behind_the_dead(
        run,
        |table, array| std::mem::forget(table.write(array).unwrap()),
        |table, array| {
            let refused = table.read_timeout(array, Duration::ZERO).map(|x| x[0]);
            assert!(matches!(refused, Err(LeaseError::Poisoned { .. })));
            table.clear_poison(array).unwrap();
        },
    );
}

/// Runs a victim that gives back the lease which `lease` takes, while a rival waits to `take` the
/// array.
fn before_a_waiter(
    run: &mut Run,
    hold: impl Fn(&HandleTable, Vector) -> Box<dyn FnOnce() + '_>,
    take: impl Fn(&HandleTable, Vector) -> Result<(), LeaseError>,
) {
    let ground = Ground::new();
    let [held, waiting] = [(); 2].map(|()| Pipe::new());
    let (segment, array) = (ground.table.segment().clone(), ground.array);
    let rival = Child::fork(|| {
        held.receive();
        let table = ground.join();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                // Of a reader that waits, nothing can be seen: after these turns it waits, mostly.
                let me = Some(std::process::id());
                let looker = HandleTable::join(&segment).unwrap();
                for _ in 0..10 {
                    std::thread::sleep(Duration::from_millis(1));
                    if looker.info(array).unwrap().writer == me {
                        break;
                    }
                }
                drop(looker);
                waiting.send(1);
            });
            match take(&table, ground.array) {
                Ok(()) => {}
                Err(LeaseError::Poisoned { .. }) => table.clear_poison(ground.array).unwrap(),
                Err(error) => panic!("{error}"),
            }
        });
    });
    run.victim(|| {
        let table = ground.join();
        let give_back = hold(&table, ground.array);
        held.send(1);
        waiting.receive();
        mark();
        give_back();
        mark();
    });
    rival.join();
    ground.survive(run);
}

fn end_reading(run: &mut Run) {
    before_a_waiter(
        run,
        |table, array| {
            let guard = table.read(array).unwrap();
            Box::new(move || drop(guard))
        },
        |table, array| add(table, array, DEADLINE),
    );
}

fn end_writing(run: &mut Run) {
    before_a_waiter(
        run,
        |table, array| {
            let guard = table.write(array).unwrap();
            Box::new(move || drop(guard))
        },
        |table, array| table.read_timeout(array, DEADLINE).map(drop),
    );
}

fn shared_write_in_vain(run: &mut Run) {
    let ground = Ground::new();
    let lease = ground.table.read(ground.array).unwrap();
    run.victim(|| {
        let table = SharedTable::of(ground.table.segment()).unwrap();
        mark();
        let refused = table.lock_timeout(ground.array, Mode::Write, Duration::ZERO);
        assert!(matches!(refused, Err(LeaseError::TimedOut { .. })));
        mark();
    });
    drop(lease);
    ground.survive(run);
}
