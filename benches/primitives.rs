//! The primitives of a pool with 2 workers, against one thread's loop and rayon's with 2 threads.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::process::Process;
use common::{Bench, each, timed};
use ndarray::{ArrayView1, Axis};
use ndshm::pool::TileRng;
use ndshm::segment::HugePages;
use ndshm::{HandleTable, Pool, Segment};
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

const WORKERS: usize = 2;
/// Elements of a chunk in rayon's loops.
const CHUNK: usize = 4096;

fn main() {
    let bench = Bench::from_args();
    let sizes: &[usize] = match bench.is_quick() {
        true => &[100_000],
        false => &[1_000_000, 10_000_000],
    };
    for &size in sizes {
        // One process serves all of rayon's figures. Fork it while this process has one thread.
        let mut rayon = Process::fork(|| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build();
            let threads = threads.expect("threads");
            let mut data = Data::new(size);
            move |question| {
                let (what, times) = (question >> 32, question & u64::from(u32::MAX));
                let start = Instant::now();
                for _ in 0..times {
                    threads.install(|| black_box(on_rayon(WHAT[what as usize], &mut data)));
                }
                start.elapsed().as_nanos() as u64
            }
        });
        let mut alone = Data::new(size);
        let table = HandleTable::join(&Segment::anonymous().expect("a segment")).expect("a seat");
        let mut pool = Pool::fork(&table, WORKERS).expect("workers");
        let x = table.from_array(&ArrayView1::from(&alone.x)).expect("room");
        let y = table.from_array(&ArrayView1::from(&alone.y)).expect("room");
        let index = table
            .from_array(&ArrayView1::from(&alone.index))
            .expect("room");
        let sorted = table
            .from_array(&ArrayView1::from(&alone.sorted))
            .expect("room");
        let ancestors = table.zeros::<u64, _>(size).expect("room");
        for (at, what) in WHAT.into_iter().enumerate() {
            let name = format!("primitives/{what}/{size}");
            bench.compare(vec![
                each(&name, || {
                    match what {
                        "fill" => pool.fill(y, 0.5).map(|()| 0.0),
                        "copy" => pool.copy(x, y).map(|()| 0.0),
                        "swap" => pool.swap(x, y).map(|()| 0.0),
                        "gather" => pool.gather(x, index, y).map(|()| 0.0),
                        "gather-sorted" => pool.gather(x, sorted, y).map(|()| 0.0),
                        "prefix-sum" => pool.prefix_sum(x, y).map(|()| 0.0),
                        "sum" => pool.sum(x),
                        "min-max" => pool.min_max(x).map(|(least, _)| least),
                        "variance" => pool.variance(x, 1),
                        "log-sum-exp" => pool.log_sum_exp(x),
                        "systematic" => pool.resample_systematic(x, 0.5, ancestors).map(|()| 0.0),
                        _ => {
                            let drawn = pool.resample_multinomial(x, 1, 2, ancestors);
                            drawn.map(|()| 0.0)
                        }
                    }
                    .expect("a call")
                }),
                each(format!("{name}/one thread"), || alone_in(what, &mut alone)),
                timed(format!("{name}/rayon"), |times| {
                    rayon.ask((at as u64) << 32 | times);
                    Duration::from_nanos(rayon.answer())
                }),
            ]);
        }
    }
    states(&bench);
}

/// Gathers states of 120,000 numbers as a resampling does, against two threads that copy as many
/// bytes in order, which is the limit of the memory.
fn states(bench: &Bench) {
    const WIDTH: usize = 120_000;
    let name = "primitives/gather-states";
    if !bench.wants(name) {
        return;
    }
    let count = if bench.is_quick() { 20 } else { 1000 };
    let mut copy = Process::fork(|| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build();
        let threads = threads.expect("threads");
        let from = vec![1.0f64; count * WIDTH];
        let mut to = vec![0.0f64; count * WIDTH];
        move |times| {
            let start = Instant::now();
            for _ in 0..times {
                threads.install(|| {
                    let tiles = to.par_chunks_mut(WIDTH).zip(from.par_chunks(WIDTH));
                    tiles.for_each(|(to, from)| to.copy_from_slice(from));
                });
            }
            start.elapsed().as_nanos() as u64
        }
    });
    for (suffix, huge_pages) in [("", HugePages::AsSystem), ("/huge", HugePages::Collapse)] {
        let segment = Segment::options().huge_pages(huge_pages).anonymous();
        let table = HandleTable::join(&segment.expect("a segment")).expect("a seat");
        let x = table.from_elem((count, WIDTH), 1.0f64).expect("room");
        let y = table.from_elem((count, WIDTH), 0.0f64).expect("room");
        let mut rng = TileRng::seed_from_u64(1);
        let index = table.from_shape_fn(count, |_| rng.next_u64() % count as u64);
        let index = index.expect("room");
        let tiles = table.partition((x.read(), y.write()), Axis(0), 1);
        let mut pool = Pool::fork(&table, WORKERS).expect("workers");
        pool.prefault(&tiles.expect("an axis")).expect("pages");
        let name = format!("{name}{suffix}");
        bench.compare(vec![
            each(&name, || pool.gather(x, index, y).expect("a call")),
            timed(format!("{name}/copy by two threads"), |times| {
                copy.ask(times);
                Duration::from_nanos(copy.answer())
            }),
        ]);
    }
}

const WHAT: [&str; 12] = [
    "fill",
    "copy",
    "swap",
    "gather",
    "gather-sorted",
    "prefix-sum",
    "sum",
    "min-max",
    "variance",
    "log-sum-exp",
    "systematic",
    "multinomial",
];

struct Data {
    x: Vec<f64>,
    y: Vec<f64>,
    index: Vec<u64>,
    sorted: Vec<u64>,
    ancestors: Vec<u64>,
}

impl Data {
    fn new(size: usize) -> Data {
        let mut rng = TileRng::seed_from_u64(1);
        let mut uniform = || (rng.next_u64() >> 11) as f64 * (-53f64).exp2();
        let x: Vec<f64> = (0..size).map(|_| uniform()).collect();
        let y: Vec<f64> = (0..size).map(|_| uniform()).collect();
        let index: Vec<u64> = (0..size)
            .map(|_| (uniform() * size as f64) as u64)
            .collect();
        let mut sorted = index.clone();
        sorted.sort_unstable();
        Data {
            x,
            y,
            index,
            sorted,
            ancestors: vec![0; size],
        }
    }
}

fn alone_in(what: &str, data: &mut Data) -> f64 {
    let Data {
        x,
        y,
        index,
        sorted,
        ancestors,
    } = data;
    match what {
        "fill" => y.fill(0.5),
        "copy" => y.copy_from_slice(x),
        "swap" => x.swap_with_slice(y),
        "gather" => gather(x, index, y),
        "gather-sorted" => gather(x, sorted, y),
        "prefix-sum" => {
            run(x, 0.0, y);
        }
        "sum" => return ArrayView1::from(&*x).sum(),
        "min-max" => return min_max(x).0,
        "variance" => return ArrayView1::from(&*x).var(1.0),
        "log-sum-exp" => {
            let greatest = min_max(x).1;
            return greatest + x.iter().map(|x| (x - greatest).exp()).sum::<f64>().ln();
        }
        "systematic" => {
            let step = run(x, 0.0, y) / y.len() as f64;
            let positions = (0..y.len()).map(|at| (0.5 + at as f64) * step);
            walk(y, 0, positions, ancestors);
        }
        _ => {
            let spacings: Vec<f64> = exponentials(0, y.len() + 1).collect();
            let total = run(x, 0.0, y);
            let scale = total / spacings.iter().sum::<f64>();
            let mut sum = 0.0;
            let positions = spacings.iter().map(|spacing| {
                sum += spacing;
                sum * scale
            });
            walk(y, 0, positions, ancestors);
        }
    }
    0.0
}

fn on_rayon(what: &str, data: &mut Data) -> f64 {
    let Data {
        x,
        y,
        index,
        sorted,
        ancestors,
    } = data;
    match what {
        "fill" => y.par_chunks_mut(CHUNK).for_each(|y| y.fill(0.5)),
        "copy" => (y.par_chunks_mut(CHUNK), x.par_chunks(CHUNK))
            .into_par_iter()
            .for_each(|(y, x)| y.copy_from_slice(x)),
        "swap" => (y.par_chunks_mut(CHUNK), x.par_chunks_mut(CHUNK))
            .into_par_iter()
            .for_each(|(y, x)| y.swap_with_slice(x)),
        "gather" | "gather-sorted" => {
            let index = if what == "gather" { index } else { sorted };
            (y.par_chunks_mut(CHUNK), index.par_chunks(CHUNK))
                .into_par_iter()
                .for_each(|(y, index)| gather(x, index, y));
        }
        "prefix-sum" => {
            prefix_sum(x, y);
        }
        "sum" => {
            let sums = x.par_chunks(CHUNK).map(|x| ArrayView1::from(x).sum());
            return sums.sum();
        }
        "min-max" => {
            let parts = x.par_chunks(CHUNK).map(min_max);
            return parts
                .reduce(|| (0.0, 0.0), |a, b| (a.0.min(b.0), a.1.max(b.1)))
                .0;
        }
        "variance" => {
            let none = || (0.0, 0.0, 0.0);
            let parts = x.par_chunks(CHUNK).map(|x| {
                let (x, n) = (ArrayView1::from(x), x.len() as f64);
                (n, x.sum() / n, x.var(0.0) * n)
            });
            let merge = |a: (f64, f64, f64), b: (f64, f64, f64)| {
                let (n, apart) = (a.0 + b.0, b.1 - a.1);
                let share = b.0 / n.max(1.0);
                (
                    n,
                    a.1 + apart * share,
                    a.2 + b.2 + apart * apart * a.0 * share,
                )
            };
            return parts.reduce(none, merge).2;
        }
        "log-sum-exp" => {
            let greatest = x
                .par_chunks(CHUNK)
                .map(|x| min_max(x).1)
                .reduce(|| 0.0, f64::max);
            let sums = x
                .par_chunks(CHUNK)
                .map(|x| x.iter().map(|x| (x - greatest).exp()).sum::<f64>());
            return greatest + sums.sum::<f64>().ln();
        }
        "systematic" => {
            let step = prefix_sum(x, y) / y.len() as f64;
            let chunks = ancestors.par_chunks_mut(CHUNK).enumerate();
            chunks.for_each(|(chunk, ancestors)| {
                let position = |at: usize| (0.5 + (chunk * CHUNK + at) as f64) * step;
                let first = y.partition_point(|&sum| sum <= position(0));
                walk(y, first, (0..ancestors.len()).map(position), ancestors);
            });
        }
        _ => {
            let total = prefix_sum(x, y);
            let spacings: Vec<f64> = (0..x.len().div_ceil(CHUNK))
                .into_par_iter()
                .flat_map_iter(|chunk| exponentials(chunk, CHUNK))
                .collect();
            let mut sums = vec![0.0; spacings.len()];
            let scale = total / prefix_sum(&spacings, &mut sums);
            let chunks = ancestors.par_chunks_mut(CHUNK).zip(sums.par_chunks(CHUNK));
            chunks.for_each(|(ancestors, sums)| {
                let first = y.partition_point(|&sum| sum <= sums[0] * scale);
                walk(y, first, sums.iter().map(|sum| sum * scale), ancestors);
            });
        }
    }
    0.0
}

fn gather(x: &[f64], index: &[u64], y: &mut [f64]) {
    for (y, &at) in y.iter_mut().zip(index) {
        *y = x[at as usize];
    }
}

/// Writes the running sums from `start`. Returns the last one.
fn run(x: &[f64], start: f64, y: &mut [f64]) -> f64 {
    let mut sum = start;
    for (y, x) in y.iter_mut().zip(x) {
        sum += x;
        *y = sum;
    }
    sum
}

fn prefix_sum(x: &[f64], y: &mut [f64]) -> f64 {
    let sums = x.par_chunks(CHUNK).map(|x| ArrayView1::from(x).sum());
    let mut start = 0.0;
    let mut starts: Vec<f64> = sums.collect();
    for place in &mut starts {
        (*place, start) = (start, start + *place);
    }
    let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.zip(starts).for_each(|((y, x), start)| {
        run(x, start, y);
    });
    start
}

fn min_max(x: &[f64]) -> (f64, f64) {
    x.iter().fold((x[0], x[0]), |(least, greatest), &x| {
        (
            if x < least { x } else { least },
            if x > greatest { x } else { greatest },
        )
    })
}

/// Resamples with two pointers, as in textbooks.
fn walk(
    cumulative: &[f64],
    first: usize,
    positions: impl Iterator<Item = f64>,
    ancestors: &mut [u64],
) {
    let mut particle = first;
    for (ancestor, position) in ancestors.iter_mut().zip(positions) {
        while particle + 1 < cumulative.len() && cumulative[particle] <= position {
            particle += 1;
        }
        *ancestor = particle as u64;
    }
}

fn exponentials(stream: usize, count: usize) -> impl Iterator<Item = f64> {
    let mut rng = TileRng::seed_from_u64(7);
    rng.set_stream(stream as u64);
    (0..count).map(move |_| -(((rng.next_u64() >> 11) + 1) as f64 * (-53f64).exp2()).ln())
}
