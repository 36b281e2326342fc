//! The filter: steps, estimates and times, the same for every variant.

use std::time::Instant;

use crate::Result;
use crate::model::{self, Model, Partial, Seed, Step, Stretch};

/// A variant of moving, weighing and resampling a set of particles.
pub trait Engine {
    /// Moves and weighs all particles. Returns the partials in the order of the tiles.
    fn propagate(&mut self, step: &Step) -> Result<Vec<Partial>>;

    /// Replaces the particles by their offspring.
    fn resample(&mut self, plan: &[Stretch]) -> Result<()>;

    /// Calls `look` with the current particles.
    fn inspect(&self, look: &mut dyn FnMut(&[f64])) -> Result<()>;
}

/// Input of a filter, and its number of particles.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub model: Model,
    pub observations: &'a [f64],
    pub particles: usize,
    pub seed: u64,
}

/// Results of a filter.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub log_likelihood: f64,
    pub means: Vec<f64>,
    /// 5 % and 95 % quantiles of each level.
    pub bands: Vec<[f64; 2]>,
    /// Smallest effective number of particles, (sum of weights)^2 / sum of squares.
    pub effective: f64,
    /// Hash of the bits of all particles after the last resampling.
    pub digest: u64,
}

/// Number of steps before the clock starts, to warm up memory, caches and workers.
const WARM_UP: usize = 2;

/// Runs the whole filter. Returns its results and the median time of a step in nanoseconds.
pub fn run(
    engine: &mut dyn Engine,
    task: &Task,
    progress: &mut dyn FnMut(usize),
) -> Result<(Outcome, f64)> {
    let mut outcome = Outcome {
        effective: f64::INFINITY,
        ..Outcome::default()
    };
    let mut times = Vec::with_capacity(task.observations.len());
    for &observation in task.observations.iter().take(WARM_UP) {
        advance(engine, task, 0, observation)?;
    }
    for (index, &observation) in task.observations.iter().enumerate() {
        let start = Instant::now();
        let estimate = advance(engine, task, index, observation)?;
        times.push(start.elapsed().as_nanos() as f64);

        outcome.log_likelihood += estimate.log_likelihood;
        outcome.means.push(estimate.mean);
        outcome.effective = outcome.effective.min(estimate.effective);
        engine.inspect(&mut |x| outcome.bands.push(band(x)))?;
        progress(index + 1);
    }
    engine.inspect(&mut |x| outcome.digest = digest(x))?;
    times.sort_by(f64::total_cmp);
    Ok((outcome, times[times.len() / 2]))
}

fn advance(
    engine: &mut dyn Engine,
    task: &Task,
    index: usize,
    observation: f64,
) -> Result<model::Estimate> {
    let seed = Seed {
        seed: task.seed,
        replicate: 0,
    };
    let step = Step::new(task.model, seed, index, observation);
    let partials = engine.propagate(&step)?;
    let estimate = model::combine(&step, task.particles, &partials);
    engine.resample(&estimate.plan)?;
    Ok(estimate)
}

/// Maximum number of particles for the quantiles.
const BAND_SAMPLE: usize = 1 << 16;

/// Returns the 5 % and the 95 % quantile of freshly resampled particles.
///
/// Every k-th particle of a systematic resampling is a systematic resampling with a grid k times
/// as wide. Thus this is a sample of the filtered distribution like the whole set, and its
/// quantiles differ from the whole set's by less than 1 % of a standard deviation.
fn band(x: &[f64]) -> [f64; 2] {
    let stride = x.len().div_ceil(BAND_SAMPLE);
    let mut sample: Vec<f64> = x.iter().step_by(stride).copied().collect();
    let at = |share: f64, len: usize| ((share * len as f64) as usize).min(len - 1);
    let [low, high] = [at(0.05, sample.len()), at(0.95, sample.len())];
    let high = *sample.select_nth_unstable_by(high, f64::total_cmp).1;
    let low = *sample.select_nth_unstable_by(low, f64::total_cmp).1;
    [low, high]
}

/// Hashes with FNV-1a, a word at a time.
fn digest(x: &[f64]) -> u64 {
    x.iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| {
        (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_of_a_uniform_set_is_its_quantiles() {
        let mut x: Vec<f64> = (0..100_000).map(f64::from).collect();
        x.reverse();
        let [low, high] = band(&x);
        assert!((low - 5_000.0).abs() <= 3.0, "{low}");
        assert!((high - 95_000.0).abs() <= 3.0, "{high}");
        assert_eq!(band(&[7.0]), [7.0, 7.0]);
    }

    #[test]
    fn the_digest_sees_every_bit_and_the_order() {
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        assert_ne!(digest(&[1.0, 2.0]), digest(&[2.0, 1.0]));
    }
}
