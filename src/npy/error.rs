//! Why a file was not read or written.

use std::io;

use thiserror::Error as ThisError;

use super::dtype::Refused;
use super::header::HeaderError;
use crate::element::{InvalidElement, LayoutError};
use crate::error::{AllocError, CopyError, LeaseError};
use crate::handle::AnyHandle;

/// Why an array could not be loaded from a file, or saved to one.
///
/// A failed load leaves nothing allocated. A failed save leaves the file that was there before.
///
/// `file` is the file's path, and for an array of a `.npz` file also its name, as in
/// `"run.npz[positions]"`.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum NpyError {
    /// The system refused.
    #[error("{file}: could not {what}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("{file} is no regular file: write what it gives into one first")]
    NotAFile {
        /// Its path.
        file: String,
    },
    /// The bytes are not of the format.
    #[error("{file} is damaged, or no file of numpy: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The elements are not all there.
    #[error(
        "{file} is cut off: its elements take {expected} bytes, and there are {found}; write it \
         anew"
    )]
    CutOff {
        /// The file.
        file: String,
        /// Bytes that shape and type demand.
        expected: u64,
        /// Bytes that there are, at most.
        found: u64,
    },
    /// An element type of numpy that ndshm does not have.
    #[error(
        "{file} has elements of {dtype}{}, which arrays in shared memory cannot hold: {remedy}",
        .field.as_ref().map_or(String::new(), |field| format!(" in field {field:?}"))
    )]
    Type {
        /// The file.
        file: String,
        /// The type, as the file names it.
        dtype: String,
        /// The field that has it.
        field: Option<String>,
        /// What to do about it, with an expression to type in numpy, where `a` is the array.
        remedy: String,
    },
    /// The file's fields make no record.
    #[error("{file} has fields that make no record: {error}{remedy}")]
    Layout {
        /// The file.
        file: String,
        /// What is wrong with them.
        error: LayoutError,
        /// What to do about it, where the error does not say it.
        remedy: String,
    },
    /// A byte of an array of bools that is neither 0 nor 1.
    #[error(
        "{file}: element {} holds the byte {:#04x}, but a bool is 0 or 1: make it one in numpy, as by \
         `a.view('u1') != 0`",
        .error.index, .error.value
    )]
    NotBool {
        /// The file.
        file: String,
        /// Which element, and what it holds.
        error: InvalidElement,
    },
    /// An element type that numpy does not have.
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
    /// A name that an array of a `.npz` file cannot have.
    #[error(
        "{name:?} cannot name an array of a .npz file{}: use each name once, not empty, and of at \
         most {limit} bytes", if *.twice { " a second time" } else { "" }
    )]
    Name {
        /// The name.
        name: String,
        /// Whether another array has it.
        twice: bool,
        /// Bytes of the longest name.
        limit: usize,
    },
    /// A `.npz` file has no member of that name.
    #[error("{file} has no array {name:?}: it has {}", list(.names))]
    NoMember {
        /// The file.
        file: String,
        /// The name that was asked for.
        name: String,
        /// The names of its members.
        names: Vec<String>,
    },
    /// The array could not be allocated.
    #[error("{file}: {error}")]
    Alloc {
        /// The file.
        file: String,
        /// Why not.
        error: AllocError,
    },
    /// The array could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// An observer could not copy the array.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// Names for an error: the first of them, if there are many.
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
    /// Adds another way out to the error of a type that ndshm lacks.
    pub(super) fn with_remedy(mut self, other: &str) -> NpyError {
        if let NpyError::Type { remedy, .. } | NpyError::Layout { remedy, .. } = &mut self {
            *remedy += "; ";
            *remedy += other;
        }
        self
    }

    /// Returns `true` if the file's contents are the reason, and `false` if the system, the segment
    /// or its memory is.
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
                HeaderError::Refused(Refused::Damaged(problem)) => {
                    NpyError::Damaged { file, problem }
                }
                HeaderError::Refused(Refused::Layout { error, remedy }) => NpyError::Layout {
                    file,
                    error,
                    remedy,
                },
                HeaderError::Refused(Refused::Type {
                    dtype,
                    field,
                    remedy,
                }) => NpyError::Type {
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
