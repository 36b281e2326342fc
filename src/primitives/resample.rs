//! Resampling: ancestors drawn by weight, in parallel and without a sort.
//!
//! Both schemes put increasing positions on the line from 0 to the sum of the weights. The ancestor
//! at a position is the first particle with a cumulative weight above it. A tile of ancestors
//! searches the sums of tiles for the tile of weights that contains its first position. From there
//! it advances through both. Every worker does the same additions as [`Pool::prefix_sum`], tile by
//! tile, and no cumulative weights are stored. A tile of weights is summed once for each tile of
//! ancestors that has positions in it. So the total work grows with the number of weights plus the
//! number of ancestors and not with the distribution of the weight.

use bytemuck::{Pod, Zeroable};
use ndarray::{ArrayView1, Ix1};

use super::flat::FlatWrite;
use super::lanes::running;
use super::weights::{Scale, Sums};
use super::{Real, TILE};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

impl Pool<'_> {
    /// Writes the parent particle of each offspring to `ancestors`, by systematic resampling.
    ///
    /// Of `n` ancestors, number `j` is the first particle with a cumulative weight `c` (as
    /// [`prefix_sum`](Pool::prefix_sum) computes it) that satisfies `c * (n / sum) - u > j`, or
    /// equals the sum of all weights. So a particle with the share `w` of the weights has `n * w`
    /// offspring, rounded up or down (one more or less where rounding of `c` decides). A particle
    /// of weight 0 has none, and ancestors do not decrease. Draw `u` from [0, 1), one number for
    /// all.
    ///
    /// `weights` need not sum to 1, and there may be more or fewer ancestors than weights.
    /// [`gather`](Pool::gather) accepts the ancestors as indices.
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
    /// - [`PrimitiveError::Weight`] if a weight is negative, infinite or NaN.
    /// - [`PrimitiveError::NoWeight`] if all weights are 0, or there are none.
    /// - [`PrimitiveError::Offset`] if `u` is not in [0, 1).
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
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
        match self.sums_of_weights(weights)? {
            Sums::Plain(starts) => self.systematic_of(weights, starts, u, count, ancestors),
            Sums::Scaled { copy, starts, .. } => {
                self.systematic_of(copy.handle(), starts, u, count, ancestors)
            }
        }
    }

    /// Makes the plan by which [`resample_systematic`](Pool::resample_systematic) draws `offspring`
    /// ancestors. The plan [expands](SystematicPlan::expand) any part of them without the pool.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let weights = table.from_array(&array![1.0, 0.0, 2.0, 5.0])?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// let plan = pool.systematic_plan(weights, 0.25, 4)?;
    /// let mut ancestors = [0; 2];
    /// plan.expand(1..3, 0, table.read(weights)?.as_slice().unwrap(), &mut ancestors)?;
    /// assert_eq!(ancestors, [2, 3]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`resample_systematic`](Pool::resample_systematic), and [`PrimitiveError::Plan`] for
    /// 2^51 offspring or more.
    pub fn systematic_plan<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        u: f64,
        offspring: usize,
    ) -> Result<SystematicPlan, PrimitiveError> {
        plan::check(u, offspring)?;
        Ok(match self.sums_of_weights(weights)? {
            Sums::Plain(starts) => SystematicPlan::of(starts, Scale::ONE, u, offspring),
            Sums::Scaled { starts, scale, .. } => SystematicPlan::of(starts, scale, u, offspring),
        })
    }

    /// Resamples `weights`. `starts` are their [sums](Pool::sums_of_weights).
    fn systematic_of<T: Real>(
        &mut self,
        weights: Handle<T, Ix1>,
        starts: Vec<f64>,
        u: f64,
        count: usize,
        ancestors: Handle<u64, Ix1>,
    ) -> Result<(), PrimitiveError> {
        let grid = Grid::of(&starts, u, count);
        let starts = self.working(&starts)?;
        let group = (
            weights.whole(),
            starts.handle().whole(),
            FlatWrite::new(ancestors),
        );
        let tiles = self.tiles(group)?;
        Ok(self.for_each(&tiles, &grid, systematic::<T>)?)
    }
}

/// The sum of this and a number below 2^51 has the nearest integer of that number in its lowest
/// bits.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// A grid of positions. Number `j` is below the cumulative weight `c` if `c * scale - u` is above
/// `j`, or if `c` is the total.
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
#[repr(C)]
struct Grid {
    u: f64,
    scale: f64,
    total: f64,
}

impl Grid {
    /// Creates the grid of `count` positions on weights with these sums.
    fn of(starts: &[f64], u: f64, count: usize) -> Grid {
        let total = starts.last().copied().unwrap_or(0.0);
        Grid {
            u,
            scale: count as f64 / total,
            total,
        }
    }

    /// Returns the number of positions below `cumulative`, without the positions that rounding
    /// leaves over at the total.
    ///
    /// Rounds up by additions and a comparison, which the compiler does for several weights at
    /// once. (Where the processor is not known to have an instruction for `ceil`, each `ceil` is a
    /// function call.)
    #[inline]
    fn below(&self, cumulative: f64) -> i64 {
        let exact = cumulative * self.scale - self.u;
        let nearest = (exact + ROUND) - ROUND;
        let up = if nearest < exact { 1.0 } else { 0.0 };
        // Wraps for invalid weights alone.
        let bits = ((nearest + up) + ROUND).to_bits() as i64;
        bits.wrapping_sub(ROUND.to_bits() as i64)
    }
}

fn systematic<T: Real>(
    (weights, starts, ancestors): (ArrayView1<'_, T>, ArrayView1<'_, f64>, &mut [u64]),
    grid: &Grid,
    tile: &TileContext,
) {
    let (Some(weights), Some(starts)) = (weights.as_slice(), starts.as_slice()) else {
        // Unreachable: one-dimensional arrays are contiguous.
        return;
    };
    let first = tile.range().start;
    descend_from(grid, first, starts, ancestors, cumulate(weights, starts));
}

/// Writes the ancestors of the offspring from `first` on. `sums_of` is as in [`by_tiles`].
fn descend_from(
    grid: &Grid,
    first: usize,
    starts: &[f64],
    ancestors: &mut [u64],
    sums_of: impl FnMut(usize, &mut [f64; TILE]) -> Option<usize>,
) {
    let first = first as i64;
    let length = ancestors.len() as i64;
    let below = |cumulative: f64| match cumulative >= grid.total {
        true => length as usize,
        false => (grid.below(cumulative) - first).clamp(0, length) as usize,
    };
    let mut counts = [0; TILE];
    let descend = |cumulative: &[f64], done: usize, ancestors: &mut [u64], particle: u64| {
        let counts = &mut counts[..cumulative.len()];
        let before = first + done as i64;
        for (count, &cumulative) in counts.iter_mut().zip(cumulative) {
            *count = grid.below(cumulative) - before;
        }
        // The particle that reaches the total also gets the positions that rounding left over.
        if cumulative.last() == Some(&grid.total) {
            let end = cumulative.partition_point(|&sum| sum < grid.total);
            counts[end] = length;
        }
        expand(counts, particle, ancestors);
    };
    by_tiles(starts, ancestors, below, sums_of, descend);
}

/// Places that are written for every particle, whether it needs them or not.
const AHEAD: usize = 4;

/// Writes the number of each particle to its places, which end at its entry in `counts`. The first
/// particle has the number `first`.
fn expand(counts: &[i64], first: u64, ancestors: &mut [u64]) {
    let length = ancestors.len();
    let mut done = 0;
    for (particle, &count) in (first..).zip(counts) {
        let upto = (count.max(done as i64) as usize).min(length);
        // Write a few places too many, which the next particle overwrites. This costs less than an
        // unpredictable branch on the number of offspring.
        match ancestors.get_mut(done..done + AHEAD) {
            Some(places) if upto <= done + AHEAD => places.fill(particle),
            _ => ancestors[done..upto].fill(particle),
        }
        done = upto;
    }
}

/// Visits the tiles of weights that contain some of `ancestors`, in order.
///
/// `below` returns the number of these ancestors with positions below a cumulative weight: none
/// below 0, all below the sum of the weights. `sums_of` writes the cumulative weights of a tile and
/// returns their number, or `None` to end the visit. `descend` writes the ancestors in one tile. It
/// gets the tile's cumulative weights, the number of ancestors before, the places to write to, and
/// the tile's first particle.
fn by_tiles(
    starts: &[f64],
    ancestors: &mut [u64],
    below: impl Fn(f64) -> usize,
    mut sums_of: impl FnMut(usize, &mut [f64; TILE]) -> Option<usize>,
    mut descend: impl FnMut(&[f64], usize, &mut [u64], u64),
) {
    // There is one start more than tiles.
    let ends = starts.get(1..).unwrap_or(&[]);
    let mut cumulative = [0.0; TILE];
    let (mut done, mut tile) = (0, 0);
    while done < ancestors.len() {
        tile += ends[tile..].partition_point(|&end| below(end) <= done);
        // All ancestors are below the last end.
        let Some(&end) = ends.get(tile) else {
            return;
        };
        let Some(length) = sums_of(tile, &mut cumulative) else {
            return;
        };
        let upto = below(end).min(ancestors.len());
        descend(
            &cumulative[..length],
            done,
            &mut ancestors[done..upto],
            (tile * TILE) as u64,
        );
        done = upto;
        tile += 1;
    }
}

/// Returns a function that writes the cumulative weights of a tile of `weights`.
fn cumulate<T: Real>(
    weights: &[T],
    starts: &[f64],
) -> impl Fn(usize, &mut [f64; TILE]) -> Option<usize> {
    |tile, sums| {
        let of_tile = weights.chunks(TILE).nth(tile)?;
        running(of_tile, *starts.get(tile)?, &mut sums[..of_tile.len()]);
        Some(of_tile.len())
    }
}

#[cfg(feature = "rand")]
mod multinomial;
mod plan;

pub use plan::SystematicPlan;
