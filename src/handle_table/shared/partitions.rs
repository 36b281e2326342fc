//! Partitions that any thread of the process may use. Their calls are in `handle_table/owned.rs`.

use super::SharedTable;
use crate::partition::error::PartitionError;
use crate::partition::{Grid, OwnedPartition, PartitionHandle, UntypedGroup};

impl SharedTable {
    /// Divides arrays of any types into the tiles of a [`Grid`]. See
    /// [`HandleTable::partition_untyped`](crate::HandleTable::partition_untyped).
    ///
    /// The partition, its rounds and their participants may be used and dropped by any thread. Two
    /// threads may claim tiles of a round at once: each [enters](OwnedPartition::enter_next) for
    /// itself.
    ///
    /// ```
    /// use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// use ndshm::{Grid, Segment, SharedTable};
    /// use ndarray::Axis;
    /// use std::time::Duration;
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 10)]))?;
    ///
    /// let mut round = tiles.begin(&table)?;
    /// let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    ///     panic!("the round runs");
    /// };
    /// // Another thread runs the tiles.
    /// let working = std::thread::spawn({
    ///     let table = table.clone();
    ///     move || {
    ///         while let Some(token) = member.claim(&table)? {
    ///             let first = member.parts(&table, token)?[0].first().cast::<[f64; 10]>();
    ///             // SAFETY: the tile is claimed and writable, and has ten `f64`s.
    ///             unsafe { first.write([0.5; 10]) };
    ///             member.done(&table, token)?;
    ///         }
    ///         member.leave(&table)
    ///     }
    /// });
    /// working.join().unwrap()?;
    /// assert!(round.try_finish(&table)?);
    /// assert_eq!(table.read(x)?.sum(), 50.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleTable::partition_by`](crate::HandleTable::partition_by).
    pub fn partition_untyped(
        &self,
        group: UntypedGroup,
        grid: &Grid,
    ) -> Result<OwnedPartition, PartitionError> {
        self.with(|core| core.partition_untyped(group, grid))?
    }

    /// Opens a partition that another participant has created, or another thread of this process.
    /// See [`HandleTable::open_untyped`](crate::HandleTable::open_untyped).
    ///
    /// ```
    /// use ndshm::partition::{AccessMode, UntypedGroup};
    /// use ndshm::{Grid, Segment, SharedTable};
    /// use ndarray::Axis;
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// let tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 10)]))?;
    /// let name = tiles.handle();
    /// let opened = std::thread::spawn({
    ///     let table = table.clone();
    ///     move || table.open_untyped(name).map(|tiles| tiles.tiles())
    /// });
    /// assert_eq!(opened.join().unwrap()?, 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleTable::open_partition`](crate::HandleTable::open_partition).
    pub fn open_untyped(
        &self,
        handle: PartitionHandle<UntypedGroup>,
    ) -> Result<OwnedPartition, PartitionError> {
        self.with(|core| core.open_untyped(handle))?
    }
}
