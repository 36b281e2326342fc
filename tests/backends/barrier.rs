//! Barriers between workers: order, errors, deadlines, deaths.

use std::time::Duration;

use ndshm::Error;
use ndshm::error::PoolError;

use crate::support::{Flag, KINDS, PROCESSES, die};
use crate::with_each_pool;

/// Checks barriers: in each step a worker adds up the numbers that all workers wrote in the step
/// before.
pub fn a_barrier_separates_the_steps_of_all_workers() {
    with_each_pool(&KINDS, 4, |kind, table, _, _, pool| {
        let sums = table.zeros::<u64, _>((200, 4)).unwrap();
        pool.run(&sums, |worker, &sums| {
            let me = worker.worker();
            for step in 0..200 {
                let mut attached = worker.table().attach(sums)?;
                // SAFETY: the barriers divide the rows: in each step a worker writes one element of
                // its own, and reads those of the step before.
                let mut sums = unsafe { attached.view_mut_unsynchronized() };
                let before = match step {
                    0 => 1,
                    _ => sums.row(step - 1).sum() % 1_000_003,
                };
                sums[[step, me]] = before + me as u64;
                worker.barrier()?;
            }
            Ok(())
        })
        .unwrap();
        let sums = table.read(sums).unwrap();
        let mut before = 1;
        for row in sums.rows() {
            for (me, &sum) in row.iter().enumerate() {
                assert_eq!(sum, before + me as u64, "{kind:?}");
            }
            before = row.sum() % 1_000_003;
        }
    });
}

pub fn a_worker_that_skips_a_barrier_fails_the_call() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        let outcome = pool.run(&(), |worker, ()| {
            match worker.worker() {
                2 => {}
                _ => worker.barrier()?,
            }
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker, message } => {
                assert!(
                    worker < 2 && message.contains("has ended"),
                    "{kind:?}: {message}"
                );
            }
            other => panic!("{kind:?}: {other}"),
        }
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

pub fn an_error_that_breaks_a_barrier_is_reported() {
    with_each_pool(&KINDS, 3, |kind, table, x, _, pool| {
        let guard = table.read(x).unwrap();
        let outcome = pool.run(&x, |worker, &x| {
            if worker.worker() == 1 {
                // The barrier fails for the other workers; this error is the cause.
                worker.table().write(x)?[0] = 1;
            }
            worker.barrier()?;
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker: 1, message } => {
                assert!(message.contains("leased by process"), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other}"),
        }
        drop(guard);
        let panicked = pool.run(&(), |worker, ()| {
            assert!(worker.worker() != 0, "not I");
            worker.barrier()?;
            Ok(())
        });
        match panicked.unwrap_err() {
            PoolError::WorkerFailed { worker: 0, message } => {
                assert!(message.contains("not I"), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other}"),
        }
    });
}

pub fn a_barrier_ends_at_its_deadline() {
    with_each_pool(&KINDS, 2, |kind, _, _, _, pool| {
        let late = Flag::new();
        let outcome = pool.run(&late.number, |worker, &late| {
            if worker.worker() == 0 {
                Flag::wait(late);
                return match worker.barrier() {
                    Err(PoolError::BarrierBroken) => Ok(0u32),
                    other => panic!("{other:?}"),
                };
            }
            match worker.barrier_timeout(Duration::from_millis(50)) {
                Err(PoolError::BarrierTimeout { .. }) => {}
                Err(other) => return Err(Error::from(other)),
                Ok(()) => panic!("the barrier opened without the other worker"),
            }
            Flag::raise(late);
            Ok(1)
        });
        assert_eq!(outcome.unwrap(), [0, 1], "{kind:?}");
        // The pool's own deadline breaks the barrier for the workers that wait there.
        pool.set_deadline(Some(Duration::from_millis(100)));
        let broken = Flag::new();
        let outcome = pool.run(&broken.number, |worker, &broken| {
            if worker.worker() == 0 {
                Flag::wait(broken);
            }
            let outcome = worker.barrier();
            if worker.worker() == 1 {
                Flag::raise(broken);
            }
            Ok(outcome?)
        });
        assert!(
            matches!(outcome, Err(PoolError::Deadline { .. })),
            "{kind:?}"
        );
        pool.set_deadline(None);
        let ran = pool.run(&(), |worker, ()| {
            worker.barrier()?;
            Ok(worker.worker() as u32)
        });
        assert_eq!(ran.unwrap(), [0, 1], "{kind:?}: a late worker does no harm");
    });
}

pub fn a_death_breaks_the_barrier() {
    with_each_pool(&PROCESSES, 3, |kind, _, _, _, pool| {
        for round in 0..100u64 {
            let outcome = pool.run(&round, |worker, &round| {
                if worker.worker() as u64 == round % 3 {
                    die();
                }
                worker.barrier()?;
                Ok(())
            });
            match outcome.unwrap_err() {
                PoolError::WorkerDied { worker, .. } => {
                    assert_eq!(worker as u64, round % 3, "{kind:?}");
                }
                other => panic!("{kind:?}: {other}"),
            }
        }
        pool.run(&(), |worker, ()| Ok(worker.barrier()?)).unwrap();
    });
}
