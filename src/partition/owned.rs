//! Partitions, rounds and participants that do not borrow their table: for languages with garbage
//! collection, and for tables behind a lock.
//!
//! Each value keeps the parts of the borrowing value, and every call puts that together for its
//! duration. So both are one implementation.

mod again;
mod waits;

use core::fmt;
use core::ops::Range;

use super::claims::Claims;
use super::control::Control;
use super::plan::Plan;
use super::round::RoundParts;
use super::round_member::MemberParts;
use super::untyped::{TilePart, UntypedGroup};
use super::{Claimed, Grid, Partition, PartitionHandle, RoundMember, RoundProgress};
use crate::handle::AnyHandle;
use crate::partition::error::{PartitionError, RoundError};
use crate::seat::TornTile;
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::inbox::{Inbox, LeftBehind};
use crate::table::lease::PartedLease;
use crate::word::{RoundState, SeatId};
pub use again::TileState;

const OTHER_TABLE: &str = "another table made this value, or its table has left the segment: pass the \
     table that made it";
const ENDED: &str = "the round was ended before: open the next one";
const NOT_OUT: &str = "the tile is not out: it was given back before, or another participant has \
     claimed it";

/// The parts of a value that borrows its table.
pub(super) trait Parts: Send + Sized + 'static {
    /// Ends a dropped value in the segment's words, without its table. The caller holds the inbox's
    /// lock, so the table still has its seat.
    fn give_up(&self, segment: &Segment);

    /// Releases the leases.
    fn release(self, core: &Core);
}

/// The leases of a dropped value, which its table releases.
struct Left<P>(P);

impl<P: Parts> LeftBehind for Left<P> {
    fn release(self: Box<Self>, core: &Core) {
        self.0.release(core);
    }
}

/// The parts of a value, and the table that they belong to.
struct Kept<P: Parts> {
    inbox: Inbox,
    /// The process in which the value was made.
    token: u64,
    /// Keeps the words mapped.
    segment: Segment,
    /// `None` once the value is used up.
    parts: Option<P>,
}

impl<P: Parts> Kept<P> {
    /// Keeps parts that were just made by this table.
    fn new(core: &Core, parts: P) -> Kept<P> {
        Kept {
            inbox: core.inbox(),
            token: core.token(),
            segment: core.segment().clone(),
            parts: Some(parts),
        }
    }

    /// Returns an error in a child of the process that made the value.
    fn check_process(&self) -> Result<(), RoundError> {
        match self.token == process_token() {
            true => Ok(()),
            false => Err(RoundError::Forked),
        }
    }

    /// Checks that the value belongs to this table, and takes its parts for a call.
    fn take(&mut self, core: &Core) -> Result<P, RoundError> {
        self.check_process()?;
        core.enter()?;
        if !core.inbox().is(&self.inbox) {
            return Err(RoundError::NotHeld { why: OTHER_TABLE });
        }
        core.empty_inbox();
        self.parts.take().ok_or(RoundError::NotHeld { why: ENDED })
    }
}

impl<P: Parts> Drop for Kept<P> {
    fn drop(&mut self) {
        // After a fork the value belongs to the parent, and the inbox may be locked for ever.
        if let Some(parts) = self.parts.take()
            && self.token == process_token()
        {
            self.inbox.leave(|| {
                parts.give_up(&self.segment);
                Box::new(Left(parts))
            });
        }
    }
}

/// Returns the error of words that do not fit together.
fn damaged(core: &Core, control: AnyHandle) -> RoundError {
    let what = "the partition's words do not fit together";
    core.tables().corrupt(control, what).into()
}

// ---- partitions ---------------------------------------------------------------------------------

/// The parts of a partition.
pub(super) struct PartitionParts {
    control: AnyHandle,
    group: UntypedGroup,
    plan: Plan,
    unit: usize,
    lease: PartedLease,
    owned: bool,
    token: u64,
}

impl<'t> Partition<'t, UntypedGroup> {
    /// Takes the partition apart. Its lease lasts until it is put together again and dropped.
    pub(super) fn part(mut self) -> PartitionParts {
        let parts = PartitionParts {
            control: self.control,
            group: core::mem::take(&mut self.group),
            plan: core::mem::take(&mut self.plan),
            unit: self.unit,
            lease: self.lease.parted(),
            owned: self.owned,
            token: self.token,
        };
        // Not dropped: the parts have all of it.
        core::mem::forget(self);
        parts
    }

    /// Returns the same partition with a lease of its own.
    fn twin(&self) -> Result<Partition<'t, UntypedGroup>, LeaseError> {
        Ok(Partition {
            table: self.table,
            control: self.control,
            group: self.group.clone(),
            plan: self.plan.clone(),
            unit: self.unit,
            lease: self.table.lease_shared(self.control)?,
            owned: false,
            token: self.table.token(),
        })
    }
}

impl PartitionParts {
    /// Puts the partition together. Returns `None` if its table has no such slot.
    pub(super) fn whole(self, core: &Core) -> Option<Partition<'_, UntypedGroup>> {
        Some(Partition {
            table: core,
            control: self.control,
            group: self.group,
            plan: self.plan,
            unit: self.unit,
            lease: core.resume(self.lease)?,
            owned: self.owned,
            token: self.token,
        })
    }
}

impl Parts for PartitionParts {
    fn give_up(&self, segment: &Segment) {
        if self.owned
            && let Some(control) = Control::of(segment.memory(), self.lease.slot())
        {
            control.free();
        }
    }

    fn release(self, core: &Core) {
        drop(self.whole(core));
    }
}

/// A partition of an [`UntypedGroup`] that does not borrow its table.
///
/// Made by [`HandleTable::partition_untyped`](crate::HandleTable::partition_untyped) and
/// [`open_untyped`](crate::HandleTable::open_untyped), or by the methods of a
/// [`SharedTable`](crate::SharedTable::partition_untyped) with these names. Used with the table that
/// made it, in any thread that has the table.
///
/// Dropping the value in any thread ends it. If the value created the partition, no round opens any
/// more: at once if none runs, else from the table's next call to partitions or to
/// [`reap`](crate::HandleTable::reap) on. That call also releases its memory. A copy in a forked child belongs to the parent: the child
/// opens the partition anew, by its handle.
pub struct OwnedPartition {
    kept: Kept<PartitionParts>,
    handle: PartitionHandle<UntypedGroup>,
    tiles: usize,
}

impl Core {
    pub(crate) fn partition_untyped(
        &self,
        group: UntypedGroup,
        grid: &Grid,
    ) -> Result<OwnedPartition, PartitionError> {
        self.enter()?;
        self.empty_inbox();
        Ok(OwnedPartition::new(self, self.partition_by(group, grid)?))
    }

    pub(crate) fn open_untyped(
        &self,
        handle: PartitionHandle<UntypedGroup>,
    ) -> Result<OwnedPartition, PartitionError> {
        self.enter()?;
        self.empty_inbox();
        Ok(OwnedPartition::new(self, self.open_partition(handle)?))
    }
}

impl OwnedPartition {
    /// Returns an error in a child of the process that made the value.
    pub(crate) fn check_process(&self) -> Result<(), RoundError> {
        self.kept.check_process()
    }

    fn new(core: &Core, partition: Partition<'_, UntypedGroup>) -> OwnedPartition {
        OwnedPartition {
            handle: partition.handle(),
            tiles: partition.tiles(),
            kept: Kept::new(core, partition.part()),
        }
    }

    fn with<R>(
        &mut self,
        core: &Core,
        act: impl FnOnce(&Partition<'_, UntypedGroup>) -> Result<R, RoundError>,
    ) -> Result<R, RoundError> {
        let parts = self.kept.take(core)?;
        let whole = parts.whole(core);
        let whole = whole.ok_or_else(|| damaged(core, self.handle.into()))?;
        let result = act(&whole);
        self.kept.parts = Some(whole.part());
        result
    }

    /// Returns the partition's name for other processes.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # use std::time::Duration;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// table.publish("tiles", tiles.handle())?;             // for the other processes
    /// assert_eq!(table.find_any("tiles")?, tiles.handle().into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> PartitionHandle<UntypedGroup> {
        self.handle
    }

    /// Returns the number of tiles.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
    /// # use ndshm::{Grid, HandleTable, Segment};
    /// # use std::time::Duration;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
    /// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
    /// assert_eq!(tiles.tiles(), 4);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn tiles(&self) -> usize {
        self.tiles
    }

    pub(crate) fn begin_in(&mut self, core: &Core) -> Result<OwnedRound, RoundError> {
        self.with(core, |partition| {
            let own = partition.twin()?;
            let round = own.begin()?;
            let number = round.number();
            let round = round.part();
            Ok(OwnedRound {
                number,
                kept: Kept::new(
                    core,
                    WholeRound {
                        partition: own.part(),
                        round,
                    },
                ),
            })
        })
    }

    pub(crate) fn progress_in(&mut self, core: &Core) -> Result<RoundProgress, RoundError> {
        self.with(core, |partition| Ok(partition.progress()?))
    }

    pub(crate) fn torn_in(&mut self, core: &Core) -> Result<Vec<TornTile>, RoundError> {
        self.with(core, |partition| Ok(partition.torn()?))
    }

    pub(crate) fn clear_poison_in(&mut self, core: &Core) -> Result<usize, RoundError> {
        self.with(core, |partition| partition.clear_poison())
    }

    pub(crate) fn free_in(mut self, core: &Core) -> Result<(), RoundError> {
        self.kept.take(core)?.release(core);
        Ok(())
    }
}

// ---- rounds -------------------------------------------------------------------------------------

/// The parts of a round, with a partition of its own.
struct WholeRound {
    partition: PartitionParts,
    round: RoundParts,
}

impl Parts for WholeRound {
    fn give_up(&self, segment: &Segment) {
        if let Some(control) = Control::of(segment.memory(), self.partition.lease.slot()) {
            control.close(self.round.me, RoundState::GivenUp);
        }
    }

    fn release(self, core: &Core) {
        if let Some(partition) = self.partition.whole(core) {
            drop(self.round.whole(&partition));
        }
    }
}

/// A running round that does not borrow its table, in the hands of its opener.
///
/// Ended by [`try_finish`](OwnedRound::try_finish), as often as its owner likes to ask. Dropped
/// before, it is given up: nobody can enter any more. Its arrays come back at the table's next call
/// to partitions or to [`reap`](crate::HandleTable::reap). Until then other processes that wait for
/// its end get no answer.
#[must_use = "a round that is dropped is given up"]
pub struct OwnedRound {
    kept: Kept<WholeRound>,
    number: u64,
}

impl OwnedRound {
    /// Returns an error in a child of the process that made the value.
    pub(crate) fn check_process(&self) -> Result<(), RoundError> {
        self.kept.check_process()
    }

    /// Returns the number of the round, from 1.
    ///
    /// [`OwnedPartition::begin`] has an example.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn try_finish_in(&mut self, core: &Core) -> Result<bool, RoundError> {
        let WholeRound { partition, round } = self.kept.take(core)?;
        let control = partition.control;
        let whole = partition.whole(core);
        let own = whole.ok_or_else(|| damaged(core, control))?;
        let whole = round.whole(&own);
        let unfinished = match whole.ok_or_else(|| damaged(core, control))?.try_finish() {
            Ok(outcome) => return outcome.map(|()| true),
            Err(unfinished) => unfinished,
        };
        let round = unfinished.part();
        self.kept.parts = Some(WholeRound {
            partition: own.part(),
            round,
        });
        Ok(false)
    }

    pub(crate) fn give_up_in(mut self, core: &Core) -> Result<(), RoundError> {
        self.kept.take(core)?.release(core);
        Ok(())
    }
}

// ---- participants -------------------------------------------------------------------------------

/// The parts of a participant, with a partition of its own.
struct WholeMember {
    partition: PartitionParts,
    member: MemberParts,
}

impl Parts for WholeMember {
    fn give_up(&self, segment: &Segment) {
        let memory = segment.memory();
        if let Some(control) = Control::of(memory, self.partition.lease.slot()) {
            self.claims().end(&control, memory);
        }
    }

    fn release(self, core: &Core) {
        if let Some(partition) = self.partition.whole(core) {
            drop(self.member.whole(&partition));
        }
    }
}

impl WholeMember {
    fn claims(&self) -> &Claims {
        &self.member.claims
    }
}

/// Tells a participant from all others of the segment, at any time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct MemberId {
    /// The seat, and how often it was taken before: together they name one stay of one table.
    seat: SeatId,
    epoch: u64,
    /// The number of the participant among those of its table.
    serial: u64,
}

impl MemberId {
    /// Returns the name of the table's next participant.
    fn next(core: &Core) -> MemberId {
        MemberId {
            seat: core.own_seat(),
            epoch: core.epoch(),
            serial: core.inbox().serial(),
        }
    }
}

/// A claimed tile, as data: [`OwnedMember::claim`].
///
/// It can be copied and kept. The participant that claimed the tile takes it back once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TileToken {
    member: MemberId,
    /// The number of the claim among those of its participant.
    claim: u64,
    tile: usize,
}

impl TileToken {
    /// Returns the tile's index in the partition.
    ///
    /// [`OwnedMember`] has an example.
    pub fn tile(self) -> usize {
        self.tile
    }
}

/// A participant of a round that does not borrow its table. At most one tile of it is out.
///
/// A table may have several members in a round: one for each thread that claims tiles. They
/// hold different tiles. The arrays of the round are closed to writers until all of them have left.
///
/// Dropping the value in any thread tears the tile that is out, at once, and leaves the round. The
/// arrays of the round are closed to writers until the table's next call to partitions or to
/// [`reap`](crate::HandleTable::reap). A copy in a forked child belongs to the parent.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::partition::{AccessMode, Entered, UntypedGroup};
/// # use ndshm::{Grid, HandleTable, Segment};
/// # use std::time::Duration;
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.zeros::<f64, _>(4)?;
/// # let group = UntypedGroup::new([(x.into(), AccessMode::Write)]);
/// # let mut tiles = table.partition_untyped(group, &Grid::blocks([(Axis(0), 1)]))?;
/// let round = tiles.begin(&table)?;
/// let Entered::Member(mut member) = tiles.enter_next(&table, 0, Duration::ZERO)? else {
///     panic!("the round runs");
/// };
/// assert_eq!((member.round(), member.out()), (1, None));
/// let token = member.claim(&table)?.expect("four tiles are open");
/// assert_eq!(member.out(), Some(token));
/// assert!(member.claim(&table).is_err(), "tile {} is out", token.tile());
/// member.done(&table, token)?;
/// member.leave(&table)?;
/// # round.give_up(&table)?;
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct OwnedMember {
    kept: Kept<WholeMember>,
    id: MemberId,
    round: u64,
    /// Tiles claimed so far.
    claimed: u64,
    out: Option<TileToken>,
}

impl OwnedMember {
    /// Returns an error in a child of the process that made the value.
    pub(crate) fn check_process(&self) -> Result<(), RoundError> {
        self.kept.check_process()
    }

    /// Keeps a participant that has just entered its round.
    fn new(core: &Core, round: u64, partition: PartitionParts, member: MemberParts) -> OwnedMember {
        OwnedMember {
            id: MemberId::next(core),
            round,
            claimed: 0,
            out: None,
            kept: Kept::new(core, WholeMember { partition, member }),
        }
    }

    /// Returns the number of the round, from 1.
    ///
    /// [`OwnedMember`] has an example.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Returns the token of the tile that is out.
    ///
    /// [`OwnedMember`] has an example.
    pub fn out(&self) -> Option<TileToken> {
        self.out
    }

    fn with<R>(
        &mut self,
        core: &Core,
        act: impl FnOnce(&mut RoundMember<'_, '_, UntypedGroup>) -> Result<R, RoundError>,
    ) -> Result<R, RoundError> {
        let WholeMember { partition, member } = self.kept.take(core)?;
        let control = partition.control;
        let whole = partition.whole(core);
        let own = whole.ok_or_else(|| damaged(core, control))?;
        let whole = member.whole(&own);
        let mut whole = whole.ok_or_else(|| damaged(core, control))?;
        let result = act(&mut whole);
        let member = whole.part();
        self.kept.parts = Some(WholeMember {
            partition: own.part(),
            member,
        });
        result
    }

    /// Refuses a claim while a tile is out.
    fn none_out(&self) -> Result<(), RoundError> {
        match self.out {
            Some(token) => Err(RoundError::TileOut { tile: token.tile }),
            None => Ok(()),
        }
    }

    fn hand_out(&mut self, tile: usize) -> TileToken {
        self.claimed += 1;
        let token = TileToken {
            member: self.id,
            claim: self.claimed,
            tile,
        };
        self.out = Some(token);
        token
    }

    /// Refuses a token if its tile is not out.
    fn check(&self, token: TileToken) -> Result<usize, RoundError> {
        match self.out == Some(token) {
            true => Ok(token.tile),
            false => Err(RoundError::NotHeld { why: NOT_OUT }),
        }
    }

    pub(crate) fn claim_in(&mut self, core: &Core) -> Result<Option<TileToken>, RoundError> {
        self.none_out()?;
        let tile = self.with(core, |member| Ok(member.claim_index()))?;
        Ok(tile.map(|tile| self.hand_out(tile)))
    }

    pub(crate) fn claim_at_in(
        &mut self,
        core: &Core,
        tile: usize,
    ) -> Result<Claimed<TileToken>, RoundError> {
        self.none_out()?;
        let claimed = self.with(core, |member| member.claim_index_at(tile))?;
        Ok(claimed.map(|()| self.hand_out(tile)))
    }

    pub(crate) fn parts_in(
        &mut self,
        core: &Core,
        token: TileToken,
    ) -> Result<Vec<TilePart>, RoundError> {
        let tile = self.check(token)?;
        self.with(core, |member| Ok(member.parts(tile)))
    }

    pub(crate) fn range_in(
        &mut self,
        core: &Core,
        token: TileToken,
    ) -> Result<Range<usize>, RoundError> {
        let tile = self.check(token)?;
        self.with(core, |member| Ok(member.tile_of(tile).rows()))
    }

    pub(crate) fn done_in(&mut self, core: &Core, token: TileToken) -> Result<(), RoundError> {
        let tile = self.check(token)?;
        self.with(core, |member| {
            member.finish(tile, 1);
            Ok(())
        })?;
        self.out = None;
        Ok(())
    }

    pub(crate) fn tear_in(&mut self, core: &Core, token: TileToken) -> Result<(), RoundError> {
        let tile = self.check(token)?;
        self.with(core, |member| {
            member.tear(tile);
            Ok(())
        })?;
        self.out = None;
        Ok(())
    }

    pub(crate) fn leave_in(mut self, core: &Core) -> Result<(), RoundError> {
        self.kept.take(core)?.release(core);
        Ok(())
    }
}

macro_rules! debug {
    ($($name:ident $field:literal $get:ident),+) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field($field, &self.$get())
                    .finish_non_exhaustive()
            }
        }
    )+};
}

debug!(OwnedPartition "handle" handle, OwnedRound "number" number, OwnedMember "round" round);
