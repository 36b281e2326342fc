//! Computes minimum, maximum, mean and deviation of numbers that come in chunks.

use ndshm::ScalarType;
use ndshm::bytemuck::{AnyBitPattern, pod_read_unaligned};

use super::wide::Wide;
use crate::value::Value;

/// Positions of the numbers in a chunk of elements.
pub struct Lane {
    /// Bytes per element.
    pub stride: usize,
    /// Bytes before the first number in an element.
    pub offset: usize,
    /// Bytes from one number to the next in an element.
    pub step: usize,
    /// Numbers per element.
    pub count: usize,
}

/// Results of a summary.
pub struct Found {
    /// Count of all numbers.
    pub count: u64,
    /// Smallest number, NaNs ignored.
    pub min: Option<Value>,
    /// Largest number, NaNs ignored.
    pub max: Option<Value>,
    /// Mean of the finite numbers.
    pub mean: Option<f64>,
    /// Standard deviation of the finite numbers.
    pub std: Option<f64>,
    /// Count of NaNs.
    pub nans: u64,
    /// Count of infinities.
    pub infs: u64,
    /// Count of zeros.
    pub zeros: u64,
}

/// Accumulates numbers.
pub trait Summary {
    /// Adds the numbers of a chunk, which holds whole elements.
    fn take(&mut self, chunk: &[u8], lane: &Lane);

    /// Returns the results so far.
    fn found(&self) -> Found;
}

/// Returns a summary for numbers of this type; bools count as 0 and 1. Returns `None` for complex
/// types, which consist of two numbers.
pub fn of(scalar: ScalarType) -> Option<Box<dyn Summary>> {
    Some(match scalar {
        ScalarType::U8 | ScalarType::Bool => Box::new(Numbers::<u8>::default()),
        ScalarType::I8 => Box::new(Numbers::<i8>::default()),
        ScalarType::U16 => Box::new(Numbers::<u16>::default()),
        ScalarType::I16 => Box::new(Numbers::<i16>::default()),
        ScalarType::U32 => Box::new(Numbers::<u32>::default()),
        ScalarType::I32 => Box::new(Numbers::<i32>::default()),
        ScalarType::U64 => Box::new(Numbers::<u64>::default()),
        ScalarType::I64 => Box::new(Numbers::<i64>::default()),
        ScalarType::U128 => Box::new(Numbers::<u128>::default()),
        ScalarType::I128 => Box::new(Numbers::<i128>::default()),
        ScalarType::F32 => Box::new(Numbers::<f32>::default()),
        ScalarType::F64 => Box::new(Numbers::<f64>::default()),
        _ => return None,
    })
}

/// A number type.
trait Number: AnyBitPattern + PartialOrd + Default {
    /// `true` if sums are exact.
    const EXACT: bool;
    fn is_nan(self) -> bool;
    fn is_infinite(self) -> bool;
    /// Returns the distance from `origin`, rounded once.
    fn minus(self, origin: Self) -> f64;
    fn add_to(self, sum: &mut Wide);
    fn value(self) -> Value;
}

macro_rules! integers {
    ($kind:ident, $wide:ty, $add:ident: $($type:ty)*) => {$(
        impl Number for $type {
            const EXACT: bool = true;
            fn is_nan(self) -> bool {
                false
            }
            fn is_infinite(self) -> bool {
                false
            }
            fn minus(self, origin: Self) -> f64 {
                let distance = self.abs_diff(origin) as f64;
                if self < origin { -distance } else { distance }
            }
            fn add_to(self, sum: &mut Wide) {
                sum.$add(<$wide>::from(self));
            }
            fn value(self) -> Value {
                Value::$kind(<$wide>::from(self))
            }
        }
    )*};
}

integers!(Unsigned, u128, add_unsigned: u8 u16 u32 u64 u128);
integers!(Signed, i128, add_signed: i8 i16 i32 i64 i128);

macro_rules! floats {
    ($($kind:ident $type:ty)*) => {$(
        impl Number for $type {
            const EXACT: bool = false;
            fn is_nan(self) -> bool {
                <$type>::is_nan(self)
            }
            fn is_infinite(self) -> bool {
                <$type>::is_infinite(self)
            }
            fn minus(self, origin: Self) -> f64 {
                f64::from(self) - f64::from(origin)
            }
            fn add_to(self, _sum: &mut Wide) {}
            fn value(self) -> Value {
                Value::$kind(self)
            }
        }
    )*};
}

floats!(F32 f32 F64 f64);

/// The numbers of one type.
#[derive(Default)]
struct Numbers<T> {
    count: u64,
    nans: u64,
    infs: u64,
    zeros: u64,
    range: Option<(T, T)>,
    sum: Wide,
    /// Origin of the distances: the first number of an exact type; 0 for floats.
    origin: Option<T>,
    moments: Moments,
    /// Distances from the origin, not yet added to `moments`.
    block: Vec<f64>,
}

impl<T: Number> Numbers<T> {
    fn add(&mut self, number: T) {
        self.count += 1;
        if number.is_nan() {
            self.nans += 1;
            return;
        }
        self.zeros += u64::from(number == T::default());
        self.range = Some(match self.range {
            None => (number, number),
            Some((min, max)) => (
                if number < min { number } else { min },
                if number > max { number } else { max },
            ),
        });
        if number.is_infinite() {
            self.infs += 1;
            return;
        }
        number.add_to(&mut self.sum);
        let first = if T::EXACT { number } else { T::default() };
        let origin = *self.origin.get_or_insert(first);
        self.block.push(number.minus(origin));
    }

    fn end_block(&mut self) {
        self.moments.add(&self.block);
        self.block.clear();
    }
}

impl<T: Number> Summary for Numbers<T> {
    fn take(&mut self, chunk: &[u8], lane: &Lane) {
        for element in chunk.chunks_exact(lane.stride) {
            for at in 0..lane.count {
                let from = lane.offset + at * lane.step;
                self.add(pod_read_unaligned(&element[from..from + size_of::<T>()]));
                if self.block.len() == Moments::BLOCK {
                    self.end_block();
                }
            }
        }
        self.end_block();
    }

    fn found(&self) -> Found {
        let finite = self.moments.count;
        let some = |value: f64| (finite > 0.0).then_some(value);
        Found {
            count: self.count,
            min: self.range.map(|(min, _)| min.value()),
            max: self.range.map(|(_, max)| max.value()),
            mean: some(match T::EXACT {
                true => self.sum.to_f64() / finite,
                false => self.moments.mean,
            }),
            std: some((self.moments.squares / finite).sqrt()),
            nans: self.nans,
            infs: self.infs,
            zeros: self.zeros,
        }
    }
}

/// Mean and sum of squared distances from it, combined block by block: neither a large mean nor a
/// large count costs precision.
#[derive(Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    const BLOCK: usize = 1024;

    fn add(&mut self, block: &[f64]) {
        if block.is_empty() {
            return;
        }
        let count = block.len() as f64;
        let sum: f64 = block.iter().sum();
        let mean = match sum.is_finite() {
            true => sum / count,
            // Only the sum overflowed: divide before adding.
            false => block.iter().map(|value| value / count).sum(),
        };
        let squares: f64 = block.iter().map(|value| (value - mean).powi(2)).sum();
        if self.count == 0.0 {
            *self = Moments {
                count,
                mean,
                squares,
            };
            return;
        }
        let both = self.count + count;
        let apart = mean - self.mean;
        self.squares += squares + apart * apart * (self.count / both) * count;
        self.mean += apart * (count / both);
        self.count = both;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: fn(usize) -> Lane = |size| Lane {
        stride: size,
        offset: 0,
        step: size,
        count: 1,
    };

    fn found_in<T: Number + ndshm::bytemuck::NoUninit>(numbers: &[T]) -> Found {
        let mut summary = Numbers::<T>::default();
        for chunk in numbers.chunks(3000) {
            summary.take(ndshm::bytemuck::cast_slice(chunk), &PLAIN(size_of::<T>()));
        }
        summary.found()
    }

    #[test]
    fn integers_are_exact() {
        let found = found_in(&[u64::MAX, u64::MAX - 1, u64::MAX - 2]);
        assert_eq!(found.min, Some(Value::Unsigned((u64::MAX - 2).into())));
        assert_eq!(found.max, Some(Value::Unsigned(u64::MAX.into())));
        assert_eq!(found.mean, Some((u64::MAX - 1) as f64));
        // As `f64` the three numbers are equal.
        assert!((found.std.unwrap() - (2f64 / 3.0).sqrt()).abs() < 1e-15);
        let found = found_in(&[i128::MIN, i128::MAX]);
        assert_eq!(found.mean, Some(-0.5));
        assert_eq!(found.std, Some(2f64.powi(127)));
        let all: Vec<i8> = (-128..=127).collect();
        let found = found_in(&all);
        assert_eq!((found.mean, found.zeros), (Some(-0.5), 1));
    }

    #[test]
    fn a_large_mean_leaves_the_deviation_its_digits() {
        let numbers: Vec<f64> = (0..10_000).map(|at| 1e9 + f64::from(at % 2)).collect();
        let found = found_in(&numbers);
        assert_eq!(found.mean, Some(1e9 + 0.5));
        assert!((found.std.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(found.count, 10_000);
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let found = found_in(&[f32::NAN, 1.0, f32::NEG_INFINITY, -0.0, 3.0]);
        assert_eq!(
            (found.count, found.nans, found.infs, found.zeros),
            (5, 1, 1, 1)
        );
        assert_eq!(found.min, Some(Value::F32(f32::NEG_INFINITY)));
        assert_eq!(found.max, Some(Value::F32(3.0)));
        assert!((found.mean.unwrap() - 4.0 / 3.0).abs() < 1e-15);
        let none = found_in(&[f64::NAN]);
        assert_eq!((none.min, none.mean, none.std), (None, None, None));
        let huge = found_in(&[f64::MAX, f64::MAX]);
        assert_eq!((huge.mean, huge.std), (Some(f64::MAX), Some(0.0)));
    }

    #[test]
    fn a_lane_takes_its_own_numbers() {
        let chunk: Vec<u8> = (0..12).collect();
        let lane = Lane {
            stride: 6,
            offset: 1,
            step: 2,
            count: 2,
        };
        let mut summary = Numbers::<u8>::default();
        summary.take(&chunk, &lane);
        let found = summary.found();
        assert_eq!(found.count, 4, "1, 3, 7, 9");
        assert_eq!(found.mean, Some(5.0));
    }
}
