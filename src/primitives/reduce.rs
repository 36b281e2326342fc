//! Reductions of whole arrays: sum, extremes, mean and variance.

use ndarray::{Axis, Dimension};

use super::flat::FlatRead;
use super::{Moments, Number, TILE, shape_of};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

/// Tiles that are summed by one claim if there are many: summing a tile takes half a microsecond,
/// which is short beside a claim. The result is the same.
const RUN: usize = 4;

/// There are many tiles if there are this many for each worker.
const MANY: usize = 64;

impl Pool<'_> {
    /// Returns the sum of all elements: `u64` for unsigned integers, `i64` for signed ones, `f64`
    /// for floats.
    ///
    /// Integers are added in 128 bits, so only a sum that does not fit is an error. Floats are
    /// added in `f64`, in memory order, by tiles and lanes as in [`prefix_sum`](Pool::prefix_sum).
    /// So an array in C order and one in Fortran order may differ in the last bits. The sum of no
    /// elements is 0.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem((300, 7), 250u8)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// assert_eq!(pool.sum(x)?, 525_000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::Overflow`] if the sum does not fit its type; [`PrimitiveError::Pool`] if
    /// the call fails, see [`for_each`](Pool::for_each).
    pub fn sum<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T::Sum, PrimitiveError> {
        T::total(self.wide_sum(x)?).ok_or(PrimitiveError::Overflow {
            operation: "sum",
            handle: x.into(),
            position: None,
            dtype: T::SUM,
        })
    }

    /// Returns the least element; see [`min_max`](Pool::min_max).
    ///
    /// [`min_max`](Pool::min_max) has an example.
    ///
    /// # Errors
    /// Same as [`min_max`](Pool::min_max).
    pub fn min<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T, PrimitiveError> {
        Ok(self.extremes("min", x)?.0)
    }

    /// Returns the greatest element; see [`min_max`](Pool::min_max).
    ///
    /// [`min_max`](Pool::min_max) has an example.
    ///
    /// # Errors
    /// Same as [`min_max`](Pool::min_max).
    pub fn max<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T, PrimitiveError> {
        Ok(self.extremes("max", x)?.1)
    }

    /// Returns the least and the greatest element.
    ///
    /// If an element is NaN, both are NaN, because a simulation needs to know that. If there are
    /// zeros of both signs, the result may be either, but the same one for any number of workers.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let x = table.from_shape_fn(1000, |i| (i as i64 - 500).pow(2))?;
    /// assert_eq!(pool.min_max(x)?, (0, 250_000));
    /// assert_eq!((pool.min(x)?, pool.max(x)?), (0, 250_000));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] for an empty array; [`PrimitiveError::Pool`] if the call fails,
    /// see [`for_each`](Pool::for_each).
    pub fn min_max<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<(T, T), PrimitiveError> {
        self.extremes("min_max", x)
    }

    /// Returns the arithmetic mean in `f64`: the sum divided by the number of elements.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let x = table.from_shape_fn(1000, |i| i as f64)?;
    /// assert_eq!(pool.mean(x)?, 499.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] for an empty array; [`PrimitiveError::Pool`] if the call fails,
    /// see [`for_each`](Pool::for_each).
    pub fn mean<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<f64, PrimitiveError> {
        let elements = self.at_least("mean", x, 1)?;
        Ok(T::wide_to_f64(self.wide_sum(x)?) / elements as f64)
    }

    /// Returns the sum of squared deviations from the mean, divided by the number of elements less
    /// `ddof`, in `f64`. A `ddof` of 0 gives the variance of these elements. A `ddof` of 1 gives
    /// the unbiased estimate for the population from which they are a sample.
    ///
    /// It loses no digits to a mean that is large compared with the deviations: [`Moments`]. The
    /// result is NaN if an element is NaN or infinite.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let x = table.from_array(&ndarray::array![1.0, 2.0, 3.0, 6.0])?;
    /// assert_eq!(pool.variance(x, 0)?, 3.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] unless there are more than `ddof` elements;
    /// [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn variance<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
        ddof: usize,
    ) -> Result<f64, PrimitiveError> {
        self.at_least("variance", x, ddof.saturating_add(1))?;
        let tiles = self.tiles(FlatRead::new(x))?;
        let none = Moments::default();
        let all = self.map_reduce(&tiles, &(), moments_of, none, Moments::merge)?;
        Ok(all.variance(ddof))
    }

    fn wide_sum<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T::Wide, PrimitiveError> {
        let elements: usize = shape_of(self.table(), x)?.iter().product();
        let are_many = elements / TILE >= MANY * self.workers();
        let run = if are_many { RUN } else { 1 } * TILE;
        let tiles = self.table().partition(FlatRead::new(x), Axis(0), run)?;
        let add = |sum, run: [T::Wide; RUN]| run.into_iter().fold(sum, T::add);
        Ok(self.map_reduce(&tiles, &(), sums_of::<T>, T::ZERO, add)?)
    }

    pub(super) fn extremes<T: Number, D: Dimension + 'static>(
        &mut self,
        operation: &'static str,
        x: Handle<T, D>,
    ) -> Result<(T, T), PrimitiveError> {
        let elements = self.at_least(operation, x, 1)?;
        let tiles = self.tiles(FlatRead::new(x))?;
        let parts = self.map_collect(&tiles, &(), extremes_of::<T>)?;
        let [least, greatest] = parts
            .into_iter()
            .reduce(wider)
            .ok_or(PrimitiveError::TooFew {
                operation,
                handle: x.into(),
                elements,
                needed: 1,
            })?;
        Ok((least, greatest))
    }

    /// Returns the number of elements, or an error if there are fewer than `needed`.
    fn at_least<T: Number, D: Dimension>(
        &self,
        operation: &'static str,
        x: Handle<T, D>,
        needed: usize,
    ) -> Result<usize, PrimitiveError> {
        let elements = shape_of(self.table(), x)?.iter().product();
        match elements >= needed {
            true => Ok(elements),
            false => Err(PrimitiveError::TooFew {
                operation,
                handle: x.into(),
                elements,
                needed,
            }),
        }
    }
}

/// Returns the sums of at most `RUN` tiles, followed by zeros.
fn sums_of<T: Number>(run: &[T], _: &(), _: &TileContext) -> [T::Wide; RUN] {
    let mut sums = [T::ZERO; RUN];
    for (sum, tile) in sums.iter_mut().zip(run.chunks(TILE)) {
        *sum = T::sum_of(tile);
    }
    sums
}

#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
fn is_nan<T: PartialEq>(x: &T) -> bool {
    x != x
}

/// Returns the least and the greatest of two pairs. A pair of NaN wins.
fn wider<T: Number>(a: [T; 2], b: [T; 2]) -> [T; 2] {
    if is_nan(&a[0]) {
        return a;
    }
    if is_nan(&b[0]) {
        return b;
    }
    [
        if b[0] < a[0] { b[0] } else { a[0] },
        if b[1] > a[1] { b[1] } else { a[1] },
    ]
}

/// Returns the least and the greatest of a tile with at least one element. Both are NaN if an
/// element is.
pub(super) fn extremes_of<T: Number>(tile: &[T], _: &(), _: &TileContext) -> [T; 2] {
    const LANES: usize = 8;
    let Some(&first) = tile.first() else {
        return [T::zeroed(); 2];
    };
    let (mut least, mut greatest) = ([first; LANES], [first; LANES]);
    let (chunks, rest) = tile.as_chunks::<LANES>();
    for chunk in chunks {
        for (at, &x) in chunk.iter().enumerate() {
            least[at] = if x < least[at] { x } else { least[at] };
            greatest[at] = if x > greatest[at] { x } else { greatest[at] };
        }
    }
    // A second pass costs less than a third result in the loop above.
    if tile.iter().fold(false, |nan, x| nan | is_nan(x)) {
        return [tile.iter().copied().find(is_nan).unwrap_or(first); 2];
    }
    let lanes = least.into_iter().zip(greatest).map(|(a, b)| [a, b]);
    let rest = rest.iter().map(|&x| [x; 2]);
    lanes.chain(rest).fold([first; 2], wider)
}

fn moments_of<T: Number>(tile: &[T], _: &(), _: &TileContext) -> Moments {
    Moments::of(tile)
}
