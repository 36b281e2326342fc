//! Count, mean and variance of numbers that come in pieces.

use bytemuck::{Pod, Zeroable};

use super::lanes::sum_by;
use super::{Number, TILE};

/// Count, mean and variance of numbers that come in pieces.
///
/// Inside a piece the corrected two-pass formula is used (equation 1.7 of T. F. Chan, G. H. Golub
/// and R. J. LeVeque, "Algorithms for computing the sample variance: analysis and recommendations",
/// The American Statistician 37, 1983). Pieces are combined by their equation 2.1. So neither a
/// mean that is large compared with the deviations nor a large count costs digits.
///
/// For arrays in shared memory, [`Pool::variance`](crate::Pool::variance) computes the same in
/// parallel.
///
/// ```
/// use ndshm::primitives::Moments;
///
/// let pieces = [&[1.0, 2.0][..], &[3.0, 6.0]];
/// let all = pieces.map(Moments::of).into_iter().fold(Moments::default(), Moments::merge);
/// assert_eq!((all.count(), all.mean(), all.variance(0)), (4, 3.0, 3.5));
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct Moments {
    count: u64,
    mean: f64,
    /// Sum of the squared deviations from the mean.
    squares: f64,
}

impl Moments {
    /// Returns the moments of a piece.
    ///
    /// ```
    /// # use ndshm::primitives::Moments;
    /// assert_eq!(Moments::of(&[1.0, 2.0, 3.0]).mean(), 2.0);
    /// ```
    pub fn of<T: Number>(numbers: &[T]) -> Moments {
        // The sum of more integers may overflow.
        let tiles = numbers.chunks(TILE).map(Moments::of_tile);
        tiles.fold(Moments::default(), Moments::merge)
    }

    /// Returns the moments of at least one and at most [`TILE`] numbers.
    fn of_tile<T: Number>(tile: &[T]) -> Moments {
        let elements = tile.len() as f64;
        let sum = T::wide_to_f64(T::sum_of(tile));
        let mean = match sum.is_finite() {
            true => sum / elements,
            // If only the sum is too large, dividing first gives the mean.
            false => sum_by(tile, |x: T| x.to_f64() / elements),
        };
        let apart = sum_by(tile, |x: T| x.to_f64() - mean);
        let squares = sum_by(tile, |x: T| {
            let apart = x.to_f64() - mean;
            apart * apart
        });
        Moments {
            count: tile.len() as u64,
            mean,
            squares: squares - apart * apart / elements,
        }
    }

    /// Returns the moments of the numbers of both.
    ///
    /// ```
    /// # use ndshm::primitives::Moments;
    /// let all = Moments::of(&[1.0, 2.0]).merge(Moments::of(&[3.0]));
    /// assert_eq!((all.count(), all.mean()), (3, 2.0));
    /// ```
    #[must_use]
    pub fn merge(self, other: Moments) -> Moments {
        if self.count == 0 {
            return other;
        }
        // The counts may be any: a `Moments` can be made from bytes.
        let count = self.count.saturating_add(other.count);
        let apart = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        Moments {
            count,
            mean: self.mean + apart * share,
            squares: self.squares + other.squares + apart * apart * self.count as f64 * share,
        }
    }

    /// Returns the count of the numbers.
    ///
    /// ```
    /// # use ndshm::primitives::Moments;
    /// assert_eq!(Moments::of(&[1.0, 2.0, 3.0]).count(), 3);
    /// ```
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the arithmetic mean; NaN for no numbers.
    ///
    /// ```
    /// # use ndshm::primitives::Moments;
    /// assert_eq!(Moments::of(&[1.0, 2.0, 3.0]).mean(), 2.0);
    /// ```
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => f64::NAN,
            _ => self.mean,
        }
    }

    /// Returns the sum of squared deviations from the mean, divided by the count less `ddof`; NaN
    /// unless there are more than `ddof` numbers.
    ///
    /// [`Moments`] has an example.
    pub fn variance(&self, ddof: usize) -> f64 {
        match self.count.checked_sub(ddof as u64) {
            None | Some(0) => f64::NAN,
            Some(divisor) => self.squares / divisor as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_combined() {
        let numbers: Vec<f64> = (0..10_000).map(|at| 1e9 + f64::from(at % 2)).collect();
        let whole = Moments::of(&numbers);
        assert_eq!((whole.count(), whole.mean()), (10_000, 1e9 + 0.5));
        assert_eq!(whole.variance(0), 0.25);
        let (few, more) = numbers.split_at(3);
        let parts = Moments::of(few).merge(Moments::of(more));
        assert_eq!(parts.count(), 10_000);
        assert!((parts.mean() - whole.mean()).abs() < 1e-6, "{parts:?}");
        assert!((parts.variance(0) - 0.25).abs() < 1e-6, "{parts:?}");
        let many: Moments = bytemuck::cast([u64::MAX, 0, 0]);
        assert_eq!(many.merge(many).count(), u64::MAX);
        let none = Moments::of::<f64>(&[]);
        assert_eq!(whole.merge(none), whole);
        assert_eq!(none.merge(whole), whole);
    }

    #[test]
    fn too_few_numbers_have_no_moments() {
        let one = Moments::of(&[7u8]);
        assert_eq!((one.mean(), one.variance(0)), (7.0, 0.0));
        assert!(one.variance(1).is_nan() && one.variance(2).is_nan());
        let none = Moments::default();
        assert!(none.mean().is_nan() && none.variance(0).is_nan());
    }

    #[test]
    fn sums_do_not_overflow() {
        let many = Moments::of(&vec![u32::MAX; 3 * TILE + 1]);
        assert_eq!((many.mean(), many.variance(0)), (f64::from(u32::MAX), 0.0));
        let huge = Moments::of(&[f64::MAX, f64::MAX]);
        assert_eq!((huge.mean(), huge.variance(0)), (f64::MAX, 0.0));
        let infinite = Moments::of(&[1.0, f64::INFINITY]);
        assert_eq!(infinite.mean(), f64::INFINITY);
        assert!(infinite.variance(0).is_nan());
    }
}
