//! By tiles of a partition: a whole round, by this process and by a pool.

use std::time::{Duration, Instant};

use ndarray::Axis;
use ndshm::Pool;
use rayon::prelude::*;

use crate::common::process::Process;
use crate::common::{Bench, each, timed};
use crate::curve::Curve;

const WORKERS: usize = 2;
/// Numbers in a tile.
const LEN: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

pub fn curve(bench: &Bench) {
    let title = "Tiles: time of a tile, by the number of tiles of the partition";
    let Some(mut curve) = Curve::new(bench, "tiles", title, "tiles") else {
        return;
    };
    let table = crate::table();
    for count in crate::steps(bench, 1, 1_000_000) {
        let mut rayon = rayon(count);
        let x = table.from_elem(count * LEN, 1.0).expect("memory");
        let tiles = table.partition(x.write(), Axis(0), LEN).expect("an axis");
        let mut pool = Pool::fork(&table, WORKERS).expect("workers");
        curve.measure(
            count,
            vec![
                each("round by one process, per tile", || {
                    let round = tiles.begin().expect("nobody else has it");
                    let mut part = tiles.enter().expect("it lives").expect("the round runs");
                    while let Some(mut tile) = part.claim().expect("valid") {
                        *tile.views() *= 0.999;
                    }
                    drop(part);
                    round.finish(PATIENCE).expect("all tiles are done");
                })
                .per(count),
                each("call of a pool of 2, per tile", || {
                    let call = pool.for_each(&tiles, &0.999, |mut x, &factor: &f64, _| x *= factor);
                    call.expect("a call");
                })
                .per(count),
                timed(
                    "call of a pool of 2, per tile/rayon par_chunks_mut",
                    |times| {
                        rayon.ask(times);
                        Duration::from_nanos(rayon.answer())
                    },
                )
                .per(count),
            ],
        );
        let partition = each("partition, as a whole", || {
            drop(table.partition(x.write(), Axis(0), LEN).expect("an axis"));
        });
        curve.measure(count, vec![partition]);
        drop((pool, tiles));
        table.free(x).expect("nobody else frees it");
    }
    curve.finish();
}

/// Starts a process that multiplies as many numbers by rayon's threads.
fn rayon(count: usize) -> Process {
    Process::fork(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build();
        let pool = pool.expect("threads");
        let mut x = vec![1.0f64; count * LEN];
        move |times| {
            let start = Instant::now();
            for _ in 0..times {
                pool.install(|| {
                    let tiles = x.par_chunks_mut(LEN);
                    tiles.for_each(|tile| tile.iter_mut().for_each(|x| *x *= 0.999));
                });
            }
            start.elapsed().as_nanos() as u64
        }
    })
}
