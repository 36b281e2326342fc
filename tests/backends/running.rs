//! Calls whose tiles are taken as they become ready.

use std::time::{Duration, Instant};

use ndarray::Ix1;
use ndshm::error::PoolError;
use ndshm::pool::ReadyTile;
use ndshm::{Handle, HandleTable, OnFailure};

use crate::support::{Flag, KINDS, PROCESSES};
use crate::with_each_pool;

/// Time limit for events that should happen at once.
const LONG: Duration = Duration::from_secs(60);

pub fn ready_tiles_are_returned_and_run_again() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut running = pool.start(tiles, &(), |mut x, (), _| x += 1).unwrap();
        let mut runs = [0u32; 10];
        let mut taken = 0;
        while taken < 1000 {
            for mut ready in running.wait_any(3).unwrap().ready {
                let index = ready.index();
                runs[index] += 1;
                assert!(ready.views().iter().all(|&x| x == 2 * runs[index] - 1));
                // The next run starts from the values that are written here.
                let mut views = ready.views();
                views += 1;
                taken += 1;
                ready.rerun();
            }
        }
        assert!(running.done() <= 10);
        running.finish().unwrap();
        let x = table.read(x).unwrap();
        for (at, &x) in x.iter().enumerate() {
            assert_eq!(x, 2 * runs[at / 10] + 1, "{kind:?}");
        }
        drop(x);
        // Tiles that are not run again rest. When all tiles rest, a wait returns at once.
        let mut running = pool.start(tiles, &(), |mut x, (), _| x.fill(9)).unwrap();
        let mut resting = 0;
        while resting < 10 {
            resting += running.wait_any(4).unwrap().len();
        }
        assert!(running.wait_any(1).unwrap().is_empty());
        running.finish().unwrap();
        assert_eq!(table.read(only_array(table)).unwrap().sum(), 900);
    });
}

fn only_array(table: &HandleTable) -> Handle<u32, Ix1> {
    table
        .arrays()
        .next()
        .unwrap()
        .handle
        .downcast(table)
        .unwrap()
}

pub fn a_slow_tile_does_not_delay_others() {
    with_each_pool(&KINDS, 2, |kind, _, _, tiles, pool| {
        let enough = Flag::new();
        let mut running = pool
            .start(tiles, &enough.number, |mut x, &enough, tile| {
                if tile.index() == 0 {
                    Flag::wait(enough);
                }
                x += 1;
            })
            .unwrap();
        let mut others = 0;
        'slow: loop {
            for ready in running.wait_any(1).unwrap().ready {
                if ready.index() == 0 {
                    break 'slow;
                }
                others += 1;
                if others == 50 {
                    Flag::raise(enough.number);
                }
                ready.rerun();
            }
        }
        assert!(others >= 50, "{kind:?}: only {others} runs of other tiles");
        running.finish().unwrap();
    });
}

pub fn a_death_between_tiles_tears_none() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        for policy in [OnFailure::Fail, OnFailure::RunAgain] {
            pool.set_on_failure(policy);
            let pids = pool.pids();
            let mut running = pool
                .start(tiles, &(), |mut x, (), _| {
                    std::thread::sleep(Duration::from_micros(200));
                    x.fill(1);
                })
                .unwrap();
            let mut outcome = Ok(());
            for turn in 0..30 {
                if turn == 10 {
                    // SAFETY: no precondition; the pid is of a worker that was not waited for.
                    unsafe { libc::kill(pids[0].unwrap() as i32, libc::SIGKILL) };
                }
                match running.wait_any(5) {
                    Ok(arrived) => arrived.ready.for_each(ReadyTile::rerun),
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            // A worker that died between two tiles has torn none.
            match outcome.and_then(|()| running.finish()) {
                Ok(()) => {}
                Err(PoolError::WorkerDied { worker: 0, .. }) if policy == OnFailure::Fail => {
                    let _ = table.clear_poison(x);
                }
                Err(other) => panic!("{kind:?}, {policy:?}: {other}"),
            }
            pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
        }
    });
}

/// Checks that a panic in one tile ends a wait while the other tiles are run again for ever.
pub fn a_panic_ends_a_wait_while_others_stay_ready() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut running = pool
            .start(tiles, &(), |mut x, (), tile| {
                x[0] += 1;
                assert!(tile.index() != 5 || x[0] < 3, "broken");
            })
            .unwrap();
        let error = until_error(|| {
            let arrived = running.wait_any(1)?;
            arrived.ready.for_each(ReadyTile::rerun);
            Ok(())
        });
        assert!(
            matches!(error, PoolError::KernelPanicked { tile: 5, .. }),
            "{kind:?}: {error}"
        );
        drop(running);
        table.clear_poison(x).unwrap();
    });
}

/// Calls `wait` until it fails, and returns its error.
fn until_error(mut wait: impl FnMut() -> Result<(), PoolError>) -> PoolError {
    let start = Instant::now();
    loop {
        if let Err(error) = wait() {
            return error;
        }
        assert!(start.elapsed() < LONG, "no error is reported");
    }
}

/// Checks that a wait ends when a worker is killed between its tiles while the other worker keeps
/// tiles ready for ever.
pub fn a_death_ends_a_wait_while_others_stay_ready() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        let pids = pool.pids();
        let mut running = pool.start(tiles, &(), |mut x, (), _| x[0] += 1).unwrap();
        let ready: Vec<_> = running.wait_any(10).unwrap().ready.collect();
        // SAFETY: no precondition; the pid is of a worker that was not waited for.
        unsafe { libc::kill(pids[0].unwrap() as i32, libc::SIGKILL) };
        ready.into_iter().for_each(ReadyTile::rerun);
        let error = until_error(|| {
            let arrived = running.wait_any(1)?;
            arrived.ready.for_each(ReadyTile::rerun);
            Ok(())
        });
        assert!(
            matches!(error, PoolError::WorkerDied { worker: 0, .. }),
            "{kind:?}: {error}"
        );
        drop(running);
        let _ = table.clear_poison(x);
    });
}

pub fn a_dropped_call_releases_its_arrays() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        for _ in 0..50 {
            let mut running = pool.start(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
            let ready = running.wait_any(2).unwrap();
            assert!(ready.len() >= 2, "{kind:?}");
            drop(ready);
            drop(running);
            table.write(x).unwrap().fill(0);
        }
    });
}
