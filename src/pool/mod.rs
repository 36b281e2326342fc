//! A pool of workers that run kernels over the tiles of a partition.
//!
//! The pool uses only public calls of the table: its mailbox is an array, and a call is a round of
//! a partition. `crew` starts and ends the workers (`fork`, `spawn`, `threads`). `mailbox` holds
//! the words that parent and workers share, `kernel` passes a kernel, and `worker` is the worker's
//! loop. `tiles`, `each` and `running` are the calls; `supervise` is the parent's part in them.
//! `README.md` describes the protocol.

mod barrier;
mod builder;
mod call_memory;
mod context;
mod crew;
mod each;
#[cfg(not(loom))]
mod fork;
mod image;
mod kernel;
mod mailbox;
#[cfg(loom)]
pub(crate) mod parts;
#[cfg(loom)]
mod place;
#[cfg(not(loom))]
mod prefault;
#[cfg(not(loom))]
mod process;
mod report;
#[cfg(feature = "rand")]
mod rng;
mod running;
#[cfg(not(loom))]
mod signals;
#[cfg(not(loom))]
mod spawn;
mod spin;
mod stats;
#[cfg(not(loom))]
mod streams;
mod supervise;
#[cfg(all(test, not(loom)))]
mod tests;
mod threads;
mod tiles;
mod trace;
mod worker;

use core::time::Duration;

use crate::descriptor::{ControlKind, Descriptor};
use crate::error::PoolError;
use crate::handle::AnyHandle;
use crate::memory::Memory;
use crate::segment::Segment;
use crate::span::Spans;
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
pub use builder::PoolBuilder;
pub use context::{TileContext, WorkerContext};
use crew::{Crew, Kind};
use image::Image;
use mailbox::Mailbox;
#[cfg(feature = "rand")]
pub use rng::TileRng;
pub use running::{ReadyTile, RunningCall};
#[cfg(not(loom))]
pub use spawn::become_worker;
use spin::Spin;
pub use stats::WorkerStats;

/// The job number that ends the workers. No count reaches it.
const ENDED: u64 = u64::MAX >> 2;

/// Time for worker processes to end before they are killed.
const GRACE: Duration = Duration::from_secs(1);

/// Time for a started worker to become ready.
#[cfg(not(loom))]
const START: Duration = Duration::from_secs(20);

/// The data by which a worker finds its pool.
#[derive(Clone, Copy)]
struct Shared {
    mailbox: AnyHandle,
    workers: usize,
}

impl Shared {
    /// Opens the mailbox. The caller keeps its slot in place by a lease.
    fn open<'t>(&self, table: &'t HandleTable) -> Option<Mailbox<'t>> {
        self.open_in(table.segment())
    }

    fn open_in<'t>(&self, segment: &'t Segment) -> Option<Mailbox<'t>> {
        let memory: &Memory = segment.memory();
        let (slot, _) = self.mailbox.unpack(segment.key());
        let extent = Spans::of(memory).extent(slot)?;
        Descriptor::load(memory.descriptor(slot))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Pool))?;
        Mailbox::open(memory, extent, self.workers)
    }
}

/// The reaction to a worker's death during a call; see [`PoolBuilder::on_death`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDeath {
    /// The call fails with [`PoolError::WorkerDied`]. The dead worker's tile is torn, the arrays
    /// that the kernel writes are poisoned, and the other tiles are done.
    #[default]
    Fail,
    /// Another worker runs the tile again, and the call goes on. The kernel must give the same
    /// result when it runs again on a half-written tile. If more than 8 workers die, the call
    /// fails: the kernel probably kills them.
    RunAgain,
}

/// Workers that share a segment with their parent.
///
/// | | workers are | can be started | for |
/// |---|---|---|---|
/// | [`fork`](Pool::fork) | processes, copies of this one | before any thread | simulations |
/// | [`spawn`](Pool::spawn) | processes, this program started anew | at any time | programs with threads: rayon, async runtimes, Python |
/// | [`threads`](Pool::threads) | threads | at any time | debugging, models under loom |
///
/// A *kernel* is a `fn` item, or a closure without captures or with captures of size zero. Each
/// worker makes its own copy without any bytes (see [`spawn`](Pool::spawn) for the duty that
/// follows). The kernel gets a tile's views, the parameters, and the tile's [context](TileContext),
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
/// [`Pool::builder`] starts a pool with settings: a seed, a deadline, the reaction to a death. They
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
pub struct Pool<'t> {
    table: &'t HandleTable,
    shared: Shared,
    mailbox: Mailbox<'t>,
    /// Keeps the mailbox's words in place.
    _lease: SharedLease<'t>,
    crew: Crew,
    image: Image,
    spin: Spin<'t>,
    seed: u64,
    deadline: Option<Duration>,
    on_death: OnDeath,
    stats: stats::Profile,
    /// Number of calls so far.
    calls: u64,
    deaths: u64,
    token: u64,
}

impl Pool<'_> {
    /// Returns a builder, which sets the number of workers and how their calls behave.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }
}

impl<'t> Pool<'t> {
    /// Forks `workers` worker processes.
    ///
    /// Call this before the process starts any thread (including rayon's). A worker has only the
    /// calling thread, and locks that other threads hold stay locked in it. The workers end with
    /// the thread that called this.
    ///
    /// The next call replaces a dead worker by another fork. If the process runs threads or holds a
    /// lease by then, the pool continues with the remaining workers. It fails with
    /// [`PoolError::Threads`] or [`PoolError::LeaseHeld`] when none is left.
    ///
    /// A worker may start a pool of its own in a kernel of [`run`](Pool::run) or
    /// [`broadcast`](Pool::broadcast).
    ///
    /// # Errors
    /// - [`PoolError::Threads`] if this process runs several threads.
    /// - [`PoolError::LeaseHeld`] if any table of this process holds a lease of an array, because a
    ///   worker would copy the guard.
    /// - [`PoolError::Workers`] for 0 workers, or if the segment has too few seats.
    /// - [`PoolError::InProcess`] for an in-process segment.
    /// - [`PoolError::Alloc`] or [`PoolError::System`] if memory or processes are missing.
    #[cfg(not(loom))]
    pub fn fork(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).fork(table)
    }

    /// Forks `workers` worker processes from a process that runs threads; see [`fork`](Pool::fork).
    ///
    /// # Safety
    /// Whenever the pool forks (here, and at every call after a worker has died):
    /// - No other thread holds a lock that a kernel or this crate takes in the worker: locks of the
    ///   allocator (glibc frees its own in the child, others may not), of the environment, of
    ///   standard streams, and of the program.
    /// - No other thread takes a lease at that moment and puts the lent data where a kernel can
    ///   reach it, such as a static.
    ///
    /// Kernels use nothing that needs the other threads: a rayon pool that the parent has started,
    /// an async runtime, a logger with a thread.
    ///
    /// The fork takes the lock of standard output and flushes it. C's streams are not flushed: text
    /// in their buffers may appear once more for each worker that prints through them.
    ///
    /// # Errors
    /// Same as [`fork`](Pool::fork), except `Threads`.
    #[cfg(not(loom))]
    pub unsafe fn fork_with_threads(
        table: &'t HandleTable,
        workers: usize,
    ) -> Result<Pool<'t>, PoolError> {
        let builder = Pool::builder().workers(workers);
        // SAFETY: the caller's duty.
        unsafe { builder.fork_with_threads(table) }
    }

    /// Starts this program anew as `workers` worker processes.
    ///
    /// The program's `main` must begin with [`become_worker`], which turns such a process into a
    /// worker. Kernels are found by their place in the program's file; both sides verify that it is
    /// the same file. A worker has the segment and the environment, and nothing else that the
    /// parent has computed or set. It reads nothing from the standard input. The call takes a few
    /// milliseconds and returns when all workers are ready. They end with the thread that called
    /// this.
    ///
    /// A closure may capture values of size zero, and a worker makes its copies of them without any
    /// bytes. **Do not capture a value that proves something about this process**, such as a token
    /// that a function returns after it has initialised a static: in a spawned worker that function
    /// has not run. Call it in the kernel, or once in each worker by
    /// [`broadcast`](Pool::broadcast). Code must not hand kernels of spawned workers a token on
    /// which its soundness depends.
    ///
    /// # Errors
    /// - [`PoolError::WorkerNotStarted`] if a worker does not become ready, for example because
    ///   `main` does not call [`become_worker`].
    /// - [`PoolError::NotAWorker`] in a process that should itself have become a worker, and in its
    ///   children.
    /// - [`PoolError::SetUserId`] if the program runs with more rights than its parent.
    /// - [`PoolError::InProcess`], [`PoolError::Workers`], [`PoolError::Alloc`] and
    ///   [`PoolError::System`] as in [`fork`](Pool::fork).
    #[cfg(not(loom))]
    pub fn spawn(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).spawn(table)
    }

    /// Starts `workers` threads of this process, each with a seat of its own.
    ///
    /// Kernels run as in processes, but they share one process: damage by one of them affects all,
    /// and a kernel that never returns cannot be killed.
    ///
    /// # Errors
    /// - [`PoolError::Join`] if the seats are taken.
    /// - [`PoolError::Workers`], [`PoolError::Alloc`] and [`PoolError::System`] as in
    ///   [`fork`](Pool::fork).
    pub fn threads(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).threads(table)
    }

    /// Creates a pool of threads. The first thread dies before its operation number `steps`.
    #[cfg(loom)]
    pub(crate) fn mortal(
        table: &'t HandleTable,
        workers: usize,
        steps: u64,
    ) -> Result<Pool<'t>, PoolError> {
        Pool::builder()
            .workers(workers)
            .start(table, Kind::Mortal(steps))
    }

    /// Returns the table on which the pool was started.
    pub fn table(&self) -> &'t HandleTable {
        self.table
    }

    /// Returns the number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Returns each worker's process, or `None` for a dead worker that is not yet replaced.
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.crew.pids()
    }

    /// Returns the number of deaths noticed so far. Under [`OnDeath::RunAgain`] a death may cause
    /// no error.
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
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Sets the time limit of the following calls; see [`PoolBuilder::deadline`]. `None` removes it.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Sets the reaction to a worker's death in the following calls. Not every kernel gives the same
    /// result when it runs again on a half-written tile.
    pub fn set_on_death(&mut self, policy: OnDeath) {
        self.on_death = policy;
    }

    /// Starts the missing workers. `is_own` returns `true` for the leases of the running call.
    fn hire(&mut self, is_own: &dyn Fn(u64, usize) -> bool) -> Result<(), PoolError> {
        if self.crew.is_complete() {
            return Ok(());
        }
        trace::hiring(self.crew.kind);
        self.crew.hire(self.table, self.shared, &self.image, is_own)
    }

    /// Waits until all workers are ready.
    #[cfg(not(loom))]
    fn await_all(&mut self) -> Result<(), PoolError> {
        let start = std::time::Instant::now();
        loop {
            let mailbox = self.mailbox;
            let is_ready = |worker| mailbox.is_ready(worker);
            let seen = mailbox.events();
            if (0..self.shared.workers).all(is_ready) {
                return Ok(());
            }
            self.sleep_after(seen, || (0..self.shared.workers).all(is_ready));
            let dead = self.bury().into_iter().next();
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
        self.table.is_of(self.token)
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
        if !self.bury().is_empty() || !self.crew.is_complete() {
            let hired = self.hire(&|_, _| false);
            if self.crew.is_empty() {
                hired?;
            }
        }
        Ok(())
    }

    /// Returns the place of a kernel, if the workers have its code.
    fn place_of(&self, kernel: kernel::Trampoline) -> Result<u64, PoolError> {
        let address = kernel as usize as u64;
        let is_there = match self.crew.kind {
            #[cfg(not(loom))]
            Kind::Spawn => self.image.is_own(address),
            _ => self.image.contains(address),
        };
        match is_there {
            true => Ok(image::place_of(kernel)),
            false => Err(PoolError::KernelNotInImage),
        }
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        // In a forked child the pool is a copy of the parent's.
        if !self.is_ours() {
            self.crew.forget();
            return;
        }
        // A failed model must reach its report. Its threads end with it.
        #[cfg(loom)]
        if std::thread::panicking() {
            self.crew.forget();
            return;
        }
        self.mailbox.end();
        self.crew.end(GRACE);
        let _ = self.table.reap();
        // An error means that the mailbox is already gone.
        let _ = self.table.free_slot(self.shared.mailbox);
    }
}

impl core::fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool")
            .field("kind", &self.crew.kind)
            .field("workers", &self.shared.workers)
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}
