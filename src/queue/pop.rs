//! Popping: the steps of a consumer, and its search for the oldest job.

use super::cells::{Cells, HEAD, Seen, TAIL, Ticket};
use crate::sync::{Ordering, Word};
use crate::word::{CellWord, SeatId};

/// What one pass over the cells from `head` up to `tail` has seen.
struct Look {
    /// The job with the lowest position, its cell's word at that moment.
    oldest: Option<(u64, CellWord)>,
    /// Below this position no cell can be FULL any more.
    front: u64,
    seen: Seen,
}

impl Cells<'_> {
    /// Takes the oldest job out of the order; `None` if there was a moment without any.
    #[inline]
    pub(crate) fn take(&self, me: SeatId) -> Option<Ticket> {
        loop {
            let (position, full, front) = self.oldest()?;
            // Else somebody else has it.
            if let Some(word) = self.take_at(position, full, me) {
                return Some(Ticket {
                    position,
                    word,
                    // TAKING, it does not hold the head back any more.
                    front: front + u64::from(front == position),
                });
            }
        }
    }

    /// Whether there was a moment without a job.
    pub(crate) fn is_empty(&self) -> bool {
        self.oldest().is_none()
    }

    /// The position of the oldest job, its cell's word, and how far the head may go; `None` if there
    /// was a moment without any.
    #[inline]
    fn oldest(&self) -> Option<(u64, CellWord, u64)> {
        let mut before = None;
        loop {
            // In this order: jobs lie at or above the head of any earlier moment, and below the
            // tail of this one.
            let head = self.end(HEAD).position();
            let tail = self.end(TAIL).position();
            if head >= tail {
                return None;
            }
            let look = self.look(head, tail);
            if let Some((position, word)) = look.oldest {
                return Some((position, word, look.front));
            }
            // Twice the same, and no job: so it was between the two looks.
            let now = (head, tail, look.seen);
            if before == Some(now) {
                if look.front > head {
                    self.reach(HEAD, look.front);
                }
                return None;
            }
            before = Some(now);
        }
    }

    /// FULL as it was seen → TAKING by `me`.
    #[inline]
    pub(super) fn take_at(&self, position: u64, full: CellWord, me: SeatId) -> Option<CellWord> {
        let taking = full.take(me)?;
        // Release: pairs with the Acquire in `word`: who sees TAKING here sees the jobs that were
        // pushed before it, and so does not find the queue empty. The job itself was acquired by
        // the look that has seen `full`.
        self.cell(position)
            .compare_exchange(
                full.bits(),
                taking.bits(),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .ok()
            .map(|_| taking)
    }

    /// TAKING by `me` → EMPTY of the next lap, and the head as far as it may go.
    #[inline]
    pub(crate) fn release(&self, ticket: Ticket, me: SeatId) {
        if let Some(empty) = ticket.word.release(me) {
            // Release: pairs with the Acquire in `claim_in`.
            self.cell(ticket.position)
                .publish_owned(ticket.word.bits(), empty.bits());
        }
        self.reach(HEAD, ticket.front);
    }

    /// Looks at the cells whose positions lie from `head` up to `tail`, until one holds the job
    /// that is the oldest for certain.
    #[inline]
    fn look(&self, head: u64, tail: u64) -> Look {
        let mut look = Look {
            oldest: None,
            front: tail,
            seen: Seen::default(),
        };
        for position in head..tail.min(head + self.capacity()) {
            let mut word = self.word(position);
            let mut next = self.in_lap(position, word.next_full());
            // EMPTY, and nothing before it that could hold the head back: nobody is to push there
            // any more, so that the head may go on.
            while look.front > next && word.is_claimable() {
                // The first one in which the cell's position is not below the tail.
                let lap = self.lap(position) + self.lap(tail - 1 - position) + 1;
                let passed = self.change(position, Ordering::Relaxed, Ordering::Relaxed, |now| {
                    (now == word).then(|| now.pass_over(lap)).flatten()
                });
                let now = passed.unwrap_or_else(|_| self.word(position));
                if now == word {
                    break;
                }
                word = now;
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
}
