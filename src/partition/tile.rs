//! A claimed tile: its views, and the ways to give it back.

use core::fmt;
use core::ops::Range;

use super::Group;
use super::access::TileOf;
use super::participant::Participant;
use super::plan::Side;
#[cfg(loom)]
use crate::segment::Access;

/// A claimed tile: its rows are the holder's alone until it is dropped.
///
/// Dropped by a panic, it is torn: the round ends with an error that names its rows, and the
/// arrays it writes are poisoned.
#[must_use = "the tile is given back when it is dropped"]
pub struct Tile<'p, 't, G: Group> {
    part: &'p Participant<'p, 't, G>,
    index: usize,
    #[cfg(loom)]
    accesses: Vec<Access>,
}

impl<'p, 't, G: Group> Tile<'p, 't, G> {
    /// The tile that `part` has claimed as `index`, and checked.
    #[inline]
    #[cfg_attr(loom, track_caller)]
    pub(super) fn new(part: &'p Participant<'p, 't, G>, index: usize) -> Self {
        #[cfg(loom)]
        let accesses = part.track(index);
        Tile {
            part,
            index,
            #[cfg(loom)]
            accesses,
        }
    }

    /// The tile's views, one for each array of the group.
    #[inline]
    pub fn views(&mut self) -> G::Views<'_> {
        // SAFETY: `self` holds the claim of this tile in a round for which this participant's bits
        // are set on the arrays, so that no whole-array lease and no other claim covers these rows
        // (arrays that are only read are written by nobody); the elements were checked before it
        // was opened; the views borrow `self` mutably, so there are no others, and the claim outlives them.
        unsafe { G::views(&self.part.raw, self.tile_of()) }
    }

    /// The tile's index in the partition.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The indices that the tile covers along the axis that is cut first.
    #[inline]
    pub fn rows(&self) -> Range<usize> {
        self.tile_of().rows()
    }

    /// What the tile covers along each axis that is cut.
    pub fn sides(&self) -> impl Iterator<Item = Side> {
        self.tile_of().sides()
    }

    #[inline]
    pub(crate) fn tile_of(&self) -> TileOf<'p> {
        self.part.tile_of(self.index)
    }

    /// The number of the round, from 1.
    pub fn round(&self) -> u64 {
        self.part.round()
    }

    /// Gives the tile back to be claimed in this round again. Only who has
    /// [retaken](Participant::retake) it does that.
    ///
    /// Calls `before` first, while nobody else can have the tile. Does nothing, and returns `false`, in
    /// a child of the process that has it.
    pub(crate) fn again(self, before: impl FnOnce(usize)) -> bool {
        let (part, index) = self.give_up();
        let ours = part.is_ours();
        if ours {
            before(index);
            part.send_off(index);
        }
        ours
    }

    /// Gives the tile up half-written: its rows are reported when the round ends, and the arrays
    /// it writes are poisoned.
    pub fn tear(self) {
        let (part, index) = self.give_up();
        if part.is_ours() {
            part.tear(index);
        }
    }

    /// Ends the accesses to the tile; the caller gives its claim back in a way of its own.
    fn give_up(self) -> (&'p Participant<'p, 't, G>, usize) {
        #[cfg_attr(not(loom), expect(unused_mut, reason = "loom's accesses end here"))]
        let mut this = core::mem::ManuallyDrop::new(self);
        #[cfg(loom)]
        drop(core::mem::take(&mut this.accesses));
        (this.part, this.index)
    }
}

impl<G: Group> Drop for Tile<'_, '_, G> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(loom)]
        self.accesses.clear();
        let part = self.part;
        if !part.is_ours() {
            return;
        }
        match std::thread::panicking() && !part.panicking {
            true => part.tear(self.index),
            false => part.finish(self.index),
        }
    }
}

impl<G: Group> fmt::Debug for Tile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tile")
            .field("index", &self.index)
            .field("sides", &self.sides().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
