//! What models of programs that use this crate need beside its interface; under `cfg(loom)` alone.
//!
//! Under loom a [`Segment`] is made by [`SegmentOptions::in_process`](crate::SegmentOptions), is
//! tiny (size classes end at 512 bytes, spans hold two arrays), and lives within one execution of
//! a model: build it in the model's closure. Guards and tiles tell loom which bytes they access;
//! who uses views without a lease says so by [`access`]. Participants die by [`mortal`].

#[cfg(not(shuttle))]
mod explore;

use core::ops::Range;

use ndarray::Dimension;

#[cfg(not(shuttle))]
pub use explore::{MOST_EXECUTIONS, explore, explore_deaths, refused};

use crate::element::Element;
use crate::error::{LeaseError, PoolError};
use crate::handle::{AnyHandle, Handle};
use crate::pool::{self, Pool};
pub use crate::segment::Access;
use crate::segment::Segment;
use crate::sync;
pub use crate::sync::site::{OrderingSite, Part, record_sites, sites, weaken};
use crate::table::HandleTable;

/// Runs `life`, which acts for the participant of `seat`, up to its operation number `steps` on
/// the segment's words, and ends it there as a kill would: nothing is cleaned up, and the seat's
/// lock falls free. `None` if it came to that.
///
/// `life` owns the table and whatever it takes from it. A model that is run for 0, 1, 2, ... steps
/// until the life is over before its death has seen a death between any two operations.
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

/// As [`mortal`], for a `life` that joins by itself, once or again after it has left: it may die at
/// the door, too. The thread has no other seat.
pub fn mortal_guest<R>(segment: &Segment, steps: u64, life: impl FnOnce() -> R) -> Option<R> {
    let result = sync::until_death(steps, life);
    if result.is_none() {
        segment.model_kill_joined();
    }
    result
}

/// The slot and the generation that a handle stands for.
pub fn place(segment: &Segment, handle: impl Into<AnyHandle>) -> (usize, u32) {
    handle.into().unpack(segment.key())
}

/// The bucket of a name, of the two that a model's segment has.
pub fn bucket(segment: &Segment, name: &str) -> Option<usize> {
    crate::names::bucket(segment.memory(), name)
}

/// Frees the record of a name's bucket, which stays in its bucket. No call of a program does that.
/// Whether there was one.
pub fn lose_record(table: &HandleTable, name: &str) -> bool {
    record(table, name).is_some_and(|record| table.free_slot(record).is_ok())
}

/// A handle of the record of a name's bucket, as one could be made up.
pub fn record(table: &HandleTable, name: &str) -> Option<AnyHandle> {
    let memory = table.segment().memory();
    let word = crate::names::word_of(memory, bucket(table.segment(), name)?)?;
    let (slot, generation) = word.record()?;
    Some(table.handle_of(slot, generation))
}

/// Ends a [`mortal`] life where it is called: a death at a point that the model chooses.
pub fn die() -> ! {
    sync::die()
}

/// A [pool of threads](Pool::threads) whose worker 0 is killed before its operation number `steps`
/// on the segment's words (a kernel may also [`die`] where it likes). A worker that replaces it
/// lives.
///
/// # Errors
/// As [`Pool::threads`].
pub fn mortal_pool(table: &HandleTable, workers: usize, steps: u64) -> Result<Pool<'_>, PoolError> {
    Pool::mortal(table, workers, steps)
}

/// Tells loom that the caller accesses `elements` of an array (as they lie in memory) until the
/// result is dropped. loom fails the model if anyone else's access conflicts with it, or is not
/// ordered before or after it.
///
/// # Errors
/// As [`HandleTable::attach`].
#[track_caller]
pub fn access<T: Element, D: Dimension>(
    table: &HandleTable,
    handle: Handle<T, D>,
    elements: Range<usize>,
    write: bool,
) -> Result<Access, LeaseError> {
    let any = AnyHandle::from(handle);
    let (slot, _) = table.look().live(any)?;
    let located = table.locate::<T, D>(slot, any)?;
    let size = size_of::<T>() as u64;
    let offset = located.offset + elements.start as u64 * size;
    let len = elements.len() as u64 * size;
    Ok(table.segment().memory().track(offset, len, write))
}

/// The barrier of [`Pool::run`](crate::Pool::run) by itself, small enough to be explored by three
/// threads: pools are not.
pub struct Barrier {
    word: sync::Atom,
    workers: usize,
}

impl Barrier {
    /// For `workers` workers, in the first epoch of the first call.
    pub fn new(workers: usize) -> Barrier {
        Barrier {
            word: sync::Atom::zero(),
            workers,
        }
    }

    /// Waits until all have arrived in `epoch`, from 0. The next epoch; `None` if the barrier was
    /// broken.
    pub fn wait(&self, epoch: u64) -> Option<u64> {
        pool::parts::wait_at_barrier(&self.word, epoch, self.workers)
    }

    /// Breaks the barrier, as a worker does that will not come.
    pub fn break_up(&self) {
        pool::parts::break_barrier(&self.word);
    }
}

/// What a worker of a pool tells of a failure, by itself.
pub struct Report {
    words: Vec<sync::Atom>,
}

impl Report {
    /// Without a failure.
    pub fn new() -> Report {
        Report {
            words: pool::parts::report_words(),
        }
    }

    /// Writes a failure in call number `call` down, as a worker does.
    pub fn fail(&self, call: u64, message: &str) {
        pool::parts::fail(&self.words, call, message);
    }

    /// The message of a failure in call number `call`, if one was written down by now.
    pub fn take(&self, call: u64) -> Option<String> {
        pool::parts::take_failure(&self.words, call)
    }
}

impl Default for Report {
    fn default() -> Report {
        Report::new()
    }
}

/// How often the table has searched all slots of its segment because no hint led to a free one.
pub fn sweeps(table: &HandleTable) -> u64 {
    table.sweeps()
}

/// The words through which a pool and its workers talk, by themselves.
pub struct Mailbox {
    words: Vec<sync::Atom>,
    workers: usize,
}

impl Mailbox {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Mailbox {
        Mailbox {
            words: pool::parts::mailbox_words(workers),
            workers,
        }
    }

    /// Opens a job with an argument, which is written twice, as a call does.
    pub fn open(&self, argument: u64) {
        pool::parts::open_job(&self.words, argument);
    }

    /// Closes the job and waits until no worker is in it, as the end of a call does.
    pub fn close(&self) {
        pool::parts::close_job(&self.words, self.workers);
    }

    /// Closes the job and does not wait, as a call does that has missed its deadline.
    pub fn give_up(&self) {
        pool::parts::give_up_job(&self.words);
    }

    /// Looks once for a job, and runs `work` in it with the job's argument as it was read twice.
    pub fn serve_once(&self, worker: usize, work: impl FnOnce([u64; 2])) {
        pool::parts::serve_once(&self.words, worker, work);
    }
}
