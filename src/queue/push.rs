//! Pushing: the steps of a producer.

use core::cell::Cell;

use super::cells::{Cells, Room, Seen, TAIL, Ticket};
use crate::sync::Ordering;
use crate::word::{CellWord, EndWord, SeatId};

/// The reason why no cell can be claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimError {
    Full,
    Closed,
    UsedUp { position: u64 },
}

impl Cells<'_> {
    /// Claims a cell for a job of `me`: at the tail, or the first possible one after it.
    ///
    /// `full` belongs to the caller alone. It has the words that show until when the queue stays
    /// full, if it was full at the last call.
    #[inline]
    pub(super) fn claim(
        &self,
        me: SeatId,
        full: &Cell<Option<Room>>,
    ) -> Result<Ticket, ClaimError> {
        // The usual case, which `search_room` would find first.
        let start = self.start(self.end(TAIL))?;
        self.claim_in(start, self.lap(start), me)
            .or_else(|_| self.search_room(me, full))
    }

    /// Returns the position of the tail, from which a producer searches.
    #[inline]
    fn start(&self, tail: EndWord) -> Result<u64, ClaimError> {
        if tail.is_closed() {
            return Err(ClaimError::Closed);
        }
        let start = tail.position();
        let last_lap = CellWord::CLAIM_LIMIT.min(EndWord::LAST_POSITION >> self.shape.shift);
        match self.lap(start) + 2 >= last_lap {
            true => Err(ClaimError::UsedUp { position: start }),
            false => Ok(start),
        }
    }

    /// Does the work of [`Cells::claim`] from the tail on.
    // Not inlined: the usual push does not get here.
    #[inline(never)]
    fn search_room(&self, me: SeatId, full: &Cell<Option<Room>>) -> Result<Ticket, ClaimError> {
        let (mut before, mut room) = (None, None);
        'again: loop {
            let tail = self.end(TAIL);
            let start = self.start(tail)?;
            if let Some(then) = full.get() {
                if self.room() == then {
                    return Err(ClaimError::Full);
                }
                full.set(None);
            }
            let mut seen = Seen::default();
            let mut later = None;
            for position in start..start + self.capacity() {
                match self.claim_in(position, self.lap(position), me) {
                    Ok(ticket) => return Ok(ticket),
                    Err(word) if word.is_claimable() => {
                        // The cell is in a later lap: the tail has moved, or the death of a
                        // producer has ended this lap.
                        if self.end(TAIL) != tail {
                            before = None;
                            continue 'again;
                        }
                        let _ = later.get_or_insert((position, word.lap()));
                    }
                    Err(word) => seen.add(word),
                }
            }
            if let Some((position, lap)) = later {
                match self.claim_in(position, lap, me) {
                    Ok(ticket) => return Ok(ticket),
                    Err(_) => continue,
                }
            }
            // Two equal passes, and no cell EMPTY: none was free between them.
            if before == Some(seen) {
                full.set(room);
                return Err(ClaimError::Full);
            }
            before = Some(seen);
            // Before the second pass: a cell that becomes EMPTY after that pass changes these words
            // later.
            room = Some(self.room());
        }
    }

    /// Attempts the transition EMPTY of `lap` or an earlier lap → WRITING by `me` in `lap`. On
    /// failure, returns the current word.
    #[inline]
    fn claim_in(&self, position: u64, lap: u64, me: SeatId) -> Result<Ticket, CellWord> {
        // Acquire, on the load: pairs with the Release in `release`, so the last job was read
        // before this one is written. It also pairs with all other changes, because the words are
        // summed. Release: pairs with the Acquire in `word`. A participant that sees WRITING also
        // sees earlier free cells, and does not report a full queue.
        self.change(position, Ordering::Release, Ordering::Acquire, |word| {
            word.claim(lap, me)
        })
        .map(|word| Ticket {
            position: self.in_lap(position, lap),
            word,
            front: 0,
        })
    }

    /// Performs the transition WRITING by `me` → FULL, and advances the tail beyond it. Returns
    /// `true` if the job is pushed. If the queue was closed meanwhile, withdraws the job, unless a
    /// consumer has already taken it.
    #[inline]
    pub(crate) fn publish(&self, ticket: Ticket, me: SeatId) -> bool {
        let Some((full, is_in)) = self.fill(&ticket, me) else {
            return false;
        };
        // FULL → EMPTY of the next lap, if nobody has taken the job. Relaxed: the change continues
        // the release sequence of `fill`, which the next claimer acquires.
        is_in
            || self
                .change(
                    ticket.position,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                    |word| (word == full).then(|| word.withdraw()).flatten(),
                )
                .is_err()
    }

    /// Performs the transition WRITING by `me` → FULL, and advances the tail beyond it unless the
    /// queue is closed. Returns the FULL word, and `true` if the job is pushed.
    #[inline]
    pub(super) fn fill(&self, ticket: &Ticket, me: SeatId) -> Option<(CellWord, bool)> {
        let full = ticket.word.publish(me)?;
        // Release: pairs with the Acquire in `word`. The job is written before it is read.
        self.cell(ticket.position).publish_owned(ticket.word, full);
        // Release: as in `advance_to`.
        let moved = self
            .end_word(TAIL)
            .update(Ordering::Release, Ordering::Relaxed, |tail| {
                (!tail.is_closed()).then(|| tail.advance_to(ticket.position + 1))
            });
        self.wake(TAIL, moved);
        Some((full, moved.is_ok()))
    }
}
