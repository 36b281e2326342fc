//! The workers of a pool: starting, missing and ending them.
//!
//! `system` and `model` have the same interface: a [`Backend`], which starts a [`Worker`], and the
//! places of calls. In production a worker is a process or a thread of the operating system; under
//! the model checker it is a thread of the model.

#[cfg(loom)]
pub(crate) mod model;
#[cfg(not(loom))]
pub(super) mod system;

use core::time::Duration;

use super::image::Image;
use super::mailbox::Mailbox;
use super::shared::Shared;
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::sync::time::Instant;
use crate::word::{SeatId, SlotIndex};
#[cfg(loom)]
pub(super) use model as platform;
pub use platform::become_worker;
pub(super) use platform::{Backend, Worker};
#[cfg(not(loom))]
pub(super) use system as platform;

/// A worker that ended too early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Death {
    pub(super) worker: usize,
    pub(super) seat: SeatId,
    pub(super) pid: u32,
    pub(super) signal: Option<i32>,
    pub(super) code: Option<i32>,
}

/// The workers of a pool.
pub(super) struct Workers {
    pub(super) backend: Backend,
    workers: Vec<Option<Worker>>,
}

impl Workers {
    /// Creates the places of `count` workers, without any worker.
    pub(super) fn new(backend: Backend, count: usize) -> Workers {
        Workers {
            backend,
            workers: (0..count).map(|_| None).collect(),
        }
    }

    /// Returns the process of each present worker.
    pub(super) fn pids(&self) -> Vec<Option<u32>> {
        self.workers
            .iter()
            .map(|worker| worker.as_ref().map(Worker::pid))
            .collect()
    }

    pub(super) fn is_there(&self, worker: usize) -> bool {
        self.workers[worker].is_some()
    }

    /// Returns `true` if no worker is left.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.iter().all(Option::is_none)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.workers.iter().all(Option::is_some)
    }

    /// Removes the dead workers, after waiting for each, and resets their words in the mailbox.
    /// Does not reap.
    pub(super) fn collect_dead(&mut self, mailbox: &Mailbox<'_>) -> Vec<Death> {
        let mut deaths = Vec::new();
        for (worker, place) in self.workers.iter_mut().enumerate() {
            if let Some(dead) = place
                && dead.has_died(mailbox, worker)
            {
                let (signal, code) = dead.status();
                dead.join_thread();
                deaths.push(Death {
                    worker,
                    seat: mailbox.seat(worker),
                    pid: dead.pid(),
                    signal,
                    code,
                });
                *place = None;
                mailbox.reset(worker);
            }
        }
        deaths
    }

    /// Starts the missing workers. Refuses to fork while this process holds a lease for which
    /// `is_own` returns `false`; see [`held`](crate::table::roster::held).
    pub(super) fn start_missing(
        &mut self,
        table: &HandleTable,
        shared: Shared,
        image: &Image,
        is_own: &dyn Fn(u64, SlotIndex) -> bool,
    ) -> Result<(), PoolError> {
        if self.is_complete() {
            return Ok(());
        }
        self.backend.check_leases(is_own)?;
        for (worker, place) in self.workers.iter_mut().enumerate() {
            if place.is_none() {
                *place = Some(self.backend.start(table, shared, image, worker)?);
            }
        }
        self.backend = self.backend.of_replacements();
        Ok(())
    }

    /// Waits for the workers, which were told to end. Kills processes that have not ended after
    /// `grace`.
    pub(super) fn end(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        for mut worker in self.workers.iter_mut().filter_map(Option::take) {
            worker.end(deadline);
        }
    }

    /// Forgets the workers of another process.
    pub(super) fn forget(&mut self) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            core::mem::forget(worker);
        }
    }
}
