//! Signatures of samples: bit `j` is the side of hyperplane `j` on which the sample lies.
//!
//! Two samples at an angle `a` differ in each bit with probability `a / pi`, independently for
//! independent random hyperplanes: M. S. Charikar, "Similarity estimation techniques from rounding
//! algorithms", STOC 2002.

use std::f64::consts::PI;
use std::ops::Range;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};
use ndshm::pool::TileRng;
use rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

/// Number of coordinates of a sample.
pub const DIMENSIONS: usize = 64;

/// Number of columns computed at once, in as many lanes of vector registers.
const LANES: usize = 16;

/// Draws the normal of a column's hyperplane, with uniform direction. It depends only on seed and
/// column, so the matrix is the same for every partition.
pub fn hyperplane(seed: u64, column: usize) -> [f32; DIMENSIONS] {
    let mut rng = TileRng::seed_from_u64(seed);
    rng.set_stream(column as u64);
    std::array::from_fn(|_| StandardNormal.sample(&mut rng))
}

/// Returns the normals of `LANES` columns, coordinate by coordinate.
fn bundle(seed: u64, first: usize) -> [[f32; LANES]; DIMENSIONS] {
    let normals: [_; LANES] = std::array::from_fn(|lane| hyperplane(seed, first + lane));
    std::array::from_fn(|axis| normals.map(|normal| normal[axis]))
}

/// Writes the bits of some columns for all samples. Returns the number of set bits.
pub fn sign(
    samples: ArrayView2<'_, f32>,
    columns: Range<usize>,
    seed: u64,
    mut bits: ArrayViewMut2<'_, bool>,
) -> u64 {
    let bundles: Vec<_> = columns
        .step_by(LANES)
        .map(|first| bundle(seed, first))
        .collect();
    let mut ones = 0;
    for (sample, mut row) in samples.rows().into_iter().zip(bits.rows_mut()) {
        let row = row.as_slice_mut().expect("a row's bits are neighbours");
        for (bundle, bits) in bundles.iter().zip(row.chunks_mut(LANES)) {
            let mut products = [0.0; LANES];
            for (&x, normals) in sample.iter().zip(bundle) {
                for (product, normal) in products.iter_mut().zip(normals) {
                    *product += x * normal;
                }
            }
            for (bit, product) in bits.iter_mut().zip(products) {
                *bit = product >= 0.0;
                ones += u64::from(*bit);
            }
        }
    }
    ones
}

/// Computes one bit in the simplest way, as a reference for the others.
pub fn sign_of(sample: ArrayView1<'_, f32>, normal: &[f32; DIMENSIONS]) -> bool {
    let products = sample.iter().zip(normal).map(|(x, normal)| x * normal);
    products.fold(0.0, |sum, product| sum + product) >= 0.0
}

/// Returns the angle between two samples, in [0, pi].
pub fn angle(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    cosine.clamp(-1.0, 1.0).acos()
}

/// Returns the deviation of `distance` from its expectation by the angle, in standard deviations,
/// for signatures of `columns` bits.
pub fn deviation(distance: u32, angle: f64, columns: usize) -> f64 {
    let (share, columns) = (angle / PI, columns as f64);
    (f64::from(distance) - columns * share) / (columns * share * (1.0 - share)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    fn samples(count: usize) -> Array2<f32> {
        let mut rng = TileRng::seed_from_u64(3);
        Array2::from_shape_simple_fn((count, DIMENSIONS), || StandardNormal.sample(&mut rng))
    }

    #[test]
    fn any_division_of_the_columns_gives_the_plain_bits() {
        let (samples, columns) = (samples(7), 2 * LANES + 3);
        for width in [1, 5, LANES, columns] {
            let mut bits = Array2::from_elem((7, columns), false);
            let mut ones = 0;
            for start in (0..columns).step_by(width) {
                let range = start..columns.min(start + width);
                let part = bits.slice_mut(s![.., range.clone()]);
                ones += sign(samples.view(), range, 9, part);
            }
            assert_eq!(ones, bits.iter().filter(|&&bit| bit).count() as u64);
            for ((row, column), &bit) in bits.indexed_iter() {
                assert_eq!(bit, sign_of(samples.row(row), &hyperplane(9, column)));
            }
        }
    }

    #[test]
    fn angles_of_known_pairs() {
        let mut pair = Array2::<f32>::zeros((3, DIMENSIONS));
        pair[[0, 0]] = 2.0;
        pair[[1, 1]] = 0.5;
        pair[[2, 0]] = -1.0;
        assert_eq!(angle(pair.row(0), pair.row(0)), 0.0);
        assert_eq!(angle(pair.row(0), pair.row(1)), PI / 2.0);
        assert_eq!(angle(pair.row(0), pair.row(2)), PI);
        assert_eq!(deviation(50, PI / 2.0, 100), 0.0);
        assert_eq!(deviation(60, PI / 2.0, 100), 2.0);
    }
}
