//! Errors of names.

use core::time::Duration;

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::memory::Corrupt;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// Error of giving, finding or removing a name. No name is changed by a call that fails.
#[derive(ThisError)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty or longer than 255 bytes.
    #[error("a name of {length} bytes ({start:?}) is invalid: a name has 1 to 255 bytes of UTF-8")]
    Length {
        /// Bytes of the name.
        length: usize,
        /// The beginning of the name.
        start: String,
    },
    /// Another array, queue or bundle has the name.
    #[error(
        "{name:?} already names {handle} (named by process {pid}): choose another name, unpublish \
         this one, or replace the array that it names"
    )]
    Taken {
        /// The name.
        name: String,
        /// The handle that has the name.
        handle: AnyHandle,
        /// The process that gave the name.
        pid: u32,
    },
    /// Nothing has the name, or the array that had it was freed.
    #[error("nothing is called {name:?}; names(\"\") lists all names")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Nothing got the name in time.
    #[error(
        "nothing was called {name:?} within {waited:?}: start the program that gives the name, or \
         wait longer; names(\"\") lists all names"
    )]
    NotGiven {
        /// The name.
        name: String,
        /// The time that the caller waited.
        waited: Duration,
    },
    /// The array that has the name has another shape than the one that is to be created.
    #[error(
        "{name:?} names {handle}, whose shape is {found:?} and not {expected:?}: ask for the shape \
         that it has, or unpublish the name"
    )]
    Shape {
        /// The name.
        name: String,
        /// The array that has the name.
        handle: AnyHandle,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the caller asked for.
        expected: Vec<usize>,
    },
    /// The handle is stale, or has another type.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Memory for the record of the name, or for a new array, could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// More names share one bucket than a record holds.
    #[error(
        "{names} names in one bucket, but at most 65,535 fit: create the segment with more \
         SegmentOptions::arrays"
    )]
    Crowded {
        /// Names in the bucket.
        names: usize,
    },
    /// The table of names holds bytes that no participant writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

crate::message::debug_is_display!(NameError);
