//! Closing a queue beside a push, and the last job of a closed queue.

use core::time::Duration;

use loom::thread;
use loom_tests::{check, check_deaths, tables};
use ndshm::model;

use crate::{filled, mortal, other, rest, segment};

/// I5: a participant that sees the queue closed and drained has seen its last job. A push that
/// overlaps the close succeeds, and its job comes out, or it is refused.
#[test]
fn a_push_beside_the_close_is_popped_or_refused() {
    check(4, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue(2).unwrap();
        let producer = other(second, queue.handle(), |queue| match queue.push(1) {
            Ok(()) => true,
            Err(refused) => {
                assert!(refused.is_closed());
                false
            }
        });
        queue.close();
        let early = queue.pop().unwrap();
        let drained = early.is_none() && queue.is_drained();
        let (pushed, _second) = producer.join().unwrap();
        let late = rest(&queue);
        assert_eq!(pushed, early.is_some() || late == [1]);
        assert!(!(drained && pushed), "a job after the last one");
        assert!(queue.is_drained());
        assert!(queue.push(2).is_err_and(|refused| refused.is_closed()));
    });
}

/// I6: a participant that finds the queue closed sees everything that was done before the close.
#[test]
fn writes_before_the_close_are_seen_after_it() {
    check(3, || {
        let [first, second] = tables(&loom_tests::segment(640, 2, 4));
        let queue = first.queue::<u64>(1).unwrap();
        let x = first.from_elem(1, 0u64).unwrap();
        let name = queue.handle();
        let late = thread::spawn(move || {
            let is_closed = second.open_queue::<u64>(name).unwrap().is_closed();
            if is_closed {
                drop(model::access(&second, x, 0..1, true).unwrap());
            }
            second
        });
        drop(model::access(&first, x, 0..1, true).unwrap());
        queue.close();
        let _second = late.join().unwrap();
    });
}

/// I7: a producer that sleeps for a free cell, or is about to, is woken by the close. It knows that
/// the queue is full, and looks at no cell again.
#[test]
fn the_close_wakes_a_producer() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 1, &[1]);
        let producer = other(second, queue.handle(), |queue| {
            queue.push_timeout(2, Duration::MAX).unwrap_err()
        });
        queue.close();
        let (refused, _second) = producer.join().unwrap();
        assert!(refused.is_closed());
        assert_eq!(rest(&queue), [1]);
    });
}

/// I7: a consumer of a closed queue that waits while another takes the last job returns with it.
#[test]
fn a_waiter_for_the_last_job_returns() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 1, &[1]);
        let consumer = other(second, queue.handle(), |queue| {
            queue.pop_timeout(Duration::MAX).unwrap()
        });
        queue.close();
        let mine = queue.pop_timeout(Duration::MAX).unwrap();
        let (theirs, _second) = consumer.join().unwrap();
        assert_eq!(mine.into_iter().chain(theirs).collect::<Vec<_>>(), [1]);
        assert!(queue.is_drained());
    });
}

/// I7: the queue is closed, and the consumer of its last job dies between any two steps. A
/// participant that found the queue drained missed no job.
#[test]
fn after_drained_no_death_brings_a_job_back() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = filled(&survivor, 1, &[1]);
        queue.close();
        let consumer = mortal(second, queue.handle(), steps, |queue| queue.pop().unwrap());
        let drained = queue.is_drained();
        let theirs = consumer.join().unwrap();
        survivor.reap().unwrap();
        let left = rest(&queue);
        assert!(!drained || left.is_empty(), "a job after the last one");
        assert!(left.len() <= 1 && (theirs.is_none() || left.is_empty()));
        assert!(queue.is_drained());
        theirs.is_none()
    });
}
