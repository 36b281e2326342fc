//! The contexts of kernels: of a tile, or of a worker.

use core::cell::Cell;
use core::ops::Range;
use core::time::Duration;

use ndarray::{ArrayRef, Dim, Dimension};

use super::barrier::{Broken, Last, Patience};
use super::mailbox::Mailbox;
#[cfg(feature = "rand")]
use super::rng::TileRng;
use super::spin::Spin;
use crate::error::Error;
use crate::handle_table::HandleTable;
use crate::partition::{
    Block, BlockError, Edge, Group, Halo, Partition, Round, RoundMember, TileOf, TileSide,
};
use crate::pool::error::PoolError;
use crate::sync::time::Instant;

/// Sleep of a worker at a barrier before it checks the deadline.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// Longest wait at a barrier that has no other limit.
pub(super) const BARRIER: Duration = Duration::from_secs(60);

/// The part of a worker in a barrier.
#[derive(Clone, Copy)]
enum Part {
    Equal,
    /// Waits until only it has not arrived, and arrives later.
    Leader,
    /// Arrives at a barrier with a leader.
    Follower,
}

/// The context of a kernel that runs on a tile.
///
/// ```
/// # use ndarray::Axis;
/// # use ndshm::{HandleTable, Pool, Segment};
/// # let table = HandleTable::join(&Segment::anonymous()?)?;
/// # let x = table.from_shape_fn(100, |i| i as f64)?;
/// # let tiles = table.partition(x.write(), Axis(0), 10)?;
/// # let mut pool = Pool::threads(&table, 2)?;
/// pool.for_each(&tiles, &(), |mut x, (), tile| {
///     assert!(tile.worker() < 2);
///     assert_eq!((tile.call(), tile.step(), tile.run()), (1, 0, 0));
///     x.fill(tile.index() as f64);
/// })?;
/// assert_eq!(table.read(x)?[42], 4.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Debug)]
pub struct TileContext<'p> {
    pub(super) tile: TileOf<'p>,
    pub(super) worker: usize,
    pub(super) call: u64,
    #[cfg_attr(not(feature = "rand"), allow(dead_code, reason = "for the streams"))]
    pub(super) seed: u64,
    /// Barriers that the call passed before this round; 0 for a call with one round.
    pub(super) step: u64,
    /// Times that the tile was sent back in this call.
    pub(super) run: u64,
}

impl TileContext<'_> {
    /// Returns the tile's index in the partition.
    ///
    /// [`TileContext`] has an example.
    pub fn index(&self) -> usize {
        self.tile.tile
    }

    /// Returns the indices that the tile covers along the first divided axis.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |mut x, (), tile| {
    ///     for (index, x) in tile.range().zip(&mut x) {     // the indices in the whole array
    ///         *x = index as f64;
    ///     }
    /// })?;
    /// assert_eq!(table.read(x)?[42], 42.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn range(&self) -> Range<usize> {
        self.tile.rows()
    }

    /// Returns the tile's extent along each divided axis; for blocks of two axes, the block's rows
    /// and columns. [`block`](TileContext::block) returns the ranges alone, and
    /// [`around`](TileContext::around) the elements around the tile.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::{Grid, HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>((100, 60))?;
    /// let grid = Grid::blocks([(Axis(0), 50), (Axis(1), 20)]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |mut x, (), tile| {
    ///     let first: Vec<_> = tile.sides().map(|side| side.range.start as u64).collect();
    ///     x.fill(1000 * first[0] + first[1]);
    /// })?;
    /// assert_eq!(table.read(x)?[[70, 45]], 50_040);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn sides(&self) -> impl Iterator<Item = TileSide> {
        self.tile.sides()
    }

    /// Returns the place of the tile in arrays of `D` axes, all of which are cut.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::{Grid, HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>((100, 60))?;
    /// let grid = Grid::blocks([(Axis(0), 32), (Axis(1), 32)]);
    /// let tiles = table.partition_by(x.write(), &grid)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &(), |mut x, (), tile| {
    ///     let [top, left] = tile.block().unwrap().start();
    ///     for ((row, column), x) in x.indexed_iter_mut() {
    ///         *x = (1000 * (top + row) + left + column) as u64;
    ///     }
    /// })?;
    /// assert_eq!(table.read(x)?[[70, 40]], 70_040);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Partition::block`].
    #[doc(alias("chunk", "subarray"))]
    pub fn block<const D: usize>(&self) -> Result<Block<D>, BlockError> {
        self.tile.block()
    }

    /// Returns the tile's elements in `array` and the elements around them, `widths` on both sides
    /// along each axis. `edges` says what lies beyond the edges of the array.
    ///
    /// `array` is one of which the kernel sees the [`WholeArray`](crate::WholeArray). It has the
    /// lengths of the divided arrays along the axes that are cut. Along the other axes the tile has
    /// all of it. [`Halo`] has an example.
    ///
    /// # Errors
    /// - [`BlockError::Shape`] if the array has another length along an axis that is cut.
    /// - [`BlockError::Halo`] if the halo is longer than the array along an axis.
    /// - [`BlockError::NoSuchAxis`] and [`BlockError::Cyclic`] as in [`Partition::block`].
    #[doc(alias = "stencil")]
    pub fn around<'a, T, const D: usize>(
        &self,
        array: &'a ArrayRef<T, Dim<[usize; D]>>,
        widths: [usize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Result<Halo<'a, T, D>, BlockError>
    where
        Dim<[usize; D]>: Dimension,
    {
        self.tile.around(array, widths, edges)
    }

    /// Returns the index of the tile at `offset` tiles from this one along each axis of the array;
    /// see [`Partition::neighbour`].
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::partition::Edge;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(40)?;
    /// let (old, new) = (table.from_shape_fn(4, |i| i as u64)?, table.zeros::<u64, _>(4)?);
    /// let tiles = table.partition((x.read(), old.whole(), new.per_tile()), Axis(0), 10)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// // Each tile of a ring takes what the tile before it has in `old`.
    /// pool.for_each(&tiles, &(), |(_, old, mut new), (), tile| {
    ///     let before = tile.neighbour([-1], Edge::Periodic).unwrap();
    ///     new.fill(old[before]);
    /// })?;
    /// assert_eq!(table.read(new)?.to_vec(), [3, 0, 1, 2]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn neighbour<const D: usize>(
        &self,
        offset: [isize; D],
        edges: impl Into<[Edge; D]>,
    ) -> Option<usize> {
        self.tile.neighbour(offset, edges)
    }

    /// Returns the number of the kernel's worker, from 0. Results should not depend on it.
    ///
    /// [`TileContext`] has an example.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of this call on the pool, from 1.
    ///
    /// [`TileContext`] has an example.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Returns the step of this round within a call of [`Pool::run`](super::Pool::run): the number
    /// of barriers that the workers had passed when they began it. 0 in calls with one round.
    ///
    /// [`TileContext`] has an example.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Returns the number of times that the tile was sent [back](super::ReadyTile::rerun) in this
    /// call. A rerun after a worker's death has the number of the first attempt.
    ///
    /// [`TileContext`] has an example.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Returns the tile's own stream of random numbers for this run.
    ///
    /// The stream depends on the pool's [seed](super::Pool::seed), the number of the call, the
    /// [step](TileContext::step) within it, the [run](TileContext::run) of the tile and the tile's
    /// index, and differs if any of them differs. So the numbers are the same for any number of
    /// workers. [`TileRng::at`] gives the same stream to a reference implementation.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::rand_core::Rng;
    ///
    /// pool.for_each(&tiles, &(), |mut x, (), tile| {
    ///     let mut rng = tile.rng();                        // the same for any number of workers
    ///     x.map_inplace(|x| *x += rng.next_u64() as f64 / u64::MAX as f64);
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("random", "seed"))]
    #[cfg(feature = "rand")]
    pub fn rng(&self) -> TileRng {
        self.rng_after(0)
    }

    /// Returns the stream of the tile that has `before` tiles more before it. If a partition is a
    /// part of a greater one, and `before` tiles of that one come before this part, a tile draws
    /// the same numbers in either partition.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::rand_core::Rng;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let draw = |rows: usize, before: u64| {
    ///     let x = table.zeros::<u64, _>(rows)?;
    ///     let tiles = table.partition(x.write(), Axis(0), 1)?;
    ///     let mut pool = Pool::builder().workers(1).seed(7).threads(&table)?;
    ///     pool.for_each(&tiles, &before, |mut x, &before, tile| {
    ///         x[0] = tile.rng_after(before as usize).next_u64();
    ///     })?;
    ///     Ok::<_, ndshm::Error>(table.read(x)?.to_vec())
    /// };
    /// // The second of two machines has the last two of five tiles.
    /// assert_eq!(draw(5, 0)?[3..], draw(2, 3)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[cfg(feature = "rand")]
    pub fn rng_after(&self, before: usize) -> TileRng {
        let tile = self.tile.tile.wrapping_add(before);
        TileRng::at_step(self.seed, self.call, self.step, self.run, tile)
    }
}

/// The context of a kernel of [`Pool::run`](super::Pool::run) or
/// [`Pool::broadcast`](super::Pool::broadcast): its worker, and access to the others.
///
/// ```
/// use ndshm::{HandleTable, Pool, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let mut pool = Pool::threads(&table, 2)?;
/// let shares = pool.broadcast(&100_usize, |worker, &jobs| {
///     assert_eq!(worker.call(), 1);
///     (worker.worker()..jobs).step_by(worker.workers()).count()
/// })?;
/// assert_eq!(shares, [50, 50]);
/// # Ok::<(), ndshm::Error>(())
/// ```
pub struct WorkerContext<'a> {
    pub(super) table: &'a HandleTable,
    /// The token of the worker's process.
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
    /// Returns this worker's number, from 0.
    ///
    /// [`WorkerContext`] has an example.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of workers.
    ///
    /// [`WorkerContext`] has an example.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Returns the number of this call on the pool, from 1.
    ///
    /// [`WorkerContext`] has an example.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Returns the worker's table, which has a seat of its own on the pool's segment. Pass handles
    /// as parameters.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let sums = pool.run(&x, |worker, &x| Ok(worker.table().read(x)?.sum()))?;
    /// assert_eq!(sums, [4950.0; 2]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn table(&self) -> &HandleTable {
        self.table
    }

    /// Waits until every worker of the call has arrived, at most a minute; see
    /// [`barrier_timeout`](WorkerContext::barrier_timeout).
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let sums = pool.run(&x, |worker, &x| {
    ///     if worker.worker() == 0 {
    ///         worker.table().write(x)?.fill(1.0);
    ///     }
    ///     worker.barrier()?;                               // the others wait until it is filled
    ///     Ok(worker.table().read(x)?.sum())
    /// })?;
    /// assert_eq!(sums, [100.0, 100.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`barrier_timeout`](WorkerContext::barrier_timeout).
    #[doc(alias("MPI_Barrier", "MPI_Win_fence", "Barrier", "synchronize"))]
    pub fn barrier(&self) -> Result<(), PoolError> {
        self.barrier_timeout(BARRIER)
    }

    /// Waits until every worker of the call has arrived. Every worker then sees all that any of
    /// them wrote before.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use std::time::Duration;
    ///
    /// pool.run(&(), |worker, ()| {
    ///     // The first half of a step.
    ///     worker.barrier_timeout(Duration::from_secs(10))?;
    ///     // The second half, after the first half of all.
    ///     Ok(())
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::BarrierBroken`] if a worker of the call has died, panicked or returned. The
    ///   barrier stays broken for the rest of the call.
    /// - [`PoolError::BarrierTimeout`] if not all have arrived within `timeout`. This breaks the
    ///   barrier for the others too.
    /// - [`PoolError::BarrierForked`] in a child that the kernel has forked.
    pub fn barrier_timeout(&self, timeout: Duration) -> Result<(), PoolError> {
        self.meet(Part::Equal, timeout)
    }

    /// Takes `part` in a barrier.
    fn meet(&self, part: Part, timeout: Duration) -> Result<(), PoolError> {
        self.check_worker()?;
        let epoch = self.epoch.get();
        let barrier = self.mailbox.barrier();
        let start = Instant::now();
        let patience = Patience {
            spin: self.spin,
            look: LOOK.min(timeout),
            may_wait: || start.elapsed() < timeout,
        };
        let met = match part {
            Part::Equal => barrier.wait(epoch, self.workers, Last::Any, &patience),
            Part::Follower => barrier.wait(epoch, self.workers, Last::Leader, &patience),
            Part::Leader => barrier
                .wait_for_others(epoch, self.workers, &patience)
                .map(|()| epoch),
        };
        match met {
            Ok(next) => {
                self.epoch.set(next);
                Ok(())
            }
            Err(Broken::Left) => Err(PoolError::BarrierBroken),
            Err(Broken::Late) => {
                barrier.break_up(epoch);
                Err(PoolError::BarrierTimeout { waited: timeout })
            }
        }
    }

    /// Runs `body` on the tiles of `tiles`, which all workers of the call share, in a round between
    /// two barriers. All workers must call this, with the same partition.
    ///
    /// The effect of `body` on a tile should not depend on this worker's own state, because the
    /// distribution of tiles differs from run to run.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// pool.run(&tiles.handle(), |worker, &tiles| {
    ///     let tiles = worker.table().open_partition(tiles)?;
    ///     for _ in 0..3 {
    ///         worker.for_each(&tiles, |mut x, _tile| x += 1.0)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(table.read(x)?[0], 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Round`] if the round cannot be opened (an array is leased, poisoned or freed), or
    ///   has ended with torn tiles.
    /// - [`Error::Pool`] if another worker failed.
    #[track_caller]
    pub fn for_each<G: Group>(
        &self,
        tiles: &Partition<'_, G>,
        mut body: impl FnMut(G::Views<'_>, &TileContext<'_>),
    ) -> Result<(), Error> {
        self.in_round(tiles, |part| self.on_tiles(part, &mut body))
    }

    /// Runs `body` on each tile that `part` can claim.
    #[track_caller]
    pub(super) fn on_tiles<G: Group>(
        &self,
        part: &mut RoundMember<'_, '_, G>,
        body: &mut impl FnMut(G::Views<'_>, &TileContext<'_>),
    ) -> Result<(), Error> {
        // The barrier lets no worker pass with another epoch, so all workers agree on the step.
        let step = self.step();
        while let Some(mut tile) = part.claim()? {
            let context = TileContext {
                tile: tile.tile_of(),
                worker: self.worker,
                call: self.call,
                seed: self.seed,
                step,
                run: 0,
            };
            body(tile.views(), &context);
        }
        Ok(())
    }

    /// Runs `work` as a participant of a round of `tiles` between two barriers.
    pub(super) fn in_round<'t, G: Group>(
        &self,
        tiles: &Partition<'t, G>,
        work: impl FnOnce(&mut RoundMember<'_, 't, G>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_worker()?;
        let round = match self.worker {
            0 => Some(tiles.begin()?),
            _ => None,
        };
        self.barrier()?;
        if let Some(mut part) = tiles.enter_at(self.worker, self.workers)? {
            work(&mut part)?;
        }
        self.end_round(round)
    }

    /// Waits until all workers have left the round, and ends it. Only its opener has it.
    pub(super) fn end_round<G: Group>(&self, round: Option<Round<'_, '_, G>>) -> Result<(), Error> {
        let Some(round) = round else {
            return Ok(self.meet(Part::Follower, BARRIER)?);
        };
        self.meet(Part::Leader, BARRIER)?;
        // Now all workers have left the round: every tile is done or torn. None goes on before the
        // opener arrives.
        round
            .try_finish()
            .unwrap_or_else(|round| Err(round.deadline(Duration::ZERO)))?;
        Ok(self.barrier()?)
    }

    /// Breaks the barrier for all workers of the call.
    pub(super) fn break_barrier(&self) {
        self.mailbox.barrier().break_up(self.epoch.get());
    }

    /// Returns the number of barriers that the workers of the call have passed.
    pub(super) fn step(&self) -> u64 {
        self.epoch.get().wrapping_sub(self.base)
    }

    /// Checks that this process is the worker. A forked child would arrive in its place.
    pub(super) fn check_worker(&self) -> Result<(), PoolError> {
        match self.table.core.is_of(self.token) {
            true => Ok(()),
            false => Err(PoolError::BarrierForked),
        }
    }

    /// Returns this worker's own stream of random numbers in this call. Results that use it depend
    /// on the number of workers, unlike those of [`TileContext::rng`].
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::rand_core::Rng;
    ///
    /// let numbers = pool.broadcast(&(), |worker, ()| worker.rng().next_u64())?;
    /// assert_ne!(numbers[0], numbers[1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
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
