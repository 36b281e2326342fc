//! Claimed units: consecutive tiles that one view covers.

use super::Group;
use super::claims::bits;
use super::cover::UnitOf;
use super::round_member::RoundMember;
use crate::memory::TileAccesses;

/// A claimed unit. Its tiles belong to the holder alone until it is dropped. A panic tears them all.
#[must_use = "the unit is given back when it is dropped"]
pub(crate) struct Unit<'p, 't, G: Group> {
    part: &'p RoundMember<'p, 't, G>,
    first: usize,
    last: usize,
    accesses: TileAccesses,
}

impl<'p, 't, G: Group> Unit<'p, 't, G> {
    /// Creates the unit of the tiles that `part` has claimed from `first` to `last`, and checked.
    #[inline]
    #[track_caller]
    pub(super) fn new(part: &'p RoundMember<'p, 't, G>, first: usize, last: usize) -> Self {
        Unit {
            part,
            first,
            last,
            accesses: part.track(first..last + 1),
        }
    }

    /// Returns the unit's views, one for each array of the group.
    #[inline]
    pub(crate) fn views(&mut self) -> G::UnitViews<'_> {
        // SAFETY: `self` holds the claims of these tiles, so the argument of `Tile::views` holds for
        // each. They form one block of the arrays (`RoundMember::claim_unit`).
        unsafe { G::unit_views(&self.part.raw, self.unit_of()) }
    }

    #[inline]
    pub(crate) fn unit_of(&self) -> UnitOf<'p> {
        self.part.unit_of(self.first, self.last)
    }

    /// Gives all tiles of the unit up half-written.
    pub(crate) fn tear(self) {
        let mut this = core::mem::ManuallyDrop::new(self);
        this.accesses.end();
        if this.part.is_ours() {
            this.part.tear(this.first);
        }
    }
}

impl<G: Group> Drop for Unit<'_, '_, G> {
    #[inline]
    fn drop(&mut self) {
        self.accesses.end();
        let part = self.part;
        if !part.is_ours() {
            return;
        }
        match std::thread::panicking() && !part.panicking {
            true => part.tear(self.first),
            false => part.finish(self.first, bits(self.last + 1 - self.first)),
        }
    }
}
