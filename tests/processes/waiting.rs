//! Leases that wait, between processes: streams of readers, and holders that are killed.

use std::time::{Duration, Instant};

use ndshm::HandleTable;
use ndshm::error::LeaseError;

use crate::kill_during;
use crate::support::{Child, DEADLINE, Pipe, eventually, sleep_for_ever, table};

/// The time within which a death must have been noticed. A waiter looks every 20 ms.
const SOON: Duration = Duration::from_secs(10);

/// Three processes read in turns, so that at every moment one of them has a lease. A writer gets in,
/// several times, and each of the readers sees its last write in the end.
pub fn a_stream_of_readers_does_not_hold_a_writer_off() {
    const WRITES: u64 = 20;
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let ready = Pipe::new();
    let readers = [(); 3].map(|()| {
        Child::fork(|| {
            let guards = [(); 2].map(|()| HandleTable::join(table.segment()).unwrap());
            ready.send(1);
            let mut held = guards[0].read_timeout(x, DEADLINE).unwrap();
            // Each lease overlaps the one before, unless a writer is let in between.
            for turn in 1.. {
                if held[0] == WRITES {
                    break;
                }
                let next = &guards[turn % 2];
                held = match next.read(x) {
                    Ok(next) => next,
                    Err(LeaseError::Busy { .. }) => {
                        drop(held);
                        next.read_timeout(x, DEADLINE).unwrap()
                    }
                    Err(error) => panic!("{error}"),
                };
            }
        })
    });
    for _ in &readers {
        ready.receive();
    }
    for _ in 0..WRITES {
        table.write_timeout(x, DEADLINE).unwrap()[0] += 1;
    }
    for reader in readers {
        reader.join();
    }
    assert_eq!(table.read(x).unwrap()[0], WRITES);
}

/// Kills a holder while another process waits for it. Returns the outcome of the wait.
fn wait_for_the_killed<L>(
    hold: impl Fn(&HandleTable) -> L,
    wait: impl Fn(&HandleTable) -> Result<(), LeaseError> + Sync,
    table: &HandleTable,
) -> Result<(), LeaseError> {
    let pipe = Pipe::new();
    let holder = Child::fork(|| {
        let _lease = hold(table);
        pipe.send(1);
        sleep_for_ever();
    });
    pipe.receive();
    let segment = table.segment().clone();
    let (outcome, after) = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| {
            let table = HandleTable::join(&segment).unwrap();
            wait(&table)
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished(), "the holder lives");
        let start = Instant::now();
        holder.kill();
        (waiting.join().unwrap(), start.elapsed())
    });
    assert!(after < SOON, "a death was noticed after {after:?}");
    outcome
}

pub fn a_killed_writer_leaves_poison_to_those_who_wait() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let hold = |table: &HandleTable| {
        let mut guard = table.write(x).unwrap();
        guard[0] = 1;
        std::mem::forget(guard);
    };
    let read = |table: &HandleTable| table.read_timeout(x, Duration::MAX).map(drop);
    let outcome = wait_for_the_killed(hold, read, &table);
    assert!(
        matches!(outcome, Err(LeaseError::Poisoned { .. })),
        "{outcome:?}"
    );
    table.recover(x, |mut x| x.fill(0)).unwrap();
}

pub fn a_killed_reader_leaves_the_array_to_a_waiting_writer() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let hold = |table: &HandleTable| std::mem::forget(table.read(x).unwrap());
    let write = |table: &HandleTable| table.write_timeout(x, Duration::MAX).map(|mut x| x[0] = 7);
    wait_for_the_killed(hold, write, &table).unwrap();
    assert_eq!(table.read(x).unwrap()[0], 7);
}

/// A writer is killed while it waits for a reader. It keeps nobody out, and has poisoned nothing.
pub fn a_killed_waiter_keeps_nobody_out() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let other = HandleTable::join(table.segment()).unwrap();
    let lease = table.read(x).unwrap();
    let segment = table.segment().clone();
    kill_during(|pipe| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let table = HandleTable::join(&segment).unwrap();
                let _ = table.write_timeout(x, Duration::MAX).map(drop);
            });
            let is_busy = || matches!(other.read(x), Err(LeaseError::Busy { .. }));
            eventually("the writer waits", is_busy);
            pipe.send(1);
            sleep_for_ever();
        });
    });
    assert!(matches!(other.read(x), Err(LeaseError::Busy { .. })));
    let seen = other.read_timeout(x, SOON).unwrap()[0];
    drop(lease);
    assert_eq!(seen, 0);
    other.write(x).unwrap()[0] = 1;
}
