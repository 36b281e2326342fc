//! A pool of workers that run kernels over the tiles of a partition.
//!
//! [`Pool::fork`], [`Pool::spawn`], [`Pool::threads`] and [`Pool::serial`] start one;
//! [`Pool::builder`] sets seed, deadline and the reaction to failures. This module also has the types that calls of a pool give to
//! kernels and return.
//!
//! The pool uses only public calls of the table: its mailbox is an array, and a call is a round of
//! a partition. `builder` starts a pool; `workers` starts and ends its processes or threads.
//! `mailbox` holds the words that parent and workers share, `waiting` their waits. `kernel` passes
//! a kernel, and `worker` is the worker's loop. `tiles`, `each` and `running` are the calls; `call`
//! and `supervise` are the parent's part in them. `steps` and `worker_steps` are calls and rounds in a row,
//! in which workers `stay`. [`foreign`] serves workers that the crate did not
//! start. `README.md` describes the protocol.

mod barrier;
mod builder;
mod call;
mod call_memory;
mod context;
mod each;
pub(crate) mod error;
pub mod foreign;
mod image;
mod kernel;
mod mailbox;
mod params;
#[cfg(not(loom))]
mod prefault;
mod report;
mod results;
#[cfg(feature = "rand")]
mod rng;
mod running;
mod shared;
mod spin;
mod stats;
mod stay;
mod steps;
mod supervise;
#[cfg(test)]
mod tests;
mod tile_notes;
mod tiles;
mod trace;
mod unit;
mod waiting;
mod worker;
mod worker_steps;
pub(crate) mod workers;

use core::time::Duration;
pub(crate) use error::PoolError;

use crate::handle_table::HandleTable;
use crate::sync::time::Instant;
use crate::table::lease::SharedLease;
use crate::word::SlotIndex;
pub use builder::PoolBuilder;
pub use context::{TileContext, WorkerContext};
use image::Image;
use mailbox::Mailbox;
pub use params::{Kernel, Output, Param};
#[cfg(feature = "rand")]
pub use rng::TileRng;
pub use running::{
    Arrived, FailedTile, FailedTiles, LostTile, LostTiles, ReadyTile, ReadyTiles, RunningCall,
};
use shared::Shared;
use spin::Spin;
pub use stats::WorkerStats;
pub use steps::Steps;
pub use unit::UnitContext;
pub use worker_steps::WorkerSteps;
use workers::Workers;
pub use workers::become_worker;
#[allow(
    unused_imports,
    reason = "for values of serde, which a model does not have"
)]
pub(crate) use {call_memory::Slot, results::Results};

/// Time for worker processes to end before they are killed.
const GRACE: Duration = Duration::from_secs(1);

/// Time for a started worker to become ready.
const START: Duration = Duration::from_secs(20);

/// The reaction of a call to a panic of its kernel and to the death of a worker. Set for all calls by
/// [`PoolBuilder::on_failure`] or [`Pool::set_on_failure`], and for one call that is started by
/// [`RunningCall::on_failure`].
///
/// | | a tile whose kernel panics, or whose worker dies | the other tiles | missing workers are replaced |
/// |---|---|---|---|
/// | `Fail` | is torn, and the call fails | are done | in the next call |
/// | `Skip` | is torn; a [started](Pool::start) call [reports](Arrived) it and goes on, others fail in the end | are done | at once |
/// | `RunAgain` | is run again | are done | at once |
///
/// The arrays that a kernel writes are poisoned as long as tiles are torn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// The call fails, with [`PoolError::KernelPanicked`] or [`PoolError::WorkerDied`].
    #[default]
    Fail,
    /// The call goes on without the tile. A [started](Pool::start) call reports it by
    /// [`wait_any`](RunningCall::wait_any), and the parent repairs it, or lets it be run again. Other
    /// calls do all other tiles, and then fail as under `Fail`.
    ///
    /// Dead workers are replaced while the call runs, unless eight of them have died without a tile.
    Skip,
    /// Another worker runs the tile again, and the call goes on. The kernel must give the same
    /// result when it runs again on a half-written tile. If more than 8 workers die and kernels
    /// panic in one call, the call fails: probably they would do so for ever.
    RunAgain,
}

/// Workers that share a segment with their parent.
///
/// | | workers are | can be started | for |
/// |---|---|---|---|
/// | [`fork`](Pool::fork) | processes, copies of this one | before any thread | simulations |
/// | [`spawn`](Pool::spawn) | processes, this program started anew | at any time | programs with threads: rayon, async runtimes, Python |
/// | [`threads`](Pool::threads) | threads | at any time | debugging, models under loom |
/// | [`serial`](Pool::serial) | none: the caller does the work | at any time | a reference, debugging |
///
/// A *[kernel](Kernel)* is a `fn` item, or a closure without captures or with captures of size
/// zero. Each worker makes its own copy without any bytes (see [`spawn`](Pool::spawn) for the duty
/// that follows). [Parameters](Param) and [results](Output) are plain data, and tuples and arrays
/// of it. The kernel gets a tile's views, the parameters, and the tile's [context](TileContext),
/// and runs in the worker that claims the tile. If its result depends only on these, the outcome of
/// a call does not depend on the number of workers.
///
/// ```
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_shape_fn(1_000_000, |i| i as f64)?;
/// let tiles = table.partition(x.write(), Axis(0), 4096)?;
/// let mut pool = Pool::threads(&table, 2)?;        // or fork, before any thread is started
///
/// pool.for_each(&tiles, &2.0, |mut x, &factor, _tile| x *= factor)?;
/// let sum = pool.map_reduce(&tiles, &(), |x, _, _| x.sum(), 0.0, |sum, part| sum + part)?;
/// assert_eq!(sum, 999_999_000_000.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// [`Pool::builder`] starts a pool with settings: a seed, a deadline, the reaction to failures. They
/// can be changed between calls.
///
/// Dropping the pool ends the workers. Processes that are still in a kernel after a second are
/// killed; threads are joined. If the parent dies, the system ends its worker processes.
///
/// # Signals and output
/// Worker processes leave SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 and SIGUSR2 to their parent: if
/// the parent has a handler, Ctrl-C does not interrupt a call. SIGKILL ends a single worker. Text
/// that a kernel prints is written before the call returns, even without a final newline. The
/// [guide](crate::guide::faults) lists the parts of the parent's state that workers have.
///
/// # rayon in a kernel
/// rayon works in worker processes. Each starts a rayon pool at the first use, with its share of
/// the processors: `RAYON_NUM_THREADS` is set to processors / workers, at least 1, unless it is
/// already set. [`fork`](Pool::fork) refuses to fork a process that runs rayon, because rayon would
/// hang in the child. Worker threads share the process's rayon pool.
#[doc(alias("multiprocessing", "ProcessPoolExecutor", "ThreadPool", "rayon"))]
pub struct Pool<'t> {
    table: &'t HandleTable,
    shared: Shared,
    mailbox: Mailbox<'t>,
    /// Keeps the mailbox's words in place.
    _lease: SharedLease<'t>,
    workers: Workers,
    image: Image,
    spin: Spin<'t>,
    seed: u64,
    deadline: Option<Duration>,
    on_failure: OnFailure,
    stats: stats::Profile,
    /// Number of calls so far.
    calls: u64,
    deaths: u64,
    token: u64,
}

impl Pool<'_> {
    /// Returns a builder, which sets the number of workers and how their calls behave.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::OnFailure;
    /// use std::time::Duration;
    ///
    /// let builder = Pool::builder().workers(2).seed(42).on_failure(OnFailure::RunAgain);
    /// let pool = builder.deadline(Duration::from_secs(60)).threads(&table)?; // or fork, or spawn
    /// assert_eq!((pool.workers(), pool.seed()), (2, 42));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }
}

impl<'t> Pool<'t> {
    /// Starts `workers` threads of this process, each with a seat of its own.
    ///
    /// Kernels run as in processes, but they share one process: damage by one of them affects all,
    /// and a kernel that never returns cannot be killed.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// assert_eq!(pool.broadcast(&(), |worker, ()| worker.workers())?, [2, 2]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Join`] if the seats are taken.
    /// - [`PoolError::Workers`], [`PoolError::Alloc`] and [`PoolError::System`] as in
    ///   [`fork`](Pool::fork).
    pub fn threads(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).threads(table)
    }

    /// Returns the table on which the pool was started.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let x = pool.table().from_elem(100, 0.25)?;
    /// assert_eq!(pool.mean(x)?, 0.25);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn table(&self) -> &'t HandleTable {
        self.table
    }

    /// Returns the number of workers.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert_eq!(Pool::builder().workers(2).threads(&table)?.workers(), 2);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Returns each worker's process, or `None` for a dead worker that is not yet replaced. While a
    /// call runs, ask the [call](RunningCall::pids).
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// // The workers of this pool are threads.
    /// assert_eq!(pool.pids(), [Some(std::process::id()); 2]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.workers.pids()
    }

    /// Returns the number of deaths noticed so far. Under [`OnFailure::RunAgain`] and
    /// [`OnFailure::Skip`] a death may cause no error. While a call runs, ask the
    /// [call](RunningCall::deaths).
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert_eq!(Pool::builder().workers(2).threads(&table)?.deaths(), 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Returns the seed of the random streams of [`TileContext`]. Each new pool draws its own seed
    /// from the system.
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let first = Pool::threads(&table, 1)?;
    /// let mut again = Pool::threads(&table, 1)?;
    /// assert_ne!(first.seed(), again.seed());
    /// again.set_seed(first.seed());                // its calls draw what those of `first` draw
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sets the seed of the following calls. The random numbers of a call depend on the seed and on
    /// the number of the call, not on the number of workers.
    ///
    /// ```
    /// # #[cfg(feature = "rand")] {
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::rand_core::Rng;
    ///
    /// let draw = |pool: &mut Pool| {
    ///     pool.map_collect(&tiles, &(), |_, (), tile| tile.rng().next_u64())
    /// };
    /// pool.set_seed(1);
    /// let first = draw(&mut pool)?;
    /// let mut other = Pool::threads(&table, 1)?;           // another number of workers
    /// other.set_seed(1);
    /// assert_eq!(draw(&mut other)?, first);
    /// # }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Sets the time limit of the following calls; see [`PoolBuilder::deadline`]. `None` removes
    /// it.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::error::PoolError;
    /// use std::time::Duration;
    ///
    /// pool.set_deadline(Some(Duration::from_millis(1)));
    /// let late = pool.for_each(&tiles, &(), |_, (), _| std::thread::sleep(Duration::from_millis(20)));
    /// assert!(matches!(late, Err(PoolError::Deadline { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Sets the reaction to panics and deaths in the following calls. Not every kernel gives the
    /// same result when it runs again on a half-written tile.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// use ndshm::OnFailure;
    ///
    /// pool.set_on_failure(OnFailure::RunAgain);            // this kernel may run twice on a tile
    /// pool.for_each(&tiles, &1.0, |mut x, &value, _tile| x.fill(value))?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn set_on_failure(&mut self, policy: OnFailure) {
        self.on_failure = policy;
    }

    /// Starts the missing workers. `is_own` returns `true` for the leases of the running call.
    fn start_missing(&mut self, is_own: &dyn Fn(u64, SlotIndex) -> bool) -> Result<(), PoolError> {
        if self.workers.is_complete() {
            return Ok(());
        }
        trace::starting(&self.workers.backend);
        self.workers
            .start_missing(self.table, self.shared, &self.image, is_own)
    }

    /// Waits until all workers are ready.
    fn await_all(&mut self) -> Result<(), PoolError> {
        let start = Instant::now();
        loop {
            let mailbox = self.mailbox;
            let is_ready = |worker| mailbox.is_ready(worker);
            let seen = mailbox.events();
            if (0..self.shared.workers).all(is_ready) {
                return Ok(());
            }
            self.sleep_after(seen, || (0..self.shared.workers).all(is_ready));
            let dead = self.collect_dead().into_iter().next();
            let late = (0..self.shared.workers)
                .find(|&worker| !is_ready(worker))
                .filter(|_| start.elapsed() >= START);
            if let Some(worker) = dead.map(|death| death.worker).or(late) {
                return Err(PoolError::WorkerNotStarted {
                    worker,
                    code: dead.and_then(|death| death.code),
                    signal: dead.and_then(|death| death.signal),
                    waited: start.elapsed(),
                });
            }
        }
    }

    /// Returns `true` in the process that started the pool. A forked child does not own the
    /// workers, and the mailbox, which the parent leases, may be freed.
    fn is_ours(&self) -> bool {
        self.table.core.is_of(self.token)
    }

    fn check_ours(&self) -> Result<(), PoolError> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(PoolError::Forked),
        }
    }

    /// Checks that this process owns the pool, and replaces dead workers. Fails only if no worker
    /// is left. Runs before every call.
    fn prepare(&mut self) -> Result<(), PoolError> {
        self.check_ours()?;
        if !self.collect_dead().is_empty() || !self.workers.is_complete() {
            let started = self.start_missing(&|_, _| false);
            if self.workers.is_empty() {
                started?;
            }
        }
        Ok(())
    }

    /// Returns the place of a kernel, if the workers have its code.
    fn place_of(&self, kernel: kernel::Trampoline) -> Result<u64, PoolError> {
        self.place_of_code(kernel as *const ())
    }

    /// Returns the place of a function, if the workers have its code.
    fn place_of_code(&self, code: *const ()) -> Result<u64, PoolError> {
        let address = code.expose_provenance() as u64;
        match self.workers.backend.has_code(&self.image, address) {
            true => Ok(image::place_of(address)),
            false => Err(PoolError::KernelNotInImage),
        }
    }
}

/// Returns `true` in a model that has failed. Its threads end with it, and a drop must not wait.
fn is_failed_model() -> bool {
    cfg!(loom) && std::thread::panicking()
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        // In a forked child the pool is a copy of the parent's. A failed model must reach its
        // report; its threads end with it.
        if !self.is_ours() || is_failed_model() {
            self.workers.forget();
            return;
        }
        self.mailbox.end();
        self.workers.end(GRACE);
        let _ = self.table.reap();
        // An error means that the mailbox is already gone.
        let _ = self.table.core.free_slot(self.shared.mailbox);
    }
}

impl core::fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool")
            .field("backend", &self.workers.backend)
            .field("workers", &self.shared.workers)
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}
