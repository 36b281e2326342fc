//! Water in a channel: long waves of small height, and the stations that observe them.
//!
//! The linear shallow-water equations on a ring of cells, with heights in the cells and velocities
//! between them. Velocities move on by the slope of the heights, then heights by the divergence of
//! the velocities.

use ndarray::ArrayViewMut1;
use ndshm::rand_core::Rng;
use rand_distr::{Distribution, StandardNormal};

/// Distance that a wave goes in a step of the scheme, in cells.
const COURANT: f64 = 0.5;

/// Standard deviation of an observed height.
pub const NOISE: f64 = 0.1;

/// Standard deviation of the wave that each step adds, at its crest.
const DISTURBANCE: f64 = 0.01;

/// Half the width of a wave, in parts of the ring.
const WIDTH: f64 = 0.05;

#[derive(Clone, Copy)]
pub struct Model {
    pub cells: usize,
    /// Steps of the scheme between observations.
    pub substeps: usize,
    /// Stations, at equal distances.
    pub stations: usize,
}

impl Model {
    /// Returns the numbers of a state: heights and velocities.
    pub fn width(&self) -> usize {
        2 * self.cells
    }

    /// Sets a state to still water with a hump, of unknown place and height.
    pub fn start(&self, mut state: ArrayViewMut1<'_, f64>, rng: &mut impl Rng) {
        state.fill(0.0);
        let height = 0.5 + uniform(rng);
        self.add_hump(&mut state, uniform(rng), height);
    }

    /// Moves a state on to the next observation, with a small disturbance.
    pub fn advance(&self, mut state: ArrayViewMut1<'_, f64>, rng: &mut impl Rng) {
        let Some(numbers) = state.as_slice_mut() else {
            return;
        };
        let (heights, velocities) = numbers.split_at_mut(self.cells);
        let last = self.cells - 1;
        for _ in 0..self.substeps {
            // Velocity i lies between the cells i and i + 1.
            for (velocity, pair) in velocities.iter_mut().zip(heights.windows(2)) {
                *velocity -= COURANT * (pair[1] - pair[0]);
            }
            velocities[last] -= COURANT * (heights[0] - heights[last]);
            heights[0] -= COURANT * (velocities[0] - velocities[last]);
            for (height, pair) in heights[1..].iter_mut().zip(velocities.windows(2)) {
                *height -= COURANT * (pair[1] - pair[0]);
            }
        }
        let height: f64 = StandardNormal.sample(rng);
        self.add_hump(&mut state, uniform(rng), DISTURBANCE * height);
    }

    /// The observation operator: returns the heights at the stations.
    pub fn observe<'a>(&self, state: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let distance = self.cells / self.stations;
        state[..self.cells]
            .iter()
            .step_by(distance)
            .take(self.stations)
            .copied()
    }

    /// Returns the logarithm of the density of observations, given a state.
    pub fn log_likelihood(&self, state: &[f64], observed: &[f64]) -> f64 {
        let error = |(height, observed): (f64, &f64)| ((height - observed) / NOISE).powi(2);
        let errors: f64 = self.observe(state).zip(observed).map(error).sum();
        let normalised = (std::f64::consts::TAU.sqrt() * NOISE).ln();
        -0.5 * errors - normalised * self.stations as f64
    }

    fn add_hump(&self, state: &mut ArrayViewMut1<'_, f64>, place: f64, height: f64) {
        let heights = state.iter_mut().take(self.cells).enumerate();
        for (cell, value) in heights {
            let distance = (cell as f64 / self.cells as f64 - place).abs();
            let distance = distance.min(1.0 - distance) / WIDTH;
            *value += height * (-0.5 * distance * distance).exp();
        }
    }
}

/// Returns a number from [0, 1).
pub fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}
