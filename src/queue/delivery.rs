//! Popping with acknowledgement: at least once.

use core::fmt;
use core::ops::Deref;
use core::time::Duration;

use bytemuck::Pod;
use ndarray::Dimension;

use super::Queue;
use super::cells::Ticket;
use super::job::{Job, OwnedArray};
use super::owned::{array_of, free_arrays};
use super::wait::Attempt;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::queue::error::QueueError;
use crate::table::create::Owned;
use crate::table::slot::Slot;
use crate::word::SeatId;

/// A job that is bound to this consumer until it is acknowledged.
///
/// [`pop_with_ack`](Queue::pop_with_ack) returns it. Dereferences to the job. In a queue of
/// [`OwnedArray`], [`handle`](Delivery::handle) names the array instead.
///
/// - [`ack`](Delivery::ack) ends the job: nobody gets it again.
/// - [`give_back`](Delivery::give_back) makes it the last job of the queue, as if it were pushed now.
///   Dropping the value does the same, also while a panic unwinds.
/// - If the consumer dies, the job comes back once a participant
///   [reaps](crate::HandleTable::reap) it. Calls that wait do so within 20 ms.
///
/// A value that is forgotten ([`core::mem::forget`]) keeps its job bound until this participant
/// leaves or dies. A forked child has a copy of the value, which neither acknowledges nor gives back.
#[must_use = "dropping it gives the job back; call `ack` when the job is done"]
pub struct Delivery<'q, 't, T: Job> {
    queue: &'q Queue<'t, T>,
    position: u64,
    job: T::Held,
    deliveries: u64,
    /// The process that popped the job.
    token: u64,
}

impl<'t, T: Pod> Queue<'t, T> {
    /// Pops the oldest job and binds it to this consumer until it is acknowledged. Returns `None` if
    /// there is none. Never waits.
    ///
    /// At least once: if the consumer dies before [`ack`](Delivery::ack), another one gets the job.
    /// So the work must be repeatable. [`pop`](Queue::pop) is at most once. Consumers of one queue
    /// may mix both.
    ///
    /// A bound job keeps its cell: it counts against the capacity, but not in [`len`](Queue::len). A
    /// job that comes back is the last one of the queue. A closed queue is
    /// [drained](Queue::is_drained) when all jobs are acknowledged.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    ///
    /// let job = queue.pop_with_ack()?.expect("a job was pushed");
    /// assert_eq!((*job, job.deliveries()), (7, 1));
    /// drop(job);                                           // not done: the job comes back
    ///
    /// let job = queue.pop_with_ack()?.expect("it came back");
    /// assert_eq!((*job, job.deliveries()), (7, 2));
    /// job.ack()?;                                          // done
    /// assert!(queue.pop_with_ack()?.is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop`](Queue::pop).
    #[doc(alias(
        "ack",
        "acknowledge",
        "at_least_once",
        "reserve",
        "basic_get",
        "task_done"
    ))]
    pub fn pop_with_ack(&self) -> Result<Option<Delivery<'_, 't, T>>, QueueError> {
        let me = self.lease.enter()?;
        let Some(ticket) = self.cells.take(me) else {
            return Ok(None);
        };
        let job = self.read(&ticket);
        Ok(Some(self.bind(&ticket, me, job)))
    }

    /// Pops the oldest job as [`pop_with_ack`](Queue::pop_with_ack) does, and waits for one for at
    /// most `timeout`, as [`pop_timeout`](Queue::pop_timeout) does.
    ///
    /// While jobs of a closed queue are bound to consumers, waits for them: they may come back.
    /// Acknowledge the own jobs first.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// use std::time::Duration;
    ///
    /// queue.push(7)?;
    /// queue.close();
    /// while let Some(job) = queue.pop_with_ack_timeout(Duration::from_secs(10))? {
    ///     assert_eq!(*job, 7);                             // work
    ///     job.ack()?;
    /// }
    /// assert!(queue.is_drained());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop_timeout`](Queue::pop_timeout).
    #[doc(alias("basic_consume", "brpoplpush"))]
    pub fn pop_with_ack_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<Delivery<'_, 't, T>>, QueueError> {
        let outcome = self.wait(timeout, || match self.pop_with_ack()? {
            Some(job) => Ok(Attempt::Over(Some(job))),
            None => Ok(self.not_yet()),
        })?;
        Ok(outcome.flatten())
    }
}

impl<'t, T: Element, D: Dimension> Queue<'t, OwnedArray<T, D>> {
    /// Pops the oldest array and binds it to this consumer until it is acknowledged. Returns `None`
    /// if there is none. Never waits.
    ///
    /// The queue owns the array until [`ack`](Delivery::ack) transfers it to this participant. If
    /// the consumer dies before, the array comes back. If it dies while it writes the array, the
    /// array comes back poisoned.
    ///
    /// Works as [`pop_with_ack`](Queue::pop_with_ack) otherwise. Skips an array that was freed by
    /// its handle.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use ndshm::queue::OwnedArray;
    ///
    /// let batches = table.queue::<OwnedArray<f32, Ix1>>(4)?;
    /// batches.push_owned(table.owned(table.from_elem(32, 1.0)?))?;
    ///
    /// let batch = batches.pop_owned_with_ack()?.expect("one was pushed");
    /// assert_eq!(table.read(batch.handle())?.sum(), 32.0);
    /// let batch = batch.ack()?;                            // this participant owns it now
    /// # drop(batch);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop`](Queue::pop).
    pub fn pop_owned_with_ack(
        &self,
    ) -> Result<Option<Delivery<'_, 't, OwnedArray<T, D>>>, QueueError> {
        let me = self.lease.enter()?;
        let segment = self.table.segment();
        while let Some(ticket) = self.cells.take(me) {
            let bits = self.cells.array(ticket.position);
            let is_queued = |(slot, generation): (Slot<'_>, u32)| {
                let word = slot.word();
                word.is_live(generation) && word.is_queued()
            };
            match array_of(segment.memory(), segment.key(), bits).is_some_and(is_queued) {
                true => return Ok(Some(self.bind(&ticket, me, Handle::from_bits(bits)))),
                false => self.cells.empty(ticket, me),
            }
        }
        Ok(None)
    }

    /// Pops the oldest array as [`pop_owned_with_ack`](Queue::pop_owned_with_ack) does, and waits
    /// for one for at most `timeout`, as
    /// [`pop_with_ack_timeout`](Queue::pop_with_ack_timeout) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # use ndarray::Ix1;
    /// # use ndshm::queue::OwnedArray;
    /// # use std::time::Duration;
    /// # let batches = table.queue::<OwnedArray<f32, Ix1>>(1)?;
    /// batches.push_owned(table.owned(table.from_elem(32, 1.0)?))?;
    /// let batch = batches.pop_owned_with_ack_timeout(Duration::from_secs(10))?;
    /// batch.expect("one was pushed").give_back()?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`pop_timeout`](Queue::pop_timeout).
    pub fn pop_owned_with_ack_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<Delivery<'_, 't, OwnedArray<T, D>>>, QueueError> {
        let outcome = self.wait(timeout, || match self.pop_owned_with_ack()? {
            Some(job) => Ok(Attempt::Over(Some(job))),
            None => Ok(self.not_yet()),
        })?;
        Ok(outcome.flatten())
    }
}

impl<'t, T: Job> Queue<'t, T> {
    fn bind(&self, ticket: &Ticket, me: SeatId, job: T::Held) -> Delivery<'_, 't, T> {
        let deliveries = self.cells.bind(ticket, me);
        self.bound.set(self.bound.get() + 1);
        Delivery {
            queue: self,
            position: ticket.position,
            job,
            deliveries,
            token: self.table.token(),
        }
    }
}

impl<T: Job> Delivery<'_, '_, T> {
    /// Returns how often the job was delivered, this time included.
    ///
    /// A large number is the mark of a job that kills its consumers:
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let (queue, poison) = (table.queue::<u64>(4)?, table.queue::<u64>(4)?);
    /// # queue.push(7)?;
    /// # for _ in 0..3 { drop(queue.pop_with_ack()?); }
    /// while let Some(job) = queue.pop_with_ack()? {
    ///     if job.deliveries() > 3 {
    ///         poison.push(*job)?;                          // somebody must look at it
    ///     } else {
    ///         println!("{}", *job);                        // work
    ///     }
    ///     job.ack()?;
    /// }
    /// # assert_eq!(poison.pop()?, Some(7));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// Counts up to 32767. A consumer that dies in the call that pops may be counted, although it
    /// did not get the job.
    #[doc(alias("attempts", "redelivered", "delivery_count"))]
    pub fn deliveries(&self) -> u32 {
        self.deliveries as u32
    }

    /// Gives the job back. It is the last one of the queue, as if it were pushed now.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    /// queue.push(8)?;
    /// queue.pop_with_ack()?.expect("two jobs").give_back()?;
    /// assert_eq!([queue.pop()?, queue.pop()?], [Some(8), Some(7)]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`QueueError::NotBound`] in a forked child of the consumer.
    #[doc(alias("reject", "nack", "requeue", "release"))]
    pub fn give_back(self) -> Result<(), QueueError> {
        self.consumer()?;
        // Dropping it gives the job back.
        Ok(())
    }

    /// Returns the seat to which the job is bound, in the process that popped it.
    fn consumer(&self) -> Result<SeatId, QueueError> {
        match self.queue.table.is_of(self.token) {
            true => Ok(self.queue.lease.enter()?),
            false => Err(QueueError::NotBound {
                handle: self.queue.handle,
            }),
        }
    }

    /// Forgets a delivery that is over.
    fn finish(self) {
        self.queue.bound.set(self.queue.bound.get() - 1);
        core::mem::forget(self);
    }
}

impl<T: Pod> Delivery<'_, '_, T> {
    /// Acknowledges the job: it is done, and its cell is free.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(1)?;
    /// queue.push(7)?;
    /// let job = queue.pop_with_ack()?.expect("a job was pushed");
    /// assert!(queue.push(8).unwrap_err().is_full());       // the job keeps its cell
    /// job.ack()?;
    /// queue.push(8)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`QueueError::NotBound`] in a forked child of the consumer.
    #[doc(alias("acknowledge", "done", "task_done", "commit"))]
    pub fn ack(self) -> Result<(), QueueError> {
        let me = self.consumer()?;
        self.queue.cells.acknowledge(self.position, me);
        self.finish();
        Ok(())
    }
}

impl<T: Pod> Deref for Delivery<'_, '_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.job
    }
}

impl<'t, T: Element, D: Dimension> Delivery<'_, 't, OwnedArray<T, D>> {
    /// Returns the handle of the array, which the queue owns until [`ack`](Delivery::ack).
    ///
    /// [`Queue::pop_owned_with_ack`] has an example.
    pub fn handle(&self) -> Handle<T, D> {
        self.job
    }

    /// Acknowledges the job, and transfers the array to this participant.
    ///
    /// If this participant dies during the call, the array comes back, or it is freed.
    ///
    /// [`Queue::pop_owned_with_ack`] has an example.
    ///
    /// # Errors
    /// - [`QueueError::NotBound`] in a forked child of the consumer.
    /// - [`QueueError::Lease`] if the array was freed by its handle. [`QueueError::NotQueued`] if
    ///   it left the queue on another way. The job is over in both cases.
    #[doc(alias("acknowledge", "commit"))]
    pub fn ack(self) -> Result<Owned<'t, T, D>, QueueError> {
        let me = self.consumer()?;
        let (queue, handle) = (self.queue, self.job);
        let any = AnyHandle::from(handle);
        let live = queue.table.tables().live(any);
        let is_ours = live.as_ref().is_ok_and(|&(slot, generation)| {
            queue.table.footprint.add(slot.index);
            // QUEUED → owned by `me`. Release: as for every change of the owner.
            slot.change(|word| word.dequeue(generation, me)).is_ok()
        });
        // Clear the handle before the cell is EMPTY, as in `Cells::empty`.
        queue.cells.set_array(self.position, 0);
        queue.cells.acknowledge(self.position, me);
        self.finish();
        match is_ours {
            true => Ok(queue.table.owned(handle)),
            false => Err(match queue.not_owned(any) {
                QueueError::NotOwned { handle, owner } => QueueError::NotQueued { handle, owner },
                stale => stale,
            }),
        }
    }
}

impl<T: Job> Drop for Delivery<'_, '_, T> {
    fn drop(&mut self) {
        let queue = self.queue;
        queue.bound.set(queue.bound.get() - 1);
        let Ok(me) = self.consumer() else {
            return;
        };
        queue.cells.give_back(self.position, me);
        // The queue may have been freed meanwhile. As after a reap: a later free sees the job, and
        // an earlier one is seen here.
        if T::OWNS_ARRAYS {
            let segment = queue.table.segment();
            let (index, _) = queue.handle.unpack(segment.key());
            if let Some(slot) = Slot::of(segment.memory(), index)
                && slot.newest().is_retired()
            {
                free_arrays(segment, slot, me);
            }
        }
    }
}

impl<T: Job> fmt::Debug for Delivery<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", &self.queue.handle)
            .field("deliveries", &self.deliveries)
            .finish_non_exhaustive()
    }
}
