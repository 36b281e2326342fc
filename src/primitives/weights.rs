//! Weights in plain form: their sum, their shares of it, and the effective sample size.

use bytemuck::{Pod, Zeroable};
use ndarray::Ix1;

use super::flat::{FlatRead, FlatWrite};
use super::lanes::sum_by;
use super::{Real, TILE, same_shape};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;
use crate::table::create::Owned;

impl<'t> Pool<'t> {
    /// Writes each weight divided by the sum of all to `normalized`, which may be `weights`.
    /// Returns the sum.
    ///
    /// The results sum to 1 except for rounding. The scale of the weights does not matter: if their
    /// sum is too large or too small for an `f64`, they are divided all the same, and the returned
    /// sum is infinite or rounded.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let w = table.from_array(&array![1e-300, 0.0, 3e-300])?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// assert_eq!(pool.normalize_weights(w, w)?, 4e-300);
    /// assert_eq!(*table.read(w)?, array![0.25, 0.0, 0.75]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::Weight`] if a weight is negative, infinite or NaN.
    /// - [`PrimitiveError::NoWeight`] if all weights are 0, or there are none.
    /// - [`PrimitiveError::Shapes`] if the shapes differ.
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn normalize_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        normalized: Handle<T, Ix1>,
    ) -> Result<f64, PrimitiveError> {
        same_shape(self.table(), "normalize_weights", normalized, weights)?;
        let total = self.total_of_weights(weights)?;
        if weights == normalized {
            let tiles = self.tiles(FlatWrite::new(normalized))?;
            self.for_each(&tiles, &total, divide::<T>)?;
        } else {
            let tiles = self.tiles((FlatRead::new(weights), FlatWrite::new(normalized)))?;
            self.for_each(
                &tiles,
                &total,
                |(src, dst): (&[T], &mut [T]), total, tile| {
                    dst.copy_from_slice(src);
                    divide(dst, total, tile);
                },
            )?;
        }
        Ok(total.sum())
    }

    /// Returns the number of equally weighted particles that would be worth as much: the square of
    /// the sum of the weights, divided by the sum of their squares. It is at least 1 and at most
    /// the number of weights, and does not depend on their scale.
    ///
    /// A. Kong, J. S. Liu and W. H. Wong, "Sequential imputations and Bayesian missing data
    /// problems", Journal of the American Statistical Association 89, 1994.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let weights = table.from_array(&ndarray::array![3.0, 3.0, 0.0, 0.0])?;
    /// assert_eq!(pool.effective_sample_size(weights)?, 2.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`normalize_weights`](Pool::normalize_weights), except `Shapes`.
    pub fn effective_sample_size<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<f64, PrimitiveError> {
        let total = self.total_of_weights(weights)?;
        let tiles = self.tiles(FlatRead::new(weights))?;
        let add = |sum: f64, part: f64| sum + part;
        // Square the shares of the total: squares of the weights themselves could overflow.
        let squares = self.map_reduce(&tiles, &total, squares_of::<T>, 0.0, add)?;
        let count = self.table().attach(weights)?.shape()[0] as f64;
        // Rounding can move the quotient beyond its exact bounds.
        Ok((1.0 / squares).clamp(1.0, count))
    }

    /// Returns the sums of the weights before each tile, followed by the sum of all, if a number of
    /// ancestors can be divided by that sum. Otherwise returns a scaled copy of the weights with
    /// such a sum, and its sums.
    pub(super) fn sums_of_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<Sums<'t>, PrimitiveError> {
        let starts = self.starts_of_weights(weights)?;
        if is_divisor(&starts) {
            return Ok(Sums::Plain(starts));
        }
        let scale = self.scale_of_weights(weights)?;
        let table = self.table();
        let count = table.attach(weights)?.shape()[0];
        let copy = table.owned(table.uninit::<f64, _>(count)?);
        let tiles = self.tiles((FlatRead::new(weights), FlatWrite::new(copy.handle())))?;
        self.for_each(
            &tiles,
            &scale,
            |(src, dst): (&[T], &mut [f64]), scale, _| {
                for (to, x) in dst.iter_mut().zip(src) {
                    *to = scale.of(x.to_f64());
                }
            },
        )?;
        drop(tiles);
        let starts = self.starts_of_weights(copy.handle())?;
        Ok(Sums::Scaled {
            copy,
            starts,
            scale,
        })
    }

    /// Returns the sum of the weights, which is not 0.
    fn total_of_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<Total, PrimitiveError> {
        let starts = self.starts_of_weights(weights)?;
        if is_divisor(&starts) {
            let scaled = starts.last().copied().unwrap_or(0.0);
            return Ok(Total {
                scale: Scale::ONE,
                scaled,
            });
        }
        let scale = self.scale_of_weights(weights)?;
        let tiles = self.tiles(FlatRead::new(weights))?;
        let add = |sum: f64, part: f64| sum + part;
        let sum_of =
            |tile: &[T], scale: &Scale, _: &TileContext| sum_by(tile, |x: T| scale.of(x.to_f64()));
        let scaled = self.map_reduce(&tiles, &scale, sum_of, 0.0, add)?;
        Ok(Total { scale, scaled })
    }

    /// Returns the sums of the weights before each tile, followed by the sum of all. They are 0 or
    /// more, and may be infinite.
    fn starts_of_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<Vec<f64>, PrimitiveError> {
        let tiles = self.tiles(FlatRead::new(weights))?;
        let sums = self.map_collect(&tiles, &(), weight_of::<T>)?;
        match sums.iter().position(|sum| sum.is_nan()) {
            Some(tile) => Err(self.bad_weight(weights, tile)?),
            None => Ok(starts_of(&sums)),
        }
    }

    /// Returns the scale that brings the greatest weight into the range from 1 to 2.
    fn scale_of_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<Scale, PrimitiveError> {
        let handle = weights.into();
        let greatest = match self.extremes("weights", weights) {
            Ok((_, greatest)) => greatest.to_f64(),
            Err(PrimitiveError::TooFew { .. }) => 0.0,
            Err(error) => return Err(error),
        };
        match greatest > 0.0 {
            true => Ok(Scale::down_to_one(greatest)),
            false => Err(PrimitiveError::NoWeight { handle }),
        }
    }

    /// Returns the error for the first invalid weight from this tile on.
    fn bad_weight<T: Real>(
        &self,
        weights: Handle<T, Ix1>,
        tile: usize,
    ) -> Result<PrimitiveError, PrimitiveError> {
        let values = self.table().read(weights)?;
        let values = values.iter().map(|x| x.to_f64()).enumerate();
        let bad = values.skip(tile * TILE).find(|&(_, x)| !is_weight(x));
        let (position, weight) = bad.unwrap_or((tile * TILE, f64::NAN));
        Ok(PrimitiveError::Weight {
            handle: weights.into(),
            position,
            weight,
        })
    }
}

/// The sums of the weights before each tile, followed by the sum of all.
pub(super) enum Sums<'t> {
    /// Sums of the weights themselves.
    Plain(Vec<f64>),
    /// A copy that was multiplied by `scale`, and its sums.
    Scaled {
        copy: Owned<'t, f64, Ix1>,
        starts: Vec<f64>,
        scale: Scale,
    },
}

/// A power of two, stored as two factors because it may exceed the largest number.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Scale {
    factors: [f64; 2],
}

impl Scale {
    /// The scale that changes nothing.
    pub(super) const ONE: Scale = Scale { factors: [1.0; 2] };

    /// Returns the scale that brings a positive number into the range from 1 to 2.
    fn down_to_one(greatest: f64) -> Scale {
        // 2^-1074 is the smallest positive number, and 2^1023 is the largest power of two.
        let exponent = (-1074..=1023)
            .rev()
            .find(|&exponent| Scale::two_to(exponent).of(1.0) <= greatest);
        Scale::two_to(-exponent.unwrap_or(-1074))
    }

    fn two_to(exponent: i32) -> Scale {
        let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
        let half = exponent / 2;
        Scale {
            factors: [power(half), power(exponent - half)],
        }
    }

    /// Multiplies `x` by the scale. Exact, unless the result is too small.
    #[inline]
    pub(super) fn of(&self, x: f64) -> f64 {
        x * self.factors[0] * self.factors[1]
    }
}

/// The sum of weights after multiplication by a scale.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Total {
    scale: Scale,
    scaled: f64,
}

impl Total {
    #[inline]
    fn share(&self, weight: f64) -> f64 {
        self.scale.of(weight) / self.scaled
    }

    /// Returns the sum of the weights themselves.
    fn sum(&self) -> f64 {
        let [one, two] = self.scale.factors;
        self.scaled / one / two
    }
}

/// The least sum that may be a divisor. The number of ancestors, which is below 2^51, divided by a
/// smaller sum could overflow.
pub(super) const LEAST_SUM: f64 = f64::MIN_POSITIVE * (1u64 << 52) as f64;

/// Returns `true` if the last of the sums may be a divisor.
pub(super) fn is_divisor(starts: &[f64]) -> bool {
    starts
        .last()
        .is_some_and(|sum| (LEAST_SUM..f64::INFINITY).contains(sum))
}

/// Returns the sum of the numbers before each number, followed by the sum of all.
pub(super) fn starts_of(sums: &[f64]) -> Vec<f64> {
    let mut starts = Vec::with_capacity(sums.len() + 1);
    let mut start = 0.0;
    for sum in sums {
        starts.push(start);
        start += sum;
    }
    starts.push(start);
    starts
}

#[inline]
fn is_weight(x: f64) -> bool {
    (0.0..f64::INFINITY).contains(&x)
}

/// Returns the sum of a tile of weights, or NaN if one of them is invalid.
fn weight_of<T: Real>(tile: &[T], _: &(), _: &TileContext) -> f64 {
    sum_of_weights(tile)
}

/// Returns the sum of some weights, or NaN if one of them is invalid.
pub(super) fn sum_of_weights<T: Real>(tile: &[T]) -> f64 {
    let sum = sum_by(tile, |x: T| x.to_f64());
    // An invalid weight has its sign bit set, or makes the sum infinite or NaN. Some valid weights
    // do this too, but seldom: -0, and weights that sum to infinity.
    let bits = tile.iter().fold(0, |bits, x| bits | x.to_f64().to_bits());
    let is_clear = bits >> 63 == 0 && sum.is_finite();
    match is_clear || tile.iter().all(|x| is_weight(x.to_f64())) {
        true => sum,
        false => f64::NAN,
    }
}

fn divide<T: Real>(tile: &mut [T], total: &Total, _: &TileContext) {
    for x in tile {
        *x = T::of_f64(total.share(x.to_f64()));
    }
}

fn squares_of<T: Real>(tile: &[T], total: &Total, _: &TileContext) -> f64 {
    sum_by(tile, |x: T| {
        let share = total.share(x.to_f64());
        share * share
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_brings_every_magnitude_to_one() {
        let tiny = f64::from_bits(1);
        for greatest in [
            tiny,
            3.0 * tiny,
            1e-300,
            0.75,
            1.0,
            1.5,
            2.0,
            1e300,
            f64::MAX,
        ] {
            let scaled = Scale::down_to_one(greatest).of(greatest);
            assert!((1.0..2.0).contains(&scaled), "{greatest:e}: {scaled}");
        }
    }
}
