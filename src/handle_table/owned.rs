//! Partitions, rounds and members that do not borrow the table. Each call is given a `HandleTable`, or
//! a `SharedTable`. It holds the lock of a shared table for its steps on words.

use core::ops::Range;
use core::time::Duration;

use super::HandleTable;
use super::access::{Inside, TableAccess};
use crate::partition::error::{PartitionError, RoundError};
use crate::partition::{
    Claimed, Entered, Grid, Look, Next, OwnedMember, OwnedPartition, OwnedRound, PartitionHandle,
    RoundProgress, TilePart, TileToken, UntypedGroup, Wait, Waited,
};
use crate::seat::TornTile;
use crate::table::core::Core;

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
    /// ```
    /// use ndshm::partition::UntypedGroup;
    /// use ndshm::{HandleTable, PartitionHandle, Segment};
    /// use ndarray::Axis;
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let bits = tiles.handle().to_bits();
    ///
    /// // In any process that has the bits:
    /// let other = HandleTable::join(&segment)?;
    /// let name = PartitionHandle::<UntypedGroup>::from_bits(bits);
    /// assert_eq!(other.open_untyped(name)?.tiles(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
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

/// Calls `run` with the table of a value, if the value is of this process: a refused call takes no
/// seat for a child.
#[inline]
fn within<R>(
    is_of_process: Result<(), RoundError>,
    table: &impl TableAccess,
    run: impl FnOnce(&Core) -> Result<R, RoundError>,
) -> Result<R, RoundError> {
    is_of_process?;
    table.with(Inside, |table| run(&table.core))?
}

impl OwnedPartition {
    /// Opens the next round, as [`Partition::begin`](crate::Partition::begin) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let round = tiles.begin(&table)?;
    /// assert_eq!(round.number(), 1);
    /// assert!(tiles.begin(&table).is_err(), "a round is running");
    /// # round.give_up(&table)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table than the one that made the value.
    /// [`RoundError::Forked`] in a child of the process that made it. Otherwise the errors of
    /// [`Partition::begin`](crate::Partition::begin).
    #[inline]
    pub fn begin(&mut self, table: &impl TableAccess) -> Result<OwnedRound, RoundError> {
        within(self.check_process(), table, |core| self.begin_in(core))
    }

    /// Waits until a round later than `after` is open, and enters it, as
    /// [`Partition::enter_next`](crate::Partition::enter_next) does.
    ///
    /// Sleeps without the lock of a [`SharedTable`](crate::SharedTable): other threads use the
    /// table meanwhile. With a timeout of 0 it does not sleep.
    ///
    /// A seat may enter a round several times: once for each thread that claims tiles. A tile goes
    /// to one member, whatever its thread. The arrays stay closed to writers until the last member
    /// has left.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let mut round = tiles.begin(&table)?;
    /// let name = tiles.handle();
    /// std::thread::scope(|threads| {
    ///     for _ in 0..2 {
    ///         threads.spawn(|| {
    ///             let mut tiles = table.open_untyped(name).unwrap();
    ///             let entered = tiles.enter_next(&table, 0, Duration::from_secs(1)).unwrap();
    ///             let Entered::Member(mut member) = entered else { return };
    ///             while let Some(token) = member.claim(&table).unwrap() {
    ///                 let first = member.parts(&table, token).unwrap()[0].first();
    ///                 // SAFETY: the tile is claimed and writable, and has one `f64`.
    ///                 unsafe { first.cast::<f64>().write(1.0) };
    ///                 member.done(&table, token).unwrap();
    ///             }
    ///             member.leave(&table).unwrap();
    ///         });
    ///     }
    ///     while !round.try_finish(&table)? {
    ///         std::thread::yield_now();
    ///     }
    ///     Ok::<(), ndshm::Error>(())
    /// })?;
    /// assert_eq!(table.read(x)?.sum(), 4.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin) and `enter_next`.
    #[inline]
    pub fn enter_next(
        &mut self,
        table: &impl TableAccess,
        after: u64,
        timeout: Duration,
    ) -> Result<Entered<OwnedMember>, RoundError> {
        self.wait(table, timeout, |tiles, core| {
            tiles.look_for_round(core, after)
        })?
        .entered(after, timeout)
    }

    /// Returns the progress of the running round, or of the last one.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// assert_eq!(tiles.progress(&table)?.round, 0);
    /// let round = tiles.begin(&table)?;
    /// let progress = tiles.progress(&table)?;
    /// assert!(progress.running);
    /// assert_eq!((progress.done, progress.tiles), (0, 4));
    /// # round.give_up(&table)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin), and [`RoundError::Lease`] if the partition was freed.
    #[inline]
    pub fn progress(&mut self, table: &impl TableAccess) -> Result<RoundProgress, RoundError> {
        within(self.check_process(), table, |core| self.progress_in(core))
    }

    /// Returns the torn tiles that keep the arrays poisoned, as
    /// [`Partition::torn`](crate::Partition::torn) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let mut round = tiles.begin(&table)?;
    /// let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    ///     panic!("the round runs");
    /// };
    /// while let Some(token) = member.claim(&table)? {
    ///     match token.tile() {
    ///         2 => member.tear(&table, token)?,
    ///         _ => member.done(&table, token)?,
    ///     }
    /// }
    /// member.leave(&table)?;
    /// assert!(round.try_finish(&table).is_err());
    /// assert_eq!(tiles.torn(&table)?[0].rows, 2..3);
    /// // Row 2 is good as it is.
    /// assert_eq!(tiles.clear_poison(&table)?, 1);
    /// assert!(tiles.torn(&table)?.is_empty());
    /// assert!(table.read(x).is_ok());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`progress`](OwnedPartition::progress).
    #[inline]
    pub fn torn(&mut self, table: &impl TableAccess) -> Result<Vec<TornTile>, RoundError> {
        within(self.check_process(), table, |core| self.torn_in(core))
    }

    /// Declares the torn tiles good as they are, and clears the poison of the arrays, as
    /// [`Partition::clear_poison`](crate::Partition::clear_poison) does. [`torn`](OwnedPartition::torn)
    /// has an example.
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin). Otherwise the errors of
    /// [`Partition::clear_poison`](crate::Partition::clear_poison).
    #[inline]
    pub fn clear_poison(&mut self, table: &impl TableAccess) -> Result<usize, RoundError> {
        within(self.check_process(), table, |core| {
            self.clear_poison_in(core)
        })
    }

    /// Waits until `round` is over, as
    /// [`Partition::wait_finished`](crate::Partition::wait_finished) does.
    ///
    /// Sleeps without the lock of a [`SharedTable`](crate::SharedTable): other threads use the
    /// table meanwhile. With a timeout of 0 it does not sleep.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let mut round = tiles.begin(&table)?;
    /// let (number, mut waiting) = (round.number(), table.open_untyped(tiles.handle())?);
    /// std::thread::scope(|threads| {
    ///     let over = threads.spawn(|| waiting.wait_finished(&table, number, Duration::from_secs(60)));
    ///     // This thread runs the tiles with the same table.
    /// #     let entered = tiles.enter_next(&table, 0, Duration::ZERO)?;
    /// #     let Entered::Member(mut member) = entered else { panic!("the round runs") };
    ///     while let Some(token) = member.claim(&table)? {
    ///         member.done(&table, token)?;
    ///     }
    ///     member.leave(&table)?;
    ///     assert!(round.try_finish(&table)?);
    ///     over.join().unwrap()?;
    ///     Ok::<(), ndshm::Error>(())
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin) and `wait_finished`.
    #[inline]
    pub fn wait_finished(
        &mut self,
        table: &impl TableAccess,
        round: u64,
        timeout: Duration,
    ) -> Result<(), RoundError> {
        match self.wait(table, timeout, |tiles, core| {
            tiles.look_for_end(core, round)
        })? {
            Waited::For(outcome) => outcome,
            Waited::Freed => Err(RoundError::GivenUp { round }),
            Waited::TimedOut => within(self.check_process(), table, |core| {
                self.not_over(core, round, timeout)
            }),
        }
    }

    /// Repeats `look` under the table's lock until it gives an answer, and pauses without the lock.
    fn wait<R>(
        &mut self,
        table: &impl TableAccess,
        timeout: Duration,
        mut look: impl FnMut(&mut Self, &Core) -> Result<Look<R>, RoundError>,
    ) -> Result<Waited<R>, RoundError> {
        let mut wait = Wait::new(timeout);
        loop {
            let seen = match within(self.check_process(), table, |core| look(self, core))? {
                Look::Answer(answer) => return Ok(Waited::For(answer)),
                Look::Freed => return Ok(Waited::Freed),
                Look::NotYet(seen) => seen,
            };
            match self.pause(&mut wait, seen) {
                Next::Look => {}
                Next::Reap => drop(table.reap(Inside)?),
                Next::TimedOut => return Ok(Waited::TimedOut),
            }
        }
    }

    /// Frees the partition if this value created it, at once.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let name = tiles.handle();
    /// tiles.free(&table)?;
    /// assert!(table.open_untyped(name).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`begin`](OwnedPartition::begin).
    #[inline]
    pub fn free(self, table: &impl TableAccess) -> Result<(), RoundError> {
        within(self.check_process(), table, |core| self.free_in(core))
    }
}

impl OwnedRound {
    /// Ends the round if every tile is done or torn. Returns `false` if one is not: then ask again.
    ///
    /// A member may have run its last tile and not have left. Until it has, the arrays are closed to
    /// writers: [`begin`](OwnedPartition::begin) then returns `Busy`, and succeeds later.
    ///
    /// Does not look for dead participants: [`reap`](HandleTable::reap) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let mut round = tiles.begin(&table)?;
    /// assert!(!round.try_finish(&table)?);
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// // In any thread or process, `member` is in the round:
    /// while let Some(token) = member.claim(&table)? {
    ///     member.done(&table, token)?;
    /// }
    /// member.leave(&table)?;
    /// assert!(round.try_finish(&table)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Torn`] if tiles are half-written. The round is over.
    /// - [`RoundError::NotHeld`] for another table, or once the round is over.
    /// - [`RoundError::Forked`] in a child of the process that opened the round.
    #[inline]
    pub fn try_finish(&mut self, table: &impl TableAccess) -> Result<bool, RoundError> {
        within(self.check_process(), table, |core| self.try_finish_in(core))
    }

    /// Sends finished tiles back: a participant can claim each once more in this round, and sees
    /// what was written to it before this call. Skips tiles that are not done. Returns the number
    /// of tiles that were sent back.
    ///
    /// Between [`TileState::Done`](crate::partition::TileState) and this call only the opener writes
    /// the tile. Participants that have found no tile left have to look again: tell them.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, TileState, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(2)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let mut round = tiles.begin(&table)?;
    /// for _ in 0..3 {
    /// #     let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #         panic!("the round runs");
    /// #     };
    ///     while let Some(token) = member.claim(&table)? {
    ///         member.done(&table, token)?;
    ///     }
    /// #     member.leave(&table)?;
    ///     assert_eq!(round.tile(1), Some(TileState::Done));
    ///     assert_eq!(round.again(&table, [0, 1])?, 2);
    ///     assert_eq!(round.again(&table, [1])?, 0);
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::NoSuchTile`] if the partition has fewer tiles.
    /// - [`RoundError::NotHeld`] for another table, once the round is over, or for a partition of
    ///   more than 2,048 tiles.
    /// - [`RoundError::Forked`] in a child of the process that opened the round.
    #[inline]
    pub fn again(
        &mut self,
        table: &impl TableAccess,
        tiles: impl IntoIterator<Item = usize>,
    ) -> Result<usize, RoundError> {
        let tiles: Vec<usize> = tiles.into_iter().collect();
        within(self.check_process(), table, |core| {
            self.again_in(core, &tiles)
        })
    }

    /// Gives the round up, and releases its arrays at once, as dropping a
    /// [`Round`](crate::Round) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// let round = tiles.begin(&table)?;
    /// round.give_up(&table)?;
    /// table.write(x)?.fill(1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table, or once the round is over. [`RoundError::Forked`]
    /// in a child of the process that opened the round.
    #[inline]
    pub fn give_up(self, table: &impl TableAccess) -> Result<(), RoundError> {
        within(self.check_process(), table, |core| self.give_up_in(core))
    }
}

impl OwnedMember {
    /// Claims the next tile that is unclaimed in this round. Returns `None` if none is left.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// assert_eq!(member.out(), Some(token));
    /// member.done(&table, token)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::TileOut`] if a tile is out.
    /// - [`RoundError::NotHeld`] for another table than the one that made the value.
    /// - [`RoundError::Forked`] in a child of the process that made it.
    #[inline]
    pub fn claim(&mut self, table: &impl TableAccess) -> Result<Option<TileToken>, RoundError> {
        within(self.check_process(), table, |core| self.claim_in(core))
    }

    /// Claims the tile with this index, as
    /// [`RoundMember::claim_at`](crate::RoundMember::claim_at) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Claimed, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// if let Claimed::Tile(token) = member.claim_at(&table, 2)? {
    ///     assert_eq!(token.tile(), 2);
    ///     member.done(&table, token)?;
    /// }
    /// assert!(matches!(member.claim_at(&table, 2)?, Claimed::Done));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`claim`](OwnedMember::claim), and [`RoundError::NoSuchTile`].
    #[inline]
    pub fn claim_at(
        &mut self,
        table: &impl TableAccess,
        tile: usize,
    ) -> Result<Claimed<TileToken>, RoundError> {
        within(self.check_process(), table, |core| {
            self.claim_at_in(core, tile)
        })
    }

    /// Returns the tile's part of each array, in the order of the group.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// for part in member.parts(&table, token)? {
    ///     assert_eq!((part.shape(), part.strides()), (&[1][..], &[8][..]));
    ///     assert!(part.is_writable());
    ///     // SAFETY: the tile is claimed and writable, and has one `f64`.
    ///     unsafe { part.first().cast::<f64>().write(1.0) };
    /// }
    /// member.done(&table, token)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] if the tile is not out, or for another table.
    /// [`RoundError::Forked`] in a child of the process that claimed it.
    #[inline]
    pub fn parts(
        &mut self,
        table: &impl TableAccess,
        token: TileToken,
    ) -> Result<Vec<TilePart>, RoundError> {
        within(self.check_process(), table, |core| {
            self.parts_in(core, token)
        })
    }

    /// Returns the indices that the tile covers along the first cut axis.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// assert_eq!(member.range(&table, token)?, token.tile()..token.tile() + 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts).
    #[inline]
    pub fn range(
        &mut self,
        table: &impl TableAccess,
        token: TileToken,
    ) -> Result<Range<usize>, RoundError> {
        within(self.check_process(), table, |core| {
            self.range_in(core, token)
        })
    }

    /// Releases a tile that was run to its end.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// member.done(&table, token)?;
    /// assert!(member.done(&table, token).is_err(), "a tile is given back once");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts). Nothing has changed then.
    #[inline]
    pub fn done(&mut self, table: &impl TableAccess, token: TileToken) -> Result<(), RoundError> {
        within(self.check_process(), table, |core| {
            self.done_in(core, token)
        })
    }

    /// Gives a tile up half-written, as [`Tile::tear`](crate::Tile::tear) does.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// let token = member.claim(&table)?.expect("four tiles are left");
    /// member.tear(&table, token)?;
    /// assert_eq!(tiles.progress(&table)?.torn, 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`parts`](OwnedMember::parts). Nothing has changed then.
    #[inline]
    pub fn tear(&mut self, table: &impl TableAccess, token: TileToken) -> Result<(), RoundError> {
        within(self.check_process(), table, |core| {
            self.tear_in(core, token)
        })
    }

    /// Leaves the round at once. Tears the tile that is out, if any.
    ///
    /// Another member of the same table stays in the round.
    ///
    /// ```
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, Segment, SharedTable};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// # let round = tiles.begin(&table)?;
    /// # let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
    /// #     panic!("the round runs");
    /// # };
    /// member.leave(&table)?;
    /// round.give_up(&table)?;
    /// table.write(x)?.fill(1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RoundError::NotHeld`] for another table. [`RoundError::Forked`] in a child of the process
    /// that made the value.
    #[inline]
    pub fn leave(self, table: &impl TableAccess) -> Result<(), RoundError> {
        within(self.check_process(), table, |core| self.leave_in(core))
    }
}
