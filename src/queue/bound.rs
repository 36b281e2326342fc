//! Jobs that stay bound to their consumer until it acknowledges them.
//!
//! `README.md` beside this file has the steps. A bound job keeps its cell.

use super::cells::{Cells, HEAD, TAIL, Ticket};
use crate::sync::Ordering;
use crate::word::{CellWord, DeliveryWord, SeatId};

impl Cells<'_> {
    /// Performs the transition TAKING by `me` → BOUND by `me`, and advances the head as far as
    /// possible. Returns the number of deliveries of the job, this one included.
    pub(super) fn bind(&self, ticket: &Ticket, me: SeatId) -> u64 {
        let word = self.deliveries(ticket.position);
        let lap = ticket.word.lap();
        // Relaxed, here and below: the cell's word orders the accesses of participants, and the
        // lock of a dead seat those of its reaper.
        let count = word.load(Ordering::Relaxed).count_in(lap) + 1;
        let counted = DeliveryWord::new(lap, count);
        // Count before BOUND: from there on the count is valid in any lap.
        word.store(counted, Ordering::Relaxed);
        // Relaxed: continues the release sequence of `take_at`.
        let _ = self.change(
            ticket.position,
            Ordering::Relaxed,
            Ordering::Relaxed,
            |now| (now == ticket.word).then(|| now.bind(me)).flatten(),
        );
        self.advance_to(HEAD, ticket.front);
        counted.count()
    }

    /// Performs the transition BOUND by `me` → EMPTY.
    pub(super) fn acknowledge(&self, position: u64, me: SeatId) {
        // Release: pairs with the Acquire in `claim_in`. A search may have moved the cell to a
        // later lap.
        let _ = self.change(position, Ordering::Release, Ordering::Relaxed, |now| {
            now.acknowledge(me)
        });
        // Wakes producers that found no free cell, and consumers of a closed queue.
        self.count_freed();
    }

    /// Gives a bound job of `me` back: it is the last one in the queue.
    pub(super) fn give_back(&self, position: u64, me: SeatId) {
        self.unbind(position, me);
        let word = self.word(position);
        if let Some(full) = word.undo(me) {
            self.put_back(position, word, full);
        }
        // After the job is FULL: wakes consumers that found no job meanwhile.
        self.advance_to(TAIL, 0);
        self.advance_to(HEAD, 0);
    }

    /// Performs the transition BOUND by `seat` → TAKING by `seat`, of the lap before that in which
    /// the job comes back. The caller is `seat`, or has its lock.
    pub(super) fn unbind(&self, position: u64, seat: SeatId) {
        let deliveries = self.deliveries(position);
        let count = deliveries.load(Ordering::Relaxed).count();
        loop {
            let word = self.word(position);
            // The first lap in which the position is not below the tail: the job comes after all
            // that were pushed before. The word must grow, so it is not the next lap.
            let tail = self.end(TAIL).position();
            let index = self.in_lap(position, 0);
            let first = tail.saturating_sub(index).div_ceil(self.capacity());
            let lap = first.max(word.lap() + 2);
            let Some(taking) = word.unbind(seat, lap - 1) else {
                return;
            };
            deliveries.store(DeliveryWord::new(lap, count), Ordering::Relaxed);
            // Relaxed: as in `bind`. Fails if a search has moved the cell to a later lap.
            let done = self.change(position, Ordering::Relaxed, Ordering::Relaxed, |now| {
                (now == word).then_some(taking)
            });
            if done.is_ok() {
                return;
            }
        }
    }

    /// Performs the transition TAKING, with the word `held`, → FULL of the next lap. Returns `true`
    /// if the job is in the queue again. The caller holds the cell, or has the lock of its holder.
    pub(super) fn put_back(&self, position: u64, held: CellWord, full: CellWord) -> bool {
        let deliveries = self.deliveries(position);
        // The job of a consumer that died in `pop` keeps its count.
        let count = deliveries.load(Ordering::Relaxed).count_in(held.lap());
        if count != 0 {
            deliveries.store(DeliveryWord::new(full.lap(), count), Ordering::Relaxed);
        }
        // Move the tail first: a participant that dies after putting the job back has done
        // everything.
        self.advance_to(TAIL, self.in_lap(position, full.lap()) + 1);
        self.settle(position, held, full)
    }
}
