//! Reaction and diffusion on a torus: a lattice in two buffers.
//!
//! **The problem.** Two substances diffuse over a torus of cells and react (`gray_scott.rs`). From
//! a few disturbed patches grow dividing spots, rings and worms. In each step every cell reads the
//! previous state of itself and of its four neighbours.
//!
//! **The role of ndshm.** There are two states, each a pair of arrays in shared memory. A partition
//! reads one state as a whole, so a tile sees its neighbours wherever they are, and writes the
//! other tile by tile. A second partition leads back. No halo is sent: `TileContext::around` finds
//! a tile's cells and their neighbours, as a view, or as a copy at the seam. A step takes a
//! fraction of a millisecond, so the workers run the loop over steps themselves, with a barrier between steps
//! (`Pool::run`), and the parent updates a progress bar after every hundred.
//!
//! ```sh
//! cargo run --release --example lattice -- --image pattern.ppm
//! cargo run --release --example lattice -- --feed 0.046 --kill 0.061 --steps 20_000
//! ```
//!
//! Other pairs of rates and their patterns: R. Munafo, mrob.com/pub/comp/xmorphia.

#[path = "../common/mod.rs"]
mod common;
mod gray_scott;
mod pattern;
mod shared;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ndshm::{HandleTable, Pool, Segment};

use common::{Bar, Crew, Digest, Result, count};
use gray_scott::Rates;
use shared::Lattice;

/// Reaction and diffusion on a torus, after Gray and Scott: workers step tiles from one buffer in
/// shared memory to another and back.
#[derive(Debug, Parser)]
#[command(name = "lattice")]
struct Options {
    #[command(flatten)]
    crew: Crew,

    /// Number of cells along each axis; underscores are allowed
    #[arg(long, value_name = "N", default_value = "512", value_parser = size)]
    size: usize,

    /// Number of steps of time 1
    #[arg(long, value_name = "N", default_value = "10_000", value_parser = steps)]
    steps: usize,

    /// Rows and columns of a tile
    #[arg(long, value_name = "N", default_value = "128", value_parser = size)]
    tile: usize,

    /// Feed rate F of U
    #[arg(long, value_name = "RATE", default_value_t = 0.034, value_parser = rate)]
    feed: f32,

    /// Rate k at which V decays in addition to F
    #[arg(long, value_name = "RATE", default_value_t = 0.063, value_parser = rate)]
    kill: f32,

    /// Seed of the first state
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// File for the image of the last state, a PPM [default: beside the program]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

fn size(text: &str) -> std::result::Result<usize, String> {
    count(text, 4..=65_536)
}

fn steps(text: &str) -> std::result::Result<usize, String> {
    count(text, 1..=1_000_000_000)
}

fn rate(text: &str) -> std::result::Result<f32, String> {
    match text.parse() {
        Ok(rate) if (0.0..=0.25).contains(&rate) => Ok(rate),
        _ => Err("give a rate from 0 to 0.25".into()),
    }
}

/// Number of steps in a call; the parent shows the progress after each call.
const STRETCH: usize = 100;

fn main() -> ExitCode {
    ndshm::become_worker();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lattice: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let image = match &options.image {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_extension("ppm"),
    };
    let image_error = |error: std::io::Error| {
        let path = image.display();
        format!("cannot write the image to {path}: {error}; give another place with --image FILE")
    };
    // Create the file first: a wrong path should fail now, not at the end.
    let mut image_file = File::create(&image).map_err(image_error)?;
    let rates = Rates {
        feed: options.feed,
        kill: options.kill,
    };

    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = options.crew.start(&table)?;
    compare_with_plain(&table, &mut pool, rates, options.seed)?;

    let shape = (options.size, options.size);
    let mut lattice = Lattice::new(&table, &mut pool, shape, options.tile, rates, options.seed)?;
    let seconds = advance(&mut lattice, &mut pool, options.steps)?;

    let (now, before) = (lattice.now()?, lattice.before()?);
    let surplus = gray_scott::surplus(rates, before.torus(), now.torus());
    let pattern = now.v.iter().filter(|&&v| v > pattern::SPOT).count();
    let cells = (options.size * options.size) as f64;
    let updates = cells * options.steps as f64;
    image_file
        .write_all(&pattern::ppm(now.v.view()))
        .map_err(image_error)?;
    println!(
        "{0} by {0} cells in {1} tiles, {2} steps, F = {3}, k = {4}, {5}, seed {6}\n",
        options.size,
        lattice.tiles(),
        options.steps,
        options.feed,
        options.kill,
        options.crew.describe(&pool),
        options.seed
    );
    println!(
        "pattern    {} spots, {:.1} % of the cells",
        pattern::spots(now.v.view()),
        pattern as f64 / cells * 100.0
    );
    println!("balance    {surplus:.1e} surplus per cell and step (rounding: below 1e-7)");
    println!(
        "reference  {} steps of {} by {} cells: equal to the last bit",
        CHECK.2, CHECK.0, CHECK.1
    );
    println!(
        "time       {seconds:.2} s, {:.1} us a step, {:.0} million cells/s",
        seconds / options.steps as f64 * 1e6,
        updates / seconds / 1e6
    );
    println!("digest     {}", digest(&lattice)?);
    println!("image      {}", image.display());
    // No range contains NaN.
    if !(0.0..=1e-7).contains(&surplus.abs()) {
        return Err("substances appear or vanish: the balance is not that of the model".into());
    }
    Ok(())
}

/// Takes all steps. Returns the elapsed seconds.
fn advance(lattice: &mut Lattice<'_>, pool: &mut Pool<'_>, steps: usize) -> Result<f64> {
    let bar = Bar::new(steps);
    let start = Instant::now();
    for done in (0..steps).step_by(STRETCH) {
        lattice.advance(pool, STRETCH.min(steps - done) as u64)?;
        bar.show(done + STRETCH);
    }
    bar.clear();
    Ok(start.elapsed().as_secs_f64())
}

fn digest(lattice: &Lattice<'_>) -> Result<Digest> {
    let now = lattice.now()?;
    let cells = now.u.iter().zip(now.v.iter());
    Ok(Digest::of(cells.map(|(u, v)| {
        u64::from(u.to_bits()) << 32 | u64::from(v.to_bits())
    })))
}

/// Height, width and steps of the comparison. The last tile is shorter than `CHECK_TILE`.
const CHECK: (usize, usize, usize) = (96, 80, 200);
const CHECK_TILE: usize = 7;

/// Steps a small torus on the workers and in the simplest way. Both must end with the same bits.
fn compare_with_plain(
    table: &HandleTable,
    pool: &mut Pool<'_>,
    rates: Rates,
    seed: u64,
) -> Result<()> {
    let (height, width, steps) = CHECK;
    let mut lattice = Lattice::new(table, pool, (height, width), CHECK_TILE, rates, seed)?;
    let start = lattice.now()?;
    let [mut u, mut v] = [start.u.to_owned(), start.v.to_owned()];
    // End the lease: otherwise a round that writes the buffer would be refused.
    drop(start);
    for _ in 0..steps {
        [u, v] = gray_scott::advance_plainly(rates, &u, &v);
    }
    lattice.advance(pool, steps as u64)?;
    let end = lattice.now()?;
    let differ = |a: &f32, b: &f32| a.to_bits() != b.to_bits();
    let wrong = |plain: &ndarray::Array2<f32>, found: ndarray::ArrayView2<'_, f32>| {
        plain
            .iter()
            .zip(found)
            .filter(|(a, b)| differ(a, b))
            .count()
    };
    match wrong(&u, end.u.view()) + wrong(&v, end.v.view()) {
        0 => Ok(()),
        wrong => Err(format!("{wrong} concentrations differ from the plain reference").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        feed: 0.034,
        kill: 0.063,
    };

    #[test]
    fn workers_agree_with_the_plain_reference() {
        let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
        let mut pool = Pool::threads(&table, 3).unwrap();
        compare_with_plain(&table, &mut pool, RATES, 5).unwrap();
    }

    #[test]
    fn neither_workers_nor_tiles_nor_stretches_change_a_bit() {
        let run = |workers, tile, seed, stretches: &[u64]| {
            let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
            let mut pool = Pool::threads(&table, workers).unwrap();
            let shape = (70, 90);
            let mut lattice = Lattice::new(&table, &mut pool, shape, tile, RATES, seed).unwrap();
            for &steps in stretches {
                lattice.advance(&mut pool, steps).unwrap();
            }
            digest(&lattice).unwrap()
        };
        let expected = run(1, 70, 1, &[25]);
        assert_eq!(run(2, 16, 1, &[25]), expected);
        assert_eq!(run(4, 5, 1, &[1, 20, 3, 1]), expected);
        assert_ne!(run(2, 16, 2, &[25]), expected);
        assert_ne!(run(2, 16, 1, &[24]), expected);
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for arguments in [
            ["--size", "3"],
            ["--feed", "-1"],
            ["--kill", "NaN"],
            ["--steps", "0"],
        ] {
            let all = ["lattice"].into_iter().chain(arguments);
            assert!(Options::try_parse_from(all).is_err(), "{arguments:?}");
        }
    }
}
