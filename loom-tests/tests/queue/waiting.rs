//! Consumers and producers that sleep. loom's futex has no timeouts, so a lost wake-up is a
//! deadlock.

use core::time::Duration;

use loom_tests::{check, tables};
use ndshm::Queue;

use crate::{assert_whole, filled, other, rest, segment};

/// I7: a consumer that sleeps or is about to sleep is woken by the push, and then by the close.
/// loom's futex has no timeouts, so a lost wake-up is a deadlock.
#[test]
fn a_sleeping_consumer_is_woken() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = first.queue(1).unwrap();
        let consumer = other(second, queue.handle(), |queue| {
            let forever = Duration::MAX;
            [(); 2].map(|()| queue.pop_timeout(forever).unwrap())
        });
        queue.push(1).unwrap();
        queue.close();
        let (jobs, _second) = consumer.join().unwrap();
        assert_eq!(jobs, [Some(1), None]);
    });
}

/// I7: a producer that sleeps for a free cell, or is about to, is woken by the pop.
#[test]
fn a_sleeping_producer_is_woken() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 1, &[1]);
        let producer = other(second, queue.handle(), |queue| {
            queue.push_timeout(2, Duration::MAX).unwrap();
        });
        assert_eq!(queue.pop().unwrap(), Some(1));
        let _second = producer.join().unwrap();
        assert_eq!(rest(&queue), [2]);
        assert_whole(&queue);
    });
}

/// I7: a consumer waits for two producers, one of which may overtake the other. The tail is then
/// beyond the position of the slower one, but its push still wakes the consumer.
#[test]
fn a_push_that_was_overtaken_wakes_the_consumer() {
    check(1, || {
        let [first, second, third] = tables(&segment(4));
        let queue = first.queue(2).unwrap();
        let push = |job| move |queue: &Queue<'_, u64>| queue.push(job).unwrap();
        let producers = [
            other(second, queue.handle(), push(1)),
            other(third, queue.handle(), push(2)),
        ];
        let mut jobs = [(); 2].map(|()| queue.pop_timeout(Duration::MAX).unwrap());
        let _tables = producers.map(|producer| producer.join().unwrap());
        jobs.sort_unstable();
        assert_eq!(jobs, [Some(1), Some(2)]);
    });
}
