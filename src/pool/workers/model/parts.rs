//! Parts of the pool for models: the barrier and the mailbox alone. Whole pools are too large for
//! three threads.

use core::time::Duration;

use crate::pool::barrier::{Barrier, Broken, Last, Patience};
use crate::pool::foreign::ForeignHandle;
use crate::pool::foreign::words::{At, Words};
use crate::pool::mailbox::{Arguments, Job, Mailbox};
use crate::pool::report::{Cause, Report};
use crate::pool::spin::Spin;
use crate::pool::tile_notes::TileNotes;
use crate::segment::Segment;
use crate::sync::{Atom, Ordering, Word};

pub(crate) fn wait_at_barrier(word: &Atom, epoch: u64, workers: usize) -> Option<u64> {
    at_barrier(word, |barrier, patience| {
        barrier.wait(epoch, workers, Last::Any, patience)
    })
}

/// Waits at a barrier of which another worker is the leader.
pub(crate) fn follow_at_barrier(word: &Atom, epoch: u64, workers: usize) -> Option<u64> {
    at_barrier(word, |barrier, patience| {
        barrier.wait(epoch, workers, Last::Leader, patience)
    })
}

/// Waits until all workers but the caller have arrived, and calls `lead` before it arrives.
pub(crate) fn lead_at_barrier(
    word: &Atom,
    epoch: u64,
    workers: usize,
    lead: impl FnOnce(),
) -> Option<u64> {
    at_barrier(word, |barrier, patience| {
        barrier.wait_for_others(epoch, workers, patience)
    })?;
    lead();
    wait_at_barrier(word, epoch, workers)
}

fn at_barrier<T>(
    word: &Atom,
    wait: impl FnOnce(Barrier<'_>, &Patience<'_, fn() -> bool>) -> Result<T, Broken>,
) -> Option<T> {
    let crowded = Atom::zero();
    let patience = Patience {
        spin: &Spin::of_worker(1, &crowded),
        look: Duration::ZERO,
        may_wait: (|| true) as fn() -> bool,
    };
    wait(Barrier::new(word), &patience).ok()
}

/// Breaks the barrier, as a leaving worker does, or the parent after a death.
pub(crate) fn break_barrier(word: &Atom) {
    Barrier::new(word).break_up(0);
}

pub(crate) fn mailbox_words(workers: usize) -> Vec<Atom> {
    (0..Mailbox::words(workers)).map(|_| Atom::zero()).collect()
}

/// Opens a job with `argument` as its first and last argument.
pub(crate) fn open_job(words: &[Atom], argument: u64) {
    let arguments = Arguments {
        task: argument,
        flags: argument,
        ..Default::default()
    };
    Mailbox::in_words(words).open_job(&arguments, &Default::default());
}

/// Closes the job, and waits until no worker is in it.
pub(crate) fn close_job(words: &[Atom], workers: usize) {
    let mailbox = Mailbox::in_words(words);
    mailbox.close_job();
    loop {
        let seen = mailbox.events();
        if (0..workers).all(|worker| !mailbox.is_in(worker)) {
            break;
        }
        mailbox.wait_event(seen, Duration::ZERO);
    }
}

/// Closes the job without waiting for workers.
pub(crate) fn give_up_job(words: &[Atom]) {
    Mailbox::in_words(words).close_job();
}

/// Checks once for an open job. If there is one, calls `work` with these two arguments.
pub(crate) fn serve_once(words: &[Atom], worker: usize, work: impl FnOnce([u64; 2])) {
    let mailbox = Mailbox::in_words(words);
    let job = mailbox.job();
    if job.is_open()
        && let Some((arguments, _)) = mailbox.check_in(worker, job)
    {
        work([arguments.task, arguments.flags]);
        mailbox.check_out(worker, Some(job.number()));
    }
}

/// Wakes all sleepers of a foreign pool, as the timeouts of their sleeps do.
pub(crate) fn wake_sleepers(segment: &Segment, handle: ForeignHandle) {
    let at = At::find_in(segment, handle);
    if let Some(words) = at.and_then(|at| Words::of(segment, &at)) {
        words.mailbox.event();
        // Set to { number + 1, closed, nobody asleep }: a sleeper that has looked before this does
        // not sleep.
        let job = words.mailbox.job_word();
        // Release: a sleeper that has found this sees the deaths before it, as it does after the time
        // that is said to have passed.
        let _ = job.update(Ordering::Release, Ordering::Relaxed, |job| {
            Some(Job::from_bits((job.bits() & !0b11) + 0b100))
        });
        job.wake_all();
    }
}

pub(crate) fn report_words() -> Vec<Atom> {
    (0..Report::WORDS).map(|_| Atom::zero()).collect()
}

/// Reports a failure, as a worker does after its kernel has failed.
pub(crate) fn fail(words: &[Atom], call: u64, message: &str) {
    Report::new(words).fail(call, Cause::Kernel, message);
}

/// Takes a failure, as the parent does. The worker may still be writing it.
pub(crate) fn take_failure(words: &[Atom], call: u64) -> Option<String> {
    Report::new(words).take(call).map(|failure| failure.message)
}

/// Returns the words of the notes of one tile.
pub(crate) fn note_words() -> Vec<Atom> {
    (0..TileNotes::words(1).0).map(|_| Atom::zero()).collect()
}

/// Notes the failure of the tile, as a worker does before it tears the tile.
pub(crate) fn note_failure(words: &[Atom], message: &str) {
    TileNotes::in_words(words).fail(0, 0, message);
}

/// Returns the noted failure, as the parent does after another process has torn the tile.
pub(crate) fn noted_failure(words: &[Atom]) -> Option<String> {
    let noted = TileNotes::in_words(words).failure(0);
    noted.map(|(_, failure)| failure.message)
}
