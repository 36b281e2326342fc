//! The foreign pool: calls, answers, places, and deaths on both sides.
//!
//! loom's futex has no timeouts, so a lost wake-up is a deadlock, which fails the model. A death is
//! announced by `model::pass_time`, which stands for the timeout of a sleep.
#![cfg(all(loom, not(shuttle)))]

use std::time::Duration;

use loom::thread;
use loom_tests::{check, check_deaths, join};
use ndarray::{Axis, Ix1};
use ndshm::error::PoolError;
use ndshm::partition::{AccessMode, Entered, TileState, UntypedGroup};
use ndshm::pool::foreign::{Answer, ForeignHandle, ForeignPool, ForeignWorker};
use ndshm::{Grid, Handle, HandleTable, Segment, model};

/// A timeout that does not pass in a model.
const LONG: Duration = Duration::from_secs(1);

/// Creates a segment for `participants` participants.
fn segment(participants: u32) -> Segment {
    loom_tests::segment(4096, participants, 16)
}

/// Serves calls until the pool ends: answers with the bytes of the call and `mark`. Returns their
/// number.
fn serve(table: &HandleTable, handle: ForeignHandle, mark: u8) -> usize {
    let mut worker = match ForeignWorker::attach(table, handle, None, Duration::ZERO) {
        Ok(worker) => worker,
        Err(PoolError::Gone) => return 0,
        Err(error) => panic!("{error}"),
    };
    let mut served = 0;
    loop {
        match worker.next(LONG) {
            Ok(Some(call)) => {
                worker.count_tiles(1, 0);
                let answer = [&call.bytes[..], &[mark]].concat();
                worker.finish(&answer).unwrap();
                served += 1;
            }
            Ok(None) => panic!("a timeout has passed"),
            Err(PoolError::Gone) => return served,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Calls once, and returns the answers.
fn call(pool: &mut ForeignPool<&HandleTable>, bytes: &[u8]) -> Vec<Answer> {
    pool.call(7, bytes).unwrap();
    assert!(pool.wait(LONG).unwrap());
    let answers = pool.end().unwrap();
    answers.into_iter().map(|answer| answer.outcome).collect()
}

/// I6, I7: a worker that spins, sleeps or is about to sleep sees each call and the end of the pool.
/// The parent gets the answer to this call, also if it is long.
#[test]
fn a_worker_answers_every_call() {
    check(1, || {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let worker = thread::spawn(move || serve(&other, handle, 9));
        assert!(pool.wait_for_workers(1, LONG).unwrap());
        assert_eq!(call(&mut pool, &[1]), [Answer::Finished(vec![1, 9])]);
        let long: Vec<u8> = (0..20).collect();
        let answer = [&long[..], &[9]].concat();
        assert_eq!(call(&mut pool, &long), [Answer::Finished(answer)]);
        drop(pool);
        worker.join().unwrap();
    });
}

/// I7: of two workers one comes at any moment: before the call, during it, or after it.
#[test]
fn a_worker_comes_at_any_moment() {
    check(1, || {
        let segment = segment(3);
        let (table, first, second) = (join(&segment), join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 2).unwrap();
        let handle = pool.handle();
        let mut present = ForeignWorker::attach(&first, handle, None, Duration::ZERO).unwrap();
        let late = thread::spawn(move || serve(&second, handle, 9));
        let expected = pool.call(7, &[1]).unwrap();
        assert!((1..=2).contains(&expected));
        let got = present.next(LONG).unwrap().unwrap();
        present.finish(&got.bytes).unwrap();
        assert!(pool.wait(LONG).unwrap());
        let answers = pool.end().unwrap();
        for answer in &answers {
            let bytes = [&[1][..], &[1, 9]][answer.worker];
            assert_eq!(answer.outcome, Answer::Finished(bytes.to_vec()));
        }
        drop(present);
        drop(pool);
        let served = late.join().unwrap();
        assert_eq!(
            answers.len(),
            1 + served,
            "{answers:?}, {expected} expected"
        );
    });
}

/// I6: a worker that has answered and left is not taken for one that has left without an answer.
/// Its answer is whole.
#[test]
fn an_answer_is_kept_when_its_worker_leaves() {
    check(2, || {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let mut worker = ForeignWorker::attach(other, pool.handle(), None, LONG).unwrap();
        pool.call(7, &[1]).unwrap();
        let worker = thread::spawn(move || {
            let call = worker.next(LONG).unwrap().unwrap();
            worker.finish(&call.bytes).unwrap();
        });
        assert!(pool.wait(LONG).unwrap());
        let answers = pool.end().unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].outcome, Answer::Finished(vec![1]));
        worker.join().unwrap();
        assert_eq!(pool.deaths(), 0);
    });
}

/// I1, I6: a place has one occupant after the other. The successor finds its state clear and the
/// counts of work whole, also in the call in which its predecessor has left.
///
/// Nothing but the place orders the two: the parent does not sleep, and another worker of the
/// leaver's table keeps its lease of the words.
#[test]
fn a_place_has_one_occupant_after_the_other() {
    check(1, || {
        let segment = segment(3);
        let (table, first, second) = (join(&segment), join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 2).unwrap();
        let handle = pool.handle();
        let both = thread::spawn(move || {
            let attach = |place| ForeignWorker::attach(&first, handle, Some(place), Duration::ZERO);
            let (mut leaver, other) = (attach(0).unwrap(), attach(1).unwrap());
            leaver.next(LONG).unwrap().unwrap();
            leaver.count_tiles(1, 0);
            drop(leaver);
            std::mem::forget(other);
            std::mem::forget(first);
        });
        assert!(pool.wait_for_workers(2, LONG).unwrap());
        pool.call(7, &[1]).unwrap();
        let successor = thread::spawn(move || {
            let place = Some(0);
            let mut worker = ForeignWorker::attach(&second, handle, place, Duration::ZERO).ok()?;
            let call = worker.next(Duration::ZERO).ok()??;
            worker.count_tiles(1, 0);
            worker.finish(&call.bytes).unwrap();
            Some(())
        });
        // A look, which may free the place.
        assert!(!pool.wait(Duration::ZERO).unwrap());
        let served = successor.join().unwrap().is_some();
        both.join().unwrap();
        let tiles = pool.stats()[0].tiles;
        assert_eq!(tiles, 1 + u64::from(served));
        let answers = pool.end().unwrap();
        assert!(
            answers
                .iter()
                .any(|answer| answer.outcome == Answer::Running)
        );
    });
}

/// I7: the parent gives a call up while a worker is in it, and calls again. The late answer is not
/// taken for one to the new call.
#[test]
fn a_late_answer_is_ignored() {
    check(2, || {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let worker = thread::spawn(move || serve(&other, handle, 9));
        assert!(pool.wait_for_workers(1, LONG).unwrap());
        pool.call(7, &[1]).unwrap();
        let given_up = pool.end().unwrap();
        let finished = Answer::Finished(vec![1, 9]);
        assert!(
            [Answer::Running, finished].contains(&given_up[0].outcome),
            "{given_up:?}"
        );
        assert_eq!(call(&mut pool, &[2]), [Answer::Finished(vec![2, 9])]);
        drop(pool);
        worker.join().unwrap();
    });
}

/// I5, I6: the parent waits for a tile, writes it, sends it back, and announces the call once more.
/// The worker runs the tile twice, and each sees the writes of the other. The call is over when the
/// second run is.
#[test]
fn a_tile_sent_back_is_run_again() {
    check(1, || {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let x: Handle<u64, Ix1> = table.from_elem(1, 0).unwrap();
        let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
        let grid = Grid::blocks([(Axis(0), 1)]);
        let mut tiles = table.partition_untyped(group, &grid).unwrap();
        let (name, mut pool) = (tiles.handle(), ForeignPool::new(&table, 1).unwrap());
        let handle = pool.handle();
        let running = thread::spawn(move || {
            let mut worker = ForeignWorker::attach(&other, handle, None, LONG).unwrap();
            let mut tiles = other.open_untyped(name).unwrap();
            let mut ran = 0;
            loop {
                match worker.next(LONG) {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a timeout has passed"),
                    Err(_) => return ran,
                }
                let entered = tiles.enter_next(&other, 0, Duration::ZERO).unwrap();
                if let Entered::Member(mut member) = entered {
                    while let Some(token) = member.claim(&other).unwrap() {
                        drop(model::access(&other, x, 0..1, true).unwrap());
                        member.done(&other, token).unwrap();
                        worker.notify().unwrap();
                        ran += 1;
                    }
                    member.leave(&other).unwrap();
                }
                worker.finish(&[]).unwrap();
            }
        });
        assert!(pool.wait_for_workers(1, LONG).unwrap());
        let mut round = tiles.begin(&table).unwrap();
        pool.call(7, &[]).unwrap();
        let is_done = || round.tile(0) == Some(TileState::Done);
        assert!(pool.wait_until(LONG, is_done).unwrap());
        assert_eq!(round.tile(0), Some(TileState::Done));
        drop(model::access(&table, x, 0..1, true).unwrap());
        assert_eq!(round.again(&table, [0]).unwrap(), 1);
        pool.announce().unwrap();
        assert!(pool.wait(LONG).unwrap());
        assert!(round.try_finish(&table).unwrap());
        drop(model::access(&table, x, 0..1, true).unwrap());
        pool.end().unwrap();
        drop(pool);
        assert_eq!(running.join().unwrap(), 2);
    });
}

/// I6, I7: the parent cancels a call at any moment. Once it has waited, no worker is in the call.
#[test]
fn nobody_is_in_a_cancelled_call() {
    check(2, || {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let x: Handle<u64, Ix1> = table.from_elem(1, 0).unwrap();
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let serving = thread::spawn(move || {
            let mut worker = ForeignWorker::attach(&other, handle, None, LONG).unwrap();
            let mut served = 0;
            while let Ok(Some(call)) = worker.next(LONG) {
                if worker.is_wanted() {
                    drop(model::access(&&other, x, 0..1, true).unwrap());
                }
                worker.finish(&call.bytes).unwrap();
                served += 1;
            }
            served
        });
        assert!(pool.wait_for_workers(1, LONG).unwrap());
        pool.call(7, &[1]).unwrap();
        pool.cancel().unwrap();
        assert!(pool.wait(LONG).unwrap());
        drop(model::access(&table, x, 0..1, true).unwrap());
        let answers = pool.end().unwrap();
        drop(pool);
        let served = serving.join().unwrap();
        match &answers[0].outcome {
            Answer::Finished(_) => assert_eq!(served, 1),
            outcome => assert_eq!((outcome, served), (&Answer::Running, 0)),
        }
    });
}

/// I1, I7: a worker is killed before any of its steps. The call ends, with its answer or its death;
/// another worker can take the place.
#[test]
fn death_of_a_foreign_worker() {
    check_deaths(1, |steps| {
        let segment = segment(2);
        let (table, other) = (join(&segment), join(&segment));
        let mut pool = ForeignPool::new(&table, 1).unwrap();
        let handle = pool.handle();
        let mut mortal = ForeignWorker::attach(other, handle, None, Duration::ZERO).unwrap();
        pool.call(7, &[1]).unwrap();
        let worker = thread::spawn({
            let segment = segment.clone();
            move || {
                let life = move || {
                    let call = mortal.next(LONG).unwrap().unwrap();
                    mortal.finish(&call.bytes).unwrap();
                };
                let died = model::mortal(&segment, 1, steps, life).is_none();
                model::pass_time(&segment, handle);
                died
            }
        });
        assert!(pool.wait(LONG).unwrap());
        let answers = pool.end().unwrap();
        let died = worker.join().unwrap();
        assert_eq!(answers.len(), 1);
        match &answers[0].outcome {
            Answer::Finished(bytes) => assert_eq!(bytes[..], [1]),
            Answer::Died => assert!(died),
            other => panic!("{other:?}"),
        }
        // The parent looks, and the place is free.
        assert_eq!(pool.pids().unwrap(), [None]);
        let next = join(&segment);
        let worker = ForeignWorker::attach(&next, handle, Some(0), Duration::ZERO).unwrap();
        drop(worker);
        died
    });
}

/// I1, I7: the parent is killed before any of its steps. The worker is told, or was never attached.
#[test]
fn death_of_the_parent() {
    check_deaths(1, |steps| {
        let segment = segment(2);
        let (parent, table) = (join(&segment), join(&segment));
        let mut pool = ForeignPool::new(parent, 1).unwrap();
        let handle = pool.handle();
        let mut worker = ForeignWorker::attach(&table, handle, None, Duration::ZERO).unwrap();
        let parent = thread::spawn({
            let segment = segment.clone();
            move || {
                let life = move || {
                    pool.call(7, &[1]).unwrap();
                    assert!(pool.wait(LONG).unwrap());
                    pool.end().unwrap();
                };
                let died = model::mortal(&segment, 0, steps, life).is_none();
                model::pass_time(&segment, handle);
                died
            }
        });
        let end = loop {
            match worker.next(LONG) {
                Ok(Some(call)) => worker.finish(&call.bytes).unwrap(),
                Ok(None) => panic!("a timeout has passed"),
                Err(error) => break error,
            }
        };
        assert!(end.is_gone(), "{end}");
        parent.join().unwrap()
    });
}
