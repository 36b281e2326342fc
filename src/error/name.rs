//! Why a call on names failed.

use thiserror::Error as ThisError;

use super::{AllocError, JoinError, LeaseError};
use crate::handle::AnyHandle;

/// Why a name could not be given, found or taken away. Nothing is changed then.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum NameError {
    /// A name has 1 to 255 bytes.
    #[error("a name of {length} bytes ({start:?}): it must have 1 to 255 bytes of UTF-8")]
    Length {
        /// Its bytes.
        length: usize,
        /// How it begins.
        start: String,
    },
    /// Something else has the name.
    #[error(
        "{name:?} is the name of {handle}, given by process {pid}: choose another one, unpublish it, \
         or replace what it stands for"
    )]
    Taken {
        /// The name.
        name: String,
        /// What it stands for.
        handle: AnyHandle,
        /// Who gave it.
        pid: u32,
    },
    /// Nothing has the name, or what had it was freed.
    #[error("nothing is called {name:?}; names(\"\") lists what is")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The handle is stale, or is of another type.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No memory for the record of the name.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process has crossed a fork and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// More names have met in one bucket than a record holds.
    #[error(
        "{names} names in one bucket, at most 65,535 fit: create the segment with more SegmentOptions::arrays"
    )]
    Crowded {
        /// Names in the bucket.
        names: usize,
    },
    /// The table of names holds bytes that no participant writes.
    #[error("the segment is damaged at byte {offset:#x}: {what}")]
    Corrupt {
        /// Where, in bytes from the start of the segment.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
}
