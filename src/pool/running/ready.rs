//! Ready tiles in the hands of the parent, and the way back to the workers.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;

use crate::partition::{Group, Round, RoundMember, Tile};
use crate::pool::error::PoolError;
use crate::pool::mailbox::Mailbox;
use crate::pool::tile_notes::TileNotes;

/// The parts of a running call to which tiles go back.
pub(super) struct Place<'w, 'r, G: Group> {
    pub(super) round: &'w Round<'w, 'r, G>,
    pub(super) part: &'w RoundMember<'w, 'r, G>,
    pub(super) resting: &'w [Cell<bool>],
    pub(super) mailbox: Mailbox<'w>,
    pub(super) job: &'w Cell<u64>,
    pub(super) notes: &'w TileNotes<'w>,
}

impl<G: Group> Clone for Place<'_, '_, G> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G: Group> Copy for Place<'_, '_, G> {}

impl<'w, 'r, G: Group> Place<'w, 'r, G> {
    /// Tells the workers that a tile was reopened.
    fn sent_off(&self, tile: usize) {
        self.resting[tile].set(false);
        self.job.set(self.mailbox.announce());
    }

    pub(super) fn range(&self, tile: usize) -> Range<usize> {
        self.part.tile_of(tile).rows()
    }

    /// Repairs a torn tile.
    #[track_caller]
    pub(super) fn repair(
        self,
        tile: usize,
        repair: impl FnOnce(G::Views<'_>),
    ) -> Result<ReadyTile<'w, 'r, G>, PoolError> {
        let mut tile = self.part.retake_torn(tile)?;
        self.round.mend();
        self.notes.clear(tile.index());
        // A panic tears the tile again.
        repair(tile.views());
        Ok(ReadyTile { tile, place: self })
    }

    /// Sends a torn tile back as it is.
    pub(super) fn rerun(self, tile: usize) {
        let before = |tile| {
            self.round.mend();
            self.notes.clear(tile);
            self.notes.count(tile);
        };
        if self.part.reopen_torn(tile, before) {
            self.sent_off(tile);
        }
    }
}

/// A tile that a worker has run. The parent alone has its views.
///
/// A dropped tile is done for this call.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.from_shape_fn(100, |i| i as f64)?;
/// # let tiles = table.partition(x.write(), Axis(0), 10)?;
/// # let mut pool = Pool::threads(&table, 2)?;
/// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
/// for mut ready in running.wait_any(10)?.ready {
///     let (index, range) = (ready.index(), ready.range());
///     let first = ready.views()[0];
///     println!("tile {index} with the rows {range:?} begins with {first}");
///     assert_eq!(first, range.start as f64 + 1.0);
/// }
/// running.finish()?;
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct ReadyTile<'w, 'r, G: Group> {
    pub(super) tile: Tile<'w, 'r, G>,
    pub(super) place: Place<'w, 'r, G>,
}

impl<G: Group> ReadyTile<'_, '_, G> {
    /// Returns the tile's index in the partition.
    ///
    /// [`ReadyTile`] has an example.
    pub fn index(&self) -> usize {
        self.tile.index()
    }

    /// Returns the indices that the tile covers along the first divided axis.
    ///
    /// [`ReadyTile`] has an example.
    pub fn range(&self) -> Range<usize> {
        self.tile.range()
    }

    /// Returns the tile's views.
    ///
    /// [`ReadyTile`] has an example.
    pub fn views(&mut self) -> G::Views<'_> {
        self.tile.views()
    }

    /// Sends the tile back to the workers. One of them runs the kernel on it once more, and sees
    /// the values written here.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
    /// for ready in running.wait_any(10)?.ready {
    ///     if ready.index() < 5 {
    ///         ready.rerun();                               // one more step for half of them
    ///     }
    /// }
    /// running.finish()?;
    /// assert_eq!(table.read(x)?[0], 2.0);
    /// assert_eq!(table.read(x)?[99], 100.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn rerun(self) {
        // In a forked child nothing happens: the tile and the call belong to the parent.
        let ReadyTile { tile, place } = self;
        let index = tile.index();
        if tile.again(|index| place.notes.count(index)) {
            place.sent_off(index);
        }
    }
}

impl<G: Group> fmt::Debug for ReadyTile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyTile")
            .field("tile", &self.tile)
            .finish_non_exhaustive()
    }
}
