//! Queues: jobs handed over between participants any of which may die at any instruction.
#![cfg(loom)]

use loom::thread;
use loom_tests::check;
use ndshm::{HandleTable, Queue, QueueHandle, Segment};

/// Room for a queue of one cell or two.
fn segment(seats: u32) -> Segment {
    let options = Segment::options().capacity(512).seats(seats).arrays(2);
    options.in_process().expect("a model's segment")
}

fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).expect("a seat is free")
}

/// Lets another participant act on the queue, on a thread of its own. Its table comes back.
fn other<R: 'static>(
    table: HandleTable,
    name: QueueHandle<u64>,
    act: impl FnOnce(&Queue<'_, u64>) -> R + 'static,
) -> thread::JoinHandle<(R, HandleTable)> {
    thread::spawn(move || {
        let queue = table.open_queue(name).expect("it lives");
        let result = act(&queue);
        drop(queue);
        (result, table)
    })
}

/// The next job, once there is one.
fn pop(queue: &Queue<'_, u64>) -> u64 {
    loop {
        if let Some(job) = queue.pop().unwrap() {
            return job;
        }
        thread::yield_now();
    }
}

/// What is left, in order.
fn rest(queue: &Queue<'_, u64>) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop().unwrap()).collect()
}

/// I5, I6: a job comes whole and once, in the order of its producer, through cells that are used
/// again. loom watches the bytes.
#[test]
fn a_hand_over() {
    check("a_hand_over", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue::<u64>(1).unwrap();
        let producer = other(second, queue.handle(), |queue| {
            for job in [5, 6] {
                while queue.push(job).is_err_and(|refused| refused.is_full()) {
                    thread::yield_now();
                }
            }
        });
        assert_eq!([pop(&queue), pop(&queue)], [5, 6]);
        let _second = producer.join().unwrap();
        assert_eq!(rest(&queue), []);
    });
}
