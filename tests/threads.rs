//! All operations of one process's threads on a segment, without a fork: a race detector can watch
//! them (`.ci/tsan`).

use std::thread;
use std::time::Duration;

use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, PartitionError, PoolError, RoundError};
use ndshm::partition::Entered;
use ndshm::{Handle, HandleTable, Pool, QueueHandle, Segment};

const WORKERS: usize = 3;

fn table() -> HandleTable {
    let options = Segment::options().capacity(4 << 20).seats(8).arrays(256);
    HandleTable::join(&options.in_process().unwrap()).unwrap()
}

/// Runs calls in a row: the parent reads and writes between them, and their own arrays come and go.
#[test]
fn calls_in_a_row_see_each_others_values() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 7).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    for turn in 1..=200u64 {
        pool.for_each(&tiles, &[turn; 100], |mut x, by, _| x += by[3])
            .unwrap();
        let sum = pool
            .map_reduce(&tiles, &(), |x, (), _| x.sum(), 0, |sum, part| sum + part)
            .unwrap();
        let mut x = table.write(x).unwrap();
        assert_eq!((x.sum(), sum), (100 * turn, 100 * turn));
        x.fill(0);
    }
}

/// Runs calls, and rounds within a call, that keep their round. Each tile reads what another worker may have
/// written in the last one.
#[test]
fn rounds_that_are_kept_see_each_others_values() {
    let table = table();
    let x = table.zeros::<u64, _>((64, 8)).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 4).unwrap();
    let mut pool = Pool::threads(&table, 3).unwrap();
    let mut steps = pool.steps(&tiles);
    for step in 0..50u64 {
        steps
            .for_each(&step, |mut x, &step, _| {
                assert!(x.iter().all(|&x| x == step));
                x += 1;
            })
            .unwrap();
    }
    drop(steps);
    pool.run(&tiles.handle(), |worker, &tiles| {
        let tiles = worker.table().open_partition(tiles)?;
        worker.steps(&tiles, |steps| {
            (50..100).try_for_each(|step| {
                steps.for_each(|mut x, _| {
                    assert!(x.iter().all(|&x| x == step));
                    x += 1;
                })
            })
        })
    })
    .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 64 * 8 * 100);
}

fn is_poisoned<T>(outcome: Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Poisoned { .. }))
}

/// Forgets ready tiles in the parent: the end of the call names them at once, and the array is not
/// treated as complete. The pool goes on.
#[test]
fn forgotten_ready_tiles_are_reported() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, 2).unwrap();
    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    let mut ready: Vec<_> = running.wait_any(4).unwrap().ready.collect();
    std::mem::forget(ready.remove(2));
    drop(ready);
    match running.finish() {
        Err(PoolError::NotGivenBack { tiles, rows }) => {
            assert_eq!(tiles, [2]);
            assert_eq!(rows, std::slice::from_ref(&(2..3)));
        }
        other => panic!("{other:?}"),
    }
    assert!(is_poisoned(table.write(x)));
    table.clear_poison(x).unwrap();

    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    let ready: Vec<_> = running.wait_any(4).unwrap().ready.collect();
    std::mem::forget(ready);
    drop(running);
    assert!(
        is_poisoned(table.write(x)),
        "the tile is torn, too, if the call is dropped"
    );
    table.clear_poison(x).unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
}

/// Forgets tiles in a participant, claimed one by one or in units. They are torn at its next claim
/// or when it leaves: the round names them, and the next round has all tiles.
#[test]
fn forgotten_tiles_are_torn() {
    let table = table();
    for (len, forgotten) in [(4, vec![1, 3]), (5000, vec![2, 4999])] {
        let x = table.zeros::<u64, _>(len).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        while let Some(tile) = part.claim().unwrap() {
            if forgotten.contains(&tile.index()) {
                std::mem::forget(tile);
            }
        }
        drop(part);
        match round.finish(Duration::from_secs(20)) {
            Err(RoundError::Torn { tiles, .. }) => assert_eq!(tiles, forgotten),
            other => panic!("{other:?}"),
        }
        assert!(is_poisoned(table.write(x)));
        table.clear_poison(x).unwrap();

        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        while part.claim().unwrap().is_some() {}
        drop(part);
        round.finish(Duration::from_secs(20)).unwrap();
    }
}

/// Lets workers read each other's parts by views without a lease, and meet at a barrier.
#[test]
fn barriers_order_the_steps_of_workers() {
    const STEPS: u32 = 60;
    let table = table();
    let cells = [0, 1].map(|_| table.from_elem(3 * WORKERS, 1u64).unwrap());
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    pool.run(
        &cells,
        |worker, &[mut from, mut to]: &[Handle<u64, Ix1>; 2]| {
            let own = 3 * worker.worker()..3 * worker.worker() + 3;
            for _ in 0..STEPS {
                let (old, mut new) = (worker.table().attach(from)?, worker.table().attach(to)?);
                // SAFETY: no worker writes `from` in this step, and its writers have reached the
                // barrier.
                let old = unsafe { old.view_unsynchronized() };
                // SAFETY: the part is this worker's, and its readers have reached the barrier.
                let mut new = unsafe { new.slice_mut_unsynchronized(Axis(0), own.clone()) };
                for (cell, at) in new.iter_mut().zip(own.clone()) {
                    *cell = old[at] + old[(at + 1) % old.len()];
                }
                worker.barrier()?;
                (from, to) = (to, from);
            }
            Ok(())
        },
    )
    .unwrap();
    // Each step doubles each cell.
    let cells = table.read(cells[0]).unwrap();
    assert!(cells.iter().all(|&cell| cell == 1 << STEPS), "{cells}");
}

/// Passes tiles to and fro between the parent and the workers.
#[test]
fn ready_tiles_run_again() {
    let table = table();
    let x = table.zeros::<u64, _>(8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    let mut sent = 0;
    while sent < 2000 {
        for mut ready in running.wait_any(3).unwrap().ready {
            ready.views()[0] += 1;
            ready.rerun();
            sent += 1;
        }
    }
    running.finish().unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 8 + 2 * sent);
}

/// Runs a kernel that panics while others go on.
#[test]
fn a_panic_names_its_tile_while_others_run() {
    let table = table();
    let x = table.zeros::<u64, _>(64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let outcome = pool.for_each(&tiles, &(), |mut x, (), tile| {
        x += 1;
        assert!(tile.index() != 33, "no");
    });
    assert!(matches!(
        outcome,
        Err(PoolError::KernelPanicked { tile: 33, .. })
    ));
    table.clear_poison(x).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 64);
}

/// Passes jobs together with the arrays that they name.
#[test]
fn jobs_carry_handles_of_arrays() {
    const JOBS: u64 = 2000;
    type Job = Handle<u64, Ix1>;
    let table = table();
    let queue = table.queue::<Job>(8).unwrap();
    let name: QueueHandle<Job> = queue.handle();
    let sum: u64 = thread::scope(|scope| {
        let consumers: Vec<_> = (0..2)
            .map(|_| {
                let table = HandleTable::join(table.segment()).unwrap();
                scope.spawn(move || {
                    let queue = table.open_queue(name).unwrap();
                    let mut sum = 0;
                    while let Ok(Some(job)) = queue.pop_timeout(Duration::from_secs(30)) {
                        sum += table.read(job).unwrap()[1];
                        table.free(job).unwrap();
                    }
                    sum
                })
            })
            .collect();
        for number in 0..JOBS {
            let job = table.from_elem(2, number).unwrap();
            queue.push_timeout(job, Duration::from_secs(30)).unwrap();
        }
        queue.close();
        consumers
            .into_iter()
            .map(|consumer| consumer.join().unwrap())
            .sum()
    });
    assert_eq!(sum, JOBS * (JOBS - 1) / 2);
}

/// Runs rounds without a pool: the ranks sleep until the next round, and wait for its end. Then the
/// partition is freed, and a rank that comes late is told so.
#[test]
fn ranks_run_rounds_without_a_pool() {
    const ROUNDS: u64 = 300;
    const PATIENCE: Duration = Duration::from_secs(60);
    let table = table();
    let x = table.zeros::<u64, _>(16).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let name = tiles.handle();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let table = HandleTable::join(table.segment()).unwrap();
            scope.spawn(move || {
                let is_freed = |late| matches!(late, PartitionError::Freed { .. });
                let tiles = match table.open_partition(name) {
                    Ok(tiles) => tiles,
                    // The others were faster.
                    Err(late) => return assert!(is_freed(late)),
                };
                let mut last = 0;
                loop {
                    last = match tiles.enter_next(last, PATIENCE).unwrap() {
                        Entered::Member(mut part) => {
                            while let Some(mut tile) = part.claim().unwrap() {
                                tile.views()[0] += 1;
                            }
                            part.round()
                        }
                        Entered::Over { round } => round,
                        _ => break,
                    };
                    tiles.wait_finished(last, PATIENCE).unwrap();
                }
                assert_eq!(last, ROUNDS);
                drop(tiles);
                assert!(is_freed(table.open_partition(name).unwrap_err()));
            });
        }
        for turn in 1..=ROUNDS {
            tiles.begin().unwrap().finish(PATIENCE).unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 16 * turn);
        }
        drop(tiles);
    });
}

/// Waits for rounds that do not come, and for one that is given up.
#[test]
fn waits_for_rounds_end() {
    let table = table();
    let x = table.zeros::<u64, _>(4).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let nap = Duration::from_millis(30);
    let refused = tiles.enter_next(0, nap).unwrap_err();
    assert!(matches!(refused, RoundError::NotOpened { after: 0, .. }));
    let round = tiles.begin().unwrap();
    let part = tiles.enter_next(0, nap).unwrap();
    assert!(matches!(&part, Entered::Member(part) if part.round() == 1));
    drop(part);
    let refused = tiles.wait_finished(1, nap).unwrap_err();
    assert!(matches!(refused, RoundError::Deadline { done: 0, .. }));
    drop(round);
    let outcome = tiles.wait_finished(1, nap);
    assert!(matches!(outcome, Err(RoundError::GivenUp { round: 1 })));
    let over = tiles.enter_next(0, nap).unwrap();
    assert!(matches!(over, Entered::Over { round: 1 }), "{over:?}");
    drop(over);
    // A round of which one tile is torn.
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    part.claim().unwrap().unwrap().tear();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(nap).unwrap_err();
    match tiles.wait_finished(2, nap) {
        Err(RoundError::Torn { tiles, .. }) => assert_eq!(tiles, [0]),
        other => panic!("{other:?}"),
    }
    assert!(
        tiles.wait_finished(1, nap).is_ok(),
        "a later round has followed"
    );

    // Freed while it is open elsewhere, and by the bare handle.
    let other = HandleTable::join(table.segment()).unwrap();
    let theirs = other.open_partition(tiles.handle()).unwrap();
    drop(tiles);
    assert!(theirs.enter().unwrap().is_none());
    assert!(matches!(theirs.enter_next(2, nap), Ok(Entered::Freed)));
    assert!(matches!(
        theirs.wait_finished(2, nap),
        Err(RoundError::Torn { .. })
    ));
    assert!(matches!(
        theirs.wait_finished(3, nap),
        Err(RoundError::GivenUp { round: 3 })
    ));
    assert!(theirs.begin().is_err());

    // Without its array, a partition runs no round.
    table.clear_poison(x).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    table.free(x).unwrap();
    let late = other.open_partition(tiles.handle()).unwrap_err();
    assert!(matches!(late, PartitionError::Freed { .. }), "{late}");
}
