//! Worker threads of this process: for debugging, and for the model checker.

#[cfg(not(loom))]
use std::thread::{Builder, JoinHandle};

#[cfg(loom)]
use crate::sync::checker::{Builder, JoinHandle};

use super::Shared;
use super::worker::{WorkerLife, serve};
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;

/// The environment variable that sets rayon's number of threads.
#[cfg(not(loom))]
pub(super) const THREADS_OF_RAYON: &str = "RAYON_NUM_THREADS";

/// Returns the number of threads for each of `workers` that keeps all processors busy.
#[cfg(not(loom))]
pub(super) fn share(workers: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / workers.max(1)).max(1)
}

/// A worker thread.
pub(super) struct Thread {
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Returns `true` if the thread has ended. Before the pool's end this is a fault of this crate.
    #[cfg(not(loom))]
    pub(super) fn has_died(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the thread, which was told to end.
    pub(super) fn end(&mut self) {
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Starts a worker thread with a seat of its own.
///
/// In a model it dies before its operation number `steps` on the segment's words.
pub(super) fn start(
    table: &HandleTable,
    shared: Shared,
    worker: usize,
    #[cfg(loom)] steps: u64,
) -> Result<Thread, PoolError> {
    let own = HandleTable::join(table.segment())?;
    #[cfg(not(loom))]
    let life = move || {
        let served = serve(&WorkerLife {
            table: &own,
            shared,
            worker,
            parent: None,
        });
        if let Err(error) = served {
            eprintln!("ndshm: worker {worker}: {error}");
        }
    };
    #[cfg(loom)]
    let life = mortal_life(own, shared, worker, steps)?;
    let handle = Builder::new()
        .name(format!("ndshm-worker-{worker}"))
        .spawn(life)
        .map_err(|error| PoolError::System {
            what: "start a thread",
            error,
        })?;
    Ok(Thread {
        handle: Some(handle),
    })
}

/// Returns the main function of a worker that may be killed.
#[cfg(loom)]
fn mortal_life(
    own: HandleTable,
    shared: Shared,
    worker: usize,
    steps: u64,
) -> Result<impl FnOnce() + 'static, PoolError> {
    let segment = own.segment().clone();
    let seat = own.seat()?;
    Ok(move || {
        let served = crate::model::mortal(&segment, seat, steps, move || {
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
            None => {}
        }
        // A process's parent learns this from the system. The parent keeps the mailbox in place
        // until this thread ends.
        if let Some(mailbox) = shared.open_in(&segment) {
            mailbox.leave(worker);
        }
    })
}
