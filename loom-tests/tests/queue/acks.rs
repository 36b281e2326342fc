//! Jobs that are bound to their consumer until it acknowledges them.

use core::time::Duration;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use loom::thread;
use loom_tests::{check, check_deaths, check_deaths_in_case, tables};
use ndshm::{Queue, model};

use crate::{assert_whole, filled, mortal, other, segment};

/// The operations of a participant that opens a queue, binds a job and gives it back, plus one.
const DEATHS_WHILE_GIVING_BACK: u64 = 50;

/// Pops a job with its number of deliveries, and acknowledges it.
fn next(queue: &Queue<'_, u64>) -> Option<(u64, u32)> {
    let job = queue.pop_with_ack().unwrap()?;
    let found = (*job, job.deliveries());
    job.ack().unwrap();
    Some(found)
}

/// Does the same with all jobs that are left.
fn rest(queue: &Queue<'_, u64>) -> Vec<(u64, u32)> {
    std::iter::from_fn(|| next(queue)).collect()
}

/// I1, I5: each of two consumers acknowledges jobs: each job once, delivered once.
#[test]
fn two_consumers_acknowledge_each_job_once() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1, 2]);
        let consumer = other(second, queue.handle(), next);
        let mine = next(&queue);
        let (theirs, _second) = consumer.join().unwrap();
        let mut jobs: Vec<_> = mine.into_iter().chain(theirs).collect();
        jobs.extend(rest(&queue));
        jobs.sort_unstable();
        assert_eq!(jobs, [(1, 1), (2, 1)]);
        assert_whole(&queue);
    });
}

/// I6: the cell of a job is used again after its consumer has read it.
#[test]
fn a_cell_is_used_again_after_the_acknowledgement() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 1, &[1]);
        let consumer = other(second, queue.handle(), next);
        let pushed = queue.push(2).is_ok();
        let (theirs, _second) = consumer.join().unwrap();
        assert_eq!(theirs, Some((1, 1)));
        let left = if pushed { &[(2, 1)][..] } else { &[] };
        assert_eq!(rest(&queue), left);
        assert_whole(&queue);
    });
}

/// I1, I5, I7: a consumer dies between any two steps from the pop to the end of the acknowledgement,
/// beside a survivor that reaps and pops. The job is acknowledged once, by the one or the other.
#[test]
fn death_before_the_acknowledgement() {
    let again = Arc::new(AtomicBool::new(false));
    let note = again.clone();
    check_deaths(2, move |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = filled(&survivor, 1, &[1]);
        // Its number of deliveries, then the acknowledgement.
        let theirs = Arc::new(Mutex::new((0, false)));
        let told = theirs.clone();
        let consumer = mortal(second, queue.handle(), steps, move |queue| {
            if let Some(job) = queue.pop_with_ack().unwrap() {
                told.lock().unwrap().0 = job.deliveries();
                job.ack().unwrap();
                told.lock().unwrap().1 = true;
            }
        });
        survivor.reap().unwrap();
        let early = next(&queue);
        let died = consumer.join().unwrap().is_none();
        survivor.reap().unwrap();
        let late = rest(&queue);
        let (delivered, acknowledged) = *theirs.lock().unwrap();
        let mine: Vec<_> = early.into_iter().chain(late).collect();
        match mine[..] {
            // The consumer's acknowledgement succeeded, perhaps without its knowledge.
            [] => assert!(acknowledged || died && delivered == 1, "the job is lost"),
            [(1, deliveries)] => {
                assert!(!acknowledged, "acknowledged twice");
                assert!(deliveries > delivered && deliveries <= 2, "{deliveries}");
                note.fetch_or(delivered == 1, SeqCst);
            }
            _ => panic!("{mine:?}"),
        }
        assert_whole(&queue);
        died
    });
    assert!(again.load(SeqCst), "no job was ever delivered again");
}

/// I1, I5, I7: a consumer dies between any two steps of giving a job back, beside a survivor that
/// pops and pushes, so that its searches pass the bound job over. No job is lost or doubled.
#[test]
fn death_while_giving_back() {
    check_deaths(1, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = filled(&survivor, 2, &[1]);
        let consumer = mortal(second, queue.handle(), steps, |queue| {
            let job = queue.pop_with_ack().unwrap();
            let had = job.is_some();
            drop(job);
            had
        });
        let mut jobs: Vec<(u64, u32)> = Vec::new();
        queue.push(2).expect("a cell is free");
        jobs.extend(next(&queue));
        let died = consumer.join().unwrap().is_none();
        survivor.reap().unwrap();
        jobs.extend(rest(&queue));
        jobs.sort_unstable();
        let all: Vec<u64> = jobs.iter().map(|&(job, _)| job).collect();
        assert_eq!(all, [1, 2], "{jobs:?}");
        let deliveries: u32 = jobs.iter().map(|&(_, deliveries)| deliveries).sum();
        assert!(deliveries <= 3, "one came back: {jobs:?}");
        assert_whole(&queue);
        died
    });
}

/// I5: a job that is given back comes after each job whose push had returned, also if searches pass
/// its cell over meanwhile. It is counted.
#[test]
fn a_given_back_job_is_the_last_one() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1, 2]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let consumer = other(second, queue.handle(), |queue| {
            let job = next(queue);
            // The search passes the bound cell over.
            let _ = queue.push(3);
            (job, next(queue))
        });
        drop(held);
        let ((one, two), _second) = consumer.join().unwrap();
        assert_eq!(one, Some((2, 1)), "it was pushed before");
        let mut jobs: Vec<_> = two.into_iter().chain(rest(&queue)).collect();
        jobs.sort_unstable();
        assert!(jobs == [(1, 2), (3, 1)] || jobs == [(1, 2)], "{jobs:?}");
        assert_whole(&queue);
    });
}

/// I1: a job is acknowledged beside searches that move its cell to later laps. The cell is free.
#[test]
fn a_cell_that_a_search_passed_over_is_acknowledged() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let others = other(second, queue.handle(), |queue| {
            for job in [2, 3] {
                queue.push(job).unwrap();
                assert_eq!(queue.pop().unwrap(), Some(job));
            }
        });
        held.ack().unwrap();
        let _second = others.join().unwrap();
        assert_whole(&queue);
    });
}

/// I7: a reaper dies between any two steps of taking back a job that its dead consumer was binding
/// or giving back. The next reaper finishes: the job is in the queue once.
#[test]
fn death_of_a_reaper_of_bound_jobs() {
    // For each step of the consumer as well.
    for taken in 0..DEATHS_WHILE_GIVING_BACK {
        check_deaths_in_case(taken, 0, move |steps| {
            let segment = segment(4);
            let [reaper, dead, survivor] = tables(&segment);
            let queue = filled(&survivor, 1, &[1]);
            let consumer = mortal(dead, queue.handle(), taken, |queue| {
                drop(queue.pop_with_ack().unwrap());
            });
            consumer.join().unwrap();
            let kill = segment.clone();
            let reaping = thread::spawn(move || {
                let reaper = ManuallyDrop::new(reaper);
                model::mortal(&kill, 0, steps, || drop(reaper.reap().unwrap())).is_none()
            });
            let mut jobs: Vec<_> = next(&queue).into_iter().collect();
            let died = reaping.join().unwrap();
            survivor.reap().unwrap();
            jobs.extend(rest(&queue));
            assert!(matches!(jobs[..], [(1, 1 | 2)]), "{jobs:?}");
            assert_whole(&queue);
            died
        });
    }
}

/// I7: a consumer that waits for a job that is bound to another is woken when it comes back.
#[test]
fn a_given_back_job_wakes_a_sleeper() {
    check(2, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 1, &[1]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        let consumer = other(second, queue.handle(), |queue| {
            let job = queue.pop_with_ack_timeout(Duration::MAX).unwrap().unwrap();
            let found = (*job, job.deliveries());
            job.ack().unwrap();
            found
        });
        drop(held);
        let (theirs, _second) = consumer.join().unwrap();
        assert_eq!(theirs, (1, 2));
        assert!(queue.is_empty());
    });
}

/// I7: a producer that waits for the cell of a bound job is woken by the acknowledgement, also if
/// another bound job keeps the tail's cell.
#[test]
fn an_acknowledgement_wakes_a_producer() {
    for others in [0, 1] {
        check(3, move || {
            let [first, second] = tables(&segment(2));
            let jobs = Vec::from_iter(1..=others + 1);
            let queue = filled(&first, jobs.len(), &jobs);
            let mut held =
                Vec::from_iter(jobs.iter().map(|_| queue.pop_with_ack().unwrap().unwrap()));
            let producer = other(second, queue.handle(), |queue| {
                queue.push_timeout(9, Duration::MAX).unwrap();
            });
            held.pop().unwrap().ack().unwrap();
            let _second = producer.join().unwrap();
            held.into_iter().for_each(|job| job.ack().unwrap());
            assert_eq!(rest(&queue), [(9, 1)]);
            assert_whole(&queue);
        });
    }
}

/// I7: consumers of a closed queue wait for a job that is bound to one of them, and get it if it
/// comes back.
#[test]
fn a_closed_queue_is_waited_for_while_a_job_is_bound() {
    for give_back in [false, true] {
        check(1, move || {
            let [first, second] = tables(&segment(2));
            let queue = filled(&first, 1, &[1]);
            let held = queue.pop_with_ack().unwrap().unwrap();
            let consumer = other(second, queue.handle(), |queue| {
                let job = queue.pop_with_ack_timeout(Duration::MAX).unwrap()?;
                let found = (*job, job.deliveries());
                job.ack().unwrap();
                Some(found)
            });
            queue.close();
            match give_back {
                true => drop(held),
                false => held.ack().unwrap(),
            }
            let (theirs, _second) = consumer.join().unwrap();
            assert_eq!(theirs, give_back.then_some((1, 2)));
            assert!(queue.is_drained());
        });
    }
}

/// I5: a participant that finds a closed queue drained has missed no job that comes back meanwhile.
#[test]
fn after_drained_no_job_comes_back() {
    check(3, || {
        let [first, second] = tables(&segment(2));
        let queue = filled(&first, 2, &[1]);
        let held = queue.pop_with_ack().unwrap().unwrap();
        queue.close();
        let looks = other(second, queue.handle(), |queue| {
            queue.is_drained() && queue.pop().unwrap().is_some()
        });
        drop(held);
        let (late, _second) = looks.join().unwrap();
        assert!(!late, "a job after the last one");
    });
}
