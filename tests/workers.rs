//! The pool: results, and all failures of a worker.

mod support;

use std::time::Duration;

use ndarray::Axis;
use ndshm::error::PoolError;
use ndshm::{HandleTable, Partition, Pool, Segment, TileContext, Write};
use support::{Flag, die, eventually, is_alive, table};

fn main() {
    support::run_tests![
        every_tile_is_run_once,
        results_do_not_depend_on_the_workers,
        rounds_see_what_earlier_rounds_wrote,
        arrays_are_not_leased_between_calls,
        parameters_may_be_of_several_types,
        a_panic_is_reported_and_the_other_tiles_run,
        a_killed_worker_is_reported_and_replaced,
        an_exit_in_a_kernel_is_reported,
        a_pool_continues_after_all_workers_were_killed,
        a_worker_killed_between_rounds_is_replaced,
        an_invalid_bool_is_reported_with_its_tile,
        a_deadline_ends_the_call,
        a_late_result_is_not_written_to_another_array,
        a_busy_array_is_an_error,
        refused_writers_make_no_round_fail,
        fork_refuses_bad_numbers_leases_and_private_segments,
        fork_refuses_beside_threads,
        a_dropped_pool_leaves_no_process_array_or_seat,
    ];
}

fn every_tile_is_run_once() {
    let table = table();
    let x = table.zeros::<u32, _>((1000, 2)).unwrap();
    let w = table.from_shape_fn(1000, |i| i as u32).unwrap();
    let tiles = table
        .partition((x.write(), w.read(), w.whole()), Axis(0), 7)
        .unwrap();
    let mut pool = Pool::fork(&table, 3).unwrap();
    for _ in 0..50 {
        pool.for_each(&tiles, &(), |(mut x, w, all), (), tile| {
            assert_eq!(w[0], all[tile.range().start]);
            assert_eq!(x.nrows(), tile.range().len());
            x.column_mut(0).mapv_inplace(|x| x + 1);
            x.column_mut(1).assign(&w);
        })
        .unwrap();
    }
    let x = table.read(x).unwrap();
    assert!(x.column(0).iter().all(|&x| x == 50));
    assert_eq!(x.column(1), table.read(w).unwrap().view());
}

/// Runs a step with random numbers, and a sum that is rounded differently in another order.
fn noisy_sum(workers: usize, seed: u64) -> (u64, u64) {
    use rand_distr::{Distribution, StandardNormal};
    let table = table();
    let x = table.zeros::<f64, _>(10_000).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 64).unwrap();
    let mut pool = Pool::fork(&table, workers).unwrap();
    pool.set_seed(seed);
    for _ in 0..3 {
        pool.for_each(&tiles, &0.5, |mut x, &scale, tile| {
            let mut rng = tile.rng();
            x.mapv_inplace(|x| {
                let noise: f64 = StandardNormal.sample(&mut rng);
                x + scale * noise
            });
        })
        .unwrap();
    }
    let sum = |x: ndarray::ArrayViewMut1<f64>, (): &(), _: &TileContext| x.sum();
    let total = pool
        .map_reduce(&tiles, &(), sum, 0.0, |sum, part: f64| sum + part)
        .unwrap();
    let bits = table.read(x).unwrap().iter().fold(0u64, |hash, x| {
        hash.rotate_left(5) ^ x.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (total.to_bits(), bits)
}

fn results_do_not_depend_on_the_workers() {
    let one = noisy_sum(1, 7);
    assert_eq!(one, noisy_sum(2, 7));
    assert_eq!(one, noisy_sum(8, 7));
    assert_ne!(one, noisy_sum(2, 8), "the seed matters");
}

fn rounds_see_what_earlier_rounds_wrote() {
    let table = table();
    let x = table.from_shape_fn(4096, |i| i as u64).unwrap();
    let y = table.zeros::<u64, _>(4096).unwrap();
    let to_y = table
        .partition((x.whole(), y.write()), Axis(0), 10)
        .unwrap();
    let to_x = table
        .partition((y.whole(), x.write()), Axis(0), 17)
        .unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    for _ in 0..100 {
        for tiles in [&to_y, &to_x] {
            pool.for_each(tiles, &(), |(from, mut to), (), tile| {
                for (to, at) in to.iter_mut().zip(tile.range()) {
                    *to = from[(at + 1) % from.len()];
                }
            })
            .unwrap();
        }
    }
    let x = table.read(x).unwrap();
    assert!(
        x.iter()
            .enumerate()
            .all(|(at, &x)| x == (at as u64 + 200) % 4096)
    );
}

fn arrays_are_not_leased_between_calls() {
    let table = table();
    let x = table.zeros::<u8, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::fork(&table, 8).unwrap();
    for round in 0..200 {
        pool.for_each(&tiles, &round, |mut x, &round, _| x.fill(round))
            .unwrap();
        // The lease succeeds at once: no worker may still hold anything.
        let mut x = table.write(x).unwrap();
        assert!(x.iter().all(|&x| x == round));
        x.fill(0);
    }
}

fn parameters_may_be_of_several_types() {
    let table = table();
    let x = table.zeros::<f64, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    pool.for_each(&tiles, &[1.0, 2.0, 3.0], |mut x, p, _| {
        x.fill(p.iter().sum())
    })
    .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 60.0);
    // A handle is an ordinary parameter; a kernel may be a fn.
    let y = table.from_elem(10, 0.25).unwrap();
    fn add(
        mut x: ndarray::ArrayViewMut1<f64>,
        y: &ndshm::Handle<f64, ndarray::Ix1>,
        tile: &TileContext,
    ) {
        assert_eq!(y.to_string().len(), 22);
        assert!(tile.worker() < 2);
        x += 1.0;
    }
    pool.for_each(&tiles, &y, add).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 70.0);
}

fn with_pool(
    workers: usize,
    test: impl FnOnce(&HandleTable, &Partition<'_, Write<u32, ndarray::Ix1>>, &mut Pool<'_>),
) {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let mut pool = Pool::fork(&table, workers).unwrap();
    let _ = std::panic::take_hook();
    test(&table, &tiles, &mut pool);
}

fn panic_at_tile_3(mut x: ndarray::ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    assert!(tile.index() != 3, "tile {} is bad", tile.index());
}

fn only_array(table: &HandleTable) -> ndshm::Handle<u32, ndarray::Ix1> {
    table
        .arrays()
        .next()
        .unwrap()
        .handle
        .downcast(table)
        .unwrap()
}

fn a_panic_is_reported_and_the_other_tiles_run() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        match pool.for_each(tiles, &(), panic_at_tile_3).unwrap_err() {
            PoolError::KernelPanicked {
                tile,
                rows,
                worker,
                message,
            } => {
                assert_eq!((tile, rows, &*message), (3, 30..40, "tile 3 is bad"));
                assert!(worker < 2);
            }
            other => panic!("{other}"),
        }
        let error = pool.for_each(tiles, &(), panic_at_tile_3).unwrap_err();
        assert!(error.to_string().contains("poisoned"), "{error}");
        table.clear_poison(x).unwrap();
        assert_eq!(
            table.read(x).unwrap().sum(),
            100,
            "the other tiles were run, too"
        );
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(2)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 200);
    });
}

fn kill_at_tile_5(mut x: ndarray::ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    if tile.index() == 5 {
        die();
    }
}

#[track_caller]
fn expect_death(outcome: Result<(), PoolError>, pids: &[Option<u32>]) -> usize {
    match outcome.unwrap_err() {
        PoolError::WorkerDied {
            worker,
            pid,
            signal,
            code,
            tiles,
            rows,
        } => {
            assert_eq!(Some(pid), pids[worker]);
            assert_eq!((signal, code), (Some(libc::SIGKILL), None));
            assert_eq!((&tiles[..], rows.len(), &rows[0]), (&[5][..], 1, &(50..60)));
            worker
        }
        other => panic!("{other}"),
    }
}

fn a_killed_worker_is_reported_and_replaced() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        let pids = pool.pids();
        let worker = expect_death(pool.for_each(tiles, &(), kill_at_tile_5), &pids);
        table.clear_poison(x).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(3)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 300);
        assert!(pool.pids()[worker].is_some() && pool.pids()[worker] != pids[worker]);
    });
}

fn an_exit_in_a_kernel_is_reported() {
    with_pool(2, |_, tiles, pool| {
        let outcome = pool.for_each(tiles, &(), |_, (), tile| {
            if tile.index() == 0 {
                support::exit_at_once(3);
            }
        });
        match outcome.unwrap_err() {
            PoolError::WorkerDied {
                signal,
                code,
                tiles,
                ..
            } => {
                assert_eq!((signal, code, &tiles[..]), (None, Some(3), &[0][..]));
            }
            other => panic!("{other}"),
        }
    });
}

fn a_pool_continues_after_all_workers_were_killed() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        let kill = |_: ndarray::ArrayViewMut1<u32>, (): &(), _: &TileContext| die();
        let error = pool.for_each(tiles, &(), kill).unwrap_err();
        assert!(matches!(error, PoolError::WorkerDied { .. }), "{error}");
        table.clear_poison(x).unwrap();
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

fn a_worker_killed_between_rounds_is_replaced() {
    with_pool(2, |_, tiles, pool| {
        let pids = pool.pids();
        for pid in pids.iter().flatten() {
            // SAFETY: `kill` has no precondition; the pid is of a worker that was not waited for.
            unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
            eventually("the worker ends", || !is_alive(*pid));
        }
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert!(
            pool.pids()
                .iter()
                .zip(&pids)
                .all(|(new, old)| new.is_some() && new != old)
        );
    });
}

fn an_invalid_bool_is_reported_with_its_tile() {
    let table = table();
    let x = table.from_elem(100, true).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut attached = table.attach(x).unwrap();
    // SAFETY: byte 42 is inside the array.
    let byte = unsafe { attached.as_mut_ptr().cast::<u8>().add(42) };
    // SAFETY: nothing else accesses the array.
    unsafe { byte.write(7) };
    let mut pool = Pool::fork(&table, 2).unwrap();
    let error = pool.for_each(&tiles, &(), |_, (), _| ()).unwrap_err();
    match error {
        PoolError::KernelPanicked {
            tile,
            rows,
            message,
            ..
        } => {
            assert_eq!((tile, rows), (4, 40..50));
            assert!(message.contains("0x07"), "{message}");
        }
        other => panic!("{other}"),
    }
    assert!(table.clear_poison(x).is_ok());
    assert!(
        table
            .read(x)
            .unwrap_err()
            .to_string()
            .contains("element 42")
    );
}

fn a_deadline_ends_the_call() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        let given_up = Flag::new();
        pool.set_deadline(Some(Duration::from_millis(200)));
        let error = pool.for_each(tiles, &given_up.number, |_, &given_up, tile| {
            if tile.index() == 9 {
                Flag::wait(given_up);
            }
        });
        match error.unwrap_err() {
            PoolError::Deadline { done, tiles, .. } => assert!(done <= 9 && tiles == 10),
            other => panic!("{other}"),
        }
        Flag::raise(given_up.number);
        eventually("the late worker leaves", || table.write(x).is_ok());
        pool.set_deadline(None);
        pool.for_each(tiles, &(), |mut x, (), _| x.fill(1)).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 100);
    });
}

fn a_late_result_is_not_written_to_another_array() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        let given_up = Flag::new();
        pool.set_deadline(Some(Duration::from_millis(200)));
        let late = |_: ndarray::ArrayViewMut1<u32>, &given_up: &u64, tile: &TileContext| {
            if tile.index() == 9 {
                Flag::wait(given_up);
            }
            u64::MAX
        };
        let outcome = pool.map_reduce(tiles, &given_up.number, late, 0, u64::max);
        assert!(matches!(outcome, Err(PoolError::Deadline { .. })));
        // Arrays of the size of the results: one of them could take their place.
        let others: Vec<_> = (0..70)
            .map(|_| table.from_elem(10, 7u64).unwrap())
            .collect();
        Flag::raise(given_up.number);
        eventually("the late worker leaves", || table.write(x).is_ok());
        for other in others {
            assert_eq!(table.read(other).unwrap().sum(), 70);
        }
    });
}

/// Keeps requesting a lease of an array that all rounds read. No round may fail.
fn refused_writers_make_no_round_fail() {
    let table = table();
    let x = table.zeros::<u32, _>(64).unwrap();
    let w = table.zeros::<u32, _>(64).unwrap();
    let tiles = table.partition((x.write(), w.read()), Axis(0), 8).unwrap();
    let mut pool = Pool::fork(&table, 2).unwrap();
    let held = table.read(w).unwrap();
    let bystander = support::Child::fork(|| {
        loop {
            assert!(table.write(w).is_err(), "the array is read all the time");
        }
    });
    for _ in 0..1_000 {
        pool.for_each(&tiles, &(), |(mut x, w), &(), _| x += &w)
            .unwrap();
    }
    bystander.kill();
    drop(held);
}

fn a_busy_array_is_an_error() {
    with_pool(2, |table, tiles, pool| {
        let x = only_array(table);
        let guard = table.read(x).unwrap();
        let error = pool.for_each(tiles, &(), |_, (), _| ()).unwrap_err();
        assert!(error.to_string().contains("leased by process"), "{error}");
        drop(guard);
        pool.for_each(tiles, &(), |_, (), _| ()).unwrap();
    });
}

fn fork_refuses_bad_numbers_leases_and_private_segments() {
    let table = table();
    assert!(matches!(
        Pool::fork(&table, 0),
        Err(PoolError::Workers { workers: 0, .. })
    ));
    assert!(matches!(
        Pool::fork(&table, 256),
        Err(PoolError::Workers { .. })
    ));
    let x = table.zeros::<u8, _>(4).unwrap();
    for guard in [true, false] {
        let _write = guard.then(|| table.write(x).unwrap());
        let _read = (!guard).then(|| table.read(x).unwrap());
        assert!(matches!(
            Pool::fork(&table, 1),
            Err(PoolError::LeaseHeld { .. })
        ));
    }
    let alone = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
    assert!(matches!(Pool::fork(&alone, 1), Err(PoolError::InProcess)));
    drop(Pool::fork(&table, 1).unwrap());
}

fn fork_refuses_beside_threads() {
    let table = table();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    let error = Pool::fork(&table, 2).unwrap_err();
    assert!(matches!(error, PoolError::Threads { threads: 2 }));
    assert!(
        error.to_string().contains("start the pool first"),
        "{error}"
    );
    drop(end);
    assert!(
        thread.join().unwrap().is_err(),
        "the thread ran until the other end was dropped"
    );
    eventually("the thread is gone", || Pool::fork(&table, 2).is_ok());
}

fn a_dropped_pool_leaves_no_process_array_or_seat() {
    let table = table();
    let x = table.zeros::<u8, _>(100).unwrap();
    let pids = {
        let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
        let mut pool = Pool::fork(&table, 4).unwrap();
        let sum = |_: ndarray::ArrayViewMut1<u8>, (): &(), _: &TileContext| 1u8;
        let count = pool
            .map_reduce(&tiles, &(), sum, 0, |sum, one: u8| sum + one)
            .unwrap();
        assert_eq!(count, 10);
        pool.pids()
    };
    assert!(pids.iter().flatten().all(|&pid| !is_alive(pid)));
    assert_eq!(table.arrays().count(), 1);
    assert_eq!(
        table.reap().unwrap().seats,
        0,
        "their seats are free already"
    );
    table.write(x).unwrap().fill(1);
}
