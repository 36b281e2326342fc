//! Queues that own the arrays in them: an array passes from its producer to the queue, and from the
//! queue to its consumer.
//!
//! `README.md` beside this file has the steps, and argues why the array has one owner at each of them.

#[cfg(all(test, not(loom)))]
mod tests;

use core::time::Duration;

use ndarray::Dimension;

use super::Queue;
use super::cells::{Cells, Event, TAIL, Ticket};
use super::job::OwnedArray;
use super::push::NoCell;
use super::wait::Attempt;
use crate::descriptor::{ControlKind, Descriptor};
use crate::element::Element;
use crate::error::{PushError, QueueError};
use crate::handle::{AnyHandle, Handle};
use crate::segment::{Memory, Segment};
use crate::span::Spans;
use crate::table::Owned;
use crate::table::hints::Hints;
use crate::table::slot::{Slot, Tail};
use crate::word::{CellState, CellWord, SeatId, SlotWord};

impl<'t, T: Element, D: Dimension> Queue<'t, OwnedArray<T, D>> {
    /// Hands an array over to the queue, or gives it back. Waits for nobody.
    ///
    /// From then on the queue owns it: it does not go with this participant, and whoever pops it
    /// owns it next. If this participant dies in this call, the array is in the queue, or it is freed.
    /// Freeing the queue, or the death of its owner, frees the arrays in it.
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use ndshm::{HandleTable, OwnedArray, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let consumer = HandleTable::join(&segment)?;
    /// let queue = consumer.queue::<OwnedArray<f64, Ix1>>(8)?;
    ///
    /// // In any process, which may end at once:
    /// let producer = HandleTable::join(&segment)?;
    /// let x = producer.owned(producer.from_elem(100, 0.5)?);
    /// producer.open_queue(queue.handle())?.push_owned(x)?;
    /// drop(producer);
    ///
    /// let x = queue.pop_owned()?.expect("an array was pushed");
    /// assert_eq!(consumer.read(x.handle())?.sum(), 50.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`push`](Queue::push); the array comes back with the error. [`PushError::Failed`] also with
    /// [`QueueError::NotOwned`] for an array that the participant which has opened this queue does not
    /// own, and with [`QueueError::Lease`] for one that was freed.
    pub fn push_owned<'o>(&self, array: Owned<'o, T, D>) -> Result<(), PushError<Owned<'o, T, D>>> {
        match self.try_push_owned(array.handle()) {
            Ok(()) => {
                array.into_handle();
                Ok(())
            }
            Err(error) => Err(PushError::new(array, error)),
        }
    }

    /// Hands an array over, and waits for a free cell for at most `timeout`.
    ///
    /// Waits as [`pop_wait`](Queue::pop_wait) does.
    ///
    /// # Errors
    /// As [`push_owned`](Queue::push_owned): [`PushError::Full`] if no cell became free,
    /// [`PushError::Closed`] at once when the queue is closed.
    pub fn push_owned_wait<'o>(
        &self,
        array: Owned<'o, T, D>,
        timeout: Duration,
    ) -> Result<(), PushError<Owned<'o, T, D>>> {
        let handle = array.handle();
        let outcome = self.wait(timeout, || match self.try_push_owned(handle) {
            Ok(()) => Ok(Attempt::Over(())),
            Err(QueueError::Full { .. }) => Ok(Attempt::NotYet(Event::Popped)),
            Err(error) => Err(error),
        });
        match outcome {
            Ok(Some(())) => {
                array.into_handle();
                Ok(())
            }
            Ok(None) => Err(PushError::new(array, self.refuse(NoCell::Full))),
            Err(error) => Err(PushError::new(array, error)),
        }
    }

    /// Takes the oldest array out, which this participant owns from then on; `None` if there is none.
    /// Waits for nobody.
    ///
    /// An array that was freed by its handle while it was in the queue is passed over. If this
    /// participant dies in this call, the array is in the queue still, or it is freed.
    ///
    /// # Errors
    /// As [`pop`](Queue::pop).
    pub fn pop_owned(&self) -> Result<Option<Owned<'t, T, D>>, QueueError> {
        let me = self.enter()?;
        let key = self.table.segment().key();
        while let Some(ticket) = self.cells.take(me) {
            let bits = self.cells.array(ticket.position);
            let is_ours = array_of(self.table.segment().memory(), key, bits).is_some_and(
                |(slot, generation)| {
                    // QUEUED → owned by `me`. Release: as all changes of owners.
                    slot.change(|word| word.dequeue(generation, me)).is_ok()
                },
            );
            self.cells.empty(ticket, me);
            if is_ours {
                return Ok(Some(self.table.owned(Handle::from_bits(bits))));
            }
        }
        Ok(None)
    }

    /// Takes the oldest array out, and waits for one for at most `timeout`, as
    /// [`pop_wait`](Queue::pop_wait) does.
    ///
    /// # Errors
    /// As [`pop_wait`](Queue::pop_wait).
    pub fn pop_owned_wait(&self, timeout: Duration) -> Result<Option<Owned<'t, T, D>>, QueueError> {
        let outcome = self.wait(timeout, || match self.pop_owned()? {
            Some(array) => Ok(Attempt::Over(Some(array))),
            None => Ok(self.not_yet()),
        })?;
        Ok(outcome.flatten())
    }

    fn try_push_owned(&self, handle: Handle<T, D>) -> Result<(), QueueError> {
        let me = self.enter()?;
        let any = AnyHandle::from(handle);
        any.typed::<T, D>(self.table)?;
        let (slot, generation) = self.table.look().live(any)?;
        if !slot.word().is_owned_by(me) {
            return Err(self.not_owned(any));
        }
        let ticket = self.cells.claim(me).map_err(|why| self.refuse(why))?;
        self.cells.set_array(ticket.position, handle.to_bits());
        // Owned by `me` → QUEUED. Release: as all changes of owners.
        if slot.change(|word| word.enqueue(generation, me)).is_err() {
            self.cells.give_up(ticket, me);
            return Err(self.not_owned(any));
        }
        match self.cells.publish_array(ticket, me, (slot, generation)) {
            true => Ok(()),
            false => Err(self.refuse(NoCell::Closed)),
        }
    }

    #[cold]
    fn not_owned(&self, handle: AnyHandle) -> QueueError {
        match self.table.look().live(handle) {
            Err(stale) => stale.into(),
            Ok((slot, _)) => {
                let word = slot.word();
                let owner = match word.is_detached() {
                    true => 0,
                    false => self.table.pid_of(word.owner()),
                };
                QueueError::NotOwned { handle, owner }
            }
        }
    }
}

/// The slot and generation that a cell's job names; `None` for no job, or none of this segment's.
fn array_of(memory: &Memory, key: u64, bits: u64) -> Option<(Slot<'_>, u32)> {
    if bits == 0 {
        return None;
    }
    let (index, generation) = AnyHandle::from_bits(bits).unpack(key);
    Some((Slot::of(memory, index)?, generation))
}

impl Cells<'_> {
    /// WRITING by `me`, with the array of `ticket` QUEUED → FULL. Returns `false` if the queue was
    /// closed meanwhile: then `me` owns the array again.
    fn publish_array(&self, ticket: Ticket, me: SeatId, array: (Slot<'_>, u32)) -> bool {
        let Some((full, is_in)) = self.fill(&ticket, me) else {
            return false;
        };
        // An error says that a consumer has taken it, or that it was freed.
        let is_ours = !is_in && take_back(array, me);
        if is_ours {
            self.discard(ticket.position, full, me);
        }
        !is_ours
    }

    /// FULL as it was seen, of a job whose array is not QUEUED any more → EMPTY, unless a consumer
    /// has taken the job: it passes it over.
    fn discard(&self, position: u64, full: CellWord, me: SeatId) {
        if let Some(word) = self.take_at(position, full, me) {
            let front = 0;
            self.empty(
                Ticket {
                    position,
                    word,
                    front,
                },
                me,
            );
        }
    }

    /// TAKING by `me` → EMPTY, without a handle.
    fn empty(&self, ticket: Ticket, me: SeatId) {
        // Before the cell is EMPTY: a handle in a WRITING cell is its producer's own.
        self.set_array(ticket.position, 0);
        self.release(ticket, me);
    }

    /// WRITING by `me` → EMPTY, without a handle: nothing was pushed.
    fn give_up(&self, ticket: Ticket, me: SeatId) {
        self.set_array(ticket.position, 0);
        if let Some(empty) = ticket.word.undo(me) {
            self.settle(ticket.position, ticket.word, empty);
        }
        // Wakes producers that found no cell free.
        self.release_end();
    }

    /// Settles who owns the arrays that `seat` was pushing or popping, for whoever has its lock. Comes
    /// before [`Cells::recover`], and may be repeated.
    pub(crate) fn recover_arrays(&self, segment: &Segment, seat: SeatId) {
        for index in 0..self.capacity() {
            let word = self.word(index);
            let array = array_of(segment.memory(), segment.key(), self.array(index));
            let is = |what: fn(SlotWord, SeatId) -> bool| {
                array.filter(|&(slot, generation)| {
                    let word = slot.word();
                    word.is_live(generation) && what(word, seat)
                })
            };
            match word.state() {
                // Only this push made it QUEUED by the dead: the array goes with its producer, and
                // `recover` makes the cell EMPTY.
                CellState::Writing if word.seat() == seat => {
                    is(SlotWord::is_queued_by).map(|array| take_back(array, seat));
                    self.set_array(index, 0);
                }
                // QUEUED still: `recover` puts the job back. Else the consumer has the array, or it
                // was freed.
                CellState::Taking
                    if word.seat() == seat && is(|word, _| word.is_queued()).is_none() =>
                {
                    self.set_array(index, 0);
                    if let Some(empty) = word.release(seat) {
                        self.settle(index, word, empty);
                    }
                }
                // Pushed too late by the dead, which did not come to withdraw it.
                CellState::Full if self.is_late(index, word) => {
                    if let Some(array) = is(SlotWord::is_queued_by)
                        && take_back(array, seat)
                    {
                        self.discard(index, word, seat);
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns `true` for a FULL cell beyond the tail of a closed queue: its job is not pushed.
    fn is_late(&self, index: u64, word: CellWord) -> bool {
        let tail = self.end(TAIL);
        tail.is_closed() && self.in_lap(index, word.lap()) >= tail.position()
    }
}

/// QUEUED by `seat` → owned by `seat`. Returns `false` if the array is not QUEUED by it any more.
fn take_back((slot, generation): (Slot<'_>, u32), seat: SeatId) -> bool {
    slot.change(|word| word.withdraw(generation, seat)).is_ok()
}

/// Returns `true` if there is a queue in a slot that owns arrays.
pub(crate) fn owns_arrays(memory: &Memory, slot: Slot<'_>) -> bool {
    cells_of(memory, slot).is_some_and(|cells| cells.owns_arrays())
}

fn cells_of<'m>(memory: &'m Memory, slot: Slot<'_>) -> Option<Cells<'m>> {
    Descriptor::load(memory.descriptor(slot.index))
        .filter(|descriptor| descriptor.is_control_of(ControlKind::Queue))
        .and_then(|_| Cells::open(memory, Spans::of(memory).extent(slot.index)?))
        .map(|(cells, _)| cells)
}

/// Frees the arrays in a queue that is RETIRED, and in which the bit of `seat` keeps the cells in place.
/// Returns how many.
pub(crate) fn free_arrays(segment: &Segment, slot: Slot<'_>, seat: SeatId) -> usize {
    let (memory, key) = (segment.memory(), segment.key());
    let Some(cells) = cells_of(memory, slot) else {
        return 0;
    };
    // No push succeeds from here on, so that there is a job for each cell at most.
    cells.close();
    let mut freed = 0;
    for _ in 0..cells.capacity() {
        let Some(ticket) = cells.take(seat) else {
            break;
        };
        if let Some((array, generation)) = array_of(memory, key, cells.array(ticket.position)) {
            let retired = array.change(|word| match word.is_queued() {
                true => word.retire(generation, seat),
                false => None,
            });
            // An error says that it was freed by its handle.
            if retired.is_ok() {
                freed += 1;
                if let Tail::Freed(_) = array.tail()
                    && let Some(extent) = Spans::of(memory).extent(array.index)
                {
                    Hints::of(memory).set(extent.class, array.index);
                }
            }
        }
        cells.empty(ticket, seat);
    }
    freed
}
