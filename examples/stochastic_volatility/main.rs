//! Estimates the volatility of a series of returns by a bootstrap particle filter of primitives.
//!
//! **The problem.** The variance of a day's return changes from day to day and is never observed.
//! Given a model of it (`model.rs`) and the returns up to a day, we want the volatility of that
//! day, and the likelihood of the returns, by which parameters are estimated. There is no formula
//! for either. A cloud of particles represents the distribution of the log-variance: it is moved,
//! weighed against the return, and resampled (`filter.rs`).
//!
//! **The role of ndshm.** The particles are arrays in shared memory. A kernel of this program moves
//! them; everything else is a call of the pool (`shared.rs`): `normalize_log_weights`,
//! `effective_sample_size`, `resample_systematic`, `gather`, `fill`, and for the report `mean`,
//! `variance` and `log_sum_exp`. Their results are equal to the last bit for any number of workers.
//!
//! ```sh
//! cargo run --release --example stochastic_volatility
//! cargo run --release --example stochastic_volatility -- --particles 500_000 --seeds 2
//! ```
//!
//! The days are simulated, so the truth is known. The filter of the first seed runs again in the
//! simplest way (`plain.rs`), with the same random numbers, and must agree.

#[path = "../common/mod.rs"]
mod common;
mod filter;
mod model;
mod plain;
mod report;
mod shared;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use ndarray::ArrayView1;
use ndshm::{HandleTable, Pool, Segment};

use common::{Bar, Crew, Digest, Result, count};
use filter::{Outcome, Task};
use model::Model;
use plain::Plain;
use report::Report;
use shared::Shared;

/// Approximate estimates of S. Kim, N. Shephard and S. Chib, "Stochastic volatility: likelihood
/// inference and comparison with ARCH models", Review of Economic Studies 65, 1998, for the daily
/// returns of the pound in dollars from 1981 to 1985, in per cent: exp(mu / 2) is 0.647.
const POUND: Model = Model {
    mu: -0.87,
    phi: 0.978,
    sigma: 0.158,
};

/// A particle filter for stochastic volatility, made of the pool's primitives, on simulated days.
#[derive(Debug, Parser)]
#[command(name = "stochastic_volatility")]
struct Options {
    #[command(flatten)]
    crew: Crew,

    /// Number of particles; underscores are allowed
    #[arg(long, value_name = "N", default_value = "32_768", value_parser = particles)]
    particles: usize,

    /// Number of days that are simulated and filtered
    #[arg(long, value_name = "N", default_value = "945", value_parser = days)]
    days: usize,

    /// Number of filters with different random numbers, for the Monte Carlo error
    #[arg(long, value_name = "N", default_value = "4", value_parser = seeds)]
    seeds: usize,

    /// Seed of all random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Mean of the log-variance
    #[arg(long, default_value_t = POUND.mu, value_parser = mu, allow_negative_numbers = true)]
    mu: f64,

    /// Share of the log-variance's deviation from its mean that remains on the next day
    #[arg(long, default_value_t = POUND.phi, value_parser = phi, allow_negative_numbers = true)]
    phi: f64,

    /// Standard deviation of the daily innovation of the log-variance
    #[arg(long, default_value_t = POUND.sigma, value_parser = sigma)]
    sigma: f64,
}

fn particles(text: &str) -> std::result::Result<usize, String> {
    count(text, 2..=10_000_000_000)
}

fn days(text: &str) -> std::result::Result<usize, String> {
    count(text, 1..=1_000_000)
}

fn seeds(text: &str) -> std::result::Result<usize, String> {
    count(text, 2..=10_000)
}

fn number(
    text: &str,
    is_good: impl Fn(f64) -> bool,
    good: &str,
) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if is_good(number) => Ok(number),
        _ => Err(format!("give a number {good}")),
    }
}

fn mu(text: &str) -> std::result::Result<f64, String> {
    number(text, |mu| mu.abs() <= 20.0, "from -20 to 20")
}

fn phi(text: &str) -> std::result::Result<f64, String> {
    number(text, |phi| phi.abs() < 1.0, "between -1 and 1")
}

fn sigma(text: &str) -> std::result::Result<f64, String> {
    number(
        text,
        |sigma| sigma > 0.0 && sigma <= 10.0,
        "above 0, at most 10",
    )
}

fn main() -> ExitCode {
    ndshm::become_worker();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stochastic_volatility: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let model = Model {
        mu: options.mu,
        phi: options.phi,
        sigma: options.sigma,
    };
    let days = model::simulate(&model, options.days, options.seed);
    let task = Task {
        model,
        returns: &days.returns,
        particles: options.particles,
        seed: options.seed,
    };
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let mut pool = options.crew.start(&table)?;
    let found = filter_all(&table, &mut pool, &task, options.seeds)?;
    let report = Report {
        task,
        truth: &days.log_variances,
        workers: options.crew.describe(&pool),
        found,
    };
    print!("{}", report.text());
    report.check()
}

/// Results of all filters.
#[derive(Debug)]
pub struct Found {
    /// Results on the pool, one seed each.
    outcomes: Vec<Outcome>,
    /// Result of the plain reference, with the first seed.
    plain: Outcome,
    /// Mean and standard deviation of the filters' log-likelihoods, and the logarithm of the mean
    /// likelihood, which is the unbiased estimate of all filters together.
    log_likelihood: [f64; 3],
    /// Times of all filters on the pool, and of the plain one.
    times: [Duration; 2],
    digest: Digest,
}

fn filter_all<'t>(
    table: &'t HandleTable,
    pool: &mut Pool<'t>,
    task: &Task<'_>,
    seeds: usize,
) -> Result<Found> {
    let bar = Bar::new((seeds + 1) * task.returns.len());
    let mut done = 0;
    let mut progress = || {
        done += 1;
        bar.show(done);
    };
    let start = Instant::now();
    let mut particles = Shared::new(table, pool, task.particles)?;
    let outcomes = (0..seeds as u64)
        .map(|replicate| filter::run(&mut particles, task, replicate, &mut progress))
        .collect::<Result<Vec<Outcome>>>()?;
    drop(particles);
    let on_pool = start.elapsed();

    let start = Instant::now();
    let plain = filter::run(&mut Plain::new(task.particles), task, 0, &mut progress)?;
    let alone = start.elapsed();
    bar.clear();

    let values: Vec<f64> = outcomes
        .iter()
        .map(|outcome| outcome.log_likelihood)
        .collect();
    let shared = table.owned(table.from_array(&ArrayView1::from(&values))?);
    Ok(Found {
        log_likelihood: [
            pool.mean(shared.handle())?,
            pool.variance(shared.handle(), 1)?.sqrt(),
            pool.log_sum_exp(shared.handle())? - (seeds as f64).ln(),
        ],
        digest: Digest::of(
            outcomes
                .iter()
                .flat_map(|outcome| [outcome.digest.0, outcome.log_likelihood.to_bits()]),
        ),
        outcomes,
        plain,
        times: [on_pool, alone],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(workers: usize, model: Model, returns: &[f64]) -> Found {
        let task = Task {
            model,
            returns,
            particles: 2 * model::TILE + 77,
            seed: 3,
        };
        let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
        let mut pool = Pool::threads(&table, workers).unwrap();
        filter_all(&table, &mut pool, &task, 2).unwrap()
    }

    #[test]
    fn workers_change_no_bit_and_the_plain_filter_agrees() {
        let days = model::simulate(&POUND, 40, 2);
        let expected = found(1, POUND, &days.returns);
        for workers in [2, 4] {
            let other = found(workers, POUND, &days.returns);
            assert_eq!(other.outcomes, expected.outcomes, "{workers} workers");
            assert_eq!(other.digest, expected.digest);
        }
        let (first, plain) = (&expected.outcomes[0], &expected.plain);
        assert!(first.resampled > 0 && first.resampled == plain.resampled);
        assert!((first.log_likelihood - plain.log_likelihood).abs() < 1e-9);
        assert_ne!(first.log_likelihood, expected.outcomes[1].log_likelihood);
    }

    #[test]
    fn without_news_the_returns_are_independent_and_normal() {
        let model = Model {
            sigma: 1e-9,
            ..POUND
        };
        let returns = [0.3, -1.2, 0.0, 2.5];
        let found = found(2, model, &returns);
        let variance = model.mu.exp();
        let density = |y: &f64| -0.5 * ((std::f64::consts::TAU * variance).ln() + y * y / variance);
        let exact: f64 = returns.iter().map(density).sum();
        for outcome in &found.outcomes {
            assert!((outcome.log_likelihood - exact).abs() < 1e-6);
            for day in &outcome.days {
                assert!((day.volatility - variance.sqrt()).abs() < 1e-6);
            }
        }
        let [mean, _, together] = found.log_likelihood;
        assert!((mean - exact).abs() < 1e-6 && (together - exact).abs() < 1e-6);
    }

    /// Checks a model without memory: each return has the same density, an integral over its
    /// log-variance.
    #[test]
    fn without_memory_the_likelihood_is_a_product_of_integrals() {
        let model = Model {
            mu: -0.87,
            phi: 0.0,
            sigma: 2.0,
        };
        let returns = model::simulate(&model, 30, 4).returns;
        let normal = |z: f64, variance: f64| {
            (-0.5 * z * z / variance).exp() / (std::f64::consts::TAU * variance).sqrt()
        };
        let width = 0.01;
        let log_density = |&y: &f64| {
            let nodes = (-1600..=1600).map(|node| model.mu + f64::from(node) * width);
            let terms = nodes.map(|x| normal(y, x.exp()) * normal(x - model.mu, 4.0));
            (width * terms.sum::<f64>()).ln()
        };
        let exact: f64 = returns.iter().map(log_density).sum();
        let found = found(2, model, &returns);
        for outcome in &found.outcomes {
            assert!(outcome.resampled > 0);
            // The errors of a dozen filters have a root mean square of 0.06.
            let off = outcome.log_likelihood - exact;
            assert!(off.abs() < 0.3, "{off}");
        }
    }

    #[test]
    fn senseless_numbers_are_refused() {
        let parse = |arguments: &[&str]| {
            Options::try_parse_from([&["stochastic_volatility"], arguments].concat())
        };
        for arguments in [
            ["--phi", "1"],
            ["--sigma", "0"],
            ["--mu", "NaN"],
            ["--seeds", "1"],
            ["--particles", "1"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
        assert_eq!(parse(&["--phi", "-0.5"]).unwrap().phi, -0.5);
    }
}
