//! Resampling: ancestors drawn by weight, in parallel and without a sort.
//!
//! Both schemes put increasing positions on the line from 0 to the sum of the weights. The ancestor
//! at a position is the first particle whose cumulative weight is above it. A tile of ancestors
//! finds the tile of weights in which its first position lies by a search in the sums of tiles, and
//! walks on from there through both: whoever computes it does the same additions as
//! [`Pool::prefix_sum`], tile by tile, and no cumulative weights are stored.

use ndarray::{ArrayView1, Ix1};

use super::flat::{FlatRead, FlatWrite};
use super::number::{running, sum_by};
use super::{Real, TILE};
use crate::error::PrimitiveError;
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};

impl Pool<'_> {
    /// Systematic resampling: writes to `ancestors` which particle each offspring comes from.
    ///
    /// Of `n` ancestors, number `j` is the first particle whose cumulative weight (as
    /// [`prefix_sum`](Pool::prefix_sum) gives it) is above `(u + j) / n` times the sum of the
    /// weights. So a particle with the share `w` of the weights has `n * w` offspring, rounded up
    /// or down (and one more or less where rounding decides), one of weight 0 has none, and
    /// ancestors do not decrease. `u` is to be drawn from [0, 1), one number for all offspring.
    ///
    /// `weights` need not sum to 1, and there may be more or fewer ancestors than weights.
    /// [`gather`](Pool::gather) takes the ancestors as they are.
    ///
    /// J. Carpenter, P. Clifford and P. Fearnhead, "Improved particle filter for nonlinear
    /// problems", IEE Proceedings on Radar, Sonar and Navigation 146, 1999.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let weights = table.from_array(&array![1.0, 0.0, 2.0, 5.0])?;
    /// let ancestors = table.zeros(4)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.resample_systematic(weights, 0.25, ancestors)?;
    /// assert_eq!(*table.read(ancestors)?, array![0, 2, 3, 3]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::Weight`] for a weight that is negative, infinite or NaN;
    ///   [`PrimitiveError::WeightSum`] if they sum to 0 or to infinity.
    /// - [`PrimitiveError::Offset`] if `u` is not in [0, 1).
    /// - [`PrimitiveError::Pool`], as [`for_each`](Pool::for_each).
    pub fn resample_systematic<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        u: f64,
        ancestors: Handle<u64, Ix1>,
    ) -> Result<(), PrimitiveError> {
        if !(0.0..1.0).contains(&u) {
            return Err(PrimitiveError::Offset { u });
        }
        let count = self.table().attach(ancestors)?.shape()[0];
        let starts = self.starts_of_weights(weights)?;
        let total = starts.last().copied().unwrap_or(0.0);
        let step = total / count as f64;
        let starts = self.working(&starts)?;
        let group = (
            weights.whole(),
            starts.handle().whole(),
            FlatWrite::new(ancestors),
        );
        let tiles = self.tiles(group)?;
        Ok(self.for_each(&tiles, &[u, step, total.next_down()], systematic::<T>)?)
    }

    /// The sums of all tiles before each tile of weights, at last of all weights, which is positive
    /// and finite.
    pub(super) fn starts_of_weights<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
    ) -> Result<Vec<f64>, PrimitiveError> {
        let tiles = self.tiles(FlatRead::new(weights))?;
        let sums = self.map_collect(&tiles, &(), weight_of::<T>)?;
        if let Some(tile) = sums.iter().position(|sum| sum.is_nan()) {
            return Err(self.bad_weight(weights, tile)?);
        }
        let starts = starts_of(&sums);
        match starts.last() {
            Some(&sum) if sum > 0.0 && sum.is_finite() => Ok(starts),
            sum => Err(PrimitiveError::WeightSum {
                handle: weights.into(),
                sum: sum.copied().unwrap_or(0.0),
            }),
        }
    }

    /// The error for the first weight, from this tile on, that is none.
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

/// Before each number the sum of those before it, and at last the sum of all.
fn starts_of(sums: &[f64]) -> Vec<f64> {
    let mut starts = Vec::with_capacity(sums.len() + 1);
    let mut start = 0.0;
    for sum in sums {
        starts.push(start);
        start += sum;
    }
    starts.push(start);
    starts
}

fn is_weight(x: f64) -> bool {
    (0.0..f64::INFINITY).contains(&x)
}

/// The sum of a tile of weights; NaN if one of them is none.
fn weight_of<T: Real>(tile: &[T], _: &(), _: &TileContext) -> f64 {
    let bad = tile
        .iter()
        .fold(false, |bad, x| bad | !is_weight(x.to_f64()));
    if bad {
        f64::NAN
    } else {
        sum_by(tile, |x: T| x.to_f64())
    }
}

fn systematic<T: Real>(
    (weights, starts, ancestors): (ArrayView1<'_, T>, ArrayView1<'_, f64>, &mut [u64]),
    &[u, step, below_total]: &[f64; 3],
    tile: &TileContext,
) {
    let first = tile.range().start;
    let mut positions = [0.0; TILE];
    let positions = &mut positions[..ancestors.len().min(TILE)];
    for (at, position) in positions.iter_mut().enumerate() {
        *position = ((u + (first + at) as f64) * step).min(below_total);
    }
    find(weights, starts, positions, ancestors);
}

/// Writes the first particle whose cumulative weight is above each position. Positions do not
/// decrease and are below the sum of the weights.
fn find<T: Real>(
    weights: ArrayView1<'_, T>,
    starts: ArrayView1<'_, f64>,
    positions: &[f64],
    ancestors: &mut [u64],
) {
    let (Some(weights), Some([_, ends @ ..])) = (weights.as_slice(), starts.as_slice()) else {
        // One-dimensional arrays are contiguous, and there is one start more than tiles.
        return;
    };
    let mut cumulative = [0.0; TILE];
    let (mut done, mut tile) = (0, 0);
    while let Some(&position) = positions.get(done) {
        tile += ends[tile..].partition_point(|&end| end <= position);
        let (Some(of_tile), Some(&end)) = (weights.chunks(TILE).nth(tile), ends.get(tile)) else {
            // Not reached: the last end is the sum, and positions are below it.
            return;
        };
        let cumulative = &mut cumulative[..of_tile.len()];
        running(of_tile, starts[tile], cumulative);
        // At least one, or this would not end if the weights changed under our hands.
        let here = positions[done..].partition_point(|&at| at < end).max(1);
        let (positions, ancestors) = (&positions[done..][..here], &mut ancestors[done..][..here]);
        walk(cumulative, positions, ancestors, (tile * TILE) as u64);
        done += here;
    }
}

/// The first of `cumulative` that is above each position, or the last, counted from `first`.
///
/// Whether the next step is to the next particle or to the next position is what no branch
/// predictor knows: so both are steps of one loop without a branch.
fn walk(cumulative: &[f64], positions: &[f64], ancestors: &mut [u64], first: u64) {
    let last = cumulative.len() - 1;
    let (mut particle, mut at) = (0, 0);
    while at < positions.len() {
        let is_above = (cumulative[particle] > positions[at]) | (particle == last);
        ancestors[at] = first + particle as u64;
        at += usize::from(is_above);
        particle += usize::from(!is_above);
    }
}

#[cfg(feature = "rand")]
mod multinomial;
