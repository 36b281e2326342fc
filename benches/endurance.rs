//! Memory use after many allocations and frees of arrays of all sizes.
//!
//! `--operations=N` sets their number: 100 per second for a day are 9 million.

mod common;

use std::time::{Duration, Instant};

use common::{Bench, Random};
use ndshm::{AnyHandle, HandleTable, Observer, Segment};

/// Approximate bytes of live arrays, and the limit for retained bytes of freed arrays.
const LIVE: u64 = 256 << 20;
const RETAINED: u64 = 64 << 20;
/// Limits of the random exponent x: a size is 2^x.
const LEAST: f64 = 6.0;
const MOST: f64 = 22.0;

fn main() {
    let bench = Bench::from_args();
    let name = "endurance/random sizes";
    if !bench.wants(name) {
        return;
    }
    let quick = if bench.is_quick() { 20_000 } else { 1_000_000 };
    let operations = bench.number("--operations").unwrap_or(quick);
    let segment = Segment::options().retain(RETAINED).anonymous();
    let segment = segment.expect("a segment");
    let table = HandleTable::join(&segment).expect("a seat");
    let observer = Observer::from_fd(segment.inheritable_fd().expect("a descriptor"));
    let observer = observer.expect("our own segment");
    let mut random = Random::new(7);
    let mut arrays: Vec<(AnyHandle, u64)> = Vec::new();
    let mut live = 0;
    let mut worst = 0.0f64;
    let mut batches = Vec::new();
    let mut done = 0;
    while done < operations {
        let batch = 10_000.min(operations - done);
        let mut took = Duration::ZERO;
        for _ in 0..batch {
            let bytes = (LEAST + (MOST - LEAST) * random.unit()).exp2() as usize;
            let start = Instant::now();
            let new = table.uninit::<u8, _>(bytes).expect("memory for the bench");
            took += start.elapsed();
            // Only written pages occupy memory.
            let mut pages = table.write(new).expect("it is ours");
            pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            drop(pages);
            arrays.push((new.into(), bytes as u64));
            live += bytes as u64;
            while live > LIVE {
                let (gone, bytes) = arrays.swap_remove(random.below(arrays.len()));
                let start = Instant::now();
                table.free(gone).expect("nobody else frees it");
                took += start.elapsed();
                live -= bytes;
            }
        }
        done += batch;
        batches.push(took.as_secs_f64() * 1e9 / batch as f64);
        // The ratio means little until half of the live bytes are there.
        if live > LIVE / 2 {
            worst = worst.max(resident(&segment) as f64 / (live + RETAINED) as f64);
        }
    }
    bench.report_samples(vec![(name.into(), batches)]);
    let carved: u64 = observer
        .classes()
        .iter()
        .map(|class| class.extent * class.slots as u64)
        .sum();
    let against = "live and retained bytes";
    bench.report_ratio(
        "endurance/resident",
        resident(&segment) as f64 / (live + RETAINED) as f64,
        against,
    );
    bench.report_ratio("endurance/resident at worst", worst, against);
    bench.report_ratio(
        "endurance/address space",
        carved as f64 / live as f64,
        "live bytes",
    );
}

/// Returns the bytes of memory that the segment occupies, including its tables.
fn resident(segment: &Segment) -> u64 {
    let fd = segment.inheritable_fd().expect("a descriptor");
    let stat = rustix::fs::fstat(&fd).expect("a file");
    stat.st_blocks as u64 * 512
}
