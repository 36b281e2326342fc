//! Computes minimum, maximum, mean and deviation of numbers that come in chunks.

use std::marker::PhantomData;

use ndshm::bytemuck::{AnyBitPattern, pod_read_unaligned};
use ndshm::element::ScalarType;
use ndshm::primitives::Moments;

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
pub struct Results {
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
    fn results(&self) -> Results;
}

/// Returns a summary for numbers of this type; bools count as 0 and 1. Returns `None` for complex
/// types, which consist of two numbers.
pub fn of(scalar: ScalarType) -> Option<Box<dyn Summary>> {
    Some(match scalar {
        ScalarType::U8 | ScalarType::Bool => numbers::<u8, _>(Value::Unsigned),
        ScalarType::U16 => numbers::<u16, _>(Value::Unsigned),
        ScalarType::U32 => numbers::<u32, _>(Value::Unsigned),
        ScalarType::U64 => numbers::<u64, _>(Value::Unsigned),
        ScalarType::U128 => numbers::<u128, _>(Value::Unsigned),
        ScalarType::I8 => numbers::<i8, _>(Value::Signed),
        ScalarType::I16 => numbers::<i16, _>(Value::Signed),
        ScalarType::I32 => numbers::<i32, _>(Value::Signed),
        ScalarType::I64 => numbers::<i64, _>(Value::Signed),
        ScalarType::I128 => numbers::<i128, _>(Value::Signed),
        ScalarType::F32 => numbers::<f32, f64>(|number| Value::F32(number as f32)),
        ScalarType::F64 => numbers::<f64, _>(Value::F64),
        _ => return None,
    })
}

/// Returns a summary for numbers that are stored as `T` and counted as `N`.
fn numbers<T, N>(value: fn(N) -> Value) -> Box<dyn Summary>
where
    T: AnyBitPattern,
    N: Number + From<T>,
{
    Box::new(Numbers {
        value,
        stored: PhantomData::<T>,
        count: 0,
        nans: 0,
        infs: 0,
        zeros: 0,
        range: None,
        sum: Wide::default(),
        origin: None,
        moments: Moments::default(),
        block: Vec::new(),
    })
}

/// The widest type of a kind of numbers: `u128`, `i128` or `f64`.
trait Number: Copy + PartialOrd + Default + 'static {
    /// `true` if sums are exact.
    const EXACT: bool;
    fn is_nan(self) -> bool {
        false
    }
    fn is_infinite(self) -> bool {
        false
    }
    /// Returns the distance from `origin`, rounded once.
    fn minus(self, origin: Self) -> f64;
    fn add_to(self, sum: &mut Wide);
}

/// Converts an integer; most are small, and conversions of 64 bits are faster.
fn to_f64(integer: u128) -> f64 {
    u64::try_from(integer).map_or(integer as f64, |small| small as f64)
}

impl Number for u128 {
    const EXACT: bool = true;
    fn minus(self, origin: u128) -> f64 {
        let distance = to_f64(self.abs_diff(origin));
        if self < origin { -distance } else { distance }
    }
    fn add_to(self, sum: &mut Wide) {
        sum.add_unsigned(self);
    }
}

impl Number for i128 {
    const EXACT: bool = true;
    fn minus(self, origin: i128) -> f64 {
        let distance = to_f64(self.abs_diff(origin));
        if self < origin { -distance } else { distance }
    }
    fn add_to(self, sum: &mut Wide) {
        sum.add_signed(self);
    }
}

impl Number for f64 {
    const EXACT: bool = false;
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
    fn minus(self, origin: f64) -> f64 {
        self - origin
    }
    fn add_to(self, _: &mut Wide) {}
}

/// Maximum distances that are collected before they are added to the moments.
const BLOCK: usize = 1 << 12;

/// Numbers that are stored as `T` and counted as `N`.
struct Numbers<T, N> {
    value: fn(N) -> Value,
    stored: PhantomData<T>,
    count: u64,
    nans: u64,
    infs: u64,
    zeros: u64,
    range: Option<(N, N)>,
    sum: Wide,
    /// Origin of the distances: the first number of an exact type; 0 for floats.
    origin: Option<N>,
    moments: Moments,
    /// Distances from the origin that `moments` does not contain yet.
    block: Vec<f64>,
}

impl<T, N: Number> Numbers<T, N> {
    fn add(&mut self, number: N) {
        self.count += 1;
        if number.is_nan() {
            self.nans += 1;
            return;
        }
        self.zeros += u64::from(number == N::default());
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
        let first = if N::EXACT { number } else { N::default() };
        let origin = *self.origin.get_or_insert(first);
        self.block.push(number.minus(origin));
    }

    fn end_block(&mut self) {
        self.moments = self.moments.merge(Moments::of(&self.block));
        self.block.clear();
    }
}

impl<T: AnyBitPattern, N: Number + From<T>> Summary for Numbers<T, N> {
    fn take(&mut self, chunk: &[u8], lane: &Lane) {
        for element in chunk.chunks_exact(lane.stride) {
            for at in 0..lane.count {
                let from = lane.offset + at * lane.step;
                let stored: T = pod_read_unaligned(&element[from..from + size_of::<T>()]);
                self.add(stored.into());
                if self.block.len() == BLOCK {
                    self.end_block();
                }
            }
        }
        self.end_block();
    }

    fn results(&self) -> Results {
        let finite = self.moments.count();
        let some = |value: f64| (finite > 0).then_some(value);
        let value = self.value;
        Results {
            count: self.count,
            min: self.range.map(|(min, _)| value(min)),
            max: self.range.map(|(_, max)| value(max)),
            mean: some(match N::EXACT {
                true => self.sum.to_f64() / finite as f64,
                false => self.moments.mean(),
            }),
            std: some(self.moments.variance(0).sqrt()),
            nans: self.nans,
            infs: self.infs,
            zeros: self.zeros,
        }
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

    fn results_of<T: ndshm::bytemuck::NoUninit + ndshm::Element>(numbers: &[T]) -> Results {
        let ndshm::element::Kind::Scalar(scalar) = T::KIND else {
            panic!("not a number");
        };
        let mut summary = of(scalar).unwrap();
        for chunk in numbers.chunks(3000) {
            summary.take(ndshm::bytemuck::cast_slice(chunk), &PLAIN(size_of::<T>()));
        }
        summary.results()
    }

    #[test]
    fn integers_are_exact() {
        let found = results_of(&[u64::MAX, u64::MAX - 1, u64::MAX - 2]);
        assert_eq!(found.min, Some(Value::Unsigned((u64::MAX - 2).into())));
        assert_eq!(found.max, Some(Value::Unsigned(u64::MAX.into())));
        assert_eq!(found.mean, Some((u64::MAX - 1) as f64));
        // As `f64` the three numbers are equal.
        assert!((found.std.unwrap() - (2f64 / 3.0).sqrt()).abs() < 1e-15);
        let found = results_of(&[i128::MIN, i128::MAX]);
        assert_eq!(found.mean, Some(-0.5));
        assert_eq!(found.std, Some(2f64.powi(127)));
        let all: Vec<i8> = (-128..=127).collect();
        let found = results_of(&all);
        assert_eq!((found.mean, found.zeros), (Some(-0.5), 1));
    }

    #[test]
    fn a_large_mean_leaves_the_deviation_its_digits() {
        let numbers: Vec<f64> = (0..10_000).map(|at| 1e9 + f64::from(at % 2)).collect();
        let found = results_of(&numbers);
        assert_eq!(found.mean, Some(1e9 + 0.5));
        assert!((found.std.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(found.count, 10_000);
    }

    #[test]
    fn what_is_not_finite_is_counted_apart() {
        let found = results_of(&[f32::NAN, 1.0, f32::NEG_INFINITY, -0.0, 3.0]);
        assert_eq!(
            (found.count, found.nans, found.infs, found.zeros),
            (5, 1, 1, 1)
        );
        assert_eq!(found.min, Some(Value::F32(f32::NEG_INFINITY)));
        assert_eq!(found.max, Some(Value::F32(3.0)));
        assert!((found.mean.unwrap() - 4.0 / 3.0).abs() < 1e-15);
        let none = results_of(&[f64::NAN]);
        assert_eq!((none.min, none.mean, none.std), (None, None, None));
        let huge = results_of(&[f64::MAX, f64::MAX]);
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
        let mut summary = of(ScalarType::U8).unwrap();
        summary.take(&chunk, &lane);
        let found = summary.results();
        assert_eq!(found.count, 4, "1, 3, 7, 9");
        assert_eq!(found.mean, Some(5.0));
    }
}
