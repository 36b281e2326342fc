//! A producer that remembers that the queue was full: its next push is refused by two loads, until a
//! cell is free.

use core::time::Duration;
use std::mem::ManuallyDrop;

use loom::thread;
use loom_tests::{check, check_deaths, check_deaths_in_case, tables};
use ndshm::{Queue, model};

use crate::{assert_whole, filled, mortal, other, pop, rest, segment, sorted};

/// The operations of a participant that opens a queue, binds a job and acknowledges it, plus one.
const DEATHS_WHILE_ACKNOWLEDGING: u64 = 30;

/// Pushes a job twice: the first push may find the queue full, and the second may know it.
fn insist(queue: &Queue<'_, u64>, job: u64) -> bool {
    queue.push(job).is_ok() || queue.push(job).is_ok()
}

/// I2: a producer that was refused beside a pop, twice, is not refused after it.
///
/// Here and below a bound job holds the tail's cell, so that a push has to search for the free one.
#[test]
fn a_pop_makes_room() {
    check(4, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1, 2]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let consumer = other(second, queue.handle(), |queue| queue.pop().unwrap());
        let early = insist(&queue, 3);
        let (theirs, _second) = consumer.join().unwrap();
        assert_eq!(theirs, Some(2));
        assert!(early || queue.push(3).is_ok(), "a cell is free");
        held.ack().unwrap();
        assert_eq!(rest(&queue), [3]);
        assert_whole(&queue);
    });
}

/// I2: nor after an acknowledgement, which leaves the head where it is.
#[test]
fn an_acknowledgement_makes_room() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1, 2]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let consumer = other(second, queue.handle(), |queue| {
            queue.pop_with_ack().unwrap().unwrap().ack().unwrap();
        });
        let early = insist(&queue, 3);
        let _second = consumer.join().unwrap();
        assert!(early || queue.push(3).is_ok(), "a cell is free");
        held.ack().unwrap();
        assert_eq!(rest(&queue), [3]);
        assert_whole(&queue);
    });
}

/// I2: of two consumers one overtakes the other, and moves the head for both. The producer is not
/// refused after either pop.
#[test]
fn each_of_two_pops_makes_room() {
    check(1, || {
        let [first, second, third] = tables(&segment(4));
        let queue = filled(&first, 2, &[1, 2]);
        let pop = |queue: &Queue<'_, u64>| queue.pop().unwrap();
        let one = other(second, queue.handle(), pop);
        let two = other(third, queue.handle(), pop);
        let mut pushed = u64::from(insist(&queue, 3));
        let (one, _second) = one.join().unwrap();
        if pushed == 0 {
            queue.push(3).expect("a cell is free");
            pushed = 1;
        }
        pushed += u64::from(queue.push(4).is_ok());
        let (two, _third) = two.join().unwrap();
        if pushed == 1 {
            queue.push(4).expect("another cell is free");
        }
        assert_eq!(sorted(one.into_iter().chain(two)), [1, 2]);
        assert_eq!(rest(&queue), [3, 4]);
        assert_whole(&queue);
    });
}

/// I7: a producer that waits for two cells is woken by either pop, whichever moves the head.
#[test]
fn each_of_two_pops_wakes_the_producer() {
    check(1, || {
        let [first, second, third] = tables(&segment(4));
        let queue = filled(&first, 2, &[1, 2]);
        let consumers = [second, third].map(|table| other(table, queue.handle(), pop));
        for job in [3, 4] {
            queue.push_timeout(job, Duration::MAX).unwrap();
        }
        let jobs = consumers.map(|consumer| consumer.join().unwrap());
        assert_eq!(sorted(jobs.map(|(job, _table)| job)), [1, 2]);
        assert_eq!(rest(&queue), [3, 4]);
    });
}

/// I1, I7: a consumer dies between any two steps, beside a producer that notices that the queue is
/// full. After the reap the job is there, or its cell is free.
#[test]
fn death_beside_a_refused_producer() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = filled(&survivor, 2, &[1, 2]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let consumer = mortal(second, queue.handle(), steps, |queue| queue.pop().unwrap());
        let early = insist(&queue, 3);
        let died = consumer.join().unwrap().is_none();
        survivor.reap().unwrap();
        let late = !early && queue.push(3).is_ok();
        held.ack().unwrap();
        let jobs = rest(&queue);
        assert_eq!(jobs, [if early || late { 3 } else { 2 }]);
        assert_whole(&queue);
        died
    });
}

/// I1, I7: a producer that stopped in the oldest cell keeps the head there. A pop of the other job
/// makes room all the same.
#[test]
fn a_pop_beside_a_dead_producer_makes_room() {
    check_deaths(1, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = survivor.queue(2).unwrap();
        let producer = mortal(second, queue.handle(), steps, |queue| {
            queue.push(1).unwrap()
        });
        let died = producer.join().unwrap().is_none();
        let mut job = 2;
        while insist(&queue, job) {
            job += 1;
        }
        for _ in 0..2 {
            assert!(queue.pop().unwrap().is_some());
            queue.push(job).expect("a cell is free");
            assert!(!insist(&queue, job), "and no more than one");
        }
        died
    });
}

/// I7: for each death of a consumer that acknowledges a job, each death of its reaper, beside a
/// producer: after the next reap the job is there, or its cell is free.
#[test]
fn death_of_a_reaper_beside_a_refused_producer() {
    for taken in 0..DEATHS_WHILE_ACKNOWLEDGING {
        check_deaths_in_case(taken, 0, move |steps| {
            let segment = segment(4);
            let [reaper, dead, survivor] = tables(&segment);
            let queue = filled(&survivor, 1, &[1]);
            let consumer = mortal(dead, queue.handle(), taken, |queue| {
                queue.pop_with_ack().unwrap().unwrap().ack().unwrap();
            });
            consumer.join().unwrap();
            let mut pushed = insist(&queue, 2);
            let kill = segment.clone();
            let reaping = thread::spawn(move || {
                let reaper = ManuallyDrop::new(reaper);
                model::mortal(&kill, 0, steps, || drop(reaper.reap().unwrap())).is_none()
            });
            pushed = pushed || insist(&queue, 2);
            let died = reaping.join().unwrap();
            survivor.reap().unwrap();
            pushed = pushed || insist(&queue, 2);
            assert_eq!(rest(&queue), [if pushed { 2 } else { 1 }]);
            assert_whole(&queue);
            died
        });
    }
}
