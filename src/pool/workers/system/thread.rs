//! Worker threads of this process, for debugging; and the number of rayon's threads in a worker.

use std::thread::{Builder, JoinHandle};

use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::pool::shared::Shared;
use crate::pool::worker::{WorkerLife, serve};

/// The environment variable that sets rayon's number of threads.
pub(super) const THREADS_OF_RAYON: &str = "RAYON_NUM_THREADS";

/// Returns the number of threads for each of `workers` that keeps all processors busy.
pub(super) fn share(workers: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / workers.max(1)).max(1)
}

/// A worker thread.
pub(in crate::pool) struct Thread {
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Returns `true` if the thread has ended. Before the pool's end this is a fault of this crate.
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
pub(super) fn start(
    table: &HandleTable,
    shared: Shared,
    worker: usize,
) -> Result<Thread, PoolError> {
    let own = HandleTable::join(table.segment())?;
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
