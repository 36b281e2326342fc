//! Torn tiles after their round: telling them, repairing them, and accepting them as they are.
//!
//! `README.md` in the table's directory has the protocol, and the rule by which an array's poison
//! is put down to the torn tiles of one partition.

use core::ops::Range;

use super::control::Control;
use super::cover::TileOf;
use super::{Group, Partition};
use crate::descriptor::PoisonNote;
use crate::handle::AnyHandle;
use crate::memory::TileAccesses;
use crate::partition::error::RoundError;
use crate::seat::TornTile;
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::lease::{ExclusiveLease, SharedLease};
use crate::table::slot::Slot;
use crate::word::{Purpose, SeatId, SlotIndex};

impl<'t, G: Group> Partition<'t, G> {
    /// Returns the torn tiles that keep the arrays poisoned, in any process.
    ///
    /// They are those of the last round, until [`recover`](Partition::recover) or
    /// [`clear_poison`](Partition::clear_poison). Empty if the poison of no array is theirs: also if
    /// each array was repaired on its own.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let mut part = tiles.enter()?.expect("a round is running");
    /// while let Some(tile) = part.claim()? {
    ///     if tile.index() == 7 {
    ///         tile.tear();
    ///     }
    /// }
    /// drop(part);
    /// round.finish(std::time::Duration::from_secs(10)).unwrap_err();
    /// // In any process that opens the partition:
    /// let torn = tiles.torn()?;
    /// assert_eq!((torn[0].tile, torn[0].rows.clone()), (7, 70..80));
    /// assert_eq!(torn.len(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the creator has dropped the partition.
    pub fn torn(&self) -> Result<Vec<TornTile>, LeaseError> {
        self.table().enter()?;
        let (_lease, control) = self.open()?;
        let memory = self.segment().memory();
        let mut written = control.written();
        let is_theirs = written.any(|(slot, generation)| {
            let slot = Slot::of(memory, slot);
            let live = slot.filter(|slot| slot.word().is_live(generation));
            live.is_some_and(|slot| self.poison_of(slot, &control) == Poison::OfTornTiles)
        });
        Ok(match is_theirs {
            true => control.torn_tiles(),
            false => Vec::new(),
        })
    }

    /// Leases the arrays, passes the views of each torn tile to `repair`, and clears the poison of
    /// the arrays. Nobody else gets an array in between. Returns the number of repaired tiles.
    ///
    /// A tile is repaired when `repair` returns. If it panics, or if the process dies, the other
    /// tiles stay torn, the arrays stay poisoned, and any participant can call this again.
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
    /// // Tile 7 is torn, so `x` is poisoned.
    /// assert!(table.read(x).is_err());
    /// let repaired = tiles.recover(|tile, mut view| {
    ///     for (row, x) in tile.rows.clone().zip(&mut view) {
    ///         *x = row as f64;
    ///     }
    /// })?;
    /// assert_eq!(repaired, 1);
    /// assert_eq!(table.read(x)?.sum(), 4950.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Lease`] with [`LeaseError::Poisoned`] if the poison of an array is not that
    ///   of these tiles alone: a writer of the whole array has died, a round of another partition
    ///   has torn tiles, or the last round was given up. Repair that array by
    ///   [`HandleTable::recover`](crate::HandleTable::recover).
    /// - [`RoundError::Lease`] with [`LeaseError::Busy`] while an array is leased, with
    ///   [`LeaseError::InvalidElement`] if a torn tile holds bytes that are not values of its type.
    /// - [`RoundError::Running`] while a round runs.
    /// - [`RoundError::Forked`] in a child that `repair` has made.
    ///
    /// # Panics
    /// If `repair` panics.
    #[doc(alias("repair", "heal"))]
    #[track_caller]
    pub fn recover(
        &self,
        mut repair: impl FnMut(&TornTile, G::Views<'_>),
    ) -> Result<usize, RoundError> {
        let mending = self.begin_mending()?;
        let memory = self.segment().memory();
        if !mending.torn.is_empty() {
            // An array that was repaired on its own is not poisoned. A panic or a death must leave
            // it poisoned from here on.
            mending.control.poison_written(memory);
        }
        let raw = self.group.locate(self.table(), &self.plan)?;
        for torn in &mending.torn {
            let tile = TileOf {
                plan: &self.plan,
                tile: torn.tile,
            };
            G::check(&raw, tile)?;
            let mut accesses = TileAccesses::new();
            G::track(&raw, memory, (tile, true), &mut accesses);
            // SAFETY: `mending` has exclusive leases of the arrays that tiles write and shared
            // leases of the others. The tile was checked. The views of the last tile are gone:
            // `repair` takes any lifetime, so it cannot keep them.
            let views = unsafe { G::views(&raw, tile) };
            repair(torn, views);
            accesses.end();
            mending.mended(self.table(), torn.tile)?;
        }
        mending.finish(self.table())
    }

    /// Declares the torn tiles good as they are, and clears the poison of the arrays. The caller
    /// has checked them, or is about to overwrite them: the next round runs all tiles. Returns the
    /// number of tiles.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let round = tiles.begin()?;
    /// # let mut part = tiles.enter()?.expect("a round is running");
    /// # part.claim()?.expect("a tile is open").tear();
    /// # while part.claim()?.is_some() {}
    /// # drop(part);
    /// # round.finish(std::time::Duration::from_secs(10)).unwrap_err();
    /// assert!(tiles.begin().is_err());                     // a tile of the last round is torn
    /// assert_eq!(tiles.clear_poison()?, 1);
    /// let round = tiles.begin()?;
    /// # drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`recover`](Partition::recover), but for `InvalidElement` and `Forked`.
    pub fn clear_poison(&self) -> Result<usize, RoundError> {
        let mending = self.begin_mending()?;
        for torn in &mending.torn {
            mending.mended(self.table(), torn.tile)?;
        }
        mending.finish(self.table())
    }

    /// Leases the arrays of the group to repair the torn tiles of the last round.
    fn begin_mending(&self) -> Result<Mending<'t>, RoundError> {
        let me = self.table().enter()?;
        self.table().empty_inbox();
        let (lease, control) = self.open()?;
        let mut mending = Mending {
            control,
            me,
            torn: Vec::new(),
            exclusive: Vec::new(),
            shared: Vec::new(),
            lease,
        };
        for (handle, mode) in self.group.members() {
            match mode.writes() {
                true => {
                    let lease = self.table().lease_exclusive(handle, Purpose::Mend)?;
                    mending.exclusive.push(lease.for_mending());
                }
                false => mending.shared.push(self.table().lease_shared(handle)?),
            }
        }
        let leases = mending.exclusive.iter();
        mending.torn = self.admit(&control, leases.map(|lease| (lease.slot, lease.handle)))?;
        Ok(mending)
    }

    /// Returns the torn tiles that account for the poison of `arrays`, or an error if they do not
    /// account for all of it. The caller has leases of the arrays.
    pub(super) fn admit<'s>(
        &self,
        control: &Control<'_>,
        arrays: impl Iterator<Item = (Slot<'s>, AnyHandle)>,
    ) -> Result<Vec<TornTile>, RoundError> {
        let now = control.round();
        if !now.is_settled() {
            return Err(self.refused(now));
        }
        let mut torn = Vec::new();
        for (slot, handle) in arrays {
            match self.poison_of(slot, control) {
                Poison::None => {}
                Poison::OfTornTiles if torn.is_empty() => torn = control.torn_tiles(),
                Poison::OfTornTiles => {}
                Poison::Other => return Err(self.table().poisoned(handle, slot.index).into()),
            }
        }
        Ok(torn)
    }

    /// Returns the reason for the poison of an array that the tiles write.
    fn poison_of(&self, slot: Slot<'_>, control: &Control<'_>) -> Poison {
        if !slot.word().is_poisoned() {
            return Poison::None;
        }
        let note = PoisonNote::load(self.segment().memory().descriptor(slot.index));
        // The round word after the array's: it is at least as new as the poison.
        match note.torn_in.is_some() && note.torn_in == control.slot() {
            true if control.round().is_settled_torn() => Poison::OfTornTiles,
            _ => Poison::Other,
        }
    }
}

/// The reason for which an array is poisoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Poison {
    None,
    /// Torn tiles of the partition's last round, and nothing else.
    OfTornTiles,
    Other,
}

impl Control<'_> {
    /// Returns the torn tiles of the last round.
    fn torn_tiles(&self) -> Vec<TornTile> {
        let round = self.round().round();
        let tiles = self.progress(round).torn;
        let rows = self.rows(&tiles);
        let torn = |(tile, rows)| TornTile { tile, rows, round };
        tiles.into_iter().zip(rows).map(torn).collect()
    }
}

/// The leases with which torn tiles are repaired. Dropped before the end, it leaves the arrays
/// poisoned.
struct Mending<'t> {
    control: Control<'t>,
    me: SeatId,
    torn: Vec<TornTile>,
    exclusive: Vec<ExclusiveLease<'t>>,
    shared: Vec<SharedLease<'t>>,
    lease: SharedLease<'t>,
}

impl Mending<'_> {
    /// Marks a torn tile as repaired.
    fn mended(&self, table: &Core, tile: usize) -> Result<(), RoundError> {
        // In a child that the caller's repair has made, all of this belongs to the parent.
        if !self.is_ours(table) {
            return Err(RoundError::Forked);
        }
        if let Some(torn) = self.torn.first() {
            self.control.mend(tile, torn.round, self.me);
        }
        Ok(())
    }

    /// Releases the arrays without their poison. Returns the number of repaired tiles.
    fn finish(mut self, table: &Core) -> Result<usize, RoundError> {
        if !self.is_ours(table) {
            return Err(RoundError::Forked);
        }
        let round = self.control.round().round();
        self.shared.clear();
        // One after the other: until the last step the round stays torn, so after a death its tiles
        // still account for the poison of the others.
        let exclusive = core::mem::take(&mut self.exclusive);
        exclusive.into_iter().for_each(ExclusiveLease::mended);
        self.control.mend_round(round);
        Ok(self.torn.len())
    }

    fn is_ours(&self, table: &Core) -> bool {
        self.lease.is_ours() && table.own_seat() == self.me
    }
}

impl Core {
    /// Returns the rows of the torn tiles that account for the poison of an array, for an error
    /// text. `partition` is the slot that the note of the poison tells.
    #[cold]
    pub(crate) fn torn_rows(&self, partition: SlotIndex, array: AnyHandle) -> Vec<Range<usize>> {
        // As for names: models skip the text.
        if cfg!(loom) {
            return Vec::new();
        }
        self.rows_torn_in(partition, array).unwrap_or_default()
    }

    fn rows_torn_in(&self, partition: SlotIndex, array: AnyHandle) -> Option<Vec<Range<usize>>> {
        let word = Slot::of(self.segment().memory(), partition)?.word();
        if !word.is_control() {
            return None;
        }
        let handle = self.handle_of(partition, word.generation());
        let lease = self.lease_shared(handle).ok()?;
        let control = self.control(&lease)?;
        let (index, generation) = array.unpack(self.segment().key());
        let mut written = control.written();
        let is_its = written.any(|member| member == (index, generation));
        let torn = match is_its && control.round().is_settled_torn() {
            true => control.torn_tiles(),
            false => Vec::new(),
        };
        Some(torn.into_iter().map(|tile| tile.rows).collect())
    }
}
