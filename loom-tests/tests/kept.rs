//! Rounds in a row that keep their arrays: the opener goes on, and the participants follow.
#![cfg(all(loom, not(shuttle)))]

use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use loom_tests::{beside, beside_death, check, check_deaths, is_busy, join, segment, tables};
use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::error::{LeaseError, PoolError, RoundError};
use ndshm::{
    Handle, HandleTable, Partition, PartitionHandle, Pool, Round, RoundMember, Segment,
    TileContext, Write, model,
};

type Group = Write<u64, Ix1>;

const PATIENCE: Duration = Duration::MAX;

/// Creates a segment with room for a vector and the words of its partition.
fn room_for_tiles() -> Segment {
    segment(576, 2, 4)
}

/// Creates a vector of zeros, divided into tiles of one element.
fn divided(table: &HandleTable, length: usize) -> (Handle<u64, Ix1>, Partition<'_, Group>) {
    let x = table.from_elem(length, 0u64).unwrap();
    (x, table.partition(x.write(), Axis(0), 1).unwrap())
}

/// Adds one to the element of each tile that can be claimed.
fn work(part: &mut RoundMember<'_, '_, Group>) {
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views()[0] += 1;
    }
}

/// Takes part in the running round, and in those to which its opener goes on, up to number `last`.
fn follow(table: &HandleTable, name: PartitionHandle<Group>, last: u64) {
    follow_from(table, name, last, work);
}

/// Works like [`follow`], with `first` in place of [`work`] in the round that it enters.
fn follow_from(
    table: &HandleTable,
    name: PartitionHandle<Group>,
    last: u64,
    first: impl FnOnce(&mut RoundMember<'_, '_, Group>),
) {
    let tiles = table.open_partition(name).unwrap();
    let Some(mut part) = tiles.enter().unwrap() else {
        return;
    };
    first(&mut part);
    while part.round() < last {
        let before = part.round();
        if !part.follow() {
            break;
        }
        match part.round() == before {
            true => thread::yield_now(),
            false => work(&mut part),
        }
    }
}

/// Goes on to the next round as soon as all tiles are done.
fn go_on<'p, 't>(mut round: Round<'p, 't, Group>) -> Result<Round<'p, 't, Group>, RoundError> {
    loop {
        match round.try_next() {
            Ok(next) => return next,
            Err(unfinished) => round = unfinished,
        }
        thread::yield_now();
    }
}

/// Runs two rounds with the same leases, and takes part in both.
fn open_two(tiles: &Partition<'_, Group>) -> Result<(), RoundError> {
    let round = tiles.begin()?;
    let number = round.number();
    let mut part = tiles.enter()?.expect("the round runs");
    work(&mut part);
    let round = go_on(round)?;
    assert_eq!(round.number(), number + 1);
    assert!(part.follow());
    work(&mut part);
    drop(part);
    round.finish(PATIENCE)
}

/// I5, I6: a participant follows the opener through two rounds. Each tile is run once in each of them, by
/// either of the two, and the end sees all writes.
#[test]
fn each_tile_of_kept_rounds_is_claimed_once() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles());
        let (x, tiles) = divided(&first, 2);
        let name = tiles.handle();
        let theirs = move |table: &HandleTable| follow(table, name, 2);
        let (mine, (), second) = beside(second, theirs, || open_two(&tiles));
        mine.unwrap();
        assert_eq!(second.write(x).unwrap().to_vec(), [2, 2]);
    });
}

/// I5: a participant that enters while the opener goes on is in the one round or in the other.
#[test]
fn a_participant_enters_while_the_opener_goes_on() {
    check(2, || {
        let [first, second] = tables(&room_for_tiles());
        let (x, tiles) = divided(&first, 1);
        let name: PartitionHandle<Group> = tiles.handle();
        let round = tiles.begin().unwrap();
        let theirs = move |table: &HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            let mut part = tiles.enter().unwrap().expect("a round runs all the time");
            work(&mut part);
        };
        let mine = || {
            let mut part = tiles.enter().unwrap().unwrap();
            work(&mut part);
            let round = go_on(round).unwrap();
            assert!(part.follow());
            (round, part)
        };
        let ((round, mut part), (), second) = beside(second, theirs, mine);
        work(&mut part);
        drop(part);
        round.finish(PATIENCE).unwrap();
        assert_eq!(second.read(x).unwrap()[0], 2);
    });
}

/// I6: the opener goes on only after everything that was done in its round, also by another participant.
#[test]
fn an_opener_goes_on_after_all_tiles() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles());
        let (_, tiles) = divided(&first, 2);
        let name = tiles.handle();
        let cell = Arc::new(UnsafeCell::new(0));
        let theirs = {
            let cell = cell.clone();
            move |table: &HandleTable| {
                follow_from(table, name, 1, |part| {
                    let is_first = part.round() == 1;
                    while let Some(_tile) = part.claim().unwrap() {
                        if is_first {
                            cell.with_mut(|cell| {
                                // SAFETY: loom fails the model if another thread has the cell now.
                                unsafe { *cell += 1 };
                            });
                        }
                    }
                });
            }
        };
        let mine = || {
            let round = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            let mut done = 0;
            while let Some(_tile) = part.claim().unwrap() {
                done += 1;
            }
            let round = go_on(round).unwrap();
            // SAFETY: as above.
            let others = cell.with(|cell| unsafe { *cell });
            assert_eq!(done + others, 2);
            assert!(part.follow());
            work(&mut part);
            drop(part);
            round.finish(PATIENCE).unwrap();
        };
        beside(second, theirs, mine);
    });
}

/// I5, I6: a participant that stays when its round has ended gets no tile, so the array can be read. It
/// keeps writers and the next round out.
#[test]
fn a_participant_that_stays_keeps_the_next_round_out() {
    check(1, || {
        let [first, second] = tables(&room_for_tiles());
        let (x, tiles) = divided(&first, 1);
        let name = tiles.handle();
        let theirs = move |table: &HandleTable| follow(table, name, 2);
        let mine = || {
            let round = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            work(&mut part);
            drop(part);
            finish_beside(round);
            assert_eq!(first.read(x).unwrap()[0], 1);
            // They are in the first round, have left it, or never came.
            match first.write(x) {
                Ok(mut x) => x[0] = 5,
                refused => assert!(is_busy(&refused)),
            }
            match tiles.begin() {
                Ok(round) => {
                    let mut part = tiles.enter().unwrap().unwrap();
                    work(&mut part);
                    drop(part);
                    round.finish(PATIENCE).unwrap();
                    true
                }
                Err(RoundError::Lease(LeaseError::Busy { .. })) => false,
                Err(other) => panic!("{other}"),
            }
        };
        let (next, (), _second) = beside(second, theirs, mine);
        let x = first.write(x).unwrap()[0];
        assert!([1, 5].contains(&(x - u64::from(next))), "{x} {next}");
    });
}

/// Ends a round as soon as all tiles are done. Does not wait for participants that stay.
fn finish_beside(mut round: Round<'_, '_, Group>) {
    loop {
        match round.try_finish() {
            Ok(outcome) => return outcome.unwrap(),
            Err(unfinished) => round = unfinished,
        }
        thread::yield_now();
    }
}

/// I6: a participant that is told that a round is over, because the next one runs, sees everything that
/// was done in it.
#[test]
fn writes_of_a_round_come_before_the_next_one() {
    check(2, || {
        let [first, second] = tables(&room_for_tiles());
        let (_, tiles) = divided(&first, 1);
        let name: PartitionHandle<Group> = tiles.handle();
        let cell = Arc::new(UnsafeCell::new(0));
        let theirs = {
            let cell = cell.clone();
            move |table: &HandleTable| {
                let tiles = table.open_partition(name).unwrap();
                tiles.wait_finished(1, PATIENCE).unwrap();
                // SAFETY: loom fails the model if another thread has the cell now.
                cell.with(|cell| assert_eq!(unsafe { *cell }, 1));
            }
        };
        let mine = || {
            let round = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            work(&mut part);
            cell.with_mut(|cell| {
                // SAFETY: as above.
                unsafe { *cell = 1 };
            });
            let round = go_on(round).unwrap();
            assert!(part.follow());
            work(&mut part);
            drop(part);
            round.finish(PATIENCE).unwrap();
        };
        beside(second, theirs, mine);
    });
}

/// I1, I5, I7: the opener dies at any step of two rounds that keep their arrays, beside a participant
/// that follows. The array is whole or poisoned, and the next round is whole.
#[test]
fn death_of_an_opener_that_goes_on() {
    check_deaths(0, |steps| {
        let [survivor, mortal] = tables(&room_for_tiles());
        let (x, tiles) = divided(&survivor, 2);
        let name: PartitionHandle<Group> = tiles.handle();
        let theirs = move |table: &HandleTable| {
            let tiles = table.open_partition(name).unwrap();
            open_two(&tiles).unwrap();
        };
        let mine = || follow_until_over(&survivor, &tiles);
        let ((), died) = beside_death(&survivor, mortal, steps, theirs, mine);
        match survivor.read(x) {
            Ok(x) => {
                let whole = |x: u64| x == 2 || died && x == 0;
                assert!(x.iter().all(|&x| whole(x)), "{x}");
            }
            Err(LeaseError::Poisoned { .. }) => assert!(died),
            Err(other) => panic!("{other}"),
        }
        let _ = survivor.clear_poison(x);
        survivor.write(x).unwrap().fill(0);
        open_two(&tiles).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(survivor.read(x).unwrap().to_vec(), [2, 2]);
        died
    });
}

/// Takes part in the rounds of an opener that may die, until the second one or until they are over.
fn follow_until_over(table: &HandleTable, tiles: &Partition<'_, Group>) {
    let Some(mut part) = tiles.enter().unwrap() else {
        return;
    };
    work(&mut part);
    while part.round() < 2 {
        let before = part.round();
        if !part.follow() {
            break;
        }
        if part.round() == before {
            table.reap().unwrap();
            thread::yield_now();
        } else {
            work(&mut part);
        }
    }
}

/// I1, I5, I7: a participant that follows dies at any step. Its tiles are done or torn, and the array is
/// not readable in between.
#[test]
fn death_of_a_participant_that_follows() {
    check_deaths(0, |steps| {
        let [survivor, mortal] = tables(&room_for_tiles());
        let (x, tiles) = divided(&survivor, 2);
        let name = tiles.handle();
        let theirs = move |table: &HandleTable| follow(table, name, 2);
        let mine = || {
            let mut round = tiles.begin().unwrap();
            let mut part = tiles.enter().unwrap().unwrap();
            work(&mut part);
            loop {
                match round.try_next() {
                    Ok(Ok(next)) => round = next,
                    Ok(Err(error)) => return Err(error),
                    Err(unfinished) => {
                        round = unfinished;
                        survivor.reap().unwrap();
                        thread::yield_now();
                        continue;
                    }
                }
                assert!(part.follow());
                work(&mut part);
                drop(part);
                return round.finish(PATIENCE);
            }
        };
        let (outcome, died) = beside_death(&survivor, mortal, steps, theirs, mine);
        match outcome {
            Ok(()) => assert_eq!(survivor.read(x).unwrap().to_vec(), [2, 2]),
            Err(RoundError::Torn { .. }) => {
                assert!(died);
                assert!(matches!(survivor.read(x), Err(LeaseError::Poisoned { .. })));
                survivor.clear_poison(x).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
        survivor.write(x).unwrap().fill(3);
        died
    });
}

fn add(mut x: ArrayViewMut1<'_, u64>, by: &u64, _: &TileContext<'_>) {
    x[0] += by;
}

/// Creates a segment for a parent and `workers` workers.
fn room_for_a_pool(workers: u32) -> Segment {
    segment(4096, workers + 1, 16)
}

/// I5, I6: calls in a row, in whose round the worker stays. After them nobody is in the round, and a
/// call on the same array finds it free.
#[test]
fn steps_of_one_worker() {
    check(1, || {
        let table = join(&room_for_a_pool(1));
        let x = table.from_elem(1, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let mut steps = pool.steps(&tiles);
        steps.for_each(&5, add).unwrap();
        steps.for_each(&7, add).unwrap();
        drop(steps);
        assert_eq!(table.write(x).unwrap()[0], 13);
    });
}

/// I5, I6: the owner forgets the calls in a row, and the next call is on another array. The worker leaves
/// the round that it was in.
#[test]
fn a_worker_leaves_forgotten_steps() {
    check(1, || {
        let table = join(&room_for_a_pool(1));
        let [x, y] = [(); 2].map(|()| table.from_elem(1, 1u64).unwrap());
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let others = table.partition(y.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 1).unwrap();
        let mut steps = pool.steps(&tiles);
        steps.for_each(&5, add).unwrap();
        core::mem::forget(steps);
        pool.for_each(&others, &3, add).unwrap();
        assert!(is_busy(&table.read(x)), "its round was forgotten");
        assert_eq!(table.write(y).unwrap()[0], 4);
    });
}

/// I5, I6: two workers run rounds in a row within a call.
#[test]
fn steps_within_a_run() {
    check(0, || {
        let table = join(&room_for_a_pool(2));
        let x = table.from_elem(2, 1u64).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut pool = Pool::threads(&table, 2).unwrap();
        pool.run(&tiles.handle(), |worker, &tiles| {
            let tiles = worker.table().open_partition(tiles)?;
            worker.steps(&tiles, |steps| {
                (0..2).try_for_each(|_| steps.for_each(|mut x, _| x[0] += 1))
            })
        })
        .unwrap();
        assert_eq!(table.write(x).unwrap().to_vec(), [3, 3]);
    });
}

/// I1, I5, I7: the worker is killed at any step of calls in a row. A call fails with its tile torn, or
/// another worker runs the tile; the calls after it are whole.
#[test]
fn death_of_a_worker_that_stays() {
    check_deaths(0, |steps| {
        let table = join(&room_for_a_pool(1));
        let (x, tiles) = divided(&table, 1);
        let mut pool = model::mortal_pool(&table, 1, steps).unwrap();
        let mut steps = pool.steps(&tiles);
        let outcome = (0..2).try_for_each(|_| steps.for_each(&1, add));
        drop(steps);
        let died = match outcome {
            Ok(()) => {
                assert_eq!(table.read(x).unwrap()[0], 2);
                false
            }
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        };
        // Not poisoned if the worker did not hold its tile.
        let _ = table.clear_poison(x);
        table.write(x).unwrap().fill(0);
        if died {
            let mut steps = pool.steps(&tiles);
            (0..2).try_for_each(|_| steps.for_each(&1, add)).unwrap();
            drop(steps);
            assert_eq!(table.read(x).unwrap()[0], 2);
        }
        died || pool.deaths() > 0
    });
}

/// I1, I7: a worker is killed in rounds in a row within a call. The others are told.
#[test]
fn death_in_steps_within_a_run() {
    check_deaths(0, |steps| {
        let table = join(&room_for_a_pool(2));
        let (x, tiles) = divided(&table, 2);
        let mut pool = model::mortal_pool(&table, 2, steps).unwrap();
        let outcome = pool.run(&tiles.handle(), |worker, &tiles| {
            let tiles = worker.table().open_partition(tiles)?;
            worker.steps(&tiles, |steps| {
                (0..2).try_for_each(|_| steps.for_each(|mut x, _| x[0] += 1))
            })
        });
        let died = match outcome {
            Ok(_) => false,
            Err(PoolError::WorkerDied { worker: 0, .. }) => true,
            Err(other) => panic!("{other}"),
        };
        match died {
            false => assert_eq!(table.read(x).unwrap().to_vec(), [2, 2]),
            true => {
                let _ = table.clear_poison(x);
                table.write(x).unwrap().fill(0);
            }
        }
        died
    });
}
