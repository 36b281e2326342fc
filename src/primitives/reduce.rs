//! Reductions of whole arrays: sum, extremes, mean and variance.

use bytemuck::{Pod, Zeroable};
use ndarray::Dimension;

use super::flat::FlatRead;
use super::number::sum_by;
use super::{Number, shape_of};
use crate::error::PrimitiveError;
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};

impl Pool<'_> {
    /// The sum of all elements: as `u64` of unsigned integers, `i64` of signed ones, `f64` of
    /// floats.
    ///
    /// Integers are added in 128 bits, so that only a sum that does not fit is an error. Floats are
    /// added in `f64`, elements in the order of memory, by tiles and lanes as in
    /// [`prefix_sum`](Pool::prefix_sum): an array in C order and one in Fortran order may differ in
    /// the last bits. The sum of no elements is 0.
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
    /// [`PrimitiveError::Overflow`]; [`PrimitiveError::Pool`], as [`for_each`](Pool::for_each).
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

    /// The least element; see [`min_max`](Pool::min_max).
    ///
    /// # Errors
    /// As [`min_max`](Pool::min_max).
    pub fn min<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T, PrimitiveError> {
        Ok(self.extremes("min", x)?.0)
    }

    /// The greatest element; see [`min_max`](Pool::min_max).
    ///
    /// # Errors
    /// As [`min_max`](Pool::min_max).
    pub fn max<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T, PrimitiveError> {
        Ok(self.extremes("max", x)?.1)
    }

    /// The least and the greatest element.
    ///
    /// If an element is NaN, both are NaN: in a simulation that is the thing to know. Of zeros of
    /// both signs either may be given, the same one for any number of workers.
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] for an empty array; [`PrimitiveError::Pool`], as
    /// [`for_each`](Pool::for_each).
    pub fn min_max<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<(T, T), PrimitiveError> {
        self.extremes("min_max", x)
    }

    /// The arithmetic mean, the sum divided by the number of elements, in `f64`.
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] for an empty array; [`PrimitiveError::Pool`], as
    /// [`for_each`](Pool::for_each).
    pub fn mean<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<f64, PrimitiveError> {
        let elements = self.at_least("mean", x, 1)?;
        Ok(T::wide_to_f64(self.wide_sum(x)?) / elements as f64)
    }

    /// The sum of squared deviations from the mean, divided by the number of elements less `ddof`,
    /// in `f64`: 0 for the variance of these elements, 1 for the unbiased estimate of the variance
    /// of what they are a sample of.
    ///
    /// Within a tile, the corrected two-pass formula (equation 1.7 of T. F. Chan, G. H. Golub and
    /// R. J. LeVeque, "Algorithms for computing the sample variance: analysis and recommendations",
    /// The American Statistician 37, 1983); tiles are combined by their equation 2.1. It loses no
    /// digits to a mean that is large against the deviations. With a NaN or an infinity among the
    /// elements it is NaN.
    ///
    /// # Errors
    /// [`PrimitiveError::TooFew`] unless there are more than `ddof` elements;
    /// [`PrimitiveError::Pool`], as [`for_each`](Pool::for_each).
    pub fn variance<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
        ddof: usize,
    ) -> Result<f64, PrimitiveError> {
        let elements = self.at_least("variance", x, ddof.saturating_add(1))?;
        let tiles = self.tiles(FlatRead::new(x))?;
        let none = Moments::zeroed();
        let all = self.map_reduce(&tiles, &(), moments_of, none, Moments::merge)?;
        Ok(all.squares / (elements - ddof) as f64)
    }

    fn wide_sum<T: Number, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<T::Wide, PrimitiveError> {
        let tiles = self.tiles(FlatRead::new(x))?;
        Ok(self.map_reduce(&tiles, &(), sum_of::<T>, T::ZERO, T::add)?)
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

    /// The number of elements, if there are that many.
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

fn sum_of<T: Number>(tile: &[T], _: &(), _: &TileContext) -> T::Wide {
    T::sum_of(tile)
}

#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
fn is_nan<T: PartialEq>(x: &T) -> bool {
    x != x
}

/// Least and greatest of two pairs; a pair of NaN wins.
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

/// Least and greatest of a tile, which has at least one element; NaN twice if there is one.
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
    // A second look costs less than a third result in the loop above.
    if tile.iter().fold(false, |nan, x| nan | is_nan(x)) {
        return [tile.iter().copied().find(is_nan).unwrap_or(first); 2];
    }
    let lanes = least.into_iter().zip(greatest).map(|(a, b)| [a, b]);
    let rest = rest.iter().map(|&x| [x; 2]);
    lanes.chain(rest).fold([first; 2], wider)
}

/// What is known of some elements: how many, their mean, and the sum of squared deviations from it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Moments {
    elements: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn merge(self, other: Moments) -> Moments {
        let elements = self.elements + other.elements;
        if self.elements == 0.0 {
            return other;
        }
        let apart = other.mean - self.mean;
        let share = other.elements / elements;
        Moments {
            elements,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.elements * share,
        }
    }
}

fn moments_of<T: Number>(tile: &[T], _: &(), _: &TileContext) -> Moments {
    let elements = tile.len() as f64;
    let mean = T::wide_to_f64(T::sum_of(tile)) / elements;
    let apart = sum_by(tile, |x: T| x.to_f64() - mean);
    let squares = sum_by(tile, |x: T| {
        let apart = x.to_f64() - mean;
        apart * apart
    });
    Moments {
        elements,
        mean,
        squares: squares - apart * apart / elements,
    }
}
