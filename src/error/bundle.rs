//! Why a call on a bundle failed.

use thiserror::Error as ThisError;

use super::{AllocError, JoinError, LeaseError, NameError};
use crate::handle::AnyHandle;

/// Why a bundle could not be made, opened or changed. Nothing is changed then.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum BundleError {
    /// The handle names an array, a partition or a queue.
    #[error("{handle} is no bundle: open it as what it was made as")]
    NotABundle {
        /// The handle.
        handle: AnyHandle,
    },
    /// Another part has the name.
    #[error("the bundle has a part {name:?} already, {handle}: remove it, or choose another name")]
    Taken {
        /// The name.
        name: String,
        /// The part that has it.
        handle: AnyHandle,
    },
    /// No part has the name.
    #[error("the bundle has no part {name:?}; parts() lists them")]
    NotFound {
        /// The name.
        name: String,
    },
    /// What is put in must be an array that this participant owns.
    #[error(
        "{handle} is not this participant's to give away (its owner: process {owner}, 0 for nobody or \
         a bundle): adopt it first; bundles and queues cannot be parts"
    )]
    NotOwned {
        /// What was to be put in.
        handle: AnyHandle,
        /// The process that owns it; 0 for none.
        owner: u32,
    },
    /// Somebody has frozen the bundle.
    #[error("the bundle {handle} is frozen: make another one of its parts' copies")]
    Frozen {
        /// The bundle.
        handle: AnyHandle,
    },
    /// The name is none, nothing is called so, or the bundle's words are damaged.
    #[error(transparent)]
    Name(NameError),
    /// The bundle or the array is stale, is being written, or is of another type.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No memory for the bundle's record.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process has crossed a fork and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}
