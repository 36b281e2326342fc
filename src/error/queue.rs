//! Errors of queues.

use thiserror::Error as ThisError;

use super::{AllocError, Error, JoinError, LeaseError};
use crate::handle::AnyHandle;

/// Why a queue could not be made or opened, or why a call on it failed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum QueueError {
    /// A queue has between one cell and 2²⁴.
    #[error("a queue for {capacity} jobs: it can be made for 1 to {limit}")]
    Capacity {
        /// Jobs asked for.
        capacity: usize,
        /// The most there can be.
        limit: usize,
    },
    /// The handle names something else, or a queue of another type of job.
    #[error(
        "{handle} is not a queue of {expected} ({size} bytes): open it with the type it was made \
         with, by a program that gives it the same name"
    )]
    NotThisQueue {
        /// The handle.
        handle: AnyHandle,
        /// The type of job that the handle is for.
        expected: &'static str,
        /// Bytes of such a job.
        size: usize,
    },
    /// No cell is free; see [`PushError::Full`], which has the job.
    #[error(
        "the queue is full: all its {capacity} cells hold jobs or are being written or read; pop \
         some, wait with push_wait, or make it for more"
    )]
    Full {
        /// Cells of the queue.
        capacity: usize,
    },
    /// The queue takes no more jobs; see [`PushError::Closed`], which has the job.
    #[error("the queue {handle} is closed: it takes no more jobs; make another one")]
    Closed {
        /// The queue.
        handle: AnyHandle,
    },
    /// The array is not its pusher's to give away.
    #[error(
        "{handle} cannot be pushed: {} owns it; adopt it first, or pop it if it is in a queue",
        match .owner {
            0 => "no participant".to_owned(),
            owner => format!("a participant of process {owner}"),
        }
    )]
    NotOwned {
        /// The array.
        handle: AnyHandle,
        /// The process whose participant owns it; 0 if none does.
        owner: u32,
    },
    /// Its cells have gone through all the laps that their words can count.
    #[error("the queue {handle} is used up after {position} positions; make another one")]
    UsedUp {
        /// The queue.
        handle: AnyHandle,
        /// Where it has come to.
        position: u64,
    },
    /// The queue's array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The cells could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process has crossed a fork and could not take a seat of its own, or the dead could not
    /// be looked for.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// A job that was not pushed, and why.
#[derive(Debug, ThisError)]
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
        /// Why.
        error: QueueError,
    },
}

impl<T> PushError<T> {
    /// The job.
    pub fn into_job(self) -> T {
        match self {
            PushError::Full { job, .. }
            | PushError::Closed { job, .. }
            | PushError::Failed { job, .. } => job,
        }
    }

    /// Whether it was refused because no cell was free: later there may be one.
    pub fn is_full(&self) -> bool {
        matches!(self, PushError::Full { .. })
    }

    /// Whether it was refused because the queue is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, PushError::Closed { .. })
    }

    /// The refusal of `job` for the reason that `error` gives.
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

/// Drops the job.
impl<T> From<PushError<T>> for Error {
    fn from(refused: PushError<T>) -> Error {
        Error::Queue(refused.into())
    }
}
