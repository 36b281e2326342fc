//! Started calls in which kernels panic and workers die, and which go on.

use std::time::Duration;

use ndarray::{ArrayViewMut1, Axis};
use ndshm::error::{LeaseError, PoolError, RoundError};
use ndshm::pool::ReadyTile;
use ndshm::{HandleTable, OnFailure, Pool, TileContext};

use crate::support::{
    Child, DEADLINE, Flag, KINDS, Kind, PROCESSES, die, eventually, is_alive, start, table,
};
use crate::with_each_pool;

/// The tile whose kernel panics, and the one whose kernel kills its worker.
const PANICS: usize = 5;
const DIES: usize = 9;

/// Adds 1. At 3, tile 5 panics and tile 9 kills its worker.
fn step(mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x[0] += 1;
    match (tile.index(), x[0]) {
        (PANICS, 3) => panic_quietly(format!("{} is stuck", tile.index())),
        (DIES, 3) => die(),
        _ => {}
    }
}

fn panic_quietly(message: String) -> ! {
    std::panic::resume_unwind(Box::new(message));
}

/// Checks the first of the examples: of 16 environments one panics and one is killed. Both
/// are reported once, and are reset; the others go on all the time.
pub fn a_panic_and_a_kill_are_reported_while_others_go_on() {
    for kind in PROCESSES {
        Child::fork(|| {
            let table = table();
            let x = table.zeros::<u32, _>((16, 4)).unwrap();
            let envs = table.partition(x.write(), Axis(0), 1).unwrap();
            let mut pool = start(kind, &table, 3);
            pool.set_deadline(Some(DEADLINE));
            let before = pool.pids();
            let kernel = |mut x: ndarray::ArrayViewMut2<u32>, none: &(), tile: &TileContext| {
                step(x.row_mut(0), none, tile);
            };
            let started = pool.start(&envs, &(), kernel).unwrap();
            let mut running = started.on_failure(OnFailure::Skip);
            let (mut failed, mut lost) = (Vec::new(), Vec::new());
            let mut steps = [0; 16];
            while failed.is_empty() || lost.is_empty() || steps.iter().any(|&steps| steps < 20) {
                let arrived = running.wait_any(4).unwrap();
                for ready in arrived.ready {
                    steps[ready.index()] += 1;
                    ready.rerun();
                }
                for tile in arrived.failed {
                    assert_eq!(tile.range(), PANICS..PANICS + 1);
                    assert!(tile.worker() < 3);
                    failed.push((tile.index(), tile.message().to_owned()));
                    tile.repair(|mut x| x.fill(100)).unwrap().rerun();
                }
                for tile in arrived.lost {
                    assert_eq!(tile.range(), DIES..DIES + 1);
                    assert_eq!(tile.pid(), before[tile.worker().unwrap()], "{kind:?}");
                    lost.push((tile.index(), tile.signal(), tile.code()));
                    tile.repair(|mut x| x.fill(100)).unwrap().rerun();
                }
            }
            assert_eq!(failed, [(PANICS, format!("{PANICS} is stuck"))], "{kind:?}");
            assert_eq!(lost, [(DIES, Some(libc::SIGKILL), None)], "{kind:?}");
            assert_eq!(running.deaths(), 1, "{kind:?}");
            assert_eq!(running.stats().len(), 3);
            let now = running.pids();
            assert!(now.iter().all(Option::is_some), "{kind:?}: it was replaced");
            assert_eq!(
                now.iter()
                    .zip(&before)
                    .filter(|(now, then)| now != then)
                    .count(),
                1
            );
            running.finish().unwrap();
            let x = table.read(x).unwrap();
            for (env, &steps) in steps.iter().enumerate() {
                let is_reset = [PANICS, DIES].contains(&env);
                let reached = if is_reset { 100 + steps - 2 } else { steps };
                assert!(x[[env, 0]] >= reached, "{kind:?}: {env} has {x}");
            }
        })
        .join();
    }
}

pub fn torn_tiles_that_are_dropped_stay_torn() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let started = pool.start(tiles, &(), |mut x, (), tile| {
            x.fill(1);
            if tile.index() == PANICS {
                panic_quietly("no".to_owned());
            }
        });
        let mut running = started.unwrap().on_failure(OnFailure::Skip);
        let mut reports = 0;
        let mut resting = 0;
        while resting < 10 {
            let arrived = running.wait_any(10).unwrap();
            reports += arrived.failed.len();
            resting += arrived.len();
        }
        assert_eq!(reports, 1, "{kind:?}");
        assert!(running.wait_any(3).unwrap().is_empty(), "all tiles rest");
        match running.finish() {
            Err(PoolError::Round(RoundError::Torn { tiles, rows, .. })) => {
                assert_eq!((&tiles[..], rows.len()), (&[PANICS][..], 1), "{kind:?}");
                assert_eq!(rows[0], 50..60);
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
        table.clear_poison(x).unwrap();
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(2)).unwrap();
    });
}

/// Lets one worker panic at each of its tiles: no message is lost, and none is of another tile.
pub fn each_of_several_panics_is_reported() {
    for workers in [1, 3] {
        with_each_pool(&KINDS, workers, |kind, table, x, tiles, pool| {
            pool.set_deadline(Some(DEADLINE));
            let started = pool.start(tiles, &(), |mut x, (), tile| {
                x += 1;
                if tile.run() < 3 {
                    let long = ".".repeat(10 * tile.index());
                    panic_quietly(format!("run {} of {}{long}", tile.run(), tile.index()));
                }
            });
            let mut running = started.unwrap().on_failure(OnFailure::Skip);
            let mut runs = [0; 10];
            let mut done = 0;
            while done < 10 {
                let arrived = running.wait_any(1).unwrap();
                for failed in arrived.failed {
                    let index = failed.index();
                    let long = ".".repeat(10 * index);
                    let expected = format!("run {} of {index}{long}", runs[index]);
                    assert_eq!(failed.message(), expected, "{kind:?}");
                    runs[index] += 1;
                    failed.rerun();
                }
                done += arrived.ready.count();
            }
            assert_eq!(runs, [3; 10], "{kind:?}");
            running.finish().unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 400, "{kind:?}");
        });
    }
}

/// Kills workers and waits until they have ended. Until then they could claim a tile that is sent back.
fn kill_all(pids: Vec<Option<u32>>) {
    for pid in pids.into_iter().flatten() {
        // SAFETY: no precondition; the pid is of a worker that was not waited for.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        eventually("the worker has ended", || !is_alive(pid));
    }
}

/// Kills workers that hold no tile: nothing is lost, and others take their place.
pub fn deaths_without_a_tile_cost_nothing() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let started = pool.start(tiles, &(), |mut x, (), _| x += 1).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut sent = 10;
        let mut done = 0;
        while done < 10 {
            // All that are ready rest, so no worker has a tile in the end.
            done += running.wait_any(10).unwrap().len();
        }
        kill_all(running.pids());
        // A resting tile cannot be sent back any more, so this call is over.
        running.finish().unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);

        let started = pool.start(tiles, &(), |mut x, (), _| x += 1).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let before = running.deaths();
        let mut killed = false;
        while sent < 200 || running.deaths() < before + 2 {
            let pids = running.pids();
            let ready: Vec<_> = running.wait_any(10).unwrap().ready.collect();
            if ready.len() == 10 && !killed {
                killed = true;
                kill_all(pids);
            }
            sent += ready.len();
            ready.into_iter().for_each(ReadyTile::rerun);
        }
        running.finish().unwrap();
        assert!(table.read(x).is_ok(), "{kind:?}");
    });
}

/// Forbids replacements: when the last worker has died, its tile is reported, and then the error.
pub fn the_last_death_is_an_error_after_its_tile() {
    with_each_pool(&[Kind::Fork], 2, |_, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        // A fork is refused while a lease is held.
        let y = table.zeros::<u32, _>(1).unwrap();
        let guard = table.read(y).unwrap();
        let started = pool.start(tiles, &(), |_, (), _| die()).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut lost = Vec::new();
        let error = loop {
            match running.wait_any(4) {
                Ok(arrived) => lost.extend(arrived.lost.map(|tile| (tile.index(), tile.signal()))),
                Err(error) => break error,
            }
        };
        assert_eq!(lost.len(), 2, "{lost:?}");
        assert!(
            lost.iter()
                .all(|(_, signal)| *signal == Some(libc::SIGKILL))
        );
        match error {
            PoolError::WorkerDied { tiles, .. } => {
                lost.sort_unstable();
                let lost: Vec<_> = lost.iter().map(|(index, _)| *index).collect();
                assert_eq!(tiles, lost);
            }
            other => panic!("{other}"),
        }
        // The call is over, and the error does not borrow it.
        assert!(running.wait_any(1).unwrap().is_empty());
        assert_eq!(running.pids(), [None, None]);
        running.finish().unwrap();
        drop(guard);
        table.clear_poison(x).unwrap();
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
    });
}

/// Runs tiles again whose kernel panics a few times. Another one panics for ever, and ends the call.
pub fn panics_are_run_again_up_to_eight_times() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_on_failure(OnFailure::RunAgain);
        pool.set_deadline(Some(DEADLINE));
        for started in [false, true] {
            table.write(x).unwrap().fill(0);
            // Each of four tiles panics twice.
            let kernel = |mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext| {
                x[0] += 1;
                if tile.index().is_multiple_of(3) && x[0] < 3 {
                    panic_quietly(format!("{} is not ready", tile.index()));
                }
                x.slice_mut(ndarray::s![1..]).fill(1);
            };
            let outcome = match started {
                true => {
                    let mut running = pool.start(tiles, &(), kernel).unwrap();
                    let mut done = 0;
                    while done < 10 {
                        let arrived = running.wait_any(10).unwrap();
                        assert_eq!((arrived.failed.len(), arrived.lost.len()), (0, 0));
                        done += arrived.len();
                    }
                    running.finish()
                }
                false => pool.for_each(tiles, &(), kernel),
            };
            outcome.unwrap_or_else(|error| panic!("{kind:?}, {started}: {error}"));
            assert_eq!(
                table.read(x).unwrap().sum(),
                6 + 12 + 90,
                "{kind:?}, {started}"
            );

            let kernel = |mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext| {
                x[0] += 1;
                if tile.index() == PANICS {
                    panic_quietly("for ever".to_owned());
                }
            };
            table.write(x).unwrap().fill(0);
            let outcome = match started {
                true => {
                    let mut running = pool.start(tiles, &(), kernel).unwrap();
                    let waited = running.wait_any(10).map(|arrived| arrived.len());
                    waited.and_then(|_| running.finish())
                }
                false => pool.for_each(tiles, &(), kernel),
            };
            match outcome {
                Err(PoolError::KernelPanicked { tile, message, .. }) => {
                    assert_eq!((tile, &*message), (PANICS, "for ever"), "{kind:?}");
                }
                other => panic!("{kind:?}, {started}: {other:?}"),
            }
            table.clear_poison(x).unwrap();
            let x = table.read(x).unwrap();
            assert_eq!(
                x[10 * PANICS],
                9,
                "{kind:?}, {started}: once, and eight times again"
            );
        }
    });
}

/// Panics and dies where nobody waits for an event: the end of the call reports it.
pub fn failures_at_the_end_are_errors() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let started = pool.start(tiles, &(), |_, (), tile| {
            if tile.index() == PANICS {
                panic_quietly("late".to_owned());
            }
        });
        match started.unwrap().on_failure(OnFailure::Skip).finish() {
            Err(PoolError::KernelPanicked { tile, message, .. }) => {
                assert_eq!((tile, &*message), (PANICS, "late"), "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        table.clear_poison(x).unwrap();
        if kind == Kind::Threads {
            return;
        }
        let started = pool.start(tiles, &(), |_, (), tile| {
            if tile.index() == DIES {
                die();
            }
        });
        match started.unwrap().on_failure(OnFailure::Skip).finish() {
            Err(PoolError::WorkerDied { tiles, .. }) => assert_eq!(tiles, [DIES], "{kind:?}"),
            other => panic!("{kind:?}: {other:?}"),
        }
        table.clear_poison(x).unwrap();
        // The same in a call that is not started: all other tiles are done, by new workers.
        pool.set_on_failure(OnFailure::Skip);
        table.write(x).unwrap().fill(0);
        let outcome = pool.for_each(tiles, &(), |mut x, (), tile| {
            x.fill(1);
            if tile.index() % 2 == 1 {
                die();
            }
        });
        match outcome {
            Err(PoolError::WorkerDied { tiles, .. }) => {
                assert_eq!(tiles, [1, 3, 5, 7, 9], "{kind:?}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        table.clear_poison(x).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100, "{kind:?}");
    });
}

/// Panics in the parent while it repairs a tile.
pub fn a_repair_that_panics_leaves_the_tile_torn() {
    with_each_pool(&[Kind::Threads], 2, |_, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let started = pool.start(tiles, &(), |_, (), _| panic_quietly("no".to_owned()));
        let mut running = started.unwrap().on_failure(OnFailure::Skip);
        let mut repaired = 0;
        while repaired < 10 {
            for failed in running.wait_any(1).unwrap().failed {
                repaired += 1;
                let refuses = failed.index() == 7;
                let repair = std::panic::AssertUnwindSafe(|| {
                    drop(failed.repair(|mut x| {
                        x.fill(1);
                        if refuses {
                            panic_quietly("not this one".to_owned());
                        }
                    }));
                });
                assert_eq!(std::panic::catch_unwind(repair).is_err(), refuses);
            }
        }
        match running.finish() {
            Err(PoolError::Round(RoundError::Torn { tiles, .. })) => assert_eq!(tiles, [7]),
            other => panic!("{other:?}"),
        }
        table.clear_poison(x).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

/// Tears a tile as a participant that is no worker: the call reports it without a worker.
pub fn a_tile_that_a_stranger_tears_is_lost() {
    with_each_pool(&KINDS, 1, |kind, table, x, tiles, pool| {
        pool.set_deadline(Some(DEADLINE));
        let go = Flag::new();
        let started = pool.start(tiles, &go.number, |mut x, &go, _| {
            Flag::wait(go);
            x.fill(1);
        });
        let mut running = started.unwrap().on_failure(OnFailure::Skip);
        let other = HandleTable::join(table.segment()).unwrap();
        let theirs = other.open_partition(tiles.handle()).unwrap();
        let mut part = theirs.enter().unwrap().unwrap();
        let tile = part.claim().unwrap().unwrap();
        let index = tile.index();
        tile.tear();
        drop(part);
        Flag::raise(go.number);
        let (mut lost, mut done) = (0, 0);
        while done < 10 {
            let arrived = running.wait_any(10).unwrap();
            for tile in arrived.lost {
                assert_eq!(
                    (tile.index(), tile.worker(), tile.pid()),
                    (index, None, None)
                );
                assert!(
                    tile.to_string().contains("no worker of the pool"),
                    "{kind:?}: {tile}"
                );
                lost += 1;
                tile.rerun();
            }
            done += arrived.ready.count();
        }
        assert_eq!(lost, 1, "{kind:?}");
        running.finish().unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

/// Drops a call with failed tiles in all states: nothing hangs, and the arrays are poisoned.
pub fn a_call_that_is_dropped_keeps_its_poison() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        for repaired in [false, true] {
            let started = pool.start(tiles, &(), |mut x, (), tile| {
                x.fill(1);
                if tile.index() == PANICS && tile.run() == 0 {
                    panic_quietly("no".to_owned());
                }
                std::thread::sleep(Duration::from_micros(100));
            });
            let mut running = started.unwrap().on_failure(OnFailure::Skip);
            let mut seen = false;
            while !seen {
                for failed in running.wait_any(1).unwrap().failed {
                    seen = true;
                    if repaired {
                        failed.rerun();
                    }
                }
            }
            drop(running);
            assert!(
                matches!(table.read(x), Err(LeaseError::Poisoned { .. })),
                "{kind:?}: the round was given up"
            );
            table.clear_poison(x).unwrap();
        }
    });
}

/// The calling thread runs the kernels, and goes on after a panic.
pub fn a_panic_is_an_event_in_a_serial_pool() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let started = pool.start(&tiles, &(), |mut x, (), tile| {
        x += 1;
        if tile.index() == PANICS && tile.run() == 0 {
            panic_quietly("no".to_owned());
        }
    });
    let mut running = started.unwrap().on_failure(OnFailure::Skip);
    let arrived = running.wait_any(10).unwrap();
    assert_eq!((arrived.failed.len(), arrived.ready.count()), (1, 9));
    arrived.failed.for_each(|failed| failed.rerun());
    assert_eq!(running.wait_any(1).unwrap().ready.count(), 1);
    running.finish().unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 110);
}
