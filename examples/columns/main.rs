//! Signatures for similarity search: many workers fill the columns of one large matrix.
//!
//! **The problem.** 20,000 samples get a signature of 4,096 bits each: bit `j` is set if the sample
//! lies on the upper side of random hyperplane `j`. The number of bits in which two signatures
//! differ estimates the angle between the samples (`simhash.rs`). A hyperplane is drawn once and
//! used for all samples, so the work is divided by columns. Queries of the matrix afterwards, such
//! as the samples that resemble a given one, are divided by rows.
//!
//! **The role of ndshm.** The matrix is one array in shared memory. One partition divides it by
//! columns: each worker writes slices of all rows. Another partition divides the same array by
//! rows. Nothing is sent, gathered or transposed in between.
//!
//! ```sh
//! cargo run --release --example columns
//! cargo run --release --example columns -- --samples 50_000 --workers 4 --backend spawn
//! ```

#[path = "../common/mod.rs"]
mod common;
mod report;
mod simhash;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ndarray::{ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Ix2};
use ndshm::bytemuck::{self, Pod, Zeroable};
use ndshm::{Handle, HandleTable, Pool, Segment, TileContext};
use rand_distr::{Distribution, StandardNormal};

use common::{Bar, Crew, Digest, Result, count};
use report::Found;
use simhash::DIMENSIONS;

/// Signatures for similarity search: a matrix of bits, written by columns and read by rows.
#[derive(Debug, Parser)]
#[command(name = "columns")]
struct Options {
    #[command(flatten)]
    crew: Crew,

    /// Number of samples, the rows of the matrix; underscores are allowed
    #[arg(long, value_name = "N", default_value = "20_000", value_parser = samples)]
    samples: usize,

    /// Bits of a signature, the columns of the matrix
    #[arg(long, value_name = "N", default_value = "4_096", value_parser = columns)]
    columns: usize,

    /// Columns of a tile; 64 bits fill a cache line, which then has one writer
    #[arg(long, value_name = "N", default_value = "64", value_parser = columns)]
    tile: usize,

    /// Seed of all random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn samples(text: &str) -> std::result::Result<usize, String> {
    count(text, 2..=100_000_000)
}

fn columns(text: &str) -> std::result::Result<usize, String> {
    count(text, 1..=1_000_000)
}

/// Rows of a tile in the partitions by rows.
const ROWS: usize = 256;

/// Number of columns that this process computes again in the simplest way.
const CHECKED: usize = 8;

/// Results of a row. `distance` is the measure of similarity to the first sample.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Row {
    /// Angle to the first sample.
    angle: f64,
    /// Digest of the signature.
    digest: u64,
    /// Number of set bits.
    ones: u32,
    /// Number of bits that differ from those of the first sample.
    distance: u32,
}

ndshm::record!(Row {
    angle: f64,
    digest: u64,
    ones: u32,
    distance: u32,
});

fn main() -> ExitCode {
    ndshm::become_worker();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("columns: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = options.crew.start(&table)?;
    let found = fill_and_look(&table, &mut pool, options)?;
    println!(
        "{} samples of {DIMENSIONS} coordinates, signatures of {} bits, {}, seed {}\n",
        options.samples,
        options.columns,
        options.crew.describe(&pool),
        options.seed
    );
    found.report(options);
    found.check(options)
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    seed: u64,
    workers: u64,
    bar: Bar,
}

fn fill_and_look(table: &HandleTable, pool: &mut Pool<'_>, options: &Options) -> Result<Found> {
    pool.set_seed(options.seed);
    let samples = table.zeros::<f32, _>((options.samples, DIMENSIONS))?;
    let by_rows = table.partition(samples.write(), Axis(0), ROWS)?;
    pool.for_each(&by_rows, &(), draw)?;

    let bits = table.zeros::<bool, _>((options.samples, options.columns))?;
    let by_columns = table.partition((bits.write(), samples.whole()), Axis(1), options.tile)?;
    let params = Params {
        seed: options.seed,
        workers: pool.workers() as u64,
        bar: Bar::new(by_columns.tiles()),
    };
    let start = Instant::now();
    let ones = pool.map_collect(&by_columns, &params, fill)?;
    let columns_time = start.elapsed();
    params.bar.clear();

    let rows = table.zeros::<Row, _>(options.samples)?;
    let first = table.from_array(&table.read(bits)?.row(0))?;
    let sample = table.from_array(&table.read(samples)?.row(0))?;
    let group = (
        bits.read(),
        samples.read(),
        first.whole(),
        sample.whole(),
        rows.write(),
    );
    let by_rows = table.partition(group, Axis(0), ROWS)?;
    let start = Instant::now();
    pool.for_each(&by_rows, &(), look)?;
    let rows_time = start.elapsed();

    let rows = table.read(rows)?;
    let others = || rows.iter().enumerate().skip(1);
    let (nearest, row) = others()
        .min_by_key(|(_, row)| row.distance)
        .ok_or("there are no other samples than the first")?;
    let squares = others()
        .map(|(_, row)| simhash::deviation(row.distance, row.angle, options.columns).powi(2));
    Ok(Found {
        ones: [
            ones.iter().sum(),
            rows.iter().map(|row| u64::from(row.ones)).sum(),
        ],
        deviation: off_one_half(&ones, options),
        spread: squares.sum::<f64>() / (options.samples - 1) as f64,
        nearest: (
            nearest,
            row.angle,
            std::f64::consts::PI * f64::from(row.distance) / options.columns as f64,
        ),
        wrong_columns: wrong_columns(table, samples, bits, options)?,
        digest: Digest::of(rows.iter().map(|row| row.digest)),
        by_columns: columns_time,
        by_rows: rows_time,
    })
}

/// Draws samples with standard normal coordinates, each tile from its own stream.
fn draw(mut samples: ArrayViewMut2<'_, f32>, (): &(), tile: &TileContext) {
    let mut rng = tile.rng();
    samples.mapv_inplace(|_| StandardNormal.sample(&mut rng));
}

/// Writes the bits of the tile's columns. Returns the number of set bits.
fn fill(
    (bits, samples): (ArrayViewMut2<'_, bool>, ArrayView2<'_, f32>),
    params: &Params,
    tile: &TileContext,
) -> u64 {
    let ones = simhash::sign(samples, tile.range(), params.seed, bits);
    if tile.worker() == 0 {
        // Workers begin with stretches of equally many tiles, so the progress of the first worker
        // is about that of the others.
        params
            .bar
            .show((tile.index() + 1) * params.workers as usize);
    }
    ones
}

type Looked<'a> = (
    ArrayView2<'a, bool>,
    ArrayView2<'a, f32>,
    ArrayView1<'a, bool>,
    ArrayView1<'a, f32>,
    ArrayViewMut1<'a, Row>,
);

/// Compares the tile's rows with the first row.
fn look((bits, samples, first, sample, rows): Looked<'_>, (): &(), _: &TileContext) {
    let first = first.as_slice().expect("a signature is contiguous");
    for ((bits, other), row) in bits.rows().into_iter().zip(samples.rows()).zip(rows) {
        let bits = bits.as_slice().expect("a row's bits are neighbours");
        *row = Row {
            angle: simhash::angle(sample, other),
            digest: Digest::of(words(bits)).0,
            ones: words(bits).map(u64::count_ones).sum(),
            distance: words(bits)
                .zip(words(first))
                .map(|(a, b)| (a ^ b).count_ones())
                .sum(),
        };
    }
}

/// Packs eight bits at a time into a word, one per byte.
fn words(bits: &[bool]) -> impl Iterator<Item = u64> {
    bits.chunks(8).map(|bits| {
        let mut word = [0; 8];
        word[..bits.len()].copy_from_slice(bytemuck::cast_slice(bits));
        u64::from_le_bytes(word)
    })
}

/// Returns the difference of the number of ones from one half of all bits, in standard errors.
///
/// A hyperplane and its opposite are equally likely, so the expected share is one half. The bits
/// of a column are correlated and the columns are not, so the variance comes from the tiles.
fn off_one_half(ones: &[u64], options: &Options) -> f64 {
    let half = options.samples as f64 / 2.0;
    let widths = (0..options.columns)
        .step_by(options.tile)
        .map(|start| options.tile.min(options.columns - start) as f64);
    let off = ones
        .iter()
        .zip(widths)
        .map(|(&ones, width)| ones as f64 - width * half);
    let (sum, squares) = off.fold((0.0, 0.0), |(sum, squares), off| {
        (sum + off, squares + off * off)
    });
    sum / f64::sqrt(squares)
}

/// Computes some columns again. Returns the number of those that differ from the matrix.
fn wrong_columns(
    table: &HandleTable,
    samples: Handle<f32, Ix2>,
    bits: Handle<bool, Ix2>,
    options: &Options,
) -> Result<usize> {
    let (samples, bits) = (table.read(samples)?, table.read(bits)?);
    let is_wrong = |&column: &usize| {
        let normal = simhash::hyperplane(options.seed, column);
        let mut pairs = samples.rows().into_iter().zip(bits.column(column));
        pairs.any(|(sample, &bit)| simhash::sign_of(sample, &normal) != bit)
    };
    let step = (options.columns / CHECKED).max(1);
    Ok((0..options.columns).step_by(step).filter(is_wrong).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        Options::parse_from([&["columns"], arguments].concat())
    }

    fn found(workers: usize, arguments: &[&str]) -> Found {
        let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
        let mut pool = Pool::threads(&table, workers).unwrap();
        fill_and_look(&table, &mut pool, &options(arguments)).unwrap()
    }

    #[test]
    fn neither_workers_nor_tiles_change_a_bit() {
        let small = ["--samples", "600", "--columns", "333"];
        let expected = found(1, &small);
        expected.check(&options(&small)).unwrap();
        for (workers, tile) in [(2, "64"), (4, "7"), (3, "333")] {
            let other = found(workers, &[&small[..], &["--tile", tile]].concat());
            assert_eq!(
                other.digest, expected.digest,
                "{workers} workers, tiles of {tile}"
            );
            assert_eq!(other.nearest, expected.nearest);
        }
        let reseeded = found(2, &[&small[..], &["--seed", "2"]].concat());
        assert_ne!(reseeded.digest, expected.digest);
    }

    #[test]
    fn words_take_all_bits() {
        let bits: Vec<bool> = (0..19).map(|at| at % 3 == 0).collect();
        assert_eq!(words(&bits).map(u64::count_ones).sum::<u32>(), 7);
        assert_eq!(words(&bits).count(), 3);
    }

    #[test]
    fn a_share_of_one_half_is_recognised() {
        let options = options(&["--samples", "10", "--columns", "5", "--tile", "2"]);
        // The expected numbers are 10, 10 and 5.
        assert_eq!(off_one_half(&[11, 9, 5], &options), 0.0);
        assert_eq!(off_one_half(&[13, 14, 5], &options), 7.0 / 5.0);
    }
}
