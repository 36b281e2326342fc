//! The serial pool: the results of any other pool, in the caller's thread, and its failures.

mod support;

use std::sync::Mutex;
use std::thread::ThreadId;

use std::time::{Duration, Instant};

use ndarray::{ArrayViewMut1, Axis};
use ndshm::error::{LeaseError, PoolError, RoundError};
use ndshm::rand_core::Rng;
use ndshm::{HandleTable, Pool, Segment, TileContext};
use support::{Child, table};

fn main() {
    support::run_tests![
        results_are_those_of_any_number_of_workers,
        kernels_run_in_the_callers_thread_in_the_order_of_the_tiles,
        a_panic_names_its_tile_and_the_others_run,
        an_error_of_a_run_is_reported,
        a_dropped_call_releases_its_arrays,
        a_busy_array_is_an_error,
        a_full_table_and_a_private_segment_are_enough,
        a_forked_child_does_not_use_its_parents_pool,
        a_child_that_a_kernel_forks_leaves_the_call,
        nothing_stays_behind,
    ];
}

/// Adds a random number to each element.
fn noise(mut x: ArrayViewMut1<'_, f64>, &scale: &f64, tile: &TileContext<'_>) {
    let mut rng = tile.rng();
    x.mapv_inplace(|x| x + scale * f64::from(rng.next_u32()));
}

/// Runs all kinds of calls, and returns everything that they give, as bits.
fn results(table: &HandleTable, pool: &mut Pool<'_>) -> Vec<u64> {
    let mut bits = Vec::new();
    let x = table.from_shape_fn(1000, |i| i as f64 / 3.0).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 70).unwrap();
    for _ in 0..3 {
        pool.for_each(&tiles, &0.1, noise).unwrap();
    }
    // Long parameters are not in the mailbox.
    let long = [0.3f64; 100];
    pool.for_each(&tiles, &long, |mut x, long, _| x *= long[99])
        .unwrap();
    let sum = |x: ArrayViewMut1<'_, f64>, (): &(), _: &TileContext<'_>| x.sum();
    let total = pool
        .map_reduce(&tiles, &(), sum, 0.0, |sum, part: f64| sum + part)
        .unwrap();
    bits.push(total.to_bits());
    bits.push(pool.sum(x).unwrap().to_bits());

    // Each tile is run three times. The parent draws on what the tile has.
    let mut running = pool.start(&tiles, &0.7, noise).unwrap();
    let mut runs = vec![0; tiles.tiles()];
    while runs.iter().any(|&run| run < 3) {
        for mut ready in running.wait_any(2).unwrap().ready {
            runs[ready.index()] += 1;
            let mut x = ready.views();
            x += 1.0;
            if runs[ready.index()] < 3 {
                ready.rerun();
            }
        }
    }
    running.finish().unwrap();

    pool.run(&tiles.handle(), |worker, &tiles| {
        let tiles = worker.table().open_partition(tiles)?;
        for _ in 0..3 {
            worker.barrier()?;
            worker.for_each(&tiles, |x, tile| noise(x, &0.2, tile))?;
        }
        Ok(())
    })
    .unwrap();
    let ready = pool.broadcast(&7u64, |worker, &x| x + worker.worker() as u64);
    assert_eq!(ready.unwrap()[0], 7);
    pool.prefault(&tiles).unwrap();
    bits.extend(table.read(x).unwrap().iter().map(|x| x.to_bits()));
    bits
}

fn results_are_those_of_any_number_of_workers() {
    let table = table();
    let with = |mut pool: Pool<'_>| results(&table, &mut pool);
    let builder = || Pool::builder().seed(11);
    let serial = with(builder().serial(&table).unwrap());
    for workers in [1, 2, 8] {
        assert_eq!(
            with(builder().workers(workers).fork(&table).unwrap()),
            serial,
            "{workers} workers"
        );
    }
    assert_eq!(with(builder().workers(5).serial(&table).unwrap()), serial);
    assert_ne!(
        with(Pool::builder().seed(12).serial(&table).unwrap()),
        serial,
        "the seed matters"
    );
}

fn kernels_run_in_the_callers_thread_in_the_order_of_the_tiles() {
    static SEEN: Mutex<Vec<(usize, ThreadId)>> = Mutex::new(Vec::new());
    let table = table();
    let x = table.zeros::<u64, _>(5000).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    assert_eq!(pool.workers(), 1);
    assert_eq!(pool.pids(), [Some(std::process::id())]);
    pool.set_profiling(true);
    pool.for_each(&tiles, &(), |_, (), tile| {
        let here = std::thread::current().id();
        SEEN.lock().unwrap().push((tile.index(), here));
    })
    .unwrap();
    let here = std::thread::current().id();
    let expected: Vec<_> = (0..5000).map(|tile| (tile, here)).collect();
    assert!(*SEEN.lock().unwrap() == expected);
    let stats = pool.stats();
    assert_eq!((stats.len(), stats[0].tiles, stats[0].stolen), (1, 5000, 0));
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert_eq!(threads, 1);
}

fn a_panic_names_its_tile_and_the_others_run() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let kernel = |mut x: ArrayViewMut1<'_, u32>, (): &(), tile: &TileContext<'_>| {
        x.fill(1);
        assert!(tile.index() != 4, "no fours");
    };
    let error = pool.for_each(&tiles, &(), kernel).unwrap_err();
    let PoolError::KernelPanicked { tile, message, .. } = &error else {
        panic!("{error}");
    };
    assert!(*tile == 4 && message.contains("no fours"), "{error}");
    assert!(matches!(
        table.read(x).unwrap_err(),
        LeaseError::Poisoned { .. }
    ));
    table.clear_poison(x).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 100);

    // The same in a started call, whose parent waits.
    let mut running = pool.start(&tiles, &(), kernel).unwrap();
    let error = running.wait_any(10).unwrap_err();
    assert!(matches!(error, PoolError::KernelPanicked { tile: 4, .. }));
    drop(running);
    table.clear_poison(x).unwrap();
    // The pool goes on.
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(2))
        .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 200);
}

fn an_error_of_a_run_is_reported() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let handle = tiles.handle();
    drop(tiles);
    let error = pool
        .run(&handle, |worker, &tiles| {
            worker.table().open_partition(tiles)?;
            Ok(())
        })
        .unwrap_err();
    let PoolError::WorkerFailed { worker: 0, message } = &error else {
        panic!("{error}");
    };
    assert!(message.contains("was freed"), "{message}");
    let error = pool.broadcast(&(), |_, ()| assert!(table_of_nothing(), "no"));
    assert!(matches!(error, Err(PoolError::WorkerFailed { .. })));
    assert_eq!(pool.broadcast(&3u8, |_, &x| x).unwrap(), [3]);
}

fn table_of_nothing() -> bool {
    std::hint::black_box(false)
}

fn a_dropped_call_releases_its_arrays() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    assert_eq!(running.wait_any(1).unwrap().len(), 10);
    drop(running);
    // Dropped before any wait.
    drop(pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap());
    drop(table.write(x).unwrap());
    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
}

fn a_busy_array_is_an_error() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let lease = table.read(x).unwrap();
    let error = pool.for_each(&tiles, &(), |_, (), _| ()).unwrap_err();
    assert!(
        matches!(
            error,
            PoolError::Round(RoundError::Lease(LeaseError::Busy { .. }))
        ),
        "{error}"
    );
    drop(lease);
    pool.for_each(&tiles, &(), |_, (), _| ()).unwrap();
}

/// The pool needs no seat beside the caller's, and no process that could map the segment.
fn a_full_table_and_a_private_segment_are_enough() {
    let one_seat = Segment::options().seats(1).anonymous().unwrap();
    for segment in [one_seat, Segment::in_process().unwrap()] {
        let table = HandleTable::join(&segment).unwrap();
        let x = table.zeros::<u32, _>(10).unwrap();
        let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        pool.for_each(&tiles, &(), |mut x, (), _| x.fill(1))
            .unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 10);
    }
}

fn a_forked_child_does_not_use_its_parents_pool() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    Child::fork(|| {
        let error = pool.for_each(&tiles, &(), |_, (), _| ()).unwrap_err();
        assert!(matches!(error, PoolError::Forked), "{error}");
    })
    .join();
    pool.for_each(&tiles, &(), |mut x, (), _| x.fill(1))
        .unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 10);
}

/// A kernel that forks, and whose child returns: the child leaves the call with an error, and serves
/// no job of its parent.
fn a_child_that_a_kernel_forks_leaves_the_call() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 2).unwrap();
    let mut pool = Pool::serial(&table).unwrap();
    let parent = std::process::id();
    let outcome = pool.for_each(&tiles, &parent, |mut x, parent, tile| {
        if tile.index() == 1 && std::process::id() == *parent {
            // SAFETY: this program has one thread. The child ends below.
            unsafe { libc::fork() };
        }
        x += u32::from(std::process::id() == *parent);
    });
    if std::process::id() != parent {
        support::exit_at_once(i32::from(outcome.is_ok()));
    }
    outcome.unwrap();
    // Long enough for a child that serves jobs to find some.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        table.write(x).unwrap().fill(0);
        pool.for_each(&tiles, &parent, |mut x, parent, _| {
            x += u32::from(std::process::id() == *parent);
        })
        .unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 10);
    }
    let mut status = 0;
    // SAFETY: `status` is a live local.
    let child = unsafe { libc::wait(&mut status) };
    assert!(child > 0);
    assert_eq!(status, 0, "the call of the child failed");
}

fn nothing_stays_behind() {
    let table = table();
    let x = table.zeros::<u32, _>(10).unwrap();
    {
        let tiles = table.partition(x.write(), Axis(0), 3).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        pool.map_collect(&tiles, &[1u64; 100], |_, x, _| x[0])
            .unwrap();
    }
    drop(table.write(x).unwrap());
    table.free(x).unwrap();
    assert_eq!(table.verify().unwrap().live, 0);
}
