//! Partitions, rounds and participants that do not borrow the table.

use core::ops::Range;
use core::time::Duration;

use super::HandleTable;
use crate::partition::error::{PartitionError, RoundError};
use crate::partition::{
    Claimed, Entered, Grid, OwnedMember, OwnedPartition, OwnedRound, PartitionHandle,
    RoundProgress, TilePart, TileToken, UntypedGroup,
};

impl HandleTable {
    /// Divides arrays of any types into the tiles of a [`Grid`], as
    /// [`partition_by`](HandleTable::partition_by) does. The result does not borrow this table: its
    /// calls are given it.
    ///
    /// ```
    /// use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// use ndshm::{Grid, HandleTable, Segment};
    /// use ndarray::Axis;
    /// use std::time::Duration;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 10)]))?;
    ///
    /// let mut round = tiles.begin(&table)?;
    /// // Any number of processes does this at once:
    /// if let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? {
    ///     while let Some(token) = member.claim(&table)? {
    ///         let part = &member.parts(&table, token)?[0];
    ///         let first = part.first().cast::<f64>();
    ///         for index in 0..part.shape()[0] {
    ///             // SAFETY: the tile is claimed, its elements are `f64`s side by side, and the
    ///             // part is writable.
    ///             unsafe { first.add(index).write(0.5) };
    ///         }
    ///         member.done(&table, token)?;
    ///     }
    ///     member.leave(&table)?;
    /// }
    /// while !round.try_finish(&table)? {
    ///     table.reap()?;
    /// }
    /// assert_eq!(table.read(x)?.sum(), 50.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`partition_by`](HandleTable::partition_by).
    #[inline]
    pub fn partition_untyped(
        &self,
        group: UntypedGroup,
        grid: &Grid,
    ) -> Result<OwnedPartition, PartitionError> {
        self.core.partition_untyped(group, grid)
    }

    /// Opens a partition that another participant has created, with any group. The result does not
    /// borrow this table.
    ///
    /// # Errors
    /// See [`open_partition`](HandleTable::open_partition).
    #[inline]
    pub fn open_untyped(
        &self,
        handle: PartitionHandle<UntypedGroup>,
    ) -> Result<OwnedPartition, PartitionError> {
        self.core.open_untyped(handle)
    }
}

impl OwnedPartition {
    /// Opens the next round, as [`Partition::begin`](crate::Partition::begin) does.
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table than the one that made the value.
    /// [`RoundError::Forked`] in a child of the process that made it. Otherwise the errors of [`Partition::begin`](crate::Partition::begin).
    #[inline]
    pub fn begin(&mut self, table: &HandleTable) -> Result<OwnedRound, RoundError> {
        self.begin_in(&table.core)
    }

    /// Enters the next round, as [`Partition::enter_next`](crate::Partition::enter_next) does. With
    /// a timeout of 0 it does not wait: a table behind a lock must not be held for long.
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin) and `enter_next`.
    #[inline]
    pub fn enter_next(
        &mut self,
        table: &HandleTable,
        after: u64,
        timeout: Duration,
    ) -> Result<Entered<OwnedMember>, RoundError> {
        self.enter_next_in(&table.core, after, timeout)
    }

    /// Returns the progress of the running round, or of the last one.
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin), and [`RoundError::Lease`] if the partition was freed.
    #[inline]
    pub fn progress(&mut self, table: &HandleTable) -> Result<RoundProgress, RoundError> {
        self.progress_in(&table.core)
    }

    /// Waits until `round` is over, as
    /// [`Partition::wait_finished`](crate::Partition::wait_finished) does.
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin) and `wait_finished`.
    #[inline]
    pub fn wait_finished(
        &mut self,
        table: &HandleTable,
        round: u64,
        timeout: Duration,
    ) -> Result<(), RoundError> {
        self.wait_finished_in(&table.core, round, timeout)
    }

    /// Frees the partition if this value created it, at once.
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin).
    #[inline]
    pub fn free(self, table: &HandleTable) -> Result<(), RoundError> {
        self.free_in(&table.core)
    }
}

impl OwnedRound {
    /// Ends the round if every tile is done or torn. Returns `false` if one is not: then ask again.
    ///
    /// Does not look for dead participants: [`reap`](HandleTable::reap) does.
    ///
    /// # Errors
    /// - [`RoundError::Torn`] if tiles are half-written. The round is over.
    /// - [`RoundError::NotHeld`] for another table, or once the round is over.
    /// - [`RoundError::Forked`] in a child of the process that opened the round.
    #[inline]
    pub fn try_finish(&mut self, table: &HandleTable) -> Result<bool, RoundError> {
        self.try_finish_in(&table.core)
    }

    /// Gives the round up, and releases its arrays at once, as dropping a
    /// [`Round`](crate::Round) does.
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table, or once the round is over. [`RoundError::Forked`]
    /// in a child of the process that opened the round.
    #[inline]
    pub fn give_up(self, table: &HandleTable) -> Result<(), RoundError> {
        self.give_up_in(&table.core)
    }
}

impl OwnedMember {
    /// Claims the next tile that is unclaimed in this round. Returns `None` if none is left.
    ///
    /// # Errors
    /// - [`RoundError::TileOut`] if a tile is out.
    /// - [`RoundError::NotHeld`] for another table than the one that made the value.
    /// - [`RoundError::Forked`] in a child of the process that made it.
    #[inline]
    pub fn claim(&mut self, table: &HandleTable) -> Result<Option<TileToken>, RoundError> {
        self.claim_in(&table.core)
    }

    /// Claims the tile with this index, as
    /// [`RoundMember::claim_at`](crate::RoundMember::claim_at) does.
    ///
    /// # Errors
    /// As [`claim`](OwnedMember::claim), and [`RoundError::NoSuchTile`].
    #[inline]
    pub fn claim_at(
        &mut self,
        table: &HandleTable,
        tile: usize,
    ) -> Result<Claimed<TileToken>, RoundError> {
        self.claim_at_in(&table.core, tile)
    }

    /// Returns the tile's part of each array, in the order of the group.
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] if the tile is not out, or for another table.
    /// [`RoundError::Forked`] in a child of the process that claimed it.
    #[inline]
    pub fn parts(
        &mut self,
        table: &HandleTable,
        token: TileToken,
    ) -> Result<Vec<TilePart>, RoundError> {
        self.parts_in(&table.core, token)
    }

    /// Returns the indices that the tile covers along the first cut axis.
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts).
    #[inline]
    pub fn range(
        &mut self,
        table: &HandleTable,
        token: TileToken,
    ) -> Result<Range<usize>, RoundError> {
        self.range_in(&table.core, token)
    }

    /// Releases a tile that was run to its end.
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts). Nothing has changed then.
    #[inline]
    pub fn done(&mut self, table: &HandleTable, token: TileToken) -> Result<(), RoundError> {
        self.done_in(&table.core, token)
    }

    /// Gives a tile up half-written, as [`Tile::tear`](crate::Tile::tear) does.
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts). Nothing has changed then.
    #[inline]
    pub fn tear(&mut self, table: &HandleTable, token: TileToken) -> Result<(), RoundError> {
        self.tear_in(&table.core, token)
    }

    /// Leaves the round at once. Tears the tile that is out, if any.
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table. [`RoundError::Forked`] in a child of the process
    /// that made the value.
    #[inline]
    pub fn leave(self, table: &HandleTable) -> Result<(), RoundError> {
        self.leave_in(&table.core)
    }
}
