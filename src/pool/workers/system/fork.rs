//! Forked workers, which inherit the mapping and the code.

use std::fs;
use std::io;

use rustix::process::Pid;

use super::child::Child;
use super::process;
use super::signals::{self, Blocked};
use super::streams;
use super::thread::THREADS_OF_RAYON;
use crate::pool::error::PoolError;
use crate::pool::worker::WorkerLife;
use crate::table::roster;
use crate::word::SlotIndex;

/// Forks a worker. The child runs the worker's loop and does not return. `alone` means that this
/// process has one thread.
///
/// # Safety
/// The process has one thread, or no other thread now holds a lock that the worker or its kernels
/// take (locks of the allocator, the environment, the streams, the program's own data).
pub(super) unsafe fn fork(life: &WorkerLife<'_>, alone: bool) -> Result<Child, PoolError> {
    let refused = |error| PoolError::System {
        what: "fork a worker",
        error,
    };
    let is_flushed = streams::flush_before_fork(alone);
    let blocked = Blocked::all();
    // SAFETY: the child is a copy in which every lock that it needs is free (the caller's duty). It
    // runs only the worker's loop, which never returns into the parent's frames.
    match unsafe { libc::fork() } {
        0 => {
            signals::leave_to_parent(Some(blocked));
            if !is_flushed {
                streams::discard_inherited(alone);
            }
            if alone && std::env::var_os(THREADS_OF_RAYON).is_none() {
                let share = super::thread::share(life.shared.workers).to_string();
                // SAFETY: the child of a process with one thread has one thread.
                unsafe { std::env::set_var(THREADS_OF_RAYON, share) };
            }
            process::live(life, alone)
        }
        -1 => Err(refused(io::Error::last_os_error())),
        pid => match Pid::from_raw(pid) {
            Some(pid) => Ok(Child::new(pid)),
            None => Err(refused(io::Error::other("the system returned no pid"))),
        },
    }
}

/// Returns an error if a table of this process holds a lease that is not the caller's own.
pub(super) fn refuse_leases(is_own: impl Fn(u64, SlotIndex) -> bool) -> Result<(), PoolError> {
    match roster::held(is_own) {
        None => Ok(()),
        Some(handle) => Err(PoolError::LeaseHeld { handle }),
    }
}

/// Returns an error if this process runs more than one thread.
pub(super) fn refuse_threads() -> Result<(), PoolError> {
    let threads = fs::read_dir("/proc/self/task").map_err(|error| PoolError::System {
        what: "count the threads in /proc/self/task",
        error,
    })?;
    match threads.count() {
        1 => Ok(()),
        threads => Err(PoolError::Threads { threads }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_harness_has_threads() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || ended.recv());
        assert!(matches!(refuse_threads(), Err(PoolError::Threads { threads }) if threads >= 2));
        drop(end);
        assert!(
            other.join().unwrap().is_err(),
            "the thread lived until its channel closed"
        );
    }
}
