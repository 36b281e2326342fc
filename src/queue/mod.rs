//! Queues: bounded, lock-free, of small jobs, for producers and consumers in any processes.
//!
//! One word a cell says whether it is free, whose it is, or that it holds a job; a death at any
//! instruction is undone from these words. `README.md` beside this file has the protocol.

pub(crate) mod cells;
mod handle;
mod job;
mod owned;
mod pop;
mod push;
mod shape;
#[cfg(all(test, not(loom)))]
mod steps;
#[cfg(all(test, not(loom)))]
mod tests;
mod wait;

use core::cell::{Cell, RefCell};
use core::fmt;
use core::marker::PhantomData;

use bytemuck::Pod;

use crate::descriptor::{ControlKind, Descriptor};
use crate::error::{LeaseError, PushError, QueueError};
use crate::handle::AnyHandle;
use crate::span::Spans;
use crate::sync::Atom;
use crate::table::HandleTable;
use crate::table::lease::SharedLease;
use crate::word::SeatId;
use cells::{Cells, Ticket};
pub use handle::QueueHandle;
pub use job::{Job, OwnedArray};
pub(crate) use owned::{free_arrays, owns_arrays};
use push::NoCell;
use shape::MAX_CAPACITY;

/// A bounded queue of jobs of type `T` in the shared segment, for many producers and consumers.
///
/// Nobody waits for anybody in [`push`](Queue::push) and [`pop`](Queue::pop), and a participant may
/// die, or be stopped, at any instruction: the others pass its cell by.
///
/// **Each job once.** A job whose push has returned is popped by exactly one consumer. If a
/// consumer dies in `pop`, the job goes to another one, once somebody [reaps](HandleTable::reap)
/// the dead; if it dies after `pop` has returned, the job is gone with it. If a producer dies in
/// `push`, its job is popped once or never.
///
/// **Order.** If one push has returned before another one began, in whatever processes, its job is
/// popped first. Pushes that overlap are in either order. Only a job whose consumer died in `pop`
/// loses its place: it comes after jobs that were pushed later.
///
/// **Full and empty.** A queue is reported empty only if there was a moment without a job, and full
/// only if there was a moment without a free cell. A job is there from the moment its push has
/// returned, at the latest; a cell is free until a producer has claimed it, and again once its job
/// has been read.
///
/// **Arrays.** A queue of [`OwnedArray`] owns the arrays in it: see
/// [`push_owned`](Queue::push_owned). Handles that are pushed to another queue say nothing of the
/// owner: their arrays go with the producer, unless it [detaches](HandleTable::detach) them.
///
/// To ask whether a queue is empty takes a few loads, and a look at each cell only while a producer
/// or consumer is stopped in the midst of its call, or dead and not reaped. To find it full takes
/// two looks at each cell.
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
pub struct Queue<'t, T> {
    table: &'t HandleTable,
    handle: AnyHandle,
    cells: Cells<'t>,
    /// Keeps the cells in place, and tells a reaper that this participant may have been in one.
    lease: RefCell<SharedLease<'t>>,
    /// The process whose lease it is.
    token: Cell<u64>,
    /// The process in which dropping it closes and frees the queue, if one does.
    owner: Option<u64>,
    job: PhantomData<fn(T) -> T>,
}

impl HandleTable {
    /// Makes a queue for at least `capacity` jobs, rounded up to a power of two.
    ///
    /// It is closed and freed when the value is dropped: participants that have it open may go on
    /// to take out what is there. If this participant dies, nobody can open it any more, and those
    /// who have it open go on. A queue of [`OwnedArray`] is emptied then: the arrays in it are freed.
    ///
    /// Types of size 0, or aligned to more than 64 bytes, are refused by the compiler.
    ///
    /// # Errors
    /// [`QueueError::Capacity`] for 0 or more than 2²⁴ jobs, [`QueueError::Alloc`].
    pub fn queue<T: Job>(&self, capacity: usize) -> Result<Queue<'_, T>, QueueError> {
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
            // Its flag leads whoever frees it out of the fast path.
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

    /// Opens a queue that another participant has made.
    ///
    /// # Errors
    /// [`QueueError::NotThisQueue`] if the handle names something else, or a queue of jobs of
    /// another type (by its size, its alignment and its name, as [`core::any::type_name`] gives
    /// it); [`QueueError::Lease`] if it was freed.
    pub fn open_queue<T: Job>(&self, handle: QueueHandle<T>) -> Result<Queue<'_, T>, QueueError> {
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
                lease: RefCell::new(lease),
                token: Cell::new(self.token()),
                owner: None,
                job: PhantomData,
            }),
            None => Err(QueueError::NotThisQueue {
                handle,
                expected: core::any::type_name::<T>(),
                size: job::job_type::<T>().size as usize,
            }),
        }
    }
}

impl<T: Pod> Queue<'_, T> {
    /// Puts a job in, or gives it back. Waits for nobody.
    ///
    /// # Errors
    /// - [`PushError::Full`] if no cell is free.
    /// - [`PushError::Closed`] after [`close`](Queue::close). A push during it may succeed or not.
    /// - [`PushError::Failed`] if the queue was freed before this process, a fork's child, first
    ///   used it, or if its cells are used up.
    #[inline]
    pub fn push(&self, job: T) -> Result<(), PushError<T>> {
        match self.try_push(&job) {
            Ok(()) => Ok(()),
            Err(error) => Err(PushError::new(job, error)),
        }
    }

    #[inline]
    fn try_push(&self, job: &T) -> Result<(), QueueError> {
        let me = self.enter()?;
        let ticket = self.cells.claim(me).map_err(|why| self.refuse(why))?;
        self.write(&ticket, job);
        match self.cells.publish(ticket, me) {
            true => Ok(()),
            false => Err(self.refuse(NoCell::Closed)),
        }
    }

    /// Takes the oldest job out; `None` if there is none. Waits for nobody.
    ///
    /// # Errors
    /// [`QueueError::Lease`] if the queue was freed before this process, a fork's child, first used
    /// it.
    #[inline]
    pub fn pop(&self) -> Result<Option<T>, QueueError> {
        let me = self.enter()?;
        let Some(ticket) = self.cells.take(me) else {
            return Ok(None);
        };
        let job = self.read(&ticket);
        self.cells.release(ticket, me);
        Ok(Some(job))
    }
}

impl<T> Queue<'_, T> {
    /// Takes no more jobs from now on: pushes are refused, and consumers take out what is there.
    ///
    /// What was done before happens before whatever is done by who finds the queue closed.
    ///
    /// In a fork's child that cannot lease the queue (it was freed, or no seat is free) this does
    /// nothing; a queue that was freed counts as closed, drained and empty there.
    pub fn close(&self) {
        if self.enter().is_ok() {
            self.cells.close();
        }
    }

    /// Whether somebody has closed it.
    pub fn is_closed(&self) -> bool {
        self.enter().is_err() || self.cells.is_closed()
    }

    /// Whether it is closed and no job will come out of it any more. While a consumer is taking out
    /// the last job, one will if it dies.
    pub fn is_drained(&self) -> bool {
        self.enter().is_err() || self.cells.is_drained()
    }

    /// How many jobs can be in it.
    pub fn capacity(&self) -> usize {
        self.cells.capacity() as usize
    }

    /// How many jobs are in it, or were a moment ago: a hint. Rather too many than too few.
    pub fn len(&self) -> usize {
        self.enter().map_or(0, |_| self.cells.len() as usize)
    }

    /// Whether there was a moment without a job, during this call.
    pub fn is_empty(&self) -> bool {
        self.enter().is_err() || self.cells.is_empty()
    }

    /// The queue's name for other processes.
    pub fn handle(&self) -> QueueHandle<T> {
        QueueHandle::of(self.handle)
    }

    #[cold]
    fn refuse(&self, why: NoCell) -> QueueError {
        let handle = self.handle;
        match why {
            NoCell::Full => QueueError::Full {
                capacity: self.capacity(),
            },
            NoCell::Closed => QueueError::Closed { handle },
            NoCell::UsedUp { position } => QueueError::UsedUp { handle, position },
        }
    }

    /// This participant's seat, whose lease of the cells is held.
    #[inline]
    fn enter(&self) -> Result<SeatId, LeaseError> {
        let me = self.table.enter()?;
        if self.token.get() != self.table.token() {
            self.lease_again()?;
        }
        Ok(me)
    }

    /// A child's first use of a queue that crossed a fork: the parent's lease says nothing of it.
    #[cold]
    fn lease_again(&self) -> Result<(), LeaseError> {
        let lease = self.table.lease_shared(self.handle)?;
        // The parent's, whose drop does nothing here.
        drop(self.lease.replace(lease));
        self.token.set(self.table.token());
        Ok(())
    }
}

impl<T: Pod> Queue<'_, T> {
    #[inline]
    fn write(&self, ticket: &Ticket, job: &T) {
        let memory = self.table.segment().memory();
        let (offset, size) = (self.cells.job_offset(ticket), size_of::<T>() as u64);
        // A place to die between claiming the cell and writing the job: models die at words alone.
        #[cfg(loom)]
        self.cells.is_closed();
        let _access = memory.track(offset, size, true);
        if let Some(place) = memory.data(offset, size) {
            // SAFETY: `size_of::<T>()` bytes from `place` are inside the mapping (`data`) and inside
            // the queue's extent (`Cells::open`), which the lease keeps; aligned, for extents start
            // on multiples of 64 and cells and jobs in them on multiples of the alignment, at most
            // 64; WRITING by this seat's ticket, so that nobody else accesses them.
            unsafe { place.cast::<T>().write(*job) };
        }
    }

    #[inline]
    fn read(&self, ticket: &Ticket) -> T {
        let memory = self.table.segment().memory();
        let (offset, size) = (self.cells.job_offset(ticket), size_of::<T>() as u64);
        // As in `write`.
        #[cfg(loom)]
        self.cells.is_closed();
        let _access = memory.track(offset, size, false);
        match memory.data(offset, size) {
            // SAFETY: as in `write`; TAKING by this seat's ticket, so that nobody writes there, and
            // any bytes are a `T: Pod`.
            Some(place) => unsafe { place.cast::<T>().read() },
            None => T::zeroed(),
        }
    }
}

impl<T> Drop for Queue<'_, T> {
    fn drop(&mut self) {
        // One that crossed a fork is the parent's. An error says that it was freed before.
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
