//! A pool of forked worker processes that run kernels over the tiles of a partition.
//!
//! Built on the public calls of the table: its mailbox is an array, a call on it is a round.

mod fork;
mod kernel;
mod mailbox;
mod spin;
mod supervise;
mod worker;

use core::time::Duration;

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use ndarray::Ix1;

use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{LeaseError, PoolError};
use crate::handle::{AnyHandle, Handle};
use crate::partition::{Group, Partition};
use crate::span::Spans;
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
use fork::{Child, Image};
pub use kernel::TileContext;
#[cfg(feature = "rand")]
pub use kernel::TileRng;
use kernel::Trampoline;
use mailbox::{Arguments, Mailbox};
use spin::Spin;

/// The number of the job that tells the workers to end: no count gets there.
const ENDED: u64 = u64::MAX >> 1;

/// How long workers may take to end before they are killed.
const GRACE: Duration = Duration::from_secs(1);

/// What the parent's workers know from before the fork.
#[derive(Clone, Copy)]
struct Shared {
    mailbox: AnyHandle,
    workers: usize,
}

impl Shared {
    fn open<'t>(&self, table: &'t HandleTable, slot: usize) -> Option<Mailbox<'t>> {
        let memory = table.segment().memory();
        Descriptor::load(memory.descriptor(slot))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Pool))?;
        Mailbox::open(memory, Spans::of(memory).extent(slot)?, self.workers)
    }
}

/// Worker processes that inherited the segment's mapping.
///
/// A *kernel* is a `fn` item or a closure without captures. It gets a tile's views, the
/// parameters, and the tile's [context](TileContext), and runs in whichever worker claims the
/// tile. Its result may depend on these alone, and then the outcome of a call does not depend on
/// the number of workers.
///
/// ```no_run
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_shape_fn(1_000_000, |i| i as f64)?;
/// let tiles = table.partition(x.write(), Axis(0), 4096)?;
/// let mut pool = Pool::fork(&table, 4)?;
///
/// pool.for_each(&tiles, &2.0, |mut x, &factor, _tile| x *= factor)?;
/// let sum = pool.map_reduce(&tiles, &(), |x, _, _| x.sum(), 0.0, |sum, part| sum + part)?;
/// assert_eq!(sum, 999_999_000_000.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
///
/// Dropping the pool ends the workers. If the parent dies, the kernel ends them.
pub struct Pool<'t> {
    table: &'t HandleTable,
    shared: Shared,
    mailbox: Mailbox<'t>,
    /// Keeps the mailbox's words in place.
    _lease: SharedLease<'t>,
    children: Vec<Option<Child>>,
    image: Image,
    spin: Spin,
    seed: u64,
    deadline: Option<Duration>,
    token: u64,
}

impl<'t> Pool<'t> {
    /// Forks `workers` worker processes.
    ///
    /// To be called before the process starts any thread (rayon's among them): of several threads
    /// only the calling one would exist in a worker. The workers end with the thread that called
    /// this.
    ///
    /// # Errors
    /// - [`PoolError::Threads`] if there are several threads.
    /// - [`PoolError::LeaseHeld`] while the table holds leases of arrays.
    /// - [`PoolError::Workers`] for 0 workers, or more than the segment has seats for.
    pub fn fork(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        table.enter()?;
        let seats = table.segment().seats();
        if workers == 0 || workers >= seats as usize {
            return Err(PoolError::Workers { workers, seats });
        }
        if table.segment().fd().is_none() {
            return Err(PoolError::InProcess);
        }
        if let Some(handle) = table.held() {
            return Err(PoolError::LeaseHeld { handle });
        }
        fork::refuse_threads()?;
        let words = Mailbox::words(workers);
        let reserved = table.reserve((words * 8) as u64)?;
        let memory = table.segment().memory();
        let Some(mailbox) = Mailbox::open(memory, reserved.extent, workers) else {
            return Err(table.abandon_damaged(reserved).into());
        };
        mailbox.clear();
        let shared = Shared {
            mailbox: table.publish(reserved, |descriptor| {
                Descriptor::control(ControlKind::Pool, words).store(descriptor);
            }),
            workers,
        };
        let mut pool = Pool {
            table,
            shared,
            mailbox,
            _lease: table.lease_shared(shared.mailbox)?,
            children: (0..workers).map(|_| None).collect(),
            image: Image::of_this_process()?,
            spin: Spin::of(workers),
            seed: 0,
            deadline: None,
            token: table.token(),
        };
        pool.fork_missing()?;
        Ok(pool)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// The processes of the workers, by number; `None` for one that died and is not replaced yet.
    pub fn pids(&self) -> Vec<Option<u32>> {
        let pid = |child: &Option<Child>| child.as_ref().map(Child::pid);
        self.children.iter().map(pid).collect()
    }

    /// What the random streams of [`TileContext`] start from; 0 at first.
    pub fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// How long a call may take; without a limit at first. A call that takes longer fails, and its
    /// round is given up. Dead workers are noticed in any case.
    pub fn deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Runs `kernel` once on every tile.
    ///
    /// # Errors
    /// - [`PoolError::Round`] if an array of the partition is leased, poisoned or freed.
    /// - [`PoolError::KernelPanicked`]: the tile is torn, the others are done.
    /// - [`PoolError::WorkerDied`]: the tiles it held are torn, the others are done.
    pub fn for_each<G, P, F>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
    ) -> Result<(), PoolError>
    where
        G: Group,
        P: Pod,
        F: Fn(G::Views<'_>, &P, &TileContext) + Copy + 'static,
    {
        let kernel = kernel::trampoline_of::<G, P, (), F>(kernel);
        self.run(tiles, params, kernel, None)
    }

    /// Runs `kernel` once on every tile and folds what it returns, in the order of the tiles: so
    /// that floating-point results do not depend on who did what when.
    ///
    /// # Errors
    /// As [`for_each`](Pool::for_each).
    pub fn map_reduce<G, P, R, F, A>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
        init: A,
        fold: impl FnMut(A, R) -> A,
    ) -> Result<A, PoolError>
    where
        G: Group,
        P: Pod,
        R: NoUninit + AnyBitPattern,
        F: Fn(G::Views<'_>, &P, &TileContext) -> R + Copy + 'static,
    {
        let kernel = kernel::trampoline_of::<G, P, R, F>(kernel);
        let bytes = tiles.tiles() * size_of::<R>();
        let results = self.table.owned(self.table.uninit::<u8, _>(bytes)?);
        self.run(tiles, params, kernel, Some(results.handle()))?;
        let parts = kernel::read_results::<R>(self.table, results.handle(), tiles.tiles())?;
        Ok(parts.into_iter().fold(init, fold))
    }

    fn run<G: Group, P: NoUninit>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: Trampoline,
        results: Option<Handle<u8, Ix1>>,
    ) -> Result<(), PoolError> {
        // The mailbox is leased by the process that started the pool, and may be gone by now.
        if !self.table.is_of(self.token) {
            return Err(PoolError::Forked);
        }
        if tiles.segment().key() != self.table.segment().key() {
            let handle = AnyHandle::from_bits(tiles.handle().to_bits());
            return Err(LeaseError::Stale { handle }.into());
        }
        let kernel = kernel as usize as u64;
        if !self.image.contains(kernel) {
            return Err(PoolError::KernelNotInImage);
        }
        self.fork_missing()?;
        let bytes = ndarray::ArrayView1::from(bytemuck::bytes_of(params));
        let params = self.table.owned(self.table.from_array(&bytes)?);
        let round = tiles.begin()?;
        self.mailbox.open_job(&Arguments {
            kernel,
            partition: tiles.handle().to_bits(),
            params: params.handle().to_bits(),
            results: results.map_or(0, |results| results.to_bits()),
            seed: self.seed,
        });
        self.wait(&round);
        self.mailbox.close_job();
        let deaths = self.wait_until_out()?;
        self.outcome(tiles, round, deaths)
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        // A worker's copy, or another child's, is not the parent's pool.
        if !self.table.is_of(self.token) {
            self.children.clear();
            return;
        }
        self.mailbox.end();
        fork::end(self.children.iter_mut().flatten(), GRACE);
        let _ = self.table.reap();
        // An error says that somebody freed it.
        let _ = self.table.free(self.shared.mailbox);
    }
}

impl core::fmt::Debug for Pool<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.shared.workers)
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}
