//! Panics and deaths in kernels: reports, rows, tiles that run again, and the end of the parent.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::error::{LeaseError, PoolError, RoundError};
use ndshm::{Handle, HandleTable, OnFailure, Segment, TileContext};

use crate::support::{
    Child, KINDS, Kind, PROCESSES, Pipe, die, eventually, is_alive, start, table,
};
use crate::{kill_at_tile_5, support, with_each_pool};

fn panic_at_tile_3(mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    if tile.index() == 3 {
        std::panic::resume_unwind(Box::new("tile 3 is bad"));
    }
}

pub fn a_panic_names_its_tile() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        for _ in 0..100 {
            match pool.for_each(tiles, &(), panic_at_tile_3).unwrap_err() {
                PoolError::KernelPanicked {
                    tile,
                    rows,
                    message,
                    ..
                } => {
                    assert_eq!((tile, rows, &*message), (3, 30..40, "tile 3 is bad"));
                }
                other => panic!("{kind:?}: {other}"),
            }
            table.clear_poison(x).unwrap();
            assert_eq!(
                table.read(x).unwrap().sum(),
                100,
                "the other tiles were run, too"
            );
            table.write(x).unwrap().fill(0);
        }
    });
}

pub fn a_death_names_its_worker_and_tile() {
    with_each_pool(&PROCESSES, 3, |kind, table, x, tiles, pool| {
        for _ in 0..100 {
            pool.for_each(tiles, &(), |mut x, (), _| x.fill(0)).unwrap();
            let pids = pool.pids();
            match pool.for_each(tiles, &(), kill_at_tile_5).unwrap_err() {
                PoolError::WorkerDied {
                    worker,
                    pid,
                    signal,
                    tiles,
                    rows,
                    ..
                } => {
                    assert_eq!(Some(pid), pids[worker], "{kind:?}");
                    assert_eq!(signal, Some(libc::SIGKILL), "{kind:?}");
                    assert_eq!((&tiles[..], rows.len()), (&[5][..], 1), "{kind:?}");
                    assert_eq!(rows[0], 50..60, "{kind:?}");
                }
                other => panic!("{kind:?}: {other}"),
            }
            table.clear_poison(x).unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 100);
        }
    });
}

/// Measures the time from a call in which a worker dies at once to the error. The limit is 50 ms.
/// Only the fastest of several calls must meet it, because the machine may be busy.
pub fn a_death_is_reported_within_50_ms() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        let mut took = [Duration::ZERO; 9];
        for took in &mut took {
            pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
            let start = Instant::now();
            let outcome = pool.for_each(tiles, &(), kill_at_tile_5);
            *took = start.elapsed();
            assert!(
                matches!(outcome, Err(PoolError::WorkerDied { .. })),
                "{kind:?}"
            );
            table.clear_poison(x).unwrap();
        }
        let soon = took.iter().any(|&took| took < Duration::from_millis(50));
        assert!(soon, "{kind:?}: {took:?}");
    });
}

/// Kills the first worker that runs the tile. The next run finds the dead worker's note.
fn die_once(mut x: ArrayViewMut1<u32>, died: &Handle<u32, Ix1>, tile: &TileContext) {
    let table = HandleTable::join(&SEGMENT.with(|segment| segment.borrow().clone().unwrap()));
    let table = table.unwrap();
    if tile.index() % 4 == 1 {
        let mut died = loop {
            match table.write(*died) {
                Ok(died) => break died,
                Err(LeaseError::Busy { .. }) => std::thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        };
        if died[tile.index()] == 0 {
            died[tile.index()] = 1;
            drop(died);
            x.fill(77);
            die();
        }
    }
    x.fill(tile.index() as u32);
}

pub fn tiles_of_the_dead_run_again() {
    for round in 0..34 {
        with_each_pool(&[Kind::Fork], 3, |kind, table, x, _, _| {
            SEGMENT.with(|segment| *segment.borrow_mut() = Some(table.segment().clone()));
            let died = table.zeros::<u32, _>(10).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, table, 2 + round % 3);
            pool.set_on_failure(OnFailure::RunAgain);
            pool.for_each(&tiles, &died, die_once).unwrap();
            assert_eq!(
                table.read(died).unwrap().sum(),
                3,
                "three tiles killed a worker"
            );
            assert_eq!(pool.deaths(), 3);
            let x = table.read(x).unwrap();
            for (at, &x) in x.iter().enumerate() {
                assert_eq!(x, at as u32 / 10, "{kind:?}");
            }
        });
    }
}

/// Checks that an error names exactly the tiles that were not run, where several tiles are claimed
/// at a time.
pub fn a_death_names_the_tiles_that_did_not_run() {
    with_each_pool(&PROCESSES, 3, |kind, table, _, _, pool| {
        let x = table.zeros::<u32, _>(5000).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        for at in [0u64, 17, 2500, 4999] {
            pool.for_each(&tiles, &(), |mut x, (), _| x.fill(0))
                .unwrap();
            let outcome = pool.for_each(&tiles, &at, |mut x, &at, tile| {
                if tile.index() as u64 == at {
                    die();
                }
                x.fill(1);
            });
            match outcome.unwrap_err() {
                PoolError::WorkerDied { tiles, rows, .. } => {
                    assert_eq!(tiles[0] as u64, at, "{kind:?}");
                    assert_eq!(tiles.len(), rows.len());
                    table.clear_poison(x).unwrap();
                    let missing = table.read(x).unwrap().iter().filter(|&&x| x == 0).count();
                    assert_eq!(tiles.len(), missing, "{kind:?}");
                    assert!(missing <= 16, "{kind:?}");
                }
                other => panic!("{kind:?}: {other}"),
            }
        }
    });
}

pub fn a_tile_that_kills_every_worker_ends_the_call() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        pool.set_on_failure(OnFailure::RunAgain);
        let outcome = pool.for_each(tiles, &(), kill_at_tile_5);
        match outcome.unwrap_err() {
            PoolError::WorkerDied { tiles, .. } => assert_eq!(tiles, [5], "{kind:?}"),
            other => panic!("{kind:?}: {other}"),
        }
        let refused = table.read(x).unwrap_err();
        assert!(
            matches!(refused, LeaseError::Poisoned { .. }),
            "{kind:?}: {refused}"
        );
        table.clear_poison(x).unwrap();
        assert_eq!(
            table.read(x).unwrap().sum(),
            100,
            "the other tiles were run, too"
        );
    });
}

/// Checks the error when the only worker dies, or all of them, before the other tiles have run.
pub fn rows_are_named_when_no_worker_is_left() {
    for workers in [1, 2] {
        with_each_pool(&PROCESSES, workers, |kind, table, x, tiles, pool| {
            for policy in [OnFailure::Fail, OnFailure::RunAgain] {
                pool.set_on_failure(policy);
                let outcome = pool.for_each(tiles, &(), |mut x, (), tile| {
                    x.fill(1);
                    if tile.index() >= 5 || tile.index() == 1 {
                        die();
                    }
                });
                let torn = tiles.progress().unwrap().torn;
                let error = outcome.unwrap_err();
                let said = error.to_string();
                match error {
                    PoolError::WorkerDied {
                        tiles: torn_tiles,
                        rows,
                        ..
                    } => {
                        assert!(torn > 0 && torn_tiles.len() >= torn, "{kind:?}, {policy:?}");
                        for (tile, rows) in torn_tiles.iter().zip(&rows) {
                            assert_eq!(*rows, tile * 10..tile * 10 + 10, "{kind:?}, {policy:?}");
                        }
                        assert_eq!(torn_tiles.len(), rows.len());
                    }
                    other => panic!("{kind:?}, {policy:?}: {other}"),
                }
                assert!(
                    matches!(table.read(x), Err(LeaseError::Poisoned { .. })),
                    "{kind:?}, {policy:?}"
                );
                // Tiles are left, so the round was given up. The error has the remedy for that, too.
                let refused = tiles.clear_poison();
                assert!(
                    matches!(
                        &refused,
                        Err(RoundError::Lease(LeaseError::Poisoned { .. }))
                    ),
                    "{kind:?}, {policy:?}: {refused:?}"
                );
                assert!(said.contains("or of the table for each array if"), "{said}");
                table.clear_poison(x).unwrap();
            }
        });
    }
}

thread_local! {
    /// The segment for kernels of forked workers that need a table.
    static SEGMENT: RefCell<Option<Segment>> = const { RefCell::new(None) };
}

pub fn workers_end_with_their_parent() {
    for kind in PROCESSES {
        let pipe = Pipe::new();
        let parent = Child::fork(|| {
            let table = table();
            let pool = start(kind, &table, 2);
            for pid in pool.pids() {
                pipe.send(u64::from(pid.unwrap()));
            }
            std::thread::sleep(support::DEADLINE);
        });
        let workers = [pipe.receive() as u32, pipe.receive() as u32];
        assert!(workers.into_iter().all(is_alive), "{kind:?}");
        parent.kill();
        eventually("the workers end", || !workers.into_iter().any(is_alive));
    }
}

/// Checks Ctrl-C during a call: the terminal signals the whole process group.
pub fn an_interrupt_ends_parent_and_workers() {
    let left_over = || {
        let entries = std::fs::read_dir("/dev/shm").unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().contains("ndshm"))
            .count()
    };
    let before = left_over();
    for kind in PROCESSES {
        let pipe = Pipe::new();
        let parent = Child::fork(|| {
            // SAFETY: no precondition. The child gets its own group, as from a shell.
            assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, 2);
            for pid in pool.pids() {
                pipe.send(u64::from(pid.unwrap()));
            }
            let _ = pool.for_each(&tiles, &(), |_, (), _| {
                std::thread::sleep(support::DEADLINE)
            });
        });
        let workers = [pipe.receive() as u32, pipe.receive() as u32];
        let group = -(parent.pid() as i32);
        // SAFETY: no precondition; the group is that of the child, which was not waited for.
        assert_eq!(unsafe { libc::kill(group, libc::SIGINT) }, 0);
        let status = parent.wait_within(support::DEADLINE).unwrap();
        assert!(!status.success(), "{kind:?}");
        eventually("the workers end", || !workers.into_iter().any(is_alive));
    }
    assert!(left_over() <= before);
}
