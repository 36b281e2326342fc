//! The error of joining a table.

use thiserror::Error as ThisError;

use crate::segment::{ForeignLock, SegmentError};

/// Error of joining a table.
#[derive(ThisError)]
#[non_exhaustive]
pub enum JoinError {
    /// All seats are held by living participants.
    #[error(
        "all {seats} seats of the segment are taken (pids {holders:?} and others); let a \
         participant leave, or create the segment with SegmentOptions::seats({})", seats * 2
    )]
    SeatsFull {
        /// Seats of the segment.
        seats: usize,
        /// Pids of the first holders.
        holders: Vec<u32>,
    },
    /// No seat is free, and a seat that no living participant holds is locked by a process outside
    /// the crate.
    #[error("{locked} of the segment's {seats} seats cannot be taken: {lock}")]
    SeatLocked {
        /// Seats of the segment.
        seats: usize,
        /// Seats with a foreign lock.
        locked: usize,
        /// One of the locks.
        lock: ForeignLock,
    },
    /// The segment could not be opened for this participant.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

crate::message::debug_is_display!(JoinError);
