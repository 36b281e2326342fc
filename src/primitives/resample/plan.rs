//! The plan of systematic resampling as a value: which tile of weights has which offspring.

use core::ops::Range;

use super::{Grid, descend_from};
use crate::primitives::error::PrimitiveError;
use crate::primitives::lanes::running;
use crate::primitives::weights::{LEAST_SUM, Scale, is_divisor, starts_of, sum_of_weights};
use crate::primitives::{Real, TILE};

/// Positions above this are not exact as `f64`.
const MOST_OFFSPRING: usize = 1 << 51;

/// The plan of a systematic resampling: the offspring of each tile of weights.
///
/// The plan needs one sum per tile of [`TILE`](SystematicPlan::TILE) weights, not the weights
/// themselves. So processes that have a part of the weights each exchange their sums, make the same
/// plan, and [expand](SystematicPlan::expand) the offspring of their own tiles. All of them
/// together have the ancestors of [`Pool::resample_systematic`](crate::Pool::resample_systematic),
/// to the last bit.
///
/// ```
/// use ndshm::primitives::SystematicPlan;
///
/// let weights: Vec<f64> = (0..10_000).map(|i| (i % 7) as f64).collect();
/// // Two processes: the first has two tiles, the second has the rest.
/// let (mine, yours) = weights.split_at(2 * SystematicPlan::TILE);
/// let sums = [mine, yours].map(SystematicPlan::sums).concat();
/// let plan = SystematicPlan::new(&sums, 0.5, 10_000)?;
///
/// // The offspring of the first process's particles.
/// let own = plan.of_tiles(0..2);
/// let mut ancestors = vec![0; own.len()];
/// plan.expand(own, 0, mine, &mut ancestors)?;
/// assert!(ancestors.is_sorted());
/// assert!(ancestors.iter().all(|&ancestor| (ancestor as usize) < mine.len()));
///
/// // The second process's particles.
/// let own = plan.of_tiles(2..3);
/// let mut ancestors = vec![0; own.len()];
/// plan.expand(own, 2, yours, &mut ancestors)?;
/// assert!(ancestors.iter().all(|&ancestor| (ancestor as usize) >= mine.len()));
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct SystematicPlan {
    grid: Grid,
    /// The weights are multiplied by this.
    scale: Scale,
    /// The sum of the weights before each tile, and the sum of all.
    starts: Vec<f64>,
    first: Vec<usize>,
}

impl SystematicPlan {
    /// The number of weights in a tile. The last tile may have fewer.
    pub const TILE: usize = TILE;

    /// Returns the sum of each tile of `weights`, for [`new`](SystematicPlan::new). `weights` begin
    /// at a tile's first weight and end at a tile's last weight. The sum of a tile with an invalid
    /// weight (negative, infinite or NaN) is NaN.
    ///
    /// [`SystematicPlan`] has an example.
    pub fn sums<T: Real>(weights: &[T]) -> Vec<f64> {
        weights.chunks(TILE).map(sum_of_weights).collect()
    }

    /// Makes the plan for `offspring` offspring from the [sums](SystematicPlan::sums) of all tiles
    /// in order, which it adds in this order. `u` is from [0, 1), as in
    /// [`Pool::resample_systematic`](crate::Pool::resample_systematic).
    ///
    /// [`SystematicPlan`] has an example.
    ///
    /// # Errors
    /// - [`PrimitiveError::Offset`] if `u` is not in [0, 1).
    /// - [`PrimitiveError::Plan`] if a sum is negative or NaN, if the sum of all is infinite or
    ///   below 2^-970 (and so if it is 0), or if there are 2^51 offspring or more.
    pub fn new(sums: &[f64], u: f64, offspring: usize) -> Result<SystematicPlan, PrimitiveError> {
        check(u, offspring)?;
        let is_sum = |&sum: &f64| sum >= 0.0;
        if let Some(tile) = sums.iter().position(|sum| !is_sum(sum)) {
            let sum = sums[tile];
            return Err(problem(format!(
                "the sum of tile {tile} is {sum:?}: weights must be finite and not negative"
            )));
        }
        let starts = starts_of(sums);
        if !is_divisor(&starts) {
            let total = starts.last().copied().unwrap_or(0.0);
            return Err(problem(format!(
                "the sum of all weights is {total:?}, and must be finite and at least \
                 {LEAST_SUM:?}: divide all weights by the greatest of them"
            )));
        }
        Ok(SystematicPlan::of(starts, Scale::ONE, u, offspring))
    }

    /// Makes the plan of weights that have the sums `starts` once they are multiplied by `scale`.
    pub(super) fn of(starts: Vec<f64>, scale: Scale, u: f64, offspring: usize) -> SystematicPlan {
        let grid = Grid::of(&starts, u, offspring);
        let first = starts.iter().map(|&start| match start >= grid.total {
            true => offspring,
            false => grid.below(start).clamp(0, offspring as i64) as usize,
        });
        SystematicPlan {
            first: first.collect(),
            grid,
            scale,
            starts,
        }
    }

    /// Returns the first offspring of each tile, followed by the number of all offspring. A tile's
    /// offspring end where those of the next tile begin.
    ///
    /// ```
    /// use ndshm::primitives::SystematicPlan;
    ///
    /// let sums = SystematicPlan::sums(&[1.0; 10_000]);
    /// let plan = SystematicPlan::new(&sums, 0.5, 10_000)?;
    /// assert_eq!((plan.tiles(), plan.offspring()), (3, 10_000));
    /// assert_eq!(plan.first(), [0, 4032, 8064, 10_000]);   // the weights are equal
    /// assert_eq!(plan.tiles_of(4000..4100), 0..2);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn first(&self) -> &[usize] {
        &self.first
    }

    /// Returns the number of tiles.
    ///
    /// [`first`](SystematicPlan::first) has an example.
    pub fn tiles(&self) -> usize {
        self.first.len() - 1
    }

    /// Returns the number of offspring.
    ///
    /// [`first`](SystematicPlan::first) has an example.
    pub fn offspring(&self) -> usize {
        self.first.last().copied().unwrap_or(0)
    }

    /// Returns the offspring of a range of tiles. Tiles that do not exist have no offspring.
    ///
    /// [`SystematicPlan`] has an example.
    pub fn of_tiles(&self, tiles: Range<usize>) -> Range<usize> {
        let first = |tile: usize| self.first.get(tile).copied().unwrap_or(self.offspring());
        first(tiles.start)..first(tiles.end.max(tiles.start))
    }

    /// Returns the smallest range of tiles that contains the ancestors of `offspring`.
    ///
    /// [`first`](SystematicPlan::first) has an example.
    pub fn tiles_of(&self, offspring: Range<usize>) -> Range<usize> {
        let Some(last) = offspring
            .end
            .checked_sub(1)
            .filter(|_| !offspring.is_empty())
        else {
            return 0..0;
        };
        let tile_of = |one: usize| self.first.partition_point(|&first| first <= one);
        let tiles = self.tiles();
        tile_of(offspring.start).saturating_sub(1).min(tiles)..tile_of(last).min(tiles)
    }

    /// Writes the ancestors of the offspring in `offspring` to `ancestors`.
    ///
    /// `weights` are a part of the weights of which the plan was made. They begin at the first
    /// weight of tile `first_tile` and contain all tiles [of](SystematicPlan::tiles_of) these
    /// offspring. Ancestors count from the first of *all* weights.
    ///
    /// [`SystematicPlan`] has an example.
    ///
    /// # Errors
    /// [`PrimitiveError::Plan`] if the plan does not have these offspring, if `ancestors` has
    /// another length, or if `weights` lack a tile or have another sum there. `ancestors` may be
    /// partly written.
    pub fn expand<T: Real>(
        &self,
        offspring: Range<usize>,
        first_tile: usize,
        weights: &[T],
        ancestors: &mut [u64],
    ) -> Result<(), PrimitiveError> {
        let all = self.offspring();
        if offspring.start > offspring.end || offspring.end > all {
            return Err(problem(format!(
                "{offspring:?} is not a range of its {all} offspring"
            )));
        }
        if ancestors.len() != offspring.len() {
            return Err(problem(format!(
                "{offspring:?} are {} offspring: pass a slice of this length for their ancestors, \
                 not of length {}",
                offspring.len(),
                ancestors.len()
            )));
        }
        let mut wrong = None;
        let sums_of = |tile: usize, sums: &mut [f64; TILE]| {
            let start = self.starts.get(tile)?;
            let end = self.starts.get(tile + 1)?;
            let found = (tile.checked_sub(first_tile)).and_then(|at| weights.chunks(TILE).nth(at));
            let Some(of_tile) = found else {
                wrong = Some((tile, None));
                return None;
            };
            let sums = &mut sums[..of_tile.len()];
            if self.scale == Scale::ONE {
                running(of_tile, *start, sums);
            } else {
                let mut scaled = [0.0; TILE];
                let scaled = &mut scaled[..of_tile.len()];
                for (to, x) in scaled.iter_mut().zip(of_tile) {
                    *to = self.scale.of(x.to_f64());
                }
                running(scaled, *start, sums);
            }
            // The last cumulative weight is the start of the next tile, to the last bit.
            let last = sums.last().copied();
            if last != Some(*end) {
                wrong = Some((tile, last));
                return None;
            }
            Some(of_tile.len())
        };
        descend_from(
            &self.grid,
            offspring.start,
            &self.starts,
            ancestors,
            sums_of,
        );
        match wrong {
            None => Ok(()),
            Some((tile, None)) => Err(problem(format!(
                "{offspring:?} have ancestors in tiles {:?}, but tile {tile} is missing in {} \
                 weights from tile {first_tile} on",
                self.tiles_of(offspring.clone()),
                weights.len()
            ))),
            Some((tile, Some(sum))) => Err(problem(format!(
                "the weights up to the end of tile {tile} sum to {sum:?}, but the plan was made of \
                 {:?}: pass the weights of which it was made",
                self.starts[tile + 1]
            ))),
        }
    }
}

/// Checks the offset and the number of offspring.
pub(super) fn check(u: f64, offspring: usize) -> Result<(), PrimitiveError> {
    if !(0.0..1.0).contains(&u) {
        return Err(PrimitiveError::Offset { u });
    }
    if offspring >= MOST_OFFSPRING {
        return Err(problem(format!(
            "{offspring} offspring are too many: the limit is {MOST_OFFSPRING}"
        )));
    }
    Ok(())
}

fn problem(problem: String) -> PrimitiveError {
    PrimitiveError::Plan { problem }
}
