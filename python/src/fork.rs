//! The hooks of a fork: all tables of the process cross it.
//!
//! From before the fork until the child has its pins, no pin of this process is given back: other
//! threads may run Python code between the hooks, and drop views. Dropped views wait in a list.
//!
//! The child inherits views, but not the pins that keep their bytes in place: it takes pins of its
//! own. The parent waits for that, because it may drop a view right after the fork, and free the
//! array. `multiprocessing` does so with the arguments of a process.

use std::cell::Cell;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ndshm::AnyHandle;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kept;
use crate::pin::Dropped;
use crate::segment::{self, lock};

/// A child needs about a millisecond.
const LONGEST_WAIT: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

thread_local! {
    /// `true` between the hooks of a fork that this thread makes.
    static IS_FORKING: Cell<bool> = const { Cell::new(false) };
    /// The pipe through which the child of a fork says that it has its pins.
    static PIPE: Cell<Option<(PipeReader, PipeWriter)>> = const { Cell::new(None) };
}

/// The number of forks with a child that may have views without pins.
static DOUBTS: AtomicU64 = AtomicU64::new(0);

/// The number of threads that are between their hooks.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);

/// `true` once the process has forked, and in the child of a fork.
static HAS_FORKED: AtomicBool = AtomicBool::new(false);

/// The pins that lost their last view during a fork.
static WAITING: Mutex<Vec<Dropped>> = Mutex::new(Vec::new());

/// Returns a number that changes when a child may have views without pins. The pins and arrays that
/// existed before stay until the process ends.
pub(crate) fn doubts() -> u64 {
    DOUBTS.load(Ordering::Relaxed)
}

/// Returns `true` if a child of this process, or its parent, may have the same tables.
pub(crate) fn has_forked() -> bool {
    HAS_FORKED.load(Ordering::Relaxed)
}

/// Gives a pin back now, or after the fork that is under way.
pub(crate) fn give_back(dropped: Dropped) {
    match UNDER_WAY.load(Ordering::Relaxed) {
        0 => dropped.give_back(),
        _ => lock(&WAITING).push(dropped),
    }
}

fn give_back_waiting() {
    let waiting = std::mem::take(&mut *lock(&WAITING));
    for dropped in waiting {
        dropped.give_back();
    }
}

fn has_views() -> bool {
    segment::all().iter().any(|joined| joined.has_pins())
}

/// Returns `true` if another thread is between the hooks of a fork.
pub(crate) fn is_under_way() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) > 0 && !IS_FORKING.get()
}

/// The number of threads that are joining or leaving a segment. A child that is forked in the middle
/// of that would have a part of the segment that nobody in it leaves.
static CHANGING: AtomicU64 = AtomicU64::new(0);

/// Counts a thread that joins or leaves a segment, until it is dropped.
pub(crate) struct Changing(());

impl Changing {
    /// Waits for the forks that are under way, then counts the thread.
    pub(crate) fn begin(py: Python<'_>) -> Changing {
        let start = Instant::now();
        while is_under_way() && start.elapsed() < LONGEST_FORK {
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
        }
        Changing::new()
    }

    /// Counts the thread, which has seen that no fork [is under way](is_under_way) and has been
    /// attached to the interpreter since.
    pub(crate) fn new() -> Changing {
        CHANGING.fetch_add(1, Ordering::Relaxed);
        Changing(())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let _ = CHANGING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            count.checked_sub(1)
        });
    }
}

/// A fork needs some milliseconds. Whatever it waits for, others go on after this time.
const LONGEST_FORK: Duration = Duration::from_secs(1);

/// A thread that joins or leaves a table needs about a millisecond, and more to copy large views.
const LONGEST_CHANGE: Duration = Duration::from_secs(5);

/// Prepares a fork.
#[pyfunction]
fn before_fork(py: Python<'_>) {
    UNDER_WAY.fetch_add(1, Ordering::Relaxed);
    IS_FORKING.set(true);
    let start = Instant::now();
    while CHANGING.load(Ordering::Relaxed) > 0 && start.elapsed() < LONGEST_CHANGE {
        py.detach(|| std::thread::sleep(Duration::from_millis(1)));
    }
    HAS_FORKED.store(true, Ordering::Relaxed);
    PIPE.set(has_views().then(|| pipe().ok()).flatten());
}

/// Waits until the child has its pins, or has ended. Other threads run meanwhile: a hook of another
/// package may hold the child up until one of them has done something.
#[pyfunction]
fn after_fork_in_parent(py: Python<'_>) {
    let is_sure = match PIPE.take() {
        Some((reader, writer)) => {
            // The end of the child is then the end of the pipe. If the fork has failed, there is no
            // other.
            drop(writer);
            py.detach(|| has_pins_in_child(reader))
        }
        // There was no view, or no descriptor for a pipe. Another thread may have made a view
        // meanwhile.
        None => !has_views(),
    };
    if !is_sure {
        DOUBTS.fetch_add(1, Ordering::Relaxed);
    }
    IS_FORKING.set(false);
    if UNDER_WAY.fetch_sub(1, Ordering::Relaxed) == 1 {
        give_back_waiting();
    }
}

/// Waits for the child's word that it has its pins. Returns `true` also if the child has ended.
fn has_pins_in_child(mut reader: PipeReader) -> bool {
    let ready = loop {
        let mut wait = [PollFd::new(&reader, PollFlags::IN)];
        match poll(&mut wait, Some(&LONGEST_WAIT)) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    let mut word = [GOOD];
    ready == Ok(1) && reader.read(&mut word).is_ok() && word == [GOOD]
}

/// The byte of a child that has all pins, and of one that lacks some.
const GOOD: u8 = 1;
const BAD: u8 = 2;

/// Takes seats of all tables in a child, and pins for its views.
///
/// Returns the handles of the arrays whose views are not valid in it, and the errors.
#[pyfunction]
fn after_fork_in_child() -> (Vec<String>, Vec<String>) {
    let (mut lost, mut errors) = (Vec::new(), Vec::new());
    HAS_FORKED.store(true, Ordering::Relaxed);
    for joined in segment::all() {
        match joined.after_fork() {
            Ok(handles) => lost.extend(handles.iter().map(AnyHandle::to_string)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    kept::after_fork();
    if let Some((_, mut writer)) = PIPE.take() {
        let word = if errors.is_empty() { GOOD } else { BAD };
        // If nobody reads it, the parent has ended.
        let _ = writer.write_all(&[word]);
    }
    // The other threads that were forking are the parent's.
    UNDER_WAY.store(0, Ordering::Relaxed);
    IS_FORKING.set(false);
    CHANGING.store(0, Ordering::Relaxed);
    give_back_waiting();
    (lost, errors)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(before_fork, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_parent, module)?)?;
    module.add_function(wrap_pyfunction!(after_fork_in_child, module)?)
}
