//! Claimed tiles: their views, and the ways to release them.

use core::fmt;
use core::ops::Range;

use super::Group;
use super::block::Block;
use super::cover::TileOf;
use super::error::BlockError;
use super::plan::TileSide;
use super::round_member::RoundMember;
use crate::memory::TileAccesses;

/// A claimed tile. Its rows belong to the holder alone until it is dropped.
///
/// A panic tears the tile: the round ends with an error that names its rows, and the arrays it
/// writes are poisoned.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::{HandleTable, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.from_shape_fn(100, |i| i as f64)?;
/// # let tiles = table.partition(x.write(), Axis(0), 10)?;
/// let round = tiles.begin()?;
/// let mut part = tiles.enter()?.expect("a round is running");
/// let tile = part.claim()?.expect("no tile is claimed");
/// assert_eq!(tile.range(), tiles.range(tile.index()));
/// assert!(tile.sides().eq(tiles.sides(tile.index())));
/// assert_eq!(tile.round(), 1);
/// # drop(tile); drop(part); drop(round);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the tile is given back when it is dropped"]
pub struct Tile<'p, 't, G: Group> {
    part: &'p RoundMember<'p, 't, G>,
    index: usize,
    accesses: TileAccesses,
}

impl<'p, 't, G: Group> Tile<'p, 't, G> {
    /// Creates the tile that `part` has claimed as `index`, and checked.
    #[inline]
    #[track_caller]
    pub(super) fn new(part: &'p RoundMember<'p, 't, G>, index: usize) -> Self {
        Tile {
            part,
            index,
            accesses: part.track(index..index + 1),
        }
    }

    /// Returns the tile's views, one for each array of the group.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let round = tiles.begin()?;
    /// # let mut part = tiles.enter()?.expect("a round is running");
    /// let mut tile = part.claim()?.expect("no tile is claimed");
    /// let range = tile.range();
    /// let mut view = tile.views();                         // of a group of two arrays: a tuple
    /// assert_eq!(view.len(), range.len());
    /// view.fill(1.0);
    /// # drop(tile); drop(part); drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[inline]
    pub fn views(&mut self) -> G::Views<'_> {
        // SAFETY: `self` holds the claim of this tile in a round for which this participant's bits
        // are set on the arrays. So no whole-array lease and no other claim covers these rows, and
        // nobody writes the arrays that are only read. The elements were checked before the tile
        // was opened. The views borrow `self` mutably: there are no other views, and the claim
        // outlives them.
        unsafe { G::views(&self.part.raw, self.tile_of()) }
    }

    /// Returns the tile's index in the partition.
    ///
    /// [`Tile`] has an example.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the indices that the tile covers along the first cut axis.
    ///
    /// [`Tile`] has an example.
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.tile_of().rows()
    }

    /// Returns the tile's side along each cut axis.
    ///
    /// [`Tile`] has an example.
    pub fn sides(&self) -> impl Iterator<Item = TileSide> {
        self.tile_of().sides()
    }

    /// Returns the place of the tile in arrays of `D` axes, all of which are cut.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::partition::Edge;
    /// use ndshm::{HandleTable, Segment};
    /// use std::time::Duration;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let old = table.from_shape_fn(9, |i| i as f64)?;
    /// let new = table.zeros::<f64, _>(9)?;
    /// let tiles = table.partition((old.whole(), new.write()), Axis(0), 4)?;
    /// let round = tiles.begin()?;
    /// if let Some(mut part) = tiles.enter()? {
    ///     while let Some(mut tile) = part.claim()? {
    ///         let place = tile.block::<1>()?;
    ///         let (old, mut new) = tile.views();
    ///         let old = place.around(&old, [1], Edge::Reflected)?;
    ///         for (i, new) in (0..).zip(&mut new) {
    ///             *new = old[[i - 1]] + old[[i + 1]];
    ///         }
    ///     }
    /// }
    /// round.finish(Duration::from_secs(1))?;
    /// assert_eq!(table.read(new)?.to_vec(), [2.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 14.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Partition::block`](super::Partition::block).
    pub fn block<const D: usize>(&self) -> Result<Block<D>, BlockError> {
        self.tile_of().block()
    }

    #[inline]
    pub(crate) fn tile_of(&self) -> TileOf<'p> {
        self.part.tile_of(self.index)
    }

    /// Returns the number of the round, from 1.
    ///
    /// [`Tile`] has an example.
    pub fn round(&self) -> u64 {
        self.part.round()
    }

    /// Makes the tile claimable in this round again. The caller has [retaken](RoundMember::retake)
    /// it.
    ///
    /// Calls `before` while no other participant can claim it. In a forked child, does nothing and
    /// returns `false`.
    pub(crate) fn again(self, before: impl FnOnce(usize)) -> bool {
        let (part, index) = self.give_up();
        let ours = part.is_ours();
        if ours {
            before(index);
            part.send_off(index);
        }
        ours
    }

    /// Gives the tile up half-written. The end of the round reports its rows, and the arrays it
    /// writes are poisoned until [`recover`](super::Partition::recover) or
    /// [`clear_poison`](super::Partition::clear_poison) of the partition.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let round = tiles.begin()?;
    /// # let mut part = tiles.enter()?.expect("a round is running");
    /// while let Some(tile) = part.claim()? {
    ///     if tile.index() == 7 {
    ///         tile.tear();                                 // its input was missing
    ///     }
    /// }
    /// drop(part);
    /// assert!(round.finish(std::time::Duration::from_secs(10)).is_err());
    /// assert!(table.info(x)?.poisoned);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn tear(self) {
        let (part, index) = self.give_up();
        if part.is_ours() {
            part.tear(index);
        }
    }

    /// Ends the accesses to the tile. The caller changes the claim.
    fn give_up(self) -> (&'p RoundMember<'p, 't, G>, usize) {
        let mut this = core::mem::ManuallyDrop::new(self);
        this.accesses.end();
        (this.part, this.index)
    }
}

impl<G: Group> Drop for Tile<'_, '_, G> {
    #[inline]
    fn drop(&mut self) {
        self.accesses.end();
        let part = self.part;
        if !part.is_ours() {
            return;
        }
        match std::thread::panicking() && !part.panicking {
            true => part.tear(self.index),
            false => part.finish(self.index, 1),
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
