//! Taking part in a round: entering it, claiming tiles, releasing them.

use core::fmt;
use core::ops::Range;
use core::time::Duration;

use super::claims::{Claims, Given};
use super::control::Control;
use super::cover::{TileOf, UnitOf};
use super::tile::Tile;
use super::unit::Unit;
use super::untyped::{RawBytes, TilePart, UntypedGroup, parts};
use super::{Group, Partition};
use crate::memory::{Memory, TileAccesses};
use crate::partition::error::RoundError;
use crate::segment::fork::process_token;
use crate::table::error::LeaseError;
use crate::table::lease::{PartedLease, SharedLease, part_all};
use crate::word::{Claim, ClaimState, RoundWord, SeatId};

impl<'t, G: Group> Partition<'t, G> {
    /// Enters the running round. Returns `None` if no round is running.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// assert!(tiles.enter()?.is_none());                   // no round is running
    /// let round = tiles.begin()?;
    /// let mut part = tiles.enter()?.expect("a round is running");
    /// while let Some(mut tile) = part.claim()? {
    ///     tile.views().fill(1.0);
    /// }
    /// drop(part);
    /// round.finish(std::time::Duration::from_secs(10))?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`RoundError::Lease`] if an array of the group cannot be opened.
    pub fn enter(&self) -> Result<Option<RoundMember<'_, 't, G>>, RoundError> {
        self.enter_at(0, 1)
    }

    /// Enters the running round as number `worker` of `workers`.
    ///
    /// Claims tiles of its own range of the partition first, then those that others have left. So
    /// the same pages stay with the same worker from round to round.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let mut second = tiles.enter_at(1, 2)?.expect("a round is running"); // rank 1 of 2
    /// let tile = second.claim()?.expect("no tile is claimed");
    /// assert_eq!(tile.index(), 5);                         // its half begins here
    /// # drop(tile);
    /// # drop(second);
    /// # drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`enter`](Partition::enter).
    pub fn enter_at(
        &self,
        worker: usize,
        workers: usize,
    ) -> Result<Option<RoundMember<'_, 't, G>>, RoundError> {
        let me = self.table().enter()?;
        loop {
            let (lease, control) = match self.open() {
                Ok(open) => open,
                // The partition was freed: no round runs.
                Err(LeaseError::Stale { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let now = control.round();
            if !now.is_running() {
                return Ok(None);
            }
            let first = own_start(&control, worker, workers);
            if let Some(part) = self.enter_round(me, (lease, control), now, first)? {
                return Ok(Some(part));
            }
            // The round has ended, or its opener has gone on to the next one.
        }
    }

    /// Enters the round of the word `now`. Returns `None` if it has ended. Claims tiles from unit
    /// `first` on.
    pub(super) fn enter_round(
        &self,
        me: SeatId,
        (lease, control): (SharedLease<'t>, Control<'t>),
        now: RoundWord,
        first: usize,
    ) -> Result<Option<RoundMember<'_, 't, G>>, RoundError> {
        let leases = match self.participate(now.seat()) {
            Ok(leases) => leases,
            // The round ended while we entered.
            Err(_) if !control.round().is(now) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Load the round word again: the validated arrays may be in a round of the same opener on
        // another partition. Then it has ended this round first, which is visible here.
        if !control.round().is(now) {
            return Ok(None);
        }
        let raw = self.group.locate(self.table(), &self.plan)?;
        Ok(Some(RoundMember {
            partition: self,
            control,
            raw,
            token: self.table().token(),
            claims: Claims::new(now.round(), me, first),
            panicking: std::thread::panicking(),
            leases,
            lease,
        }))
    }

    /// Sets this seat's bit on every array of the group, or takes a shared lease, by the access
    /// mode.
    fn participate(&self, opener: SeatId) -> Result<Vec<SharedLease<'t>>, LeaseError> {
        let key = self.segment().key();
        self.group
            .members()
            .into_iter()
            .map(|(handle, mode)| match mode.writes() {
                true => {
                    let (slot, generation) = handle.unpack(key);
                    self.table().lease_tiles(slot, generation, opener)
                }
                false => self.table().lease_in_round(handle, opener),
            })
            .collect()
    }
}

/// The outcome of claiming a given tile: [`RoundMember::claim_at`].
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Claimed<T> {
    /// The tile is the caller's.
    Tile(T),
    /// A participant holds it, or holds a tile that is claimed with it.
    Held {
        /// The participant's process.
        pid: u32,
    },
    /// It was run to its end in this round.
    Done,
    /// Its holder died or panicked in this round.
    Torn,
    /// The round is over, and a later one has begun.
    Over,
}

impl<T> Claimed<T> {
    /// Changes the type of a tile.
    pub(super) fn map<U>(self, tile: impl FnOnce(T) -> U) -> Claimed<U> {
        match self {
            Claimed::Tile(own) => Claimed::Tile(tile(own)),
            Claimed::Held { pid } => Claimed::Held { pid },
            Claimed::Done => Claimed::Done,
            Claimed::Torn => Claimed::Torn,
            Claimed::Over => Claimed::Over,
        }
    }
}

/// A participant of a running round.
pub struct RoundMember<'p, 't, G: Group> {
    partition: &'p Partition<'t, G>,
    control: Control<'t>,
    pub(super) raw: <G as super::access::sealed::Group>::Raw,
    token: u64,
    claims: Claims,
    pub(super) panicking: bool,
    leases: Vec<SharedLease<'t>>,
    lease: SharedLease<'t>,
}

impl<'t, G: Group> RoundMember<'_, 't, G> {
    /// Returns the number of the round, from 1.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let part = tiles.enter()?.expect("a round is running");
    /// assert_eq!(part.round(), round.number());
    /// # drop(part); drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn round(&self) -> u64 {
        self.claims.round
    }

    /// Goes on to the round that runs now: the next one, if the opener has
    /// [gone on](super::Round::try_next) to it. Returns `false` if no round runs.
    ///
    /// The participant keeps its leases of the arrays. In the round that it is in already, it begins
    /// another pass over the tiles.
    ///
    /// [`Round::try_next`](super::Round::try_next) has an example.
    pub fn follow(&mut self) -> bool {
        if !self.is_ours() {
            return false;
        }
        self.claims.end(&self.control, self.memory());
        // This participant's bits keep every other opener from the arrays that the group writes. So a
        // round that runs now is run with the leases under which this participant has entered. If the
        // group only reads, its own leases are all that it needs.
        let now = self.control.round();
        if now.is_running() {
            self.claims.begin(now.round());
        }
        now.is_running()
    }

    /// Claims the next tile that is unclaimed in this round. Returns `None` if none is left.
    ///
    /// One pass over the tiles is enough: a claimed tile stays claimed within its round.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let round = tiles.begin()?;
    /// # let mut part = tiles.enter()?.expect("a round is running");
    /// while let Some(mut tile) = part.claim()? {
    ///     tile.views().fill(1.0);
    /// }
    /// # drop(part);
    /// # round.finish(std::time::Duration::from_secs(10))?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::InvalidElement`] if the tile holds bytes that are not values of its type. The
    /// tile counts as torn.
    #[track_caller]
    pub fn claim(&mut self) -> Result<Option<Tile<'_, 't, G>>, LeaseError> {
        match self.claim_index() {
            Some(index) => Ok(Some(self.tile(index)?)),
            None => Ok(None),
        }
    }

    /// Claims the tile with this index, or returns the reason for which it cannot be claimed: for
    /// static schedules, and for a rank that receives a message into a tile.
    ///
    /// In a partition of more than 2,048 tiles, [neighbours](Partition::claimed_with) are claimed
    /// together. A participant that goes on to a tile of other neighbours makes the rest claimable
    /// again. [`claim`](RoundMember::claim) and this call may be mixed.
    ///
    /// ```
    /// use ndshm::partition::Claimed;
    /// # use ndshm::{HandleTable, Segment};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(4)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 1)?;
    /// let round = tiles.begin()?;
    /// # let (rank, ranks) = (0, 1);
    /// if let Some(mut part) = tiles.enter()? {
    ///     // This rank runs every `ranks`-th tile.
    ///     for index in (rank..tiles.tiles()).step_by(ranks) {
    ///         if let Claimed::Tile(mut tile) = part.claim_at(index)? {
    ///             tile.views().fill(index as f64);
    ///         }
    ///     }
    /// }
    /// round.finish(Duration::from_secs(1))?;
    /// # assert_eq!(table.read(x)?.to_vec(), [0.0, 1.0, 2.0, 3.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::NoSuchTile`] if the partition has fewer tiles.
    /// - [`RoundError::Forked`] in a child of the process that entered the round.
    /// - [`RoundError::Lease`] with [`LeaseError::InvalidElement`] as for
    ///   [`claim`](RoundMember::claim).
    #[track_caller]
    pub fn claim_at(&mut self, tile: usize) -> Result<Claimed<Tile<'_, 't, G>>, RoundError> {
        let claimed = self.claim_index_at(tile)?;
        if matches!(claimed, Claimed::Tile(())) {
            self.check(tile)?;
        }
        Ok(claimed.map(|()| self.open(tile)))
    }

    /// Claims a tile, without opening it.
    pub(crate) fn claim_index_at(&mut self, tile: usize) -> Result<Claimed<()>, RoundError> {
        if !self.is_ours() {
            return Err(RoundError::Forked);
        }
        let control = self.control;
        let tiles = control.tiles();
        if tile >= tiles {
            return Err(RoundError::NoSuchTile { tile, tiles });
        }
        match self.claims.at(&control, self.memory(), tile) {
            Given::Claimed => Ok(Claimed::Tile(())),
            Given::Done => Ok(Claimed::Done),
            Given::Torn => Ok(Claimed::Torn),
            Given::Refused(word) => self.refused(tile, word),
        }
    }

    /// Returns the reason for which a tile with this claim cannot be claimed.
    #[cold]
    fn refused(&self, tile: usize, word: Claim) -> Result<Claimed<()>, RoundError> {
        let unit = tile / self.control.unit();
        let ran =
            self.control.ran(unit, self.claims.round) >> (tile % self.control.unit()) & 1 == 1;
        let table = self.partition.table();
        Ok(match word.state() {
            ClaimState::Held => Claimed::Held {
                pid: table.pid_of(word.seat()),
            },
            ClaimState::Invalid => {
                let what = "a claim has a state that no transition writes";
                let error = table.tables().corrupt(self.partition.control, what);
                return Err(error.into());
            }
            _ if word.round() > self.claims.round => Claimed::Over,
            ClaimState::Torn if !ran => Claimed::Torn,
            // Opened again in a later round, as the look at the round word may not have told.
            ClaimState::Open => Claimed::Over,
            ClaimState::Torn | ClaimState::Done => Claimed::Done,
        })
    }

    /// Loads the round word.
    pub(crate) fn round_word(&self) -> RoundWord {
        self.control.round()
    }

    /// Sleeps, at most for `timeout`, if the round word is `seen`. May wake up without a reason.
    pub(crate) fn sleep(&self, seen: RoundWord, timeout: Duration) {
        self.control.sleep(seen, timeout);
    }

    pub(crate) fn partition(&self) -> &Partition<'t, G> {
        self.partition
    }

    /// Claims the next tile, without opening it. [`tile`](RoundMember::tile) opens it.
    #[inline]
    pub(crate) fn claim_index(&mut self) -> Option<usize> {
        // After a fork the participant belongs to the parent, and nothing can be claimed here.
        if !self.is_ours() {
            return None;
        }
        let memory = self.memory();
        self.claims.next(&self.control, memory)
    }

    /// Claims the next unit, or the part of it that is unclaimed and forms one block of the arrays.
    /// Returns `None` if none is left. [`open_unit`](RoundMember::open_unit) opens it.
    ///
    /// If its first tile is not [valid](RoundMember::is_valid), the unit has no other one.
    #[inline]
    pub(crate) fn claim_unit(&mut self) -> Option<UnitOf<'_>> {
        let first = self.claim_index()?;
        let plan = &self.partition.plan;
        let mut end = plan.block_end(first);
        if self.is_valid(first).is_err() {
            end = first + 1;
        }
        let last = self
            .claims
            .join(first, end, |tile| self.is_valid(tile).is_ok());
        Some(UnitOf { plan, first, last })
    }

    /// Claims the next unit, checks it and opens it.
    #[track_caller]
    pub(crate) fn claim_whole_unit(&mut self) -> Result<Option<Unit<'_, 't, G>>, LeaseError> {
        let Some(UnitOf { first, last, .. }) = self.claim_unit() else {
            return Ok(None);
        };
        self.check(first)?;
        Ok(Some(self.open_unit(first, last)))
    }

    /// Opens a claimed unit, of which all tiles are valid.
    #[inline]
    #[track_caller]
    pub(crate) fn open_unit(&self, first: usize, last: usize) -> Unit<'_, 't, G> {
        Unit::new(self, first, last)
    }

    /// Releases tiles that were run to their end: one bit each, from `index` on.
    #[inline]
    pub(super) fn finish(&self, index: usize, tiles: u16) {
        self.claims.finish(&self.control, index, tiles);
    }

    #[inline]
    fn memory(&self) -> &'t Memory {
        self.partition.segment().memory()
    }

    /// Checks and opens the tile that was claimed as `index`.
    #[inline]
    #[track_caller]
    pub(crate) fn tile(&self, index: usize) -> Result<Tile<'_, 't, G>, LeaseError> {
        self.check(index)?;
        Ok(self.open(index))
    }

    /// Checks that a claimed tile holds values of its type.
    #[inline]
    pub(crate) fn is_valid(&self, index: usize) -> Result<(), LeaseError> {
        G::check(&self.raw, self.tile_of(index))
    }

    /// Checks a claimed tile. Tears it if it holds bytes that are not values of its type.
    #[inline]
    pub(crate) fn check(&self, index: usize) -> Result<(), LeaseError> {
        let checked = self.is_valid(index);
        if checked.is_err() {
            self.tear(index);
        }
        checked
    }

    /// Opens the tile that was claimed as `index`, and checked. The check is separate,
    /// because its error does not fit into registers.
    #[inline]
    #[track_caller]
    pub(crate) fn open(&self, index: usize) -> Tile<'_, 't, G> {
        Tile::new(self, index)
    }

    /// Reports the accesses to these tiles to the model checker. They last as long as the result.
    #[track_caller]
    #[inline]
    pub(super) fn track(&self, tiles: Range<usize>) -> TileAccesses {
        let mut accesses = TileAccesses::new();
        for index in tiles {
            let how = (self.tile_of(index), true);
            G::track(&self.raw, self.memory(), how, &mut accesses);
        }
        accesses
    }

    #[inline]
    pub(super) fn unit_of(&self, first: usize, last: usize) -> UnitOf<'_> {
        let plan = &self.partition.plan;
        UnitOf { plan, first, last }
    }

    /// Makes a tile claimable in this round again after it was [retaken](RoundMember::retake).
    pub(super) fn send_off(&self, index: usize) {
        self.control
            .reopen(index, self.claims.round, self.claims.me);
    }

    #[inline]
    pub(crate) fn tile_of(&self, tile: usize) -> TileOf<'_> {
        TileOf {
            plan: &self.partition.plan,
            tile,
        }
    }

    /// Returns `true` in the process that entered the round, and `false` in a child forked from it.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        // The table's own token was this one when the round was entered.
        self.token == process_token()
    }

    /// Tears a tile that was [retaken](RoundMember::retake) and forgotten. Returns `true` if this
    /// participant's seat still held it.
    pub(crate) fn tear_retaken(&self, index: usize) -> bool {
        let claim = self.control.claim_word(index);
        let is_held = claim.is_held_by(self.claims.me) && claim.round() == self.claims.round;
        if is_held && self.is_ours() {
            self.tear(index);
        }
        is_held
    }

    /// Returns the claim of the tile, if the last holder claimed it in this round.
    pub(crate) fn claim_of(&self, index: usize) -> Option<Claim> {
        let claim = self.control.claim_word(index);
        (claim.round() == self.claims.round).then_some(claim)
    }

    /// Retakes a tile that is done in this round. Only the round's opener does this.
    ///
    /// Returns `None` if the tile is not done. If it holds bytes that are not values of its type,
    /// tears it and returns `None`.
    #[track_caller]
    pub(crate) fn retake(&self, index: usize) -> Option<Tile<'_, 't, G>> {
        if !self.is_ours()
            || !self
                .control
                .retake(index, self.claims.round, self.claims.me)
        {
            return None;
        }
        self.tile(index).ok()
    }

    /// Retakes a tile that is torn in this round. Only the round's opener does this.
    ///
    /// If the tile holds bytes that are not values of its type, it stays torn.
    #[track_caller]
    pub(crate) fn retake_torn(&self, index: usize) -> Result<Tile<'_, 't, G>, RoundError> {
        if !self.is_ours() {
            return Err(RoundError::Forked);
        }
        let (round, me) = (self.claims.round, self.claims.me);
        if !self.control.retake_torn(index, round, me) {
            let what = "a torn tile is not torn any more";
            let tables = self.partition.table().tables();
            return Err(tables.corrupt(self.partition.control, what).into());
        }
        Ok(self.tile(index)?)
    }

    /// Makes a tile that is torn in this round claimable again. Only the round's opener does this.
    /// Calls `before` first. In a forked child, does nothing and returns `false`.
    pub(crate) fn reopen_torn(&self, index: usize, before: impl FnOnce(usize)) -> bool {
        let is_torn = || {
            self.claim_of(index)
                .is_some_and(|claim| claim.state() == ClaimState::Torn)
        };
        let ours = self.is_ours() && is_torn();
        if ours {
            before(index);
            self.send_off(index);
        }
        ours
    }

    /// Performs the transition HELD → TORN, after poisoning the arrays that the tile writes. The
    /// other tiles of its unit are run first.
    pub(crate) fn tear(&self, index: usize) {
        self.claims.tear(&self.control, self.memory(), index);
    }
}

/// Returns the units that number `worker` of `workers` claims before it steals.
fn own_range(units: usize, worker: usize, workers: usize) -> Range<usize> {
    let start = |worker| (units as u128 * worker as u128 / workers.max(1) as u128) as usize;
    start(worker)..start(worker + 1)
}

/// Returns the unit at which the own range of number `worker` of `workers` begins.
pub(super) fn own_start(control: &Control<'_>, worker: usize, workers: usize) -> usize {
    let units = control.units();
    own_range(units, worker, workers).start % units.max(1)
}

impl<'t, G: Group> Partition<'t, G> {
    /// Returns the rows of a unit that was torn as a whole: of the tiles from `tile` on that a call of
    /// a kernel gets together, as far as they are `torn`.
    pub(crate) fn torn_unit(&self, tile: usize, torn: &[usize]) -> Range<usize> {
        let end = (tile / self.unit + 1) * self.unit;
        let together = tile + 1..end.min(self.plan.block_end(tile));
        let last = together.take_while(|tile| torn.contains(tile)).last();
        let last = last.unwrap_or(tile);
        self.range(tile).start..self.range(last).end
    }

    /// Returns the tiles that number `worker` of `workers` claims before it steals.
    pub(crate) fn own_range(&self, worker: usize, workers: usize) -> Range<usize> {
        let units = own_range(self.tiles().div_ceil(self.unit), worker, workers);
        units.start * self.unit..units.end * self.unit
    }
}

impl<G: Group> Drop for RoundMember<'_, '_, G> {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        self.claims.end(&self.control, self.memory());
    }
}

/// The parts of a participant of an untyped group, without the borrow of its table.
pub(super) struct MemberParts {
    raw: Vec<RawBytes>,
    token: u64,
    pub(super) claims: Claims,
    leases: Vec<PartedLease>,
    lease: PartedLease,
}

impl<'p, 't> RoundMember<'p, 't, UntypedGroup> {
    /// Takes the participant apart. Its claims and leases last until it is put together again and
    /// dropped.
    pub(super) fn part(mut self) -> MemberParts {
        let parts = MemberParts {
            raw: core::mem::take(&mut self.raw),
            token: self.token,
            claims: core::mem::take(&mut self.claims),
            leases: part_all(&mut self.leases),
            lease: self.lease.parted(),
        };
        // Not dropped: the parts have all of it.
        core::mem::forget(self);
        parts
    }

    /// Returns the parts of a claimed tile.
    pub(super) fn parts(&self, tile: usize) -> Vec<TilePart> {
        parts(&self.raw, self.tile_of(tile))
    }
}

impl MemberParts {
    /// Puts the participant together. Returns `None` if the partition's words are damaged.
    pub(super) fn whole<'p, 't>(
        self,
        partition: &'p Partition<'t, UntypedGroup>,
    ) -> Option<RoundMember<'p, 't, UntypedGroup>> {
        let table = partition.table();
        let lease = table.resume(self.lease)?;
        let leases = self.leases.into_iter();
        Some(RoundMember {
            partition,
            control: table.control(&lease)?,
            raw: self.raw,
            token: self.token,
            claims: self.claims,
            panicking: std::thread::panicking(),
            leases: leases.filter_map(|lease| table.resume(lease)).collect(),
            lease,
        })
    }
}

impl<G: Group> fmt::Debug for RoundMember<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoundMember")
            .field("round", &self.claims.round)
            .finish_non_exhaustive()
    }
}
