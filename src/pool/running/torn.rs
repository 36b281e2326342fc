//! Torn tiles in the hands of the parent: failed and lost ones.

use core::fmt;
use core::ops::Range;

use super::ready::{Place, ReadyTile};
use super::scan::{Failed, Lost};
use crate::partition::Group;
use crate::pool::error::{PoolError, cause};

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
///         assert_eq!((failed.worker(), failed.message()), (0, "no fuel"));
///         assert_eq!(failed.range().len(), 2);
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
    ///
    /// [`FailedTile`] has an example.
    pub fn index(&self) -> usize {
        self.failed.tile
    }

    /// Returns the indices that the tile covers along the first divided axis.
    ///
    /// [`FailedTile`] has an example.
    pub fn range(&self) -> Range<usize> {
        self.place.range(self.failed.tile)
    }

    /// Returns the number of the worker in which the kernel panicked. It goes on with other tiles.
    ///
    /// [`FailedTile`] has an example.
    pub fn worker(&self) -> usize {
        self.failed.worker
    }

    /// Returns the message of the panic, cut to 384 bytes.
    ///
    /// [`FailedTile`] has an example.
    pub fn message(&self) -> &'w str {
        &self.failed.message
    }

    /// Calls `repair` with the half-written tile. It is whole then, and ready: to send it
    /// [back](ReadyTile::rerun), or to let it rest.
    ///
    /// If `repair` panics, the tile stays torn.
    ///
    /// [`FailedTile`] has an example.
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
    ///
    /// [`FailedTile`] has an example.
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
///
/// ```standalone_crate
/// use ndarray::Axis;
/// use ndshm::{HandleTable, OnFailure, Pool, Segment};
///
/// fn main() -> ndshm::Result<()> {
///     let table = HandleTable::join(&Segment::anonymous()?)?;
///     let mut pool = Pool::fork(&table, 2)?;
///     let x = table.zeros::<u32, _>(8)?;
///     let tiles = table.partition(x.write(), Axis(0), 1)?;
///     let step = |mut x: ndarray::ArrayViewMut1<u32>, _: &(), tile: &ndshm::TileContext| {
///         if tile.index() == 3 && x[0] == 0 {
///             std::process::exit(7);
///         }
///         x += 1;
///     };
///     let mut running = pool.start(&tiles, &(), step)?.on_failure(OnFailure::Skip);
///     loop {
///         let arrived = running.wait_any(8)?;
///         if arrived.is_empty() {
///             break;                                   // all tiles are done
///         }
///         for lost in arrived.lost {
///             println!("{lost}");                      // which worker died, and how
///             assert_eq!((lost.index(), lost.range()), (3, 3..4));
///             assert_eq!((lost.code(), lost.signal()), (Some(7), None));
///             assert!(lost.worker().is_some() && lost.pid().is_some());
///             lost.repair(|mut x| x.fill(10))?.rerun();
///         }
///     }
///     running.finish()?;
///     assert_eq!(table.read(x)?.to_vec(), [1, 1, 1, 11, 1, 1, 1, 1]);
///     Ok(())
/// }
/// ```
#[must_use = "a lost tile stays torn unless it is repaired or run again"]
pub struct LostTile<'w, 'r, G: Group> {
    pub(super) place: Place<'w, 'r, G>,
    pub(super) lost: &'w Lost,
}

impl<'w, 'r, G: Group> LostTile<'w, 'r, G> {
    /// Returns the tile's index in the partition.
    ///
    /// [`LostTile`] has an example.
    pub fn index(&self) -> usize {
        self.lost.tile
    }

    /// Returns the indices that the tile covers along the first divided axis.
    ///
    /// [`LostTile`] has an example.
    pub fn range(&self) -> Range<usize> {
        self.place.range(self.lost.tile)
    }

    /// Returns the number of the worker that died, or `None` if a participant that is no worker of
    /// this pool had claimed the tile.
    ///
    /// [`LostTile`] has an example.
    pub fn worker(&self) -> Option<usize> {
        self.lost.death.map(|death| death.worker)
    }

    /// Returns the process of the worker that died.
    ///
    /// [`LostTile`] has an example.
    pub fn pid(&self) -> Option<u32> {
        self.lost.death.map(|death| death.pid)
    }

    /// Returns the signal that killed the worker, if one did.
    ///
    /// [`LostTile`] has an example.
    pub fn signal(&self) -> Option<i32> {
        self.lost.death.and_then(|death| death.signal)
    }

    /// Returns the code with which the worker exited, if it did.
    ///
    /// [`LostTile`] has an example.
    pub fn code(&self) -> Option<i32> {
        self.lost.death.and_then(|death| death.code)
    }

    /// Calls `repair` with the half-written tile; see [`FailedTile::repair`]. [`LostTile`] has an
    /// example.
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

    /// Sends the tile back to the workers as it is; see [`FailedTile::rerun`]. [`FailedTile`] has an
    /// example.
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
