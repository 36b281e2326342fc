//! Bounded, lock-free queues of small jobs, for producers and consumers in any processes.
//!
//! [`HandleTable::queue`](crate::HandleTable::queue) creates one, and a [`QueueHandle`] opens it in
//! another process. [`Job`] is the trait of the items that a queue carries: plain data, or an
//! [`OwnedArray`], which passes an array from owner to owner.
//!
//! One word per cell says whether it is free, in use by a seat, or holds a job. A death at any
//! instruction is undone from these words. `README.md` beside this file has the protocol.

mod bound;
pub(crate) mod cells;
mod delivery;
pub(crate) mod error;
mod handle;
mod job;
mod owned;
mod pop;
mod push;
mod shape;
#[cfg(test)]
mod tests;
mod wait;

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
pub(crate) use error::{PushError, QueueError};

use bytemuck::Pod;

use crate::descriptor::{ControlKind, Descriptor, WrongKind};
use crate::handle::AnyHandle;
use crate::span::Spans;
use crate::sync::Atom;
use crate::sync::time::Instant;
use crate::table::core::Core;
use crate::table::error::LeaseError;
use crate::table::kept_lease::KeptLease;
use crate::word::SeatId;
use cells::{Cells, Room, Ticket};
pub use delivery::Delivery;
pub use handle::QueueHandle;
pub use job::{Job, OwnedArray};
pub(crate) use owned::{free_arrays, owns_arrays};
use push::ClaimError;
use shape::MAX_CAPACITY;

/// A bounded queue of jobs of type `T` in the shared segment, for many producers and consumers.
///
/// [`push`](Queue::push) and [`pop`](Queue::pop) never wait for another participant. A participant
/// may die, or be stopped, at any instruction: the others skip its cell.
///
/// **Each job once.** A job is popped by exactly one consumer after its push has returned. If a
/// consumer dies in `pop`, the job goes to another one once a participant
/// [reaps](crate::HandleTable::reap) the dead one. If it dies after `pop` has returned, the job is lost
/// with it. If a producer dies in `push`, its job is popped once or never.
///
/// **Or at least once.** [`pop_with_ack`](Queue::pop_with_ack) keeps a job bound to its consumer
/// until it is acknowledged. If the consumer dies before that, the job comes back.
///
/// **Order.** If a push returns before another one begins, in any processes, its job is popped
/// first. Overlapping pushes may be in either order. A job loses its place only if its consumer
/// dies in `pop`, or does not acknowledge it: it then comes after jobs that were pushed later.
///
/// **Full and empty.** A queue is reported empty only if there was a moment without a job, and full
/// only if there was a moment without a free cell. A job is in the queue at the latest when its
/// push has returned. A cell is free until it is claimed, and again at the latest when the call that
/// pops or acknowledges its job has returned. If the consumer dies in that call: when it was reaped.
///
/// **Arrays.** A queue of [`OwnedArray`] owns the arrays in it: see
/// [`push_owned`](Queue::push_owned). In other queues, a handle carries no ownership: its array is
/// freed with the producer, unless the producer [detaches](crate::HandleTable::detach) it.
///
/// A test for an empty queue takes a few loads, and reads each cell only while a participant is
/// stopped in its call, or dead and not reaped. The first push that finds the queue full reads each
/// cell twice. The next ones take a few loads, until a cell was free.
///
/// ```
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let queue = table.queue::<[u32; 2]>(100)?;
/// assert_eq!(queue.capacity(), 128);
///
/// // In any process:
/// let ours = table.open_queue(queue.handle())?;
/// ours.push([3, 4])?;
/// ours.push([5, 6])?;
///
/// assert_eq!(queue.pop()?, Some([3, 4]));
/// queue.close();
/// assert!(ours.push([7, 8]).is_err_and(|refused| refused.is_closed()));
/// assert_eq!(queue.pop()?, Some([5, 6]));
/// assert_eq!(queue.pop()?, None);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[doc(alias("channel", "mpsc", "multiprocessing", "mq_open"))]
pub struct Queue<'t, T> {
    table: &'t Core,
    handle: AnyHandle,
    cells: Cells<'t>,
    /// Keeps the cells in place. Its bit tells a reaper that this participant may hold a cell.
    lease: KeptLease<'t>,
    /// The words that stay as they are while the queue is full, if the last push found it so.
    full: Cell<Option<Room>>,
    /// The last time that a wait looked for dead participants.
    looked: Cell<Option<Instant>>,
    /// The number of jobs that are bound to this consumer through this value.
    bound: Cell<usize>,
    /// The process in which dropping the queue closes and frees it, if any.
    owner: Option<u64>,
    job: PhantomData<fn(T) -> T>,
}

impl Core {
    /// Creates a queue for at least `capacity` jobs, rounded up to a power of two.
    pub(crate) fn queue<T: Job>(&self, capacity: usize) -> Result<Queue<'_, T>, QueueError> {
        const { T::CHECK };
        let refused = QueueError::Capacity {
            capacity,
            limit: MAX_CAPACITY,
        };
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(refused);
        }
        let capacity = capacity.next_power_of_two();
        let job = job::job_type::<T>();
        let Some(bytes) = Cells::bytes(capacity, job) else {
            return Err(refused);
        };
        let reserved = self.reserve(bytes)?;
        let memory = self.segment().memory();
        if Cells::create(memory, reserved.extent, capacity, job, T::OWNS_ARRAYS).is_none() {
            return Err(self.abandon_damaged(reserved).into());
        }
        let handle = self.handle_of(reserved.slot.index, reserved.word.generation());
        let describe = |descriptor: &[Atom]| {
            Descriptor::control(ControlKind::Queue, bytes.div_ceil(8) as usize).store(descriptor);
        };
        match T::OWNS_ARRAYS {
            // The flag NAMED makes a participant that frees the queue take the slow path.
            true => self.publish_record(reserved, describe),
            false => drop(self.publish_control(reserved, describe)),
        }
        match self.open_cells(handle) {
            Ok(mut queue) => {
                queue.owner = Some(self.token());
                Ok(queue)
            }
            Err(error) => {
                // An error says that there is nothing to free.
                let _ = self.free(handle);
                Err(error)
            }
        }
    }

    /// Opens a queue that another participant has created.
    pub(crate) fn open_queue<T: Job>(
        &self,
        handle: QueueHandle<T>,
    ) -> Result<Queue<'_, T>, QueueError> {
        const { T::CHECK };
        self.open_cells(handle.control)
    }

    fn open_cells<T: Job>(&self, handle: AnyHandle) -> Result<Queue<'_, T>, QueueError> {
        let lease = self.lease_shared(handle)?;
        let memory = self.segment().memory();
        let index = lease.slot.index;
        let cells = Descriptor::load(memory.descriptor(index))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Queue))
            .and_then(|_| Cells::open(memory, Spans::of(memory).extent(index)?))
            .filter(|&(_, job)| job == job::job_type::<T>());
        match cells {
            Some((cells, _)) => Ok(Queue {
                table: self,
                handle,
                cells,
                lease: KeptLease::new(lease),
                full: Cell::new(None),
                looked: Cell::new(None),
                bound: Cell::new(0),
                owner: None,
                job: PhantomData,
            }),
            None => {
                let (name, size) = (core::any::type_name::<T>(), job::job_type::<T>().size);
                let expected = format!(
                    "a queue of {name} ({size} bytes; the name, size and alignment must be equal)"
                );
                let words = memory.descriptor(index);
                let mut wrong = WrongKind::found_in(handle, words, memory, expected);
                if wrong.found == ControlKind::Queue.name() {
                    wrong.found += " of another job type";
                }
                Err(LeaseError::from(wrong).into())
            }
        }
    }
}

impl<T: Pod> Queue<'_, T> {
    /// Pushes a job, or returns it with the error. Never waits.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// for job in 0..4 {
    ///     queue.push(job)?;
    /// }
    /// let refused = queue.push(4).unwrap_err();
    /// assert!(refused.is_full());
    /// assert_eq!(refused.into_job(), 4);                   // to try again later
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PushError::Full`] if no cell is free.
    /// - [`PushError::Closed`] after [`close`](Queue::close). A push during it may succeed or not.
    /// - [`PushError::Failed`] if the cells are used up, or if the queue was freed before a forked
    ///   child first used it.
    #[doc(alias("send", "put", "enqueue", "mq_send"))]
    #[inline]
    pub fn push(&self, job: T) -> Result<(), PushError<T>> {
        match self.try_push(&job) {
            Ok(()) => Ok(()),
            Err(error) => Err(PushError::new(job, error)),
        }
    }

    #[inline]
    fn try_push(&self, job: &T) -> Result<(), QueueError> {
        let me = self.lease.enter()?;
        let ticket = self.claim(me)?;
        self.write(&ticket, job);
        match self.cells.publish(ticket, me) {
            true => Ok(()),
            false => Err(self.refuse(ClaimError::Closed)),
        }
    }

    /// Pops the oldest job. Returns `None` if there is none. Never waits.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    /// while let Some(job) = queue.pop()? {
    ///     assert_eq!(job, 7);
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`QueueError::Lease`] if the queue was freed before a forked child first used it.
    #[doc(alias("recv", "get", "dequeue", "try_recv", "mq_receive"))]
    #[inline]
    pub fn pop(&self) -> Result<Option<T>, QueueError> {
        let me = self.lease.enter()?;
        let Some(ticket) = self.cells.take(me) else {
            return Ok(None);
        };
        let job = self.read(&ticket);
        self.cells.release(ticket, me);
        Ok(Some(job))
    }
}

impl<T> Queue<'_, T> {
    /// Closes the queue: pushes fail from now on, and consumers pop the remaining jobs.
    ///
    /// Everything before this call happens before the actions of a participant that finds the queue
    /// closed.
    ///
    /// In a forked child that cannot lease the queue (it was freed, or no seat is free) this does
    /// nothing. There the queue counts as closed, drained and empty.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    /// queue.close();
    /// assert!(queue.push(8).is_err_and(|refused| refused.is_closed()));
    /// assert_eq!(queue.pop()?, Some(7));
    /// assert!(queue.is_closed() && queue.is_drained());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn close(&self) {
        if self.lease.enter().is_ok() {
            self.cells.close();
        }
    }

    /// Returns `true` if the queue is closed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(8)?;
    /// assert!(!jobs.is_closed());
    /// jobs.close();
    /// assert!(jobs.is_closed());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.lease.enter().is_err() || self.cells.is_closed()
    }

    /// Returns `true` if the queue is closed and no job can come out of it any more. While a
    /// consumer is popping the last job, or has not acknowledged it, returns `false`: if the
    /// consumer dies, the job comes back.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    /// queue.close();
    /// assert!(!queue.is_drained());                        // a job is left
    /// assert_eq!(queue.pop()?, Some(7));
    /// assert!(queue.is_drained());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_drained(&self) -> bool {
        self.lease.enter().is_err() || self.cells.is_drained()
    }

    /// Returns the number of jobs that fit into the queue.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert_eq!(table.queue::<u64>(8)?.capacity(), 8);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn capacity(&self) -> usize {
        self.cells.capacity() as usize
    }

    /// Returns the number of jobs in the queue, now or a moment ago. A hint, rather too large than
    /// too small.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// queue.push(7)?;
    /// assert_eq!((queue.len(), queue.capacity()), (1, 4));
    /// assert!(!queue.is_empty() && !queue.is_full());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.lease.enter().map_or(0, |_| self.cells.len() as usize)
    }

    /// Returns `true` if there was a moment without a job during this call.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(8)?;
    /// assert!(jobs.is_empty());
    /// jobs.push(7)?;
    /// assert!(!jobs.is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.lease.enter().is_err() || self.cells.is_empty()
    }

    /// Returns `true` if all cells hold jobs, now or a moment ago. A hint: only a push can tell if
    /// it succeeds. Does not count jobs that are bound to consumers: if they keep all cells, returns
    /// `false`, and a push finds no room.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(2)?;
    /// jobs.push(1)?;
    /// assert!(!jobs.is_full());
    /// jobs.push(2)?;
    /// assert!(jobs.is_full());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Returns the queue's name for other processes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let queue = table.queue::<u64>(4)?;
    /// table.publish("jobs", queue.handle())?;
    /// assert_eq!(table.find_queue::<u64>("jobs")?.capacity(), 4);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> QueueHandle<T> {
        QueueHandle::of(self.handle)
    }

    #[inline]
    fn claim(&self, me: SeatId) -> Result<Ticket, QueueError> {
        let claimed = self.cells.claim(me, &self.full);
        claimed.map_err(|why| self.refuse(why))
    }

    #[cold]
    fn refuse(&self, why: ClaimError) -> QueueError {
        let handle = self.handle;
        match why {
            ClaimError::Full => QueueError::Full {
                capacity: self.capacity(),
            },
            ClaimError::Closed => QueueError::Closed { handle },
            ClaimError::UsedUp { position } => QueueError::UsedUp { handle, position },
        }
    }
}

impl<T: Pod> Queue<'_, T> {
    #[inline]
    fn write(&self, ticket: &Ticket, job: &T) {
        let memory = self.table.segment().memory();
        let (offset, size) = (self.cells.job_offset(ticket), size_of::<T>() as u64);
        // Models die only at words: this load is a place to die between claiming the cell and
        // writing the job.
        #[cfg(loom)]
        self.cells.is_closed();
        let _access = memory.track(offset, size, true);
        if let Some(place) = memory.data(offset, size) {
            // SAFETY: `size_of::<T>()` bytes from `place` are inside the mapping (`data`) and
            // inside the queue's extent (`Cells::open`), which the lease keeps. `place` is aligned:
            // extents start on multiples of 64, and cells and their jobs on multiples of the
            // alignment, which is at most 64. The cell is WRITING by this seat's ticket, so nobody
            // else accesses the bytes.
            unsafe { place.cast::<T>().write(*job) };
        }
    }

    #[inline]
    fn read(&self, ticket: &Ticket) -> T {
        let memory = self.table.segment().memory();
        let (offset, size) = (self.cells.job_offset(ticket), size_of::<T>() as u64);
        // A place to die, as in `write`.
        #[cfg(loom)]
        self.cells.is_closed();
        let _access = memory.track(offset, size, false);
        match memory.data(offset, size) {
            // SAFETY: as in `write`. The cell is TAKING by this seat's ticket, so nobody writes the
            // bytes, and any bytes are a `T: Pod`.
            Some(place) => unsafe { place.cast::<T>().read() },
            None => T::zeroed(),
        }
    }
}

impl<T> Drop for Queue<'_, T> {
    fn drop(&mut self) {
        if self.bound.get() != 0 {
            // A delivery was forgotten. The bit tells the reaper of this participant.
            self.lease.keep();
        }
        // After a fork the queue belongs to the parent. An error says that it was freed before.
        if self.owner.is_some_and(|owner| self.table.is_of(owner)) {
            self.cells.close();
            let _ = self.table.free(self.handle);
        }
    }
}

impl<T> fmt::Debug for Queue<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("handle", &self.handle())
            .field("capacity", &self.capacity())
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish()
    }
}
