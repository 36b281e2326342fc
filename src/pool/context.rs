//! What a kernel is told: of its tile, or of its worker.

use core::cell::Cell;
use core::ops::Range;
use core::time::Duration;
#[cfg(not(loom))]
use std::time::Instant;

use super::barrier::Broken;
use super::mailbox::Mailbox;
#[cfg(feature = "rand")]
use super::rng::TileRng;
use super::spin::Spin;
use crate::error::{BarrierError, Error};
use crate::partition::{Group, Partition, Side, TileOf};
use crate::table::HandleTable;

/// How long a worker sleeps at a barrier before it looks at the time.
const LOOK: Duration = Duration::from_millis(10);

/// What a kernel is told of the tile it works on.
#[derive(Debug)]
pub struct TileContext<'p> {
    pub(super) tile: TileOf<'p>,
    pub(super) worker: usize,
    pub(super) round: u64,
    #[cfg_attr(not(feature = "rand"), allow(dead_code, reason = "for the streams"))]
    pub(super) seed: u64,
    /// Barriers that the call passed before this round; 0 for a call that has one round.
    pub(super) step: u64,
    /// How often the tile was sent off again before, in this call.
    pub(super) run: u64,
}

impl TileContext<'_> {
    /// The tile's index in the partition.
    pub fn index(&self) -> usize {
        self.tile.tile
    }

    /// The indices that the tile covers along the axis that is cut first.
    pub fn range(&self) -> Range<usize> {
        self.tile.rows()
    }

    /// What the tile covers along each axis that is cut; for blocks of two axes a block's rows and
    /// columns. With it a kernel finds its tile's surroundings in an array of which it sees the
    /// [`Whole`](crate::Whole).
    pub fn sides(&self) -> impl Iterator<Item = Side> {
        self.tile.sides()
    }

    /// The worker that runs the kernel, from 0. Results should not depend on it.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The number of this call on the pool, from 1.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// The place of this round within a call of [`Pool::run`](super::Pool::run): how many barriers its
    /// workers had passed when they began it. 0 in calls that are one round.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// How often the tile was sent off [again](super::Ready::again) in this call before. A tile that is
    /// run again because its worker died has the number of the first attempt.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The tile's own stream of random numbers in this run of it.
    ///
    /// It depends on the pool's [seed](super::Pool::seed), the number of the call, the
    /// [step](TileContext::step) within it, the [run](TileContext::run) of the tile and the tile's
    /// index, and no two of these share any numbers. So the numbers are the same for any number of
    /// workers. [`TileRng::at`] gives the same stream to a reference.
    #[cfg(feature = "rand")]
    pub fn rng(&self) -> TileRng {
        TileRng::at_step(self.seed, self.round, self.step, self.run, self.tile.tile)
    }
}

/// What the kernel of [`Pool::run`](super::Pool::run) and
/// [`Pool::broadcast`](super::Pool::broadcast) is told: which worker it runs in, and the way to
/// the others.
pub struct WorkerContext<'a> {
    pub(super) table: &'a HandleTable,
    /// The worker's process.
    pub(super) token: u64,
    pub(super) mailbox: Mailbox<'a>,
    pub(super) spin: &'a Spin<'a>,
    pub(super) worker: usize,
    pub(super) workers: usize,
    pub(super) call: u64,
    pub(super) seed: u64,
    /// The barrier's epoch when the call began.
    pub(super) base: u64,
    /// The barrier's epoch now.
    pub(super) epoch: Cell<u64>,
}

impl WorkerContext<'_> {
    /// This worker's number, from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The number of this call on the pool, from 1.
    pub fn round(&self) -> u64 {
        self.call
    }

    /// The worker's table: a seat of its own on the pool's segment. Handles come as parameters.
    pub fn table(&self) -> &HandleTable {
        self.table
    }

    /// Waits until every worker of the call has come here, and no longer than a minute; see
    /// [`barrier_within`](WorkerContext::barrier_within).
    ///
    /// # Errors
    /// As [`barrier_within`](WorkerContext::barrier_within).
    pub fn barrier(&self) -> Result<(), BarrierError> {
        self.barrier_within(Duration::from_secs(60))
    }

    /// Waits until every worker of the call has come here: what any of them wrote before it is
    /// seen by all of them after it.
    ///
    /// # Errors
    /// - [`BarrierError::Broken`] if a worker of the call died, panicked, or has returned: it will
    ///   not come. The barrier stays broken for the rest of the call.
    /// - [`BarrierError::Deadline`] if not all have come within `timeout`. It breaks the barrier
    ///   for the others too.
    /// - [`BarrierError::Forked`] in a child that the kernel has forked.
    pub fn barrier_within(&self, timeout: Duration) -> Result<(), BarrierError> {
        self.check_worker()?;
        let epoch = self.epoch.get();
        let barrier = self.mailbox.barrier();
        #[cfg(not(loom))]
        let start = Instant::now();
        let may_wait = || {
            #[cfg(not(loom))]
            return start.elapsed() < timeout;
            #[cfg(loom)]
            return true;
        };
        let look = LOOK.min(timeout);
        match barrier.wait(epoch, self.workers, self.spin, look, may_wait) {
            Ok(next) => {
                self.epoch.set(next);
                Ok(())
            }
            Err(Broken::Left) => Err(BarrierError::Broken),
            Err(Broken::Late) => {
                barrier.break_up(epoch);
                Err(BarrierError::Deadline { waited: timeout })
            }
        }
    }

    /// Runs `body` on the tiles of `tiles`, which all workers of the call share: a round that
    /// begins and ends with a barrier. All of them call it, with the same partition.
    ///
    /// What `body` does to a tile should depend on nothing of this worker's own: which tiles it
    /// gets differs from run to run.
    ///
    /// # Errors
    /// [`Error::Round`] if the round could not be opened (an array is leased, poisoned or freed) or
    /// has ended with torn tiles; [`Error::Barrier`] if another worker failed.
    #[cfg_attr(loom, track_caller)]
    pub fn for_each<G: Group>(
        &self,
        tiles: &Partition<'_, G>,
        mut body: impl FnMut(G::Views<'_>, &TileContext<'_>),
    ) -> Result<(), Error> {
        self.check_worker()?;
        let round = match self.worker {
            0 => Some(tiles.begin()?),
            _ => None,
        };
        self.barrier()?;
        // The barrier lets no worker pass with another epoch, so all of them agree on the step.
        let step = self.epoch.get().wrapping_sub(self.base);
        if let Some(mut part) = tiles.enter_at(self.worker, self.workers)? {
            while let Some(mut tile) = part.claim()? {
                let context = TileContext {
                    tile: tile.tile_of(),
                    worker: self.worker,
                    round: self.call,
                    seed: self.seed,
                    step,
                    run: 0,
                };
                body(tile.views(), &context);
            }
        }
        // Everyone has left by now, and what can be done is done.
        self.barrier()?;
        if let Some(round) = round {
            round
                .try_finish()
                .unwrap_or_else(|round| Err(round.deadline(Duration::ZERO)))?;
        }
        Ok(self.barrier()?)
    }

    /// A child of the worker would arrive at the barrier in its place.
    fn check_worker(&self) -> Result<(), BarrierError> {
        match self.table.is_of(self.token) {
            true => Ok(()),
            false => Err(BarrierError::Forked),
        }
    }

    /// This worker's own stream of random numbers in this call. Unlike
    /// [`TileContext::rng`], what is made of it depends on the number of workers.
    #[cfg(feature = "rand")]
    pub fn rng(&self) -> TileRng {
        TileRng::of_worker(self.seed, self.call, self.worker)
    }
}

impl core::fmt::Debug for WorkerContext<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WorkerContext")
            .field("worker", &self.worker)
            .field("workers", &self.workers)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
