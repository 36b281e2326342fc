//! Everything that threads of one process do with a segment, without a fork: what a race detector
//! can watch (`.ci/tsan`).

use std::thread;
use std::time::Duration;

use ndarray::{Axis, Ix1};
use ndshm::{Handle, HandleTable, Pool, PoolError, QueueHandle, Segment};

const WORKERS: usize = 3;

fn table() -> HandleTable {
    let options = Segment::options().capacity(4 << 20).seats(8).arrays(256);
    HandleTable::join(&options.in_process().unwrap()).unwrap()
}

/// The parent writes and reads between the calls, and the calls' own arrays come and go.
#[test]
fn calls_in_a_row() {
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

/// Workers read each other's parts by views without a lease, and meet at a barrier.
#[test]
fn steps_between_barriers() {
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
                // SAFETY: nobody writes `from` in this step, and who did came to the barrier.
                let old = unsafe { old.view_unsynchronized() };
                // SAFETY: the part is this worker's, and who read it came to the barrier.
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
    // Each step doubles every cell.
    let cells = table.read(cells[0]).unwrap();
    assert!(cells.iter().all(|&cell| cell == 1 << STEPS), "{cells}");
}

/// Tiles go to and fro between the parent and the workers.
#[test]
fn tiles_are_sent_off_again() {
    let table = table();
    let x = table.zeros::<u64, _>(8).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 1).unwrap();
    let mut pool = Pool::threads(&table, WORKERS).unwrap();
    let mut running = pool.start(&tiles, &(), |mut x, (), _| x += 1).unwrap();
    let mut sent = 0;
    while sent < 2000 {
        for mut ready in running.wait_any(3).unwrap() {
            ready.views()[0] += 1;
            ready.again();
            sent += 1;
        }
    }
    running.finish().unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 8 + 2 * sent);
}

/// A kernel that panics, while others go on.
#[test]
fn a_panic() {
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

/// Jobs are handed over with the arrays that they name.
#[test]
fn jobs_with_arrays() {
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
                    while let Ok(Some(job)) = queue.pop_wait(Duration::from_secs(30)) {
                        sum += table.read(job).unwrap()[1];
                        table.free(job).unwrap();
                    }
                    sum
                })
            })
            .collect();
        for number in 0..JOBS {
            let job = table.from_elem(2, number).unwrap();
            queue.push_wait(job, Duration::from_secs(30)).unwrap();
        }
        queue.close();
        consumers
            .into_iter()
            .map(|consumer| consumer.join().unwrap())
            .sum()
    });
    assert_eq!(sum, JOBS * (JOBS - 1) / 2);
}
