//! A pool of forked worker processes that run kernels over the tiles of a partition.
//!
//! Built on the public calls of the table: its mailbox is an array, a call on it is a round.

mod fork;
mod kernel;
mod mailbox;
mod spin;
mod worker;

use core::time::Duration;
use std::time::Instant;

use bytemuck::{AnyBitPattern, NoUninit, Pod};
use ndarray::Ix1;

use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{PoolError, RoundError};
use crate::handle::{AnyHandle, Handle};
use crate::partition::{Group, Partition, Round};
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
use worker::WorkerLife;

/// The number of the job that tells the workers to end: no count gets there.
const ENDED: u64 = u64::MAX >> 1;

/// Between two looks at whether the workers live, while waiting for them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

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
    lease: SharedLease<'t>,
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
        if let Some(mailbox) = Mailbox::open(table.segment().memory(), reserved.extent, workers) {
            mailbox.clear();
        }
        let shared = Shared {
            mailbox: table.publish(reserved, |descriptor| {
                Descriptor::control(ControlKind::Pool, words).store(descriptor);
            }),
            workers,
        };
        let mut pool = Pool {
            table,
            shared,
            lease: table.lease_shared(shared.mailbox)?,
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
        let kernel = kernel as usize as u64;
        if !self.image.contains(kernel) {
            return Err(PoolError::KernelNotInImage);
        }
        self.fork_missing()?;
        let bytes = ndarray::ArrayView1::from(bytemuck::bytes_of(params));
        let params = self.table.owned(self.table.from_array(&bytes)?);
        let round = tiles.begin()?;
        self.mailbox().open_job(&Arguments {
            kernel,
            partition: tiles.handle().to_bits(),
            params: params.handle().to_bits(),
            results: results.map_or(0, |results| results.to_bits()),
            seed: self.seed,
        });
        let waited = self.wait(&round);
        self.mailbox().close_job();
        let deaths = self.wait_until_out()?;
        self.outcome(tiles, round, waited, deaths)
    }

    fn mailbox(&self) -> Mailbox<'t> {
        let slot = self.lease.slot.index;
        self.shared
            .open(self.table, slot)
            .expect("the pool's own lease keeps its mailbox as it was made")
    }

    /// Waits until all tiles of the round are done or torn, or no worker is left, or time is up:
    /// then `false`.
    fn wait<G: Group>(&mut self, round: &Round<'_, '_, G>) -> bool {
        let start = Instant::now();
        let mut looked = start;
        loop {
            let mailbox = self.mailbox();
            let seen = mailbox.events();
            if self
                .spin
                .until(|| (round.is_counted() || mailbox.events() != seen).then_some(()))
                .is_none()
            {
                mailbox.wait_event(seen, LOOK_EVERY);
            }
            if round.is_counted() {
                return true;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                let died = self.children.iter_mut().flatten().any(Child::has_died);
                if died {
                    // Its tiles become torn, so that the round can end.
                    let _ = self.table.reap();
                }
                let alive = self.children.iter().flatten().any(|child| !child.is_dead());
                if round.is_over() || !alive {
                    return true;
                }
                if self
                    .deadline
                    .is_some_and(|deadline| start.elapsed() >= deadline)
                {
                    return false;
                }
            }
        }
    }

    /// Waits until no worker is in the job that was closed. Those that died are taken out of the
    /// pool, and returned.
    fn wait_until_out(&mut self) -> Result<Vec<(usize, Child)>, PoolError> {
        let start = Instant::now();
        let mut died = Vec::new();
        loop {
            let mailbox = self.mailbox();
            let seen = mailbox.events();
            let is_out = || (0..self.shared.workers).all(|worker| !mailbox.is_in(worker));
            if self.spin.until(|| is_out().then_some(())).is_some() {
                break;
            }
            mailbox.wait_event(seen, LOOK_EVERY);
            for worker in 0..self.shared.workers {
                if self.children[worker].as_mut().is_some_and(Child::has_died) {
                    died.extend(self.children[worker].take().map(|child| (worker, child)));
                    mailbox.reset(worker);
                }
            }
            // A kernel that does not come back keeps its tile, and the arrays stay closed.
            let overdue = |deadline| start.elapsed() >= deadline;
            if self.deadline.is_some_and(overdue) {
                break;
            }
        }
        for worker in 0..self.shared.workers {
            if self.children[worker].as_ref().is_some_and(Child::is_dead) {
                died.extend(self.children[worker].take().map(|child| (worker, child)));
                self.mailbox().reset(worker);
            }
        }
        if !died.is_empty() {
            self.table.reap()?;
        }
        Ok(died)
    }

    /// What the call came to: a panic before a death before anything else.
    fn outcome<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        in_time: bool,
        deaths: Vec<(usize, Child)>,
    ) -> Result<(), PoolError> {
        let mailbox = self.mailbox();
        let panics: Vec<_> = (0..self.shared.workers)
            .filter_map(|worker| Some((worker, mailbox.take_panic(worker)?)))
            .collect();
        let done = round.done();
        let ended = match round.try_finish() {
            Ok(outcome) => outcome,
            Err(round) => {
                // Given up: by its drop.
                drop(round);
                Err(RoundError::Deadline {
                    round: 0,
                    waited: self.deadline.unwrap_or_default(),
                    done,
                    held: 0,
                    tiles: tiles.tiles(),
                })
            }
        };
        if let Some((worker, panic)) = panics.into_iter().next() {
            return Err(PoolError::KernelPanicked {
                tile: panic.tile,
                rows: tiles.rows(panic.tile),
                worker,
                message: panic.message,
            });
        }
        let torn = match &ended {
            Err(RoundError::Torn { rows, .. }) => rows.clone(),
            _ => Vec::new(),
        };
        if let Some((worker, child)) = deaths.into_iter().next()
            && ended.is_err()
        {
            return Err(PoolError::WorkerDied {
                worker,
                pid: child.pid(),
                signal: child.signal(),
                code: child.code(),
                tiles: (0..tiles.tiles())
                    .filter(|&tile| torn.contains(&tiles.rows(tile)))
                    .collect(),
                rows: torn,
            });
        }
        match ended {
            Err(RoundError::Deadline {
                waited,
                done,
                tiles,
                ..
            }) if !in_time || done < tiles => Err(PoolError::Deadline {
                waited,
                done,
                tiles,
            }),
            other => Ok(other?),
        }
    }

    /// Forks the workers that are not there.
    fn fork_missing(&mut self) -> Result<(), PoolError> {
        for worker in 0..self.shared.workers {
            if self.children[worker].as_mut().is_some_and(Child::has_died) {
                self.children[worker] = None;
                self.mailbox().reset(worker);
            }
        }
        if self.children.iter().all(Option::is_some) {
            return Ok(());
        }
        fork::refuse_threads()?;
        for worker in 0..self.shared.workers {
            if self.children[worker].is_none() {
                let life = WorkerLife {
                    table: self.table,
                    shared: self.shared,
                    worker,
                    parent: std::process::id(),
                };
                self.children[worker] = Some(fork::fork(&life)?);
            }
        }
        Ok(())
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        // A worker's copy, or another child's, is not the parent's pool.
        if !self.table.is_of(self.token) {
            self.children.clear();
            return;
        }
        self.mailbox().end();
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
