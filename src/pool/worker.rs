//! The loop of a worker: it waits for jobs, runs them, and ends with its pool.

use core::cell::Cell;
use core::time::Duration;

use super::call_memory;
use super::image::{self, Image};
use super::kernel::{Call, Trampoline};
use super::mailbox::{Arguments, ENDED, Job, Mailbox, ParamWords};
use super::report::{Cause, Work};
use super::shared::Shared;
use super::spin::Spin;
use super::stay::{Entry, KeptMember, Place};
use super::waiting::next_job;
use super::workers::platform::placement::Placement;
use crate::error::Error;
use crate::handle_table::HandleTable;
use crate::sync::time::Instant;

/// Sleep of a worker before it checks that its parent lives. The system ends a worker with its
/// parent, but not if the parent ended before the worker asked for that.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// The data that a worker needs.
pub(super) struct WorkerLife<'a> {
    pub(super) table: &'a HandleTable,
    pub(super) shared: Shared,
    pub(super) worker: usize,
    /// The parent process with which the worker ends; `None` for a thread.
    pub(super) parent: Option<Parent>,
}

/// The parent of a worker process, and the steps that only a process takes.
#[derive(Clone, Copy)]
pub(super) struct Parent {
    pub(super) pid: u32,
    /// Writes out the text that a job has printed.
    pub(super) after_job: fn(),
    /// Ends this process if the parent with this pid is gone.
    pub(super) end_without: fn(u32),
}

/// Serves jobs up to the last one.
pub(super) fn serve(life: &WorkerLife<'_>) -> Result<(), Error> {
    let (table, worker) = (life.table, life.worker);
    let lease = table.core.lease_shared(life.shared.mailbox)?;
    let Some(mailbox) = life.shared.open(table) else {
        return Ok(());
    };
    let image = Image::of_this_process().ok();
    let spin = Spin::of_worker(life.shared.workers, mailbox.crowded());
    mailbox.sit(worker, table.core.own_seat());
    mailbox.arrive(worker);
    let server = Server::new(life, mailbox, image.as_ref(), &spin);
    while let Some(job) = server.next_job() {
        if let Some((arguments, params)) = server.check_in(job) {
            match arguments.kept_round() {
                None => server.work(job, &arguments, &params, None),
                Some(_) => server.stay(job, arguments, params),
            }
        }
    }
    drop(lease);
    Ok(())
}

/// Serves the jobs of a pool in one worker.
pub(super) struct Server<'a> {
    life: &'a WorkerLife<'a>,
    mailbox: Mailbox<'a>,
    image: Option<&'a Image>,
    spin: &'a Spin<'a>,
    placement: Placement,
    /// The last job that the worker has served, or has found closed.
    last: Cell<u64>,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        life: &'a WorkerLife<'a>,
        mailbox: Mailbox<'a>,
        image: Option<&'a Image>,
        spin: &'a Spin<'a>,
    ) -> Server<'a> {
        Server {
            life,
            mailbox,
            image,
            spin,
            placement: Placement::default(),
            last: Cell::new(0),
        }
    }

    /// Waits for the next job. Returns `None` if the pool ends.
    fn next_job(&self) -> Option<Job> {
        let nap = || {
            if let Some(parent) = &self.life.parent {
                (parent.end_without)(parent.pid);
            }
            Some(LOOK_AROUND)
        };
        next_job(&self.mailbox, self.spin, self.last.get(), nap).filter(|job| job.number() != ENDED)
    }

    /// Checks in to a job, unless it has been closed meanwhile.
    fn check_in(&self, job: Job) -> Option<(Arguments, ParamWords)> {
        let worker = self.life.worker;
        self.placement
            .look(self.mailbox, worker, self.life.shared.workers);
        self.last.set(job.number());
        self.mailbox.check_in(worker, job)
    }

    /// Serves a job, unless it has been closed meanwhile. Stays in no round.
    pub(super) fn serve_one(&self, job: Job) {
        if let Some((arguments, params)) = self.mailbox.check_in(self.life.worker, job) {
            self.work(job, &arguments, &params, None);
        }
    }

    /// Serves a job to which the worker has checked in, and those that follow it in the same kept round.
    fn stay(&self, job: Job, arguments: Arguments, params: ParamWords) {
        let first = Cell::new(Some((job, params)));
        let jobs = |mut member: KeptMember<'_>| {
            let Some((job, params)) = first.take() else {
                return;
            };
            self.work(job, &arguments, &params, Some(member.reborrow()));
            while let Some(job) = self.next_job() {
                let before = self.last.get();
                let Some((next, params)) = self.check_in(job) else {
                    continue;
                };
                if next.kept_round() != arguments.kept_round() {
                    // The worker leaves the round first, and then serves this job.
                    self.last.set(before);
                    self.mailbox.check_out(self.life.worker, None);
                    break;
                }
                self.work(job, &next, &params, Some(member.reborrow()));
            }
        };
        let address = image::address_of(self.mailbox.entry());
        let entered = match self.has_code(address) {
            true => {
                let place = Place {
                    table: self.life.table,
                    partition: arguments.partition,
                    worker: self.life.worker,
                    workers: self.life.shared.workers,
                };
                let code = core::ptr::with_exposed_provenance::<()>(address as usize);
                // SAFETY: the parent wrote the place of an `Entry` there, before it opened the first
                // job of a kept round. It is measured as the place of a kernel is; see `work`.
                let enter = unsafe { core::mem::transmute::<*const (), Entry>(code) };
                enter(&place, &jobs)
            }
            false => {
                self.fail_without_code(&arguments);
                Ok(())
            }
        };
        // Without a running round, or after an error, the job was not served yet.
        if first.take().is_some() {
            self.finish(job, &arguments, entered.map(|()| Work::default()));
        }
    }

    /// Reports that this process does not have the code of a job.
    fn fail_without_code(&self, arguments: &Arguments) {
        let what = "the kernel's code is not mapped here";
        let report = self.mailbox.report(self.life.worker);
        report.fail(arguments.call, Cause::Kernel, what);
    }

    fn has_code(&self, address: u64) -> bool {
        self.image.is_some_and(|image| image.contains(address))
    }

    /// Takes part in a job to which the worker has checked in, as `member` of a round, if any.
    fn work(
        &self,
        job: Job,
        arguments: &Arguments,
        params: &ParamWords,
        member: Option<KeptMember<'_>>,
    ) {
        let life = self.life;
        let address = image::address_of(arguments.task);
        let outcome = if arguments.task == Arguments::NOTHING {
            Ok(Work::default())
        } else if self.has_code(address) {
            call_memory::unpack(life.table, arguments, params, |params| {
                let call = Call {
                    table: life.table,
                    mailbox: self.mailbox,
                    spin: self.spin,
                    arguments: *arguments,
                    params,
                    worker: life.worker,
                    workers: life.shared.workers,
                    member: Cell::new(member),
                };
                let code = core::ptr::with_exposed_provenance::<()>(address as usize);
                // SAFETY: the parent wrote the place of a `Trampoline` there, measured from the
                // anchor of its own image. This worker has the same image: it is in the parent's
                // process, inherited the image by fork, or runs the same file (`become_worker`
                // compares them). So the same code is at this address.
                let run = unsafe { core::mem::transmute::<*const (), Trampoline>(code) };
                timed(arguments, || run(&call))
            })
        } else {
            self.fail_without_code(arguments);
            Ok(Work::default())
        };
        self.finish(job, arguments, outcome);
    }

    /// Reports the outcome of a job, and checks out.
    fn finish(&self, job: Job, arguments: &Arguments, outcome: Result<Work, Error>) {
        let report = self.mailbox.report(self.life.worker);
        match outcome {
            Ok(work) => report.add(work),
            // The parent has abandoned the job, and its arrays may be gone: not a fault of this
            // worker.
            Err(error) if self.mailbox.is_open(job) => {
                report.fail(arguments.call, Cause::Kernel, &error.to_string());
            }
            Err(_) => {}
        }
        // Before the parent learns that the job is done, so its next output follows.
        if let Some(parent) = &self.life.parent {
            (parent.after_job)();
        }
        self.mailbox.check_out(self.life.worker, Some(job.number()));
    }
}

/// Runs a job. Measures its time if the job asks for it.
fn timed(arguments: &Arguments, run: impl FnOnce() -> Result<Work, Error>) -> Result<Work, Error> {
    let start = arguments.has(Arguments::PROFILE).then(Instant::now);
    let mut work = run()?;
    work.jobs = 1;
    if let Some(start) = start {
        work.busy = start.elapsed();
    }
    Ok(work)
}
