//! Queues: jobs that are handed over between participants, any of which may die at any instruction.
#![cfg(all(loom, not(shuttle)))]
#![expect(
    clippy::disallowed_types,
    reason = "the notes here are outside of the model"
)]

mod acks;
mod closing;
mod deaths;
mod full;
mod order;
mod waiting;

use std::mem::ManuallyDrop;

use loom::thread;
use ndshm::{HandleTable, Queue, QueueHandle, Segment, model};

/// Creates a segment with room for a queue of one or two cells.
fn segment(seats: u32) -> Segment {
    loom_tests::segment(512, seats, 2)
}

/// Runs `act` on the queue as another participant, in a thread of its own. Returns its table as
/// well.
fn other<R: 'static>(
    table: HandleTable,
    name: QueueHandle<u64>,
    act: impl FnOnce(&Queue<'_, u64>) -> R + 'static,
) -> thread::JoinHandle<(R, HandleTable)> {
    thread::spawn(move || {
        let queue = table.open_queue(name).expect("the queue is live");
        let result = act(&queue);
        drop(queue);
        (result, table)
    })
}

/// Does the same as the participant of seat 1, which dies before its operation number `steps`. The
/// result is then `None`.
fn mortal<R: 'static>(
    table: HandleTable,
    name: QueueHandle<u64>,
    steps: u64,
    act: impl FnOnce(&Queue<'_, u64>) -> R + 'static,
) -> thread::JoinHandle<Option<R>> {
    let segment = table.segment().clone();
    thread::spawn(move || {
        let table = ManuallyDrop::new(table);
        model::mortal(&segment, 1, steps, || {
            let queue = table.open_queue(name).expect("the queue is live");
            act(&queue)
        })
    })
}

/// Waits for the next job.
fn pop(queue: &Queue<'_, u64>) -> u64 {
    loop {
        if let Some(job) = queue.pop().unwrap() {
            return job;
        }
        thread::yield_now();
    }
}

/// Creates a queue with these jobs.
fn filled<'t>(table: &'t HandleTable, cells: usize, jobs: &[u64]) -> Queue<'t, u64> {
    let queue = table.queue(cells).unwrap();
    for &job in jobs {
        queue.push(job).unwrap();
    }
    queue
}

fn sorted(jobs: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut jobs = Vec::from_iter(jobs);
    jobs.sort_unstable();
    jobs
}

/// Pops the remaining jobs, in order.
fn rest(queue: &Queue<'_, u64>) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop().unwrap()).collect()
}

/// Asserts that all cells are free, at any lap: exactly as many jobs as there are cells go in, and
/// come out in order.
#[track_caller]
fn assert_whole(queue: &Queue<'_, u64>) {
    assert_eq!(rest(queue), [0; 0]);
    let jobs: Vec<u64> = (100..100 + queue.capacity() as u64).collect();
    for &job in &jobs {
        queue.push(job).expect("a cell is lost");
    }
    queue.push(99).expect_err("more cells than expected");
    assert_eq!(rest(queue), jobs);
}
