//! The order of additions in a tile of floats: its sum, and its running sums.
//!
//! Element `i` of a tile belongs to lane `i % 8`. Each lane is summed from its first element on, and
//! the sum of the tile is `((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))`. Neighbouring elements
//! are in different lanes, so additions need not wait for each other, and memory is read in order.
//!
//! A running sum is that sum for the elements so far. It is computed from the sums of the lanes,
//! by the same additions. So it equals the sum of these elements to the last bit. It never decreases
//! if no element is negative: a later sum has the same additions of numbers that are not less, and
//! rounding is monotone.

/// Chains of additions that run in parallel, because each addition waits for the previous one of
/// its chain.
const LANES: usize = 8;

/// Bytes between the memory that is read and the memory that is requested meanwhile.
///
/// Measured with arrays in main memory: sums take a tenth less time with 512 bytes. A distance of a
/// whole tile makes sums of arrays in the cache a quarter slower.
const AHEAD: usize = 512;

/// Requests the memory `AHEAD` bytes behind a row. The processor does this too, but begins anew in
/// each page.
#[inline(always)]
fn fetch_ahead<T>(row: &[T; LANES]) {
    // Only computed: it may lie behind the array.
    let place = row.as_ptr().wrapping_byte_add(AHEAD);
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Returns the sum of `term` over a tile.
///
/// Eight lanes are enough: memory is not faster, and sixteen would cost a running sum one more
/// addition per element.
pub(super) fn sum_by<T: Copy>(tile: &[T], term: impl Fn(T) -> f64) -> f64 {
    let (rows, rest) = tile.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for row in rows {
        fetch_ahead(row);
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane += term(x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += term(x);
    }
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))
}

/// Writes to `sums` `start` plus the sum of the tile up to and including each element.
pub(super) fn running<T: Copy + Into<f64>>(tile: &[T], start: f64, sums: &mut [f64]) {
    run_to::<_, _, true>(tile, start, sums, |sum| sum);
}

/// Writes to `dst` `start` plus the sum of the tile before each element. `INCLUSIVE` adds the element
/// itself.
pub(super) fn run_to<T: Copy + Into<f64>, U: Copy, const INCLUSIVE: bool>(
    src: &[T],
    start: f64,
    dst: &mut [U],
    of_f64: impl Fn(f64) -> U,
) {
    let mut sums = Running::<INCLUSIVE>::new(start);
    let ((rows, rest), (places, last)) = (src.as_chunks(), dst.as_chunks_mut());
    for (row, places) in rows.iter().zip(places) {
        fetch_ahead(row);
        *places = sums.next(row.map(T::into)).map(&of_f64);
    }
    for (place, sum) in last.iter_mut().zip(sums.next(padded(rest))) {
        *place = of_f64(sum);
    }
}

/// Does the same as [`run_to`], in place.
pub(super) fn run<T: Copy + Into<f64>, const INCLUSIVE: bool>(
    tile: &mut [T],
    start: f64,
    of_f64: impl Fn(f64) -> T,
) {
    let mut sums = Running::<INCLUSIVE>::new(start);
    let (rows, rest) = tile.as_chunks_mut();
    for row in rows {
        fetch_ahead(row);
        *row = sums.next(row.map(T::into)).map(&of_f64);
    }
    let last = sums.next(padded(rest));
    for (place, sum) in rest.iter_mut().zip(last) {
        *place = of_f64(sum);
    }
}

/// Returns the rest of a tile, followed by zeros.
fn padded<T: Copy + Into<f64>>(rest: &[T]) -> [f64; LANES] {
    core::array::from_fn(|at| rest.get(at).map_or(0.0, |&x| x.into()))
}

/// The running sums of a tile after some rows of `LANES` elements.
struct Running<const INCLUSIVE: bool> {
    start: Pair,
    /// The lanes in pairs: 0 and 1, 2 and 3, 4 and 5, 6 and 7.
    lanes: [Pair; LANES / 2],
    /// `l2 + l6` and `l3 + l7`.
    right: Pair,
    /// The sum of the even lanes and that of the odd ones.
    halves: Pair,
    /// `start` plus the sum so far.
    last: f64,
}

impl<const INCLUSIVE: bool> Running<INCLUSIVE> {
    fn new(start: f64) -> Self {
        let zero = pair([0.0; 2]);
        Running {
            start: pair([start; 2]),
            lanes: [zero; LANES / 2],
            right: zero,
            halves: zero,
            last: start,
        }
    }

    /// Adds a row. Returns the sums for its elements.
    ///
    /// Two elements are added at a time. An addition of the sum is repeated only if one of its terms
    /// has changed.
    #[inline(always)]
    fn next(&mut self, row: [f64; LANES]) -> [f64; LANES] {
        let row: [Pair; LANES / 2] = bytemuck::cast(row);
        let [l01, l23, l45, l67] = self.lanes;

        let l01 = add(l01, row[0]);
        let left = add(l01, l45);
        let after_1 = add(left, self.right);
        let l23 = add(l23, row[1]);
        let right = add(l23, l67);
        let after_3 = add(left, right);
        let l45 = add(l45, row[2]);
        let left = add(l01, l45);
        let after_5 = add(left, right);
        let l67 = add(l67, row[3]);
        self.right = add(l23, l67);
        let after_7 = add(left, self.right);

        let sums = [
            add(self.start, totals(self.halves, after_1)),
            add(self.start, totals(after_1, after_3)),
            add(self.start, totals(after_3, after_5)),
            add(self.start, totals(after_5, after_7)),
        ];
        self.lanes = [l01, l23, l45, l67];
        self.halves = after_7;
        let sums: [f64; LANES] = bytemuck::cast(sums);
        if INCLUSIVE {
            return sums;
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
        [
            core::mem::replace(&mut self.last, s7),
            s0,
            s1,
            s2,
            s3,
            s4,
            s5,
            s6,
        ]
    }
}

/// Two numbers that are added at a time.
///
/// Left to itself, the compiler packs the additions of a row into other pairs, and needs so many
/// moves between them that running sums take half as long again.
#[cfg(target_arch = "x86_64")]
type Pair = core::arch::x86_64::__m128d;
#[cfg(not(target_arch = "x86_64"))]
type Pair = [f64; 2];

#[inline(always)]
fn pair(numbers: [f64; 2]) -> Pair {
    bytemuck::cast(numbers)
}

#[inline(always)]
fn add(a: Pair, b: Pair) -> Pair {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2, which is the only requirement of this addition.
    return unsafe { core::arch::x86_64::_mm_add_pd(a, b) };
    #[cfg(not(target_arch = "x86_64"))]
    [a[0] + b[0], a[1] + b[1]]
}

/// Returns the totals of the two halves of a sum: after the even half has changed from `old` to
/// `new`, and after both have.
#[inline(always)]
fn totals(old: Pair, new: Pair) -> Pair {
    #[cfg(target_arch = "x86_64")]
    let (even, odd) = {
        use core::arch::x86_64::{_mm_unpackhi_pd, _mm_unpacklo_pd};
        // SAFETY: every x86-64 processor has SSE2, which is the only requirement.
        let even = unsafe { _mm_unpacklo_pd(new, new) };
        // SAFETY: as above.
        (even, unsafe { _mm_unpackhi_pd(old, new) })
    };
    #[cfg(not(target_arch = "x86_64"))]
    let (even, odd) = ([new[0]; 2], [old[1], new[1]]);
    add(even, odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::TILE;
    use crate::primitives::number::sealed::Number;

    /// The definition in the documentation of `prefix_sum`.
    fn by_definition(tile: &[f64]) -> f64 {
        let lane = |lane| {
            tile.iter()
                .skip(lane)
                .step_by(LANES)
                .fold(0.0, |sum, x| sum + x)
        };
        let of_four = |first| (lane(first) + lane(first + 4)) + (lane(first + 2) + lane(first + 6));
        of_four(0) + of_four(1)
    }

    #[test]
    fn sums_have_the_order_of_their_definition_for_every_length() {
        // Numbers of different sizes: another order would round differently.
        let tile: Vec<f64> = (0..TILE as i32)
            .map(|at| f64::from(at % 7 + 1) * f64::from(at % 31 - 9).exp2() / 3.0)
            .collect();
        let all = (0..=TILE).map(|len| by_definition(&tile[..len]));
        let all: Vec<f64> = all.collect();
        assert!(all.is_sorted(), "sums of positive numbers never decrease");
        let from =
            |start: f64, sums: &[f64]| -> Vec<f64> { sums.iter().map(|sum| start + sum).collect() };
        for len in (0..=200).chain([TILE - 65, TILE - 1, TILE]) {
            let tile = &tile[..len];
            assert_eq!(sum_by(tile, |x| x), all[len], "{len} elements");
            let mut sums = vec![0.0; len];
            running(tile, 0.0, &mut sums);
            assert_eq!(sums, all[1..=len], "{len} elements");
            for (inclusive, expected) in [(true, &all[1..=len]), (false, &all[..len])] {
                let expected = from(0.5, expected);
                Number::run_to(tile, 0.5, inclusive, &mut sums);
                assert_eq!(sums, expected, "{len} elements, inclusive: {inclusive}");
                sums.copy_from_slice(tile);
                Number::run(&mut sums, 0.5, inclusive);
                assert_eq!(sums, expected, "{len} elements, inclusive: {inclusive}");
            }
        }
    }
}
