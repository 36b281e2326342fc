//! The words through which a pool and its workers communicate: one job, and one state per worker.
//!
//! The words lie in an array of the table. `README.md` explains the check-in and the sleep flags: a
//! worker's check-in and the parent's close of a job both change the job word, and a sleeper sets
//! its flag in the word that its waker changes.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::barrier::Barrier;
use super::report::Report;
use super::spin::of_user;
use super::workers::platform::sizes::LINE;
pub(super) use super::workers::platform::sizes::PARAM_WORDS;
use crate::memory::Memory;
use crate::span::Extent;
use crate::sync::park::{park, unpark};
use crate::sync::{Atom, Ordering};
use crate::word::{Field, SeatId, word_type};

const JOB: usize = 0;
const EVENTS: usize = LINE;
const BARRIER: usize = 2 * LINE;
/// Rarely written. Workers read it before they sleep.
const CROWDED: usize = 3 * LINE;
/// Written when a kept round begins. Workers read it when they enter that round.
const ENTRY: usize = CROWDED + 1;
const ARGUMENTS: usize = (ENTRY + 1).next_multiple_of(LINE);
const PARAMS: usize = ARGUMENTS + Arguments::WORDS;
const FIRST_WORKER: usize = PARAMS + PARAM_WORDS;
/// A worker's state, seat, processor and report.
const WORKER_WORDS: usize = 3 + Report::WORDS;

/// The parameters of a job, in their order in memory.
pub(super) type ParamWords = [u64; PARAM_WORDS];

/// The job number that ends the workers. No count reaches it.
pub(super) const ENDED: u64 = Job::NUMBER.max();

word_type! {
    /// A job word: number of the job 62 | a worker sleeps 1 | the job is open 1.
    #[derive(Debug)]
    Job
}

impl Job {
    const OPEN: Field = Field::first(1);
    const ASLEEP: Field = Self::OPEN.then(1);
    const NUMBER: Field = Self::ASLEEP.then(62);

    fn opened(number: u64) -> Job {
        Job(Self::NUMBER.set(Self::OPEN.mask(), number))
    }

    pub(super) fn number(self) -> u64 {
        Self::NUMBER.get(self.0)
    }

    pub(super) fn is_open(self) -> bool {
        Self::OPEN.get(self.0) == 1
    }

    /// Returns `true` if both are the same job in the same state, apart from the sleep flag.
    fn is(self, other: Job) -> bool {
        (self.0 ^ other.0) & !Self::ASLEEP.mask() == 0
    }
}

/// The arguments of a job. Valid while the job is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Arguments {
    /// The work: the distance of the kernel's trampoline from the anchor of the image, or the
    /// number of a call on foreign workers.
    pub(super) task: u64,
    /// The partition, or 0.
    pub(super) partition: u64,
    /// The array of results, or 0.
    pub(super) results: u64,
    /// Seed of the random streams.
    pub(super) seed: u64,
    /// Number of the call. Several jobs may serve one call.
    pub(super) call: u64,
    /// Length of the parameters in bytes.
    pub(super) params_len: u64,
    /// The array of parameters that are too long for the mailbox.
    pub(super) params: u64,
    /// Flags in the lowest bits. In the upper ones the call's first barrier epoch, or the number of the
    /// kept round.
    pub(super) flags: u64,
}

impl Arguments {
    const WORDS: usize = size_of::<Arguments>() / 8;
    /// The task of a job without work: the place of the anchor, which is no kernel.
    pub(super) const NOTHING: u64 = 0;
    /// Flag: workers measure their busy time.
    pub(super) const PROFILE: u64 = 1;
    /// Flag: workers count an event after each tile.
    pub(super) const EACH_TILE: u64 = 2;
    /// Flag: workers stay in the round after the job.
    pub(super) const KEPT: u64 = 4;
    /// Number of flag bits below the barrier's epoch.
    pub(super) const FLAGS: u32 = 8;

    /// Returns the flags of a job in the kept round with this number, which its pool uses once.
    pub(super) fn in_kept_round(number: u64) -> u64 {
        number << Self::FLAGS | Self::KEPT
    }

    /// Returns the number of the kept round in which the job runs.
    pub(super) fn kept_round(&self) -> Option<u64> {
        self.has(Self::KEPT).then_some(self.flags >> Self::FLAGS)
    }

    pub(super) fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// State flag: the worker has checked in. The upper bits hold the last finished job.
const IN: u64 = 1;
/// State flag: the worker has started and can get jobs.
const READY: u64 = 2;
/// Between the flags and the last finished job is a flag of models, in `workers/model`.
const SERVED: u32 = 3;

/// Event flag: the parent sleeps.
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

    /// Opens the mailbox in `extent`. Returns `None` if the extent is too small.
    pub(super) fn open(memory: &'m Memory, extent: Extent, workers: usize) -> Option<Mailbox<'m>> {
        let words = Self::words(workers);
        if (words * 8) as u64 > extent.size() {
            return None;
        }
        let words = memory.control(extent.offset, words)?;
        Some(Mailbox::in_words(words))
    }

    /// Creates the mailbox of these words.
    pub(super) fn in_words(words: &'m [Atom]) -> Mailbox<'m> {
        Mailbox { words }
    }

    /// Clears the words of a new pool. Its slot is RESERVED by the caller.
    pub(super) fn clear(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn job_word(&self) -> &'m Atom<Job> {
        self.words[JOB].typed()
    }

    fn worker(&self, worker: usize) -> &'m [Atom] {
        &self.words[FIRST_WORKER + worker * WORKER_WORDS..][..WORKER_WORDS]
    }

    /// Returns the state of a worker.
    pub(super) fn state(&self, worker: usize) -> &'m Atom {
        &self.worker(worker)[0]
    }

    /// Returns the report of a worker.
    pub(super) fn report(&self, worker: usize) -> Report<'m> {
        Report::new(&self.worker(worker)[3..])
    }

    /// Returns the seat of a worker, or no seat if the worker has not started. In a foreign pool the
    /// workers' places have their seats.
    pub(super) fn seat(&self, worker: usize) -> SeatId {
        // Relaxed: the parent uses the seat of a dead worker, whose words are final.
        SeatId::from_field(self.worker(worker)[1].load(Ordering::Relaxed))
    }

    /// Returns the processor on which a worker began its last job.
    pub(super) fn processor(&self, worker: usize) -> Option<usize> {
        // Relaxed: a hint.
        let noted = self.worker(worker)[2].load(Ordering::Relaxed);
        usize::try_from(noted.checked_sub(1)?).ok()
    }

    /// Notes the processor of a worker.
    pub(super) fn note_processor(&self, worker: usize, processor: usize) {
        if self.processor(worker) != Some(processor) {
            self.worker(worker)[2].store(processor as u64 + 1, Ordering::Relaxed);
        }
    }

    /// Returns `true` while the pool sleeps instead of yielding, because other programs compete.
    pub(super) fn is_crowded(&self) -> bool {
        // Larger values are times of the user. Relaxed: the word only affects when a process sleeps.
        self.crowded().load(Ordering::Relaxed) == 1
    }

    /// Returns the word that is not 0 while the pool sleeps instead of yielding, or that has the
    /// user's time to spin; see [`super::spin::Spin`].
    pub(super) fn crowded(&self) -> &'m Atom {
        &self.words[CROWDED]
    }

    /// Sets the time for which every wait spins. Only before a worker starts.
    pub(super) fn set_spin(&self, time: Duration) {
        // Relaxed: published with the slot.
        self.crowded().store(of_user(time), Ordering::Relaxed);
    }

    /// Sets the place of the code with which workers enter the next kept round. Only between jobs.
    pub(super) fn set_entry(&self, place: u64) {
        // Relaxed: `announce` publishes it.
        self.words[ENTRY].store(place, Ordering::Relaxed);
    }

    /// Returns the place of the code with which workers enter a kept round.
    pub(super) fn entry(&self) -> u64 {
        // Relaxed: the caller has read the job word, by an Acquire. After an abandoned job the place may
        // be that of the next kept round: then its code refuses the partition, or the kernel refuses the
        // group.
        self.words[ENTRY].load(Ordering::Relaxed)
    }

    /// Returns the barrier of the workers.
    pub(super) fn barrier(&self) -> Barrier<'m> {
        Barrier::new(&self.words[BARRIER])
    }

    // ---- the parent's side ------------------------------------------------------------------

    /// Opens the next job. Returns its number.
    pub(super) fn open_job(&self, arguments: &Arguments, params: &ParamWords) -> u64 {
        let values = bytemuck::cast::<_, [u64; Arguments::WORDS]>(*arguments)
            .into_iter()
            .chain(*params);
        let used = (arguments.params_len as usize).div_ceil(8).min(PARAM_WORDS);
        let words = &self.words[ARGUMENTS..PARAMS + used];
        for (word, value) in words.iter().zip(values) {
            // Release: pairs with the Acquire in `check_in`. The previous job is already closed.
            word.store(value, Ordering::Release);
        }
        self.announce()
    }

    /// Announces the next job with the same arguments, and wakes workers that have finished.
    /// Returns its number.
    pub(super) fn announce(&self) -> u64 {
        // Set to { number + 1, open, nobody asleep }. Release: pairs with the Acquire in `job`; the
        // arguments happen before it.
        let next = |job: Job| Some(Job::opened(job.number() + 1));
        let word = self.job_word();
        let changed = word.update(Ordering::Release, Ordering::Relaxed, next);
        let (before, now) = changed.unwrap_or_else(|job| (job, job));
        unpark(word, before, Job::ASLEEP.mask());
        now.number()
    }

    /// Closes the job: from here on no worker checks in.
    pub(super) fn close_job(&self) {
        // Acquire: pairs with the Release in `check_in`. IN is visible for every worker that
        // checked in before.
        self.words[JOB].fetch_and(!Job::OPEN.mask(), Ordering::Acquire);
    }

    /// Tells the workers to end.
    pub(super) fn end(&self) {
        let last = Job::opened(ENDED);
        let word = self.job_word();
        let _ = word.update(Ordering::Relaxed, Ordering::Relaxed, |_| Some(last));
        word.wake_all();
    }

    /// Returns `true` while the worker is checked in.
    pub(super) fn is_in(&self, worker: usize) -> bool {
        // Acquire: pairs with the Release in `check_out`.
        self.state(worker).load(Ordering::Acquire) & IN != 0
    }

    /// Returns `true` once the worker has started.
    pub(super) fn is_ready(&self, worker: usize) -> bool {
        // Relaxed: the flag publishes nothing.
        self.state(worker).load(Ordering::Relaxed) & READY != 0
    }

    /// Returns the worker's last finished job.
    pub(super) fn served(&self, worker: usize) -> u64 {
        // Relaxed: every end of a call reads `is_in`, which acquires the worker's writes.
        self.state(worker).load(Ordering::Relaxed) >> SERVED
    }

    /// Returns `true` if the worker's last finished job is `job`.
    pub(super) fn has_served(&self, worker: usize, job: u64) -> bool {
        self.served(worker) == job
    }

    /// Resets the state, the seat, the processor and the report of a dead worker.
    pub(super) fn reset(&self, worker: usize) {
        self.worker(worker)[1].store(SeatId::NONE.field(), Ordering::Relaxed);
        self.worker(worker)[2].store(0, Ordering::Relaxed);
        let state = self.state(worker);
        let _ = state.update(Ordering::Relaxed, Ordering::Relaxed, |_| Some(0));
        self.report(worker).clear();
    }

    /// Returns the count of events that `wait_event` takes.
    pub(super) fn events(&self) -> u64 {
        self.words[EVENTS].load(Ordering::Acquire) & !ASLEEP
    }

    /// Sleeps until an event after `seen`, until `timeout`, or without a reason.
    pub(super) fn wait_event(&self, seen: u64, timeout: Duration) {
        let events = &self.words[EVENTS];
        if park(events, seen, ASLEEP, timeout) {
            events.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
    }

    // ---- a worker's side --------------------------------------------------------------------

    /// Counts an event, and wakes the parent if it sleeps.
    pub(super) fn event(&self) {
        let events = &self.words[EVENTS];
        // Release: pairs with the Acquire in `events`.
        let before = events.fetch_add(EVENT, Ordering::Release);
        unpark(events, before, ASLEEP);
    }

    /// Notes the seat of a worker, which claims tiles with it.
    pub(super) fn sit(&self, worker: usize, seat: SeatId) {
        self.worker(worker)[1].store(seat.field(), Ordering::Relaxed);
    }

    /// Marks the worker as started.
    pub(super) fn arrive(&self, worker: usize) {
        self.state(worker).fetch_or(READY, Ordering::Relaxed);
        self.event();
    }

    /// Returns the job word.
    pub(super) fn job(&self) -> Job {
        // Acquire: pairs with the Release in `announce`.
        self.job_word().load(Ordering::Acquire)
    }

    /// Returns `true` if `job` is still the open job.
    pub(super) fn is_open(&self, job: Job) -> bool {
        self.job().is(job)
    }

    /// Returns the number of the call that the arguments belong to.
    pub(super) fn call(&self) -> u64 {
        // Relaxed: the caller has read the job word, by an Acquire, and reads nothing after this.
        self.words[ARGUMENTS + core::mem::offset_of!(Arguments, call) / 8].load(Ordering::Relaxed)
    }

    /// Sleeps while the job word is `seen`, at most for `timeout`.
    pub(super) fn sleep(&self, seen: Job, timeout: Duration) {
        park(self.job_word(), seen, Job::ASLEEP.mask(), timeout);
    }

    /// Checks in to `job`. Returns its arguments and parameters, or `None` if it is no longer open.
    pub(super) fn check_in(&self, worker: usize, job: Job) -> Option<(Arguments, ParamWords)> {
        self.state(worker).fetch_or(IN, Ordering::Relaxed);
        // A read-modify-write, which is ordered among the parent's changes of the word. Release:
        // pairs with the Acquire in `close_job`.
        if !self.job_word().read_modify_write(Ordering::Release).is(job) {
            self.check_out(worker, None);
            return None;
        }
        // Acquire: a worker that reads a later job's argument sees below that its job was closed.
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
        // Check again: a parent that abandons a job at its deadline does not wait, and may have
        // written the next job's arguments meanwhile.
        if !self.is_open(job) {
            self.check_out(worker, None);
            return None;
        }
        Some((arguments, params))
    }

    /// Checks out and counts an event. `served` is the finished job, if any.
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
                // Relaxed: the worker has touched nothing.
                state.fetch_and(!IN, Ordering::Relaxed);
            }
        }
        self.event();
    }
}

#[cfg(test)]
mod tests;
