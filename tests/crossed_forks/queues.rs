//! Queues.

use std::time::Duration;

use ndshm::Queue;
use ndshm::error::{PushError, QueueError};

use crate::InChild::{DoesNothing, Private, Rejoins};
use crate::{Ground, Row, is_stale};

#[rustfmt::skip] // one row to a line
pub const METHODS: &[Row] = &[
    ("Queue", "push, pop, push_timeout, pop_timeout", Rejoins, queue_calls),
    ("Queue", "close", Rejoins, queue_close),
    ("Queue", "len, is_closed, is_empty, is_full, is_drained, Debug", Rejoins, queue_looks),
    ("Queue", "capacity, handle", Private, queue_private),
    ("Queue", "drop", DoesNothing, queue_drop),
    ("Queue, alive", "all", Rejoins, queue_alive),
];

fn queue_calls(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    ground.cross(queue, |queue| {
        let failed = |refused: &PushError<u64>| match refused {
            PushError::Failed {
                job: 1,
                error: QueueError::Lease(error),
            } => is_stale(error),
            _ => false,
        };
        let now = Duration::ZERO;
        assert!(queue.push(1).is_err_and(|refused| failed(&refused)));
        assert!(
            queue
                .push_timeout(1, now)
                .is_err_and(|refused| failed(&refused))
        );
        for popped in [queue.pop(), queue.pop_timeout(now)] {
            assert!(matches!(popped, Err(QueueError::Lease(error)) if is_stale(&error)));
        }
    });
}

fn queue_close(ground: &Ground) {
    ground.cross(ground.table.queue::<u64>(8).unwrap(), |queue| queue.close());
}

fn queue_looks(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    queue.push(1).unwrap();
    ground.cross(queue, |queue: Queue<'_, u64>| {
        assert!(queue.is_closed() && queue.is_drained() && queue.is_empty() && !queue.is_full());
        assert_eq!(queue.len(), 0);
        assert!(format!("{queue:?}").contains("closed: true"));
    });
}

fn queue_private(ground: &Ground) {
    let queue = ground.table.queue::<u64>(8).unwrap();
    let name = queue.handle();
    ground.cross(queue, |queue| {
        assert_eq!((queue.capacity(), queue.handle()), (8, name));
    });
}

fn queue_drop(ground: &Ground) {
    let mut queue = Some(ground.table.queue::<u64>(8).unwrap());
    ground.cross_kept(&mut queue, |queue| drop(queue.take()));
    let queue = queue.unwrap();
    queue.push(1).unwrap();
    assert_eq!(queue.pop().unwrap(), Some(1));
}

/// Calls each method on a queue that the parent keeps, the usual case: all work in the child.
fn queue_alive(ground: &Ground) {
    let mut queue = ground.table.queue::<u64>(8).unwrap();
    queue.push(1).unwrap();
    ground.cross_kept(&mut queue, |queue| {
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
        assert!(!queue.is_closed() && !queue.is_drained());
        assert_eq!(queue.pop().unwrap(), Some(1));
        queue.push(2).unwrap();
        queue.close();
    });
    assert!(queue.is_closed() && !queue.is_drained());
    assert_eq!(queue.pop().unwrap(), Some(2));
}
