//! Errors of queues.

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::names::NameError;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// Error of creating or opening a queue, or of a call on it.
#[derive(ThisError)]
#[non_exhaustive]
pub enum QueueError {
    /// The capacity is 0 or more than 2²⁴.
    #[error("a capacity of {capacity} jobs is out of range: 1 to {limit}")]
    Capacity {
        /// Jobs asked for.
        capacity: usize,
        /// The largest capacity.
        limit: usize,
    },
    /// No cell is free; see [`PushError::Full`], which returns the job.
    #[error(
        "the queue is full: all {capacity} cells hold jobs or are being written or read; pop some, \
         wait with push_timeout, or create it with a larger capacity"
    )]
    Full {
        /// Cells of the queue.
        capacity: usize,
    },
    /// The queue accepts no more jobs; see [`PushError::Closed`], which returns the job.
    #[error("the queue {handle} is closed and accepts no more jobs; create another one")]
    Closed {
        /// The queue.
        handle: AnyHandle,
    },
    /// This participant does not own the array that it pushes.
    #[error(
        "{handle} cannot be pushed: {}",
        match .owner {
            0 => "no participant owns it; adopt it first, or pop it if it is in a queue".to_owned(),
            owner => format!(
                "a participant of process {owner} owns it; let it call detach, then call adopt"
            ),
        }
    )]
    NotOwned {
        /// The array.
        handle: AnyHandle,
        /// The process of the participant that owns it; 0 if none does.
        owner: u32,
    },
    /// The job is bound to the consumer of which this process is a forked child.
    #[error(
        "this process is a forked child of the consumer that popped the job from {handle}; only \
         that consumer can call ack or give_back, so pop the jobs of a child in the child"
    )]
    NotBound {
        /// The queue.
        handle: AnyHandle,
    },
    /// The array left the queue while its job was bound to this consumer.
    #[error(
        "{handle} is not in the queue any more: {}; skip this job",
        match .owner {
            0 => "no participant owns it".to_owned(),
            owner => format!("a participant of process {owner} owns it"),
        }
    )]
    NotQueued {
        /// The array.
        handle: AnyHandle,
        /// The process of the participant that owns it; 0 if none does.
        owner: u32,
    },
    /// The cells have used up all laps that their words can count.
    #[error("the queue {handle} is used up after {position} positions; create another one")]
    UsedUp {
        /// The queue.
        handle: AnyHandle,
        /// The position that the queue has reached.
        position: u64,
    },
    /// The queue's array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The name is invalid, or nothing has it.
    #[error(transparent)]
    Name(NameError),
    /// The cells could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process was forked and could not take a seat of its own, or the search for dead
    /// participants failed.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// A job that was not pushed, with the reason.
#[derive(ThisError)]
#[non_exhaustive]
pub enum PushError<T> {
    /// No cell was free.
    #[error("{}", QueueError::Full { capacity: *.capacity })]
    Full {
        /// The job.
        job: T,
        /// Cells of the queue.
        capacity: usize,
    },
    /// The queue is closed.
    #[error("{}", QueueError::Closed { handle: *.handle })]
    Closed {
        /// The job.
        job: T,
        /// The queue.
        handle: AnyHandle,
    },
    /// The queue cannot be used.
    #[error("{error}")]
    Failed {
        /// The job.
        job: T,
        /// The reason.
        error: QueueError,
    },
}

// By hand: a job need not be printable.
impl<T> core::fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl<T> PushError<T> {
    /// Returns the job.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(1)?;
    /// jobs.push(1)?;
    /// let refused = jobs.push(2).unwrap_err();
    /// assert_eq!(refused.into_job(), 2);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn into_job(self) -> T {
        match self {
            PushError::Full { job, .. }
            | PushError::Closed { job, .. }
            | PushError::Failed { job, .. } => job,
        }
    }

    /// Returns `true` if no cell was free. A later push may succeed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(1)?;
    /// jobs.push(1)?;
    /// assert!(jobs.push(2).unwrap_err().is_full());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        matches!(self, PushError::Full { .. })
    }

    /// Returns `true` if the queue is closed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let jobs = table.queue::<u64>(1)?;
    /// jobs.close();
    /// assert!(jobs.push(2).unwrap_err().is_closed());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        matches!(self, PushError::Closed { .. })
    }

    /// Creates the error for `job` from the reason `error`.
    pub(crate) fn new(job: T, error: QueueError) -> PushError<T> {
        match error {
            QueueError::Full { capacity } => PushError::Full { job, capacity },
            QueueError::Closed { handle } => PushError::Closed { job, handle },
            error => PushError::Failed { job, error },
        }
    }
}

/// Drops the job.
impl<T> From<PushError<T>> for QueueError {
    fn from(refused: PushError<T>) -> QueueError {
        match refused {
            PushError::Full { capacity, .. } => QueueError::Full { capacity },
            PushError::Closed { handle, .. } => QueueError::Closed { handle },
            PushError::Failed { error, .. } => error,
        }
    }
}

impl From<NameError> for QueueError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Lease(error) => QueueError::Lease(error),
            NameError::Alloc(error) => QueueError::Alloc(error),
            NameError::Join(error) => QueueError::Join(error),
            other => QueueError::Name(other),
        }
    }
}

crate::message::debug_is_display!(QueueError);
