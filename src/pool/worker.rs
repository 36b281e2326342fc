//! The loop of a worker: it waits for jobs, runs them, and ends with its pool.

use core::time::Duration;

use super::call_memory;
use super::image::{self, Image};
use super::kernel::{Call, Trampoline};
use super::mailbox::{Arguments, ENDED, Job, Mailbox};
use super::report::{Cause, Work};
use super::shared::Shared;
use super::spin::Spin;
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
    let placement = Placement::default();
    mailbox.sit(worker, table.core.own_seat());
    mailbox.arrive(worker);
    let mut last = 0;
    loop {
        let nap = || {
            if let Some(parent) = &life.parent {
                (parent.end_without)(parent.pid);
            }
            Some(LOOK_AROUND)
        };
        let Some(job) = next_job(&mailbox, &spin, last, nap) else {
            // Unreachable: the nap always has a length.
            break;
        };
        last = job.number();
        if last == ENDED {
            break;
        }
        placement.look(mailbox, worker, life.shared.workers);
        serve_job(life, mailbox, image.as_ref(), &spin, job);
    }
    drop(lease);
    Ok(())
}

/// Takes part in a job, unless it has been closed meanwhile.
pub(super) fn serve_job(
    life: &WorkerLife<'_>,
    mailbox: Mailbox<'_>,
    image: Option<&Image>,
    spin: &Spin<'_>,
    job: Job,
) {
    let (table, worker) = (life.table, life.worker);
    let Some((arguments, params)) = mailbox.check_in(worker, job) else {
        return;
    };
    let address = image::address_of(arguments.task);
    let outcome = match image.is_some_and(|image| image.contains(address)) {
        true => call_memory::unpack(table, &arguments, &params, |params| {
            let call = Call {
                table,
                mailbox,
                spin,
                arguments,
                params,
                worker,
                workers: life.shared.workers,
            };
            let code = core::ptr::with_exposed_provenance::<()>(address as usize);
            // SAFETY: the parent wrote the place of a `Trampoline` there, measured from the anchor
            // of its own image. This worker has the same image: it is in the parent's process,
            // inherited the image by fork, or runs the same file (`become_worker` compares them).
            // So the same code is at this address.
            let run = unsafe { core::mem::transmute::<*const (), Trampoline>(code) };
            timed(&arguments, || run(&call))
        }),
        false => {
            mailbox.report(worker).fail(
                arguments.call,
                Cause::Kernel,
                "the kernel's code is not mapped here",
            );
            Ok(Work::default())
        }
    };
    match outcome {
        Ok(work) => mailbox.report(worker).add(work),
        // The parent has abandoned the job, and its arrays may be gone: not a fault of this
        // worker.
        Err(error) if mailbox.is_open(job) => {
            mailbox
                .report(worker)
                .fail(arguments.call, Cause::Kernel, &error.to_string());
        }
        Err(_) => {}
    }
    // Before the parent learns that the job is done, so its next output follows.
    if let Some(parent) = &life.parent {
        (parent.after_job)();
    }
    mailbox.check_out(worker, Some(job.number()));
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
