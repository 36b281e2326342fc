//! Queues that own their arrays: an array passes from its producer to the queue, then to its
//! consumer.
//!
//! `README.md` beside this file has the steps, and proves that the array has one owner at each of
//! them.

#[cfg(test)]
mod tests;

use core::time::Duration;

use ndarray::Dimension;

use super::Queue;
use super::cells::{Cells, Event, TAIL, Ticket};
use super::job::OwnedArray;
use super::push::ClaimError;
use super::wait::Attempt;
use crate::descriptor::{ControlKind, Descriptor};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::memory::Memory;
use crate::queue::error::{PushError, QueueError};
use crate::segment::Segment;
use crate::span::Spans;
use crate::table::alloc::give_hint;
use crate::table::create::Owned;
use crate::table::slot::Slot;
use crate::word::{CellState, CellWord, SeatId, SlotWord};

impl<'t, T: Element, D: Dimension> Queue<'t, OwnedArray<T, D>> {
    /// Pushes an array and transfers its ownership to the queue, or returns the array with the
    /// error. Never waits.
    ///
    /// The array then outlives this participant, and its consumer owns it next. If this participant
    /// dies during the call, the array is in the queue, or freed. Freeing the queue, or the death
    /// of its owner, frees the arrays in it.
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::queue::OwnedArray;
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
    /// See [`push`](Queue::push). The array is returned with the error. Further causes of
    /// [`PushError::Failed`]:
    /// - [`QueueError::NotOwned`] if the participant that opened this queue does not own the array.
    /// - [`QueueError::Lease`] if the array was freed.
    #[doc(alias("send", "move", "transfer"))]
    pub fn push_owned<'o>(&self, array: Owned<'o, T, D>) -> Result<(), PushError<Owned<'o, T, D>>> {
        match self.try_push_owned(array.handle()) {
            Ok(()) => {
                array.into_handle();
                Ok(())
            }
            Err(error) => Err(PushError::new(array, error)),
        }
    }

    /// Pushes an array, and waits for a free cell for at most `timeout`.
    ///
    /// Waits as [`pop_timeout`](Queue::pop_timeout) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # use ndarray::Ix1;
    /// # use ndshm::queue::OwnedArray;
    /// # use std::time::Duration;
    /// # let batches = table.queue::<OwnedArray<f32, Ix1>>(1)?;
    /// let batch = table.owned(table.from_elem(32, 1.0)?);
    /// batches.push_owned_timeout(batch, Duration::from_secs(10))?;
    ///
    /// let second = table.owned(table.from_elem(32, 2.0)?);
    /// let refused = batches.push_owned_timeout(second, Duration::from_millis(1)).unwrap_err();
    /// assert!(refused.is_full());
    /// let second = refused.into_job();                     // still this participant's
    /// # drop(second);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`push_owned`](Queue::push_owned). Returns [`PushError::Full`] if no cell became free,
    /// and [`PushError::Closed`] at once if the queue is closed.
    pub fn push_owned_timeout<'o>(
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
            Ok(None) => Err(PushError::new(array, self.refuse(ClaimError::Full))),
            Err(error) => Err(PushError::new(array, error)),
        }
    }

    /// Pops the oldest array, which this participant then owns. Returns `None` if there is none.
    /// Never waits.
    ///
    /// Skips an array that was freed by its handle while it was in the queue. If this participant
    /// dies during the call, the array is still in the queue, or it is freed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use ndshm::queue::OwnedArray;
    ///
    /// let batches = table.queue::<OwnedArray<f32, Ix1>>(4)?;
    /// batches.push_owned(table.owned(table.from_elem(32, 1.0)?))?;
    /// while let Some(batch) = batches.pop_owned()? {
    ///     assert_eq!(table.read(batch.handle())?.sum(), 32.0);
    /// }                                                    // each batch is freed here
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop`](Queue::pop).
    pub fn pop_owned(&self) -> Result<Option<Owned<'t, T, D>>, QueueError> {
        let me = self.lease.enter()?;
        let key = self.table.segment().key();
        while let Some(ticket) = self.cells.take(me) {
            let bits = self.cells.array(ticket.position);
            let is_ours = array_of(self.table.segment().memory(), key, bits).is_some_and(
                |(slot, generation)| {
                    self.table.footprint.add(slot.index);
                    // QUEUED → owned by `me`. Release: as for every change of the owner.
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

    /// Pops the oldest array, and waits for one for at most `timeout`, as
    /// [`pop_timeout`](Queue::pop_timeout) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # use ndarray::Ix1;
    /// # use ndshm::queue::OwnedArray;
    /// # use std::time::Duration;
    /// # let batches = table.queue::<OwnedArray<f32, Ix1>>(1)?;
    /// batches.push_owned(table.owned(table.from_elem(32, 1.0)?))?;
    /// let batch = batches.pop_owned_timeout(Duration::from_secs(10))?.expect("one was pushed");
    /// assert_eq!(table.read(batch.handle())?.len(), 32);
    /// assert!(batches.pop_owned_timeout(Duration::from_millis(1))?.is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop_timeout`](Queue::pop_timeout).
    pub fn pop_owned_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<Owned<'t, T, D>>, QueueError> {
        let outcome = self.wait(timeout, || match self.pop_owned()? {
            Some(array) => Ok(Attempt::Over(Some(array))),
            None => Ok(self.not_yet()),
        })?;
        Ok(outcome.flatten())
    }

    fn try_push_owned(&self, handle: Handle<T, D>) -> Result<(), QueueError> {
        let me = self.lease.enter()?;
        let any = AnyHandle::from(handle);
        self.table.downcast::<T, D>(any)?;
        let (slot, generation) = self.table.tables().live(any)?;
        if !slot.word().is_owned_by(me) {
            return Err(self.not_owned(any));
        }
        let ticket = self.claim(me)?;
        self.cells.set_array(ticket.position, handle.to_bits());
        // Owned by `me` → QUEUED. Release: as for every change of the owner.
        if slot.change(|word| word.enqueue(generation, me)).is_err() {
            self.cells.give_up(ticket, me);
            return Err(self.not_owned(any));
        }
        match self.cells.publish_array(ticket, me, (slot, generation)) {
            true => Ok(()),
            false => Err(self.refuse(ClaimError::Closed)),
        }
    }

    #[cold]
    pub(super) fn not_owned(&self, handle: AnyHandle) -> QueueError {
        match self.table.tables().live(handle) {
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

/// Returns the slot and generation in a cell's job. Returns `None` for no job, or if this segment
/// has no such slot.
pub(super) fn array_of(memory: &Memory, key: u64, bits: u64) -> Option<(Slot<'_>, u32)> {
    if bits == 0 {
        return None;
    }
    let (index, generation) = AnyHandle::from_bits(bits).unpack(key);
    Some((Slot::of(memory, index)?, generation))
}

impl Cells<'_> {
    /// Performs the transition WRITING by `me` → FULL. The array of `ticket` is QUEUED. Returns
    /// `false` if the queue was closed meanwhile: then `me` owns the array again.
    fn publish_array(&self, ticket: Ticket, me: SeatId, array: (Slot<'_>, u32)) -> bool {
        let Some((full, is_in)) = self.fill(&ticket, me) else {
            return false;
        };
        // An error says that a consumer has taken the array, or that it was freed.
        let is_ours = !is_in && take_back(array, me);
        if is_ours {
            self.discard(ticket.position, full, me);
        }
        !is_ours
    }

    /// Attempts the transition FULL, as it was seen, → EMPTY. The job's array is not QUEUED any
    /// more. If a consumer has taken the job, it skips the job itself.
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

    /// Performs the transition TAKING by `me` → EMPTY, and clears the handle.
    pub(super) fn empty(&self, ticket: Ticket, me: SeatId) {
        // Clear the handle before the cell is EMPTY: a handle in a WRITING cell must be its
        // producer's own.
        self.set_array(ticket.position, 0);
        self.release(ticket, me);
    }

    /// Performs the transition WRITING by `me` → EMPTY, and clears the handle: nothing was pushed.
    fn give_up(&self, ticket: Ticket, me: SeatId) {
        self.set_array(ticket.position, 0);
        if let Some(empty) = ticket.word.undo(me) {
            self.settle(ticket.position, ticket.word, empty);
        }
        // Wakes producers that found no free cell.
        self.count_freed();
    }

    /// Calls `visit` for each array whose job is bound to `seat`, and that is still the queue's.
    pub(crate) fn bound_arrays(
        &self,
        segment: &Segment,
        seat: SeatId,
        mut visit: impl FnMut(Slot<'_>),
    ) {
        for index in 0..self.capacity() {
            if self.word(index).is_bound_by(seat)
                && let Some((slot, generation)) =
                    array_of(segment.memory(), segment.key(), self.array(index))
                && slot.word().is_live(generation)
                && slot.word().is_queued()
            {
                visit(slot);
            }
        }
    }

    /// Decides the ownership of the arrays that `seat` was pushing or popping. The caller has the
    /// lock of the seat. Runs before [`Cells::recover`], and may be repeated.
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
                // Only this push can have made the array QUEUED by the dead participant. The array
                // is freed with its producer, and `recover` makes the cell EMPTY.
                CellState::Writing if word.seat() == seat => {
                    is(SlotWord::is_queued_by).map(|array| take_back(array, seat));
                    self.set_array(index, 0);
                }
                // If the array is still QUEUED, `recover` puts the job back. Otherwise the consumer
                // owns the array, or it was freed.
                CellState::Taking
                    if word.seat() == seat && is(|word, _| word.is_queued()).is_none() =>
                {
                    self.set_array(index, 0);
                    if let Some(empty) = word.release(seat) {
                        self.settle(index, word, empty);
                    }
                }
                // As for TAKING: the consumer died while it acknowledged.
                CellState::Bound
                    if word.seat() == seat && is(|word, _| word.is_queued()).is_none() =>
                {
                    self.set_array(index, 0);
                    self.acknowledge(index, seat);
                }
                // The dead producer pushed too late, and did not withdraw the array.
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

    /// Returns `true` for a FULL cell at or beyond the tail of a closed queue. Its job is not
    /// pushed.
    fn is_late(&self, index: u64, word: CellWord) -> bool {
        let tail = self.end(TAIL);
        tail.is_closed() && self.in_lap(index, word.lap()) >= tail.position()
    }
}

/// Attempts the transition QUEUED by `seat` → owned by `seat`. Returns `false` if the array is not
/// QUEUED by `seat` any more.
fn take_back((slot, generation): (Slot<'_>, u32), seat: SeatId) -> bool {
    slot.change(|word| word.withdraw(generation, seat)).is_ok()
}

/// Returns `true` if the slot has a queue that owns arrays.
pub(crate) fn owns_arrays(memory: &Memory, slot: Slot<'_>) -> bool {
    cells_of(memory, slot).is_some_and(|cells| cells.owns_arrays())
}

fn cells_of<'m>(memory: &'m Memory, slot: Slot<'_>) -> Option<Cells<'m>> {
    Descriptor::load(memory.descriptor(slot.index))
        .filter(|descriptor| descriptor.is_control_of(ControlKind::Queue))
        .and_then(|_| Cells::open(memory, Spans::of(memory).extent(slot.index)?))
        .map(|(cells, _)| cells)
}

/// Frees the arrays in a RETIRED queue. The bit of `seat` keeps the cells in place. Returns the
/// number of freed arrays.
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
            // An error says that the array was freed by its handle.
            if retired.is_ok() {
                freed += 1;
                give_hint(memory, array, array.finish_release());
            }
        }
        cells.empty(ticket, seat);
    }
    freed
}
