//! The death of a producer, a consumer or a reaper at every step.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use loom::thread;
use loom_tests::{check_deaths, check_deaths_in_case, tables};
use ndshm::model;

use crate::{assert_whole, filled, mortal, rest, segment, sorted};

/// The operations of a participant that opens a queue and pops, plus one.
const DEATHS_WHILE_POPPING: u64 = 28;

/// I1, I7: death between any two steps of a push. The survivor continues at once; its job is
/// popped, and the dead producer's job once or never; no cell is lost.
#[test]
fn death_while_pushing() {
    check_deaths(2, |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = survivor.queue(2).unwrap();
        let producer = mortal(second, queue.handle(), steps, |queue| {
            queue.push(1).unwrap();
        });
        queue
            .push(2)
            .expect("a cell is free, whatever the other does");
        let first = queue.pop().unwrap();
        assert!(first.is_some(), "a job was there");
        let died = producer.join().unwrap().is_none();
        survivor.reap().unwrap();
        let jobs = sorted(first.into_iter().chain(rest(&queue)));
        assert!(jobs == [1, 2] || died && jobs == [2], "{jobs:?}");
        assert_whole(&queue);
        died
    });
}

/// I1, I7: death between any two steps of a pop, while the survivor reaps. The job is popped again
/// unless the dead consumer had it, and never twice.
#[test]
fn death_while_popping() {
    let came_back = Arc::new(AtomicBool::new(false));
    let note = came_back.clone();
    check_deaths(2, move |steps| {
        let [survivor, second] = tables(&segment(2));
        let queue = filled(&survivor, 2, &[1, 2]);
        let theirs = Arc::new(Mutex::new(None));
        let popped = theirs.clone();
        let consumer = mortal(second, queue.handle(), steps, move |queue| {
            let job = queue.pop().unwrap();
            *popped.lock().unwrap() = job;
        });
        let mut back = survivor.reap().unwrap().jobs;
        let mine = queue.pop().unwrap();
        assert!(mine.is_some(), "two jobs, and one other consumer");
        let died = consumer.join().unwrap().is_none();
        back += survivor.reap().unwrap().jobs;
        let theirs = theirs.lock().unwrap().take();
        let jobs = sorted(mine.into_iter().chain(theirs).chain(rest(&queue)));
        // Between the last steps of the pop and its return the job is lost with the dead consumer.
        let gone = died && back == 0 && jobs.len() == 1;
        assert!(jobs == [1, 2] || gone, "{jobs:?}, {back} put back");
        note.fetch_or(back == 1, SeqCst);
        assert_whole(&queue);
        died
    });
    assert!(came_back.load(SeqCst), "no job was ever put back");
}

/// I1, I6: a participant dies while pushing or popping. Its cell passes to the next user after all
/// of its accesses there, whichever participant reaped it.
#[test]
fn a_cell_of_the_dead_is_used_again() {
    check_deaths(1, |steps| {
        let segment = segment(3);
        let [survivor, second, third] = tables(&segment);
        let queue = survivor.queue::<u64>(1).unwrap();
        let name = queue.handle();
        let mortal = segment.clone();
        let reaper = thread::spawn(move || {
            let second = ManuallyDrop::new(second);
            let life = model::mortal(&mortal, 1, steps, || {
                let queue = second.open_queue::<u64>(name).unwrap();
                let _ = queue.push(1);
                queue.pop().unwrap()
            });
            third.reap().unwrap();
            (life.is_none(), third)
        });
        let mine = queue.push(2).is_ok();
        let first = queue.pop().unwrap();
        assert!(mine || first != Some(2));
        let (died, _third) = reaper.join().unwrap();
        died
    });
}

/// I1, I5, I7: a consumer dies between any two steps. While a third participant reaps it, the
/// survivor pops and pushes. Each job is popped once, and in order, except the job that lost its
/// place.
#[test]
fn a_reap_beside_a_consumer() {
    check_deaths(1, |steps| {
        let [survivor, dead, reaper] = tables(&segment(4));
        let queue = filled(&survivor, 2, &[1, 2]);
        let theirs = mortal(dead, queue.handle(), steps, |queue| queue.pop().unwrap())
            .join()
            .unwrap();
        let reaping = thread::spawn(move || {
            reaper.reap().unwrap();
            reaper
        });
        let mut jobs: Vec<u64> = theirs.flatten().into_iter().collect();
        jobs.extend(queue.pop().unwrap());
        let pushed = queue.push(3).is_ok();
        jobs.extend(queue.pop().unwrap());
        let _reaper = reaping.join().unwrap();
        jobs.extend(rest(&queue));
        let died = theirs.is_none();
        let place = |job| jobs.iter().position(|&found| found == job);
        assert!(!pushed || place(2) < place(3), "out of order: {jobs:?}");
        jobs.sort_unstable();
        let expected = if pushed { &[1, 2, 3][..] } else { &[1, 2] };
        assert!(
            jobs == expected || died && jobs == expected[1..],
            "{jobs:?}"
        );
        assert_whole(&queue);
        died
    });
}

/// I7: a reaper that dies between any two steps leaves the rest to the next one. The job that a
/// dead consumer was taking is in the queue again, once.
#[test]
fn death_of_a_reaper_of_cells() {
    // For each step of the consumer as well.
    for taken in 0..DEATHS_WHILE_POPPING {
        check_deaths_in_case(taken, 1, move |steps| {
            let segment = segment(4);
            let [reaper, dead, survivor] = tables(&segment);
            let queue = filled(&survivor, 1, &[1]);
            let theirs = mortal(dead, queue.handle(), taken, |queue| queue.pop().unwrap())
                .join()
                .unwrap();
            let kill = segment.clone();
            let reaping = thread::spawn(move || {
                let reaper = ManuallyDrop::new(reaper);
                model::mortal(&kill, 0, steps, || drop(reaper.reap().unwrap())).is_none()
            });
            let mine = queue.pop().unwrap();
            let died = reaping.join().unwrap();
            survivor.reap().unwrap();
            let jobs: Vec<u64> = theirs
                .flatten()
                .into_iter()
                .chain(mine)
                .chain(rest(&queue))
                .collect();
            assert!(
                jobs == [1] || theirs.is_none() && jobs.is_empty(),
                "{jobs:?}"
            );
            assert_whole(&queue);
            died
        });
    }
}
