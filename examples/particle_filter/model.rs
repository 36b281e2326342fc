//! The model and the arithmetic of one tile, shared by all variants.
//!
//! Every random number depends on the seed, the step and the tile, never on the worker, and every
//! sum has a fixed order. Hence all variants and all numbers of workers agree to the last bit.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use ndshm::pool::TileRng;
use rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// Particles in a tile. Constant, because the result must not depend on the number of workers.
pub const TILE: usize = 4096;

/// Stream that places the resampling grid; no tile has this index.
const GRID_STREAM: u64 = u64::MAX;

/// The local level model: a random walk that is observed with noise.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Model {
    pub state_var: f64,
    pub obs_var: f64,
    pub prior_mean: f64,
    pub prior_var: f64,
}

/// Maximum likelihood estimates for the Nile, with an almost uninformative prior.
pub const NILE: Model = Model {
    state_var: 1469.1,
    obs_var: 15099.0,
    prior_mean: 1000.0,
    prior_var: 1e6,
};

/// Seed of a filter's random numbers. Different replicates are independent.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Seed {
    pub seed: u64,
    /// 0 for the filter itself.
    pub replicate: u64,
}

/// Parameters with which a worker moves its particles by one step.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Step {
    model: Model,
    seed: Seed,
    index: u64,
    observation: f64,
}

impl Step {
    pub fn new(model: Model, seed: Seed, index: usize, observation: f64) -> Step {
        Step {
            model,
            seed,
            index: index as u64,
            observation,
        }
    }

    /// Creates the stream of a tile, like [`ndshm::TileContext::rng`], but from numbers that the
    /// variants without a pool have too.
    fn stream(&self, tile: u64) -> TileRng {
        let mut key = [0; 32];
        let words = [self.seed.seed, self.seed.replicate, self.index];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut stream = TileRng::from_seed(key);
        stream.set_stream(tile);
        stream
    }

    /// Returns the offset of this step's resampling grid in its first cell, in [0, 1).
    fn grid_offset(&self) -> f64 {
        (self.stream(GRID_STREAM).next_u64() >> 11) as f64 * (-53f64).exp2()
    }
}

/// Contribution of a tile to the estimates. Weights are relative to the tile's heaviest particle.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Partial {
    log_max: f64,
    sum: f64,
    sum_of_squares: f64,
    sum_of_states: f64,
}

/// Moves the particles of a tile and weighs them against the observation.
///
/// The first step draws from the prior and ignores the particles. `cumulative` receives the running
/// sums of the weights, in which resampling looks up positions.
pub fn propagate(step: &Step, tile: usize, x: &mut [f64], cumulative: &mut [f64]) -> Partial {
    let model = &step.model;
    let (keep, shift, spread) = match step.index {
        0 => (0.0, model.prior_mean, model.prior_var.sqrt()),
        _ => (1.0, 0.0, model.state_var.sqrt()),
    };
    let scale = -0.5 / model.obs_var;
    let mut rng = step.stream(tile as u64);
    let mut log_max = f64::NEG_INFINITY;
    for (x, log_weight) in x.iter_mut().zip(cumulative.iter_mut()) {
        let noise: f64 = StandardNormal.sample(&mut rng);
        *x = keep * *x + shift + spread * noise;
        let residual = step.observation - *x;
        *log_weight = scale * residual * residual;
        log_max = log_max.max(*log_weight);
    }
    let mut partial = Partial {
        log_max,
        ..Partial::default()
    };
    for (x, slot) in x.iter().zip(cumulative) {
        let weight = (*slot - log_max).exp();
        partial.sum += weight;
        partial.sum_of_squares += weight * weight;
        partial.sum_of_states += weight * x;
        *slot = partial.sum;
    }
    partial
}

/// Places of a tile's offspring. The plan of a resampling has one entry per tile and one at the
/// end.
///
/// With grid positions `(offset + i) * total / particles`, the particles up to one whose running
/// sum in its tile is `c` have `round(base + slope * c)` offspring.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Stretch {
    base: f64,
    slope: f64,
    /// First offspring of the tile. Its last one precedes the next tile's first.
    pub first: u64,
}

ndshm::record!(Stretch {
    base: f64,
    slope: f64,
    first: u64,
});

/// Addend that leaves the nearest integer of a number below 2^51 in the lowest bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0;

impl Stretch {
    /// Returns the number of offspring of all particles up to running sum `c`. The caller limits it
    /// to the tile's offspring.
    ///
    /// The addition itself rounds: a call of `ceil` would cost more than all the rest.
    fn count(&self, c: f64) -> i64 {
        (self.base + self.slope * c + ROUND).to_bits() as i64 - ROUND.to_bits() as i64
    }
}

/// Estimates of one step, and the plan of its resampling.
#[derive(Debug)]
pub struct Estimate {
    /// Contribution of the step to the log-likelihood.
    pub log_likelihood: f64,
    pub mean: f64,
    /// Effective number of particles.
    pub effective: f64,
    pub plan: Vec<Stretch>,
}

/// Folds the partials in the order of the tiles: a log-sum-exp whose terms are the tiles.
pub fn combine(step: &Step, particles: usize, partials: &[Partial]) -> Estimate {
    let log_max = partials
        .iter()
        .fold(f64::NEG_INFINITY, |max, partial| max.max(partial.log_max));
    let scale = |partial: &Partial| (partial.log_max - log_max).exp();
    let mut whole = Partial::default();
    for partial in partials {
        let scale = scale(partial);
        whole.sum += scale * partial.sum;
        whole.sum_of_squares += scale * scale * partial.sum_of_squares;
        whole.sum_of_states += scale * partial.sum_of_states;
    }

    let n = particles as f64;
    let cells = n / whole.sum;
    let offset = step.grid_offset();
    let mut plan = Vec::with_capacity(partials.len() + 1);
    let (mut before, mut first) = (0.0, 0);
    for partial in partials {
        let scale = scale(partial);
        let mut stretch = Stretch {
            base: before * cells + (0.5 - offset),
            slope: scale * cells,
            first,
        };
        // Despite rounding, the tile starts neither before the previous one nor after the end.
        first = stretch
            .count(0.0)
            .clamp(first as i64, particles as i64)
            .cast_unsigned();
        stretch.first = first;
        plan.push(stretch);
        before += scale * partial.sum;
    }
    plan.push(Stretch {
        first: particles as u64,
        ..Stretch::default()
    });

    let normal = 0.5 * (2.0 * std::f64::consts::PI * step.model.obs_var).ln();
    Estimate {
        log_likelihood: log_max + (whole.sum / n).ln() - normal,
        mean: whole.sum_of_states / whole.sum,
        effective: whole.sum * whole.sum / whole.sum_of_squares,
        plan,
    }
}

/// Number of places that are written for every particle, even if it has fewer offspring.
const AHEAD: usize = 4;

/// Writes the offspring with numbers `outputs`: the parallel gather of systematic resampling.
///
/// Neighbouring offspring have neighbouring ancestors, so this reads each ancestor once, in order,
/// and never stores an index of ancestors.
pub fn resample(
    plan: &[Stretch],
    x: &[f64],
    cumulative: &[f64],
    outputs: Range<usize>,
    next: &mut [f64],
) {
    let (start, end) = (outputs.start as u64, outputs.end as u64);
    let mut done = 0;
    let first_tile = plan.partition_point(|stretch| stretch.first <= start) - 1;
    for (index, pair) in plan.windows(2).enumerate().skip(first_tile) {
        let (stretch, tile_end) = (pair[0], pair[1].first);
        if stretch.first >= end {
            break;
        }
        let tile = index * TILE..x.len().min((index + 1) * TILE);
        let (x, cumulative) = (&x[tile.clone()], &cumulative[tile]);
        let last = x.len() - 1;
        let skipped = match stretch.first < start {
            true => cumulative[..last].partition_point(|&c| stretch.count(c) <= start as i64),
            false => 0,
        };
        // The particles behind the one that reaches the end have no offspring here.
        let until = match tile_end > end {
            true => {
                let first = cumulative[..last].partition_point(|&c| stretch.count(c) < end as i64);
                last.min(first + 1)
            }
            false => last,
        };
        let limit = (tile_end.min(end) - start) as i64;
        for (&x, &c) in x[skipped..until].iter().zip(&cumulative[skipped..until]) {
            let count = stretch.count(c) - start as i64;
            let upto = count.min(limit).max(done as i64) as usize;
            // Write a few places too many, which the next particle overwrites. This costs less than
            // an unpredictable branch on the number of offspring.
            match next.get_mut(done..done + AHEAD) {
                Some(places) if upto <= done + AHEAD => places.fill(x),
                _ => next[done..upto].fill(x),
            }
            done = upto;
        }
        // The last particle fills the places that rounding left over.
        next[done..limit as usize].fill(x[last]);
        done = limit as usize;
    }
}

/// Moves and weighs all particles, tile by tile.
pub fn propagate_all(step: &Step, x: &mut [f64], cumulative: &mut [f64]) -> Vec<Partial> {
    x.chunks_mut(TILE)
        .zip(cumulative.chunks_mut(TILE))
        .enumerate()
        .map(|(tile, (x, cumulative))| propagate(step, tile, x, cumulative))
        .collect()
}

/// Writes all offspring, tile by tile.
pub fn resample_all(plan: &[Stretch], x: &[f64], cumulative: &[f64], next: &mut [f64]) {
    for (tile, next) in next.chunks_mut(TILE).enumerate() {
        let start = tile * TILE;
        resample(plan, x, cumulative, start..start + next.len(), next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: usize) -> Step {
        let seed = Seed {
            seed: 5,
            replicate: 0,
        };
        Step::new(NILE, seed, index, 1120.0)
    }

    /// Returns for every position of the grid the first particle that reaches it, as in textbooks.
    fn by_search(weights: &[f64], offset: f64) -> Vec<usize> {
        let total: f64 = weights.iter().sum();
        let n = weights.len();
        let (mut ancestors, mut sum, mut particle) = (Vec::new(), weights[0], 0);
        for i in 0..n {
            let position = (offset + i as f64) * total / n as f64;
            while sum <= position && particle + 1 < n {
                particle += 1;
                sum += weights[particle];
            }
            ancestors.push(particle);
        }
        ancestors
    }

    #[test]
    fn offspring_are_those_of_the_textbook() {
        let n = 3 * TILE + 77;
        let (mut x, mut cumulative) = (vec![0.0; n], vec![0.0; n]);
        let step = step(0);
        let partials = propagate_all(&step, &mut x, &mut cumulative);
        let plan = combine(&step, n, &partials).plan;

        let weights: Vec<f64> = x
            .iter()
            .map(|x| (-0.5 * (1120.0 - x) * (1120.0 - x) / NILE.obs_var).exp())
            .collect();
        let expected = by_search(&weights, step.grid_offset());
        let numbers: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let mut found = vec![-1.0; n];
        resample_all(&plan, &numbers, &cumulative, &mut found);
        // Rounding may move only a few positions to the other side.
        let differ = expected
            .iter()
            .zip(&found)
            .filter(|&(&expected, &found)| expected as f64 != found)
            .count();
        assert!(differ <= 2, "{differ} of {n} ancestors differ");
        assert!(found.is_sorted() && found[0] >= 0.0);
    }

    #[test]
    fn any_division_of_the_outputs_gives_the_same_offspring() {
        let n = 2 * TILE + 5;
        let (mut x, mut cumulative) = (vec![0.0; n], vec![0.0; n]);
        let step = step(0);
        let partials = propagate_all(&step, &mut x, &mut cumulative);
        let plan = combine(&step, n, &partials).plan;
        let mut whole = vec![0.0; n];
        resample(&plan, &x, &cumulative, 0..n, &mut whole);
        for length in [1, 7, 1000] {
            let mut parts = vec![0.0; n];
            for (part, next) in parts.chunks_mut(length).enumerate() {
                let start = part * length;
                resample(&plan, &x, &cumulative, start..start + next.len(), next);
            }
            assert!(parts == whole, "in parts of {length}");
        }
    }

    #[test]
    fn steps_tiles_and_replicates_draw_different_numbers() {
        let first = |step: Step, tile| step.stream(tile).next_u64();
        let mut replicate = step(1);
        replicate.seed.replicate = 1;
        let numbers = [
            first(step(0), 0),
            first(step(0), 1),
            first(step(1), 0),
            first(replicate, 0),
        ];
        for (i, number) in numbers.iter().enumerate() {
            assert!(!numbers[..i].contains(number));
        }
    }
}
