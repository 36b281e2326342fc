//! The same filter in the simplest way, as a reference: one thread, no shared memory, and every
//! step as in a textbook.
//!
//! Both filters share only the move of the particles, with its random numbers.

use crate::common::{Digest, Result};
use crate::filter::Particles;
use crate::model::{self, Step, TILE};

pub struct Plain {
    x: Vec<f64>,
    log_weights: Vec<f64>,
    weights: Vec<f64>,
}

impl Plain {
    pub fn new(particles: usize) -> Plain {
        Plain {
            x: vec![0.0; particles],
            log_weights: vec![0.0; particles],
            weights: vec![0.0; particles],
        }
    }

    fn mean(&self, of: impl Fn(f64) -> f64) -> f64 {
        let terms = self.x.iter().zip(&self.weights);
        terms.map(|(&x, weight)| weight * of(x)).sum()
    }
}

impl Particles for Plain {
    fn move_and_weigh(&mut self, step: &Step) -> Result<()> {
        let tiles = self
            .x
            .chunks_mut(TILE)
            .zip(self.log_weights.chunks_mut(TILE));
        for (tile, (x, log_weights)) in tiles.enumerate() {
            model::move_and_weigh(step, tile, x, log_weights);
        }
        Ok(())
    }

    fn normalize(&mut self) -> Result<f64> {
        let greatest = self
            .log_weights
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        for (weight, log_weight) in self.weights.iter_mut().zip(&self.log_weights) {
            *weight = (log_weight - greatest).exp();
        }
        let sum: f64 = self.weights.iter().sum();
        for weight in &mut self.weights {
            *weight /= sum;
        }
        Ok(greatest + sum.ln())
    }

    fn moments(&mut self) -> Result<[f64; 3]> {
        Ok([
            self.mean(|x| x),
            self.mean(|x| x * x),
            self.mean(|x| (x / 2.0).exp()),
        ])
    }

    fn effective(&mut self) -> Result<f64> {
        Ok(1.0
            / self
                .weights
                .iter()
                .map(|weight| weight * weight)
                .sum::<f64>())
    }

    fn resample(&mut self, offset: f64) -> Result<()> {
        let count = self.x.len();
        let mut offspring = Vec::with_capacity(count);
        let (mut particle, mut cumulative) = (0, self.weights[0]);
        for number in 0..count {
            let position = (offset + number as f64) / count as f64;
            while cumulative <= position && particle + 1 < count {
                particle += 1;
                cumulative += self.weights[particle];
            }
            offspring.push(self.x[particle]);
        }
        self.x = offspring;
        self.restart()
    }

    fn restart(&mut self) -> Result<()> {
        self.log_weights.fill(0.0);
        Ok(())
    }

    fn digest(&self) -> Result<Digest> {
        Ok(Digest::of(self.x.iter().map(|x| x.to_bits())))
    }
}
