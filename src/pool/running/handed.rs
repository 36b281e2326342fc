//! Tiles in the hands of the parent: ready, failed and lost ones.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;

use super::news::{Failed, Lost};
use crate::partition::{Group, Round, RoundMember, Tile};
use crate::pool::error::{PoolError, cause};
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

    fn range(&self, tile: usize) -> Range<usize> {
        self.part.tile_of(tile).rows()
    }

    /// Repairs a torn tile.
    #[track_caller]
    fn repair(
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
    fn rerun(self, tile: usize) {
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
pub struct ReadyTile<'w, 'r, G: Group> {
    pub(super) tile: Tile<'w, 'r, G>,
    pub(super) place: Place<'w, 'r, G>,
}

impl<G: Group> ReadyTile<'_, '_, G> {
    /// Returns the tile's index in the partition.
    pub fn index(&self) -> usize {
        self.tile.index()
    }

    /// Returns the indices that the tile covers along the first divided axis.
    pub fn range(&self) -> Range<usize> {
        self.tile.range()
    }

    /// Returns the tile's views.
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

/// A tile at which the kernel panicked. Its rows are half-written.
///
/// [`repair`](FailedTile::repair) makes it whole, [`rerun`](FailedTile::rerun) lets a worker do so. A
/// dropped tile stays torn: [`finish`](super::RunningCall::finish) reports its rows, and the arrays are
/// poisoned. Displayed, it says where and why the kernel failed.
///
/// ```
/// use ndshm::{HandleTable, OnFailure, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<u32, _>(8)?;
/// let tiles = table.partition(x.write(), Axis(0), 2)?;
/// let mut pool = Pool::threads(&table, 1)?;
/// let mut running = pool
///     .start(&tiles, &(), |mut x, (), tile| {
///         x += 1;
///         assert!(tile.run() > 0 || tile.index() == 0, "no fuel");
///     })?
///     .on_failure(OnFailure::Skip);
/// let mut messages = Vec::new();
/// while messages.len() < 3 {
///     for failed in running.wait_any(4)?.failed {
///         messages.push(failed.to_string());
///         match failed.index() {
///             1 => failed.rerun(),                         // from the half-written values
///             2 => failed.repair(|mut x| x.fill(0))?.rerun(), // from new ones
///             _ => drop(failed.repair(|mut x| x.fill(7))?), // whole, and not stepped again
///         }
///     }
/// }
/// running.finish()?;
/// messages.sort();
/// assert_eq!(
///     messages[0],
///     "the kernel panicked in worker 0 at tile 1 (rows 2..4): no fuel"
/// );
/// assert_eq!(table.read(x)?.to_vec(), [1, 1, 2, 2, 1, 1, 7, 7]);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "a failed tile stays torn unless it is repaired or run again"]
pub struct FailedTile<'w, 'r, G: Group> {
    pub(super) place: Place<'w, 'r, G>,
    pub(super) failed: &'w Failed,
}

impl<'w, 'r, G: Group> FailedTile<'w, 'r, G> {
    /// Returns the tile's index in the partition.
    pub fn index(&self) -> usize {
        self.failed.tile
    }

    /// Returns the indices that the tile covers along the first divided axis.
    pub fn range(&self) -> Range<usize> {
        self.place.range(self.failed.tile)
    }

    /// Returns the number of the worker in which the kernel panicked. It goes on with other tiles.
    pub fn worker(&self) -> usize {
        self.failed.worker
    }

    /// Returns the message of the panic, cut to 384 bytes.
    pub fn message(&self) -> &'w str {
        &self.failed.message
    }

    /// Calls `repair` with the half-written tile. It is whole then, and ready: to send it
    /// [back](ReadyTile::rerun), or to let it rest.
    ///
    /// If `repair` panics, the tile stays torn.
    ///
    /// # Errors
    /// - [`PoolError::Round`] with [`LeaseError::InvalidElement`](crate::error::LeaseError) if the
    ///   tile holds bytes that are not values of its type. It stays torn.
    /// - [`PoolError::Round`] with [`RoundError::Forked`](crate::error::RoundError) in a forked child.
    #[track_caller]
    pub fn repair(
        self,
        repair: impl FnOnce(G::Views<'_>),
    ) -> Result<ReadyTile<'w, 'r, G>, PoolError> {
        self.place.repair(self.failed.tile, repair)
    }

    /// Sends the tile back to the workers as it is. One of them runs the kernel on the half-written
    /// rows. Does nothing in a forked child.
    pub fn rerun(self) {
        self.place.rerun(self.failed.tile);
    }
}

impl<G: Group> fmt::Display for FailedTile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed {
            tile,
            worker,
            message,
        } = self.failed;
        let rows = self.range();
        write!(
            f,
            "the kernel panicked in worker {worker} at tile {tile} (rows {rows:?}): {message}"
        )
    }
}

impl<G: Group> fmt::Debug for FailedTile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailedTile")
            .field("index", &self.index())
            .field("worker", &self.worker())
            .field("message", &self.message())
            .finish_non_exhaustive()
    }
}

/// A tile whose worker died. Its rows are half-written.
///
/// It is used like a [`FailedTile`]. The worker is replaced while the call runs, if that is possible:
/// see [`OnFailure::Skip`](crate::OnFailure::Skip). Displayed, it says which worker died, and how.
#[must_use = "a lost tile stays torn unless it is repaired or run again"]
pub struct LostTile<'w, 'r, G: Group> {
    pub(super) place: Place<'w, 'r, G>,
    pub(super) lost: &'w Lost,
}

impl<'w, 'r, G: Group> LostTile<'w, 'r, G> {
    /// Returns the tile's index in the partition.
    pub fn index(&self) -> usize {
        self.lost.tile
    }

    /// Returns the indices that the tile covers along the first divided axis.
    pub fn range(&self) -> Range<usize> {
        self.place.range(self.lost.tile)
    }

    /// Returns the number of the worker that died, or `None` if a participant that is no worker of
    /// this pool had claimed the tile.
    pub fn worker(&self) -> Option<usize> {
        self.lost.death.map(|death| death.worker)
    }

    /// Returns the process of the worker that died.
    pub fn pid(&self) -> Option<u32> {
        self.lost.death.map(|death| death.pid)
    }

    /// Returns the signal that killed the worker, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.lost.death.and_then(|death| death.signal)
    }

    /// Returns the code with which the worker exited, if it did.
    pub fn code(&self) -> Option<i32> {
        self.lost.death.and_then(|death| death.code)
    }

    /// Calls `repair` with the half-written tile; see [`FailedTile::repair`].
    ///
    /// # Errors
    /// Same as [`FailedTile::repair`].
    #[track_caller]
    pub fn repair(
        self,
        repair: impl FnOnce(G::Views<'_>),
    ) -> Result<ReadyTile<'w, 'r, G>, PoolError> {
        self.place.repair(self.lost.tile, repair)
    }

    /// Sends the tile back to the workers as it is; see [`FailedTile::rerun`].
    pub fn rerun(self) {
        self.place.rerun(self.lost.tile);
    }
}

impl<G: Group> fmt::Display for LostTile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tile, rows) = (self.lost.tile, self.range());
        match self.lost.death {
            Some(death) => write!(
                f,
                "worker {} (process {}) died at tile {tile} (rows {rows:?}), {}",
                death.worker,
                death.pid,
                cause(death.signal, death.code)
            ),
            None => write!(
                f,
                "a participant that is no worker of the pool left tile {tile} (rows {rows:?}) \
                 half-written"
            ),
        }
    }
}

impl<G: Group> fmt::Debug for LostTile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostTile")
            .field("index", &self.index())
            .field("worker", &self.worker())
            .field("pid", &self.pid())
            .field("signal", &self.signal())
            .field("code", &self.code())
            .finish_non_exhaustive()
    }
}
