//! Weights in logarithmic form: their sum, and their normalization.

use ndarray::{Dimension, Ix1};

use super::flat::{FlatRead, FlatWrite};
use super::lanes::sum_by;
use super::reduce::extremes_of;
use super::{Real, TILE, same_shape};
use crate::handle::Handle;
use crate::pool::{Pool, TileContext};
use crate::primitives::error::PrimitiveError;

impl Pool<'_> {
    /// Returns the logarithm of the sum of the exponentials of all elements, in `f64`.
    ///
    /// Exponentials are taken relative to the greatest element of a tile, and tiles relative to the
    /// greatest element of all. So nothing overflows, and terms that underflow are too small to
    /// matter.
    ///
    /// | elements | result |
    /// |---|---|
    /// | one of them NaN | NaN |
    /// | one of them +∞, none NaN | +∞ |
    /// | all -∞, or none at all | -∞, the logarithm of 0 |
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let log_weights = table.from_elem(8, -1000.0)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// assert_eq!(pool.log_sum_exp(log_weights)?, -1000.0 + 8f64.ln());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn log_sum_exp<T: Real, D: Dimension + 'static>(
        &mut self,
        x: Handle<T, D>,
    ) -> Result<f64, PrimitiveError> {
        let tiles = self.tiles(FlatRead::new(x))?;
        let parts = self.map_collect(&tiles, &(), log_sum_exp::<T>)?;
        let greatest = parts.iter().fold(f64::NEG_INFINITY, |greatest, part| {
            // A NaN part replaces `greatest`, and a NaN `greatest` stays.
            let below = part[0] <= greatest || greatest.is_nan();
            if below { greatest } else { part[0] }
        });
        if !greatest.is_finite() {
            return Ok(greatest);
        }
        let scaled = |&[log, sum]: &[f64; 2]| (log - greatest).exp() * sum;
        Ok(greatest + parts.iter().map(scaled).sum::<f64>().ln())
    }

    /// Writes the weights, `exp(log_weights[i])` divided by their sum, to `weights`, which may be
    /// `log_weights`. Returns the logarithm of the sum.
    ///
    /// The weights sum to 1 except for rounding. A log-weight of -∞ gives a weight of 0.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let w = table.from_array(&array![-2000.0, f64::NEG_INFINITY, -2000.0])?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// assert_eq!(pool.normalize_log_weights(w, w)?, -2000.0 + 2f64.ln());
    /// assert_eq!(*table.read(w)?, array![0.5, 0.0, 0.5]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PrimitiveError::LogWeight`] if a log-weight is NaN or +∞.
    /// - [`PrimitiveError::NoWeight`] if all are -∞.
    /// - [`PrimitiveError::TooFew`] if there are none.
    /// - [`PrimitiveError::Shapes`] if the shapes differ.
    /// - [`PrimitiveError::Pool`] if the call fails, see [`for_each`](Pool::for_each).
    pub fn normalize_log_weights<T: Real>(
        &mut self,
        log_weights: Handle<T, Ix1>,
        weights: Handle<T, Ix1>,
    ) -> Result<f64, PrimitiveError> {
        const OPERATION: &str = "normalize_log_weights";
        same_shape(self.table(), OPERATION, weights, log_weights)?;
        let (_, greatest) = self.extremes(OPERATION, log_weights)?;
        let greatest: f64 = greatest.to_f64();
        if greatest == f64::NEG_INFINITY {
            return Err(PrimitiveError::NoWeight {
                handle: log_weights.into(),
            });
        }
        if !greatest.is_finite() {
            return Err(self.bad_log_weight(log_weights)?);
        }
        let add = |sum: f64, part: f64| sum + part;
        let sum = if log_weights == weights {
            let tiles = self.tiles(FlatWrite::new(weights))?;
            self.map_reduce(&tiles, &greatest, exp_in_place::<T>, 0.0, add)?
        } else {
            let tiles = self.tiles((FlatRead::new(log_weights), FlatWrite::new(weights)))?;
            self.map_reduce(&tiles, &greatest, exp::<T>, 0.0, add)?
        };
        let tiles = self.tiles(FlatWrite::new(weights))?;
        self.for_each(&tiles, &sum, divide::<T>)?;
        Ok(greatest + sum.ln())
    }

    /// Returns the error for the first invalid log-weight.
    fn bad_log_weight<T: Real>(
        &self,
        log_weights: Handle<T, Ix1>,
    ) -> Result<PrimitiveError, PrimitiveError> {
        let values = self.table().read(log_weights)?;
        let mut values = values.iter().map(|x| x.to_f64()).enumerate();
        let bad = values.find(|(_, x)| x.is_nan() || *x == f64::INFINITY);
        let (position, log_weight) = bad.unwrap_or((0, f64::NAN));
        Ok(PrimitiveError::LogWeight {
            handle: log_weights.into(),
            position,
            log_weight,
        })
    }
}

/// Returns the greatest element of a tile, and the sum of the exponentials relative to it.
fn log_sum_exp<T: Real>(tile: &[T], params: &(), context: &TileContext) -> [f64; 2] {
    let [_, greatest] = extremes_of(tile, params, context);
    let greatest = greatest.to_f64();
    match greatest.is_finite() {
        true => [greatest, sum_by(tile, |x: T| (x.to_f64() - greatest).exp())],
        false => [greatest, 0.0],
    }
}

/// Writes the exponentials relative to the greatest log-weight. Returns their sum.
fn exp_in_place<T: Real>(tile: &mut [T], &greatest: &f64, _: &TileContext) -> f64 {
    let mut exps = [0.0; TILE];
    let exps = &mut exps[..tile.len().min(TILE)];
    for (exp, x) in exps.iter_mut().zip(&mut *tile) {
        *exp = (x.to_f64() - greatest).exp();
        *x = T::of_f64(*exp);
    }
    sum_by(exps, |exp| exp)
}

fn exp<T: Real>((src, dst): (&[T], &mut [T]), greatest: &f64, context: &TileContext) -> f64 {
    dst.copy_from_slice(src);
    exp_in_place(dst, greatest, context)
}

fn divide<T: Real>(tile: &mut [T], &sum: &f64, _: &TileContext) {
    for x in tile {
        *x = T::of_f64(x.to_f64() / sum);
    }
}
