//! Taking part in a round: entering it, claiming tiles, giving them back.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;

use super::access::TileRange;
use super::control::Control;
use super::grid::Side;
use super::{Group, Mode, Partition};
use crate::error::{LeaseError, RoundError};
use crate::segment::Access;
use crate::table::lease::SharedLease;
use crate::word::{ClaimState, SeatId};

impl<'t, G: Group> Partition<'t, G> {
    /// Takes part in the round that is running; `None` if none is.
    ///
    /// # Errors
    /// [`RoundError::Lease`] if an array of the group cannot be opened.
    pub fn enter(&self) -> Result<Option<Participant<'_, 't, G>>, RoundError> {
        self.enter_at(0, 1)
    }

    /// As [`enter`](Partition::enter), as number `worker` of `workers`: claims tiles of its own
    /// stretch of the partition first, so that the same pages stay with the same worker from round
    /// to round, and then what the others have left.
    ///
    /// # Errors
    /// As [`enter`](Partition::enter).
    pub fn enter_at(
        &self,
        worker: usize,
        workers: usize,
    ) -> Result<Option<Participant<'_, 't, G>>, RoundError> {
        let me = self.table().enter()?;
        let (lease, control) = self.open()?;
        let now = control.round();
        if now.state() != ClaimState::Held {
            return Ok(None);
        }
        let leases = match self.participate(now.seat()) {
            Ok(leases) => leases,
            // The round ended while we entered.
            Err(_) if control.round() != now => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Again, after the bits were validated: the arrays could be in a round of the same opener
        // on another partition by now. Then its first step, to end this one, is visible here.
        if control.round() != now {
            return Ok(None);
        }
        let raw = self.group.locate(self.table(), &self.plan)?;
        let units = control.units();
        Ok(Some(Participant {
            partition: self,
            control,
            raw,
            round: now.round(),
            me,
            token: self.table().token(),
            first: stretch(units, worker, workers).start % units.max(1),
            tried: 0,
            held: Cell::new(None),
            panicking: std::thread::panicking(),
            _leases: leases,
            _lease: lease,
        }))
    }

    /// Sets this seat's bit on every array of the group, as the round's mode of access demands.
    fn participate(&self, opener: SeatId) -> Result<Vec<SharedLease<'t>>, LeaseError> {
        let key = self.segment().key();
        self.group
            .members()
            .into_iter()
            .map(|(handle, mode)| match mode {
                Mode::Write => {
                    let (slot, generation) = handle.unpack(key);
                    self.table().lease_tiles(slot, generation, opener)
                }
                Mode::Read | Mode::Whole => self.table().lease_shared(handle),
            })
            .collect()
    }
}

/// A unit of several tiles in a participant's hands.
#[derive(Clone, Copy)]
struct Held {
    unit: usize,
    /// Its tiles that were not handed out yet, one bit each.
    left: u16,
    /// Those that were run.
    ran: u16,
}

/// A participant of a running round.
pub struct Participant<'p, 't, G: Group> {
    partition: &'p Partition<'t, G>,
    control: Control<'t>,
    raw: <G as super::access::sealed::Group>::Raw,
    round: u64,
    me: SeatId,
    token: u64,
    /// The unit at which its own stretch begins.
    first: usize,
    /// How many units, counted from there, it has looked at.
    tried: usize,
    /// The unit of several tiles that it holds.
    held: Cell<Option<Held>>,
    panicking: bool,
    _leases: Vec<SharedLease<'t>>,
    _lease: SharedLease<'t>,
}

impl<'t, G: Group> Participant<'_, 't, G> {
    /// The number of the round, from 1.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Claims the next tile that nobody has claimed in this round; `None` if none is left.
    ///
    /// One pass over the tiles is enough: within a round a tile that was claimed stays so.
    ///
    /// # Errors
    /// [`LeaseError::InvalidElement`] if the tile holds bytes that are no values of its type; the
    /// tile counts as torn.
    pub fn claim(&mut self) -> Result<Option<Tile<'_, 't, G>>, LeaseError> {
        match self.claim_index() {
            Some(index) => self.tile(index).map(Some),
            None => Ok(None),
        }
    }

    /// Claims the next tile, and leaves it to [`tile`](Participant::tile) to open it.
    pub(crate) fn claim_index(&mut self) -> Option<usize> {
        let control = self.control;
        if let Some(mut held) = self.held.get()
            && held.left != 0
        {
            let at = held.left.trailing_zeros() as usize;
            held.left &= held.left - 1;
            self.held.set(Some(held));
            return Some(held.unit * control.unit() + at);
        }
        // A participant that crossed a fork is the parent's: it has nothing to claim here.
        let is_ours = self.partition.table().is_of(self.token);
        let units = if is_ours { control.units() } else { 0 };
        while self.tried < units {
            let ahead = self.first + self.tried;
            let unit = if ahead < units { ahead } else { ahead - units };
            self.tried += 1;
            if control.claim(unit, self.round, self.me) {
                if control.unit() == 1 {
                    return Some(unit);
                }
                // Somebody may have begun it, and left.
                let ran = control.ran(unit, self.round);
                let left = control.all_of(unit) & !ran;
                let at = left.trailing_zeros() as usize;
                let held = Held {
                    unit,
                    left: left & left.wrapping_sub(1),
                    ran,
                };
                self.held.set(Some(held));
                match left {
                    // All was done, but for giving it back.
                    0 => self.close_unit(),
                    _ => return Some(unit * control.unit() + at),
                }
            }
        }
        None
    }

    /// A tile was run to its end.
    #[inline]
    fn finish(&self, index: usize) {
        let Some(mut held) = self.held.get() else {
            self.control.give_back(index, self.me);
            return;
        };
        held.ran |= 1 << (index % self.control.unit());
        self.held.set(Some(held));
        self.control.note(held.unit, self.round, held.ran);
        if held.left == 0 {
            self.close_unit();
        }
    }

    /// Gives the unit back whose tiles were all handed out.
    fn close_unit(&self) {
        if let Some(held) = self.held.take() {
            match held.ran == self.control.all_of(held.unit) {
                true => self.control.give_back(held.unit, self.me),
                // What is missing was torn, and has poisoned its arrays.
                false => drop(self.control.tear(held.unit, self.me)),
            }
        }
    }

    /// The tile that was claimed as `index`.
    pub(crate) fn tile(&self, index: usize) -> Result<Tile<'_, 't, G>, LeaseError> {
        let range = TileRange::of(&self.partition.plan, index);
        if let Err(error) = G::check(&self.raw, &range) {
            self.tear(index);
            return Err(error);
        }
        let mut accesses = Vec::new();
        G::track(
            &self.raw,
            self.partition.segment().memory(),
            &range,
            &mut accesses,
        );
        Ok(Tile {
            part: self,
            index,
            range,
            accesses,
            given_up: false,
        })
    }

    /// Whether the tile is done in this round.
    pub(crate) fn is_done(&self, index: usize) -> bool {
        self.control.is_done(index, self.round)
    }

    /// Takes a tile that is done in this round. The participant is that of the round's opener.
    ///
    /// `None` if it is not done, or holds bytes that are no values of its type: then it is torn.
    pub(crate) fn retake(&self, index: usize) -> Option<Tile<'_, 't, G>> {
        let is_ours = self.partition.table().is_of(self.token);
        if !is_ours || !self.control.retake(index, self.round, self.me) {
            return None;
        }
        self.tile(index).ok()
    }

    /// HELD → TORN, after the arrays that the tile writes were poisoned. The others of its unit are
    /// run before.
    fn tear(&self, index: usize) {
        self.partition.table().poison_written(&self.control);
        match self.held.get() {
            None => drop(self.control.tear(index, self.me)),
            Some(held) if held.left == 0 => self.close_unit(),
            Some(_) => {}
        }
    }
}

/// The units that number `worker` of `workers` claims before it steals.
fn stretch(units: usize, worker: usize, workers: usize) -> Range<usize> {
    let start = |worker| (units as u128 * worker as u128 / workers.max(1) as u128) as usize;
    start(worker)..start(worker + 1)
}

impl<'t, G: Group> Partition<'t, G> {
    /// The tiles that number `worker` of `workers` claims before it steals.
    pub(crate) fn stretch(&self, worker: usize, workers: usize) -> Range<usize> {
        let units = stretch(self.tiles().div_ceil(self.unit), worker, workers);
        units.start * self.unit..units.end * self.unit
    }
}

impl<G: Group> Drop for Participant<'_, '_, G> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        if !self.partition.table().is_of(self.token) {
            return;
        }
        // Handed out, and not run to the end: torn.
        let torn = self.control.all_of(held.unit) & !held.left & !held.ran;
        match torn {
            // Whoever claims it next runs what is left.
            0 => drop(self.control.reopen(held.unit, self.round, self.me)),
            _ => {
                self.partition.table().poison_written(&self.control);
                self.control.tear(held.unit, self.me);
            }
        }
    }
}

impl<G: Group> fmt::Debug for Participant<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participant")
            .field("round", &self.round)
            .finish_non_exhaustive()
    }
}

/// A claimed tile: its rows are the holder's alone until it is dropped.
///
/// Dropped by a panic, it is torn: the round ends with an error that names its rows, and the
/// arrays it writes are poisoned.
#[must_use = "the tile is given back when it is dropped"]
pub struct Tile<'p, 't, G: Group> {
    part: &'p Participant<'p, 't, G>,
    index: usize,
    range: TileRange,
    accesses: Vec<Access>,
    /// It was given back in another way than by being dropped.
    given_up: bool,
}

impl<G: Group> Tile<'_, '_, G> {
    /// The tile's views, one for each array of the group.
    pub fn views(&mut self) -> G::Views<'_> {
        // SAFETY: `self` holds the claim of this tile in a round for which this participant's bits
        // are set on the arrays, so that no whole-array lease and no other claim covers these rows
        // (arrays that are only read are written by nobody); `tile` has checked the elements; the
        // views borrow `self` mutably, so there are no others, and the claim outlives them.
        unsafe { G::views(&self.part.raw, &self.range) }
    }

    /// The tile's index in the partition.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The indices that the tile covers along the axis that is cut first.
    pub fn rows(&self) -> Range<usize> {
        self.range.first.range.clone()
    }

    /// What the tile covers along each axis that is cut.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.range.sides()
    }

    pub(crate) fn range(&self) -> TileRange {
        self.range.clone()
    }

    /// The number of the round, from 1.
    pub fn round(&self) -> u64 {
        self.part.round
    }

    /// Gives the tile back to be claimed in this round again. Only who has
    /// [retaken](Participant::retake) it does that.
    pub(crate) fn again(mut self) {
        self.accesses.clear();
        let part = self.part;
        part.control.reopen(self.index, part.round, part.me);
        self.given_up = true;
    }

    /// Gives the tile up half-written: its rows are reported when the round ends, and the arrays
    /// it writes are poisoned.
    pub fn tear(mut self) {
        self.accesses.clear();
        self.part.tear(self.index);
        self.given_up = true;
    }
}

impl<G: Group> Drop for Tile<'_, '_, G> {
    fn drop(&mut self) {
        self.accesses.clear();
        if self.given_up || !self.part.partition.table().is_of(self.part.token) {
            return;
        }
        if std::thread::panicking() && !self.part.panicking {
            self.part.tear(self.index);
        } else {
            self.part.finish(self.index);
        }
    }
}

impl<G: Group> fmt::Debug for Tile<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tile")
            .field("index", &self.index)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}
