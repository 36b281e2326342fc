//! Workers of the operating system: processes and threads.

pub(in crate::pool) mod catch;
mod child;
mod fork;
pub(in crate::pool) mod place;
pub(in crate::pool) mod placement;
mod process;
mod signals;
pub(in crate::pool) mod sizes;
mod spawn;
mod start;
mod streams;
mod thread;

use child::Child;
pub use spawn::become_worker;
use thread::Thread;

use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::pool::image::Image;
use crate::pool::mailbox::Mailbox;
use crate::pool::shared::Shared;
use crate::pool::worker::WorkerLife;
use crate::segment::Segment;
use crate::sync::time::Instant;
use crate::word::SlotIndex;

/// The ways to start workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    /// Fork of a process with one thread.
    Fork,
    /// Fork of a process with threads. The caller has promised that this is safe.
    ForkAnyway,
    /// Start of the same program.
    Spawn,
    /// Threads of this process.
    Threads,
    /// No workers: the thread that calls the pool does their work.
    Serial,
}

impl Backend {
    /// Returns an error if the workers are other processes, which cannot map this segment.
    pub(in crate::pool) fn check_segment(self, segment: &Segment) -> Result<(), PoolError> {
        let has_processes = !matches!(self, Backend::Threads | Backend::Serial);
        match has_processes && segment.fd().is_none() {
            true => Err(PoolError::InProcess),
            false => Ok(()),
        }
    }

    /// Returns `true` if the thread that calls the pool does the work.
    pub(in crate::pool) fn is_serial(self) -> bool {
        self == Backend::Serial
    }

    /// Returns `true` if a worker may fail before it is ready, so that the start waits for it.
    pub(in crate::pool) fn may_fail_to_start(self) -> bool {
        self == Backend::Spawn
    }

    /// Returns `true` if the workers have the code at `address`.
    pub(in crate::pool) fn has_code(self, image: &Image, address: u64) -> bool {
        match self {
            Backend::Spawn => image.is_own(address),
            _ => image.contains(address),
        }
    }

    /// Refuses to fork while this process holds a lease that is not the caller's own.
    pub(in crate::pool) fn check_leases(
        self,
        is_own: &dyn Fn(u64, SlotIndex) -> bool,
    ) -> Result<(), PoolError> {
        match self {
            Backend::Fork | Backend::ForkAnyway => fork::refuse_leases(is_own),
            Backend::Spawn | Backend::Threads | Backend::Serial => Ok(()),
        }
    }

    /// Starts a worker.
    pub(in crate::pool) fn start(
        self,
        table: &HandleTable,
        shared: Shared,
        image: &Image,
        worker: usize,
    ) -> Result<Worker, PoolError> {
        let life = WorkerLife {
            table,
            shared,
            worker,
            parent: Some(process::parent(std::process::id())),
        };
        Ok(match self {
            Backend::Fork => {
                fork::refuse_threads()?;
                // SAFETY: there is one thread (checked above), and no other thread that could start
                // more.
                Worker::Process(unsafe { fork::fork(&life, true) }?)
            }
            Backend::ForkAnyway => {
                // SAFETY: the caller that started this pool promised this for its lifetime.
                Worker::Process(unsafe { fork::fork(&life, false) }?)
            }
            Backend::Spawn => Worker::Process(spawn::spawn(&life, image)?),
            Backend::Threads => Worker::Thread(thread::start(table, shared, worker)?),
            Backend::Serial => Worker::Caller,
        })
    }

    /// Returns the backend of workers that replace dead ones.
    pub(in crate::pool) fn of_replacements(self) -> Backend {
        self
    }
}

/// One worker.
pub(in crate::pool) enum Worker {
    Process(Child),
    Thread(Thread),
    /// The thread that calls the pool.
    Caller,
}

impl Worker {
    pub(in crate::pool) fn pid(&self) -> u32 {
        match self {
            Worker::Process(child) => child.pid(),
            Worker::Thread(_) | Worker::Caller => std::process::id(),
        }
    }

    /// Returns `true` if the worker has ended. Asks the system without waiting.
    pub(in crate::pool) fn has_died(&mut self, _mailbox: &Mailbox<'_>, _worker: usize) -> bool {
        match self {
            Worker::Process(child) => child.has_died(),
            Worker::Thread(thread) => thread.has_died(),
            Worker::Caller => false,
        }
    }

    /// Returns the signal that killed a dead worker, and its exit code.
    pub(in crate::pool) fn status(&self) -> (Option<i32>, Option<i32>) {
        match self {
            Worker::Process(child) => (child.signal(), child.code()),
            Worker::Thread(_) | Worker::Caller => (None, None),
        }
    }

    /// Waits for the end of a thread that has died.
    pub(in crate::pool) fn join_thread(&mut self) {
        match self {
            Worker::Process(_) | Worker::Caller => {}
            Worker::Thread(thread) => thread.end(),
        }
    }

    /// Waits for the worker, which was told to end. Kills a process at `deadline`.
    pub(in crate::pool) fn end(&mut self, deadline: Instant) {
        match self {
            Worker::Process(child) => child.end(deadline),
            Worker::Thread(thread) => thread.end(),
            Worker::Caller => {}
        }
    }
}
