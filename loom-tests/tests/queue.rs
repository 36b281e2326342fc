//! Queues: jobs that are handed over between participants, any of which may die at any instruction.
#![cfg(all(loom, not(shuttle)))]
#![expect(
    clippy::disallowed_types,
    reason = "the notes here are outside of the model"
)]

use core::time::Duration;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use loom::thread;
use loom_tests::{check, check_deaths, options};
use ndshm::{HandleTable, Queue, QueueHandle, Segment, model};

/// The operations of a participant that opens a queue and pops, plus one.
const DEATHS_WHILE_POPPING: u64 = 28;

/// Creates a segment with room for a queue of one or two cells.
fn segment(seats: u32) -> Segment {
    let options = options().capacity(512).seats(seats).arrays(2);
    options.in_process().expect("a model's segment")
}

fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).expect("a seat is free")
}

/// Runs `act` on the queue as another participant, in a thread of its own. Returns its table as
/// well.
fn other<R: 'static>(
    table: HandleTable,
    name: QueueHandle<u64>,
    act: impl FnOnce(&Queue<'_, u64>) -> R + 'static,
) -> thread::JoinHandle<(R, HandleTable)> {
    thread::spawn(move || {
        let queue = table.open_queue(name).expect("the queue is live");
        let result = act(&queue);
        drop(queue);
        (result, table)
    })
}

/// Does the same as the participant of seat 1, which dies before its operation number `steps`. The
/// result is then `None`.
fn mortal<R: 'static>(
    table: HandleTable,
    name: QueueHandle<u64>,
    steps: u64,
    act: impl FnOnce(&Queue<'_, u64>) -> R + 'static,
) -> thread::JoinHandle<Option<R>> {
    let segment = table.segment().clone();
    thread::spawn(move || {
        let table = std::mem::ManuallyDrop::new(table);
        model::mortal(&segment, 1, steps, || {
            let queue = table.open_queue(name).expect("the queue is live");
            act(&queue)
        })
    })
}

/// Waits for the next job.
fn pop(queue: &Queue<'_, u64>) -> u64 {
    loop {
        if let Some(job) = queue.pop().unwrap() {
            return job;
        }
        thread::yield_now();
    }
}

/// Pops the remaining jobs, in order.
fn rest(queue: &Queue<'_, u64>) -> Vec<u64> {
    std::iter::from_fn(|| queue.pop().unwrap()).collect()
}

/// Asserts that all cells are free, at any lap: exactly as many jobs as there are cells go in, and
/// come out in order.
#[track_caller]
fn assert_whole(queue: &Queue<'_, u64>) {
    assert_eq!(rest(queue), []);
    let jobs: Vec<u64> = (100..100 + queue.capacity() as u64).collect();
    for &job in &jobs {
        queue.push(job).expect("a cell is lost");
    }
    queue.push(99).expect_err("more cells than expected");
    assert_eq!(rest(queue), jobs);
}

/// I5, I6: a job arrives whole and once, in the order of its producer, through a cell that is used
/// again. loom watches the bytes.
#[test]
fn a_hand_over() {
    check("a_hand_over", 4, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
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
fn two_consumers() {
    check("two_consumers", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(2).unwrap();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        let consumer = other(second, queue.handle(), |queue| {
            [queue.pop().unwrap(), queue.pop().unwrap()]
        });
        let mine = queue.pop().unwrap();
        let (theirs, _second) = consumer.join().unwrap();
        assert!(theirs[0].is_some(), "a job was there: {mine:?} {theirs:?}");
        assert_ne!(theirs, [Some(2), Some(1)], "out of order");
        let mut all: Vec<u64> = theirs.into_iter().chain([mine]).flatten().collect();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
        assert_whole(&queue);
    });
}

/// I5, I6: two producers and a consumer, with one cell and with two: each job is popped once, or
/// refused.
fn producers_and_consumer(capacity: usize) {
    let options = options().capacity(512).seats(4).arrays(2);
    let segment = options.in_process().unwrap();
    let (first, second, third) = (join(&segment), join(&segment), join(&segment));
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
    let mut jobs: Vec<u64> = first_job.into_iter().chain(rest(&queue)).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, expected);
    assert_whole(&queue);
}

#[test]
fn two_producers_at_one_cell() {
    check("two_producers_at_one_cell", 2, || producers_and_consumer(1));
}

#[test]
fn two_producers_at_two_cells() {
    check("two_producers_at_two_cells", 2, || {
        producers_and_consumer(2);
    });
}

/// I2: at every moment there is a job in one cell or the other, but it moves behind the search. A
/// consumer finds a job if the mover never leaves less than one.
#[test]
fn never_empty_while_a_job_moves() {
    check("never_empty_while_a_job_moves", 4, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(2).unwrap();
        queue.push(1).unwrap();
        let mover = other(second, queue.handle(), |queue| {
            // Push the new job before popping the old one.
            queue.push(2).expect("a cell is free");
            queue.pop().unwrap()
        });
        assert!(!queue.is_empty(), "a job was there at every moment");
        let (moved, _second) = mover.join().unwrap();
        assert_eq!(moved, Some(1));
        assert_eq!(queue.pop().unwrap(), Some(2));
        assert_whole(&queue);
    });
}

/// I2: the same beside another consumer: two jobs for two consumers.
#[test]
fn never_empty_for_two() {
    check("never_empty_for_two", 4, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(2).unwrap();
        queue.push(1).unwrap();
        let mover = other(second, queue.handle(), |queue| {
            queue.push(2).expect("a cell is free");
            queue.pop().unwrap()
        });
        let mine = queue.pop().unwrap();
        let (theirs, _second) = mover.join().unwrap();
        let jobs = (mine.expect("a job was there"), theirs.expect("and another"));
        assert!(matches!(jobs, (1, 2) | (2, 1)));
        assert_whole(&queue);
    });
}

/// I2: never more than one of the two cells is in use: a push finds a free cell, also one behind
/// its search.
#[test]
fn never_full_while_a_job_moves() {
    check("never_full_while_a_job_moves", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(2).unwrap();
        let mover = other(second, queue.handle(), |queue| {
            queue.push(1).expect("one cell in use at most");
            let popped = queue.pop().unwrap();
            queue.push(2).expect("one cell in use at most");
            popped
        });
        queue.push(3).expect("a cell was free at every moment");
        let (popped, _second) = mover.join().unwrap();
        let mut jobs: Vec<u64> = popped.into_iter().chain(rest(&queue)).collect();
        jobs.sort_unstable();
        assert_eq!(jobs, [1, 2, 3]);
        assert_whole(&queue);
    });
}

/// I2: at every moment one cell or the other is free: a push finds it.
#[test]
fn never_full_while_a_cell_moves() {
    check("never_full_while_a_cell_moves", 4, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(2).unwrap();
        queue.push(1).unwrap();
        let mover = other(second, queue.handle(), |queue| {
            let old = queue.pop().unwrap();
            let refused = queue.push(2).is_err();
            (old, refused)
        });
        // Beside our job there is never more than one of the mover's.
        queue.push(3).expect("a cell was free at every moment");
        let ((old, refused), _second) = mover.join().unwrap();
        assert_eq!((old, refused), (Some(1), false));
        let mut jobs = rest(&queue);
        jobs.sort_unstable();
        assert_eq!(jobs, [2, 3]);
        assert_whole(&queue);
    });
}

/// I5: a participant that sees the queue closed and drained has seen its last job. A push that
/// overlaps the close succeeds, and its job comes out, or it is refused.
#[test]
fn a_push_that_meets_the_close() {
    check("a_push_that_meets_the_close", 4, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
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
fn what_came_before_the_close() {
    check("what_came_before_the_close", 3, || {
        let options = options().capacity(640).seats(2).arrays(4);
        let segment = options.in_process().unwrap();
        let (first, second) = (join(&segment), join(&segment));
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

/// I1, I7: death between any two steps of a push. The survivor continues at once; its job is
/// popped, and the dead producer's job once or never; no cell is lost.
#[test]
fn death_while_pushing() {
    check_deaths("death_while_pushing", 2, |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
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
        let mut jobs: Vec<u64> = first.into_iter().chain(rest(&queue)).collect();
        jobs.sort_unstable();
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
    check_deaths("death_while_popping", 2, move |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
        let queue = survivor.queue(2).unwrap();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
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
        let mut jobs: Vec<u64> = mine.into_iter().chain(theirs).chain(rest(&queue)).collect();
        jobs.sort_unstable();
        // Between the last steps of the pop and its return the job is lost with the dead consumer.
        let gone = died && back == 0 && jobs.len() == 1;
        assert!(jobs == [1, 2] || gone, "{jobs:?}, {back} put back");
        note.fetch_or(back == 1, SeqCst);
        assert_whole(&queue);
        died
    });
    assert!(came_back.load(SeqCst), "no job was ever put back");
}

/// I7: a consumer that sleeps or is about to sleep is woken by the push, and then by the close.
/// loom's futex has no timeouts, so a lost wake-up is a deadlock.
#[test]
fn a_sleeping_consumer() {
    check("a_sleeping_consumer", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
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
fn a_sleeping_producer() {
    check("a_sleeping_producer", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(1).unwrap();
        queue.push(1).unwrap();
        let producer = other(second, queue.handle(), |queue| {
            queue.push_timeout(2, Duration::MAX).unwrap();
        });
        assert_eq!(queue.pop().unwrap(), Some(1));
        let _second = producer.join().unwrap();
        assert_eq!(rest(&queue), [2]);
        assert_whole(&queue);
    });
}

/// I7: a consumer of a closed queue that waits while another takes the last job returns with it.
#[test]
fn waiting_for_the_last_job() {
    check("waiting_for_the_last_job", 3, || {
        let segment = segment(2);
        let (first, second) = (join(&segment), join(&segment));
        let queue = first.queue(1).unwrap();
        queue.push(1).unwrap();
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

/// I1, I6: a participant dies while pushing or popping. Its cell passes to the next user after all
/// of its accesses there, whichever participant reaped it.
#[test]
fn a_cell_of_the_dead_is_used_again() {
    check_deaths("a_cell_of_the_dead_is_used_again", 1, |steps| {
        let segment = segment(3);
        let (survivor, second, third) = (join(&segment), join(&segment), join(&segment));
        let queue = survivor.queue::<u64>(1).unwrap();
        let name = queue.handle();
        let mortal = segment.clone();
        let reaper = thread::spawn(move || {
            let second = std::mem::ManuallyDrop::new(second);
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
    check_deaths("a_reap_beside_a_consumer", 1, |steps| {
        let options = options().capacity(512).seats(4).arrays(2);
        let segment = options.in_process().unwrap();
        let (survivor, dead, reaper) = (join(&segment), join(&segment), join(&segment));
        let queue = survivor.queue(2).unwrap();
        queue.push(1).unwrap();
        queue.push(2).unwrap();
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
        check_deaths(
            &format!("death_of_a_reaper_of_cells {taken}"),
            1,
            move |steps| {
                let segment = segment(4);
                let (reaper, dead) = (join(&segment), join(&segment));
                let survivor = join(&segment);
                let queue = survivor.queue(1).unwrap();
                queue.push(1).unwrap();
                let theirs = mortal(dead, queue.handle(), taken, |queue| queue.pop().unwrap())
                    .join()
                    .unwrap();
                let kill = segment.clone();
                let reaping = thread::spawn(move || {
                    let reaper = std::mem::ManuallyDrop::new(reaper);
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
            },
        );
    }
}

/// I5: a producer pushes, then starts a second producer, which pushes, while a third participant
/// pops. The jobs come out in that order.
#[test]
fn order_between_producers() {
    check("order_between_producers", 3, || {
        let options = options().capacity(512).seats(4).arrays(2);
        let segment = options.in_process().unwrap();
        let (first, second, third) = (join(&segment), join(&segment), join(&segment));
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

/// I7: the queue is closed, and the consumer of its last job dies between any two steps. A
/// participant that found the queue drained missed no job.
#[test]
fn death_at_the_last_job() {
    check_deaths("death_at_the_last_job", 2, |steps| {
        let segment = segment(2);
        let (survivor, second) = (join(&segment), join(&segment));
        let queue = survivor.queue(1).unwrap();
        queue.push(1).unwrap();
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

/// I7: a consumer waits for two producers, one of which may overtake the other. The tail is then
/// beyond the position of the slower one, but its push still wakes the consumer.
#[test]
fn a_consumer_that_waits_for_two() {
    check("a_consumer_that_waits_for_two", 1, || {
        let options = options().capacity(512).seats(4).arrays(2);
        let segment = options.in_process().unwrap();
        let (first, second, third) = (join(&segment), join(&segment), join(&segment));
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
