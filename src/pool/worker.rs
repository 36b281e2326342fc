//! A worker process: waits for jobs, runs them, and ends with its parent.

use core::time::Duration;

use super::kernel::{Call, Trampoline};
use super::mailbox::{Job, Mailbox};
use super::spin::Spin;
use super::{ENDED, Shared};
use crate::table::HandleTable;

/// How long a worker sleeps before it looks whether its parent still lives. The kernel ends it
/// with its parent; this is for a parent that went before it was told so.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What a worker needs to know from its parent.
pub(super) struct WorkerLife<'a> {
    pub(super) table: &'a HandleTable,
    pub(super) shared: Shared,
    pub(super) worker: usize,
    pub(super) parent: u32,
}

impl WorkerLife<'_> {
    /// The life of the worker, in the forked child.
    pub(super) fn live(&self) -> ! {
        // A panic of our own code must not unwind into the parent's stack frames.
        let served = std::panic::AssertUnwindSafe(|| {
            serve(self.table, &self.shared, self.worker, self.parent)
        });
        let code = match std::panic::catch_unwind(served) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                eprintln!("ndshm: worker {}: {error}", self.worker);
                1
            }
            Err(_) => 101,
        };
        exit(code)
    }
}

/// Ends the process without running what the parent has registered for its own end.
fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

fn serve(
    table: &HandleTable,
    shared: &Shared,
    worker: usize,
    parent: u32,
) -> Result<(), crate::Error> {
    end_with_parent(parent);
    // The copy of the parent's table takes a seat of its own here.
    let lease = table.lease_shared(shared.mailbox)?;
    let Some(mailbox) = shared.open(table, lease.slot.index) else {
        return Ok(());
    };
    let spin = Spin::of(shared.workers);
    let mut last = 0;
    loop {
        let job = next_job(&mailbox, worker, last, parent, &spin);
        last = job.number();
        if last == ENDED {
            return Ok(());
        }
        let Some(arguments) = mailbox.check_in(worker, job) else {
            continue;
        };
        let call = Call {
            table,
            arguments,
            round: last,
            worker,
            workers: shared.workers,
            on_panic: &|tile, message| mailbox.report_panic(worker, tile, message),
        };
        // SAFETY: the parent wrote the address of a `Trampoline` of its own image there, which it
        // has checked to be mapped since before the fork: the same code is at the same address
        // here.
        let run = unsafe { core::mem::transmute::<usize, Trampoline>(arguments.kernel as usize) };
        let outcome = run(&call);
        // If the parent has given the job up, its arrays may be gone: no fault of this worker.
        let counts = mailbox.job() == job;
        mailbox.check_out(worker);
        if counts {
            outcome?;
        }
    }
}

/// Waits for a job after number `last`.
fn next_job(mailbox: &Mailbox<'_>, worker: usize, last: u64, parent: u32, spin: &Spin) -> Job {
    let is_new = |job: &Job| job.is_open() && job.number() != last;
    loop {
        if let Some(job) = spin.until(|| Some(mailbox.job()).filter(is_new)) {
            return job;
        }
        let seen = mailbox.job();
        if !is_new(&seen) {
            mailbox.sleep(worker, seen, LOOK_AROUND);
            if std::os::unix::process::parent_id() != parent {
                exit(0);
            }
        }
    }
}

/// Asks the kernel to end this process when its parent ends.
fn end_with_parent(parent: u32) {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if std::os::unix::process::parent_id() != parent {
        exit(0);
    }
}
