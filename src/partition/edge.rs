//! The indices of a halo along one axis: which elements continue an array beyond its edges.

use core::ops::Range;

use ndarray::Slice;

/// The elements that continue an array beyond its edges, in a [`Halo`](super::Halo).
///
/// Beyond the end of an axis `a b c d`, a halo of 2 is:
///
/// | | before `a b c d` after | numpy's `pad` |
/// |---|---|---|
/// | `Clamped` | `a a` [`a b c d`] `d d` | `edge` |
/// | `Periodic` | `c d` [`a b c d`] `a b` | `wrap` |
/// | `Reflected` | `c b` [`a b c d`] `c b` | `reflect` |
///
/// An array `[Edge; D]` has a rule for each axis. A single `Edge` is the rule of all of them.
///
/// ```
/// use ndarray::array;
/// use ndshm::partition::{Block, Edge};
///
/// let x = array!['a', 'b', 'c', 'd'];
/// let all = Block::of_array([4]);
/// let halo = |edge| all.around(&x, [2], edge).unwrap().to_array().iter().collect::<String>();
/// assert_eq!(halo(Edge::Clamped), "aaabcddd");
/// assert_eq!(halo(Edge::Periodic), "cdabcdab");
/// assert_eq!(halo(Edge::Reflected), "cbabcdcb");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Edge {
    /// The element at the edge, repeated.
    Clamped,
    /// The elements at the other end of the axis: a ring or a torus.
    Periodic,
    /// The mirror image. The element at the edge is the mirror, and is not repeated.
    Reflected,
}

impl<const D: usize> From<Edge> for [Edge; D] {
    /// Returns the same rule for each axis.
    fn from(edge: Edge) -> [Edge; D] {
        [edge; D]
    }
}

/// A stretch of an axis in a copy, and the slice of the array's axis that has its elements. If the
/// slice has one element, it fills the stretch.
pub(super) struct Stretch {
    pub(super) to: Range<usize>,
    pub(super) from: Slice,
}

impl Edge {
    /// Returns the largest halo of an axis of `axis_len` indices. So no index is beyond two edges.
    pub(super) fn limit(self, axis_len: usize) -> usize {
        match self {
            Edge::Clamped | Edge::Periodic => axis_len,
            Edge::Reflected => axis_len.saturating_sub(1),
        }
    }

    /// Returns the array's index for `index`, which counts from the start of `range`. Returns
    /// `None` if it is neither in the range nor in the halo of `width`, which is within the
    /// [limit](Edge::limit).
    #[inline]
    pub(super) fn index(
        self,
        index: isize,
        range: &Range<usize>,
        axis_len: usize,
        width: usize,
    ) -> Option<usize> {
        let distance = index.unsigned_abs();
        if index < 0 {
            if distance > width {
                return None;
            }
            return Some(match range.start.checked_sub(distance) {
                Some(at) => at,
                // 1 for the first index before the array.
                None => match (self, distance - range.start) {
                    (Edge::Clamped, _) => 0,
                    (Edge::Periodic, before) => axis_len - before,
                    (Edge::Reflected, before) => before,
                },
            });
        }
        if distance >= range.len() + width {
            return None;
        }
        let at = range.start + distance;
        Some(match (self, at.checked_sub(axis_len)) {
            (_, None) => at,
            // 0 for the first index after the array.
            (Edge::Clamped, Some(_)) => axis_len - 1,
            (Edge::Periodic, Some(after)) => after,
            (Edge::Reflected, Some(after)) => axis_len - 2 - after,
        })
    }

    /// Returns the stretches of the axis before, in and after the array, for `range` with a halo of
    /// `width`, which is within the [limit](Edge::limit).
    pub(super) fn stretches(
        self,
        range: &Range<usize>,
        axis_len: usize,
        width: usize,
    ) -> [Stretch; 3] {
        let inside = inside(range, axis_len, width);
        let before = width - (range.start - inside.start);
        let after = width - (inside.end - range.end);
        let slice = |range: Range<usize>, step| {
            Slice::new(range.start as isize, Some(range.end as isize), step)
        };
        let (first, last) = match self {
            Edge::Clamped => (
                slice(0..1.min(axis_len), 1),
                slice(axis_len.saturating_sub(1)..axis_len, 1),
            ),
            Edge::Periodic => (slice(axis_len - before..axis_len, 1), slice(0..after, 1)),
            Edge::Reflected => {
                let mirror = axis_len.saturating_sub(1);
                (slice(1..1 + before, -1), slice(mirror - after..mirror, -1))
            }
        };
        let (middle, end) = (before + inside.len(), before + inside.len() + after);
        [
            Stretch {
                to: 0..before,
                from: first,
            },
            Stretch {
                to: before..middle,
                from: slice(inside, 1),
            },
            Stretch {
                to: middle..end,
                from: last,
            },
        ]
    }
}

/// Returns the indices of `range` with a halo of `width` that the array has.
pub(super) fn inside(range: &Range<usize>, axis_len: usize, width: usize) -> Range<usize> {
    let start = range.start.saturating_sub(width);
    start..range.end.saturating_add(width).min(axis_len)
}
