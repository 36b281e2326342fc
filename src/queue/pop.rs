//! Popping: the steps of a consumer, and its search for the oldest job.

use super::cells::{Cells, HEAD, Seen, TAIL, Ticket};
use crate::sync::Ordering;
use crate::word::{CellWord, SeatId};

/// The result of one pass over the cells from `head` up to `tail`.
struct ScanResult {
    /// The job with the lowest position, and its cell's word at that moment.
    oldest: Option<(u64, CellWord)>,
    /// Below this position no cell can be FULL any more.
    front: u64,
    seen: Seen,
}

impl Cells<'_> {
    /// Takes the oldest job. Returns `None` if there was a moment without a job.
    #[inline(always)]
    pub(crate) fn take(&self, me: SeatId) -> Option<Ticket> {
        loop {
            let (position, full, front) = self.oldest()?;
            // On failure another participant has the job.
            if let Some(word) = self.take_at(position, full, me) {
                return Some(Ticket {
                    position,
                    word,
                    // A TAKING cell does not hold the head back any more.
                    front: front + u64::from(front == position),
                });
            }
        }
    }

    /// Returns `true` if there was a moment without a job.
    pub(crate) fn is_empty(&self) -> bool {
        self.oldest().is_none()
    }

    /// Finds the oldest job. Returns its position, its cell's word, and the limit for the head.
    /// Returns `None` if there was a moment without a job.
    #[inline(always)]
    fn oldest(&self) -> Option<(u64, CellWord, u64)> {
        // The head first: jobs lie at or above the head of any earlier moment, and below the
        // current tail.
        let head = self.end(HEAD).position();
        let tail = self.end(TAIL).position();
        if head >= tail {
            return None;
        }
        // The usual case, which `scan` would find first.
        let word = self.word(head);
        if word.is_full() && word.lap() == self.lap(head) {
            return Some((head, word, head));
        }
        self.search(head, tail)
    }

    /// Does the work of [`Cells::oldest`] from these ends on.
    // Not inlined: the usual pop does not get here.
    #[inline(never)]
    fn search(&self, mut head: u64, mut tail: u64) -> Option<(u64, CellWord, u64)> {
        let mut before = None;
        while head < tail {
            let look = self.scan(head, tail);
            if let Some((position, word)) = look.oldest {
                return Some((position, word, look.front));
            }
            // Two equal looks without a job: there was no job between them.
            let now = (head, tail, look.seen);
            if before == Some(now) {
                if look.front > head {
                    self.advance_to(HEAD, look.front);
                }
                return None;
            }
            before = Some(now);
            head = self.end(HEAD).position();
            tail = self.end(TAIL).position();
        }
        None
    }

    /// Attempts the transition FULL, as it was seen, → TAKING by `me`.
    #[inline]
    pub(super) fn take_at(&self, position: u64, full: CellWord, me: SeatId) -> Option<CellWord> {
        let taking = full.take(me)?;
        // Release: pairs with the Acquire in `word`. A participant that sees TAKING also sees
        // earlier jobs, and does not report an empty queue. The look that read `full` has acquired
        // the job itself.
        self.cell(position)
            .compare_exchange(full, taking, Ordering::Release, Ordering::Relaxed)
            .ok()
            .map(|_| taking)
    }

    /// Performs the transition TAKING by `me` → EMPTY of the next lap, then advances the head as
    /// far as possible.
    #[inline]
    pub(crate) fn release(&self, ticket: Ticket, me: SeatId) {
        if let Some(empty) = ticket.word.release(me) {
            // Release: pairs with the Acquire in `claim_in`.
            self.cell(ticket.position).publish_owned(ticket.word, empty);
        }
        self.free_room(ticket.front);
    }

    /// Scans the cells of the positions from `head` up to `tail`. Stops at a job that is certainly
    /// the oldest.
    #[inline]
    fn scan(&self, head: u64, tail: u64) -> ScanResult {
        let mut look = ScanResult {
            oldest: None,
            front: tail,
            seen: Seen::default(),
        };
        for position in head..tail.min(head + self.capacity()) {
            let mut word = self.word(position);
            let mut next = self.in_lap(position, word.next_full());
            if look.front > next && word.is_passable() {
                word = self.pass_over(position, word, tail, look.front);
                next = self.in_lap(position, word.next_full());
            }
            look.seen.add(word);
            look.front = look.front.min(next);
            if word.is_full() && next < tail {
                if look.oldest.is_none_or(|(oldest, _)| next < oldest) {
                    look.oldest = Some((next, word));
                }
                if next <= position {
                    break;
                }
            }
        }
        look
    }

    /// Passes over an EMPTY or BOUND cell if no cell before it holds the head back below `front`:
    /// nobody can push at this position any more or put a job back, and the head can advance.
    /// Returns the cell's word.
    fn pass_over(&self, position: u64, mut word: CellWord, tail: u64, front: u64) -> CellWord {
        // The first lap in which the cell's position is not below the tail.
        let lap = self.lap(position) + self.lap(tail - 1 - position) + 1;
        while front > self.in_lap(position, word.next_full()) && word.is_passable() {
            let passed = self.change(position, Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now == word).then(|| now.pass_over(lap)).flatten()
            });
            let now = passed.unwrap_or_else(|_| self.word(position));
            if now == word {
                break;
            }
            word = now;
        }
        word
    }
}
