//! Errors of the pool.

use core::ops::Range;
use core::time::Duration;

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::message::Rows;
use crate::partition::RoundError;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// The remedy for torn tiles. A partition refuses after a round that was given up.
const REPAIR: &str = "recover or clear_poison of the partition, or of the table for each array if \
                      the partition refuses";

/// Error of starting a pool or of a call on it.
#[derive(ThisError)]
#[non_exhaustive]
pub enum PoolError {
    /// The number of workers is 0, or the segment has too few seats for it.
    #[error(
        "a pool of {workers} workers is impossible: it needs at least 1 worker, and a seat for \
         each and for the parent; the segment has {seats} seats"
    )]
    Workers {
        /// Workers asked for.
        workers: usize,
        /// Seats of the segment.
        seats: u32,
    },
    /// The [spin](crate::PoolBuilder::spin) of a pool is too long: its parent would notice deaths late.
    #[error(
        "a spin of {spin:?} is longer than {limit:?}, after which a waiting parent looks for dead \
         workers; pass at most Duration::from_millis({})",
        .limit.as_millis()
    )]
    Spin {
        /// The spin asked for.
        spin: Duration,
        /// The longest one.
        limit: Duration,
    },
    /// This process runs several threads. Only the forking thread would exist in a child, and locks
    /// that the others hold would stay locked there for ever.
    #[error(
        "this process runs {threads} threads, so it cannot fork workers; start the pool first, \
         before rayon, an async runtime or any other thread"
    )]
    Threads {
        /// Threads of this process.
        threads: usize,
    },
    /// A table of this process holds a lease or builds an array, and a forked worker would copy the
    /// guard or the builder.
    #[error(
        "this process holds a lease on {handle} or builds it, and a forked worker would copy the \
         guard or the builder; drop all guards, and publish or drop all builders, before forking \
         workers, or use Pool::spawn"
    )]
    LeaseHeld {
        /// A leased array, or one that is being built.
        handle: AnyHandle,
    },
    /// The pool was started by the process that this one was forked from.
    #[error(
        "this pool belongs to the parent process, which started its workers; start a pool in this \
         process"
    )]
    Forked,
    /// No worker is attached to a foreign pool.
    #[error(
        "no worker is attached to the {places} places of this pool; start workers, and wait for \
         them by wait_for_workers"
    )]
    NoWorkers {
        /// Places of the pool.
        places: usize,
    },
    /// The last call of a foreign pool was not ended.
    #[error("the last call of this pool is still open; end it by ForeignPool::end")]
    CallOpen,
    /// A worker of a foreign pool has not answered its call, and asks for the next one.
    #[error("this worker has not answered its call; answer it by finish or fail")]
    NotAnswered,
    /// A worker of a foreign pool answers, and has no call.
    #[error("this worker has no call to answer; get one by ForeignWorker::next")]
    NothingToAnswer,
    /// The place of a worker in a foreign pool is taken.
    #[error(
        "{} of this pool {} taken after {waited:?}; the parent frees the places of dead workers \
         when it calls, waits or asks for pids", place_of(*.worker, *.places),
        if .worker.is_some() { "is" } else { "are all" }
    )]
    PlaceTaken {
        /// The number that was asked for.
        worker: Option<usize>,
        /// Places of the pool.
        places: usize,
        /// The time that the worker has waited.
        waited: Duration,
    },
    /// The pool has ended: it was closed, or its parent has died.
    #[error("the pool has ended: its parent has closed it or died")]
    Gone,
    /// A spawned worker runs another program, which does not contain the kernel.
    #[error("this worker runs another program than the process that started the pool")]
    OtherProgram,
    /// This process was started as a worker, or forked from such a process, and did not become one.
    #[error(
        "a pool started this process, or an ancestor of it, as a worker (NDSHM_WORKER is in the \
         environment); call ndshm::become_worker() first in main, before anything forks"
    )]
    NotAWorker,
    /// This process has more rights than the one that started it, and so would its workers.
    #[error(
        "a set-user-id or set-group-id program cannot spawn workers, because they would trust \
         their environment; use Pool::fork or Pool::threads"
    )]
    SetUserId,
    /// A worker did not start in time.
    #[error(
        "worker {worker} did not start within {waited:?} ({}); does main begin with \
         ndshm::become_worker()?", start_failure(*.signal, *.code)
    )]
    WorkerNotStarted {
        /// The worker's number.
        worker: usize,
        /// The code it exited with, if it did.
        code: Option<i32>,
        /// The signal that killed it, if one did.
        signal: Option<i32>,
        /// The time that the parent waited.
        waited: Duration,
    },
    /// In-process segments are not shared with forked workers.
    #[error("workers cannot share an in-process segment; use Segment::anonymous")]
    InProcess,
    /// The operating system refused.
    #[error("could not {what}: {error}")]
    System {
        /// The attempted operation.
        what: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
    /// The kernel is not part of the program that the workers were forked from.
    #[error(
        "the kernel's code is not mapped in the workers: it was loaded after the pool was started; \
         start the pool after loading libraries"
    )]
    KernelNotInImage,
    /// A worker ended during a call.
    #[error(
        "worker {worker} (process {pid}) died in a call, {}; the next call replaces it{}",
        cause(*.signal, *.code), left_behind(.rows)
    )]
    WorkerDied {
        /// The worker's number.
        worker: usize,
        /// Its process.
        pid: u32,
        /// The signal that killed it, if one did.
        signal: Option<i32>,
        /// The code it exited with, if it did.
        code: Option<i32>,
        /// The tiles that it left half-written; empty if the kernel does not run on tiles.
        tiles: Vec<usize>,
        /// The indices that these tiles cover.
        rows: Vec<Range<usize>>,
    },
    /// A kernel panicked. The other tiles of the round are done, unless no worker was left for them.
    #[error(
        "the kernel panicked in worker {worker} at tile {tile} (rows {rows:?}): {message}; the \
         arrays it writes are poisoned until {REPAIR}"
    )]
    KernelPanicked {
        /// The tile; the first one of [a unit](crate::Pool::for_each_unit).
        tile: usize,
        /// The indices that the tile covers, or all torn tiles of the unit.
        rows: Range<usize>,
        /// The worker's number.
        worker: usize,
        /// The message of the panic, cut to 384 bytes.
        message: String,
    },
    /// A worker could not run the kernel, or the kernel of [`Pool::run`](crate::Pool::run) returned
    /// an error or panicked.
    #[error("the kernel failed in worker {worker}: {message}")]
    WorkerFailed {
        /// The worker's number.
        worker: usize,
        /// The message, cut to 384 bytes.
        message: String,
    },
    /// The partition claims several tiles at once, so tiles cannot be handed out and rerun one by
    /// one.
    #[error(
        "the partition's {tiles} tiles are claimed {unit} at a time, and cannot be handed out one \
         by one; use larger tiles, at most {}", .tiles.div_ceil(*.unit)
    )]
    TilesInUnits {
        /// Tiles of the partition.
        tiles: usize,
        /// Tiles that are claimed at once.
        unit: usize,
    },
    /// The parameters could not be passed to the workers.
    #[error("parameters of type {params} cannot be passed to the workers: {message}")]
    Params {
        /// Their type.
        params: &'static str,
        /// The reason: a message of the type's own code, or the bytes that a worker found.
        message: String,
    },
    /// A result could not be passed back to the parent. All tiles are done.
    #[error("the result of tile or worker {at}, a {result}, cannot be passed back: {message}")]
    Results {
        /// The type of the results.
        result: &'static str,
        /// Index of the tile, or of the worker in a call that runs once in each worker.
        at: usize,
        /// The reason: a message of the type's own code, the bytes that the parent found, missing
        /// memory, or a death.
        message: String,
    },
    /// Tiles that [`RunningCall::wait_any`](crate::pool::RunningCall::wait_any) handed out were
    /// forgotten: neither dropped nor rerun.
    #[error(
        "{} tile{} handed out and never given back, at {}; the arrays are poisoned until recover \
         or clear_poison of the partition; drop each ReadyTile, or call rerun() on it",
        .rows.len(), if .rows.len() == 1 { " was" } else { "s were" }, Rows(.rows)
    )]
    NotGivenBack {
        /// The tiles, and those that were torn in the same call.
        tiles: Vec<usize>,
        /// The indices that each of them covers along the axis that the partition cuts first.
        rows: Vec<Range<usize>>,
    },
    /// The call was not over in time, and was abandoned.
    #[error("the call was not over after {waited:?}{}", so_far(*.done, *.tiles))]
    Deadline {
        /// The time that the parent waited.
        waited: Duration,
        /// Tiles that are done.
        done: usize,
        /// Number of all tiles; 0 if the kernel does not run on tiles.
        tiles: usize,
    },
    /// A worker of the call has died, failed or returned.
    #[error("a worker of this call has ended, so the barrier cannot be completed")]
    BarrierBroken,
    /// Not all workers arrived at the barrier in time.
    #[error("not all workers arrived at the barrier within {waited:?}")]
    BarrierTimeout {
        /// The time that the worker waited.
        waited: Duration,
    },
    /// The kernel has forked, and this process is the child.
    #[error(
        "this process was forked by a worker: the barrier counts workers, so only the worker \
         itself may wait at it"
    )]
    BarrierForked,
    /// The round could not be opened or finished.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// An array that the pool needs could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// An array that the pool needs could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// No seat could be taken.
    #[error(transparent)]
    Join(#[from] JoinError),
}

impl PoolError {
    /// Returns `true` if the pool has ended: its parent has closed it or died. Its workers then
    /// have nothing left to do.
    ///
    /// The [module](crate::pool::foreign) of foreign pools has an example.
    pub fn is_gone(&self) -> bool {
        matches!(self, PoolError::Gone)
    }
}

fn place_of(worker: Option<usize>, places: usize) -> String {
    match worker {
        Some(worker) => format!("place {worker} of the {places} places"),
        None => format!("the {places} places"),
    }
}

fn start_failure(signal: Option<i32>, code: Option<i32>) -> String {
    match (signal, code) {
        (None, None) => "it still runs".to_owned(),
        (signal, code) => cause(signal, code),
    }
}

fn so_far(done: usize, tiles: usize) -> String {
    match tiles {
        0 => String::new(),
        tiles => format!(": {done} of {tiles} tiles are done"),
    }
}

fn left_behind(rows: &[Range<usize>]) -> String {
    let are = match rows.len() {
        0 => return String::new(),
        1 => " is",
        _ => "s are",
    };
    format!(
        "; {} tile{are} half-written, at {}; their arrays are poisoned until {REPAIR}",
        rows.len(),
        Rows(rows)
    )
}

pub(crate) fn cause(signal: Option<i32>, code: Option<i32>) -> String {
    match (signal, code) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "of an unknown cause".to_owned(),
    }
}

crate::message::debug_is_display!(PoolError);
