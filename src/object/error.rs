//! Errors of objects.

use core::fmt;

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::names::NameError;
use crate::table::error::{AllocError, LeaseError};

/// Error of storing, opening or reading an object.
#[derive(ThisError)]
#[non_exhaustive]
pub enum ObjectError {
    /// The object was stored in the format of another version of this crate.
    #[error(
        "{handle} is an object of format {found}, and this program reads format {expected}: store \
         and read it with the same version of ndshm"
    )]
    Version {
        /// The handle.
        handle: AnyHandle,
        /// The format of the object.
        found: u32,
        /// The format that this program reads.
        expected: u32,
    },
    /// The value and the type do not fit, or the value's own code returned an error.
    #[error("{message}{}", place(*.at, .name))]
    Value {
        /// The mismatch, or the message of the value's code.
        message: String,
        /// The reader's position, in bytes from the start of the values; `None` if the error
        /// occurred while the value was written.
        at: Option<usize>,
        /// The field that was read or written last; empty if there was none.
        name: String,
    },
    /// Values are nested too deeply, as in a linked list.
    #[error("values are nested more than {limit} deep: store long chains as a sequence")]
    TooDeep {
        /// The deepest nesting that is supported.
        limit: usize,
    },
    /// The value was serialized differently the second time.
    #[error(
        "the value's Serialize wrote something else the second time, in {what}: it runs twice, for \
         the size and for the contents, and its output must not change in between"
    )]
    Changed {
        /// The place of the first difference that was noticed.
        what: &'static str,
    },
    /// The bytes are not those of an object.
    #[error("the object is damaged at byte {at} of its values: {what}; store it again")]
    Corrupt {
        /// The place of the damage, in bytes from the start of the values.
        at: usize,
        /// The check that failed.
        what: &'static str,
    },
    /// The guard belongs to the process that this one was forked from.
    #[error("this guard's lease belongs to the parent process: open the object in this process")]
    Forked,
    /// The object's array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The name is invalid, or nothing has it.
    #[error(transparent)]
    Name(NameError),
    /// The object's array could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

fn place(at: Option<usize>, name: &str) -> String {
    let near = match name {
        "" => String::new(),
        name => format!(", in or after the field {name:?}"),
    };
    match at {
        Some(at) => format!(" (at byte {at} of the object's values{near})"),
        None => near,
    }
}

fn value(message: impl fmt::Display) -> ObjectError {
    ObjectError::Value {
        message: message.to_string(),
        at: None,
        name: String::new(),
    }
}

impl serde::ser::Error for ObjectError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        value(message)
    }
}

impl serde::de::Error for ObjectError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        value(message)
    }
}

impl From<NameError> for ObjectError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Lease(error) => ObjectError::Lease(error),
            NameError::Alloc(error) => ObjectError::Alloc(error),
            NameError::Join(error) => ObjectError::Lease(error.into()),
            other => ObjectError::Name(other),
        }
    }
}

crate::message::debug_is_display!(ObjectError);
