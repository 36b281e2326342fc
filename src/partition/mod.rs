//! Partitions: arrays divided into tiles that many participants write at once.
//!
//! [`HandleTable::partition`](crate::HandleTable::partition) divides arrays along an axis,
//! [`HandleTable::partition_by`](crate::HandleTable::partition_by) by any [`Grid`]. A
//! [`Pool`](crate::Pool) runs a kernel on all tiles; without a pool, each participant enters a
//! [`Round`] and claims tiles. [`Read`], [`Write`], [`WholeArray`] and [`PerTile`] say how the tiles
//! use each array.
//!
//! A [`Block`] is the place of a tile in the whole array. [`Block::around`] finds the elements
//! around it (a [`Halo`]) in an array that the tiles read whole.
//!
//! One claim word per tile proves that no two participants write the same rows. It is also the
//! scheduler, the barrier, and the record of half-done tiles after a death. `README.md` in the
//! table's directory has the protocol.

mod access;
mod block;
mod claims;
pub(crate) mod control;
mod cover;
mod edge;
pub(crate) mod error;
pub(crate) mod extents;
mod grid;
mod halo;
mod owned;
mod plan;
mod rest;
mod round;
mod round_member;
mod tile;
mod too_many;
mod torn;
mod unit;
mod untyped;
mod wait;

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;
pub(crate) use error::{BlockError, PartitionError, RoundError};

use ndarray::Axis;

use crate::descriptor::{ControlKind, Descriptor, WrongKind};
use crate::handle::{AnyHandle, opened_handle_traits};
use crate::segment::Segment;
use crate::table::core::Core;
use crate::table::error::{AllocError, LeaseError};
use crate::table::lease::SharedLease;
pub(crate) use access::sealed;
pub use access::{AccessMode, Group, PerTile, Read, WholeArray, Write};
pub use block::Block;
use control::{Control, MAX_MEMBERS, Member};
pub(crate) use cover::{TileOf, UnitOf};
pub use edge::Edge;
pub use grid::Grid;
pub use halo::Halo;
pub use owned::{OwnedMember, OwnedPartition, OwnedRound, TileState, TileToken};
pub(crate) use plan::Plan;
pub use plan::TileSide;
pub use rest::{RestGuard, RestTile};
pub use round::Round;
pub use round_member::{Claimed, RoundMember};
pub use tile::Tile;
pub use untyped::{TilePart, UntypedGroup};
pub use wait::Entered;
pub(crate) use wait::{Look, Next, Wait, Waited};

/// Names a partition for other processes: 8 bytes, `Copy` and `Pod`, so it can be a kernel's
/// parameter.
///
/// ```
/// use ndarray::{Axis, Ix1};
/// use ndshm::{HandleTable, PartitionHandle, Segment, Write};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>(100)?;
/// let tiles = table.partition(x.write(), Axis(0), 10)?;
/// let bits = tiles.handle().to_bits();                 // sent by any means
///
/// // In any process that has the bits:
/// let handle = PartitionHandle::<Write<f64, Ix1>>::from_bits(bits);
/// assert_eq!(table.open_partition(handle)?.tiles(), 10);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[doc(alias("chunks", "par_chunks_mut", "tiles", "domain_decomposition"))]
#[repr(transparent)]
pub struct PartitionHandle<G> {
    control: AnyHandle,
    group: PhantomData<fn() -> G>,
}

// SAFETY: a transparent wrapper of `AnyHandle`, for which zeros are a value.
unsafe impl<G> bytemuck::Zeroable for PartitionHandle<G> {}
// SAFETY: as above. No padding, and any bits are a value: opening the partition checks them.
unsafe impl<G: 'static> bytemuck::Pod for PartitionHandle<G> {}

opened_handle_traits!(PartitionHandle<G>, "PartitionHandle", G);

impl<G> PartitionHandle<G> {
    /// Returns the handle as a number, to send it.
    ///
    /// [`PartitionHandle`] has an example.
    pub const fn to_bits(self) -> u64 {
        self.control.to_bits()
    }

    /// Returns the handle from the bits of [`to_bits`](PartitionHandle::to_bits). Opening it checks
    /// that it names a partition of this group.
    ///
    /// [`PartitionHandle`] has an example.
    pub const fn from_bits(bits: u64) -> Self {
        PartitionHandle {
            control: AnyHandle::from_bits(bits),
            group: PhantomData,
        }
    }
}

/// One or several arrays, divided along an axis into tiles of equal length (the last may be
/// shorter).
///
/// Tiles are claimed in *rounds*. In each round one participant claims each tile, and alone has its
/// views until it releases the tile. A running round leases its arrays. Between rounds they can be
/// read, written or freed like any other array.
///
/// ```
/// use ndshm::{HandleTable, Segment};
/// use ndarray::Axis;
/// use std::time::Duration;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>((1000, 3))?;
/// let w = table.from_elem(1000, 0.5)?;
/// let tiles = table.partition((x.write(), w.read()), Axis(0), 64)?;
///
/// let round = tiles.begin()?;
/// // Any number of processes does this at once:
/// if let Some(mut part) = tiles.enter()? {
///     while let Some(mut tile) = part.claim()? {
///         let (mut x, w) = tile.views();
///         x.column_mut(0).assign(&w);
///     }
/// }
/// round.finish(Duration::from_secs(1))?;
/// assert_eq!(table.read(x)?.sum(), 500.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct Partition<'t, G> {
    table: &'t Core,
    control: AnyHandle,
    group: G,
    plan: Plan,
    unit: usize,
    /// Keeps the claim words in place while this value lives.
    lease: SharedLease<'t>,
    /// If `true`, dropping the partition frees the claim words.
    owned: bool,
    token: u64,
}

impl Core {
    /// Divides the arrays of `group` along `axis` into tiles of `tile_len` indices.
    pub(crate) fn partition<G: Group>(
        &self,
        group: G,
        axis: Axis,
        tile_len: usize,
    ) -> Result<Partition<'_, G>, PartitionError> {
        self.partition_by(group, &Grid::blocks([(axis, tile_len)]))
    }

    /// Divides the arrays of `group` into the tiles of a [`Grid`]: along several axes, or unevenly.
    pub(crate) fn partition_by<G: Group>(
        &self,
        group: G,
        grid: &Grid,
    ) -> Result<Partition<'_, G>, PartitionError> {
        let members = group.members();
        if members.len() > MAX_MEMBERS {
            return Err(PartitionError::TooManyArrays {
                arrays: members.len(),
                limit: MAX_MEMBERS,
            });
        }
        let shapes = group.shapes(self)?;
        let lengths = grid
            .axes()
            .map(|axis| self.common_length(&members, &shapes, axis))
            .collect::<Result<Vec<_>, _>>()?;
        self.refuse_overlap(&members)?;
        let plan = grid.plan(&lengths)?;
        // The product does not overflow: `Grid::plan` refuses more tiles than can be counted.
        let tiles = plan.tiles().unwrap_or(0);
        self.check_rows(&members, &shapes, tiles)?;
        let control = self.create_control(tiles, &plan, &members)?;
        self.partition_of(self.lease_shared(control)?, group, plan, true)
    }

    /// Opens a partition that another participant has created.
    pub(crate) fn open_partition<G: Group>(
        &self,
        handle: PartitionHandle<G>,
    ) -> Result<Partition<'_, G>, PartitionError> {
        let freed = || PartitionError::Freed {
            handle: handle.control,
        };
        let lease = self.lease_shared(handle.control).map_err(|error| {
            match self.tables().was_freed(handle.control) {
                true => freed(),
                false => error.into(),
            }
        })?;
        let not_this = || {
            let memory = self.segment().memory();
            let words = memory.descriptor(lease.slot.index);
            let expected = "a partition of these arrays with these accesses";
            LeaseError::from(WrongKind::found_in(handle.control, words, memory, expected))
        };
        let control = self.control(&lease).ok_or_else(not_this)?;
        let member = |member: Member| {
            let handle = self.handle_of(member.slot, member.generation);
            (handle, member.mode)
        };
        let members: Vec<_> = control.members().map(member).collect();
        let group = G::from_members(&members).ok_or_else(not_this)?;
        group.shapes(self).map_err(|error| match error {
            // Without one of its arrays it runs no round.
            LeaseError::Stale { .. } => freed(),
            error => error.into(),
        })?;
        let plan = control.plan().ok_or_else(not_this)?;
        self.partition_of(lease, group, plan, false)
    }

    fn partition_of<'t, G: Group>(
        &'t self,
        lease: SharedLease<'t>,
        group: G,
        plan: Plan,
        owned: bool,
    ) -> Result<Partition<'t, G>, PartitionError> {
        let words = self.control(&lease);
        Ok(Partition {
            table: self,
            control: lease.handle,
            group,
            plan,
            unit: words.map_or(1, |words| words.unit()),
            lease,
            owned,
            token: self.token(),
        })
    }

    fn create_control(
        &self,
        tiles: usize,
        plan: &Plan,
        members: &[(AnyHandle, AccessMode)],
    ) -> Result<AnyHandle, AllocError> {
        let words = Control::words(tiles, plan);
        let reserved = self.reserve((words * 8) as u64)?;
        let key = self.segment().key();
        let members: Vec<Member> = members
            .iter()
            .map(|&(handle, mode)| {
                let (slot, generation) = handle.unpack(key);
                Member {
                    slot,
                    generation,
                    mode,
                }
            })
            .collect();
        let memory = self.segment().memory();
        if Control::create(memory, reserved.extent, tiles, plan, &members).is_none() {
            return Err(self.abandon_damaged(reserved));
        }
        Ok(self.publish_control(reserved, |descriptor| {
            Descriptor::control(ControlKind::Partition, words).store(descriptor);
        }))
    }

    /// Returns the partition's words, or `None` if the leased array is not a partition.
    pub(crate) fn control<'t>(&'t self, lease: &SharedLease<'t>) -> Option<Control<'t>> {
        Control::of(self.segment().memory(), lease.slot.index)
    }
}

impl<'t, G: Group> Partition<'t, G> {
    /// Returns the partition's name for other processes.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// table.publish("tiles", tiles.handle())?;
    /// assert_eq!(table.find_any("tiles")?, tiles.handle().into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> PartitionHandle<G> {
        PartitionHandle {
            control: self.control,
            group: PhantomData,
        }
    }

    /// Returns the accesses that the partition was created with.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// assert_eq!(tiles.group().handle(), x);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn group(&self) -> G {
        self.group.clone()
    }

    /// Returns the number of tiles.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Axis;
    ///
    /// let x = table.zeros::<f64, _>(100)?;
    /// assert_eq!(table.partition(x.write(), Axis(0), 30)?.tiles(), 4);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn tiles(&self) -> usize {
        // The product does not overflow: creating or opening the partition has checked it.
        self.plan.tiles().unwrap_or(0)
    }

    /// Returns the indices that a tile covers along the first cut axis; empty if there is no such
    /// tile.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// assert_eq!(tiles.range(3), 30..40);
    /// assert!(tiles.range(10).is_empty());                 // there is no such tile
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn range(&self, tile: usize) -> Range<usize> {
        self.plan.rows(tile)
    }

    /// Returns the side of a tile along each cut axis.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((100, 60))?;
    /// let grid = Grid::blocks([(Axis(0), 50), (Axis(1), 20)]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// let block: Vec<_> = tiles.sides(0).map(|side| side.range).collect();
    /// assert_eq!(block, [0..50, 0..20]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn sides(&self, tile: usize) -> impl Iterator<Item = TileSide> {
        self.plan.sides(tile)
    }

    /// Returns the axis that is cut first.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Axis;
    ///
    /// let x = table.zeros::<f64, _>((2, 100))?;
    /// assert_eq!(table.partition(x.write(), Axis(1), 10)?.axis(), Axis(1));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn axis(&self) -> Axis {
        Axis(self.plan.first_axis())
    }

    /// Returns the progress of the running round, or of the last one. Any process may ask.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |_, (), _| ())?;
    /// let progress = tiles.progress()?;                    // in any process
    /// assert_eq!((progress.done, progress.tiles), (10, 10));
    /// assert!(!progress.running);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the creator has dropped the partition.
    pub fn progress(&self) -> Result<RoundProgress, LeaseError> {
        self.table.enter()?;
        let (_lease, control) = self.open()?;
        Ok(RoundProgress::of(&control))
    }

    /// Returns the tiles that are claimed together with `tile`: it alone in a partition of up to
    /// 2,048 tiles, up to 16 neighbours beyond; none if there is no such tile.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// assert_eq!(tiles.claimed_with(3), 3..4);             // there are only ten
    /// assert!(tiles.claimed_with(10).is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn claimed_with(&self, tile: usize) -> Range<usize> {
        let (start, tiles) = (tile / self.unit * self.unit, self.tiles());
        match tile < tiles {
            true => start..(start + self.unit).min(tiles),
            false => tiles..tiles,
        }
    }

    /// Returns the number of tiles per claim.
    pub(crate) fn unit(&self) -> usize {
        self.unit
    }

    pub(crate) fn table(&self) -> &'t Core {
        self.table
    }

    pub(crate) fn segment(&self) -> &'t Segment {
        self.table.segment()
    }

    /// Returns the words, if the lease that this value keeps on them belongs to this process.
    fn own_words(&self) -> Option<Control<'t>> {
        match self.lease.is_ours() {
            true => self.table.control(&self.lease),
            false => None,
        }
    }

    /// Takes a lease of this process on the claim words, and returns both.
    fn open(&self) -> Result<(SharedLease<'t>, Control<'t>), LeaseError> {
        let lease = self.table.lease_shared(self.control)?;
        let control = self.table.control(&lease).ok_or_else(|| {
            let what = "the partition's words do not fit together";
            self.table.tables().corrupt(self.control, what)
        })?;
        Ok((lease, control))
    }
}

impl<G> Drop for Partition<'_, G> {
    fn drop(&mut self) {
        // After a fork the partition belongs to the parent. An error says that it was freed before.
        if self.owned && self.table.is_of(self.token) {
            if let Some(control) = self.table.control(&self.lease) {
                control.free();
            }
            let _ = self.table.free(self.control);
        }
    }
}

impl<G: Group + fmt::Debug> fmt::Debug for Partition<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("group", &self.group)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// The progress of a round: [`Partition::progress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RoundProgress {
    /// The round, from 1, or 0 if there was none yet.
    pub round: u64,
    /// `true` while the round runs.
    pub running: bool,
    /// Tiles that are done in this round.
    pub done: usize,
    /// Tiles that a participant holds.
    pub held: usize,
    /// Tiles that were left half-written.
    pub torn: usize,
    /// All tiles.
    pub tiles: usize,
}

impl RoundProgress {
    pub(crate) fn of(control: &Control<'_>) -> RoundProgress {
        let now = control.round();
        let progress = control.progress(now.round());
        RoundProgress {
            round: now.round(),
            running: now.is_running(),
            done: progress.done,
            held: progress.held,
            torn: progress.torn.len(),
            tiles: control.tiles(),
        }
    }
}

impl Core {
    /// Returns the length along `axis` that all divided arrays share.
    fn common_length(
        &self,
        members: &[(AnyHandle, AccessMode)],
        shapes: &[Vec<usize>],
        axis: usize,
    ) -> Result<usize, PartitionError> {
        let mut common = None;
        for (&(handle, mode), shape) in members.iter().zip(shapes) {
            if !mode.is_cut() {
                continue;
            }
            let found = *shape.get(axis).ok_or_else(|| PartitionError::NoSuchAxis {
                handle,
                name: self.name_of(handle),
                axes: shape.len(),
                axis,
            })?;
            let expected = *common.get_or_insert(found);
            if found != expected {
                return Err(PartitionError::Lengths {
                    handle,
                    name: self.name_of(handle),
                    axis,
                    found,
                    expected,
                });
            }
        }
        Ok(common.unwrap_or(0))
    }

    /// Checks that the arrays with a row for each tile have as many.
    fn check_rows(
        &self,
        members: &[(AnyHandle, AccessMode)],
        shapes: &[Vec<usize>],
        tiles: usize,
    ) -> Result<(), PartitionError> {
        for (&(handle, mode), shape) in members.iter().zip(shapes) {
            let rows = shape.first().copied();
            if mode == AccessMode::PerTile && rows != Some(tiles) {
                return Err(PartitionError::Rows {
                    handle,
                    name: self.name_of(handle),
                    rows: rows.unwrap_or(0),
                    tiles,
                });
            }
        }
        Ok(())
    }

    fn refuse_overlap(&self, members: &[(AnyHandle, AccessMode)]) -> Result<(), PartitionError> {
        for (at, &(handle, mode)) in members.iter().enumerate() {
            let conflicts = |&&(other, how): &&(AnyHandle, AccessMode)| {
                other == handle && (mode.writes() || how.writes())
            };
            if members[..at].iter().any(|member| conflicts(&member)) {
                return Err(PartitionError::Overlap {
                    handle,
                    name: self.name_of(handle),
                });
            }
        }
        Ok(())
    }
}
