//! Errors of objects.

use core::fmt;

use thiserror::Error as ThisError;

use super::{AllocError, LeaseError};
use crate::handle::AnyHandle;

/// Why an object could not be stored, opened or read.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ObjectError {
    /// The handle names something else.
    #[error("{handle} is not an object but {found}: open it with the type it was made with")]
    NotAnObject {
        /// The handle.
        handle: AnyHandle,
        /// What it names.
        found: String,
    },
    /// The object was stored by a version of this crate that stores them otherwise.
    #[error(
        "{handle} is an object of format {found}, and this program reads format {expected}: store \
         and read it with the same version of ndshm"
    )]
    Version {
        /// The handle.
        handle: AnyHandle,
        /// The format it has.
        found: u32,
        /// The format that can be read.
        expected: u32,
    },
    /// The value and the type do not fit, or the value's own code refused.
    #[error("{message}{}", place(*.at, .name))]
    Value {
        /// What was found and what was expected, or what the value's code says.
        message: String,
        /// How far the reader had come, in bytes from the start of the values; `None` where the
        /// value was being written.
        at: Option<usize>,
        /// The field that was read or written last; empty if there was none.
        name: String,
    },
    /// Values are nested too deeply, as in a list whose every item holds the next one.
    #[error("values are nested more than {limit} deep: store long chains as a sequence")]
    TooDeep {
        /// The most that can be.
        limit: usize,
    },
    /// The value did not write the same twice.
    #[error(
        "the value's Serialize wrote something else the second time, in {what}: it is asked twice, \
         for the size and for the contents, and must not change in between"
    )]
    Changed {
        /// Where the first difference was noticed.
        what: &'static str,
    },
    /// The bytes are none that an object consists of.
    #[error("the object is damaged at byte {at} of its values: {what}; store it again")]
    Corrupt {
        /// Where, in bytes from the start of the values.
        at: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// The guard was made by the process that this one was forked from.
    #[error(
        "this guard has crossed a fork: its lease is the parent's; open the object in this process"
    )]
    Forked,
    /// The object's array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
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
