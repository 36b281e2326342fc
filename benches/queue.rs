//! Cost of queues: a push and a pop alone, and jobs from one process to another and back.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::process::{Process, now};
use common::{Bench, each};
use crossbeam_queue::ArrayQueue;
use ndshm::{HandleTable, Queue, QueueHandle, Segment};

/// A job of 16 bytes, for instance a handle and an index.
type Job = [u64; 2];

const CAPACITY: usize = 256;
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let bench = Bench::from_args();
    let segment = Segment::anonymous().expect("a segment");
    let table = HandleTable::join(&segment).expect("a seat");
    // This forks: run it before anything that may start a thread.
    between_processes(&bench, &table);
    alone(&bench, &table);
}

/// Measures one participant without contention. The competitor is a ring in private memory, which
/// a death at the wrong instruction would block.
fn alone(bench: &Bench, table: &HandleTable) {
    let queue = table.queue::<Job>(CAPACITY).expect("memory");
    let ring = ArrayQueue::<Job>::new(CAPACITY);
    bench.compare(vec![
        each("queue/push+pop", || {
            queue.push(black_box([1, 2])).expect("it has room");
            queue.pop().expect("it lives").expect("a job")
        }),
        each("queue/push+pop/crossbeam ArrayQueue", || {
            ring.push(black_box([1, 2])).expect("it has room");
            ring.pop().expect("a job")
        }),
    ]);
    bench.compare(vec![
        each("queue/pop from an empty one", || {
            queue.pop().expect("it lives")
        }),
        each("queue/pop from an empty one/crossbeam ArrayQueue", || {
            ring.pop()
        }),
    ]);
    for job in 0..CAPACITY as u64 {
        queue.push([job, 0]).expect("it has room");
        ring.push([job, 0]).expect("it has room");
    }
    bench.compare(vec![
        each("queue/push to a full one of 256", || {
            queue.push([1, 2]).expect_err("it is full")
        }),
        each(
            "queue/push to a full one of 256/crossbeam ArrayQueue",
            || ring.push([1, 2]).expect_err("it is full"),
        ),
    ]);
}

/// Measures jobs that another process sends back through a second queue.
fn between_processes(bench: &Bench, table: &HandleTable) {
    const NAMES: [&str; 2] = ["queue/round trip, 2 processes", "queue/stream, 2 processes"];
    if !NAMES.iter().any(|name| bench.wants(name)) {
        return;
    }
    let there = table.queue::<Job>(CAPACITY).expect("memory");
    let back = table.queue::<Job>(CAPACITY).expect("memory");
    let names = [there.handle(), back.handle()];
    let mut echo = Process::fork(|| {
        |jobs| {
            let [from, to] = names
                .map(|name: QueueHandle<Job>| table.open_queue(name).expect("the parent has it"));
            for _ in 0..jobs {
                send(&to, receive(&from));
            }
            now().as_nanos() as u64
        }
    });
    let (samples, jobs) = if bench.is_quick() {
        (5, 100)
    } else {
        (31, 10_000)
    };
    let mut round_trips = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..samples {
        // Round trips: one job in flight.
        echo.ask(jobs);
        // Once the first job is back, the other process has opened the queues.
        echo_one(&there, &back);
        let start = Instant::now();
        for _ in 1..jobs {
            echo_one(&there, &back);
        }
        round_trips.push(start.elapsed().as_nanos() as f64 / (jobs - 1) as f64);
        echo.answer();
        // Stream: as many jobs in flight as the queues hold.
        echo.ask(jobs);
        echo_one(&there, &back);
        let start = Instant::now();
        let (mut sent, mut received) = (1, 1);
        while received < jobs {
            if sent < jobs && there.push([sent, 0]).is_ok() {
                sent += 1;
            }
            while back.pop().expect("it lives").is_some() {
                received += 1;
            }
        }
        streams.push(start.elapsed().as_nanos() as f64 / (jobs - 1) as f64);
        echo.answer();
    }
    bench.report_samples(vec![(NAMES[0].to_owned(), round_trips)]);
    bench.report_samples(vec![(NAMES[1].to_owned(), streams)]);
}

fn echo_one(there: &Queue<'_, Job>, back: &Queue<'_, Job>) {
    send(there, [0, 0]);
    black_box(receive(back));
}

fn send(queue: &Queue<'_, Job>, job: Job) {
    queue
        .push_timeout(job, PATIENCE)
        .expect("the other one pops");
}

fn receive(queue: &Queue<'_, Job>) -> Job {
    let job = queue.pop_timeout(PATIENCE).expect("it lives");
    job.expect("the other one pushes")
}
