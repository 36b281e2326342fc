//! The elements that can be added and compared, and the summation of a tile.

use bytemuck::Pod;

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

/// Chains of additions that run in parallel, because each addition waits for the previous one of
/// its chain.
const LANES: usize = 8;

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
        fn run_to(src: &[Self], start: Self::Wide, inclusive: bool, dst: &mut [Self]) {
            dst.copy_from_slice(src);
            Self::run(dst, start, inclusive);
        }
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
    ($($type:ty, $as_f64:expr;)*) => {$(
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
                sum_of_lanes::<$type, true>(tile, |x| x.into())
            }

            fn run(tile: &mut [Self], start: f64, inclusive: bool) {
                let mut sums = [0.0; super::TILE];
                // Tiles have at most TILE elements.
                let sums = &mut sums[..tile.len().min(super::TILE)];
                running(tile, start, sums);
                if inclusive {
                    for (x, &sum) in tile.iter_mut().zip(&*sums) {
                        *x = sum as $type;
                    }
                } else if let Some((first, rest)) = tile.split_first_mut() {
                    *first = start as $type;
                    for (x, &sum) in rest.iter_mut().zip(&*sums) {
                        *x = sum as $type;
                    }
                }
            }

            fn run_to(src: &[Self], start: f64, inclusive: bool, dst: &mut [Self]) {
                let places: Option<&mut [f64]> = if inclusive { $as_f64(dst) } else { None };
                if let Some(places) = places {
                    return run_lanes::<$type, true>(src, start, places);
                }
                dst.copy_from_slice(src);
                Self::run(dst, start, inclusive);
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
    f32, |_: &mut [f32]| None;
    f64, Some;
}

/// Splits the tile into `LANES` parts of equal length, and the rest.
fn lanes<T>(tile: &[T]) -> ([&[T]; LANES], &[T]) {
    let length = tile.len() / LANES;
    let (even, rest) = tile.split_at(length * LANES);
    (
        core::array::from_fn(|lane| &even[lane * length..][..length]),
        rest,
    )
}

/// Elements of a lane that are added before the next lane's: a cache line of `f64`.
const BLOCK: usize = 8;

/// Asks for the cache lines behind a tile that correspond to a block of each lane, so that the next
/// tile is in the cache when its turn comes.
///
/// The lanes lie in different pages, and each is too short for the processor to recognise it in time.
/// The next tile of a worker is nearly always the next one in memory.
///
/// Only for tiles of arrays: behind a buffer on the stack there may be no memory, and each request
/// would search for it.
#[inline(always)]
fn fetch_ahead<T>(tile: &[T], at: usize) {
    let length = tile.len() / LANES;
    for lane in 0..LANES {
        // Only computed: it may lie behind the array.
        let place = tile.as_ptr().wrapping_add(tile.len() + lane * length + at);
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a prefetch reads nothing that the program can see, and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }
}

/// Returns the sum of `term` over a tile: the sum of each lane from its first element on, then the
/// sum of the lanes in order, then the rest.
pub(super) fn sum_by<T: Copy>(tile: &[T], term: impl Fn(T) -> f64) -> f64 {
    sum_of_lanes::<T, false>(tile, term)
}

/// Does the same as [`sum_by`]. With `AHEAD` it fetches the memory behind the tile.
fn sum_of_lanes<T: Copy, const AHEAD: bool>(tile: &[T], term: impl Fn(T) -> f64) -> f64 {
    let (lanes, rest) = lanes(tile);
    let in_blocks = lanes.map(|lane| lane.as_chunks::<BLOCK>());
    let mut sums = [0.0; LANES];
    for block in 0..in_blocks[0].0.len() {
        if AHEAD {
            fetch_ahead(tile, block * BLOCK);
        }
        for at in 0..BLOCK {
            for (sum, (lane, _)) in sums.iter_mut().zip(&in_blocks) {
                *sum += term(lane[block][at]);
            }
        }
    }
    for (sum, (_, end)) in sums.iter_mut().zip(in_blocks) {
        *sum = end.iter().fold(*sum, |sum, &x| sum + term(x));
    }
    let last: f64 = rest.iter().fold(0.0, |sum, &x| sum + term(x));
    sums.iter().fold(0.0, |total, sum| total + sum) + last
}

/// Writes to `sums` `start` plus the sum of the tile up to and including each element.
///
/// Each lane is summed from its first element on. The sum of the previous lanes, and then `start`,
/// are added to that. Rounding is monotone, and a lane begins at exactly the number at which the
/// previous lane ends. So the sums of non-negative numbers never decrease, and the last one is
/// `start` plus [`sum_by`].
pub(super) fn running<T: Copy + Into<f64>>(tile: &[T], start: f64, sums: &mut [f64]) {
    run_lanes::<T, false>(tile, start, sums);
}

/// Does the same as [`running`]. With `AHEAD` it fetches the memory behind the tile and its sums.
fn run_lanes<T: Copy + Into<f64>, const AHEAD: bool>(tile: &[T], start: f64, sums: &mut [f64]) {
    let length = tile.len() / LANES;
    let (in_lanes, rest) = lanes(tile);
    let mut sum = [0.0; LANES];
    for at in 0..length {
        if AHEAD && at.is_multiple_of(BLOCK) {
            fetch_ahead(tile, at);
            fetch_ahead(sums, at);
        }
        for (lane, sum) in sum.iter_mut().enumerate() {
            *sum += in_lanes[lane][at].into();
            sums[lane * length + at] = *sum;
        }
    }
    let mut before = 0.0;
    for (lane, sum) in sum.into_iter().enumerate() {
        for sum in &mut sums[lane * length..][..length] {
            *sum = start + (before + *sum);
        }
        before += sum;
    }
    let mut sum = 0.0;
    for (place, &x) in sums[length * LANES..].iter_mut().zip(rest) {
        sum += x.into();
        *place = start + (before + sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::TILE;

    /// The definition in the documentation of `prefix_sum`, one element at a time.
    fn by_definition(tile: &[f64], start: f64) -> Vec<f64> {
        let length = tile.len() / LANES;
        let (mut before, mut sums) = (0.0, Vec::new());
        for lane in 0..=LANES {
            let end = if lane < LANES {
                length
            } else {
                tile.len() - LANES * length
            };
            let mut sum = 0.0;
            for x in &tile[lane * length..][..end] {
                sum += x;
                sums.push(start + (before + sum));
            }
            before += sum;
        }
        sums
    }

    #[test]
    fn sums_have_the_order_of_their_definition_for_every_length() {
        // Numbers of different sizes: another order would round differently.
        let tile: Vec<f64> = (0..TILE as i32)
            .map(|at| f64::from(at % 7 + 1) * f64::from(at % 31 - 9).exp2() / 3.0)
            .collect();
        for len in (0..=200).chain([TILE - 65, TILE - 1, TILE]) {
            let tile = &tile[..len];
            let expected = by_definition(tile, 0.0);
            let sum = expected.last().copied().unwrap_or(0.0);
            assert_eq!(sum_by(tile, |x| x), sum, "{len} elements");
            assert_eq!(<f64 as sealed::Number>::sum_of(tile), sum, "{len} elements");
            let mut sums = vec![0.0; len];
            running(tile, 0.0, &mut sums);
            assert_eq!(sums, expected, "{len} elements");
            sealed::Number::run_to(tile, 0.5, true, &mut sums);
            assert_eq!(sums, by_definition(tile, 0.5), "{len} elements");
        }
    }
}
