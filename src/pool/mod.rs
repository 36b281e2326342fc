//! A pool of workers that run kernels over the tiles of a partition.
//!
//! Built on the public calls of the table: its mailbox is an array, a call on it is a round.
//! `crew` makes the workers (`fork`, `spawn`, `threads`), `mailbox` is how they are talked to,
//! `kernel` what crosses, `worker` their life; `tiles`, `each` and `running` are the calls, and
//! `supervise` what the parent does meanwhile. `README.md` is the protocol.

mod barrier;
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
use crate::segment::{Memory, Segment};
use crate::span::Spans;
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
pub use context::{TileContext, WorkerContext};
use crew::{Crew, Kind};
use image::Image;
use mailbox::Mailbox;
#[cfg(feature = "rand")]
pub use rng::TileRng;
pub use running::{Ready, Running};
#[cfg(not(loom))]
pub use spawn::become_worker;
use spin::Spin;
pub use stats::WorkerStats;

/// The number of the job that tells the workers to end: no count gets there.
const ENDED: u64 = u64::MAX >> 2;

/// How long worker processes may take to end before they are killed.
const GRACE: Duration = Duration::from_secs(1);

/// How long a worker that was started may take to come to life.
#[cfg(not(loom))]
const START: Duration = Duration::from_secs(20);

/// What every worker is told of its pool.
#[derive(Clone, Copy)]
struct Shared {
    mailbox: AnyHandle,
    workers: usize,
}

impl Shared {
    /// The mailbox, whose slot the caller keeps in place by a lease.
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

/// What is done when a worker dies in a call; see [`Pool::on_death`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDeath {
    /// The call fails with [`PoolError::WorkerDied`]: the tile that the dead was at is torn, the
    /// arrays it writes are poisoned, the other tiles are done.
    #[default]
    Fail,
    /// The tile is run again by another worker, and the call goes on; for kernels whose effect is
    /// the same when they are run again on a tile that was left half-written. A call in which more
    /// than 8 workers die fails all the same: it is the kernel that kills them.
    RunAgain,
}

/// Workers that share a segment with their parent.
///
/// | | workers are | to be started | for |
/// |---|---|---|---|
/// | [`fork`](Pool::fork) | processes, copies of this one | before any thread | simulations |
/// | [`spawn`](Pool::spawn) | processes, this program started anew | at any time | programs with threads: rayon, async runtimes, Python |
/// | [`threads`](Pool::threads) | threads | at any time | debugging, models under loom |
///
/// A *kernel* is a `fn` item or a closure without captures, or with captures of size zero, of which
/// each worker makes a copy out of nothing (see [`spawn`](Pool::spawn) for the duty that follows). It
/// gets a tile's views, the parameters, and the tile's [context](TileContext), and runs in whichever
/// worker claims the tile. Its result may depend on these alone, and then the outcome of a call does not depend on
/// the number of workers.
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
/// Dropping the pool ends the workers; processes that are still in a kernel after a second are
/// killed, threads are waited for. If the parent dies, the system ends its worker processes.
///
/// # Signals and output
/// Worker processes leave SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 and SIGUSR2 to their parent: if
/// it has a handler, a call that Ctrl-C hits runs to its end. SIGKILL ends a single worker. Text
/// that a kernel prints is written before the call returns, also without a final newline. The
/// [guide](crate::guide::faults) lists what workers have of their parent's state.
///
/// # rayon in a kernel
/// Works in worker processes: each starts a pool of its own at the first use, with its share of
/// the processors (`RAYON_NUM_THREADS` is set to processors / workers, at least 1, unless it is
/// set already). What would hang, a fork of a process in which rayon runs, is refused by
/// [`fork`](Pool::fork). In worker threads all share the one pool of the process.
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
    /// Calls so far.
    calls: u64,
    deaths: u64,
    token: u64,
}

impl<'t> Pool<'t> {
    /// Forks `workers` worker processes.
    ///
    /// To be called before the process starts any thread (rayon's among them): of several threads
    /// only the calling one would exist in a worker, and locks that the others hold would stay
    /// locked there. The workers end with the thread that called this.
    ///
    /// A worker that dies is replaced at the next call, by another fork. If the process runs
    /// threads by then, or holds a lease, the pool goes on with the workers that are left. It fails
    /// with [`PoolError::Threads`] or [`PoolError::LeaseHeld`] when none is.
    ///
    /// A worker may start a pool of its own in a kernel of [`run`](Pool::run) or
    /// [`broadcast`](Pool::broadcast).
    ///
    /// # Errors
    /// - [`PoolError::Threads`] if there are several threads.
    /// - [`PoolError::LeaseHeld`] while this process holds a lease of an array, by any of its tables:
    ///   a worker would have a copy of the guard.
    /// - [`PoolError::Workers`] for 0 workers, or more than the segment has seats for.
    #[cfg(not(loom))]
    pub fn fork(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        fork::refuse_threads()?;
        Pool::new(table, workers, Kind::Fork)
    }

    /// As [`fork`](Pool::fork), in a process that runs threads.
    ///
    /// # Safety
    /// Whenever the pool forks (here, and at every call after a worker has died), no other thread
    /// holds a lock that a kernel or this crate takes in the worker: the allocator's (glibc's is
    /// made free in the child, others may not be), the environment's, those of standard streams,
    /// those of the program. No other thread takes a lease at that moment and puts what it lends where a
    /// kernel can reach it, as a static. Kernels do not use what the other threads were needed for: a pool of
    /// rayon's that the parent has started, an async runtime, a logger with a thread.
    ///
    /// Standard output is flushed before the fork, which takes its lock. C's streams are not: text
    /// in their buffers may appear once more for each worker that prints through them.
    ///
    /// # Errors
    /// As [`fork`](Pool::fork), but for `Threads`.
    #[cfg(not(loom))]
    pub unsafe fn fork_with_threads(
        table: &'t HandleTable,
        workers: usize,
    ) -> Result<Pool<'t>, PoolError> {
        Pool::new(table, workers, Kind::ForkAnyway)
    }

    /// Starts this program anew as `workers` worker processes.
    ///
    /// The program's `main` begins with [`become_worker`], which turns such a process into a
    /// worker. Kernels are found by their place in the program's file, which both sides have
    /// verified to be the same; what the parent has computed or set since its start is not there,
    /// but for the segment and the environment. Workers read nothing from the standard input. It
    /// takes a few milliseconds: the call returns when all workers have come to life. They end with
    /// the thread that called this.
    ///
    /// A closure may capture values of size zero, and a worker makes its copies of them out of
    /// nothing. **Do not capture a value that proves something about this process**, as a token does
    /// that a function returns after it has initialised a static: in a spawned worker that function
    /// has not run. Call it in the kernel, or once in each worker by [`broadcast`](Pool::broadcast).
    /// Code whose soundness depends on such a token must not hand it to kernels that are spawned.
    ///
    /// # Errors
    /// - [`PoolError::WorkerNotStarted`] if a worker does not come to life, as when `main` does not
    ///   call [`become_worker`].
    /// - [`PoolError::NotAWorker`] in a process that should itself have become a worker, and in those
    ///   that such a process starts.
    /// - [`PoolError::SetUserId`] in a program that runs with more rights than its parent.
    /// - [`PoolError::InProcess`], [`PoolError::Workers`].
    #[cfg(not(loom))]
    pub fn spawn(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        spawn::refuse_unserved()?;
        Pool::new(table, workers, Kind::Spawn)
    }

    /// Starts `workers` threads of this process, each with a seat of its own.
    ///
    /// The same kernels run in the same way, but share the process: what one of them breaks is
    /// broken for all, and a kernel that never returns cannot be killed.
    ///
    /// # Errors
    /// [`PoolError::Workers`] for 0 workers, or more than the segment has seats for;
    /// [`PoolError::Join`] if those are taken.
    pub fn threads(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::new(table, workers, Kind::Threads)
    }

    /// A pool of threads of which the first dies before its operation number `steps`.
    #[cfg(loom)]
    pub(crate) fn mortal(
        table: &'t HandleTable,
        workers: usize,
        steps: u64,
    ) -> Result<Pool<'t>, PoolError> {
        Pool::new(table, workers, Kind::Mortal(steps))
    }

    fn new(table: &'t HandleTable, workers: usize, kind: Kind) -> Result<Pool<'t>, PoolError> {
        table.enter()?;
        let seats = table.segment().seats();
        if workers == 0 || workers >= seats as usize {
            return Err(PoolError::Workers { workers, seats });
        }
        #[cfg(not(loom))]
        if kind != Kind::Threads && table.segment().fd().is_none() {
            return Err(PoolError::InProcess);
        }
        let words = Mailbox::words(workers);
        let reserved = table.reserve((words * 8) as u64)?;
        let memory = table.segment().memory();
        let Some(mailbox) = Mailbox::open(memory, reserved.extent, workers) else {
            return Err(table.abandon_damaged(reserved).into());
        };
        mailbox.clear();
        let shared = Shared {
            mailbox: table.publish_control(reserved, |descriptor| {
                Descriptor::control(ControlKind::Pool, words).store(descriptor);
            }),
            workers,
        };
        let image = Image::of_this_process().map_err(|error| PoolError::System {
            what: "read /proc/self/maps",
            error,
        })?;
        let mut pool = Pool {
            table,
            shared,
            mailbox,
            _lease: table.lease_shared(shared.mailbox)?,
            crew: Crew::new(kind, workers),
            image,
            spin: Spin::of_parent(workers, mailbox.crowded()),
            seed: crate::segment::fork::random_nonzero(),
            deadline: None,
            on_death: OnDeath::Fail,
            stats: stats::Profile::default(),
            calls: 0,
            deaths: 0,
            token: table.token(),
        };
        pool.hire(&|_, _| false)?;
        #[cfg(not(loom))]
        if kind == Kind::Spawn {
            pool.await_all()?;
        }
        Ok(pool)
    }

    /// The table that the pool was started on.
    pub fn table(&self) -> &'t HandleTable {
        self.table
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// The processes of the workers, by number; `None` for one that died and is not replaced yet.
    pub fn pids(&self) -> Vec<Option<u32>> {
        self.crew.pids()
    }

    /// Workers that have died so far, and were noticed. Under [`OnDeath::RunAgain`] no error tells.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Returns the seed of the random streams of [`TileContext`]. A new pool draws its seed from the
    /// system, so that two pools do not repeat each other.
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

    /// Sets the seed of the calls that follow. The random numbers of a call depend on the seed and on
    /// the number of the call, not on the number of workers.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// How long a call may take; without a limit at first. A call that takes longer fails, and its
    /// round is given up. Dead workers are noticed in any case, 10 ms after their death if the
    /// parent is in a call then, and at the next call otherwise.
    pub fn deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// What is done when a worker dies in one of the calls that follow.
    pub fn on_death(&mut self, policy: OnDeath) {
        self.on_death = policy;
    }

    /// Starts the workers that are missing. `is_own` knows the leases of the call that is going on.
    fn hire(&mut self, is_own: &dyn Fn(u64, usize) -> bool) -> Result<(), PoolError> {
        if self.crew.is_complete() {
            return Ok(());
        }
        trace::hiring(self.crew.kind);
        self.crew.hire(self.table, self.shared, &self.image, is_own)
    }

    /// Waits until all workers have come to life.
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

    /// Returns `true` in the process that started the pool. In a child of it the workers are not
    /// this process's children, and the mailbox, which the parent leases, may be freed.
    fn is_ours(&self) -> bool {
        self.table.is_of(self.token)
    }

    fn check_ours(&self) -> Result<(), PoolError> {
        match self.is_ours() {
            true => Ok(()),
            false => Err(PoolError::Forked),
        }
    }

    /// What every call sees to first: that it is in the right process, and that workers are there.
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

    /// The place of a kernel, if the workers have it.
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
        // A worker's copy, or another child's, is not the parent's pool.
        if !self.is_ours() {
            self.crew.forget();
            return;
        }
        // The failure of a model comes to its report; its threads end with it.
        #[cfg(loom)]
        if std::thread::panicking() {
            self.crew.forget();
            return;
        }
        self.mailbox.end();
        self.crew.end(GRACE);
        let _ = self.table.reap();
        // An error says that the table no longer has it: there is nothing left to free.
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
