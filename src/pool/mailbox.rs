//! The words through which a pool and its workers talk: one job, and one state a worker.
//!
//! They lie in an array of the table. A worker checks in before it touches the job's arrays, by a
//! read-modify-write of its own state and then of the job word; the parent closes the job word and
//! then looks at the states. Both orders are decided on the job word: either the worker sees the
//! job closed and stays out, or the parent sees it checked in and waits for it. So the parent
//! never waits for a worker that has not woken up yet, and a job that is over has no stragglers.
//!
//! Who sleeps says so in the very word that its waker changes: the waker's read-modify-write finds
//! the flag, or comes first and the sleeper's compare-and-swap fails. So no wake-up is lost, and
//! nobody is woken who does not sleep.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::ENDED;
use super::barrier::Barrier;
use super::report::Report;
use crate::segment::Memory;
use crate::span::Extent;
use crate::sync::{Atom, Ordering};

/// Words from one contended word to the next. A model's arrays are small, and have no lines.
const LINE: usize = if cfg!(loom) { 1 } else { 16 };

const JOB: usize = 0;
const EVENTS: usize = LINE;
const BARRIER: usize = 2 * LINE;
/// Rarely written, and read by all who are about to sleep.
const CROWDED: usize = 3 * LINE;
const ARGUMENTS: usize = 4 * LINE;
const PARAMS: usize = ARGUMENTS + Arguments::WORDS;
/// Words of parameters that fit beside the arguments.
pub(super) const PARAM_WORDS: usize = if cfg!(loom) { 2 } else { 24 };
const FIRST_WORKER: usize = PARAMS + PARAM_WORDS;
/// State, and what the worker reports.
const WORKER_WORDS: usize = 1 + Report::WORDS;

/// Parameters of a job as they cross: words, in their order in memory.
pub(super) type ParamWords = [u64; PARAM_WORDS];

/// Number of the job in the upper bits, then whether a worker sleeps, then whether it is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Job(u64);

impl Job {
    const OPEN: u64 = 1;
    const ASLEEP: u64 = 2;

    fn opened(number: u64) -> Job {
        Job(number << 2 | Self::OPEN)
    }

    pub(super) fn number(self) -> u64 {
        self.0 >> 2
    }

    pub(super) fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    /// The same job, whoever sleeps.
    fn is(self, other: Job) -> bool {
        (self.0 ^ other.0) & !Self::ASLEEP == 0
    }
}

/// What a job is made of; valid while the job is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Arguments {
    /// Where the kernel's trampoline is in the image, seen from the anchor.
    pub(super) kernel: u64,
    /// The partition, or 0.
    pub(super) partition: u64,
    /// The results' array, or 0.
    pub(super) results: u64,
    /// What the random streams start from.
    pub(super) seed: u64,
    /// The number of the call. Several jobs may serve one call.
    pub(super) call: u64,
    /// Bytes of the parameters.
    pub(super) params_len: u64,
    /// The array that holds them if they are too long for the words beside.
    pub(super) params: u64,
    /// The barrier's epoch when the call began in the upper bits, flags in the lowest.
    pub(super) flags: u64,
}

impl Arguments {
    const WORDS: usize = size_of::<Arguments>() / 8;
    /// Each worker takes the time that it is busy.
    pub(super) const PROFILE: u64 = 1;
    /// The parent is told of each tile, not only when a worker is through.
    pub(super) const EACH_TILE: u64 = 2;
    /// Flags below the barrier's epoch.
    pub(super) const FLAGS: u32 = 8;

    pub(super) fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// A worker's state: the last job it is through with in the upper bits, flags below.
const IN: u64 = 1;
/// It has come to life, and may be given jobs.
const READY: u64 = 2;
/// It is dead, in a model.
#[cfg(loom)]
const GONE: u64 = 4;
const SERVED: u32 = 3;

/// A parent that sleeps for events.
const ASLEEP: u64 = 1;
const EVENT: u64 = 2;

/// The words of a pool.
#[derive(Clone, Copy)]
pub(super) struct Mailbox<'m> {
    words: &'m [Atom],
}

impl<'m> Mailbox<'m> {
    pub(super) fn words(workers: usize) -> usize {
        FIRST_WORKER + workers * WORKER_WORDS
    }

    /// `None` if the extent is too small.
    pub(super) fn open(memory: &'m Memory, extent: Extent, workers: usize) -> Option<Mailbox<'m>> {
        let words = Self::words(workers);
        if (words * 8) as u64 > extent.size() {
            return None;
        }
        let words = memory.control(extent.offset, words)?;
        Some(Mailbox { words })
    }

    /// In words of a model's own.
    #[cfg(loom)]
    pub(super) fn in_words(words: &'m [Atom]) -> Mailbox<'m> {
        Mailbox { words }
    }

    /// Writes the words of a new pool, whose slot is RESERVED by the caller.
    pub(super) fn clear(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn worker(&self, worker: usize) -> &'m [Atom] {
        &self.words[FIRST_WORKER + worker * WORKER_WORDS..][..WORKER_WORDS]
    }

    fn state(&self, worker: usize) -> &'m Atom {
        &self.worker(worker)[0]
    }

    /// What the worker reports.
    pub(super) fn report(&self, worker: usize) -> Report<'m> {
        Report::new(&self.worker(worker)[1..])
    }

    /// Not 0 while the pool sleeps instead of yielding; see [`super::spin::Spin`].
    pub(super) fn crowded(&self) -> &'m Atom {
        &self.words[CROWDED]
    }

    /// Where workers wait for each other.
    pub(super) fn barrier(&self) -> Barrier<'m> {
        Barrier::new(&self.words[BARRIER])
    }

    // ---- the parent's side ------------------------------------------------------------------

    /// Opens the next job. Its number.
    pub(super) fn open_job(&self, arguments: &Arguments, params: &ParamWords) -> u64 {
        let values = bytemuck::cast::<_, [u64; Arguments::WORDS]>(*arguments)
            .into_iter()
            .chain(*params);
        let used = (arguments.params_len as usize).div_ceil(8).min(PARAM_WORDS);
        let words = &self.words[ARGUMENTS..PARAMS + used];
        for (word, value) in words.iter().zip(values) {
            // Release: pairs with the Acquire in `check_in`. The last job was closed before.
            word.store(value, Ordering::Release);
        }
        self.announce()
    }

    /// Makes the next job of what is open already: whoever is through looks again. Its number.
    pub(super) fn announce(&self) -> u64 {
        // Release: pairs with the Acquire in `job`; the arguments happen before it. To { number
        // + 1, open, nobody asleep }: all who slept are woken.
        let next = |job| Some(Job::opened(Job(job).number() + 1).0);
        let changed = self.words[JOB].update(Ordering::Release, Ordering::Relaxed, next);
        let (before, now) = changed.unwrap_or_else(|word| (word, word));
        if before & Job::ASLEEP != 0 {
            self.words[JOB].wake_all();
        }
        Job(now).number()
    }

    /// Closes the job: from here on no worker checks in.
    pub(super) fn close_job(&self) {
        // Acquire: pairs with the Release in `check_in`. Who has checked in before is seen to be in.
        self.words[JOB].fetch_and(!Job::OPEN, Ordering::Acquire);
    }

    /// Tells the workers to end.
    pub(super) fn end(&self) {
        let last = Job::opened(ENDED).0;
        let _ = self.words[JOB].update(Ordering::Relaxed, Ordering::Relaxed, |_| Some(last));
        self.words[JOB].wake_all();
    }

    /// Whether the worker has checked in and not out again.
    pub(super) fn is_in(&self, worker: usize) -> bool {
        // Acquire: pairs with the Release in `check_out`.
        self.state(worker).load(Ordering::Acquire) & IN != 0
    }

    /// Whether the worker has come to life.
    #[cfg(not(loom))]
    pub(super) fn is_ready(&self, worker: usize) -> bool {
        // Relaxed: it says nothing of what the worker did.
        self.state(worker).load(Ordering::Relaxed) & READY != 0
    }

    /// Whether the worker has said that it is over.
    #[cfg(loom)]
    pub(super) fn is_gone(&self, worker: usize) -> bool {
        self.state(worker).load(Ordering::Relaxed) & GONE != 0
    }

    /// Whether the worker is through with the job of that number.
    pub(super) fn has_served(&self, worker: usize, job: u64) -> bool {
        // Relaxed: what it did in it is acquired by `is_in`, which every end of a call asks.
        self.state(worker).load(Ordering::Relaxed) >> SERVED == job
    }

    /// Forgets what a dead worker was doing.
    pub(super) fn reset(&self, worker: usize) {
        let state = self.state(worker);
        let _ = state.update(Ordering::Relaxed, Ordering::Relaxed, |_| Some(0));
        self.report(worker).clear();
    }

    /// The count of events, to wait for the next one.
    pub(super) fn events(&self) -> u64 {
        self.words[EVENTS].load(Ordering::Acquire) & !ASLEEP
    }

    /// Sleeps until an event after `seen`, or for `timeout`, or for no reason.
    pub(super) fn wait_event(&self, seen: u64, timeout: Duration) {
        let events = &self.words[EVENTS];
        let asleep = seen | ASLEEP;
        // Relaxed: `events` is read again before anything is concluded.
        let slept = events.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed);
        if slept.is_ok() || slept == Err(asleep) {
            events.wait(asleep as u32, timeout);
            events.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
    }

    // ---- a worker's side --------------------------------------------------------------------

    /// Tells the parent to look.
    pub(super) fn event(&self) {
        let events = &self.words[EVENTS];
        // Release: pairs with the Acquire in `events`.
        if events.fetch_add(EVENT, Ordering::Release) & ASLEEP != 0 {
            events.wake_all();
        }
    }

    /// The worker has come to life.
    pub(super) fn arrive(&self, worker: usize) {
        self.state(worker).fetch_or(READY, Ordering::Relaxed);
        self.event();
    }

    /// The worker is over, which in a model nobody else tells.
    #[cfg(loom)]
    pub(super) fn leave(&self, worker: usize) {
        self.state(worker).fetch_or(GONE, Ordering::Relaxed);
        self.event();
    }

    /// The job word.
    pub(super) fn job(&self) -> Job {
        // Acquire: pairs with the Release in `announce`.
        Job(self.words[JOB].load(Ordering::Acquire))
    }

    /// Whether `job` still is the one that is open.
    pub(super) fn is_open(&self, job: Job) -> bool {
        self.job().is(job)
    }

    /// Sleeps while the job word is `seen`, at most for `timeout`.
    pub(super) fn sleep(&self, seen: Job, timeout: Duration) {
        let job = &self.words[JOB];
        let asleep = seen.0 | Job::ASLEEP;
        // Relaxed: the job is read again before anything is concluded.
        let marked = job.compare_exchange(seen.0, asleep, Ordering::Relaxed, Ordering::Relaxed);
        if marked.is_ok() || marked == Err(asleep) {
            job.wait(asleep as u32, timeout);
        }
    }

    /// Checks in to `job`; what it is made of, or `None` if it is not open any more.
    pub(super) fn check_in(&self, worker: usize, job: Job) -> Option<(Arguments, ParamWords)> {
        self.state(worker).fetch_or(IN, Ordering::Relaxed);
        // A read-modify-write: it has a place among the parent's changes of the word. Release:
        // pairs with the Acquire in `close_job`.
        if !Job(self.words[JOB].read_modify_write(Ordering::Release)).is(job) {
            self.check_out(worker, None);
            return None;
        }
        // Acquire: whoever reads a later job's argument sees below that this job was closed.
        let word = |at: usize| self.words[at].load(Ordering::Acquire);
        let arguments: Arguments =
            bytemuck::cast(core::array::from_fn::<_, { Arguments::WORDS }, _>(
                |argument| word(ARGUMENTS + argument),
            ));
        let mut params = [0; PARAM_WORDS];
        let used = arguments.params_len.div_ceil(8).min(PARAM_WORDS as u64);
        for (at, param) in params[..used as usize].iter_mut().enumerate() {
            *param = word(PARAMS + at);
        }
        // Again: a parent that gives a job up at its deadline does not wait for us, and may have
        // written the next job's arguments meanwhile.
        if !self.is_open(job) {
            self.check_out(worker, None);
            return None;
        }
        Some((arguments, params))
    }

    /// Checks out, through with a job or not, and tells the parent.
    pub(super) fn check_out(&self, worker: usize, served: Option<u64>) {
        let state = self.state(worker);
        // Release: pairs with the Acquire in `is_in`.
        match served {
            Some(job) => {
                let _ = state.update(Ordering::Release, Ordering::Relaxed, |state| {
                    Some(job << SERVED | state & READY)
                });
            }
            None => {
                // It has touched nothing.
                state.fetch_and(!IN, Ordering::Relaxed);
            }
        }
        self.event();
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
