//! Groups as memory: the byte ranges that a tile covers.

use core::ops::Range;

use super::AccessMode;
use super::access::{Group, sealed};
use super::cover::{TileOf, UnitOf};
use super::plan::Plan;
use crate::handle::AnyHandle;
use crate::memory::{Memory, TileAccesses};
use crate::segment::Segment;
use crate::table::core::Core;
use crate::table::error::LeaseError;

/// Byte range of a tile in one array, without gaps of a page or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the data region.
    pub(crate) bytes: Range<u64>,
    /// Bytes of the whole array in the data region.
    pub(crate) array: Range<u64>,
}

/// A group with tiles as byte ranges, not views. It gives no access to elements, so it does not
/// check them.
#[derive(Clone)]
pub(crate) struct Extents<G>(G);

impl<G: Group> Group for Extents<G> {
    type Views<'a> = (Vec<Part>, Segment);
    /// Prefaulting goes tile by tile.
    type UnitViews<'a> = ();
    type ReadViews<'a> = Self::Views<'a>;

    unsafe fn views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::Views<'a> {
        let (raw, segment) = raw;
        let mut parts = Vec::new();
        G::extents(raw, tile, &mut parts);
        (parts, segment.clone())
    }

    unsafe fn unit_views<'a>(_raw: &Self::Raw, _unit: UnitOf<'_>) -> Self::UnitViews<'a> {}

    unsafe fn read_views<'a>(raw: &Self::Raw, tile: TileOf<'_>) -> Self::ReadViews<'a> {
        // SAFETY: the views are byte ranges, which give no access.
        unsafe { Self::views(raw, tile) }
    }
}

impl<G: Group> sealed::Group for Extents<G> {
    type Raw = (G::Raw, Segment);

    fn members(&self) -> Vec<(AnyHandle, AccessMode)> {
        self.0.members()
    }

    const LEN: usize = G::LEN;

    fn from_members(members: &[(AnyHandle, AccessMode)]) -> Option<Self> {
        G::from_members(members).map(Extents)
    }

    fn shapes(&self, table: &Core) -> Result<Vec<Vec<usize>>, LeaseError> {
        self.0.shapes(table)
    }

    fn locate(&self, table: &Core, plan: &Plan) -> Result<Self::Raw, LeaseError> {
        Ok((self.0.locate(table, plan)?, table.segment().clone()))
    }

    fn check(_raw: &Self::Raw, _tile: TileOf<'_>) -> Result<(), LeaseError> {
        Ok(())
    }

    fn track(_: &Self::Raw, _: &Memory, _: (TileOf<'_>, bool), _: &mut TileAccesses) {}

    fn extents((raw, _): &Self::Raw, tile: TileOf<'_>, to: &mut Vec<Part>) {
        G::extents(raw, tile, to);
    }
}

/// Smaller gaps are covered too: they lie in pages that are touched anyway, or nearly.
const GAP: u64 = 4096;

/// Returns the bytes of elements of `size` bytes, from the first element to the last, in stretches
/// without gaps of [`GAP`] or more. The first element is at `start`; each axis has a length and a
/// stride in bytes.
pub(super) fn stretches(start: u64, size: u64, mut axes: Vec<(u64, u64)>) -> Vec<Range<u64>> {
    if size == 0 || axes.iter().any(|&(len, _)| len == 0) {
        return Vec::new();
    }
    axes.sort_unstable_by_key(|&(_, stride)| stride);
    let mut len = size;
    let mut starts = vec![start];
    for (count, stride) in axes {
        if starts.len() == 1 && stride < len + GAP {
            len += (count - 1) * stride;
        } else {
            let steps = 0..count;
            starts = steps
                .flat_map(|step| starts.iter().map(move |start| start + step * stride))
                .collect();
        }
    }
    starts.into_iter().map(|start| start..start + len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the stretches as pairs of start and end.
    fn pairs(start: u64, size: u64, axes: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let stretches = stretches(start, size, axes.to_vec()).into_iter();
        stretches.map(|bytes| (bytes.start, bytes.end)).collect()
    }

    #[test]
    fn a_tile_is_covered_by_stretches_without_large_gaps() {
        assert_eq!(pairs(64, 8, &[(10, 8)]), [(64, 144)]);
        assert_eq!(pairs(0, 8, &[(3, 80), (10, 8)]), [(0, 240)], "rows");
        assert_eq!(pairs(0, 8, &[(3, 80), (2, 8)]), [(0, 176)], "narrow");
        let wide = [(0, 16), (80_000, 80_016), (160_000, 160_016)];
        assert_eq!(pairs(0, 8, &[(3, 80_000), (2, 8)]), wide);
        let deep = [(2, 1 << 20), (2, 1 << 16), (512, 8)];
        let starts = [0, 1 << 16, 1 << 20, (1 << 20) + (1 << 16)];
        let all: Vec<_> = starts.map(|at| (at, at + 4096)).into();
        let mut covered = pairs(0, 8, &deep);
        covered.sort_unstable();
        assert_eq!(covered, all);
        assert_eq!(pairs(7, 8, &[]), [(7, 15)], "no axis is one element");
        assert_eq!(pairs(7, 8, &[(0, 8), (3, 8)]), []);
        assert_eq!(pairs(7, 0, &[(3, 0)]), []);
    }
}
