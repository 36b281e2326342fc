//! The error of copying bytes of an array.

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::message::Bytes;
use crate::table::error::LeaseError;

/// Error of copying bytes of an array by an observer.
#[derive(ThisError)]
#[non_exhaustive]
pub enum CopyError {
    /// There is no such array, or its descriptor is damaged.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The requested bytes extend beyond the array.
    #[error(
        "{handle} has {:#}: {:#} from byte {offset} on are out of range",
        Bytes(*bytes),
        Bytes(*len)
    )]
    Range {
        /// The handle.
        handle: AnyHandle,
        /// The first requested byte, from the start of the array.
        offset: u64,
        /// Number of requested bytes.
        len: u64,
        /// Bytes of the array.
        bytes: u64,
    },
    /// The system could not read the segment's file.
    #[error("{handle}: the segment's file cannot be read (was it truncated?): {source}")]
    Read {
        /// The handle.
        handle: AnyHandle,
        /// The system's error.
        source: std::io::Error,
    },
}

crate::message::debug_is_display!(CopyError);
