//! Each job is popped once, whole and in order; and a search finds a job or a free cell that moves.

use loom::thread;
use loom_tests::{check, tables};
use ndshm::Queue;

use crate::{assert_whole, filled, other, pop, rest, segment, sorted};

/// I5, I6: a job arrives whole and once, in the order of its producer, through a cell that is used
/// again. loom watches the bytes.
#[test]
fn jobs_arrive_whole_and_in_order() {
    check(4, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue(1).unwrap();
        let producer = other(second, queue.handle(), |queue| {
            for job in [5, 6] {
                while queue.push(job).is_err() {
                    thread::yield_now();
                }
            }
        });
        assert_eq!([pop(&queue), pop(&queue)], [5, 6]);
        let _second = producer.join().unwrap();
        assert_whole(&queue);
    });
}

/// I5: jobs that one participant pushes one after the other are popped in that order, also by two
/// consumers.
#[test]
fn two_consumers_pop_in_order() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1, 2]);
        let consumer = other(second, queue.handle(), |queue| {
            [queue.pop().unwrap(), queue.pop().unwrap()]
        });
        let mine = queue.pop().unwrap();
        let (theirs, _second) = consumer.join().unwrap();
        assert!(theirs[0].is_some(), "a job was there: {mine:?} {theirs:?}");
        assert_ne!(theirs, [Some(2), Some(1)], "out of order");
        let all = sorted(theirs.into_iter().chain([mine]).flatten());
        assert_eq!(all, [1, 2]);
        assert_whole(&queue);
    });
}

/// I5, I6: two producers and a consumer, with one cell and with two: each job is popped once, or
/// refused.
fn producers_and_consumer(capacity: usize) {
    let [first, second, third] = tables(&segment(4));
    let queue = first.queue(capacity).unwrap();
    let push = |job| move |queue: &Queue<'_, u64>| queue.push(job).is_ok();
    let producers = [
        other(second, queue.handle(), push(1)),
        other(third, queue.handle(), push(2)),
    ];
    let first_job = queue.pop().unwrap();
    let mut tables = Vec::new();
    let mut expected = Vec::new();
    for (job, producer) in (1..).zip(producers) {
        let (pushed, table) = producer.join().unwrap();
        expected.extend(pushed.then_some(job));
        tables.push(table);
    }
    assert!(expected.len() >= capacity, "full, with a cell free");
    let jobs = sorted(first_job.into_iter().chain(rest(&queue)));
    assert_eq!(jobs, expected);
    assert_whole(&queue);
}

#[test]
fn two_producers_at_one_cell() {
    check(2, || producers_and_consumer(1));
}

#[test]
fn two_producers_at_two_cells() {
    check(2, || producers_and_consumer(2));
}

/// I5: a producer pushes, then starts a second producer, which pushes, while a third participant
/// pops. The jobs come out in that order.
#[test]
fn a_later_push_comes_out_later() {
    check(3, || {
        let [first, second, third] = tables(&segment(4));
        let queue = first.queue(2).unwrap();
        let name = queue.handle();
        // The start of the second producer tells it.
        let producers = thread::spawn(move || {
            let queue = second.open_queue(name).unwrap();
            let one = queue.push(1).is_ok();
            let (two, third) = other(third, name, |queue| queue.push(2).is_ok())
                .join()
                .unwrap();
            drop(queue);
            (one && two, second, third)
        });
        let mut jobs: Vec<u64> = (0..2).filter_map(|_| queue.pop().unwrap()).collect();
        let (pushed, ..) = producers.join().unwrap();
        jobs.extend(rest(&queue));
        assert!(pushed);
        assert_eq!(jobs, [1, 2]);
    });
}

/// Creates a queue of two cells with the jobs `before`. Another participant does `theirs` while
/// this one does `ours`; each returns the job that it popped. Asserts that the jobs from 1 to
/// `last` come out once each. Returns our job and theirs.
fn beside_a_mover(
    before: &[u64],
    last: u64,
    theirs: fn(&Queue<'_, u64>) -> Option<u64>,
    ours: fn(&Queue<'_, u64>) -> Option<u64>,
) -> (Option<u64>, Option<u64>) {
    let [first, second] = tables(&segment(2));
    let queue = filled(&first, 2, before);
    let mover = other(second, queue.handle(), theirs);
    let mine = ours(&queue);
    let (theirs, _second) = mover.join().unwrap();
    let jobs = mine.into_iter().chain(theirs).chain(rest(&queue));
    assert_eq!(sorted(jobs), Vec::from_iter(1..=last));
    assert_whole(&queue);
    (mine, theirs)
}

/// Pushes the new job before popping the old one.
fn move_a_job(queue: &Queue<'_, u64>) -> Option<u64> {
    queue.push(2).expect("a cell is free");
    queue.pop().unwrap()
}

/// Pushes a job where a cell was free at every moment.
fn push_three(queue: &Queue<'_, u64>) -> Option<u64> {
    queue.push(3).expect("a cell was free at every moment");
    None
}

/// I2: at every moment there is a job in one cell or the other, but it moves behind the search. A
/// consumer finds a job if the mover never leaves less than one.
#[test]
fn never_empty_while_a_job_moves() {
    check(4, || {
        let (_, moved) = beside_a_mover(&[1], 2, move_a_job, |queue| {
            assert!(!queue.is_empty(), "a job was there at every moment");
            None
        });
        assert_eq!(moved, Some(1));
    });
}

/// I2: the same beside another consumer: two jobs for two consumers.
#[test]
fn never_empty_for_two_consumers() {
    check(4, || {
        let (mine, theirs) = beside_a_mover(&[1], 2, move_a_job, |queue| queue.pop().unwrap());
        assert!(mine.is_some() && theirs.is_some(), "a job was there");
    });
}

/// I2: never more than one of the two cells is in use: a push finds a free cell, also one behind
/// its search.
#[test]
fn never_full_while_a_job_moves() {
    check(3, || {
        let push_and_move = |queue: &Queue<'_, u64>| {
            queue.push(1).expect("one cell in use at most");
            let popped = queue.pop().unwrap();
            queue.push(2).expect("one cell in use at most");
            popped
        };
        beside_a_mover(&[], 3, push_and_move, push_three);
    });
}

/// I2: at every moment one cell or the other is free: a push finds it.
#[test]
fn never_full_while_a_cell_moves() {
    check(4, || {
        // Beside our job there is never more than one of the mover's.
        let move_a_cell = |queue: &Queue<'_, u64>| {
            let old = queue.pop().unwrap();
            queue.push(2).expect("a cell is free");
            old
        };
        let (_, old) = beside_a_mover(&[1], 3, move_a_cell, push_three);
        assert_eq!(old, Some(1));
    });
}
