//! Calls that give finished tiles to the parent, which can send them back to the workers.

use core::cell::Cell;
use core::ops::Range;

use super::Pool;
use super::call::{ActiveCall, Request, worker_died};
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel::{self, Captures};
use super::mailbox::{Arguments, Mailbox};
use super::params::{Kernel, Param};
use super::results::Runs;
use crate::partition::RoundError;
use crate::partition::{Group, Partition, Round, RoundMember, Tile};
use crate::pool::error::PoolError;

impl<'t> Pool<'t> {
    /// Starts a call of `kernel` on every tile and does not wait for it. [`RunningCall::wait_any`]
    /// hands out tiles as they become ready. The parent reads and writes them, and sends them
    /// [back](ReadyTile::rerun) to the workers.
    ///
    /// This suits stepping environments of different speed: no tile waits for the slowest.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let state = table.zeros::<u64, _>(8)?;
    /// let action = table.from_elem(8, 1u64)?;
    /// let envs = table.partition((state.write(), action.write()), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    ///
    /// let mut running = pool.start(&envs, &(), |(mut state, action), (), _| state += &action)?;
    /// let mut steps = 0;
    /// while steps < 100 {
    ///     for mut ready in running.wait_any(4)? {         // any four of the eight, or more
    ///         let (state, mut action) = ready.views();
    ///         action[0] = state[0] % 3;
    ///         ready.rerun();                               // dropped, it rests until the end
    ///         steps += 1;
    ///     }
    /// }
    /// running.finish()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// Each run of a tile draws random numbers of its own; see [`TileContext::rng`].
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each); [`PoolError::TilesInUnits`] if the partition has so
    /// many tiles that workers claim several at once.
    #[doc(alias("apply_async", "submit", "step_async", "imap_unordered"))]
    #[track_caller]
    pub fn start<'a, 'p, 'r, G, P, F, M>(
        &'a mut self,
        tiles: &'p Partition<'r, G>,
        params: &P,
        kernel: F,
    ) -> Result<RunningCall<'a, 'p, 'r, 't, G>, PoolError>
    where
        G: Group,
        P: Param<M>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) + Kernel,
    {
        const { <Captures<F>>::NONE };
        if tiles.unit() != 1 {
            return Err(PoolError::TilesInUnits {
                tiles: tiles.tiles(),
                unit: tiles.unit(),
            });
        }
        let counts = CallMemory::runs(self.table, tiles.tiles())?;
        let runs = Runs::open(self.table, counts.handle())?;
        let request = Request {
            kernel: self.place_of(kernel::on_tiles::<G, P, (), F, M, _>(kernel))?,
            partition: tiles.handle().to_bits(),
            results: Some(counts.handle()),
            flags: Arguments::EACH_TILE,
        };
        let (round, call) = self.begin(tiles, &params.bytes()?, request)?;
        let mut running = RunningCall {
            pool: self,
            tiles,
            resting: vec![Cell::new(false); tiles.tiles()],
            job: Cell::new(call.job),
            call: Some((round, call)),
            part: None,
            torn: false,
            runs,
            _counts: counts,
        };
        running.part = tiles.enter()?;
        if let Some((_, call)) = &mut running.call {
            call.entered = running.part.is_some();
        }
        Ok(running)
    }
}

/// A running call; see [`Pool::start`].
///
/// Dropping it before it has [finished](RunningCall::finish) waits for the workers to leave the
/// call, and abandons the round.
#[must_use = "dropping a call abandons it"]
pub struct RunningCall<'a, 'p, 'r, 't, G: Group> {
    pool: &'a mut Pool<'t>,
    tiles: &'p Partition<'r, G>,
    /// Tiles that were handed out and not sent back.
    resting: Vec<Cell<bool>>,
    /// Number of the last announced job.
    job: Cell<u64>,
    call: Option<(Round<'p, 'r, G>, ActiveCall<'t>)>,
    part: Option<RoundMember<'p, 'r, G>>,
    /// The last check found a torn tile that no failure and no death explained.
    torn: bool,
    /// Rerun counts of the tiles.
    runs: Runs<'t>,
    /// Keeps `runs` until the call is over.
    _counts: CallMemory<'t>,
}

impl<'p, 'r, G: Group> RunningCall<'_, 'p, 'r, '_, G> {
    /// Waits until `count` tiles are ready, or all that the workers have if these are fewer. Hands
    /// out all ready tiles in the order of their indices, each only once until it is sent back.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
    /// for mut ready in running.wait_any(3)? {
    ///     println!("tile {} holds {}", ready.index(), ready.views());
    /// }                                                    // dropped: they rest
    /// assert!(running.done() >= 3);
    /// running.finish()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Pool::for_each`]. The pool's [deadline](Pool::set_deadline) applies to each wait.
    /// After an error the call is over, and no tile becomes ready any more.
    ///
    /// A panic fails the first `wait_any` that begins after it, even while other tiles are ready.
    /// Under [`OnDeath::Fail`](super::OnDeath::Fail) so does a death, at the latest in the first
    /// `wait_any` that begins 10 ms after it. If the dead worker held no tile, the error names no
    /// rows.
    #[doc(alias("ray.wait", "recv", "as_completed", "step_wait"))]
    #[track_caller]
    pub fn wait_any(&mut self, count: usize) -> Result<Vec<ReadyTile<'_, 'r, G>>, PoolError> {
        self.pool.check_ours()?;
        if let Some((_, call)) = &mut self.call {
            call.timer.restart(self.pool.deadline);
        }
        self.wait_until(count, Until::Ready)?;
        let Some(part) = &self.part else {
            return Ok(Vec::new());
        };
        let mailbox = self.pool.mailbox;
        let mut ready = Vec::new();
        for (index, rests) in self.resting.iter().enumerate() {
            if !rests.get()
                && let Some(tile) = part.retake(index)
            {
                rests.set(true);
                ready.push(ReadyTile {
                    tile,
                    rests,
                    mailbox,
                    job: &self.job,
                    runs: &self.runs,
                });
            }
        }
        Ok(ready)
    }

    /// Returns the number of finished tiles that were not sent back.
    pub fn done(&self) -> usize {
        self.call.as_ref().map_or(0, |(round, _)| round.done())
    }

    /// Waits until every tile is done, and ends the call.
    ///
    /// # Errors
    /// Same as [`Pool::for_each`]; [`PoolError::NotGivenBack`] if a [`ReadyTile`] was forgotten (by
    /// [`mem::forget`](core::mem::forget), or in a cycle of `Rc`).
    pub fn finish(mut self) -> Result<(), PoolError> {
        self.pool.check_ours()?;
        if let Some((_, call)) = &mut self.call {
            call.timer.restart(self.pool.deadline);
        }
        self.wait_until(self.resting.len(), Until::Done)?;
        self.end()
    }

    /// Waits until `count` tiles can be handed out, or all tiles that are with the workers.
    fn wait_until(&mut self, count: usize, until: Until) -> Result<(), PoolError> {
        loop {
            let (Some((round, call)), Some(part)) = (&mut self.call, &self.part) else {
                return Ok(());
            };
            call.job = self.job.get();
            let seen = self.pool.mailbox.events();
            let is_ready = |index: usize| !self.resting[index].get() && part.is_done(index);
            let under_way = self.resting.iter().filter(|rests| !rests.get()).count();
            let wanted = count.min(under_way);
            let enough = || {
                (0..self.resting.len())
                    .filter(|&index| is_ready(index))
                    .count()
                    >= wanted
            };
            // Check for failures first. Otherwise a call in which some tile is always ready would
            // not notice a panic or a death.
            if call.timer.is_due() || self.pool.any_failed(call.number) {
                let stuck = self.pool.is_stuck(round, call);
                self.job.set(call.job);
                if until == Until::Ready {
                    // Fail only at the second check: a reaper may have torn a worker's tile before
                    // the system reports that worker's death.
                    let torn = core::mem::replace(&mut self.torn, round.has_torn());
                    if self.pool.must_fail(call) || torn && self.torn {
                        return self.fail();
                    }
                }
                // Tiles may have become ready during the check.
                if stuck && !enough() {
                    return self.fail();
                }
            }
            if enough() {
                return Ok(());
            }
            self.pool.sleep_after(seen, enough);
        }
    }

    /// Ends the call because of a failure. Always returns an error.
    fn fail(&mut self) -> Result<(), PoolError> {
        let death = self.call.as_ref().and_then(|(_, call)| call.deaths.first());
        let death = death.copied();
        self.end()?;
        match death {
            // The dead worker held no tile, and the others have done the rest.
            Some(death) => Err(worker_died(death, Vec::new(), Vec::new())),
            None => Ok(()),
        }
    }

    /// Ends the call. Does nothing the second time.
    fn end(&mut self) -> Result<(), PoolError> {
        let forgotten = self.leave();
        let Some((round, call)) = self.call.take() else {
            return Ok(());
        };
        match self.pool.end(self.tiles, round, call) {
            Err(PoolError::Round(RoundError::Torn { tiles, rows, .. }))
                if forgotten.iter().any(|tile| tiles.contains(tile)) =>
            {
                Err(PoolError::NotGivenBack { tiles, rows })
            }
            outcome => outcome,
        }
    }

    /// Leaves the round as a participant. Tears and returns the tiles that were handed out and
    /// forgotten. No [`ReadyTile`] of them can exist any more, because it borrows the call.
    fn leave(&mut self) -> Vec<usize> {
        let Some(part) = self.part.take() else {
            return Vec::new();
        };
        let rests = |&index: &usize| self.resting[index].get();
        (0..self.resting.len())
            .filter(rests)
            .filter(|&index| part.tear_retaken(index))
            .collect()
    }
}

/// The purpose of a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Tiles to hand out. A failure ends the wait even if tiles are ready.
    Ready,
    /// The end of the call, which reports failures.
    Done,
}

impl<G: Group> Drop for RunningCall<'_, '_, '_, '_, G> {
    fn drop(&mut self) {
        // In a forked child this is a copy of the parent's call.
        if !self.pool.is_ours() {
            self.part = None;
            return;
        }
        self.leave();
        if let Some((round, mut call)) = self.call.take() {
            call.timer.restart(self.pool.deadline);
            self.pool.mailbox.close_job();
            self.pool.wait_until_out(&mut call);
            drop(round);
        }
    }
}

impl<G: Group> core::fmt::Debug for RunningCall<'_, '_, '_, '_, G> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RunningCall")
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

/// A tile that a worker has run. The parent alone has its views.
///
/// A dropped tile is done for this call.
pub struct ReadyTile<'w, 'r, G: Group> {
    tile: Tile<'w, 'r, G>,
    rests: &'w Cell<bool>,
    mailbox: Mailbox<'w>,
    job: &'w Cell<u64>,
    runs: &'w Runs<'w>,
}

impl<G: Group> ReadyTile<'_, '_, G> {
    /// Returns the tile's index in the partition.
    pub fn index(&self) -> usize {
        self.tile.index()
    }

    /// Returns the indices that the tile covers along the first divided axis.
    pub fn range(&self) -> Range<usize> {
        self.tile.range()
    }

    /// Returns the tile's views.
    pub fn views(&mut self) -> G::Views<'_> {
        self.tile.views()
    }

    /// Sends the tile back to the workers. One of them runs the kernel on it once more, and sees
    /// the values written here.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
    /// for ready in running.wait_any(10)? {
    ///     if ready.index() < 5 {
    ///         ready.rerun();                               // one more step for half of them
    ///     }
    /// }
    /// running.finish()?;
    /// assert_eq!(table.read(x)?[0], 2.0);
    /// assert_eq!(table.read(x)?[99], 100.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn rerun(self) {
        // In a forked child nothing happens: the tile and the call belong to the parent.
        let ReadyTile {
            tile,
            rests,
            mailbox,
            job,
            runs,
        } = self;
        if tile.again(|index| runs.count(index)) {
            rests.set(false);
            job.set(mailbox.announce());
        }
    }
}

impl<G: Group> core::fmt::Debug for ReadyTile<'_, '_, G> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReadyTile")
            .field("tile", &self.tile)
            .finish_non_exhaustive()
    }
}
