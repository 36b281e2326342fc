//! Behaviour that all kinds of workers share: forked, spawned, threads.

mod support;

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::{
    BarrierError, Error, Handle, HandleTable, LeaseError, OnDeath, Partition, Pool, PoolError,
    ReadyTile, Segment, TileContext, Write,
};
use rayon::prelude::*;
use support::{Child, Flag, Pipe, eventually, is_alive};

/// Time limit for events that should happen at once.
const LONG: Duration = Duration::from_secs(60);

/// Environment variable: if set, `main` leaves out its first line, `become_worker`.
const FORGETFUL: &str = "NDSHM_TEST_FORGETFUL";

fn main() {
    if std::env::var_os(FORGETFUL).is_some() {
        forget_to_become_a_worker();
    }
    ndshm::become_worker();
    support::run_tests![
        every_tile_once,
        results_in_order,
        the_same_bits,
        two_partitions_of_a_call,
        the_runs_of_a_tile_draw_their_own_numbers,
        long_parameters,
        every_worker_once,
        barriers,
        steps_of_a_loop_of_their_own,
        a_worker_that_leaves_early,
        an_error_in_a_worker,
        a_barrier_that_takes_too_long,
        a_hundred_panics,
        a_hundred_kills,
        a_hundred_kills_at_a_barrier,
        a_death_is_noticed_soon,
        deaths_among_many_tiles,
        tiles_of_the_dead_run_again,
        a_kernel_that_kills_every_time,
        a_panic_is_not_run_again,
        tiles_as_they_become_ready,
        a_slow_tile_holds_nobody_up,
        a_death_while_tiles_are_out,
        a_panic_ends_a_wait_while_others_stay_ready,
        a_death_ends_a_wait_while_others_stay_ready,
        rows_are_named_when_no_worker_is_left,
        a_call_that_is_dropped,
        spawned_beside_threads,
        rayon_in_kernels,
        rayon_before_a_fork_is_refused,
        threads_that_come_later,
        forks_despite_threads,
        a_program_that_forgets,
        a_named_segment,
        what_was_done,
        workers_end_with_their_parent,
        an_interrupt_ends_all,
        more_workers_than_processors,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fork,
    Spawn,
    Threads,
}

const KINDS: [Kind; 3] = [Kind::Fork, Kind::Spawn, Kind::Threads];
const PROCESSES: [Kind; 2] = [Kind::Fork, Kind::Spawn];

fn start(kind: Kind, table: &HandleTable, workers: usize) -> Pool<'_> {
    let pool = match kind {
        Kind::Fork => Pool::fork(table, workers),
        Kind::Spawn => Pool::spawn(table, workers),
        Kind::Threads => Pool::threads(table, workers),
    };
    pool.unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

type Tiles<'t> = Partition<'t, Write<u32, Ix1>>;

/// Runs `test` with a pool of each kind and a partition of ten tiles with ten numbers each.
/// Suppresses the kernels' panic messages.
fn each(
    kinds: &[Kind],
    workers: usize,
    test: impl Fn(Kind, &HandleTable, Handle<u32, Ix1>, &Tiles<'_>, &mut Pool<'_>),
) {
    for &kind in kinds {
        // Run each kind in a child, because threads of the previous kind would prevent a fork.
        Child::fork(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, workers);
            test(kind, &table, x, &tiles, &mut pool);
        })
        .join();
    }
}

fn every_tile_once() {
    each(&KINDS, 3, |kind, table, x, tiles, pool| {
        for _ in 0..50 {
            pool.for_each(tiles, &2u32, |mut x, &by, _| x += by)
                .unwrap();
        }
        let x = table.read(x).unwrap();
        assert!(x.iter().all(|&x| x == 100), "{kind:?}: {x}");
        // Workers see arrays that are created after the pool.
        let late = table.zeros::<u32, _>(7).unwrap();
        let late_tiles = table.partition(late.write(), Axis(0), 2).unwrap();
        pool.for_each(&late_tiles, &(), |mut x, (), _| x.fill(1))
            .unwrap();
        assert_eq!(table.read(late).unwrap().sum(), 7);
    });
}

fn results_in_order() {
    each(&KINDS, 3, |kind, _, _, tiles, pool| {
        let got = pool
            .map_collect(tiles, &10u64, |x, &ten, tile| {
                [tile.index() as u64 * ten, x.len() as u64]
            })
            .unwrap();
        let expected: Vec<_> = (0..10).map(|tile| [tile * 10, 10]).collect();
        assert_eq!(got, expected, "{kind:?}");
    });
}

fn noise(mut x: ArrayViewMut1<u32>, (): &(), tile: &TileContext) {
    use rand_core::Rng;
    let mut rng = tile.rng();
    x.mapv_inplace(|_| rng.next_u32());
}

fn the_same_bits() {
    let pipe = Pipe::new();
    for workers in [1, 2, 5] {
        each(&KINDS, workers, |_, table, x, tiles, pool| {
            pool.set_seed(7);
            pool.for_each(tiles, &(), noise).unwrap();
            pool.for_each(tiles, &(), noise).unwrap();
            let x = table.read(x).unwrap();
            let digest = x.iter().fold(0u64, |digest, &x| {
                digest.rotate_left(7) ^ u64::from(x).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            pipe.send(digest);
        });
    }
    let digests: HashSet<u64> = (0..9).map(|_| pipe.receive()).collect();
    assert_eq!(digests.len(), 1);
}

/// Runs two rounds of one call on two partitions, then compares the random numbers with those of a
/// second pool.
fn two_partitions_of_a_call() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
        let y = table.zeros::<u32, _>(100).unwrap();
        let other = table.partition(y.write(), Axis(0), 10).unwrap();
        let draw = |pool: &mut Pool<'_>| {
            pool.run(
                &[tiles.handle().to_bits(), other.handle().to_bits()],
                |worker, bits| {
                    for &bits in bits {
                        let tiles = ndshm::PartitionHandle::<Write<u32, Ix1>>::from_bits(bits);
                        let tiles = worker.table().open_partition(tiles)?;
                        worker.for_each(&tiles, |x, tile| noise(x, &(), tile))?;
                    }
                    Ok(())
                },
            )
            .unwrap();
            (
                table.read(x).unwrap().to_owned(),
                table.read(y).unwrap().to_owned(),
            )
        };
        let (first, second) = draw(pool);
        assert_ne!(first, second, "{kind:?}");
        let mut fresh = Pool::threads(table, 3).unwrap();
        assert_ne!(fresh.seed(), pool.seed(), "{kind:?}");
        fresh.set_seed(pool.seed());
        assert_eq!(draw(&mut fresh), (first, second), "{kind:?}");
    });
}

/// Compares the random numbers of repeated runs, also those after a worker's death, with the public
/// generator.
fn the_runs_of_a_tile_draw_their_own_numbers() {
    use ndshm::TileRng;
    use ndshm::rand_core::Rng;

    each(&KINDS, 2, |kind, table, _, _, pool| {
        const TILES: usize = 6;
        let x = table.zeros::<u64, _>(TILES).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        pool.set_seed(5);
        pool.set_on_death(OnDeath::RunAgain);
        let flag = Flag::new();
        // With worker processes, a worker dies in a later run of a tile.
        let die = kind != Kind::Threads;
        let params = [flag.number, u64::from(die)];
        let mut running = pool
            .start(&tiles, &params, |mut x, &[flag, die], tile| {
                let drawn = tile.rng().next_u64();
                if die == 1 && tile.index() == 2 && tile.run() == 2 && !Flag::is_raised(flag) {
                    Flag::raise(flag);
                    std::process::abort();
                }
                x[0] = drawn;
            })
            .unwrap();
        let mut runs = [0u64; TILES];
        while runs.iter().any(|&run| run < 4) {
            for mut ready in running.wait_any(1).unwrap() {
                let tile = ready.index();
                let expected = TileRng::at_step(5, 1, 0, runs[tile], tile).next_u64();
                assert_eq!(
                    ready.views()[0],
                    expected,
                    "{kind:?}: run {} of {tile}",
                    runs[tile]
                );
                runs[tile] += 1;
                if runs[tile] < 4 {
                    ready.rerun();
                }
            }
        }
        running.finish().unwrap();
        assert_eq!(pool.deaths(), u64::from(die), "{kind:?}");
        // The next call of the same pool begins with first runs.
        pool.for_each(&tiles, &(), |mut x, (), tile| x[0] = tile.rng().next_u64())
            .unwrap();
        let drawn = table.read(x).unwrap().to_vec();
        let expected = (0..TILES).map(|tile| TileRng::at(5, 2, tile).next_u64());
        assert!(drawn.into_iter().eq(expected), "{kind:?}");
    });
}

fn long_parameters() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
        let long: [f64; 100] = core::array::from_fn(|at| at as f64);
        pool.for_each(tiles, &long, |mut x, long, _| {
            x.fill(long.iter().sum::<f64>() as u32);
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap()[99], 4950, "{kind:?}");
    });
}

fn every_worker_once() {
    each(&KINDS, 3, |kind, _, _, _, pool| {
        let pids = pool.pids();
        let ran = pool
            .broadcast(&5u64, |worker, &five| {
                [worker.worker() as u64 * five, u64::from(std::process::id())]
            })
            .unwrap();
        for (worker, [number, pid]) in ran.into_iter().enumerate() {
            assert_eq!(number, worker as u64 * 5, "{kind:?}");
            assert_eq!(Some(pid as u32), pids[worker], "{kind:?}");
        }
    });
}

/// Checks barriers: in each step a worker adds up the numbers that all workers wrote in the step
/// before.
fn barriers() {
    each(&KINDS, 4, |kind, table, _, _, pool| {
        let sums = table.zeros::<u64, _>((200, 4)).unwrap();
        pool.run(&sums, |worker, &sums| {
            let me = worker.worker();
            for step in 0..200 {
                let mut attached = worker.table().attach(sums)?;
                // SAFETY: the barriers divide the rows: in each step a worker writes one element of
                // its own, and reads those of the step before.
                let mut sums = unsafe { attached.view_mut_unsynchronized() };
                let before = match step {
                    0 => 1,
                    _ => sums.row(step - 1).sum() % 1_000_003,
                };
                sums[[step, me]] = before + me as u64;
                worker.barrier()?;
            }
            Ok(())
        })
        .unwrap();
        let sums = table.read(sums).unwrap();
        let mut before = 1;
        for row in sums.rows() {
            for (me, &sum) in row.iter().enumerate() {
                assert_eq!(sum, before + me as u64, "{kind:?}");
            }
            before = row.sum() % 1_000_003;
        }
    });
}

fn steps_of_a_loop_of_their_own() {
    each(&KINDS, 3, |kind, table, x, tiles, pool| {
        pool.run(&(tiles.handle().to_bits()), |worker, &tiles| {
            let tiles = ndshm::PartitionHandle::<Write<u32, Ix1>>::from_bits(tiles);
            let tiles = worker.table().open_partition(tiles)?;
            for step in 0..100 {
                worker.for_each(&tiles, |mut x, tile| x += step * tile.index() as u32)?;
            }
            Ok(())
        })
        .unwrap();
        let x = table.read(x).unwrap();
        for (at, &x) in x.iter().enumerate() {
            assert_eq!(x, 4950 * (at as u32 / 10), "{kind:?}");
        }
    });
}

fn a_worker_that_leaves_early() {
    each(&KINDS, 3, |kind, table, x, tiles, pool| {
        let outcome = pool.run(&(), |worker, ()| {
            match worker.worker() {
                2 => {}
                _ => worker.barrier()?,
            }
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker, message } => {
                assert!(
                    worker < 2 && message.contains("has ended"),
                    "{kind:?}: {message}"
                );
            }
            other => panic!("{kind:?}: {other}"),
        }
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

fn an_error_in_a_worker() {
    each(&KINDS, 3, |kind, table, x, _, pool| {
        let guard = table.read(x).unwrap();
        let outcome = pool.run(&x, |worker, &x| {
            if worker.worker() == 1 {
                // The barrier fails for the other workers; this error is the cause.
                worker.table().write(x)?[0] = 1;
            }
            worker.barrier()?;
            Ok(())
        });
        match outcome.unwrap_err() {
            PoolError::WorkerFailed { worker: 1, message } => {
                assert!(message.contains("leased by process"), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other}"),
        }
        drop(guard);
        let panicked = pool.run(&(), |worker, ()| {
            assert!(worker.worker() != 0, "not I");
            worker.barrier()?;
            Ok(())
        });
        match panicked.unwrap_err() {
            PoolError::WorkerFailed { worker: 0, message } => {
                assert!(message.contains("not I"), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other}"),
        }
    });
}

fn a_barrier_that_takes_too_long() {
    each(&KINDS, 2, |kind, _, _, _, pool| {
        let late = Flag::new();
        let outcome = pool.run(&late.number, |worker, &late| {
            if worker.worker() == 0 {
                Flag::wait(late);
                return match worker.barrier() {
                    Err(BarrierError::Broken) => Ok(0u32),
                    other => panic!("{other:?}"),
                };
            }
            match worker.barrier_timeout(Duration::from_millis(50)) {
                Err(BarrierError::Deadline { .. }) => {}
                Err(other) => return Err(Error::from(other)),
                Ok(()) => panic!("the barrier opened without the other worker"),
            }
            Flag::raise(late);
            Ok(1)
        });
        assert_eq!(outcome.unwrap(), [0, 1], "{kind:?}");
        // The pool's own deadline breaks the barrier for the workers that wait there.
        pool.set_deadline(Some(Duration::from_millis(100)));
        let broken = Flag::new();
        let outcome = pool.run(&broken.number, |worker, &broken| {
            if worker.worker() == 0 {
                Flag::wait(broken);
            }
            let outcome = worker.barrier();
            if worker.worker() == 1 {
                Flag::raise(broken);
            }
            Ok(outcome?)
        });
        assert!(
            matches!(outcome, Err(PoolError::Deadline { .. })),
            "{kind:?}"
        );
        pool.set_deadline(None);
        let ran = pool.run(&(), |worker, ()| {
            worker.barrier()?;
            Ok(worker.worker() as u32)
        });
        assert_eq!(ran.unwrap(), [0, 1], "{kind:?}: a late worker does no harm");
    });
}

fn panic_at_tile_3(mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    if tile.index() == 3 {
        std::panic::resume_unwind(Box::new("tile 3 is bad"));
    }
}

fn a_hundred_panics() {
    each(&KINDS, 3, |kind, table, x, tiles, pool| {
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

fn kill_at_tile_5(mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    if tile.index() == 5 {
        die();
    }
}

fn die() {
    // SAFETY: `raise` has no precondition.
    unsafe { libc::raise(libc::SIGKILL) };
}

fn a_hundred_kills() {
    each(&PROCESSES, 3, |kind, table, x, tiles, pool| {
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

fn a_hundred_kills_at_a_barrier() {
    each(&PROCESSES, 3, |kind, _, _, _, pool| {
        for round in 0..100u64 {
            let outcome = pool.run(&round, |worker, &round| {
                if worker.worker() as u64 == round % 3 {
                    die();
                }
                worker.barrier()?;
                Ok(())
            });
            match outcome.unwrap_err() {
                PoolError::WorkerDied { worker, .. } => {
                    assert_eq!(worker as u64, round % 3, "{kind:?}");
                }
                other => panic!("{kind:?}: {other}"),
            }
        }
        pool.run(&(), |worker, ()| Ok(worker.barrier()?)).unwrap();
    });
}

/// Measures the time from a call in which a worker dies at once to the error. The limit is 50 ms.
/// Only the fastest of several calls must meet it, because the machine may be busy.
fn a_death_is_noticed_soon() {
    each(&PROCESSES, 2, |kind, table, x, tiles, pool| {
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

fn tiles_of_the_dead_run_again() {
    for round in 0..34 {
        each(&[Kind::Fork], 3, |kind, table, x, _, _| {
            SEGMENT.with(|segment| *segment.borrow_mut() = Some(table.segment().clone()));
            let died = table.zeros::<u32, _>(10).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, table, 2 + round % 3);
            pool.set_on_death(OnDeath::RunAgain);
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
fn deaths_among_many_tiles() {
    each(&PROCESSES, 3, |kind, table, _, _, pool| {
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

fn a_kernel_that_kills_every_time() {
    each(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        pool.set_on_death(OnDeath::RunAgain);
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

fn a_panic_is_not_run_again() {
    each(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        pool.set_on_death(OnDeath::RunAgain);
        let outcome = pool.for_each(tiles, &(), panic_at_tile_3);
        assert!(
            matches!(outcome, Err(PoolError::KernelPanicked { tile: 3, .. })),
            "{kind:?}: {outcome:?}"
        );
        assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    });
}

fn tiles_as_they_become_ready() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut running = pool.start(tiles, &(), |mut x, (), _| x += 1).unwrap();
        let mut runs = [0u32; 10];
        let mut taken = 0;
        while taken < 1000 {
            for mut ready in running.wait_any(3).unwrap() {
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
        assert_eq!(table.read(x_of(table)).unwrap().sum(), 900);
    });
}

fn x_of(table: &HandleTable) -> Handle<u32, Ix1> {
    table.arrays().next().unwrap().handle.typed(table).unwrap()
}

fn a_slow_tile_holds_nobody_up() {
    each(&KINDS, 2, |kind, _, _, tiles, pool| {
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
            for ready in running.wait_any(1).unwrap() {
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

fn a_death_while_tiles_are_out() {
    each(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        for policy in [OnDeath::Fail, OnDeath::RunAgain] {
            pool.set_on_death(policy);
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
                    Ok(ready) => ready.into_iter().for_each(ReadyTile::rerun),
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            // A worker that died between two tiles has torn none.
            match outcome.and_then(|()| running.finish()) {
                Ok(()) => {}
                Err(PoolError::WorkerDied { worker: 0, .. }) if policy == OnDeath::Fail => {
                    let _ = table.clear_poison(x);
                }
                Err(other) => panic!("{kind:?}, {policy:?}: {other}"),
            }
            pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
        }
    });
}

/// Checks that a panic in one tile ends a wait while the other tiles are run again for ever.
fn a_panic_ends_a_wait_while_others_stay_ready() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut running = pool
            .start(tiles, &(), |mut x, (), tile| {
                x[0] += 1;
                assert!(tile.index() != 5 || x[0] < 3, "broken");
            })
            .unwrap();
        let start = Instant::now();
        let error = loop {
            match running.wait_any(1) {
                Ok(ready) => ready.into_iter().for_each(ReadyTile::rerun),
                Err(error) => break error,
            }
            assert!(
                start.elapsed() < LONG,
                "{kind:?}: the panic is not reported"
            );
        };
        assert!(
            matches!(error, PoolError::KernelPanicked { tile: 5, .. }),
            "{kind:?}: {error}"
        );
        drop(running);
        table.clear_poison(x).unwrap();
    });
}

/// Checks that a wait ends when a worker is killed between its tiles while the other worker keeps
/// tiles ready for ever.
fn a_death_ends_a_wait_while_others_stay_ready() {
    each(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        let pids = pool.pids();
        let mut running = pool.start(tiles, &(), |mut x, (), _| x[0] += 1).unwrap();
        let ready = running.wait_any(10).unwrap();
        // SAFETY: no precondition; the pid is of a worker that was not waited for.
        unsafe { libc::kill(pids[0].unwrap() as i32, libc::SIGKILL) };
        ready.into_iter().for_each(ReadyTile::rerun);
        let start = Instant::now();
        let error = loop {
            match running.wait_any(1) {
                Ok(ready) => ready.into_iter().for_each(ReadyTile::rerun),
                Err(error) => break error,
            }
            assert!(
                start.elapsed() < LONG,
                "{kind:?}: the death is not reported"
            );
        };
        assert!(
            matches!(error, PoolError::WorkerDied { worker: 0, .. }),
            "{kind:?}: {error}"
        );
        drop(running);
        let _ = table.clear_poison(x);
    });
}

/// Checks the error when the only worker dies, or all of them, before the other tiles have run.
fn rows_are_named_when_no_worker_is_left() {
    for workers in [1, 2] {
        each(&PROCESSES, workers, |kind, table, x, tiles, pool| {
            for policy in [OnDeath::Fail, OnDeath::RunAgain] {
                pool.set_on_death(policy);
                let outcome = pool.for_each(tiles, &(), |mut x, (), tile| {
                    x.fill(1);
                    if tile.index() >= 5 || tile.index() == 1 {
                        die();
                    }
                });
                let torn = tiles.progress().unwrap().torn;
                match outcome.unwrap_err() {
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
                table.clear_poison(x).unwrap();
            }
        });
    }
}

fn a_call_that_is_dropped() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
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

thread_local! {
    /// The segment for kernels of forked workers that need a table.
    static SEGMENT: RefCell<Option<Segment>> = const { RefCell::new(None) };
}

fn spawned_beside_threads() {
    let table = table();
    let x = table.from_shape_fn(1000, |i| i as u64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let threaded: u64 = (0..1000u64).into_par_iter().sum();
    let mut pool = Pool::spawn(&table, 2).unwrap();
    let sum = pool
        .map_reduce(
            &tiles,
            &(),
            |x, (), _| x.sum(),
            0,
            |sum, part: u64| sum + part,
        )
        .unwrap();
    assert_eq!(sum, threaded);
    assert!(matches!(
        Pool::fork(&table, 1),
        Err(PoolError::Threads { .. })
    ));
}

fn rayon_in_kernels() {
    each(&KINDS, 2, |kind, table, x, tiles, pool| {
        pool.for_each(tiles, &(), |mut x, (), tile| {
            let sum: u32 = (0..1000u32).into_par_iter().map(|x| x % 10).sum();
            x.fill(sum + tile.index() as u32);
        })
        .unwrap();
        let total = table.read(x).unwrap().sum();
        assert_eq!(total, 100 * 4500 + 10 * 45, "{kind:?}");
        let threads = pool
            .broadcast(&(), |_, ()| rayon::current_num_threads() as u64)
            .unwrap();
        let processors = std::thread::available_parallelism().unwrap().get();
        if kind != Kind::Threads {
            assert_eq!(threads, [(processors / 2).max(1) as u64; 2], "{kind:?}");
        }
    });
}

fn rayon_before_a_fork_is_refused() {
    let table = table();
    let sum: u32 = (0..1000u32).into_par_iter().sum();
    assert_eq!(sum, 499_500);
    match Pool::fork(&table, 2).unwrap_err() {
        PoolError::Threads { threads } => assert!(threads > 1),
        other => panic!("{other}"),
    }
}

/// Checks a parent that starts threads after the fork: dead workers are not replaced, the others go
/// on.
fn threads_that_come_later() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    assert_eq!((0..10u32).into_par_iter().sum::<u32>(), 45);
    let outcome = pool.for_each(&tiles, &(), kill_at_tile_5);
    assert!(matches!(outcome, Err(PoolError::WorkerDied { .. })));
    table.clear_poison(x).unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(2))
        .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 200);
    assert_eq!(pool.pids().iter().flatten().count(), 1);
    // A barrier would wait for the missing worker.
    let outcome = pool.run(&(), |worker, ()| Ok(worker.barrier()?));
    assert!(matches!(outcome, Err(PoolError::Threads { .. })));
    let outcome = pool.for_each(&tiles, &(), kill_at_tile_5);
    assert!(matches!(outcome, Err(PoolError::WorkerDied { .. })));
    table.clear_poison(x).unwrap();
    let outcome = pool.for_each(&tiles, &(), |mut x, (), _| x.fill(2));
    assert!(
        matches!(outcome, Err(PoolError::Threads { .. })),
        "no worker is left"
    );
}

fn forks_despite_threads() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    // SAFETY: the other thread holds no lock: it sleeps until its channel closes. The kernel takes
    // none.
    let mut pool = unsafe { Pool::fork_with_threads(&table, 2) }.unwrap();
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(3))
        .unwrap();
    drop(pool);
    assert_eq!(table.read(x).unwrap().sum(), 300);
    drop(end);
    assert!(thread.join().unwrap().is_err());
}

/// Runs as a worker that does not call `become_worker` first.
fn forget_to_become_a_worker() -> ! {
    let table = table();
    match Pool::spawn(&table, 1) {
        Err(PoolError::NotAWorker) => support::exit_at_once(7),
        _ => support::exit_at_once(8),
    }
}

fn a_program_that_forgets() {
    let table = table();
    // SAFETY: this test's process has one thread.
    unsafe { std::env::set_var(FORGETFUL, "1") };
    match Pool::spawn(&table, 2).unwrap_err() {
        error @ PoolError::WorkerNotStarted { code: Some(7), .. } => {
            assert!(error.to_string().contains("become_worker"), "{error}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(table.reap().unwrap().seats, 0);
}

fn a_named_segment() {
    let name = support::Name::new("backends");
    let segment = Segment::create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.zeros::<u32, _>(100).unwrap();
    {
        let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
        for kind in [Kind::Fork, Kind::Spawn] {
            let mut pool = start(kind, &table, 2);
            pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
        }
    }
    assert_eq!(table.read(x).unwrap().sum(), 200);
    assert!(name.exists());
    drop(table);
    drop(segment);
    assert!(!name.exists(), "the last participant removes the name");
}

fn what_was_done() {
    each(&KINDS, 2, |kind, _, _, tiles, pool| {
        pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
        pool.set_profiling(true);
        for _ in 0..5 {
            pool.for_each(tiles, &(), |_, (), _| {
                std::thread::sleep(Duration::from_millis(1));
            })
            .unwrap();
        }
        let stats = pool.stats();
        assert_eq!(
            stats.iter().map(|worker| worker.tiles).sum::<u64>(),
            50,
            "{kind:?}"
        );
        let busy: Duration = stats.iter().map(|worker| worker.busy).sum();
        assert!(busy >= Duration::from_millis(50), "{kind:?}: {stats:?}");
        assert!(
            stats
                .iter()
                .all(|worker| worker.calls <= 5 && worker.stolen <= worker.tiles)
        );
        assert!(stats[0].to_string().contains("stolen"), "{}", stats[0]);
    });
}

fn workers_end_with_their_parent() {
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
fn an_interrupt_ends_all() {
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

fn more_workers_than_processors() {
    each(&KINDS, 8, |_, table, x, tiles, pool| {
        for _ in 0..300 {
            pool.for_each(tiles, &(), |mut x, (), _| x += 1).unwrap();
        }
        pool.run(&(), |worker, ()| {
            for _ in 0..100 {
                worker.barrier()?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 30_000);
    });
}
