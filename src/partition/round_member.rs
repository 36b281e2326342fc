//! Taking part in a round: entering it, claiming tiles, releasing them.

use core::cell::Cell;
use core::ops::Range;

use super::access::TileOf;
use super::control::Control;
use super::tile::Tile;
use super::{Group, Partition};
use crate::memory::TileAccesses;
use crate::partition::error::RoundError;
use crate::segment::fork::process_token;
use crate::table::error::LeaseError;
use crate::table::lease::SharedLease;
use crate::word::{Claim, ClaimState, RoundWord, SeatId};

impl<'t, G: Group> Partition<'t, G> {
    /// Enters the running round. Returns `None` if no round is running.
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
    /// # Errors
    /// See [`enter`](Partition::enter).
    pub fn enter_at(
        &self,
        worker: usize,
        workers: usize,
    ) -> Result<Option<RoundMember<'_, 't, G>>, RoundError> {
        let me = self.table().enter()?;
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
        self.enter_round(
            me,
            (lease, control),
            now,
            own_start(&control, worker, workers),
        )
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
            round: now.round(),
            me,
            token: self.table().token(),
            first,
            tried: 0,
            held: Held::default(),
            out: Cell::new(NONE_OUT),
            panicking: std::thread::panicking(),
            _leases: leases,
            _lease: lease,
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
                false => self.table().lease_shared(handle),
            })
            .collect()
    }
}

/// The unit of several tiles that a participant holds, if any. Each field is a cell of its own, to
/// avoid a wide read after a narrow write.
#[derive(Default)]
struct Held {
    is_on: Cell<bool>,
    unit: Cell<usize>,
    /// The unit's first tile.
    first: Cell<usize>,
    /// The unit's tiles that were not handed out yet, one bit each.
    left: Cell<u16>,
    /// The unit's tiles that were run, one bit each.
    ran: Cell<u16>,
}

impl Held {
    /// Hands out the unit's next tile.
    #[inline]
    fn next(&self) -> Option<usize> {
        let left = self.left.get();
        if left == 0 {
            return None;
        }
        self.left.set(left & (left - 1));
        Some(self.first.get() + left.trailing_zeros() as usize)
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

/// No claimed tile is out.
const NONE_OUT: usize = usize::MAX;

/// A participant of a running round.
pub struct RoundMember<'p, 't, G: Group> {
    partition: &'p Partition<'t, G>,
    control: Control<'t>,
    pub(super) raw: <G as super::access::sealed::Group>::Raw,
    round: u64,
    me: SeatId,
    token: u64,
    /// The unit at which the participant's own range begins.
    first: usize,
    /// The number of units tried so far, counted from `first`.
    tried: usize,
    /// The unit of several tiles that the participant holds.
    held: Held,
    /// The tile that was claimed last, until it is released or torn; else [`NONE_OUT`].
    ///
    /// A claimed tile borrows the participant mutably, so at most one is out. If this is still set
    /// at the next claim, or in `drop`, the tile was forgotten.
    out: Cell<usize>,
    pub(super) panicking: bool,
    _leases: Vec<SharedLease<'t>>,
    _lease: SharedLease<'t>,
}

impl<'t, G: Group> RoundMember<'_, 't, G> {
    /// Returns the number of the round, from 1.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Claims the next tile that is unclaimed in this round. Returns `None` if none is left.
    ///
    /// One pass over the tiles is enough: a claimed tile stays claimed within its round.
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
        Ok(match self.claim_index_at(tile)? {
            Claimed::Tile(()) => Claimed::Tile(self.tile(tile)?),
            Claimed::Held { pid } => Claimed::Held { pid },
            Claimed::Done => Claimed::Done,
            Claimed::Torn => Claimed::Torn,
            Claimed::Over => Claimed::Over,
        })
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
        self.tear_forgotten();
        let unit = tile / control.unit();
        if !(self.held.is_on.get() && self.held.unit.get() == unit) {
            if self.let_go() {
                // The unit may lie behind this participant's pass.
                self.tried = 0;
            }
            while !control.claim(unit, self.round, self.me) {
                // Acquire: the record of a torn unit is read below.
                let word = control.claim_word(unit);
                if word.claim(self.round, self.me).is_none() {
                    return self.refused(tile, word);
                }
            }
            if control.unit() == 1 {
                self.out.set(tile);
                return Ok(Claimed::Tile(()));
            }
            self.hold(unit);
        }
        let held = &self.held;
        let bit = 1u16 << (tile - held.first.get());
        if held.left.get() & bit != 0 {
            held.left.set(held.left.get() & !bit);
            self.out.set(tile);
            return Ok(Claimed::Tile(()));
        }
        let done = held.ran.get() & bit != 0;
        if held.left.get() == 0 {
            // All tiles were run, but the unit was not released.
            self.close_unit();
        }
        Ok(if done { Claimed::Done } else { Claimed::Torn })
    }

    /// Returns the reason for which a tile with this claim cannot be claimed.
    #[cold]
    fn refused(&self, tile: usize, word: Claim) -> Result<Claimed<()>, RoundError> {
        let unit = tile / self.control.unit();
        let ran = self.control.ran(unit, self.round) >> (tile % self.control.unit()) & 1 == 1;
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
            _ if word.round() > self.round => Claimed::Over,
            ClaimState::Torn if !ran => Claimed::Torn,
            ClaimState::Torn | ClaimState::Done | ClaimState::Open => Claimed::Done,
        })
    }

    /// Claims the next tile, without opening it. [`tile`](RoundMember::tile) opens it.
    #[inline]
    pub(crate) fn claim_index(&mut self) -> Option<usize> {
        // After a fork the participant belongs to the parent, and nothing can be claimed here.
        if !self.is_ours() {
            return None;
        }
        if self.out.get() != NONE_OUT {
            self.tear_forgotten();
        }
        let index = self.held.next().or_else(|| self.claim_unit())?;
        self.out.set(index);
        Some(index)
    }

    /// Tears the claimed tile that was forgotten: it can no longer be released, and its rows may be
    /// half-written.
    #[cold]
    fn tear_forgotten(&self) {
        let index = self.out.get();
        if index != NONE_OUT {
            self.tear(index);
        }
    }

    #[inline(never)]
    fn claim_unit(&mut self) -> Option<usize> {
        let control = self.control;
        let units = control.units();
        while self.tried < units {
            let ahead = self.first + self.tried;
            let unit = if ahead < units { ahead } else { ahead - units };
            self.tried += 1;
            if !control.claim(unit, self.round, self.me) {
                continue;
            }
            if control.unit() == 1 {
                return Some(unit);
            }
            self.hold(unit);
            match self.held.next() {
                Some(index) => return Some(index),
                // All tiles were run, but the unit was not released.
                None => self.close_unit(),
            }
        }
        None
    }

    /// Notes that this participant has claimed a unit of several tiles.
    #[inline]
    fn hold(&self, unit: usize) {
        // An earlier holder may have run some of its tiles and left.
        let ran = self.control.ran(unit, self.round);
        self.held.is_on.set(true);
        self.held.unit.set(unit);
        self.held.first.set(self.control.tiles_of(unit).start);
        self.held.left.set(self.control.all_of(unit) & !ran);
        self.held.ran.set(ran);
    }

    /// Gives up the unit of several tiles that this participant holds, if any. No tile of it is out.
    /// Returns `true` if others can claim it now.
    fn let_go(&self) -> bool {
        let held = &self.held;
        if !held.is_on.replace(false) {
            return false;
        }
        let unit = held.unit.get();
        let left = held.left.replace(0);
        // Tiles that were handed out but not run to the end are torn.
        match self.control.all_of(unit) & !left & !held.ran.get() {
            // The next holder runs the remaining tiles.
            0 => self.control.reopen(unit, self.round, self.me),
            _ => {
                self.control
                    .poison_written(self.partition.segment().memory());
                self.control.tear(unit, self.me);
                false
            }
        }
    }

    /// Releases a tile that was run to its end.
    #[inline]
    pub(super) fn finish(&self, index: usize) {
        self.out.set(NONE_OUT);
        let held = &self.held;
        if !held.is_on.get() {
            self.control.give_back(index, self.me);
            return;
        }
        let ran = held.ran.get() | 1 << (index - held.first.get());
        held.ran.set(ran);
        self.control.note(held.unit.get(), self.round, ran);
        if held.left.get() == 0 {
            self.close_unit();
        }
    }

    /// Releases the unit. All of its tiles were handed out.
    #[inline(never)]
    fn close_unit(&self) {
        let unit = self.held.unit.get();
        self.held.is_on.set(false);
        match self.held.ran.get() == self.control.all_of(unit) {
            true => self.control.give_back(unit, self.me),
            // Each missing tile was torn, and its arrays were poisoned.
            false => drop(self.control.tear(unit, self.me)),
        }
    }

    /// Checks and opens the tile that was claimed as `index`.
    #[inline]
    #[track_caller]
    pub(crate) fn tile(&self, index: usize) -> Result<Tile<'_, 't, G>, LeaseError> {
        self.check(index)?;
        Ok(self.open(index))
    }

    /// Checks a claimed tile. Tears it if it holds bytes that are not values of its type.
    #[inline]
    pub(crate) fn check(&self, index: usize) -> Result<(), LeaseError> {
        let checked = G::check(&self.raw, self.tile_of(index));
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

    /// Reports the accesses to a tile to the model checker. They last as long as the result.
    #[track_caller]
    #[inline]
    pub(super) fn track(&self, index: usize) -> TileAccesses {
        let mut accesses = TileAccesses::new();
        let memory = self.partition.segment().memory();
        G::track(&self.raw, memory, self.tile_of(index), &mut accesses);
        accesses
    }

    /// Makes a tile claimable in this round again after it was [retaken](RoundMember::retake).
    pub(super) fn send_off(&self, index: usize) {
        self.control.reopen(index, self.round, self.me);
    }

    #[inline]
    pub(super) fn tile_of(&self, tile: usize) -> TileOf<'_> {
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
        let is_held = claim.is_held_by(self.me) && claim.round() == self.round;
        if is_held && self.is_ours() {
            self.tear(index);
        }
        is_held
    }

    /// Returns `true` if the tile is done in this round.
    pub(crate) fn is_done(&self, index: usize) -> bool {
        self.control.is_done(index, self.round)
    }

    /// Retakes a tile that is done in this round. Only the round's opener does this.
    ///
    /// Returns `None` if the tile is not done. If it holds bytes that are not values of its type,
    /// tears it and returns `None`.
    #[track_caller]
    pub(crate) fn retake(&self, index: usize) -> Option<Tile<'_, 't, G>> {
        if !self.is_ours() || !self.control.retake(index, self.round, self.me) {
            return None;
        }
        self.tile(index).ok()
    }

    /// Performs the transition HELD → TORN, after poisoning the arrays that the tile writes. The
    /// other tiles of its unit are run first.
    pub(crate) fn tear(&self, index: usize) {
        self.out.set(NONE_OUT);
        self.control
            .poison_written(self.partition.segment().memory());
        match self.held.is_on.get() {
            false => drop(self.control.tear(index, self.me)),
            true if self.held.left.get() == 0 => self.close_unit(),
            true => {}
        }
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
        self.tear_forgotten();
        self.let_go();
    }
}
