//! A worker's report to its parent: the first failure of a call, and the work done.

use core::time::Duration;

use super::workers::platform::sizes::TEXT_WORDS;
use crate::sync::{Atom, Ordering};

const CAUSE: usize = 0;
const CALL: usize = 1;
const LEN: usize = 2;
const TILES: usize = 3;
const STOLEN: usize = 4;
const JOBS: usize = 5;
const BUSY: usize = 6;
const TEXT: usize = 7;

/// Bytes of text that a report has room for.
pub(super) const ROOM: usize = TEXT_WORDS * 8;

/// The part of a worker's job that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// The kernel panicked at this tile, or could not get it.
    Tile(usize),
    /// A kernel without a tile failed, or the worker itself.
    Kernel,
    /// The same, because another worker had failed before.
    Consequence,
}

impl Cause {
    /// Returns the code of the cause. It is never 0, which means "no failure".
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

/// A failure that a worker reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) message: String,
}

impl Failure {
    /// Creates the failure of a kernel at a tile.
    pub(super) fn at(tile: usize, text: &[u8]) -> Failure {
        Failure {
            cause: Cause::Tile(tile),
            message: String::from_utf8_lossy(text).into_owned(),
        }
    }

    /// Returns the tile at which the kernel failed.
    pub(super) fn tile(&self) -> Option<usize> {
        match self.cause {
            Cause::Tile(tile) => Some(tile),
            Cause::Kernel | Cause::Consequence => None,
        }
    }
}

/// Stores the first [`ROOM`] bytes of a message. Returns their number.
pub(super) fn store_text(words: &[Atom], message: &str) -> usize {
    let mut end = message.len().min(ROOM);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    store_bytes(words, &message.as_bytes()[..end]);
    end
}

fn store_bytes(words: &[Atom], bytes: &[u8]) {
    for (word, bytes) in words.iter().zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        // Relaxed: the caller publishes the text.
        word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
    }
}

/// Returns the first `len` bytes of a text, at most those that the words keep.
pub(super) fn text_of(words: &[Atom], len: u64) -> Vec<u8> {
    let mut text: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .collect();
    text.truncate((len as usize).min(ROOM));
    text
}

/// The work that a worker has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    pub(super) tiles: u64,
    pub(super) stolen: u64,
    pub(super) jobs: u64,
    pub(super) busy: Duration,
}

/// A worker's report. The worker alone writes it; the parent clears a failure that it takes.
#[derive(Clone, Copy)]
pub(super) struct Report<'m> {
    words: &'m [Atom],
}

impl<'m> Report<'m> {
    pub(super) const WORDS: usize = TEXT + TEXT_WORDS;

    pub(super) fn new(words: &'m [Atom]) -> Report<'m> {
        Report { words }
    }

    /// Clears the failure, if there is one.
    pub(super) fn clear(self) {
        self.words[CAUSE].store(0, Ordering::Relaxed);
    }

    /// Reports a failure in `call`. Keeps the first one. The number of the call lets later calls
    /// ignore a late worker's failure.
    pub(super) fn fail(self, call: u64, cause: Cause, message: &str) {
        if self.has_failed(call) {
            return;
        }
        self.clear();
        let len = store_text(&self.words[TEXT..], message);
        self.publish(call, cause.code(), len as u64);
    }

    /// Replaces the text: the bytes that `call` has left, and their length. `code` is not 0. The
    /// words keep [`ROOM`] bytes; longer texts lie elsewhere, and `bytes` is empty.
    pub(super) fn put(self, call: u64, code: u64, len: u64, bytes: &[u8]) {
        self.clear();
        store_bytes(&self.words[TEXT..], bytes);
        self.publish(call, code, len);
    }

    /// Publishes a text that was stored.
    fn publish(self, call: u64, code: u64, len: u64) {
        self.words[LEN].store(len, Ordering::Relaxed);
        self.words[CALL].store(call, Ordering::Relaxed);
        // Release: pairs with the Acquire in `has_failed`.
        self.words[CAUSE].store(code, Ordering::Release);
    }

    /// Returns the code, the length and the kept bytes of the text of `call`, if there is one.
    pub(super) fn get(self, call: u64) -> Option<(u64, u64, Vec<u8>)> {
        if !self.has_failed(call) {
            return None;
        }
        // Relaxed: `has_failed` has acquired the text.
        let code = self.words[CAUSE].load(Ordering::Relaxed);
        let len = self.words[LEN].load(Ordering::Relaxed);
        Some((code, len, text_of(&self.words[TEXT..], len)))
    }

    /// Returns `true` if a failure in `call` was reported.
    pub(super) fn has_failed(self, call: u64) -> bool {
        // Acquire: pairs with the Release in `publish`, and in `take`.
        self.words[CAUSE].load(Ordering::Acquire) != 0
            && self.words[CALL].load(Ordering::Relaxed) == call
    }

    /// Returns `true` if a kernel has failed in `call` at a tile.
    pub(super) fn has_failed_at_tile(self, call: u64) -> bool {
        // Relaxed: `has_failed` has acquired it.
        let cause = || Cause::of(self.words[CAUSE].load(Ordering::Relaxed));
        self.has_failed(call) && matches!(cause(), Some(Cause::Tile(_)))
    }

    /// Takes the failure that was reported in `call`. The worker may report the next one.
    pub(super) fn take(self, call: u64) -> Option<Failure> {
        let (code, _, text) = self.get(call)?;
        // Release: pairs with the Acquire in `has_failed`, of the worker's next failure. The text
        // was read before it is overwritten.
        self.words[CAUSE].store(0, Ordering::Release);
        Some(Failure {
            cause: Cause::of(code)?,
            message: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// Adds the work done in a job.
    pub(super) fn add(self, done: Work) {
        // Relaxed, and no read-modify-write: this worker alone adds, and readers need approximate
        // counts.
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

    /// Returns the work of this worker and of those that it replaced.
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
