//! The user's time to spin: its limit, and calls of pools that sleep at once or spin for long.

use std::time::Duration;

use ndarray::Axis;
use ndshm::Pool;
use ndshm::error::PoolError;

use crate::kill_at_tile_5;
use crate::support::{Child, KINDS, Kind, PROCESSES, table};

pub fn a_spin_of_more_than_10_ms_is_refused() {
    let table = table();
    let longest = Duration::from_millis(10);
    let longer = longest + Duration::from_nanos(1);
    match Pool::builder().spin(longer).serial(&table) {
        Err(PoolError::Spin { spin, limit }) => assert_eq!((spin, limit), (longer, longest)),
        other => panic!("{:?}", other.err()),
    }
    assert!(Pool::builder().spin(Duration::MAX).serial(&table).is_err());
    assert!(Pool::builder().spin(longest).serial(&table).is_ok());
}

pub fn pools_of_any_spin_run_calls() {
    for kind in KINDS {
        for spin in [0, 1, 10].map(Duration::from_millis) {
            Child::fork(|| {
                let table = table();
                let builder = Pool::builder().workers(3).spin(spin);
                let mut pool = match kind {
                    Kind::Fork => builder.fork(&table),
                    Kind::Spawn => builder.spawn(&table),
                    Kind::Threads => builder.threads(&table),
                }
                .unwrap();
                let x = table.zeros::<u32, _>(100).unwrap();
                let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
                for _ in 0..20 {
                    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
                }
                pool.run(&tiles.handle(), |worker, &tiles| {
                    let tiles = worker.table().open_partition(tiles)?;
                    for _ in 0..20 {
                        worker.for_each(&tiles, |mut x, _| x += 1)?;
                        worker.barrier()?;
                    }
                    Ok(())
                })
                .unwrap();
                assert_eq!(table.read(x).unwrap().sum(), 4000, "{kind:?}, {spin:?}");
                if PROCESSES.contains(&kind) {
                    let died = pool.for_each(&tiles, &(), kill_at_tile_5);
                    assert!(matches!(died, Err(PoolError::WorkerDied { .. })));
                    tiles.recover(|_, mut x| x.fill(1)).unwrap();
                    // A worker that replaces a dead one spins as the others do.
                    pool.for_each(&tiles, &(), |mut x, (), _| x += 1).unwrap();
                    assert_eq!(table.read(x).unwrap().sum(), 200, "{kind:?}, {spin:?}");
                }
            })
            .join();
        }
    }
}
