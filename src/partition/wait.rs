//! Waiting for a round to be opened, and for its end: rounds without a pool.

use core::time::Duration;

use super::control::Control;
use super::round_member::own_start;
use super::{Group, Partition, RoundMember};
use crate::partition::error::RoundError;
use crate::seat::REAP_INTERVAL;
use crate::sync::spin;
use crate::sync::time::Instant;
use crate::table::error::LeaseError;
use crate::table::lease::SharedLease;
use crate::word::{RoundState, RoundWord};

/// Spin turns that yield the processor, after those that keep it.
const YIELDS: u32 = 100;

/// The answer to a participant that waited for a round: [`Partition::enter_next`].
#[must_use]
#[non_exhaustive]
#[derive(Debug)]
pub enum Entered<M> {
    /// The participant is in the round.
    Member(M),
    /// Nothing to do: a later round than the caller knew has been opened and is over.
    Over {
        /// The number of the last round.
        round: u64,
    },
    /// Nothing to do any more: the partition was freed.
    Freed,
}

/// The end of a wait.
pub(crate) enum Waited<R> {
    For(R),
    Freed,
    TimedOut,
}

impl<M> Waited<Entered<M>> {
    /// Returns the result of a wait for the round after `after`.
    pub(crate) fn entered(self, after: u64, waited: Duration) -> Result<Entered<M>, RoundError> {
        match self {
            Waited::For(entered) => Ok(entered),
            Waited::Freed => Ok(Entered::Freed),
            Waited::TimedOut => Err(RoundError::NotOpened { after, waited }),
        }
    }
}

/// The result of one look at the round word.
pub(crate) enum Look<R> {
    Answer(R),
    /// The partition was freed.
    Freed,
    /// There was no answer in this round word. The next change of it may be one.
    NotYet(RoundWord),
}

/// The step of a waiting participant after a [pause](Wait::pause).
pub(crate) enum Next {
    /// Look at the round word again.
    Look,
    /// Reap dead participants first: one of them may be the opener.
    Reap,
    /// The time is over.
    TimedOut,
}

/// The time of one wait. It needs no table: a participant pauses without the lock of a table.
pub(crate) struct Wait {
    timeout: Duration,
    start: Instant,
    reaped: Instant,
    has_spun: bool,
}

impl Wait {
    pub(crate) fn new(timeout: Duration) -> Wait {
        let start = Instant::now();
        Wait {
            timeout,
            start,
            reaped: start,
            has_spun: false,
        }
    }

    /// Sleeps while the round word is `seen`, for at most [`REAP_INTERVAL`]. The first pause spins
    /// briefly before. Does not sleep after the timeout, or if the timeout is 0.
    ///
    /// `seen` is the word that the last look has read. A word that is loaded later may be an answer
    /// already, and nobody would end the sleep.
    pub(crate) fn pause(&mut self, control: &Control<'_>, seen: RoundWord) -> Next {
        if !self.has_spun && !self.timeout.is_zero() {
            self.has_spun = true;
            let moved = || (!control.round().is(seen)).then_some(());
            let found = spin::pausing(moved).or_else(|| spin::yielding(YIELDS, moved, || true));
            if found.is_some() {
                return Next::Look;
            }
        }
        let waited = self.start.elapsed();
        if waited >= self.timeout {
            // A round that ended while the caller entered it is an answer.
            return match control.round().is(seen) {
                true => Next::TimedOut,
                false => Next::Look,
            };
        }
        control.sleep(seen, REAP_INTERVAL.min(self.timeout.saturating_sub(waited)));
        if self.reaped.elapsed() < REAP_INTERVAL {
            return Next::Look;
        }
        self.reaped = Instant::now();
        Next::Reap
    }
}

impl<'t, G: Group> Partition<'t, G> {
    /// Waits until a round with a number beyond `after` is open, and enters it. `after` is the last
    /// round that the caller took part in or heard of, from 0.
    ///
    /// A participant that comes too late for a round, or for the partition, is told so: it has
    /// nothing to do. Spins briefly and then sleeps, until the opener wakes it. At least every 20
    /// ms it also reaps dead participants, so it never hangs on them. If the opener of a round dies,
    /// the round is over. A call with a shorter timeout does not reap: a program that polls calls
    /// [`reap`](crate::HandleTable::reap) now and then.
    ///
    /// ```
    /// use ndshm::partition::Entered;
    /// use ndshm::{HandleTable, PartitionHandle, Segment, Write};
    /// use ndarray::{Axis, Ix1};
    /// use std::time::Duration;
    ///
    /// const PATIENCE: Duration = Duration::from_secs(60);
    ///
    /// /// Runs in every rank except the one that opens the rounds.
    /// fn rank(table: &HandleTable, tiles: PartitionHandle<Write<f64, Ix1>>) -> ndshm::Result<u64> {
    ///     let tiles = table.open_partition(tiles)?;
    ///     let mut last = 0;
    ///     loop {
    ///         match tiles.enter_next(last, PATIENCE)? {
    ///             Entered::Member(mut part) => {
    ///                 while let Some(mut tile) = part.claim()? {
    ///                     tile.views().fill(1.0);
    ///                 }
    ///                 last = part.round();
    ///             }
    ///             Entered::Over { round } => last = round,
    ///             _ => return Ok(last),
    ///         }
    ///     }
    /// }
    ///
    /// let segment = Segment::in_process()?;
    /// let table = HandleTable::join(&segment)?;
    /// let tiles = table.partition(table.zeros(100)?.write(), Axis(0), 10)?;
    /// let (name, other) = (tiles.handle(), HandleTable::join(&segment)?);
    /// let ranks = std::thread::spawn(move || rank(&other, name));
    /// for _ in 0..3 {
    ///     tiles.begin()?.finish(PATIENCE)?;
    /// }
    /// drop(tiles);
    /// assert_eq!(ranks.join().unwrap()?, 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::NotOpened`] if no such round was opened within `timeout`.
    /// - [`RoundError::Lease`] if an array of the group cannot be opened.
    pub fn enter_next(
        &self,
        after: u64,
        timeout: Duration,
    ) -> Result<Entered<RoundMember<'_, 't, G>>, RoundError> {
        self.enter_next_at(0, 1, after, timeout)
    }

    /// Works like [`enter_next`](Partition::enter_next), as number `worker` of `workers`. Claims
    /// tiles as a participant of [`enter_at`](Partition::enter_at) does.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// use std::time::Duration;
    /// use ndshm::partition::Entered;
    ///
    /// let round = tiles.begin()?;
    /// // The second of two participants begins with the second half of the tiles.
    /// let Entered::Member(mut part) = tiles.enter_next_at(1, 2, 0, Duration::ZERO)? else {
    ///     panic!("the round runs");
    /// };
    /// assert_eq!(part.claim()?.map(|tile| tile.index()), Some(5));
    /// # drop(part); drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`enter_next`](Partition::enter_next).
    pub fn enter_next_at(
        &self,
        worker: usize,
        workers: usize,
        after: u64,
        timeout: Duration,
    ) -> Result<Entered<RoundMember<'_, 't, G>>, RoundError> {
        let waited = self.wait(timeout, |control, now| {
            self.enter_after(now, own_start(control, worker, workers), after)
        })?;
        waited.entered(after, timeout)
    }

    /// Enters the round of the word `now` if it is later than `after`. Returns `None` if the caller
    /// waits for another word. Claims tiles from unit `first` on.
    pub(super) fn enter_after(
        &self,
        now: RoundWord,
        first: usize,
        after: u64,
    ) -> Result<Option<Entered<RoundMember<'_, 't, G>>>, RoundError> {
        if now.round() <= after {
            return Ok(None);
        }
        if !now.is_running() {
            return Ok(Some(Entered::Over { round: now.round() }));
        }
        let me = self.table().enter()?;
        let open = match self.open() {
            Ok(open) => open,
            // The round has ended, and the partition was freed.
            Err(LeaseError::Stale { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let part = self.enter_round(me, open, now, first)?;
        // `None`: the round has ended while we entered, and the word says so.
        Ok(part.map(Entered::Member))
    }

    /// Waits until the opener has ended `round` and released its arrays. The writes to all of its
    /// tiles happen before this returns.
    ///
    /// Leave the round first: its opener waits for the participants that are still in it. Waits as
    /// [`enter_next`](Partition::enter_next) does. If a later round has been opened, `round` counts
    /// as ended, and its outcome is not known any more.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # use ndarray::Axis;
    /// # use std::time::Duration;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(10)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let number = round.number();
    /// # if let Some(mut part) = tiles.enter()? {
    /// #     while part.claim()?.is_some() {}
    /// # }
    /// round.finish(Duration::from_secs(1))?;
    /// // In any process:
    /// tiles.wait_finished(number, Duration::from_secs(1))?;
    /// table.read(x)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`RoundError::Torn`] if the round ended with half-written tiles.
    /// - [`RoundError::GivenUp`] if the opener dropped the round or died. Also if the partition was
    ///   freed before the round was over: its outcome is then not known.
    /// - [`RoundError::Deadline`] if the round was not over after `timeout`.
    pub fn wait_finished(&self, round: u64, timeout: Duration) -> Result<(), RoundError> {
        match self.wait(timeout, |control, now| Ok(control.outcome(round, now)))? {
            Waited::For(outcome) => outcome,
            Waited::TimedOut => Err(self.not_over(round, timeout)),
            Waited::Freed => Err(RoundError::GivenUp { round }),
        }
    }

    /// Returns the error of a wait for the end of `round` that has ended after `timeout`.
    pub(super) fn not_over(&self, round: u64, timeout: Duration) -> RoundError {
        match self.open() {
            Ok((_lease, control)) => control.deadline(round, timeout),
            Err(LeaseError::Stale { .. }) => RoundError::GivenUp { round },
            Err(error) => error.into(),
        }
    }

    /// Repeats `attempt` on the round word until it gives an answer. A model neither spins nor
    /// times out: a lost wake-up is a deadlock.
    fn wait<R>(
        &self,
        timeout: Duration,
        attempt: impl Fn(&Control<'t>, RoundWord) -> Result<Option<R>, RoundError>,
    ) -> Result<Waited<R>, RoundError> {
        self.table().enter()?;
        let Some((_lease, control)) = self.open_even_freed()? else {
            return Ok(Waited::Freed);
        };
        let mut wait = Wait::new(timeout);
        loop {
            let seen = match self.look(&control, &attempt)? {
                Look::Answer(answer) => return Ok(Waited::For(answer)),
                Look::Freed => return Ok(Waited::Freed),
                Look::NotYet(seen) => seen,
            };
            match wait.pause(&control, seen) {
                Next::Look => {}
                Next::Reap => drop(self.table().reap()?),
                Next::TimedOut => return Ok(Waited::TimedOut),
            }
        }
    }

    /// Calls `attempt` on the round word once.
    pub(super) fn look<R>(
        &self,
        control: &Control<'t>,
        attempt: impl FnOnce(&Control<'t>, RoundWord) -> Result<Option<R>, RoundError>,
    ) -> Result<Look<R>, RoundError> {
        let now = control.round();
        if let Some(answer) = attempt(control, now)? {
            return Ok(Look::Answer(answer));
        }
        let is_freed = now.is_freed() || self.table().tables().was_freed(self.control);
        Ok(match is_freed {
            true => Look::Freed,
            false => Look::NotYet(now),
        })
    }

    /// Returns the words of the partition, which may have been freed since it was opened, and a
    /// lease if the partition's own is not of this process. Returns `None` if the words are gone.
    fn open_even_freed(
        &self,
    ) -> Result<Option<(Option<SharedLease<'t>>, Control<'t>)>, LeaseError> {
        if let Some(control) = self.own_words() {
            return Ok(Some((None, control)));
        }
        match self.open() {
            Ok((lease, control)) => Ok(Some((Some(lease), control))),
            Err(LeaseError::Stale { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Control<'_> {
    /// Returns the outcome of `round`, or `None` if the word `now` says that it is not over.
    pub(super) fn outcome(&self, round: u64, now: RoundWord) -> Option<Result<(), RoundError>> {
        match now.state() {
            _ if now.round() > round => Some(Ok(())),
            _ if now.round() < round || !now.is_settled() => None,
            RoundState::Torn => {
                let tiles = self.progress(round).torn;
                // The claims of a later round say nothing of this one.
                if self.round().round() > round {
                    return Some(Ok(()));
                }
                let rows = self.rows(&tiles);
                Some(Err(RoundError::Torn { round, tiles, rows }))
            }
            RoundState::GivenUp => Some(Err(RoundError::GivenUp { round })),
            RoundState::Whole | RoundState::Running => Some(Ok(())),
        }
    }
}
