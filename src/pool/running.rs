//! Calls that give finished tiles to the parent, which can send them back to the workers.

mod arrived;
mod ready;
mod scan;
mod torn;
mod wait;

use core::cell::Cell;

pub use arrived::{Arrived, FailedTiles, LostTiles, ReadyTiles};
use ready::Place;
pub use ready::ReadyTile;
use scan::HandedOut;
pub use torn::{FailedTile, LostTile};
use wait::Until;

use super::call::{ActiveCall, Request};
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel::{self, Captures};
use super::mailbox::Arguments;
use super::params::{Kernel, Param};
use super::stats::WorkerStats;
use super::tile_notes::TileNotes;
use super::{OnFailure, Pool};
use crate::partition::{Group, Partition, Round, RoundMember};
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
    ///     for mut ready in running.wait_any(4)?.ready {   // any four of the eight, or more
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
    /// Each run of a tile draws random numbers of its own; see [`TileContext::rng`]. A panic and a
    /// death end the call, unless it has [another policy](RunningCall::on_failure).
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
        let memory = CallMemory::notes(self.table, TileNotes::words(tiles.tiles()))?;
        let notes = TileNotes::open(self.table, memory.handle())?;
        let request = Request {
            kernel: self.place_of(kernel::on_tiles::<G, P, (), F, M, _>(kernel))?,
            partition: tiles.handle().to_bits(),
            results: Some(memory.handle()),
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
            unexplained: false,
            handed_out: HandedOut::default(),
            notes,
            _memory: memory,
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
    unexplained: bool,
    /// The tiles that the last wait has handed out.
    handed_out: HandedOut,
    notes: TileNotes<'t>,
    /// Keeps `notes` until the call is over.
    _memory: CallMemory<'t>,
}

impl<'p, 'r, G: Group> RunningCall<'_, 'p, 'r, '_, G> {
    /// Sets the reaction of this call to panics and deaths. Without it, that of the
    /// [pool](Pool::set_on_failure) applies.
    ///
    /// Under [`OnFailure::Skip`] one failed environment does not end the call:
    ///
    /// ```
    /// use ndshm::{HandleTable, OnFailure, Pool, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let state = table.from_shape_fn(8, |env| env as i64)?;
    /// let envs = table.partition(state.write(), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    ///
    /// let step = |mut state: ndarray::ArrayViewMut1<i64>, _: &(), _: &ndshm::TileContext| {
    ///     state += 1;
    ///     assert!(state[0] != 5, "the walker fell");
    /// };
    /// let mut running = pool.start(&envs, &(), step)?.on_failure(OnFailure::Skip);
    /// let (mut steps, mut falls) = (0, 0);
    /// while steps < 100 || falls < 5 {
    ///     let arrived = running.wait_any(4)?;
    ///     for ready in arrived.ready {
    ///         ready.rerun();
    ///         steps += 1;
    ///     }
    ///     for failed in arrived.failed {
    ///         assert!(failed.message().contains("fell"));
    ///         failed.repair(|mut state| state.fill(10))?.rerun(); // reset, and stepped again
    ///         falls += 1;
    ///     }
    /// }
    /// running.finish()?;
    /// assert_eq!(falls, 5);                                // those that began at 0 to 4, once each
    /// assert!(table.read(state)?.iter().all(|&state| state > 5));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[must_use = "dropping a call abandons it"]
    pub fn on_failure(mut self, policy: OnFailure) -> Self {
        if let Some((_, call)) = &mut self.call {
            call.policy = policy;
        }
        self
    }

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
    /// for mut ready in running.wait_any(3)?.ready {
    ///     println!("tile {} holds {}", ready.index(), ready.views());
    /// }                                                    // dropped: they rest
    /// assert!(running.done() >= 3);
    /// running.finish()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// Under [`OnFailure::Skip`] a panic or a death ends the wait, even if fewer tiles are ready: the
    /// result then has the [failed](Arrived::failed) and [lost](Arrived::lost) tiles too, each once
    /// until it is run again. A panic is reported by the first wait that ends after it, a death at
    /// the latest by the first that begins 10 ms after it. A death of a worker that held no tile
    /// shows in [`deaths`](RunningCall::deaths) alone.
    ///
    /// # Errors
    /// Same as [`Pool::for_each`]. The pool's [deadline](Pool::set_deadline) applies to each wait.
    /// After an error the call is over, and no tile becomes ready any more.
    ///
    /// Under [`OnFailure::Fail`] a panic fails the first `wait_any` that begins after it, even while
    /// other tiles are ready. So does a death, at the latest in the first `wait_any` that begins 10 ms
    /// after it. The call first waits for the tiles that are with the workers. If the dead worker held
    /// no tile, the error names no rows. Under `Skip`,
    /// [`PoolError::WorkerDied`] means that no worker is left for tiles that are not done.
    ///
    /// An error does not borrow the call:
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::error::PoolError;
    ///
    /// let mut running = pool.start(&tiles, &(), |_, (), tile| assert_ne!(tile.index(), 3))?;
    /// loop {
    ///     match running.wait_any(1) {
    ///         Ok(arrived) => arrived.ready.for_each(|ready| ready.rerun()),
    ///         Err(PoolError::Deadline { .. }) => println!("{} are done", running.done()),
    ///         Err(error) => {
    ///             println!("{error}, after {} deaths", running.deaths());
    ///             running.finish()?;                       // the error was reported already
    ///             break;
    ///         }
    ///     }
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("ray.wait", "recv", "as_completed", "step_wait"))]
    #[track_caller]
    pub fn wait_any(&mut self, count: usize) -> Result<Arrived<'_, 'r, G>, PoolError> {
        self.pool.check_ours()?;
        if let Some((_, call)) = &mut self.call {
            call.timer.restart(self.pool.deadline);
        }
        self.handed_out.clear();
        self.wait_until(count, Until::Ready)?;
        let place = match (&self.call, &self.part) {
            (Some((round, _)), Some(part)) => {
                self.handed_out.ready(&self.resting, part);
                Some(Place {
                    round,
                    part,
                    resting: &self.resting,
                    mailbox: self.pool.mailbox,
                    job: &self.job,
                    notes: &self.notes,
                })
            }
            _ => None,
        };
        Ok(Arrived::new(place, &self.handed_out))
    }

    /// Returns the number of finished tiles that were not sent back.
    ///
    /// [`wait_any`](RunningCall::wait_any) has an example.
    pub fn done(&self) -> usize {
        self.call.as_ref().map_or(0, |(round, _)| round.done())
    }

    /// Returns each worker's process; see [`Pool::pids`]. A dead worker is noticed by
    /// [`wait_any`](RunningCall::wait_any) and [`finish`](RunningCall::finish).
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut running = pool.start(&tiles, &(), |mut x, (), _tile| x += 1.0)?;
    /// assert_eq!(running.pids(), [Some(std::process::id()); 2]); // threads of this process
    /// running.wait_any(10)?;
    /// assert_eq!(running.stats().iter().map(|worker| worker.worker).max(), Some(1));
    /// assert_eq!(running.deaths(), 0);
    /// running.finish()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.pool.pids()
    }

    /// Returns the number of deaths that the pool has noticed so far, those before this call
    /// included.
    ///
    /// [`pids`](RunningCall::pids) has an example.
    pub fn deaths(&self) -> u64 {
        self.pool.deaths()
    }

    /// Returns the work of each worker; see [`Pool::stats`]. A worker adds the tiles of a job when it
    /// has found no more of them.
    ///
    /// [`pids`](RunningCall::pids) has an example.
    pub fn stats(&self) -> Vec<WorkerStats> {
        self.pool.stats()
    }

    /// Waits until every tile is done, and ends the call.
    ///
    /// [`Pool::start`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::for_each`]; [`PoolError::NotGivenBack`] if a [`ReadyTile`] was forgotten (by
    /// [`mem::forget`](core::mem::forget), or in a cycle of `Rc`). [`PoolError::Round`] with
    /// [`Torn`](crate::error::RoundError::Torn) and the rows if failed or lost tiles were reported,
    /// and neither repaired nor run again.
    pub fn finish(mut self) -> Result<(), PoolError> {
        self.pool.check_ours()?;
        if let Some((_, call)) = &mut self.call {
            call.timer.restart(self.pool.deadline);
        }
        self.handed_out.clear();
        self.wait_until(self.resting.len(), Until::Done)?;
        self.end()
    }
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
