//! Started calls in which a tile fails: the parent, and a worker in the same process, die at any
//! step of its report, its repair and its next run.

use ndarray::{ArrayViewMut1, Axis};
use ndshm::{OnFailure, Pool, TileContext};

use crate::ground::Ground;
use crate::operations::Operation;
use crate::run::Run;
use crate::tracer::mark;

pub const OPERATIONS: &[Operation] = &[
    ("a tile fails, and is reported", fail),
    ("repair a failed tile, and run it again", repair),
];

/// Fills the tile. Its first run leaves it half-written, and panics.
fn fill(mut x: ArrayViewMut1<'_, u64>, (): &(), tile: &TileContext<'_>) {
    let run = tile.run() + 1;
    x[0] = run;
    if run == 1 {
        std::panic::resume_unwind(Box::new("half-way"));
    }
    x[1] = run;
}

fn fail(run: &mut Run) {
    failing(run, true);
}

fn repair(run: &mut Run) {
    failing(run, false);
}

/// Runs a call in a victim. Its operation is the part up to the report of the failure, or the part
/// after it.
fn failing(run: &mut Run, up_to_report: bool) {
    let ground = Ground::new();
    run.victim(|| {
        let table = ground.join();
        let tiles = table.partition(ground.array.write(), Axis(0), 2).unwrap();
        let mut pool = Pool::serial(&table).unwrap();
        if up_to_report {
            mark();
        }
        let started = pool.start(&tiles, &(), fill).unwrap();
        let mut running = started.on_failure(OnFailure::Skip);
        let mut failed = running.wait_any(1).unwrap().failed;
        let failed = failed.next().expect("its first run fails");
        mark();
        failed.repair(|mut x| x.fill(7)).unwrap().rerun();
        let ready = running.wait_any(1).unwrap().ready;
        assert_eq!(ready.count(), 1);
        running.finish().unwrap();
        if !up_to_report {
            mark();
        }
        drop(pool);
        drop(tiles);
    });
    ground.survive(run);
}
