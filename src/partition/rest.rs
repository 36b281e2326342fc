//! Reading the whole tiles of arrays that others left poisoned.

use core::fmt;
use core::ops::Range;

use super::cover::TileOf;
use super::{Group, Partition};
use crate::memory::TileAccesses;
use crate::partition::error::RoundError;
use crate::seat::TornTile;
use crate::table::error::LeaseError;
use crate::table::lease::SharedLease;

impl<'t, G: Group> Partition<'t, G> {
    /// Leases the arrays for reading all tiles that are not torn.
    ///
    /// As with [`read`](crate::HandleTable::read), nobody writes the arrays until the guard is
    /// dropped, and no round begins. Arrays that are poisoned only because of torn tiles of this
    /// partition are leased, too. If no array is poisoned, all tiles can be read.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let round = tiles.begin()?;
    /// # let mut part = tiles.enter()?.expect("a round is running");
    /// # while let Some(tile) = part.claim()? {
    /// #     if tile.index() == 7 {
    /// #         tile.tear();
    /// #     }
    /// # }
    /// # drop(part);
    /// # round.finish(std::time::Duration::from_secs(10)).unwrap_err();
    /// use ndshm::error::RoundError;
    ///
    /// // Tile 7 is torn, so `x` is poisoned.
    /// assert!(table.read(x).is_err());
    /// let rest = tiles.read_rest()?;
    /// let mut sum = 0.0;
    /// for tile in rest.iter() {                            // nine tiles
    ///     sum += tile?.views().sum();
    /// }
    /// assert_eq!(sum, 4950.0 - 745.0);
    /// assert!(matches!(rest.tile(7), Err(RoundError::HalfWritten { tile: 7, .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Lease`] with [`LeaseError::Poisoned`] if the poison of an array is not that
    ///   of these tiles alone; see [`recover`](Partition::recover).
    /// - [`RoundError::Lease`] with [`LeaseError::Busy`] while an array has a writer, or a round
    ///   runs.
    #[doc(alias("read_except", "partial"))]
    pub fn read_rest(&self) -> Result<RestGuard<'_, 't, G>, RoundError> {
        self.table().enter()?;
        let (lease, control) = self.open()?;
        let mut leases = Vec::new();
        let mut written = Vec::new();
        for (handle, mode) in self.group.members() {
            let lease = match mode.writes() {
                true => self.table().lease_poisoned(handle)?,
                false => self.table().lease_shared(handle)?,
            };
            if mode.writes() {
                written.push((lease.slot, handle));
            }
            leases.push(lease);
        }
        let torn = self.admit(&control, written.into_iter())?;
        Ok(RestGuard {
            partition: self,
            raw: self.group.locate(self.table(), &self.plan)?,
            torn,
            _leases: leases,
            _lease: lease,
        })
    }
}

/// A shared lease of a partition's arrays, for reading all tiles that are not torn:
/// [`Partition::read_rest`].
///
/// Dropping it releases the lease. A guard that crossed a `fork` into a child still belongs to the
/// parent: dropping it there does nothing.
///
/// ```
/// use ndarray::Axis;
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_shape_fn(100, |i| i as f64)?;
/// let tiles = table.partition(x.write(), Axis(0), 10)?;
/// let rest = tiles.read_rest()?;
/// assert_eq!((rest.torn(), rest.iter().count()), (&[][..], 10)); // no tile is torn
/// let tile = rest.tile(7)?;
/// assert_eq!((tile.index(), tile.range(), tile.views()[0]), (7, 70..80, 70.0));
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the lease is given back when the guard is dropped"]
pub struct RestGuard<'p, 't, G: Group> {
    partition: &'p Partition<'t, G>,
    raw: <G as super::access::sealed::Group>::Raw,
    torn: Vec<TornTile>,
    _leases: Vec<SharedLease<'t>>,
    _lease: SharedLease<'t>,
}

impl<G: Group> RestGuard<'_, '_, G> {
    /// Returns the torn tiles, in the order of their indices.
    ///
    /// [`RestGuard`] has an example.
    pub fn torn(&self) -> &[TornTile] {
        &self.torn
    }

    /// Returns the tile with this index.
    ///
    /// [`Partition::read_rest`] has an example.
    ///
    /// # Errors
    /// - [`RoundError::HalfWritten`] names the rows if the tile is torn.
    /// - [`RoundError::NoSuchTile`] if the partition has fewer tiles.
    /// - [`RoundError::Lease`] with [`LeaseError::InvalidElement`] if it holds bytes that are not
    ///   values of its type.
    #[track_caller]
    pub fn tile(&self, tile: usize) -> Result<RestTile<'_, G>, RoundError> {
        let tiles = self.partition.tiles();
        if tile >= tiles {
            return Err(RoundError::NoSuchTile { tile, tiles });
        }
        if let Some(torn) = self.find(tile) {
            let rows = torn.rows.clone();
            return Err(RoundError::HalfWritten { tile, rows });
        }
        Ok(self.open(tile)?)
    }

    /// Returns all tiles that are not torn, in the order of their indices. An item is an error only
    /// if the tile holds bytes that are not values of its type.
    ///
    /// [`Partition::read_rest`] has an example.
    pub fn iter(&self) -> impl Iterator<Item = Result<RestTile<'_, G>, LeaseError>> {
        let whole = (0..self.partition.tiles()).filter(|&tile| self.find(tile).is_none());
        whole.map(|tile| self.open(tile))
    }

    fn find(&self, tile: usize) -> Option<&TornTile> {
        let at = self.torn.binary_search_by_key(&tile, |torn| torn.tile);
        at.ok().map(|at| &self.torn[at])
    }

    /// Opens a tile that is not torn.
    #[track_caller]
    fn open(&self, tile: usize) -> Result<RestTile<'_, G>, LeaseError> {
        let of = TileOf {
            plan: &self.partition.plan,
            tile,
        };
        G::check(&self.raw, of)?;
        let mut accesses = TileAccesses::new();
        let memory = self.partition.segment().memory();
        G::track(&self.raw, memory, (of, false), &mut accesses);
        Ok(RestTile {
            raw: &self.raw,
            of,
            _accesses: accesses,
        })
    }
}

impl<G: Group> fmt::Debug for RestGuard<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestGuard")
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

/// A tile that is not torn, for reading: [`RestGuard::tile`].
pub struct RestTile<'r, G: Group> {
    raw: &'r <G as super::access::sealed::Group>::Raw,
    of: TileOf<'r>,
    _accesses: TileAccesses,
}

impl<G: Group> RestTile<'_, G> {
    /// Returns the tile's views for reading, one for each array of the group.
    ///
    /// [`RestGuard`] has an example.
    pub fn views(&self) -> G::ReadViews<'_> {
        // SAFETY: the guard, which outlives `self`, has leases of the arrays. They exclude writers
        // and rounds, and the repair of torn tiles, so the tile stays whole. It was checked.
        unsafe { G::read_views(self.raw, self.of) }
    }

    /// Returns the tile's index in the partition.
    ///
    /// [`RestGuard`] has an example.
    pub fn index(&self) -> usize {
        self.of.tile
    }

    /// Returns the indices that the tile covers along the first cut axis.
    ///
    /// [`RestGuard`] has an example.
    pub fn range(&self) -> Range<usize> {
        self.of.rows()
    }
}

impl<G: Group> fmt::Debug for RestTile<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestTile")
            .field("index", &self.index())
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}
