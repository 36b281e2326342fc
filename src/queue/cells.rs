//! The words of a queue: its cells, its two ends, and their transitions.
//!
//! They lie in an array of the table with a dtype of no element type. `README.md` beside this file
//! has the steps and their proof.

use core::time::Duration;

use super::shape::{JobType, Shape};
use crate::memory::Memory;
use crate::span::Extent;
use crate::sync::{Atom, Ordering, Word};
use crate::word::{CellState, CellWord, DeliveryWord, EndWord, SeatId};

const CAPACITY: usize = 0;
const TYPE_NAME: usize = 1;
const SIZE: usize = 2;
const ALIGN: usize = 3;
/// 1 if the jobs are handles of arrays that belong to the queue.
const OWNS_ARRAYS: usize = 4;
/// On a cache line of its own: every producer changes it.
pub(super) const TAIL: usize = 16;
/// On a cache line of its own: every consumer changes it.
pub(super) const HEAD: usize = 32;
/// Counts the cells that became EMPTY while the head's position stayed. On the cache line of the
/// head: its writers change the head next.
const FREED: usize = HEAD + 1;
const HEAD_WORDS: usize = 48;
const FIRST_CELL: u64 = HEAD_WORDS as u64 * 8;

/// The words of one queue. The holder of a `Cells` has a lease on their slot, or reserved it.
#[derive(Clone, Copy)]
pub(crate) struct Cells<'m> {
    memory: &'m Memory,
    head: &'m [Atom],
    offset: u64,
    pub(super) shape: Shape,
    owns_arrays: bool,
}

/// A cell that the holder of the ticket uses alone, to write a job or to read one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Ticket {
    pub(super) position: u64,
    pub(super) word: CellWord,
    /// For a taken job: the head may advance to this position.
    pub(super) front: u64,
}

/// The sum of the words that a search has seen. Words only grow, so two equal sums come from the
/// same words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Seen(u128);

impl Seen {
    #[inline]
    pub(super) fn add(&mut self, word: CellWord) {
        self.0 += u128::from(word.bits());
    }
}

/// The words of which one changes after a cell became EMPTY, before the call that emptied it
/// returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    head: u64,
    freed: u64,
}

/// The event that a participant waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A job was pushed.
    Pushed,
    /// A job was popped.
    Popped,
}

impl Event {
    /// Returns the end that moves with the event.
    fn end(self) -> usize {
        match self {
            Event::Pushed => TAIL,
            Event::Popped => HEAD,
        }
    }
}

/// The result of undoing the operations of a dead participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Recovered {
    /// Jobs that it was popping, or had not acknowledged. They are in the queue again.
    pub(crate) jobs: usize,
}

impl<'m> Cells<'m> {
    /// Returns the bytes of a queue, or `None` if no queue has this shape.
    pub(crate) fn bytes(capacity: usize, job: JobType) -> Option<u64> {
        Shape::new(capacity as u64, job)?
            .bytes()?
            .checked_add(FIRST_CELL)
    }

    /// Writes the words of a new queue. The caller has reserved the slot.
    pub(crate) fn create(
        memory: &'m Memory,
        extent: Extent,
        capacity: usize,
        job: JobType,
        owns_arrays: bool,
    ) -> Option<()> {
        let head = memory.control(extent.offset, HEAD_WORDS)?;
        // Relaxed, here and below: published with the slot.
        for word in head {
            word.store(0, Ordering::Relaxed);
        }
        for (at, value) in [
            (CAPACITY, capacity as u64),
            (TYPE_NAME, job.name),
            (SIZE, job.size),
            (ALIGN, job.align),
            (OWNS_ARRAYS, u64::from(owns_arrays)),
        ] {
            head[at].store(value, Ordering::Relaxed);
        }
        let (cells, _) = Self::open(memory, extent)?;
        for index in 0..cells.capacity() {
            // EMPTY of lap 0.
            cells
                .cell(index)
                .store(CellWord::default(), Ordering::Relaxed);
            cells
                .deliveries(index)
                .store(DeliveryWord::default(), Ordering::Relaxed);
            if owns_arrays {
                cells.set_array(index, 0);
            }
        }
        Some(())
    }

    /// Returns the queue in `extent`, or `None` if its words are inconsistent or do not fit.
    pub(crate) fn open(memory: &'m Memory, extent: Extent) -> Option<(Cells<'m>, JobType)> {
        let head = memory.control(extent.offset, HEAD_WORDS)?;
        let get = |at: usize| head[at].load(Ordering::Relaxed);
        let job = JobType {
            name: get(TYPE_NAME),
            size: get(SIZE),
            align: get(ALIGN),
        };
        let shape = Shape::new(get(CAPACITY), job)?;
        let bytes = shape.bytes()?.checked_add(FIRST_CELL)?;
        if bytes > extent.size() {
            return None;
        }
        memory.data(extent.offset, bytes)?;
        let cells = Cells {
            memory,
            head,
            offset: extent.offset + FIRST_CELL,
            shape,
            owns_arrays: get(OWNS_ARRAYS) == 1 && job.size == 8,
        };
        Some((cells, job))
    }

    /// Returns `true` if the jobs are handles of arrays that belong to the queue.
    pub(crate) fn owns_arrays(&self) -> bool {
        self.owns_arrays
    }

    pub(crate) fn capacity(&self) -> u64 {
        1 << self.shape.shift
    }

    /// Returns the offset of a ticket's job in the data region.
    pub(crate) fn job_offset(&self, ticket: &Ticket) -> u64 {
        self.cell_offset(ticket.position) + self.shape.job
    }

    /// Returns the handle in the cell of `position`, or 0 for none. The queue owns arrays.
    ///
    /// Relaxed, here and in [`Cells::set_array`]: the cell's word orders the accesses of
    /// participants, and the lock of a dead seat those of its reaper.
    pub(super) fn array(&self, position: u64) -> u64 {
        self.array_word(position).load(Ordering::Relaxed)
    }

    pub(super) fn set_array(&self, position: u64, bits: u64) {
        self.array_word(position).store(bits, Ordering::Relaxed);
    }

    fn array_word(&self, position: u64) -> &'m Atom {
        let at = self.cell_offset(position) + self.shape.job;
        // `open` has checked that all cells are inside the data region. Jobs of 8 bytes start on
        // words.
        &self
            .memory
            .control(at, 1)
            .expect("a cell of an opened queue")[0]
    }

    #[inline]
    fn cell_offset(&self, position: u64) -> u64 {
        let index = position & (self.capacity() - 1);
        self.offset + index * self.shape.stride
    }

    #[inline]
    pub(super) fn cell(&self, position: u64) -> &'m Atom<CellWord> {
        let word = self.memory.control(self.cell_offset(position), 1);
        // `open` has checked that all cells are inside the data region. They start on words.
        word.expect("a cell of an opened queue")[0].typed()
    }

    /// Returns the word that counts the deliveries of the job in the cell of `position`.
    pub(super) fn deliveries(&self, position: u64) -> &'m Atom<DeliveryWord> {
        let at = self.cell_offset(position) + self.shape.deliveries;
        // As in `cell`.
        let word = self.memory.control(at, 1);
        word.expect("a cell of an opened queue")[0].typed()
    }

    /// Loads a cell's word. Acquire: pairs with the Release of every change of the cell.
    #[inline]
    pub(super) fn word(&self, position: u64) -> CellWord {
        self.cell(position).load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn lap(&self, position: u64) -> u64 {
        position >> self.shape.shift
    }

    /// Returns the position of the cell of `position` in another lap.
    #[inline]
    pub(super) fn in_lap(&self, position: u64, lap: u64) -> u64 {
        // Only damaged words exceed the bound.
        let lap = lap.min(EndWord::LAST_POSITION >> self.shape.shift);
        lap << self.shape.shift | position & (self.capacity() - 1)
    }

    #[inline]
    pub(super) fn end_word(&self, end: usize) -> &'m Atom<EndWord> {
        self.head[end].typed()
    }

    /// Loads an end. Acquire: pairs with the Release of every change of the end.
    #[inline]
    pub(super) fn end(&self, end: usize) -> EndWord {
        self.end_word(end).load(Ordering::Acquire)
    }

    /// Advances an end to at least `position`, and wakes the participants that sleep on it.
    ///
    /// A read-modify-write even without a change: if it precedes a sleeper's `mark_sleeper` in the
    /// word's order, the sleeper's last attempt sees the caller's changes. Otherwise the caller
    /// sees the flag.
    #[inline]
    pub(super) fn advance_to(&self, end: usize, position: u64) {
        // Release: publishes the caller's changes of the cell. Every change of the word is a
        // read-modify-write, so a reader also acquires the releases before it.
        let moved = self
            .end_word(end)
            .update(Ordering::Release, Ordering::Relaxed, |word| {
                Some(word.advance_to(position))
            });
        self.wake(end, moved);
    }

    /// Advances the head to at least `position` after the caller made a cell EMPTY, and wakes the
    /// participants that wait for one. Changes the words of [`Cells::room`].
    #[inline]
    pub(super) fn free_room(&self, position: u64) {
        // Release: as in `advance_to`.
        let moved = self
            .end_word(HEAD)
            .update(Ordering::Release, Ordering::Relaxed, |word| {
                let next = word.advance_to(position);
                (next.position() != word.position()).then_some(next)
            });
        match moved {
            Ok(_) => self.wake(HEAD, moved),
            Err(_) => self.count_freed(),
        }
    }

    /// Counts a cell that became EMPTY, and wakes the participants that wait for one.
    pub(super) fn count_freed(&self) {
        // Release: pairs with the Acquire in `room`. Count before the head is changed: a sleeper
        // that is not woken by that change, and tries once more after it, must see the count.
        self.head[FREED].fetch_add(1, Ordering::Release);
        self.advance_to(HEAD, 0);
    }

    /// Loads the words that tell of cells that became EMPTY. If a look after this call finds no
    /// EMPTY cell, then none is free as long as the words stay: see `README.md`.
    pub(super) fn room(&self) -> Room {
        Room {
            head: self.end(HEAD).position(),
            // Acquire: pairs with the Release in `count_freed`.
            freed: self.head[FREED].load(Ordering::Acquire),
        }
    }

    #[inline]
    pub(super) fn wake(&self, end: usize, changed: Result<(EndWord, EndWord), EndWord>) {
        if let Ok((before, _)) = changed
            && before.is_awaited()
        {
            self.end_word(end).wake_all();
        }
    }

    #[track_caller]
    #[inline]
    pub(super) fn change(
        &self,
        position: u64,
        success: Ordering,
        failure: Ordering,
        next: impl FnMut(CellWord) -> Option<CellWord>,
    ) -> Result<CellWord, CellWord> {
        self.cell(position)
            .update(success, failure, next)
            .map(|(_, new)| new)
    }

    // ---- closing, hints, waiting ------------------------------------------------------------

    /// Closes the queue. From here on a push that has not moved the tail yet is withdrawn, unless a
    /// consumer has taken its job.
    pub(crate) fn close(&self) {
        // Release: a participant that finds the queue closed sees our earlier writes and, as in
        // `advance_to`, the earlier pushes.
        let closed = self
            .end_word(TAIL)
            .update(Ordering::Release, Ordering::Relaxed, |tail| {
                Some(tail.close())
            });
        self.wake(TAIL, closed);
        self.advance_to(HEAD, 0);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.end(TAIL).is_closed()
    }

    /// Returns `true` if the queue is closed and no job can come out of it any more: none is in it,
    /// none is being taken, and none is bound to a consumer. Those may come back.
    pub(crate) fn is_drained(&self) -> bool {
        loop {
            let tail = self.end(TAIL);
            let is_over = |index| {
                let word = self.word(index);
                match word.state() {
                    CellState::Full => self.in_lap(index, word.lap()) >= tail.position(),
                    CellState::Taking | CellState::Bound => false,
                    _ => true,
                }
            };
            if !tail.is_closed() || !(0..self.capacity()).all(is_over) {
                return false;
            }
            // A job that came back during the look has moved the tail first. It may lie at or above
            // the old tail.
            if self.end(TAIL).position() == tail.position() {
                return true;
            }
        }
    }

    /// Returns the number of positions between the ends. Some of these jobs may be on their way in
    /// or out.
    pub(crate) fn len(&self) -> u64 {
        let head = self.end(HEAD).position();
        let tail = self.end(TAIL).position();
        tail.saturating_sub(head).min(self.capacity())
    }

    // ---- deaths -----------------------------------------------------------------------------

    /// Undoes the pending operations of `seat`. The caller has its lock, and may repeat this at any
    /// time.
    pub(crate) fn recover(&self, seat: SeatId) -> Recovered {
        let mut recovered = Recovered::default();
        for index in 0..self.capacity() {
            if self.word(index).is_bound_by(seat) {
                self.unbind(index, seat);
            }
            let word = self.word(index);
            let Some(undone) = word.undo(seat) else {
                // If the producer died between FULL and moving the tail, the job is pushed. If the
                // queue is closed, the job is not in the queue.
                if word.is_full() && !self.is_closed() {
                    self.advance_to(TAIL, self.in_lap(index, word.lap()) + 1);
                }
                continue;
            };
            let done = match undone.is_full() {
                true => self.put_back(index, word, undone),
                false => self.settle(index, word, undone),
            };
            recovered.jobs += usize::from(done && undone.is_full());
        }
        // Wakes the sleepers that the dead participant did not wake, or that wait for the undone
        // cells. Counts also a cell that the dead participant made EMPTY itself.
        self.advance_to(TAIL, 0);
        self.count_freed();
        recovered
    }

    /// Replaces the word `held` of a cell. The caller holds the cell, or has the seat lock of its
    /// dead holder. Returns `true` if the cell had the word `held`.
    pub(super) fn settle(&self, position: u64, held: CellWord, next: CellWord) -> bool {
        // Release: pairs with the Acquire in `claim_in` and `word`. The holder's accesses happen
        // before those of the next holder.
        self.change(position, Ordering::Release, Ordering::Relaxed, |now| {
            (now == held).then_some(next)
        })
        .is_ok()
    }

    /// Calls `visit(offset, bits, None)` for every cell with an invalid word, and
    /// `visit(offset, bits, Some(holder))` for every cell that a producer or a consumer holds.
    /// Offsets are in the data region.
    pub(crate) fn faults(&self, mut visit: impl FnMut(u64, u64, Option<SeatId>)) {
        for index in 0..self.capacity() {
            let (at, word) = (self.cell_offset(index), self.word(index));
            match word.state() {
                CellState::Writing | CellState::Taking | CellState::Bound => {
                    visit(at, word.bits(), Some(word.seat()))
                }
                CellState::Invalid => visit(at, word.bits(), None),
                CellState::Empty | CellState::Full => {}
            }
        }
    }

    // ---- sleeping ---------------------------------------------------------------------------

    /// Loads the word that changes with the event.
    pub(crate) fn now(&self, event: Event) -> EndWord {
        self.end(event.end())
    }

    /// Sets ASLEEP for a sleeper. The caller then tries once more, and calls [`Cells::sleep`].
    pub(crate) fn mark_sleeper(&self, event: Event) -> EndWord {
        // Acquire: pairs with the Release in `advance_to`. If `advance_to` came first, the caller's
        // last attempt sees the changes before it, also those that it looks for before it loads this
        // word: a producer loads the tail, which tells of a close, and then the head.
        let word = self.end_word(event.end());
        let marked = word.update(Ordering::Acquire, Ordering::Relaxed, |word| {
            Some(word.mark_sleeper())
        });
        marked.map_or_else(|now| now, |(_, now)| now)
    }

    /// Sleeps while the word's low half equals that of `seen`, for at most `timeout`.
    pub(crate) fn sleep(&self, event: Event, seen: EndWord, timeout: Duration) {
        self.end_word(event.end()).wait(seen.bits() as u32, timeout);
    }
}
