//! The words through which a pool and its workers talk: one job, and one state a worker.
//!
//! They lie in an array of the table. A worker checks in before it touches the job's arrays, by a
//! read-modify-write of its own state and then of the job word; the parent closes the job word and
//! then looks at the states. Both orders are decided on the job word: either the worker sees the
//! job closed and stays out, or the parent sees it checked in and waits for it. So the parent
//! never waits for a worker that has not woken up yet, and a job that is over has no stragglers.

use core::time::Duration;

use super::ENDED;
use crate::segment::Memory;
use crate::span::Extent;
use crate::sync::{Atom, Ordering};

const JOB: usize = 0;
const EVENTS: usize = 16;
/// 1 while the parent may be asleep on the events.
const PARENT_ASLEEP: usize = 17;
const ARGUMENTS: usize = 32;
const FIRST_WORKER: usize = 48;
const WORKER_WORDS: usize = 48;
const STATE: usize = 0;
const PANIC: usize = 1;
const PANIC_LEN: usize = 2;
const PANIC_TEXT: usize = 3;
/// Bytes of a panic's message that are kept.
const TEXT_BYTES: usize = (WORKER_WORDS - PANIC_TEXT) * 8;

/// Number of the job in the upper bits, whether it is open in the lowest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Job(u64);

impl Job {
    pub(super) fn number(self) -> u64 {
        self.0 >> 1
    }

    pub(super) fn is_open(self) -> bool {
        self.0 & 1 == 1
    }
}

/// What a job is made of; valid while the job is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Arguments {
    /// Address of the kernel's trampoline.
    pub(super) kernel: u64,
    /// The partition.
    pub(super) partition: u64,
    /// The parameters' array.
    pub(super) params: u64,
    /// The results' array, or 0.
    pub(super) results: u64,
    /// What the random streams start from.
    pub(super) seed: u64,
}

/// A worker's state: the number of its job in the upper bits, IN and SLEEPING below.
const IN: u64 = 1;
const SLEEPING: u64 = 2;

/// A kernel's panic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Panic {
    pub(super) tile: usize,
    pub(super) message: String,
}

/// The words of a pool.
#[derive(Clone, Copy)]
pub(super) struct Mailbox<'m> {
    words: &'m [Atom],
    workers: usize,
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
        Some(Mailbox { words, workers })
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

    // ---- the parent's side ------------------------------------------------------------------

    /// Opens the next job. Its number.
    pub(super) fn open_job(&self, arguments: &Arguments) -> u64 {
        let Arguments {
            kernel,
            partition,
            params,
            results,
            seed,
        } = *arguments;
        let values = [kernel, partition, params, results, seed];
        for (word, value) in self.words[ARGUMENTS..].iter().zip(values) {
            // Release: pairs with the Acquire in `check_in`. The last job was closed before.
            word.store(value, Ordering::Release);
        }
        let job = &self.words[JOB];
        let number = Job(job.load(Ordering::Relaxed)).number() + 1;
        // Release: pairs with the Acquire in `job`; the arguments happen before it.
        let _ = job.update(Ordering::AcqRel, Ordering::Relaxed, |_| {
            Some(number << 1 | 1)
        });
        // Orders the new job before the look at who sleeps; pairs with the fence in `sleep`.
        crate::sync::fence();
        let asleep =
            |&worker: &usize| self.worker(worker)[STATE].load(Ordering::Relaxed) & SLEEPING != 0;
        if (0..self.workers).any(|worker| asleep(&worker)) {
            job.wake_all();
        }
        number
    }

    /// Closes the job: from here on no worker checks in.
    pub(super) fn close_job(&self) {
        let _ = self.words[JOB].update(Ordering::AcqRel, Ordering::Relaxed, |job| Some(job & !1));
    }

    /// Tells the workers to end.
    pub(super) fn end(&self) {
        let last = ENDED << 1 | 1;
        let _ = self.words[JOB].update(Ordering::AcqRel, Ordering::Relaxed, |_| Some(last));
        self.words[JOB].wake_all();
    }

    /// Whether the worker has checked in and not out again.
    pub(super) fn is_in(&self, worker: usize) -> bool {
        // Acquire: pairs with the Release in `check_out`.
        self.worker(worker)[STATE].load(Ordering::Acquire) & IN != 0
    }

    /// Forgets what a dead worker was doing.
    pub(super) fn reset(&self, worker: usize) {
        let words = self.worker(worker);
        let _ = words[STATE].update(Ordering::AcqRel, Ordering::Relaxed, |_| Some(0));
        words[PANIC].store(0, Ordering::Relaxed);
    }

    /// Takes the first panic that the worker has reported.
    pub(super) fn take_panic(&self, worker: usize) -> Option<Panic> {
        let words = self.worker(worker);
        let tile = words[PANIC].load(Ordering::Acquire).checked_sub(1)?;
        let len = (words[PANIC_LEN].load(Ordering::Relaxed) as usize).min(TEXT_BYTES);
        let mut text: Vec<u8> = words[PANIC_TEXT..]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        text.truncate(len);
        words[PANIC].store(0, Ordering::Relaxed);
        Some(Panic {
            tile: usize::try_from(tile).unwrap_or(usize::MAX),
            message: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// The count of events, to wait for the next one.
    pub(super) fn events(&self) -> u64 {
        self.words[EVENTS].load(Ordering::Acquire)
    }

    /// Sleeps until an event after `seen`, or for `timeout`, or for no reason.
    pub(super) fn wait_event(&self, seen: u64, timeout: Duration) {
        self.words[PARENT_ASLEEP].store(1, Ordering::Relaxed);
        // Pairs with the fence in `check_out`: either the worker sees us asleep, or the kernel's
        // comparison sees its event.
        crate::sync::fence();
        self.words[EVENTS].wait(seen as u32, timeout);
        self.words[PARENT_ASLEEP].store(0, Ordering::Relaxed);
    }

    // ---- a worker's side --------------------------------------------------------------------

    /// The job word.
    pub(super) fn job(&self) -> Job {
        Job(self.words[JOB].load(Ordering::Acquire))
    }

    /// Sleeps while the job word is `seen`, at most for `timeout`.
    pub(super) fn sleep(&self, worker: usize, seen: Job, timeout: Duration) {
        let state = &self.worker(worker)[STATE];
        state.fetch_or(SLEEPING, Ordering::AcqRel);
        // Pairs with the fence in `open_job`: either the parent sees us sleeping, or the kernel's
        // comparison sees the new job.
        crate::sync::fence();
        self.words[JOB].wait(seen.0 as u32, timeout);
        state.fetch_and(!SLEEPING, Ordering::AcqRel);
    }

    /// Checks in to `job`; its arguments, or `None` if it was closed meanwhile.
    pub(super) fn check_in(&self, worker: usize, job: Job) -> Option<Arguments> {
        self.worker(worker)[STATE].fetch_or(IN, Ordering::AcqRel);
        if self.words[JOB].read_modify_write(Ordering::AcqRel) != job.0 {
            self.check_out(worker);
            return None;
        }
        // Acquire: whoever reads a later job's argument sees below that this job was closed.
        let argument = |at: usize| self.words[ARGUMENTS + at].load(Ordering::Acquire);
        let arguments = Arguments {
            kernel: argument(0),
            partition: argument(1),
            params: argument(2),
            results: argument(3),
            seed: argument(4),
        };
        // Again: a parent that gives a job up at its deadline does not wait for us, and may have
        // written the next job's arguments meanwhile.
        if self.job() != job {
            self.check_out(worker);
            return None;
        }
        Some(arguments)
    }

    /// Checks out, and tells the parent.
    pub(super) fn check_out(&self, worker: usize) {
        // Release: pairs with the Acquire in `is_in`.
        self.worker(worker)[STATE].fetch_and(!IN, Ordering::Release);
        self.words[EVENTS].fetch_add(1, Ordering::AcqRel);
        crate::sync::fence();
        if self.words[PARENT_ASLEEP].load(Ordering::Relaxed) != 0 {
            self.words[EVENTS].wake_all();
        }
    }

    /// Reports a kernel's panic; the first of a job is kept.
    pub(super) fn report_panic(&self, worker: usize, tile: usize, message: &str) {
        let words = self.worker(worker);
        if words[PANIC].load(Ordering::Relaxed) != 0 {
            return;
        }
        let mut end = message.len().min(TEXT_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        for (word, bytes) in words[PANIC_TEXT..]
            .iter()
            .zip(message.as_bytes()[..end].chunks(8))
        {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        words[PANIC_LEN].store(end as u64, Ordering::Relaxed);
        // Release: pairs with the Acquire in `take_panic`.
        words[PANIC].store(tile as u64 + 1, Ordering::Release);
    }
}
