//! Sleeping on a word in which the sleeper sets a flag, and which its waker changes.
//!
//! The waker's change either finds the flag, or comes before the sleeper's, which then fails: no
//! wake-up is lost, and nobody pays for a system call without a sleeper.
//!
//! Two sleepers of the crate do other steps and do not call [`park`]. A worker at a pool's barrier
//! looks again if another worker has set the flag meanwhile (`pool/barrier.rs`). A participant that
//! waits for an end of a queue sets the flag whatever the word is, because it tries once more
//! before it sleeps (`queue/cells.rs`).

use core::time::Duration;

use super::{Atom, Ordering, Word};

/// Sets `flag` in `word` and sleeps, at most for `timeout`, if the word is `seen`. Returns `false`
/// if the word has changed, apart from the flag. May wake up without a reason.
#[track_caller]
#[inline]
pub(crate) fn park<W: Word>(word: &Atom<W>, seen: W, flag: u64, timeout: Duration) -> bool {
    let asleep = W::from_bits(seen.bits() | flag);
    // Relaxed: the caller reads the word again.
    let marked = word.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed);
    let is_marked = marked.is_ok() || marked == Err(asleep);
    if is_marked {
        word.wait(asleep.bits() as u32, timeout);
    }
    is_marked
}

/// Wakes the sleepers of `word` if `before`, the word before the caller's change, has `flag`.
#[track_caller]
#[inline]
pub(crate) fn unpark<W: Word>(word: &Atom<W>, before: W, flag: u64) {
    if before.bits() & flag != 0 {
        word.wake_all();
    }
}
