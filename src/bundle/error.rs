//! Errors of bundles.

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::names::NameError;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// Error of creating, opening or changing a bundle. The bundle is unchanged after it.
#[derive(ThisError)]
#[non_exhaustive]
pub enum BundleError {
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
    /// The handle is not that of an array that this participant owns.
    #[error(
        "{handle} cannot be put into the bundle: this participant does not own it (owner: process \
         {owner}, 0 for none or a bundle); let its owner call detach, then call adopt; bundles and \
         queues cannot be parts"
    )]
    NotOwned {
        /// The handle that the call was given.
        handle: AnyHandle,
        /// The process that owns it; 0 for none.
        owner: u32,
    },
    /// A participant has frozen the bundle.
    #[error("the bundle {handle} is frozen: create another one from copies of its parts")]
    Frozen {
        /// The bundle.
        handle: AnyHandle,
    },
    /// The name is invalid or unknown, or the bundle's words are damaged.
    #[error(transparent)]
    Name(NameError),
    /// The bundle or the array is stale, is being written, or has another type.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Memory for the bundle's record could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

crate::message::debug_is_display!(BundleError);
