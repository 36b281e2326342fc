//! The stochastic volatility model, data simulated from it, and the move of one tile of particles.
//!
//! ```text
//! x[t] = mu + phi (x[t-1] - mu) + sigma eps[t]      log-variance of a day's return, hidden
//! y[t] = exp(x[t] / 2) eta[t]                       the return in per cent, observed
//! ```
//!
//! with independent standard normal eps and eta, and x[0] from the stationary distribution.

use std::f64::consts::TAU;

use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::pool::TileRng;
use rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// Particles in a tile. Each tile has its own stream in each step.
pub const TILE: usize = 4096;

/// Parameters of the model.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Model {
    pub mu: f64,
    pub phi: f64,
    pub sigma: f64,
}

impl Model {
    /// Returns the standard deviation of the stationary distribution of the log-variance.
    pub fn stationary_deviation(&self) -> f64 {
        self.sigma / (1.0 - self.phi * self.phi).sqrt()
    }
}

/// Seed of random numbers. Different replicates and steps are independent.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Draw {
    pub seed: u64,
    pub replicate: u64,
    pub step: u64,
}

impl Draw {
    fn stream(&self, stream: u64) -> TileRng {
        let mut key = [0; 32];
        let words = [self.seed, self.replicate, self.step];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut rng = TileRng::from_seed(key);
        rng.set_stream(stream);
        rng
    }

    /// Returns the offset of the grid of a systematic resampling, in [0, 1).
    pub fn grid_offset(&self) -> f64 {
        // No tile has this index.
        (self.stream(u64::MAX).next_u64() >> 11) as f64 * (-53f64).exp2()
    }
}

/// Parameters with which a worker moves particles by one step.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Step {
    pub model: Model,
    pub draw: Draw,
    /// Observed return.
    pub observed: f64,
}

/// Moves the particles of tile number `tile`, and adds the log-density of the observation to their
/// log-weights.
pub fn move_and_weigh(step: &Step, tile: usize, x: &mut [f64], log_weights: &mut [f64]) {
    let Model { mu, phi, sigma } = step.model;
    let (keep, spread) = match step.draw.step {
        0 => (0.0, step.model.stationary_deviation()),
        _ => (phi, sigma),
    };
    let square = step.observed * step.observed;
    let mut rng = step.draw.stream(tile as u64);
    for (x, log_weight) in x.iter_mut().zip(log_weights) {
        let noise: f64 = StandardNormal.sample(&mut rng);
        *x = mu + keep * (*x - mu) + spread * noise;
        *log_weight -= 0.5 * (TAU.ln() + *x + square * (-*x).exp());
    }
}

/// Observed returns, and the true log-variances.
#[derive(Debug)]
pub struct Days {
    pub returns: Vec<f64>,
    pub log_variances: Vec<f64>,
}

/// Draws days from the model.
pub fn simulate(model: &Model, days: usize, seed: u64) -> Days {
    // No filter has this replicate.
    let draw = Draw {
        seed,
        replicate: u64::MAX,
        step: 0,
    };
    let mut rng = draw.stream(0);
    let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
    let mut x = model.mu + model.stationary_deviation() * normal();
    let mut simulated = Days {
        returns: Vec::with_capacity(days),
        log_variances: Vec::with_capacity(days),
    };
    for _ in 0..days {
        simulated.log_variances.push(x);
        simulated.returns.push((x / 2.0).exp() * normal());
        x = model.mu + model.phi * (x - model.mu) + model.sigma * normal();
    }
    simulated
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::POUND;

    #[test]
    fn simulated_days_have_the_moments_of_the_model() {
        let model = Model { phi: 0.5, ..POUND };
        let days = simulate(&model, 100_000, 3);
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / 1e5;
        let x = mean(&mut days.log_variances.iter().copied());
        assert!((x - model.mu).abs() < 0.005);
        let variance = mean(&mut days.log_variances.iter().map(|x| (x - model.mu).powi(2)));
        assert!((variance.sqrt() / model.stationary_deviation() - 1.0).abs() < 0.02);
        let pairs = days.log_variances.windows(2);
        let lagged = mean(&mut pairs.map(|pair| (pair[0] - model.mu) * (pair[1] - model.mu)));
        assert!((lagged / variance - model.phi).abs() < 0.02);
        // Returns over their volatility are standard normal.
        let scaled = days.returns.iter().zip(&days.log_variances);
        let squares = mean(&mut scaled.map(|(y, x)| y * y / x.exp()));
        assert!((squares - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_log_weight_is_a_normal_log_density() {
        let step = Step {
            model: Model {
                mu: 0.0,
                phi: 0.5,
                sigma: 1e-300,
            },
            draw: Draw {
                seed: 1,
                replicate: 0,
                step: 1,
            },
            observed: 3.0,
        };
        // A variance of 4: exp(-9 / 8) / sqrt(8 pi).
        let (mut x, mut log_weights) = ([2.0 * 4f64.ln()], [1.0]);
        move_and_weigh(&step, 0, &mut x, &mut log_weights);
        let density = (-9f64 / 8.0).exp() / (4.0 * TAU).sqrt();
        assert!((log_weights[0] - 1.0 - density.ln()).abs() < 1e-14);
    }

    #[test]
    fn steps_tiles_and_replicates_draw_different_numbers() {
        let first = |step, replicate, tile| {
            let draw = Draw {
                seed: 1,
                replicate,
                step,
            };
            draw.stream(tile).next_u64()
        };
        let numbers = [
            first(0, 0, 0),
            first(1, 0, 0),
            first(0, 1, 0),
            first(0, 0, 1),
        ];
        for (at, number) in numbers.iter().enumerate() {
            assert!(!numbers[..at].contains(number));
        }
    }
}
