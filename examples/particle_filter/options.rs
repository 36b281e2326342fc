//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::model::{Model, NILE};

/// A bootstrap particle filter whose particles live in shared memory.
///
/// Forked workers move, weigh and resample the particles in place. The result is compared with the
/// exact Kalman filter, and the time with the same filter in one process, on threads, and on
/// workers that receive copies.
#[derive(Debug, Parser)]
#[command(name = "particle_filter")]
pub struct Options {
    /// Number of worker processes, and of threads in that variant [default: one per processor]
    #[arg(long, value_name = "N", value_parser = workers)]
    pub workers: Option<usize>,

    /// Number of particles; underscores are allowed
    #[arg(long, value_name = "N", default_value = "1_000_000", value_parser = particles)]
    pub particles: usize,

    /// Seed of all random numbers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// File of observations, one number per line [default: the Nile at Aswan, 1871 to 1970]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,

    /// Variance of the level's yearly change
    #[arg(long, value_name = "V", default_value_t = NILE.state_var, value_parser = variance)]
    pub state_var: f64,

    /// Variance of an observation around the level
    #[arg(long, value_name = "V", default_value_t = NILE.obs_var, value_parser = variance)]
    pub obs_var: f64,

    /// Mean of the first level before anything is observed
    #[arg(long, value_name = "M", default_value_t = NILE.prior_mean, value_parser = finite)]
    #[arg(allow_negative_numbers = true)]
    pub prior_mean: f64,

    /// Variance of the first level before anything is observed
    #[arg(long, value_name = "V", default_value_t = NILE.prior_var, value_parser = variance)]
    pub prior_var: f64,

    /// File for the plot, an SVG [default: beside the program]
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Run only the forked workers, without the variants for comparison
    #[arg(long)]
    pub no_compare: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,

    /// Serve as a worker that receives copies.
    #[arg(long, hide = true)]
    pub copy_worker: bool,
}

impl Options {
    pub fn model(&self) -> Model {
        Model {
            state_var: self.state_var,
            obs_var: self.obs_var,
            prior_mean: self.prior_mean,
            prior_var: self.prior_var,
        }
    }

    pub fn workers(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, |n| n.get());
        self.workers.unwrap_or_else(processors)
    }
}

fn count(text: &str, limit: usize) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(n) if (1..=limit).contains(&n) => Ok(n),
        _ => Err(format!("give a whole number from 1 to {limit}")),
    }
}

fn workers(text: &str) -> Result<usize, String> {
    count(text, 128)
}

fn particles(text: &str) -> Result<usize, String> {
    count(text, 10_000_000_000)
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("give a finite number".into()),
    }
}

fn variance(text: &str) -> Result<f64, String> {
    match finite(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("a variance is a finite number above 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_nile_with_a_million_particles() {
        let options = Options::parse_from(["particle_filter"]);
        assert_eq!(options.particles, 1_000_000);
        assert_eq!(options.model(), NILE);
        assert!(options.workers() >= 1);
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for arguments in [
            ["--particles", "0"],
            ["--workers", "129"],
            ["--obs-var", "-1"],
            ["--state-var", "inf"],
        ] {
            let all = ["particle_filter"].into_iter().chain(arguments);
            assert!(Options::try_parse_from(all).is_err(), "{arguments:?}");
        }
    }
}
