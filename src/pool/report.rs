//! What a worker writes down for its parent: the first panic of a job, and what it has done.

use core::time::Duration;

use crate::sync::{Atom, Ordering};

const CAUSE: usize = 0;
const CALL: usize = 1;
const LEN: usize = 2;
const TILES: usize = 3;
const STOLEN: usize = 4;
const JOBS: usize = 5;
const BUSY: usize = 6;
const TEXT: usize = 7;
/// Words of a panic's message that are kept. A model's arrays are small.
const TEXT_WORDS: usize = if cfg!(loom) { 2 } else { 48 };

/// What failed in a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// A kernel's panic at a tile, or a tile that could not be given to it.
    Tile(usize),
    /// A kernel without a tile, or the worker itself.
    Kernel,
    /// The same, because another worker had failed before.
    Consequence,
}

impl Cause {
    /// Never 0: that is "nothing failed".
    fn code(self) -> u64 {
        match self {
            Cause::Kernel => 1,
            Cause::Consequence => 2,
            Cause::Tile(tile) => tile as u64 + 3,
        }
    }

    fn of(code: u64) -> Option<Cause> {
        match code {
            0 => None,
            1 => Some(Cause::Kernel),
            2 => Some(Cause::Consequence),
            tile => Some(Cause::Tile(usize::try_from(tile - 3).unwrap_or(usize::MAX))),
        }
    }
}

/// What a worker says of a failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) message: String,
}

/// What a worker has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    pub(super) tiles: u64,
    pub(super) stolen: u64,
    pub(super) jobs: u64,
    pub(super) busy: Duration,
}

/// A worker's report. The worker alone writes it, but for what the parent takes out.
#[derive(Clone, Copy)]
pub(super) struct Report<'m> {
    words: &'m [Atom],
}

impl<'m> Report<'m> {
    pub(super) const WORDS: usize = TEXT + TEXT_WORDS;

    pub(super) fn new(words: &'m [Atom]) -> Report<'m> {
        Report { words }
    }

    /// Forgets a failure that was not asked for.
    pub(super) fn clear(self) {
        self.words[CAUSE].store(0, Ordering::Relaxed);
    }

    /// Writes a failure in `call` down; the first one is kept. What is said of an earlier call,
    /// which a worker that comes late may do, is nothing to the later ones.
    pub(super) fn fail(self, call: u64, cause: Cause, message: &str) {
        if self.has_failed(call) {
            return;
        }
        self.clear();
        let mut end = message.len().min(TEXT_WORDS * 8);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        let chunks = message.as_bytes()[..end].chunks(8);
        for (word, bytes) in self.words[TEXT..].iter().zip(chunks) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.words[LEN].store(end as u64, Ordering::Relaxed);
        self.words[CALL].store(call, Ordering::Relaxed);
        // Release: pairs with the Acquire in `has_failed`.
        self.words[CAUSE].store(cause.code(), Ordering::Release);
    }

    /// Whether a failure in `call` was written down.
    pub(super) fn has_failed(self, call: u64) -> bool {
        // Acquire: pairs with the Release in `fail`.
        self.words[CAUSE].load(Ordering::Acquire) != 0
            && self.words[CALL].load(Ordering::Relaxed) == call
    }

    /// Takes the failure out that was written down in `call`.
    pub(super) fn take(self, call: u64) -> Option<Failure> {
        if !self.has_failed(call) {
            return None;
        }
        // Relaxed: `has_failed` has acquired it.
        let cause = Cause::of(self.words[CAUSE].load(Ordering::Relaxed))?;
        let len = (self.words[LEN].load(Ordering::Relaxed) as usize).min(TEXT_WORDS * 8);
        let mut text: Vec<u8> = self.words[TEXT..]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        text.truncate(len);
        self.clear();
        Some(Failure {
            cause,
            message: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// Adds what was done in a job.
    pub(super) fn add(self, done: Work) {
        // Relaxed, and no read-modify-writes: this worker alone adds, and whoever reads wants to
        // know about how much it was.
        let add = |at: usize, more: u64| {
            if more != 0 {
                let now = self.words[at].load(Ordering::Relaxed);
                self.words[at].store(now.wrapping_add(more), Ordering::Relaxed);
            }
        };
        add(TILES, done.tiles);
        add(STOLEN, done.stolen);
        add(JOBS, done.jobs);
        add(BUSY, done.busy.as_nanos() as u64);
    }

    /// What was done so far by whoever has been this worker.
    pub(super) fn work(self) -> Work {
        let get = |at: usize| self.words[at].load(Ordering::Relaxed);
        Work {
            tiles: get(TILES),
            stolen: get(STOLEN),
            jobs: get(JOBS),
            busy: Duration::from_nanos(get(BUSY)),
        }
    }
}
