//! Workers of a model: threads of the model checker, of which the first may be killed.

pub(crate) mod catch;
pub(crate) mod parts;
pub(in crate::pool) mod place;
pub(in crate::pool) mod placement;
pub(in crate::pool) mod sizes;

use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::pool::image::Image;
use crate::pool::mailbox::Mailbox;
use crate::pool::shared::Shared;
use crate::pool::worker::{WorkerLife, serve};
use crate::segment::Segment;
use crate::sync;
use crate::sync::Ordering;
use crate::sync::checker::{Builder, JoinHandle};
use crate::sync::time::Instant;
use crate::word::SlotIndex;

/// State flag: the worker is dead. The other flags are in `mailbox`.
const GONE: u64 = 4;

/// The ways to start workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    /// Threads of the model.
    Threads,
    /// Threads, of which the first dies before its operation of that number.
    Mortal(u64),
}

impl Backend {
    /// Accepts every segment, because all threads of a model see it.
    pub(in crate::pool) fn check_segment(self, _segment: &Segment) -> Result<(), PoolError> {
        Ok(())
    }

    /// Returns `false`: the workers of a model are threads.
    pub(in crate::pool) fn is_serial(self) -> bool {
        false
    }

    /// Returns `false`: a call waits for workers anyway.
    pub(in crate::pool) fn may_fail_to_start(self) -> bool {
        false
    }

    /// Returns `true` if the workers have the code at `address`.
    pub(in crate::pool) fn has_code(self, image: &Image, address: u64) -> bool {
        image.contains(address)
    }

    /// Allows any lease, because a thread copies none.
    pub(in crate::pool) fn check_leases(
        self,
        _is_own: &dyn Fn(u64, SlotIndex) -> bool,
    ) -> Result<(), PoolError> {
        Ok(())
    }

    /// Starts a worker thread with a seat of its own.
    pub(in crate::pool) fn start(
        self,
        table: &HandleTable,
        shared: Shared,
        _image: &Image,
        worker: usize,
    ) -> Result<Worker, PoolError> {
        let steps = match self {
            Backend::Mortal(steps) if worker == 0 => steps,
            _ => u64::MAX,
        };
        let own = HandleTable::join(table.segment())?;
        let life = life_of(own, shared, worker, steps)?;
        let handle = Builder::new()
            .name(format!("ndshm-worker-{worker}"))
            .spawn(life)
            .map_err(|error| PoolError::System {
                what: "start a thread",
                error,
            })?;
        Ok(Worker {
            handle: Some(handle),
        })
    }

    /// Returns the backend of workers that replace dead ones. They do not die.
    pub(in crate::pool) fn of_replacements(self) -> Backend {
        Backend::Threads
    }
}

/// Returns the main function of a worker, which is killed before its operation number `steps`.
fn life_of(
    own: HandleTable,
    shared: Shared,
    worker: usize,
    steps: u64,
) -> Result<impl FnOnce() + 'static, PoolError> {
    let segment = own.segment().clone();
    let seat = own.seat()?;
    Ok(move || {
        let served = sync::until_death(steps, move || {
            let served = serve(&WorkerLife {
                table: &own,
                shared,
                worker,
                parent: None,
            });
            (served, own)
        });
        match served {
            Some((Ok(()), own)) => {
                // Simulate a process: it exits, and its parent reaps it.
                own.core.exit_without_leaving();
                segment.model_kill(seat);
            }
            Some((Err(error), _)) => panic!("worker {worker}: {error}"),
            None => segment.model_kill(seat),
        }
        // A process's parent learns this from the system. The parent keeps the mailbox in place
        // until this thread ends.
        if let Some(mailbox) = shared.open_in(&segment) {
            mailbox.leave(worker);
        }
    })
}

/// One worker.
pub(in crate::pool) struct Worker {
    handle: Option<JoinHandle<()>>,
}

impl Worker {
    pub(in crate::pool) fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Returns `true` if the worker has announced its end.
    pub(in crate::pool) fn has_died(&mut self, mailbox: &Mailbox<'_>, worker: usize) -> bool {
        mailbox.is_gone(worker)
    }

    /// Returns no signal and no exit code.
    pub(in crate::pool) fn status(&self) -> (Option<i32>, Option<i32>) {
        (None, None)
    }

    /// Waits for the end of the thread.
    pub(in crate::pool) fn join_thread(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }

    /// Waits for the end of the thread, which was told to end.
    pub(in crate::pool) fn end(&mut self, _deadline: Instant) {
        self.join_thread();
    }
}

impl Mailbox<'_> {
    /// Marks the worker as ended.
    fn leave(&self, worker: usize) {
        self.state(worker).fetch_or(GONE, Ordering::Relaxed);
        self.event();
    }

    /// Returns `true` if the worker has announced its end.
    fn is_gone(&self, worker: usize) -> bool {
        self.state(worker).load(Ordering::Relaxed) & GONE != 0
    }
}

/// Does nothing: a model starts no programs.
pub fn become_worker() {}
