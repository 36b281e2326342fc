//! Rounds: opening one, waiting for its tiles, and ending it.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use super::control::{Control, Progress};
use super::untyped::UntypedGroup;
use super::{Group, Partition};
use crate::handle::AnyHandle;
use crate::partition::error::RoundError;
use crate::sync::Backoff;
use crate::table::error::LeaseError;
use crate::table::lease::{ExclusiveLease, PartedLease, SharedLease, part_all};
use crate::table::slot::Slot;
use crate::word::{ClaimState, Purpose, RoundState, RoundWord, SeatId, SlotIndex};

impl<'t, G: Group> Partition<'t, G> {
    /// Opens the next round, and leases the arrays for it.
    ///
    /// From here on participants in any process may [`enter`](Partition::enter) and claim tiles.
    /// [`Round::finish`] ends the round; dropping the `Round` before gives it up.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// use std::time::Duration;
    ///
    /// let round = tiles.begin()?;
    /// if let Some(mut part) = tiles.enter()? {             // in any number of processes
    ///     while let Some(mut tile) = part.claim()? {
    ///         tile.views().fill(1.0);
    ///     }
    /// }
    /// round.finish(Duration::from_secs(10))?;
    /// assert_eq!(table.read(x)?.sum(), 100.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Running`] if a round is running.
    /// - [`RoundError::UsedUp`] if the partition has run its last round.
    /// - [`RoundError::Lease`] if an array of the group is leased, poisoned or freed. If tiles of the
    ///   last round are torn, call [`recover`](Partition::recover) or
    ///   [`clear_poison`](Partition::clear_poison) first.
    pub fn begin(&self) -> Result<Round<'_, 't, G>, RoundError> {
        let me = self.table().enter()?;
        self.table().empty_inbox();
        let (lease, control) = self.open()?;
        let now = control.round();
        if now.open_next(me).is_none() {
            return Err(self.refused(now));
        }
        let mut shared = Vec::new();
        let mut exclusive = Vec::new();
        for (handle, mode) in self.group.members() {
            match mode.writes() {
                true => exclusive.push(self.table().lease_exclusive(handle, Purpose::Round)?),
                false => shared.push(self.table().lease_shared(handle)?),
            }
        }
        // Start the count before the round can be entered: its tiles must find it. For a group that
        // is only read, a racing opener may restart it. Then it stays short, and the claim words
        // decide.
        control.start_count(now.round() + 1);
        match control.begin(me) {
            Ok(round) => Ok(Round {
                partition: self,
                control,
                round,
                me,
                token: self.table().token(),
                exclusive,
                reopened: RefCell::default(),
                mended: Cell::default(),
                shared,
                lease,
            }),
            Err(found) => {
                exclusive.into_iter().for_each(ExclusiveLease::end_round);
                Err(self.refused(found))
            }
        }
    }

    /// Returns the reason for which no round can be opened after `round`.
    pub(super) fn refused(&self, round: RoundWord) -> RoundError {
        match round.is_freed() {
            true => LeaseError::Stale {
                handle: self.control,
            }
            .into(),
            false if round.is_settled() => RoundError::UsedUp {
                rounds: RoundWord::MAX_ROUND,
            },
            false => RoundError::Running {
                round: round.round(),
                pid: self.table().pid_of(round.seat()),
            },
        }
    }
}

/// A running round, in the hands of its opener.
///
/// Dropped without [`finish`](Round::finish), it gives the round up: nobody can enter any more, and
/// each array stays closed until its last participant has left.
#[must_use = "a round that is dropped is given up"]
pub struct Round<'p, 't, G: Group> {
    partition: &'p Partition<'t, G>,
    control: Control<'t>,
    round: u64,
    me: SeatId,
    token: u64,
    exclusive: Vec<ExclusiveLease<'t>>,
    /// Units of torn tiles that were reopened, with their arrays healed.
    reopened: RefCell<Vec<usize>>,
    /// Torn tiles were taken back, while their arrays stayed poisoned.
    mended: Cell<bool>,
    shared: Vec<SharedLease<'t>>,
    lease: SharedLease<'t>,
}

impl<'t, G: Group> Round<'_, 't, G> {
    /// Returns the number of the round, from 1.
    ///
    /// [`finish`](Round::finish) has an example.
    pub fn number(&self) -> u64 {
        self.round
    }

    /// Returns the number of tiles that are done.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let mut part = tiles.enter()?.expect("a round is running");
    /// drop(part.claim()?);                                 // a tile that was written
    /// assert_eq!(round.done(), 1);
    /// # drop(part);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn done(&self) -> usize {
        if self.is_ours() {
            return self.control.progress(self.round).done;
        }
        // The parent's lease does not keep the claim words in place for this process.
        let progress = self.partition.progress();
        progress.map_or(0, |now| match now.round == self.round {
            true => now.done,
            false => 0,
        })
    }

    /// Returns `true` if every shared lease of a table on a slot belongs to this round or, with
    /// `entered`, to the caller's participation in it.
    ///
    /// While the round runs, only participants can lease the arrays that it writes. Each has a
    /// reader bit, or a count beside it.
    pub(crate) fn accounts_for(&self, table: u64, slot: SlotIndex, entered: bool) -> bool {
        let own = self.partition.table();
        if own.number() != table {
            return false;
        }
        let members = self.partition.group.members();
        let mut known = members
            .into_iter()
            .filter(|(handle, _)| handle.unpack(own.segment().key()).0 == slot)
            .map(|(_, mode)| usize::from(!mode.writes()) + usize::from(entered))
            .peekable();
        known.peek().is_some() && own.shared_leases(slot) <= known.sum()
    }

    /// Returns `true` if all tiles are counted. After a death the count may stay short: then use
    /// [`is_over`](Round::is_over).
    pub(crate) fn is_counted(&self) -> bool {
        self.control.all_counted(self.round)
    }

    /// Returns `true` if every tile is done or torn, by the claim words.
    pub(crate) fn is_over(&self) -> bool {
        self.control.progress(self.round).is_over()
    }

    /// Notes that a torn tile is taken back by the opener, to be repaired or run again. If none is
    /// torn at the end of the round, its arrays are not poisoned.
    pub(crate) fn mend(&self) {
        self.mended.set(true);
    }

    /// Makes the torn tiles claimable again in this round, if `before` returns `true` for their unit.
    /// Returns the number of reopened units.
    ///
    /// Heals the arrays that were poisoned for them. If a reaper has poisoned an array before
    /// tearing its tile, the end of the round poisons it again.
    pub(crate) fn reopen_torn(&self, before: impl Fn(usize) -> bool) -> usize {
        let is_reopened = |&unit: &usize| {
            let claim = self.control.claim_word(unit);
            let is_torn = claim.state() == ClaimState::Torn && claim.round() == self.round;
            is_torn && before(unit) && self.control.reopen(unit, self.round, self.me)
        };
        let mut units = self.reopened.borrow_mut();
        let before = units.len();
        units.extend((0..self.control.units()).filter(is_reopened));
        let reopened = units.len() - before;
        if reopened > 0 {
            for lease in &self.exclusive {
                lease.heal();
            }
        }
        reopened
    }

    /// Returns the half-written tiles, and the rows of each: the torn tiles, and the reopened tiles
    /// that have not been run since.
    pub(crate) fn half_written(&self) -> (Vec<usize>, Vec<Range<usize>>) {
        let mut tiles = self.control.progress(self.round).torn;
        for &unit in self.reopened.borrow().iter() {
            if self.control.claim_word(unit).state() == ClaimState::Open {
                tiles.extend(self.control.missing(unit, self.round));
            }
        }
        tiles.sort_unstable();
        tiles.dedup();
        let rows = self.control.rows(&tiles);
        (tiles, rows)
    }

    /// Returns the torn tiles of this round.
    pub(crate) fn torn(&self) -> Vec<usize> {
        self.control.progress(self.round).torn
    }

    /// Returns `true` if `seat` holds a tile of this round.
    pub(crate) fn holds(&self, seat: SeatId) -> bool {
        self.units_in(ClaimState::Held)
            .any(|(_, holder)| holder == seat)
    }

    /// Returns the torn units of this round, each with its last holder.
    pub(crate) fn torn_units(&self) -> Vec<(usize, SeatId)> {
        self.units_in(ClaimState::Torn).collect()
    }

    fn units_in(&self, state: ClaimState) -> impl Iterator<Item = (usize, SeatId)> {
        (0..self.control.units()).filter_map(move |unit| {
            let claim = self.control.claim_word(unit);
            let is_in = claim.state() == state && claim.round() == self.round;
            is_in.then(|| (unit, claim.seat()))
        })
    }

    /// Waits until every tile is done and the other participants have left, then ends the round.
    ///
    /// Spins briefly, then sleeps in short steps and reaps dead participants, which never block it.
    /// Does not wait beyond `timeout` for a participant that stays when no tile is left to claim.
    /// Until it leaves, the arrays can be read but not written.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// use std::time::Duration;
    /// use ndshm::error::RoundError;
    ///
    /// let round = tiles.begin()?;
    /// assert_eq!(round.number(), 1);
    /// if let Some(mut part) = tiles.enter()? {
    ///     while let Some(mut tile) = part.claim()? {
    ///         tile.views().fill(1.0);
    ///     }
    /// }
    /// round.finish(Duration::from_secs(10))?;
    ///
    /// // Nobody takes part in this one.
    /// let refused = tiles.begin()?.finish(Duration::from_millis(1));
    /// assert!(matches!(refused, Err(RoundError::Deadline { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Torn`] if dead or panicking participants left tiles half-written. The arrays
    ///   are poisoned until [`recover`](Partition::recover) or
    ///   [`clear_poison`](Partition::clear_poison), and the round is over.
    /// - [`RoundError::Deadline`] if tiles are still open or held after `timeout`. The round is
    ///   given up.
    /// - [`RoundError::Forked`] in a child of the process that opened the round.
    #[cfg(not(loom))]
    pub fn finish(self, timeout: Duration) -> Result<(), RoundError> {
        /// Interval between checks for dead participants.
        const REAP_EVERY: Duration = Duration::from_millis(10);
        if !self.is_ours() {
            return Err(RoundError::Forked);
        }
        let start = std::time::Instant::now();
        let mut reaped = start;
        let backoff = Backoff::new();
        loop {
            let over = self.is_counted() || backoff.is_completed() && self.is_over();
            if over && self.others_have_left() {
                break;
            }
            if !backoff.is_completed() {
                backoff.snooze();
                continue;
            }
            let now = std::time::Instant::now();
            if now - start >= timeout {
                match over {
                    true => break,
                    false => return Err(self.deadline(timeout)),
                }
            }
            if now - reaped >= REAP_EVERY {
                self.partition.table().reap()?;
                reaped = now;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        self.end()
    }

    /// Waits without a deadline. If a participant never leaves, the model never ends, and fails.
    #[cfg(loom)]
    pub fn finish(self, _timeout: Duration) -> Result<(), RoundError> {
        loop {
            let progress = self.control.progress(self.round);
            if progress.is_over() && self.others_have_left() {
                return self.end();
            }
            Backoff::new().snooze();
            self.partition.table().reap()?;
        }
    }

    /// Ends the round if every tile is done, else returns the round as it is.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let mut round = tiles.begin()?;
    /// let mut part = tiles.enter()?.expect("a round is running");
    /// loop {
    ///     match round.try_finish() {
    ///         Ok(outcome) => break outcome?,
    ///         Err(unfinished) => round = unfinished,
    ///     }
    ///     if let Some(mut tile) = part.claim()? {          // the opener helps meanwhile
    ///         tile.views().fill(1.0);
    ///     }
    /// }
    /// assert_eq!(table.read(x)?.sum(), 100.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`finish`](Round::finish), except that there is no deadline.
    #[expect(clippy::result_large_err, reason = "the round itself is given back")]
    pub fn try_finish(self) -> Result<Result<(), RoundError>, Self> {
        if !self.is_ours() {
            return Ok(Err(RoundError::Forked));
        }
        let over =
            self.control.all_counted(self.round) || self.control.progress(self.round).is_over();
        match over {
            true => Ok(self.end()),
            false => Err(self),
        }
    }

    /// Ends the round if every tile is done, and opens the next one with the same leases. Returns the
    /// round as it is if tiles are still open or held.
    ///
    /// This is much faster than to [finish](Round::finish) the round and to [begin](Partition::begin)
    /// the next one. The arrays stay leased, so nobody can read them in between. Participants stay in
    /// the partition and [follow](super::RoundMember::follow) the opener.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// use std::time::Duration;
    ///
    /// let mut round = tiles.begin()?;
    /// let mut part = tiles.enter()?.expect("a round is running"); // in any number of processes
    /// for step in 1..=3 {
    ///     while let Some(mut tile) = part.claim()? {
    ///         tile.views().fill(f64::from(step));
    ///     }
    ///     if step < 3 {
    ///         round = match round.try_next() {
    ///             Ok(next) => next?,
    ///             Err(_unfinished) => panic!("another participant holds a tile"),
    ///         };
    ///         assert!(part.follow());
    ///     }
    /// }
    /// drop(part);
    /// assert_eq!(round.number(), 3);
    /// round.finish(Duration::from_secs(10))?;
    /// assert_eq!(table.read(x)?[0], 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Torn`] if tiles are half-written. The round is over, as after
    ///   [`finish`](Round::finish).
    /// - The errors of [`begin`](Partition::begin), if an array of the group was freed or poisoned
    ///   meanwhile, or the partition has run its last round. The round is over.
    /// - [`RoundError::Forked`] in a child of the process that opened the round.
    #[expect(clippy::result_large_err, reason = "the round itself is given back")]
    pub fn try_next(mut self) -> Result<Result<Self, RoundError>, Self> {
        if !self.is_ours() {
            return Ok(Err(RoundError::Forked));
        }
        let mut is_whole = self.is_counted();
        if !is_whole {
            let progress = self.control.progress(self.round);
            if !progress.is_over() {
                return Err(self);
            }
            is_whole = progress.torn.is_empty();
        }
        if is_whole && self.is_undisturbed() {
            // Before the round can be followed: its tiles must find their count.
            self.control.start_count(self.round + 1);
            if let Ok(round) = self.control.go_on(self.me) {
                self.round = round;
                return Ok(Ok(self));
            }
        }
        let partition = self.partition;
        Ok(self.end().and_then(|()| partition.begin()))
    }

    /// Returns `true` if the next round can have the leases of this one: no array was freed or poisoned,
    /// and no torn tile was taken back, which the end of a round accounts for.
    fn is_undisturbed(&self) -> bool {
        let key = self.partition.segment().key();
        let is_sound = |slot: Slot<'_>, handle: AnyHandle| {
            let word = slot.word();
            word.is_live(handle.unpack(key).1) && !word.is_poisoned()
        };
        let shared = self.shared.iter().chain([&self.lease]);
        !self.mended.get()
            && self.reopened.borrow().is_empty()
            && self
                .exclusive
                .iter()
                .all(|lease| is_sound(lease.slot, lease.handle))
            && shared
                .into_iter()
                .all(|lease| is_sound(lease.slot, lease.handle))
    }

    /// Returns `true` if this process opened the round.
    fn is_ours(&self) -> bool {
        self.partition.table().is_of(self.token)
    }

    /// Ends the round. All tiles are done or torn.
    fn end(mut self) -> Result<(), RoundError> {
        let torn = match self.control.all_counted(self.round) {
            true => Vec::new(),
            false => self.control.progress(self.round).torn,
        };
        if !torn.is_empty() {
            // Needed after `reopen_torn` too: it may have healed the poison of a slow reaper.
            self.control
                .poison_written(self.partition.segment().memory());
        } else if self.mended.get() {
            // Every tile is whole. A death before this step leaves the arrays poisoned.
            self.exclusive.iter().for_each(ExclusiveLease::heal);
        }
        let round = self.round;
        let rows = self.control.rows(&torn);
        // Close the round before releasing the arrays: late participants find it over.
        let state = match torn.is_empty() {
            true => RoundState::Whole,
            false => RoundState::Torn,
        };
        self.control.close(self.me, state);
        self.exclusive.drain(..).for_each(ExclusiveLease::end_round);
        self.shared.clear();
        // Participants that wait for the end can lease the arrays now.
        self.control.settle(self.me);
        match rows.is_empty() {
            true => Ok(()),
            false => Err(RoundError::Torn {
                round,
                tiles: torn,
                rows,
            }),
        }
    }

    /// Returns `true` if no other participant's bit is set on the arrays that the round writes.
    fn others_have_left(&self) -> bool {
        self.exclusive.iter().all(|lease| {
            lease
                .slot
                .reader_seats()
                .iter()
                .all(|&seat| seat == self.me)
        })
    }

    pub(crate) fn deadline(&self, waited: Duration) -> RoundError {
        self.control.deadline(self.round, waited)
    }
}

impl Control<'_> {
    /// Returns the error of a round that is not over after `waited`.
    pub(super) fn deadline(&self, round: u64, waited: Duration) -> RoundError {
        let progress = self.progress(round);
        RoundError::Deadline {
            round,
            waited,
            done: progress.done,
            held: progress.held,
            tiles: self.tiles(),
        }
    }
}

impl Progress {
    fn is_over(&self) -> bool {
        self.open == 0 && self.held == 0
    }
}

impl<G: Group> Drop for Round<'_, '_, G> {
    fn drop(&mut self) {
        // After a fork the round belongs to the parent. After `end` it is settled already, and the
        // seat may have opened the next one.
        let now = self.control.round();
        if self.is_ours() && now.is_held_by(self.me) && now.round() == self.round {
            if !self.reopened.borrow().is_empty() {
                // A reopened tile is half-written, and it may not have been run since.
                self.control
                    .poison_written(self.partition.segment().memory());
            }
            self.control.close(self.me, RoundState::GivenUp);
            self.exclusive.clear();
            self.shared.clear();
            self.control.settle(self.me);
        }
    }
}

/// The parts of a round of an untyped group, without the borrow of its table.
pub(super) struct RoundParts {
    round: u64,
    pub(super) me: SeatId,
    token: u64,
    exclusive: Vec<PartedLease>,
    shared: Vec<PartedLease>,
    lease: PartedLease,
}

impl<'p, 't> Round<'p, 't, UntypedGroup> {
    /// Takes the round apart, in which no torn tiles were reopened. It goes on until it is put
    /// together again and dropped.
    pub(super) fn part(mut self) -> RoundParts {
        // Taken whole: `forget` would leak the buffer that a drained list keeps.
        let exclusive = core::mem::take(&mut self.exclusive).into_iter();
        let exclusive = exclusive.map(ExclusiveLease::part_round).collect();
        let parts = RoundParts {
            round: self.round,
            me: self.me,
            token: self.token,
            exclusive,
            shared: part_all(&mut self.shared),
            lease: self.lease.parted(),
        };
        // Not dropped: the parts have all of it.
        core::mem::forget(self);
        parts
    }
}

impl RoundParts {
    /// Puts the round together. Returns `None` if the partition's words are damaged.
    pub(super) fn whole<'p, 't>(
        self,
        partition: &'p Partition<'t, UntypedGroup>,
    ) -> Option<Round<'p, 't, UntypedGroup>> {
        let table = partition.table();
        let lease = table.resume(self.lease)?;
        let (exclusive, shared) = (self.exclusive.into_iter(), self.shared.into_iter());
        Some(Round {
            partition,
            control: table.control(&lease)?,
            round: self.round,
            me: self.me,
            token: self.token,
            exclusive: exclusive
                .filter_map(|lease| table.resume_round(lease))
                .collect(),
            reopened: RefCell::default(),
            mended: Cell::default(),
            shared: shared.filter_map(|lease| table.resume(lease)).collect(),
            lease,
        })
    }
}

impl<G: Group> fmt::Debug for Round<'_, '_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round")
            .field("number", &self.round)
            .finish_non_exhaustive()
    }
}
