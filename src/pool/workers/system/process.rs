//! Steps that only a worker process takes.

use super::streams;
use crate::pool::worker::{Parent, WorkerLife, serve};

/// Returns the parent process `pid` of a worker, with the steps that the worker takes for it.
pub(super) fn parent(pid: u32) -> Parent {
    Parent {
        pid,
        after_job: streams::flush_after_job,
        end_without,
    }
}

/// Runs the worker in its process, from the first step to the exit. With `c_streams` the buffers of
/// C's streams are this process's own, and are written out at the end.
pub(super) fn live(life: &WorkerLife<'_>, c_streams: bool) -> ! {
    if let Some(parent) = life.parent {
        end_with_parent(parent.pid);
    }
    // A panic of this crate's code must not unwind into the parent's stack frames.
    let served = std::panic::AssertUnwindSafe(|| serve(life));
    let code = match std::panic::catch_unwind(served) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("ndshm: worker {}: {error}", life.worker);
            1
        }
        Err(_) => 101,
    };
    streams::flush_at_end(c_streams);
    exit(code)
}

/// Ends the process without running the parent's exit handlers.
fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Asks the system to end this process when its parent ends.
pub(super) fn end_with_parent(parent: u32) {
    let kill = Some(rustix::process::Signal::KILL);
    let _ = rustix::process::set_parent_process_death_signal(kill);
    end_without(parent);
}

/// Ends this process if its parent is gone.
fn end_without(parent: u32) {
    if std::os::unix::process::parent_id() != parent {
        exit(0);
    }
}
