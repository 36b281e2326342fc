//! Errors of reading and writing numpy's files.

use std::io;

use thiserror::Error as ThisError;

use crate::element::{InvalidElement, LayoutError};
use crate::handle::AnyHandle;
use crate::table::error::{AllocError, LeaseError};

/// Error of loading an array from a file, or of saving one.
///
/// A failed load allocates nothing. A failed save leaves the previous file in place.
///
/// `file` is the file's path. For an array of a `.npz` file it includes the array's name, as in
/// `"run.npz[positions]"`.
#[derive(ThisError)]
#[non_exhaustive]
pub enum NpyError {
    /// The system returned an error.
    #[error("{file}: could not {what}: {error}")]
    Io {
        /// The file.
        file: String,
        /// The attempted operation.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("{file} is not a regular file: copy its contents into a regular file first")]
    NotAFile {
        /// The path.
        file: String,
    },
    /// The bytes are not in the format.
    #[error("{file} is damaged, or not a numpy file: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// The problem.
        problem: String,
    },
    /// The file has fewer bytes than its elements need.
    #[error(
        "{file} is truncated: its elements take {expected} bytes, but it has {found}; write it \
         again"
    )]
    CutOff {
        /// The file.
        file: String,
        /// Bytes that shape and type require.
        expected: u64,
        /// Bytes that the file has at most.
        found: u64,
    },
    /// ndshm does not have this element type of numpy.
    #[error(
        "{file} has elements of {dtype}{}, which arrays in shared memory cannot hold: {remedy}",
        .field.as_ref().map_or(String::new(), |field| format!(" in field {field:?}"))
    )]
    Type {
        /// The file.
        file: String,
        /// The type, as named in the file.
        dtype: String,
        /// The field that has it.
        field: Option<String>,
        /// The remedy, with an expression to type in numpy, where `a` is the array.
        remedy: String,
    },
    /// The file's fields do not form a record.
    #[error("{file} has fields that do not form a record: {error}{remedy}")]
    Layout {
        /// The file.
        file: String,
        /// The problem.
        error: LayoutError,
        /// The remedy, if the error does not contain it.
        remedy: String,
    },
    /// A byte of an array of bools is neither 0 nor 1.
    #[error(
        "{file}: element {} holds the byte {:#04x}, but a bool is 0 or 1: convert it in numpy, as \
         by `a.view('u1') != 0`",
        .error.index, .error.value
    )]
    NotBool {
        /// The file.
        file: String,
        /// The invalid byte and its place.
        error: InvalidElement,
    },
    /// numpy does not have this element type.
    #[error(
        "{handle} has elements of {dtype}{}, for which numpy has no type: save them as two columns \
         of 64 bits",
        .field.as_ref().map_or(String::new(), |field| format!(" in field {field:?}"))
    )]
    NotInNumpy {
        /// The array.
        handle: AnyHandle,
        /// The type.
        dtype: crate::element::ScalarType,
        /// The field that has it.
        field: Option<String>,
    },
    /// An opaque type's text names no element type of numpy of its size.
    #[error(
        "{handle} has elements of {dtype}, and the text names no type of numpy with elements of \
         that size: create such arrays with numpy's dtype.str or dtype.descr as the text, or save \
         their bytes as an array of u8"
    )]
    OpaqueNotInNumpy {
        /// The array.
        handle: AnyHandle,
        /// The type.
        dtype: crate::element::DType,
    },
    /// The name is not possible for an array of a `.npz` file.
    #[error(
        "invalid array name {name:?} for a .npz file{}: use each name once, not empty, and of at \
         most {limit} bytes", if *.twice { ", used twice" } else { "" }
    )]
    Name {
        /// The name.
        name: String,
        /// `true` if another array has the same name.
        twice: bool,
        /// Bytes of the longest possible name.
        limit: usize,
    },
    /// The `.npz` file has no member of this name.
    #[error("{file} has no array {name:?}: it has {}", list(.names))]
    NoMember {
        /// The file.
        file: String,
        /// The requested name.
        name: String,
        /// The names of its members.
        names: Vec<String>,
    },
    /// The array could not be allocated.
    #[error("{file}: {error}")]
    Alloc {
        /// The file.
        file: String,
        /// The error of the allocation.
        error: AllocError,
    },
    /// The array could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

/// Error of reading a header, or the element type in it, before the file's name is known.
#[derive(Debug)]
pub(super) enum HeaderError {
    Io(io::Error),
    /// The bytes are not a header.
    Damaged(String),
    /// A type that ndshm lacks.
    Type {
        dtype: String,
        field: Option<String>,
        remedy: String,
    },
    /// The fields do not form a record.
    Layout {
        error: LayoutError,
        remedy: String,
    },
}

/// Lists names for an error; only the first ones if there are many.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 16;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|n| format!("{n:?}")).collect();
    match names.len() {
        0 => "none".to_owned(),
        1..=SHOWN => shown.join(", "),
        all => format!("{} and {} more", shown.join(", "), all - SHOWN),
    }
}

impl NpyError {
    /// Adds another remedy to the error of a type that ndshm lacks.
    pub(super) fn with_remedy(mut self, other: &str) -> NpyError {
        if let NpyError::Type { remedy, .. } | NpyError::Layout { remedy, .. } = &mut self {
            *remedy += "; ";
            *remedy += other;
        }
        self
    }

    /// Returns `true` if the cause is in the file's contents, and `false` if it is the system, the
    /// segment or its memory.
    pub(super) fn is_of_the_file(&self) -> bool {
        match self {
            NpyError::Damaged { .. }
            | NpyError::CutOff { .. }
            | NpyError::Type { .. }
            | NpyError::Layout { .. }
            | NpyError::NotBool { .. } => true,
            NpyError::Alloc { error, .. } => matches!(error, AllocError::TooManyAxes { .. }),
            _ => false,
        }
    }

    pub(super) fn io(file: &str, what: &'static str) -> impl FnOnce(io::Error) -> NpyError {
        move |error| NpyError::Io {
            file: file.to_owned(),
            what,
            error,
        }
    }

    pub(super) fn damaged(file: &str, problem: impl Into<String>) -> NpyError {
        NpyError::Damaged {
            file: file.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn header(file: &str) -> impl FnOnce(HeaderError) -> NpyError {
        move |error| {
            let file = file.to_owned();
            match error {
                HeaderError::Io(error) => NpyError::io(&file, "read its header")(error),
                HeaderError::Damaged(problem) => NpyError::Damaged { file, problem },
                HeaderError::Layout { error, remedy } => NpyError::Layout {
                    file,
                    error,
                    remedy,
                },
                HeaderError::Type {
                    dtype,
                    field,
                    remedy,
                } => NpyError::Type {
                    file,
                    dtype,
                    field,
                    remedy,
                },
            }
        }
    }

    pub(super) fn alloc(file: &str) -> impl FnOnce(AllocError) -> NpyError {
        move |error| NpyError::Alloc {
            file: file.to_owned(),
            error,
        }
    }
}

crate::message::debug_is_display!(NpyError);
