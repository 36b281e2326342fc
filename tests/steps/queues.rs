//! Operations on queues: whatever a death interrupts, a job is in the queue once, or lost with its
//! consumer.

use ndarray::Ix1;
use ndshm::queue::{Delivery, OwnedArray};
use ndshm::{HandleTable, Queue};

use crate::ground::Ground;
use crate::operations::{Operation, simple};
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("make a queue", queue),
    ("push", push),
    ("pop", pop),
    ("pop from a full queue", pop_from_full),
    ("acknowledge a job of a full queue", ack_in_full),
    ("pop with acknowledgement", pop_with_ack),
    ("pop with acknowledgement, and acknowledge", pop_and_ack),
    ("pop with acknowledgement, and give back", pop_and_give_back),
    ("push an array that the queue owns", push_owned),
    ("pop an array that the queue owned", pop_owned),
    (
        "pop an array with acknowledgement, and acknowledge",
        pop_owned_and_ack,
    ),
    (
        "pop an array with acknowledgement, and give back",
        pop_owned_and_give_back,
    ),
    ("free a queue that owns arrays", free_owning_queue),
];

fn queue(run: &mut Run) {
    simple(run, |table, _| drop(table.queue::<u64>(4).unwrap()));
}

fn push(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        queue.push(2).unwrap();
        mark();
    });
    ground.table.reap().unwrap();
    assert_eq!(queue.pop().unwrap(), Some(1));
    let second = queue.pop().unwrap();
    assert!(matches!(second, None | Some(2)), "{second:?}");
    assert_works(&queue);
    drop(queue);
    ground.survive(run);
}

fn pop(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        assert_eq!(queue.pop().unwrap(), Some(1));
        mark();
    });
    ground.table.reap().unwrap();
    let mut left = Vec::new();
    while let Some(job) = queue.pop().unwrap() {
        left.push(job);
    }
    left.sort_unstable();
    assert!(matches!(&left[..], [1, 2] | [2]), "{left:?}");
    assert_works(&queue);
    drop(queue);
    ground.survive(run);
}

/// Kills a consumer that does `act` with the job of a full queue, of which the survivor knows that it
/// is full. Checks that afterwards the job is in the queue, or the survivor finds its cell.
fn in_full(run: &mut Run, act: impl FnOnce(&Queue<'_, u64>)) {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(1).unwrap();
    queue.push(1).unwrap();
    assert!(queue.push(2).unwrap_err().is_full());
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        act(&queue);
        mark();
    });
    // What it knows now may be what the death has left.
    let early = queue.push(2).is_ok();
    ground.table.reap().unwrap();
    let late = !early && queue.push(2).is_ok();
    let job = if early || late { 2 } else { 1 };
    assert_eq!(queue.pop().unwrap(), Some(job));
    for lap in 0..3 {
        queue.push(lap).unwrap();
        assert!(queue.push(0).unwrap_err().is_full());
        assert_eq!(queue.pop().unwrap(), Some(lap));
    }
    drop(queue);
    ground.survive(run);
}

fn pop_from_full(run: &mut Run) {
    in_full(run, |queue| assert_eq!(queue.pop().unwrap(), Some(1)));
}

fn ack_in_full(run: &mut Run) {
    in_full(run, |queue| {
        queue.pop_with_ack().unwrap().unwrap().ack().unwrap();
    });
}

/// Kills a consumer that does `act` with the first of two jobs. Returns the jobs that are left and
/// their deliveries, in order.
fn consume(run: &mut Run, act: impl FnOnce(Delivery<'_, '_, u64>)) -> Vec<(u64, u32)> {
    let ground = Ground::new();
    let queue = ground.table.queue::<u64>(2).unwrap();
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        let job = queue.pop_with_ack().unwrap().unwrap();
        assert_eq!((*job, job.deliveries()), (1, 1));
        act(job);
        mark();
    });
    ground.table.reap().unwrap();
    let mut left = Vec::new();
    while let Some(job) = queue.pop_with_ack().unwrap() {
        left.push((*job, job.deliveries()));
        job.ack().unwrap();
    }
    assert_works(&queue);
    drop(queue);
    ground.survive(run);
    left
}

/// Checks that both jobs are in the queue, whenever the consumer dies or leaves.
fn pop_with_ack(run: &mut Run) {
    let left = consume(run, |job| std::mem::forget(job));
    assert!(
        matches!(&left[..], [(1, 1), (2, 1)] | [(2, 1), (1, 1 | 2)]),
        "{left:?}"
    );
}

/// Checks that the first job is in the queue, unless it was acknowledged.
fn pop_and_ack(run: &mut Run) {
    let left = consume(run, |job| job.ack().unwrap());
    assert!(
        matches!(
            &left[..],
            [(1, 1), (2, 1)] | [(2, 1), (1, 1 | 2)] | [(2, 1)]
        ),
        "{left:?}"
    );
}

fn pop_and_give_back(run: &mut Run) {
    let left = consume(run, |job| job.give_back().unwrap());
    assert!(
        matches!(&left[..], [(1, 1), (2, 1)] | [(2, 1), (1, 1 | 2)]),
        "{left:?}"
    );
}

type Arrays = OwnedArray<u64, Ix1>;

/// Checks that the array is in the queue once, or was freed with the victim.
fn push_owned(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<Arrays>(2).unwrap();
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        let array = table.owned(table.from_elem(3, 5).unwrap());
        mark();
        queue.push_owned(array).unwrap();
        mark();
    });
    assert_at_most_one_array_left(&ground.table, &queue);
    drop(queue);
    ground.survive(run);
}

/// Checks that the array is in the queue once, or was freed with the victim.
fn pop_owned(run: &mut Run) {
    let ground = Ground::new();
    let queue = ground.table.queue::<Arrays>(2).unwrap();
    push_five(&ground.table, &queue);
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        let array = queue.pop_owned().unwrap();
        mark();
        drop(array);
    });
    assert_at_most_one_array_left(&ground.table, &queue);
    drop(queue);
    ground.survive(run);
}

/// Kills a consumer that does `act` with an array. Checks that the array is in the queue once, or was
/// freed with the consumer.
fn consume_array(run: &mut Run, act: impl FnOnce(Delivery<'_, '_, Arrays>)) {
    let ground = Ground::new();
    let queue = ground.table.queue::<Arrays>(2).unwrap();
    push_five(&ground.table, &queue);
    run.victim(|| {
        let table = ground.join();
        let queue = table.open_queue(queue.handle()).unwrap();
        mark();
        act(queue.pop_owned_with_ack().unwrap().unwrap());
        mark();
    });
    assert_at_most_one_array_left(&ground.table, &queue);
    drop(queue);
    ground.survive(run);
}

fn pop_owned_and_ack(run: &mut Run) {
    consume_array(run, |job| drop(job.ack().unwrap()));
}

fn pop_owned_and_give_back(run: &mut Run) {
    consume_array(run, |job| job.give_back().unwrap());
}

/// Checks that the arrays are freed with the queue.
fn free_owning_queue(run: &mut Run) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let queue = table.queue::<Arrays>(2).unwrap();
        push_five(&table, &queue);
        push_five(&table, &queue);
        mark();
        drop(queue);
        mark();
    });
    ground.table.reap().unwrap();
    let left: Vec<_> = ground.table.arrays().map(|array| array.handle).collect();
    assert_eq!(left, [ground.array.into()], "an array has leaked");
    ground.survive(run);
}

fn push_five(table: &HandleTable, queue: &Queue<'_, Arrays>) {
    let array = table.owned(table.from_elem(3, 5).unwrap());
    queue.push_owned(array).unwrap();
}

/// Asserts that at most one array is left, in the queue, and that all cells are available.
fn assert_at_most_one_array_left(table: &HandleTable, queue: &Queue<'_, Arrays>) {
    table.reap().unwrap();
    let arrays = table.arrays().count() - 1;
    let left = queue.pop_owned().unwrap();
    assert_eq!(arrays, usize::from(left.is_some()), "an array has leaked");
    if let Some(left) = left {
        assert_eq!(table.read(left.handle()).unwrap().sum(), 15);
    }
    assert!(queue.pop_owned().unwrap().is_none());
    for _ in 0..2 {
        push_five(table, queue);
    }
    let third = table.owned(table.from_elem(3, 5).unwrap());
    assert!(queue.push_owned(third).unwrap_err().is_full());
    assert!(queue.pop_owned().unwrap().is_some());
}

fn assert_works(queue: &ndshm::Queue<'_, u64>) {
    for lap in 0..3 {
        queue.push(lap).unwrap();
        queue.push(lap + 1).unwrap();
        assert!(queue.push(0).is_err(), "it is full");
        assert_eq!(queue.pop().unwrap(), Some(lap));
        assert_eq!(queue.pop().unwrap(), Some(lap + 1));
    }
}
