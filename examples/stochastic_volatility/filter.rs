//! The bootstrap filter: the part that is common to the pool and the plain reference.
//!
//! N. J. Gordon, D. J. Salmond and A. F. M. Smith, "Novel approach to nonlinear/non-Gaussian
//! Bayesian state estimation", IEE Proceedings F 140, 1993. Resamples only when the weights have
//! become uneven.

use crate::common::{Digest, Result};
use crate::model::{Draw, Model, Step};

/// A set of weighted particles with the operations of a filter.
pub trait Particles {
    /// Moves all particles and adds to their log-weights.
    fn move_and_weigh(&mut self, step: &Step) -> Result<()>;

    /// Computes the weights from the log-weights. Returns the logarithm of their sum.
    fn normalize(&mut self) -> Result<f64>;

    /// Returns the weighted means of x, x squared and exp(x / 2).
    fn moments(&mut self) -> Result<[f64; 3]>;

    /// Returns the effective number of particles.
    fn effective(&mut self) -> Result<f64>;

    /// Replaces the particles by offspring of equal weight, with log-weights of 0.
    fn resample(&mut self, offset: f64) -> Result<()>;

    /// Discards all weights.
    fn restart(&mut self) -> Result<()>;

    fn digest(&self) -> Result<Digest>;
}

/// Input of a filter, and its number of particles.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub model: Model,
    pub returns: &'a [f64],
    pub particles: usize,
    pub seed: u64,
}

/// Results of a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub log_likelihood: f64,
    /// For each day, given the returns up to it: mean and variance of the log-variance, and mean of
    /// the volatility.
    pub days: Vec<Filtered>,
    /// Number of days after which the particles were resampled.
    pub resampled: usize,
    /// Digest of the particles after the last day.
    pub digest: Digest,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filtered {
    pub mean: f64,
    pub variance: f64,
    pub volatility: f64,
}

/// Runs one filter, with the random numbers of `replicate`.
pub fn run(
    particles: &mut impl Particles,
    task: &Task<'_>,
    replicate: u64,
    mut progress: impl FnMut(),
) -> Result<Outcome> {
    let count = task.particles as f64;
    let mut outcome = Outcome {
        log_likelihood: 0.0,
        days: Vec::with_capacity(task.returns.len()),
        resampled: 0,
        digest: Digest::EMPTY,
    };
    particles.restart()?;
    let mut log_sum_before = count.ln();
    for (day, &observed) in task.returns.iter().enumerate() {
        let draw = Draw {
            seed: task.seed,
            replicate,
            step: day as u64,
        };
        particles.move_and_weigh(&Step {
            model: task.model,
            draw,
            observed,
        })?;
        // The mean of the densities with the previous weights estimates p(y[t] | y[..t]).
        let log_sum = particles.normalize()?;
        outcome.log_likelihood += log_sum - log_sum_before;
        log_sum_before = log_sum;
        let [mean, square, volatility] = particles.moments()?;
        outcome.days.push(Filtered {
            mean,
            variance: square - mean * mean,
            volatility,
        });
        if particles.effective()? < count / 2.0 {
            particles.resample(draw.grid_offset())?;
            log_sum_before = count.ln();
            outcome.resampled += 1;
        }
        progress();
    }
    outcome.digest = particles.digest()?;
    Ok(outcome)
}
