//! Additions to the interface for models of programs that use this crate; under `cfg(loom)` alone.
//!
//! Under loom a [`Segment`] is made by [`SegmentOptions::in_process`](crate::SegmentOptions), is
//! tiny (size classes end at 512 bytes, spans hold two arrays), and lives within one execution of a
//! model: build it in the model's closure. Guards and tiles tell loom which bytes they access; code
//! that uses views without a lease calls [`access`]. Participants die by [`mortal`].

#[cfg(not(shuttle))]
mod explore;

use core::ops::Range;

use ndarray::Dimension;

#[cfg(not(shuttle))]
pub use explore::{MOST_EXECUTIONS, explore, explore_deaths, refused};

use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::handle_table::HandleTable;
use crate::handle_table::access::{Inside, TableAccess};
pub use crate::memory::Access;
use crate::pool::Pool;
use crate::pool::PoolError;
use crate::pool::foreign::ForeignHandle;
use crate::pool::workers::model::{Backend, catch, parts};
use crate::segment::Segment;
use crate::sync;
pub use crate::sync::site::{OrderingSite, Part, record_sites, sites, weaken};
use crate::table::error::LeaseError;

/// Runs `life`, which acts for the participant of `seat`, and kills it before its operation number
/// `steps` on the segment's words: nothing is cleaned up, and the seat's lock is released. Returns
/// `None` if `life` was killed.
///
/// `life` owns the table and everything taken from it. A model that runs with 0, 1, 2, ... steps,
/// until `life` ends before its death, has tested a death between any two operations.
pub fn mortal<R>(
    segment: &Segment,
    seat: usize,
    steps: u64,
    life: impl FnOnce() -> R,
) -> Option<R> {
    let result = sync::until_death(steps, life);
    if result.is_none() {
        segment.model_kill(seat);
    }
    result
}

/// Runs, as [`mortal`] does, a `life` that joins by itself, once or several times, and may also die
/// while joining. The thread has no other seat.
pub fn mortal_guest<R>(segment: &Segment, steps: u64, life: impl FnOnce() -> R) -> Option<R> {
    let result = sync::until_death(steps, life);
    if result.is_none() {
        segment.model_kill_joined();
    }
    result
}

/// Returns the slot and the generation of a handle.
pub fn place(segment: &Segment, handle: impl Into<AnyHandle>) -> (usize, u32) {
    let (slot, generation) = handle.into().unpack(segment.key());
    (slot.get(), generation)
}

/// Returns the bucket of a name, one of the two in a model's segment.
pub fn bucket(segment: &Segment, name: &str) -> Option<usize> {
    Some(crate::names::bucket(segment.memory(), name)?.get())
}

/// Returns the counters of the groups of buckets, one for each bucket of a model's segment.
pub fn counts(segment: &Segment) -> Vec<u64> {
    let counts = segment.memory().name_counts().iter();
    counts
        .map(|count| count.load(sync::Ordering::Relaxed))
        .collect()
}

/// Frees the record of a name's bucket but leaves it in the bucket, which no call of a program
/// does. Returns `true` if there was a record.
pub fn lose_record(table: &HandleTable, name: &str) -> bool {
    record(table, name).is_some_and(|record| table.core.free_slot(record).is_ok())
}

/// Returns a handle of the record of a name's bucket, as a program could forge it.
pub fn record(table: &HandleTable, name: &str) -> Option<AnyHandle> {
    let memory = table.segment().memory();
    let word = crate::names::word_of(memory, crate::names::bucket(memory, name)?)?;
    let (slot, generation) = word.record()?;
    Some(table.core.handle_of(slot, generation))
}

/// Ends a [`mortal`] life here: a death at a point that the model chooses.
pub fn die() -> ! {
    sync::die()
}

/// Makes the kernel that the calling worker runs fail when it returns, as if it had panicked.
pub fn fail_kernel(message: &'static str) {
    catch::fail_kernel(message);
}

/// Wakes all sleeping threads, as their timeouts do: in a model no time passes. A sleeper needs
/// this if its waker has died.
pub fn time_out() {
    sync::Atom::<u64>::zero().wake_all();
}

/// Creates a [pool of threads](Pool::threads) with a mortal worker 0: it is killed before its
/// operation number `steps` on the segment's words (a kernel may also call [`die`]). Its
/// replacement is not killed.
///
/// # Errors
/// Returns the errors of [`Pool::threads`].
pub fn mortal_pool(table: &HandleTable, workers: usize, steps: u64) -> Result<Pool<'_>, PoolError> {
    Pool::builder()
        .workers(workers)
        .start(table, Backend::Mortal(steps))
}

/// Wakes the parent and the workers of a foreign pool, as the timeouts of their sleeps do: they
/// look around. For the death of one of them, which nobody announces. The pool must not be dropped
/// meanwhile.
pub fn pass_time(segment: &Segment, handle: ForeignHandle) {
    parts::wake_sleepers(segment, handle);
}

/// Tells loom that the caller accesses `elements` of an array (in memory order) until the result is
/// dropped. loom fails the model if a conflicting access is not ordered before or after it.
///
/// # Errors
/// Returns the errors of [`HandleTable::attach`].
#[track_caller]
pub fn access<T: Element, D: Dimension>(
    table: &impl TableAccess,
    handle: Handle<T, D>,
    elements: Range<usize>,
    write: bool,
) -> Result<Access, LeaseError> {
    let any = AnyHandle::from(handle);
    let located = table.with(Inside, |table| {
        let (slot, _) = table.core.tables().live(any)?;
        let located = table.core.locate::<T, D>(slot, any)?;
        Ok::<_, LeaseError>((located.offset, table.segment().clone()))
    });
    let (offset, segment) = located??;
    let size = size_of::<T>() as u64;
    let len = elements.len() as u64 * size;
    let start = offset + elements.start as u64 * size;
    Ok(segment.memory().track(start, len, write))
}

/// The barrier of [`Pool::run`](crate::Pool::run) by itself, small enough for loom to explore with
/// three threads, which a pool is not.
pub struct Barrier {
    word: sync::Atom,
    workers: usize,
}

impl Barrier {
    /// Creates the barrier of `workers` workers, in the first epoch of the first call.
    pub fn new(workers: usize) -> Barrier {
        Barrier {
            word: sync::Atom::zero(),
            workers,
        }
    }

    /// Waits until all workers have arrived in `epoch`, counted from 0. Returns the next epoch, or
    /// `None` if the barrier was broken.
    pub fn wait(&self, epoch: u64) -> Option<u64> {
        parts::wait_at_barrier(&self.word, epoch, self.workers)
    }

    /// Waits as [`wait`](Barrier::wait) does, at a barrier of which another worker is the leader.
    pub fn follow(&self, epoch: u64) -> Option<u64> {
        parts::follow_at_barrier(&self.word, epoch, self.workers)
    }

    /// Waits until all others have [arrived](Barrier::follow), and calls `lead` before it arrives.
    pub fn lead(&self, epoch: u64, lead: impl FnOnce()) -> Option<u64> {
        parts::lead_at_barrier(&self.word, epoch, self.workers, lead)
    }

    /// Breaks the barrier, as a worker does that will not arrive.
    pub fn break_up(&self) {
        parts::break_barrier(&self.word);
    }
}

/// A pool worker's report of a failure, by itself.
pub struct Report {
    words: Vec<sync::Atom>,
}

impl Report {
    /// Creates a report without a failure.
    pub fn new() -> Report {
        Report {
            words: parts::report_words(),
        }
    }

    /// Records a failure in call number `call`, as a worker does.
    pub fn fail(&self, call: u64, message: &str) {
        parts::fail(&self.words, call, message);
    }

    /// Returns the message of a failure in call number `call`, if one is recorded by now.
    pub fn take(&self, call: u64) -> Option<String> {
        parts::take_failure(&self.words, call)
    }
}

impl Default for Report {
    fn default() -> Report {
        Report::new()
    }
}

/// The notes of one tile of a started call, by themselves.
pub struct TileNotes {
    words: Vec<sync::Atom>,
}

impl TileNotes {
    /// Creates notes without a failure.
    pub fn new() -> TileNotes {
        TileNotes {
            words: parts::note_words(),
        }
    }

    /// Notes a failure, as a worker does before it tears the tile.
    pub fn fail(&self, message: &str) {
        parts::note_failure(&self.words, message);
    }

    /// Returns the message of the failure, if it is noted by now.
    pub fn failure(&self) -> Option<String> {
        parts::noted_failure(&self.words)
    }
}

impl Default for TileNotes {
    fn default() -> TileNotes {
        TileNotes::new()
    }
}

/// Returns how often the table has searched all slots of its segment because no hint led to a free
/// slot.
pub fn sweeps(table: &HandleTable) -> u64 {
    table.core.sweeps()
}

/// The words that a pool and its workers communicate through, by themselves.
pub struct Mailbox {
    words: Vec<sync::Atom>,
    workers: usize,
}

impl Mailbox {
    /// Creates the mailbox of `workers` workers.
    pub fn new(workers: usize) -> Mailbox {
        Mailbox {
            words: parts::mailbox_words(workers),
            workers,
        }
    }

    /// Opens a job, as a call does. The argument is written twice.
    pub fn open(&self, argument: u64) {
        parts::open_job(&self.words, argument);
    }

    /// Closes the job and waits until no worker is in it, as a call does at its end.
    pub fn close(&self) {
        parts::close_job(&self.words, self.workers);
    }

    /// Closes the job without waiting, as a call does after its deadline.
    pub fn give_up(&self) {
        parts::give_up_job(&self.words);
    }

    /// Checks once for a job. If there is one, runs `work` in it with the argument as read twice.
    pub fn serve_once(&self, worker: usize, work: impl FnOnce([u64; 2])) {
        parts::serve_once(&self.words, worker, work);
    }
}
