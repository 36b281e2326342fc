//! The elements that can be added and compared.

use bytemuck::Pod;

use super::lanes;
use crate::element::Element;

/// Numbers that primitives add and compare: the integers up to 64 bits, `f32` and `f64`.
///
/// Integers are added in 128 bits, so only a result that does not fit is an overflow. Floats are
/// added in `f64`. The order of additions depends only on the length of the array; see
/// [`Pool::prefix_sum`](crate::Pool::prefix_sum).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a number that primitives add: these are u8 to u64, i8 to i64, f32, f64"
)]
pub trait Number: Element + Pod + PartialOrd + sealed::Number {
    /// The type of a sum: `u64`, `i64` or `f64`.
    type Sum: Copy;
}

/// The floating-point numbers: `f32` and `f64`.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a float: `f32` or `f64`")]
pub trait Real: Number<Sum = f64> + sealed::Real {}

pub(super) mod sealed {
    use bytemuck::Pod;

    use crate::element::Element;

    pub trait Number: Copy {
        /// The type in which sums are computed: `i128` or `f64`.
        type Wide: Element + Pod;
        /// The name of the type of a sum in errors.
        const SUM: &str;
        const ZERO: Self::Wide;
        const NAME: &str;

        fn add(a: Self::Wide, b: Self::Wide) -> Self::Wide;
        /// Returns the sum of a tile. For floats it equals the last value of `running` with a start
        /// of 0.
        fn sum_of(tile: &[Self]) -> Self::Wide;
        /// Replaces each element by `start` plus the sum of the tile before it, and with
        /// `inclusive` plus the element itself. Sums that do not fit wrap; the caller has checked
        /// that there are none.
        fn run(tile: &mut [Self], start: Self::Wide, inclusive: bool);
        /// Does the same as `run`, with the results in `dst`.
        fn run_to(src: &[Self], start: Self::Wide, inclusive: bool, dst: &mut [Self]);
        /// Returns the least and the greatest sum over all beginnings of the tile. Only integers
        /// need this: their sums may overflow, floats do not.
        fn extremes(tile: &[Self]) -> [Self::Wide; 2];
        /// Returns `true` if a sum fits the type of the elements.
        fn fits(sum: Self::Wide) -> bool;
        /// Returns the sum, if it fits the type of sums.
        fn total(sum: Self::Wide) -> Option<<Self as super::Number>::Sum>
        where
            Self: super::Number;
        fn wide_to_f64(sum: Self::Wide) -> f64;
        fn to_f64(self) -> f64;
    }

    pub trait Real: Number<Wide = f64> + Into<f64> {
        fn of_f64(value: f64) -> Self;
    }
}

macro_rules! integers {
    ($($type:ty, $sum:ty, $tile:ty;)*) => {$(
        impl Number for $type {
            type Sum = $sum;
        }

        // Every sum of a tile's first elements fits the tile's sum type.
        const _: () = assert!(
            size_of::<$tile>() > size_of::<$type>() + 2 && super::TILE <= 1 << 16
        );

        impl sealed::Number for $type {
            type Wide = i128;
            const SUM: &str = stringify!($sum);
            const NAME: &str = stringify!($type);
            const ZERO: i128 = 0;

            fn add(a: i128, b: i128) -> i128 {
                // No overflow: an array has less than 2^63 elements of less than 2^64.
                a.wrapping_add(b)
            }

            fn sum_of(tile: &[Self]) -> i128 {
                tile.iter().map(|&x| <$tile>::from(x)).sum::<$tile>().into()
            }

            fn run(tile: &mut [Self], start: i128, inclusive: bool) {
                // Add modulo the type's range: the lowest bits of every sum that fits are exact.
                let mut sum = start as $type;
                for x in tile {
                    let next = sum.wrapping_add(*x);
                    *x = if inclusive { next } else { sum };
                    sum = next;
                }
            }

            fn run_to(src: &[Self], start: i128, inclusive: bool, dst: &mut [Self]) {
                dst.copy_from_slice(src);
                Self::run(dst, start, inclusive);
            }

            fn extremes(tile: &[Self]) -> [i128; 2] {
                let (mut sum, mut least, mut greatest): ($tile, $tile, $tile) = (0, 0, 0);
                for &x in tile {
                    sum += <$tile>::from(x);
                    least = least.min(sum);
                    greatest = greatest.max(sum);
                }
                [least.into(), greatest.into()]
            }

            fn fits(sum: i128) -> bool {
                <$type>::try_from(sum).is_ok()
            }

            fn total(sum: i128) -> Option<$sum> {
                sum.try_into().ok()
            }

            fn wide_to_f64(sum: i128) -> f64 {
                sum as f64
            }

            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

integers! {
    u8, u64, i64;
    u16, u64, i64;
    u32, u64, i64;
    u64, u64, i128;
    i8, i64, i64;
    i16, i64, i64;
    i32, i64, i64;
    i64, i64, i128;
}

macro_rules! floats {
    ($($type:ty)*) => {$(
        impl Number for $type {
            type Sum = f64;
        }

        impl Real for $type {}

        impl sealed::Real for $type {
            fn of_f64(value: f64) -> Self {
                value as $type
            }
        }

        impl sealed::Number for $type {
            type Wide = f64;
            const SUM: &str = "f64";
            const NAME: &str = stringify!($type);
            const ZERO: f64 = 0.0;

            fn add(a: f64, b: f64) -> f64 {
                a + b
            }

            fn sum_of(tile: &[Self]) -> f64 {
                lanes::sum_by(tile, |x| x.into())
            }

            fn run(tile: &mut [Self], start: f64, inclusive: bool) {
                let of_f64 = |sum| sum as $type;
                match inclusive {
                    true => lanes::run::<_, true>(tile, start, of_f64),
                    false => lanes::run::<_, false>(tile, start, of_f64),
                }
            }

            fn run_to(src: &[Self], start: f64, inclusive: bool, dst: &mut [Self]) {
                let of_f64 = |sum| sum as $type;
                match inclusive {
                    true => lanes::run_to::<_, _, true>(src, start, dst, of_f64),
                    false => lanes::run_to::<_, _, false>(src, start, dst, of_f64),
                }
            }

            fn extremes(_: &[Self]) -> [f64; 2] {
                [0.0; 2]
            }

            fn fits(_: f64) -> bool {
                true
            }

            fn total(sum: f64) -> Option<f64> {
                Some(sum)
            }

            fn wide_to_f64(sum: f64) -> f64 {
                sum
            }

            fn to_f64(self) -> f64 {
                self.into()
            }
        }
    )*};
}

floats! {
    f32
    f64
}
