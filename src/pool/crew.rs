//! The workers of a pool, of every kind: starting, missing and ending them.

use core::time::Duration;

use super::Shared;
#[cfg(not(loom))]
use super::fork;
use super::image::Image;
use super::mailbox::Mailbox;
#[cfg(not(loom))]
use super::process::Child;
#[cfg(not(loom))]
use super::spawn;
use super::threads::{self, Thread};
#[cfg(not(loom))]
use super::worker::WorkerLife;
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;

/// The ways to start workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Fork of a process with one thread.
    #[cfg(not(loom))]
    Fork,
    /// Fork of a process with threads. The caller has promised that this is safe.
    #[cfg(not(loom))]
    ForkAnyway,
    /// Start of the same program.
    #[cfg(not(loom))]
    Spawn,
    /// Threads of this process.
    Threads,
    /// Threads, of which the first dies before its operation of that number.
    #[cfg(loom)]
    Mortal(u64),
}

/// One worker.
enum Member {
    #[cfg(not(loom))]
    Process(Child),
    Thread(Thread),
}

/// A worker that ended too early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Death {
    pub(super) worker: usize,
    pub(super) pid: u32,
    pub(super) signal: Option<i32>,
    pub(super) code: Option<i32>,
}

/// The workers of a pool.
pub(super) struct Crew {
    pub(super) kind: Kind,
    members: Vec<Option<Member>>,
}

impl Crew {
    /// Creates the crew of a pool, without any worker.
    pub(super) fn new(kind: Kind, workers: usize) -> Crew {
        Crew {
            kind,
            members: (0..workers).map(|_| None).collect(),
        }
    }

    /// Returns the process of each present worker.
    pub(super) fn pids(&self) -> Vec<Option<u32>> {
        self.members
            .iter()
            .map(|member| member.as_ref().map(Member::pid))
            .collect()
    }

    pub(super) fn is_there(&self, worker: usize) -> bool {
        self.members[worker].is_some()
    }

    /// Returns `true` if no worker is left.
    pub(super) fn is_empty(&self) -> bool {
        self.members.iter().all(Option::is_none)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.members.iter().all(Option::is_some)
    }

    /// Removes the dead workers, after waiting for each, and resets their words in the mailbox.
    /// Does not reap.
    pub(super) fn bury(&mut self, mailbox: &Mailbox<'_>) -> Vec<Death> {
        let mut deaths = Vec::new();
        for (worker, place) in self.members.iter_mut().enumerate() {
            if let Some(member) = place
                && member.has_died(mailbox, worker)
            {
                deaths.push(member.death(worker));
                member.end_thread();
                *place = None;
                mailbox.reset(worker);
            }
        }
        deaths
    }

    /// Starts the missing workers. Refuses to fork while this process holds a lease for which
    /// `is_own` returns `false`; see [`held`](crate::table::roster::held).
    pub(super) fn hire(
        &mut self,
        table: &HandleTable,
        shared: Shared,
        image: &Image,
        is_own: &dyn Fn(u64, usize) -> bool,
    ) -> Result<(), PoolError> {
        #[cfg(not(loom))]
        if matches!(self.kind, Kind::Fork | Kind::ForkAnyway) && !self.is_complete() {
            fork::refuse_leases(is_own)?;
        }
        #[cfg(loom)]
        let _ = is_own;
        for worker in 0..self.members.len() {
            if self.members[worker].is_none() {
                self.members[worker] = Some(self.start(table, shared, image, worker)?);
            }
        }
        // A replacement of the dead worker does not die.
        #[cfg(loom)]
        if let Kind::Mortal(_) = self.kind {
            self.kind = Kind::Threads;
        }
        Ok(())
    }

    #[cfg(not(loom))]
    fn start(
        &self,
        table: &HandleTable,
        shared: Shared,
        image: &Image,
        worker: usize,
    ) -> Result<Member, PoolError> {
        let life = WorkerLife {
            table,
            shared,
            worker,
            parent: Some(std::process::id()),
        };
        Ok(match self.kind {
            Kind::Fork => {
                fork::refuse_threads()?;
                // SAFETY: there is one thread (checked above), and no other thread that could start
                // more.
                Member::Process(unsafe { fork::fork(&life, true) }?)
            }
            Kind::ForkAnyway => {
                // SAFETY: the caller that started this pool promised this for its lifetime.
                Member::Process(unsafe { fork::fork(&life, false) }?)
            }
            Kind::Spawn => Member::Process(spawn::spawn(&life, image)?),
            Kind::Threads => Member::Thread(threads::start(table, shared, worker)?),
        })
    }

    #[cfg(loom)]
    fn start(
        &self,
        table: &HandleTable,
        shared: Shared,
        _image: &Image,
        worker: usize,
    ) -> Result<Member, PoolError> {
        let steps = match self.kind {
            Kind::Mortal(steps) if worker == 0 => steps,
            _ => u64::MAX,
        };
        Ok(Member::Thread(threads::start(
            table, shared, worker, steps,
        )?))
    }

    /// Waits for the workers, which were told to end. Kills processes that have not ended after
    /// `grace`.
    pub(super) fn end(&mut self, grace: Duration) {
        #[cfg(not(loom))]
        let deadline = std::time::Instant::now() + grace;
        #[cfg(loom)]
        let _ = grace;
        for member in self.members.iter_mut().filter_map(Option::take) {
            match member {
                #[cfg(not(loom))]
                Member::Process(mut child) => child.end(deadline),
                Member::Thread(mut thread) => thread.end(),
            }
        }
    }

    /// Forgets the workers of another process.
    pub(super) fn forget(&mut self) {
        for member in self.members.iter_mut().filter_map(Option::take) {
            core::mem::forget(member);
        }
    }
}

impl Member {
    fn pid(&self) -> u32 {
        match self {
            #[cfg(not(loom))]
            Member::Process(child) => child.pid(),
            Member::Thread(_) => std::process::id(),
        }
    }

    #[cfg(not(loom))]
    fn has_died(&mut self, _mailbox: &Mailbox<'_>, _worker: usize) -> bool {
        match self {
            Member::Process(child) => child.has_died(),
            Member::Thread(thread) => thread.has_died(),
        }
    }

    #[cfg(loom)]
    fn has_died(&mut self, mailbox: &Mailbox<'_>, worker: usize) -> bool {
        mailbox.is_gone(worker)
    }

    fn death(&self, worker: usize) -> Death {
        let (signal, code) = match self {
            #[cfg(not(loom))]
            Member::Process(child) => (child.signal(), child.code()),
            Member::Thread(_) => (None, None),
        };
        Death {
            worker,
            pid: self.pid(),
            signal,
            code,
        }
    }

    fn end_thread(&mut self) {
        match self {
            #[cfg(not(loom))]
            Member::Process(_) => {}
            Member::Thread(thread) => thread.end(),
        }
    }
}
