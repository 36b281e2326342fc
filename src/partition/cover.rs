//! The parts of a plan that views cover: a tile, or several tiles in one block.

use core::ops::Range;

use super::plan::{Plan, TileSide};

/// A tile of a partition's plan, which determines the parts of the arrays that it covers.
#[derive(Clone, Copy, Debug)]
pub struct TileOf<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) tile: usize,
}

impl<'p> TileOf<'p> {
    /// Returns the indices that the tile covers along the first cut axis.
    pub(crate) fn rows(self) -> Range<usize> {
        self.plan.rows(self.tile)
    }

    /// Returns the tile's side along each cut axis.
    pub(crate) fn sides(self) -> impl Iterator<Item = TileSide> + 'p {
        self.plan.sides(self.tile)
    }
}

/// Consecutive tiles that form one block of the arrays: at least one tile, and none at or beyond the
/// [`block_end`](Plan::block_end) of the first.
#[derive(Clone, Copy, Debug)]
pub struct UnitOf<'p> {
    pub(crate) plan: &'p Plan,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl<'p> UnitOf<'p> {
    /// Returns the tiles.
    pub(crate) fn tiles(self) -> impl ExactSizeIterator<Item = TileOf<'p>> {
        let plan = self.plan;
        (self.first..self.last + 1).map(move |tile| TileOf { plan, tile })
    }

    /// Returns the indices that the tiles cover along the first cut axis.
    pub(crate) fn rows(self) -> Range<usize> {
        self.plan.rows(self.first).start..self.plan.rows(self.last).end
    }
}

/// The part of a plan that views cover: a tile or a unit.
pub(super) trait Covers: Copy {
    /// Visits the side along each cut axis.
    fn for_each_side(self, visit: impl FnMut(TileSide));
}

impl Covers for TileOf<'_> {
    #[inline]
    fn for_each_side(self, visit: impl FnMut(TileSide)) {
        self.plan.for_each_side(self.tile, visit);
    }
}

impl Covers for UnitOf<'_> {
    #[inline]
    fn for_each_side(self, visit: impl FnMut(TileSide)) {
        self.plan.for_each_side_of((self.first, self.last), visit);
    }
}
