//! Sequential versions of the primitives, as their documentation describes them.

use ndshm::pool::TileRng;
use rand_core::{Rng, SeedableRng};

pub const TILE: usize = 4032;

/// Returns inclusive running sums, in tiles of eight lanes each.
pub fn running_sums(x: &[f64]) -> Vec<f64> {
    let mut sums = Vec::new();
    let mut before_tile = 0.0;
    for tile in x.chunks(TILE) {
        let mut l = [0.0; 8];
        for (at, x) in tile.iter().enumerate() {
            l[at % 8] += x;
            let even = (l[0] + l[4]) + (l[2] + l[6]);
            let odd = (l[1] + l[5]) + (l[3] + l[7]);
            sums.push(before_tile + (even + odd));
        }
        before_tile = sums.last().copied().unwrap_or(0.0);
    }
    sums
}

pub fn sum(x: &[f64]) -> f64 {
    running_sums(x).last().copied().unwrap_or(0.0)
}

/// Returns the sum of squared deviations from the mean: corrected two-pass in a tile, Chan's
/// formula between tiles.
pub fn squared_deviations(x: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for tile in x.chunks(TILE) {
        let n = tile.len() as f64;
        let own_mean = sum(tile) / n;
        let deviations: Vec<f64> = tile.iter().map(|x| x - own_mean).collect();
        let squared: Vec<f64> = deviations.iter().map(|d| d * d).collect();
        let correction = sum(&deviations);
        let own_squares = sum(&squared) - correction * correction / n;
        let apart = own_mean - mean;
        let share = n / (count + n);
        if count == 0.0 {
            (mean, squares) = (own_mean, own_squares);
        } else {
            squares = squares + own_squares + apart * apart * count * share;
            mean += apart * share;
        }
        count += n;
    }
    squares
}

/// Adds up exponentials relative to each tile's greatest element, and tiles relative to the
/// greatest element of all.
pub fn log_sum_exp(x: &[f64]) -> f64 {
    let greatest_of = |x: &[f64]| x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let greatest = greatest_of(x);
    let mut total = 0.0;
    for tile in x.chunks(TILE) {
        let own = greatest_of(tile);
        let exps: Vec<f64> = tile.iter().map(|x| (x - own).exp()).collect();
        total += (own - greatest).exp() * sum(&exps);
    }
    greatest + total.ln()
}

/// Returns for each offspring the first particle with a cumulative weight that is far enough.
fn find(weights: &[f64], count: usize, is_far_enough: impl Fn(f64, usize) -> bool) -> Vec<u64> {
    let cumulative = running_sums(weights);
    let total = cumulative.last().copied().unwrap_or(0.0);
    let first = |j| cumulative.partition_point(|&sum| sum < total && !is_far_enough(sum, j)) as u64;
    (0..count).map(first).collect()
}

pub fn systematic(weights: &[f64], u: f64, count: usize) -> Vec<u64> {
    let scale = count as f64 / sum(weights);
    find(weights, count, |sum, j| sum * scale - u > j as f64)
}

/// Draws uniform numbers in order: partial sums of exponential spacings, divided by their total.
pub fn multinomial(weights: &[f64], seed: u64, stream: u64, count: usize) -> Vec<u64> {
    let spacings_of = |tile: u64| {
        let words = [seed, stream, u64::from_le_bytes(*b"multinom"), 0];
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = words[at / 8].to_le_bytes()[at % 8];
        }
        let mut rng = TileRng::from_seed(key);
        rng.set_stream(tile);
        std::iter::repeat_with(move || {
            let uniform = ((rng.next_u64() >> 11) + 1) as f64 / 2f64.powi(53);
            -uniform.ln()
        })
    };
    let tiles = count.div_ceil(TILE) as u64;
    let spacings: Vec<f64> = (0..tiles)
        .flat_map(|tile| spacings_of(tile).take(TILE))
        .take(count)
        .collect();
    let after = spacings_of(tiles).next().unwrap();
    let scale = sum(weights) / (sum(&spacings) + after);
    let positions = running_sums(&spacings);
    find(weights, count, |sum, j| sum > positions[j] * scale)
}
