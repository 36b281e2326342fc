//! An epidemic on a map: susceptible, infected and recovered people in the cells of a torus.
//!
//! **The problem.** Each cell has 100 people (W. O. Kermack and A. G. McKendrick, "A contribution to
//! the mathematical theory of epidemics", 1927). Every day each susceptible meets the infected of
//! the 3 by 3 cells around its own, and each infected may recover. All of it is chance. The first
//! cases are in the middle of the map, and the epidemic runs outwards in a ring.
//!
//! **The role of ndshm.** Workers step blocks of cells. The infected are in two arrays, which take
//! turns: one is read with a halo, by `tile.around`, while the other is written. The random numbers
//! belong to the blocks, so the outcome is the same for any number of workers. The program checks
//! this with `Pool::serial`. It also checks that no person is lost, and that as many catch the
//! disease as the equation of the final size says.
//!
//! ```sh
//! cargo run --release --example epidemic -- --arrival arrival.npy --curve curve.npy
//! ndshm plot arrival.npy -o arrival.png       # and curve.npy: the people in each state, day by day
//! ```

#[path = "common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each example uses its own part")]
mod common;

use std::path::PathBuf;

use clap::Parser;
use ndarray::{Array2, Axis, Zip};
use ndshm::partition::Edge;
use ndshm::pool::TileRng;
use ndshm::{Grid, HandleTable, Pool, Segment};
use rand_distr::{Binomial, Distribution};

use common::{Crew, Digest, Result, count};

/// People in each cell.
const PEOPLE: u32 = 100;
/// Chance of an infected to recover within a day.
const RECOVERY: f64 = 0.25;

/// An epidemic on a torus of cells, which workers step block by block.
#[derive(Parser)]
#[command(name = "epidemic")]
struct Options {
    #[command(flatten)]
    crew: Crew,

    /// Number of cells along each axis
    #[arg(long, value_name = "N", default_value = "128", value_parser = cells)]
    size: usize,

    /// Rows and columns of a block
    #[arg(long, value_name = "N", default_value = "32", value_parser = block)]
    block: usize,

    /// Number of people that one infected infects among susceptibles
    #[arg(long, value_name = "R0", default_value_t = 2.0, value_parser = spread)]
    spread: f64,

    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Save the day on which the epidemic came to each cell
    #[arg(long, value_name = "FILE.npy")]
    arrival: Option<PathBuf>,

    /// Save the numbers of susceptible, infected and recovered people of each day
    #[arg(long, value_name = "FILE.npy")]
    curve: Option<PathBuf>,
}

/// On a smaller map chance moves the size of the epidemic away from the expected one.
fn cells(text: &str) -> std::result::Result<usize, String> {
    count(text, 32..=16_384)
}

fn block(text: &str) -> std::result::Result<usize, String> {
    count(text, 8..=16_384)
}

fn spread(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(spread) if (1.5..=20.0).contains(&spread) => Ok(spread),
        _ => Err("give a number from 1.5 to 20".into()),
    }
}

fn main() -> Result<()> {
    ndshm::become_worker();
    let options = Options::parse();
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = options.crew.start(&table)?;
    pool.set_seed(options.seed);
    let outcome = simulate(&table, &mut pool, &options)?;
    let [_, _, recovered] = outcome.curve.last().copied().unwrap_or_default();
    let share = recovered as f64 / (options.size * options.size * PEOPLE as usize) as f64;
    let peak = outcome.curve.iter().map(|&[_, infected, _]| infected).max();
    println!(
        "{0} by {0} cells, {1}, seed {2}: {3} days, at most {4} infected at once",
        options.size,
        options.crew.describe(&pool),
        options.seed,
        outcome.curve.len(),
        peak.unwrap_or(0),
    );

    let mut serial = Pool::builder().seed(options.seed).serial(&table)?;
    if simulate(&table, &mut serial, &options)? != outcome {
        return Err("the pool and the serial pool differ".into());
    }
    println!("digest {}, the same without workers", outcome.digest);

    if let Some(path) = &options.arrival {
        table.save_npy(table.from_array(&outcome.arrival)?, path)?;
    }
    if let Some(path) = &options.curve {
        let days = Array2::from(outcome.curve);
        table.save_npy(table.from_array(&days)?, path)?;
    }
    let expected = final_size(options.spread);
    println!(
        "{:.1} % caught the disease, {:.1} % expected",
        100.0 * share,
        100.0 * expected
    );
    match (share - expected).abs() < 0.02 {
        true => Ok(()),
        false => Err("the epidemic has another size than it should".into()),
    }
}

#[derive(PartialEq)]
struct Outcome {
    /// Susceptible, infected and recovered people after each day.
    curve: Vec<[u64; 3]>,
    /// Day on which each cell had its first case; 0 if it had none.
    arrival: Array2<u32>,
    digest: Digest,
}

/// Runs an epidemic to its end.
fn simulate(table: &HandleTable, pool: &mut Pool<'_>, options: &Options) -> Result<Outcome> {
    let shape = (options.size, options.size);
    let susceptible = table.owned(table.from_elem(shape, PEOPLE)?);
    let old = table.owned(table.zeros::<u32, _>(shape)?);
    let new = table.owned(table.zeros::<u32, _>(shape)?);
    let recovered = table.owned(table.zeros::<u32, _>(shape)?);
    let arrival = table.owned(table.zeros::<u32, _>(shape)?);
    let (s, r, first) = (susceptible.handle(), recovered.handle(), arrival.handle());
    let middle = [options.size / 2; 2];
    table.write(old.handle())?[middle] = 50;
    table.write(s)?[middle] -= 50;

    let blocks = Grid::blocks([(Axis(0), options.block), (Axis(1), options.block)]);
    let (old, new) = (old.handle(), new.handle());
    let way = |old: ndshm::Handle<u32, _>, new: ndshm::Handle<u32, _>| {
        let group = (
            s.write(),
            old.whole(),
            new.write(),
            r.write(),
            first.write(),
        );
        table.partition_by(group, &blocks)
    };
    let ways = [way(old, new)?, way(new, old)?];

    // The mean number of new cases that one infected causes each day in each susceptible around it.
    let risk = options.spread * RECOVERY / f64::from(9 * PEOPLE);
    let mut curve: Vec<[u64; 3]> = Vec::new();
    while curve.last().is_none_or(|&[_, infected, _]| infected > 0) {
        let day = curve.len() as u32 + 1;
        let counts = pool.map_reduce(
            &ways[curve.len() % 2],
            &(day, risk),
            |(mut s, old, mut new, mut r, mut first), &(day, risk), tile| {
                let old = tile.around(&old, [1, 1], Edge::Periodic);
                let old = old.expect("the map is wider than a cell").to_cow();
                let mut rng = tile.rng();
                let cells = Zip::from(&mut s).and(&mut new).and(&mut r).and(&mut first);
                cells
                    .and(old.windows((3, 3)))
                    .for_each(|s, new, r, first, near| {
                        let here = near[[1, 1]];
                        let caught =
                            some_of(*s, 1.0 - f64::exp(-risk * f64::from(near.sum())), &mut rng);
                        let healed = some_of(here, RECOVERY, &mut rng);
                        *s -= caught;
                        *new = here + caught - healed;
                        *r += healed;
                        if caught > 0 && *first == 0 {
                            *first = day;
                        }
                    });
                [&s, &new, &r].map(|people| people.iter().map(|&n| u64::from(n)).sum())
            },
            [0; 3],
            |a, b: [u64; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]],
        )?;
        curve.push(counts);
    }

    let (s, r, arrival) = (table.read(s)?, table.read(r)?, table.read(first)?);
    if Zip::from(&*s).and(&*r).any(|s, r| s + r != PEOPLE) {
        return Err("a cell has lost or won people".into());
    }
    let digest = Digest::of(s.iter().chain(&*arrival).map(|&n| u64::from(n)));
    let arrival = arrival.to_owned();
    Ok(Outcome {
        curve,
        arrival,
        digest,
    })
}

/// Draws the number of people of whom each one is chosen with a probability.
fn some_of(people: u32, probability: f64, rng: &mut TileRng) -> u32 {
    let chosen = Binomial::new(u64::from(people), probability).expect("it is from 0 to 1");
    chosen.sample(rng) as u32
}

/// Returns the share of people who catch a disease in the end: `z = 1 - exp(-R0 z)`.
fn final_size(spread: f64) -> f64 {
    (0..1000).fold(1.0, |z, _| 1.0 - f64::exp(-spread * z))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(workers: usize, changes: &[&str]) -> Outcome {
        let arguments = ["epidemic", "--size", "33", "--block", "10"];
        let options = Options::parse_from(arguments.iter().chain(changes));
        let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
        let pool = Pool::builder().seed(options.seed).workers(workers);
        simulate(&table, &mut pool.threads(&table).unwrap(), &options).unwrap()
    }

    #[test]
    fn the_number_of_workers_changes_nothing() {
        let one = run(1, &[]);
        assert!(one == run(3, &[]));
        assert!(one != run(1, &["--seed", "2"]));
    }

    #[test]
    fn people_are_counted_every_day_and_a_wave_starts_in_the_middle() {
        let outcome = run(2, &[]);
        let all = 33 * 33 * u64::from(PEOPLE);
        assert!(
            outcome
                .curve
                .iter()
                .all(|day| day.iter().sum::<u64>() == all)
        );
        let (middle, seam) = (outcome.arrival[[16, 16]], outcome.arrival[[0, 0]]);
        assert!(
            0 < middle && middle < 5 && middle + 10 < seam,
            "{middle}, {seam}"
        );
    }

    #[test]
    fn the_final_size_is_the_known_one() {
        // R0 = 2: 79.68 % (as in the table of any textbook).
        assert!((final_size(2.0) - 0.7968).abs() < 5e-5);
    }
}
