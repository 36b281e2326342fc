//! Calls in a row whose workers stay in the round: `Pool::steps`, and `WorkerContext::steps`.

use ndarray::{ArrayViewMut1, Axis};
use ndshm::error::{LeaseError, PoolError};
use ndshm::{HandleTable, OnFailure, Pool, Segment, TileContext};

use crate::support::{
    Child, DEADLINE, Flag, KINDS, PROCESSES, die, eventually, is_alive, start, table,
};
use crate::{kill_at_tile_5, with_each_pool};

fn add(mut x: ArrayViewMut1<u32>, &by: &u32, _: &TileContext) {
    x += by;
}

fn draw(mut x: ArrayViewMut1<u32>, (): &(), tile: &TileContext) {
    use rand_core::Rng;
    let mut rng = tile.rng();
    x.mapv_inplace(|x| x ^ rng.next_u32());
}

/// Checks all calls of `Steps`, in turns: different kernels stay in one round. Between two of them
/// nobody can lease the array; after them anybody can, and so can the pool.
pub fn calls_in_a_row_are_those_of_the_pool() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        let expected = {
            pool.set_seed(9);
            for by in 0..5 {
                pool.for_each(tiles, &by, add).unwrap();
                pool.for_each(tiles, &(), draw).unwrap();
            }
            let all = table.read(x).unwrap().to_owned();
            table.write(x).unwrap().fill(0);
            all
        };
        let mut other = start(kind, table, 2);
        other.set_seed(9);
        let mut steps = other.steps(tiles);
        for by in 0..5 {
            steps.for_each(&by, add).unwrap();
            steps.for_each(&(), draw).unwrap();
            assert!(matches!(table.read(x), Err(LeaseError::Busy { .. })));
        }
        let sums = steps
            .map_collect(&(), |x, (), tile| (tile.index(), x[0]))
            .unwrap();
        for (index, (tile, first)) in sums.into_iter().enumerate() {
            assert_eq!((tile, first), (index, expected[10 * index]), "{kind:?}");
        }
        let tiles_counted = steps.map_reduce(&(), |_, (), _| 1u32, 0, |all, one| all + one);
        assert_eq!(tiles_counted.unwrap(), 10);
        drop(steps);
        assert_eq!(*table.read(x).unwrap(), expected, "{kind:?}");
        other.for_each(tiles, &1, add).unwrap();
        assert_eq!(*table.write(x).unwrap(), expected + 1, "{kind:?}");
    });
}

/// Passes parameters that do not fit into the mailbox, and takes results, more often than there is room
/// for. Each call gives its memory back although the workers stay.
pub fn long_parameters_are_given_back() {
    for kind in KINDS {
        Child::fork(|| {
            let small = Segment::options().capacity(1 << 20).anonymous().unwrap();
            let table = HandleTable::join(&small).unwrap();
            let x = table.zeros::<u64, _>(4).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
            let mut pool = start(kind, &table, 2);
            let mut steps = pool.steps(&tiles);
            for call in 0..100 {
                let params = [call; 4096];
                let got = steps.map_collect(&params, |mut x, params: &[u64; 4096], _| {
                    x[0] += params[4095];
                    [x[0]; 512]
                });
                assert_eq!(got.unwrap()[3][511], call * (call + 1) / 2, "{kind:?}");
            }
        })
        .join();
    }
}

pub fn units_stay_too() {
    with_each_pool(&KINDS, 2, |kind, table, _, _, pool| {
        let x = table.zeros::<u64, _>(5000).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
        let mut steps = pool.steps(&tiles);
        for _ in 0..3 {
            steps.for_each_unit(&(), |mut x, (), _| x += 1).unwrap();
            steps.for_each(&(), |mut x, (), _| x += 1).unwrap();
        }
        drop(steps);
        assert_eq!(table.read(x).unwrap().sum(), 6 * 5000, "{kind:?}");
    });
}

/// Checks that nothing is leased before the first call, and nothing after the steps are dropped: the drop
/// waits until all workers have left.
pub fn steps_end_when_they_are_dropped() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        drop(pool.steps(tiles));
        for round in 1..50 {
            let mut steps = pool.steps(tiles);
            drop(table.write(x).unwrap());
            steps.for_each(&1, add).unwrap();
            drop(steps);
            assert_eq!(table.write(x).unwrap()[0], round, "{kind:?}");
        }
        let progress = tiles.progress().unwrap();
        assert_eq!(
            (progress.round, progress.running, progress.done),
            (49, false, 10)
        );
    });
}

/// Repairs the torn tile of a call that has failed, while the steps live. The next call is whole.
pub fn a_panic_ends_the_round_and_not_the_steps() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut steps = pool.steps(tiles);
        steps.for_each(&1, add).unwrap();
        let failed = steps.for_each(&(), |mut x, (), tile| {
            x += 1;
            if tile.index() == 5 {
                std::panic::resume_unwind(Box::new("stuck".to_owned()));
            }
        });
        match failed {
            Err(PoolError::KernelPanicked {
                tile: 5, message, ..
            }) => assert_eq!(message, "stuck"),
            other => panic!("{kind:?}: {other:?}"),
        }
        let again = steps.for_each(&1, add);
        assert!(
            matches!(again, Err(PoolError::Round(_))),
            "{kind:?}: poisoned"
        );
        assert_eq!(tiles.recover(|_, mut x| x.fill(2)).unwrap(), 1);
        steps.for_each(&1, add).unwrap();
        steps.for_each(&1, add).unwrap();
        drop(steps);
        assert!(table.read(x).unwrap().iter().all(|&x| x == 4), "{kind:?}");
    });
}

pub fn a_death_ends_the_round_and_not_the_steps() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        let mut steps = pool.steps(tiles);
        steps.for_each(&1, add).unwrap();
        match steps.for_each(&(), kill_at_tile_5) {
            Err(PoolError::WorkerDied { tiles, .. }) => assert_eq!(tiles, [5], "{kind:?}"),
            other => panic!("{kind:?}: {other:?}"),
        }
        assert_eq!(tiles.recover(|_, mut x| x.fill(1)).unwrap(), 1);
        steps.for_each(&1, add).unwrap();
        steps.for_each(&1, add).unwrap();
        drop(steps);
        assert!(table.read(x).unwrap().iter().all(|&x| x == 3), "{kind:?}");
        assert!(
            pool.pids().iter().all(Option::is_some),
            "{kind:?}: replaced"
        );
    });
}

/// Kills a worker between two calls, where it holds no tile. The calls go on, and it is replaced.
pub fn a_death_between_calls_tears_none() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        let victim = pool.pids()[0].unwrap();
        let mut steps = pool.steps(tiles);
        steps.for_each(&1, add).unwrap();
        // SAFETY: `kill` has no precondition; the pid is of a worker that nobody has waited for.
        unsafe { libc::kill(victim.cast_signed(), libc::SIGKILL) };
        eventually("the worker is dead", || !is_alive(victim));
        for _ in 0..2 {
            std::thread::sleep(std::time::Duration::from_millis(12));
            steps.for_each(&1, add).unwrap();
        }
        drop(steps);
        assert!(table.read(x).unwrap().iter().all(|&x| x == 3), "{kind:?}");
        assert_eq!(pool.deaths(), 1, "{kind:?}");
        assert!(
            pool.pids().iter().all(Option::is_some),
            "{kind:?}: replaced"
        );
    });
}

/// Kills a worker in each of several calls under `RunAgain`. Each call is whole.
pub fn tiles_of_the_dead_run_again_in_steps() {
    with_each_pool(&PROCESSES, 2, |kind, table, x, tiles, pool| {
        pool.set_on_failure(OnFailure::RunAgain);
        let mut steps = pool.steps(tiles);
        for call in 1..=3 {
            let flag = Flag::new();
            steps
                .for_each(
                    &(flag.number, call),
                    |mut x, &(flag, call): &(u64, u32), tile| {
                        x.fill(call);
                        if tile.index() == 5 && !Flag::is_raised(flag) {
                            Flag::raise(flag);
                            die();
                        }
                    },
                )
                .unwrap();
        }
        drop(steps);
        assert!(table.read(x).unwrap().iter().all(|&x| x == 3), "{kind:?}");
        assert_eq!(pool.deaths(), 3, "{kind:?}");
    });
}

/// Checks a kernel that does not end in time: the other workers leave, and the arrays are closed as long
/// as it runs.
pub fn a_deadline_ends_the_round() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let flag = Flag::new();
        pool.set_deadline(Some(std::time::Duration::from_millis(100)));
        let mut steps = pool.steps(tiles);
        let late = steps.for_each(&flag.number, |mut x, &flag, tile| {
            x.fill(1);
            if tile.index() == 0 {
                Flag::wait(flag);
            }
        });
        assert!(
            matches!(late, Err(PoolError::Deadline { .. })),
            "{kind:?}: {late:?}"
        );
        drop(steps);
        Flag::raise(flag.number);
        eventually("the worker has left", || {
            let _ = table.clear_poison(x);
            table.write(x).is_ok()
        });
        pool.set_deadline(Some(DEADLINE));
        pool.for_each(tiles, &1, add).unwrap();
    });
}

/// Checks that an array which is freed between two calls is not written any more.
pub fn a_freed_array_ends_the_steps() {
    with_each_pool(&KINDS, 2, |kind, table, x, tiles, pool| {
        let mut steps = pool.steps(tiles);
        steps.for_each(&1, add).unwrap();
        table.free(x).unwrap();
        let stale = steps.for_each(&1, add);
        assert!(
            matches!(stale, Err(PoolError::Round(_))),
            "{kind:?}: {stale:?}"
        );
        drop(steps);
        let info = table.info(x);
        assert!(matches!(info, Err(LeaseError::Stale { .. })), "{kind:?}");
        table.reap().unwrap();
        let found = table.verify().unwrap();
        assert!(found.is_clean(), "{kind:?}: {found}");
        assert_eq!((found.retired, found.writers), (0, 0), "{kind:?}");
    });
}

/// Checks a serial pool, whose worker stays in no round.
pub fn a_serial_pool_runs_steps() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let mut steps = pool.steps(&tiles);
    for _ in 0..3 {
        steps.for_each(&2, add).unwrap();
    }
    assert!(table.read(x).is_err());
    drop(steps);
    assert_eq!(table.write(x).unwrap().sum(), 60);
}

/// Runs rounds in a row within a call, with two bodies, none, and a body that fails.
pub fn workers_run_steps_within_a_call() {
    with_each_pool(&KINDS, 3, |kind, table, x, tiles, pool| {
        let name = tiles.handle();
        pool.run(&name, |worker, &tiles| {
            let tiles = worker.table().open_partition(tiles)?;
            worker.steps(&tiles, |_| Ok(()))?;
            worker.steps(&tiles, |steps| {
                for _ in 0..20 {
                    steps.for_each(|mut x, _| x += 1)?;
                    steps.for_each_unit(|mut x, _| x *= 2)?;
                }
                Ok(())
            })?;
            worker.for_each(&tiles, |mut x, _| x += 1)
        })
        .unwrap();
        let expected = (0..20).fold(0u32, |x, _| (x + 1).wrapping_mul(2)) + 1;
        let all = table.read(x).unwrap().to_owned();
        assert!(all.iter().all(|&x| x == expected), "{kind:?}: {all}");
        let failed = pool.run(&name, |worker, &tiles| {
            let tiles = worker.table().open_partition(tiles)?;
            worker.steps(&tiles, |steps| {
                steps.for_each(|mut x, _| x += 1)?;
                steps.for_each(|_, tile| {
                    if tile.index() == 5 {
                        std::panic::resume_unwind(Box::new("the fifth".to_owned()));
                    }
                })
            })
        });
        match failed {
            Err(PoolError::WorkerFailed { message, .. }) => {
                assert!(message.contains("the fifth"), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        let _ = table.clear_poison(x);
        assert!(table.write(x).is_ok(), "{kind:?}: all have left");
    });
}
