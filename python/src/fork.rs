//! What happens to all tables of a process when it forks.
//!
//! The child inherits views, but not the pins that keep their bytes in place: it takes pins of its
//! own. The parent waits for that, because it may drop a view right after the fork, and free the
//! array. `multiprocessing` does so with the arguments of a process.

use std::cell::Cell;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::sync::atomic::{AtomicU64, Ordering};

use ndshm::AnyHandle;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::segment;

/// A child needs about a millisecond.
const LONGEST_WAIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

thread_local! {
    /// The pipe through which the child of a fork says that it has its pins.
    static PIPE: Cell<Option<(PipeReader, PipeWriter)>> = const { Cell::new(None) };
}

/// The number of forks whose child did not say that it has its pins.
static DOUBTS: AtomicU64 = AtomicU64::new(0);

/// Returns a number that changes when a child may have views without pins. Arrays that existed
/// before are not freed with their last view in this process.
pub(crate) fn doubts() -> u64 {
    DOUBTS.load(Ordering::Relaxed)
}

/// Prepares a fork.
#[pyfunction]
fn before_fork() {
    let has_views = segment::all().iter().any(|joined| joined.has_pins());
    // Without a pipe the parent does not learn whether the child has its pins.
    let made = has_views.then(|| pipe().ok());
    if let Some(None) = made {
        DOUBTS.fetch_add(1, Ordering::Relaxed);
    }
    PIPE.set(made.flatten());
}

/// Waits until the child has its pins, or has ended.
///
/// The thread stays attached to the interpreter: so no other thread drops a view meanwhile.
#[pyfunction]
fn after_fork_in_parent() {
    let Some((reader, writer)) = PIPE.take() else {
        return;
    };
    // The end of the child is then the end of the pipe. If the fork has failed, there is no other.
    drop(writer);
    let mut wait = [PollFd::new(&reader, PollFlags::IN)];
    let ready = loop {
        match poll(&mut wait, Some(&LONGEST_WAIT)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    if ready != Ok(1) {
        DOUBTS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes seats of all tables in a child, and pins for its views.
///
/// Returns the handles of the arrays whose views are not valid in it, and the errors.
#[pyfunction]
fn after_fork_in_child() -> (Vec<String>, Vec<String>) {
    let (mut lost, mut errors) = (Vec::new(), Vec::new());
    for joined in segment::all() {
        match joined.after_fork() {
            Ok(handles) => lost.extend(handles.iter().map(AnyHandle::to_string)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if let Some((_, mut writer)) = PIPE.take() {
        // If nobody reads it, the parent has ended.
        let _ = writer.write_all(&[1]);
    }
    (lost, errors)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_child, module)?)
}
