//! The pool: jobs, sleeping and waking, the barrier, and the death of a worker at every step.
//!
//! loom's futex has no timeouts, so a lost wake-up is a deadlock, which fails the model.
#![cfg(all(loom, not(shuttle)))]

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{check, check_deaths, join};
use ndarray::Axis;
use ndshm::error::PoolError;
use ndshm::model::{Barrier, Mailbox, Report, TileNotes};
use ndshm::{OnFailure, Pool, Segment, model};

/// Creates a segment for a parent and `workers` workers.
fn segment(workers: u32) -> Segment {
    loom_tests::segment(4096, workers + 1, 16)
}

/// Runs `act` in a thread of its own, on an object that it shares.
fn with<T: 'static, R: 'static>(
    shared: &Arc<T>,
    act: impl FnOnce(&T) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = shared.clone();
    thread::spawn(move || act(&shared))
}

/// Calls a pool once: each worker adds to tiles of one element.
fn a_call(workers: u32) {
    let table = join(&segment(workers));
    let x = table.from_elem(workers as usize, 1u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, workers as usize).unwrap();
    pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by)
        .unwrap();
    assert!(table.write(x).unwrap().iter().all(|&x| x == 6));
}

/// I5, I6, I7: a worker that spins, sleeps or is about to sleep sees a call. After the call the
/// parent owns the arrays again, with everything that was written.
#[test]
fn a_call_on_one_worker() {
    check(2, || a_call(1));
}

/// I5, I6: two workers share the tiles. A late worker finds no tile left, and no worker is in the
/// call when it is over.
#[test]
fn a_call_on_two_workers() {
    check(0, || a_call(2));
}

/// I6: parameters and results belong to their call, also in the next call, which reuses the words.
#[test]
fn parameters_and_results_belong_to_their_call() {
    check(1, || {
        let table = join(&segment(1));
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.read(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        for by in [5, 7] {
            let got = pool
                .map_collect(&tiles, &by, |x, &by: &u64, _| x[0] + by)
                .unwrap();
            assert_eq!(got, [1 + by]);
        }
    });
}

/// I5, I6: workers come at any moment. When the parent has closed a job, no worker is in it, and
/// the parent sees everything that they did.
#[test]
fn no_worker_is_in_a_closed_job() {
    check(2, || {
        let mailbox = Arc::new(Mailbox::new(2));
        // One cell per worker, because the workers do not exclude each other.
        let cells = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let write = |cell: &UnsafeCell<u64>, value| {
            cell.with_mut(|cell| {
                // SAFETY: loom fails the model if another thread has the cell now.
                unsafe { *cell = value };
            });
        };
        let workers: Vec<_> = (0..2)
            .map(|me| {
                let (mailbox, cells) = (mailbox.clone(), cells.clone());
                thread::spawn(move || {
                    mailbox.serve_once(me, |[argument, _]| write(&cells[me], argument));
                })
            })
            .collect();
        mailbox.open(7);
        mailbox.close();
        // Between two calls the parent owns everything.
        cells.iter().for_each(|cell| write(cell, 1));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// I8: a worker reads a job while its parent gives it up and opens the next one. The arguments
/// belong to the job that the worker is in.
#[test]
fn arguments_are_those_of_the_job() {
    check(3, || {
        let mailbox = Arc::new(Mailbox::new(1));
        let worker = with(&mailbox, |mailbox| {
            mailbox.serve_once(0, |[first, last]| assert_eq!(first, last));
        });
        mailbox.open(1);
        mailbox.give_up();
        mailbox.open(2);
        mailbox.close();
        worker.join().unwrap();
    });
}

/// I6: everything written before a barrier is seen by all workers after it, and the next epoch
/// waits for all again. No worker sleeps for ever.
fn a_barrier_of(workers: usize, epochs: u64) {
    let barrier = Arc::new(Barrier::new(workers));
    let cells: Arc<Vec<_>> = Arc::new((0..workers).map(|_| UnsafeCell::new(0)).collect());
    let work = move |me: usize, barrier: &Barrier, cells: &[UnsafeCell<u64>]| {
        let mut epoch = 0;
        for turn in 1..=epochs {
            // Between two barriers the cell belongs to this worker.
            cells[me].with_mut(|cell| {
                // SAFETY: loom fails the model if another thread has the cell now.
                unsafe { *cell = turn };
            });
            epoch = barrier.wait(epoch).expect("the barrier is not broken");
            for cell in cells {
                // SAFETY: as above.
                cell.with(|cell| assert_eq!(unsafe { *cell }, turn));
            }
            epoch = barrier.wait(epoch).expect("the barrier is not broken");
        }
        assert_eq!(epoch, 2 * epochs);
    };
    let others: Vec<_> = (1..workers)
        .map(|me| {
            let (barrier, cells) = (barrier.clone(), cells.clone());
            thread::spawn(move || work(me, &barrier, &cells))
        })
        .collect();
    work(0, &barrier, &cells);
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn a_barrier_of_two() {
    check(2, || a_barrier_of(2, 2));
}

#[test]
fn a_barrier_of_three() {
    check(1, || a_barrier_of(3, 1));
}

/// I6, I7: the leader of a barrier has the cell of each other worker between their arrival and its
/// own. All see what it wrote. A leader that sleeps is woken.
fn a_led_barrier_of(workers: usize, epochs: u64) {
    let barrier = Arc::new(Barrier::new(workers));
    let cells: Arc<Vec<_>> = Arc::new((0..workers).map(|_| UnsafeCell::new(0)).collect());
    let add = |cell: &UnsafeCell<u64>| {
        cell.with_mut(|cell| {
            // SAFETY: loom fails the model if another thread has the cell now.
            unsafe { *cell += 1 };
        });
    };
    let others: Vec<_> = (1..workers)
        .map(|me| {
            let (barrier, cells) = (barrier.clone(), cells.clone());
            thread::spawn(move || {
                for epoch in 0..epochs {
                    add(&cells[me]);
                    let next = barrier.follow(epoch);
                    assert_eq!(next, Some(epoch + 1), "the barrier is not broken");
                    // SAFETY: as above.
                    cells[me].with(|cell| assert_eq!(unsafe { *cell }, 2 * (epoch + 1)));
                }
            })
        })
        .collect();
    for epoch in 0..epochs {
        let next = barrier.lead(epoch, || cells[1..].iter().for_each(add));
        assert_eq!(next, Some(epoch + 1), "the barrier is not broken");
    }
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn a_led_barrier_of_two() {
    check(2, || a_led_barrier_of(2, 2));
}

#[test]
fn a_led_barrier_of_three() {
    check(1, || a_led_barrier_of(3, 1));
}

/// I7: a participant that will not come breaks the barrier. Of the two that wait or come, both are
/// told, or neither if both came first.
#[test]
fn a_broken_barrier_tells_all_or_none() {
    check(3, || {
        let barrier = Arc::new(Barrier::new(2));
        let leaver = with(&barrier, Barrier::break_up);
        let other = with(&barrier, |barrier| barrier.wait(0));
        let mine = barrier.wait(0);
        let others = other.join().unwrap();
        leaver.join().unwrap();
        assert_eq!(mine, others);
        assert_eq!(barrier.wait(mine.unwrap_or(0)), None);
    });
}

/// I7: in a whole pool, a worker that returns breaks the barrier at which another worker waits for
/// it.
#[test]
fn a_worker_that_returns_breaks_the_barrier() {
    check(0, || {
        let table = join(&segment(2));
        let mut pool = Pool::threads(&table, 2).unwrap();
        let outcome = pool.run(&(), |worker, ()| {
            if worker.worker() == 0 {
                worker.barrier()?;
            }
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker: 0, .. } => {}
            other => panic!("{other}"),
        }
    });
}

/// I1, I5, I7: a worker is killed before any of its steps. The call ends, whole or with the torn
/// tile, and the next call finds a worker.
#[test]
fn death_of_a_worker() {
    check_deaths(1, |steps| {
        let table = join(&segment(1));
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let first = pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by);
        let died = match first {
            Ok(()) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        };
        // Not poisoned if the worker had not begun.
        let _ = table.clear_poison(x);
        table.write(x).unwrap().fill(0);
        if died {
            pool.for_each(&tiles, &5u64, |mut x, &by, _| x += by)
                .unwrap();
            assert_eq!(table.read(x).unwrap()[0], 5);
        }
        died
    });
}

/// I7: a worker is killed in a call with a barrier; the other worker finishes.
#[test]
fn death_before_a_barrier() {
    check_deaths(0, |steps| {
        let table = join(&segment(2));
        let mut pool = model::mortal_pool(&table, 2, steps).unwrap();
        match pool.run(&(), |worker, ()| Ok(worker.barrier()?)) {
            Ok(_) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        }
    });
}

/// I5, I6: the parent takes a tile while the call runs, and sends it off again. Each side sees the
/// writes of the other, and no run is lost.
#[test]
fn a_tile_sent_off_again_is_run_again() {
    check(1, || {
        let table = join(&segment(1));
        let x = table.from_elem(1, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
        for mut ready in running.wait_any(1).unwrap().ready {
            let mut x = ready.views();
            assert_eq!(x[0], 1);
            x[0] = 10;
            ready.rerun();
        }
        running.finish().unwrap();
        assert_eq!(table.read(x).unwrap()[0], 11);
    });
}

/// I1, I5, I7: a worker is killed at any step; its tile is run again, and is whole.
#[test]
fn a_tile_of_the_dead_is_run_again() {
    check_deaths(1, |steps| {
        let table = join(&segment(1));
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        pool.set_on_failure(OnFailure::RunAgain);
        let before = pool.deaths();
        pool.for_each(&tiles, &5u64, |mut x, &five, _| x.fill(five))
            .unwrap();
        assert_eq!(table.read(x).unwrap()[0], 5, "not poisoned either");
        pool.deaths() > before
    });
}

/// I5, I7: a tile is sent off again, and the worker dies at any step. The call does not succeed
/// while a tile is half-written or was not run.
#[test]
fn death_after_a_tile_was_sent_off_again() {
    check_deaths(0, |steps| {
        let table = join(&segment(1));
        let x = table.from_elem(2, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let mut again = 0;
        let outcome = pool
            .start(&tiles, &(), |mut x, (), _| x += 1)
            .and_then(|mut running| {
                for ready in running.wait_any(1)?.ready {
                    ready.rerun();
                    again += 1;
                }
                running.finish()
            });
        match outcome {
            Ok(()) => assert_eq!(table.read(x).unwrap().sum(), 2 + again),
            Err(PoolError::WorkerDied { worker: 0, .. }) => {}
            Err(other) => panic!("{other}"),
        }
        pool.deaths() > 0
    });
}

/// I5: a call is given up after a torn tile was opened again: a half-written tile is poisoned.
#[test]
fn a_call_given_up_poisons_torn_tiles() {
    check(1, || {
        let table = join(&segment(1));
        let x = table.from_elem(2, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
        let mut pool = model::mortal_pool(&table, 1, u64::MAX).unwrap();
        pool.set_on_failure(OnFailure::RunAgain);
        // In a model the deadline has passed at the first look.
        pool.set_deadline(Some(Duration::ZERO));
        let _ = pool.for_each(&tiles, &(), |mut x, (), _| {
            let first = x[0] == 0;
            x[0] = 1;
            if first {
                model::die();
            }
            x[1] = 1;
        });
        drop(pool);
        if let Ok(x) = table.read(x) {
            assert!(x[0] == x[1], "half-written, but not poisoned");
        }
    });
}

/// I6: a failure that is read while its worker still runs is read whole.
#[test]
fn a_failure_is_read_whole() {
    check(3, || {
        let report = Arc::new(Report::new());
        let worker = with(&report, |report| report.fail(7, "a message"));
        assert!(report.take(6).is_none());
        if let Some(message) = report.take(7) {
            assert_eq!(message, "a message");
        }
        worker.join().unwrap();
    });
}

/// I6: a noted failure that is read while its worker still runs is read whole. The parent does so if
/// another process tears the tile of a worker that dies before it has torn it.
#[test]
fn a_noted_failure_is_read_whole() {
    check(3, || {
        let notes = Arc::new(TileNotes::new());
        let worker = with(&notes, |notes| notes.fail("a message"));
        if let Some(message) = notes.failure() {
            assert_eq!(message, "a message");
        }
        worker.join().unwrap();
        assert_eq!(notes.failure().as_deref(), Some("a message"));
    });
}

/// Adds 1. The first run of a tile fails.
fn fail_once(mut x: ndarray::ArrayViewMut1<'_, u64>, (): &(), _: &ndshm::TileContext<'_>) {
    if x[0] == 0 {
        model::fail_kernel("the first");
    }
    x[0] += 1;
}

/// I5, I6: a failed tile is an event. The parent sees its half-written rows, repairs them, and sends
/// it off again. In the end it is whole, and the array is not poisoned.
#[test]
fn a_failed_tile_is_repaired_and_run_again() {
    check(1, || {
        let table = join(&segment(1));
        let x = table.from_elem(1, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let started = pool.start(&tiles, &(), fail_once).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let arrived = running.wait_any(1).unwrap();
        assert_eq!((arrived.len(), arrived.failed.len()), (1, 1));
        for failed in arrived.failed {
            assert_eq!(failed.message(), "the first");
            let repaired = failed.repair(|mut x| {
                assert_eq!(x[0], 1);
                x[0] = 10;
            });
            repaired.unwrap().rerun();
        }
        running.finish().unwrap();
        assert_eq!(table.read(x).unwrap()[0], 11);
    });
}

/// I5, I6: a tile that fails in a call that runs it again is run again, and its failure is forgotten.
/// The parent takes the failure while the worker serves the same call.
#[test]
fn a_tile_that_fails_is_run_again() {
    check(1, || {
        let table = join(&segment(1));
        let x = table.from_elem(2, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        pool.set_on_failure(OnFailure::RunAgain);
        pool.for_each(&tiles, &(), fail_once).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 4);
    });
}

/// I1, I5, I7: a worker fails at its tile or is killed at any step. The tile is reported, as failed or
/// as lost, or the next worker runs it. It is whole in the end, and nobody waits for ever.
#[test]
fn death_in_a_call_that_goes_on() {
    check_deaths(0, |steps| {
        let table = join(&segment(1));
        let x = table.from_elem(1, 0u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let before = pool.deaths();
        let started = pool.start(&tiles, &(), fail_once).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut done = 0;
        while done == 0 {
            let arrived = running.wait_any(1).unwrap();
            for failed in arrived.failed {
                assert_eq!(failed.message(), "the first");
                failed.rerun();
            }
            for lost in arrived.lost {
                assert_eq!(lost.worker(), Some(0));
                lost.repair(|mut x| x[0] = 5).unwrap().rerun();
            }
            done += arrived.ready.count();
        }
        let died = running.deaths() > before;
        running.finish().unwrap();
        let x = table.read(x).unwrap()[0];
        assert!(x == 2 || died && x == 6, "{x}");
        died || pool.deaths() > before
    });
}
