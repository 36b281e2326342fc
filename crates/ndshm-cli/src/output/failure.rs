//! Exit codes of the tool, and the reasons why commands fail.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use ndshm::Error;
use ndshm::error::{
    BundleError, JoinError, LeaseError, NameError, NpyError, ObjectError, SegmentError,
};

use super::escaped;

/// Exit code of the tool. The numbers are stable: see `ndshm --help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Done, nothing is wrong.
    Done = 0,
    /// Something is damaged or poisoned, or needs a remedy.
    Problem = 1,
    /// The arguments are invalid.
    Usage = 2,
    /// No such segment, array or file.
    NotFound = 3,
    /// The system or another process refused.
    Refused = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// The reason why a command failed.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    /// `true` if the reader of the output has left: that is no error, so report nothing.
    silent: bool,
}

impl Failure {
    /// Returns a failure with this exit code.
    pub fn new(code: Code, message: impl fmt::Display) -> Failure {
        Failure {
            code,
            message: message.to_string(),
            silent: false,
        }
    }

    /// Returns a failure for arguments that do not fit together or do not fit their subject.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    /// Returns a failure for something that does not exist.
    pub fn not_found(message: impl fmt::Display) -> Failure {
        Failure::new(Code::NotFound, message)
    }

    /// Returns a failure for something that the system or another process refused.
    pub fn refused(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Refused, message)
    }

    /// Returns a failure for damage.
    pub fn damaged(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Problem, message)
    }

    /// Prints the message on standard error.
    pub fn report(self) -> ExitCode {
        if !self.silent {
            // Ignore the result: there is no other place to report a failed write.
            let _ = writeln!(io::stderr(), "ndshm: {}", escaped(&self.message));
        }
        self.code.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<io::Error> for Failure {
    /// Converts an error of writing the output. Callers convert errors of files, to name the file.
    fn from(error: io::Error) -> Failure {
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        Failure {
            code: if silent { Code::Done } else { Code::Refused },
            message: format!("the output cannot be written: {error}"),
            silent,
        }
    }
}

impl From<SegmentError> for Failure {
    fn from(error: SegmentError) -> Failure {
        let code = match &error {
            SegmentError::NotFound { .. } => Code::NotFound,
            SegmentError::Name { .. } => Code::Usage,
            SegmentError::NotOurs { .. }
            | SegmentError::Version { .. }
            | SegmentError::NotInitialized { .. } => Code::Problem,
            _ => Code::Refused,
        };
        match error {
            // The library's text names a method; print a command instead.
            SegmentError::NotFound { name } => Failure::not_found(format_args!(
                "there is no segment named {name:?}: ndshm ls lists the segments"
            )),
            error => Failure::new(code, error),
        }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Failure {
        let code = match &error {
            LeaseError::Stale { .. } => Code::NotFound,
            LeaseError::Corrupt { .. }
            | LeaseError::InvalidElement { .. }
            | LeaseError::OutOfRange { .. }
            | LeaseError::Unreadable { .. }
            | LeaseError::Poisoned { .. } => Code::Problem,
            LeaseError::WrongKind(_) => Code::Usage,
            _ => Code::Refused,
        };
        Failure::new(code, error)
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        let code = match &error {
            NameError::NotFound { .. } => Code::NotFound,
            NameError::Length { .. } => Code::Usage,
            NameError::Corrupt { .. } => Code::Problem,
            _ => Code::Refused,
        };
        match error {
            // The library's text names a method; print a command instead.
            NameError::NotFound { name } => {
                Failure::not_found(format_args!("nothing is called {name:?}: see ndshm show"))
            }
            error => Failure::new(code, error),
        }
    }
}

impl From<NpyError> for Failure {
    fn from(error: NpyError) -> Failure {
        let code = match &error {
            NpyError::Lease(LeaseError::OutOfRange { .. } | LeaseError::Unreadable { .. }) => {
                Code::Problem
            }
            NpyError::Lease(_) => Code::NotFound,
            NpyError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => Code::NotFound,
            NpyError::Io { .. } | NpyError::Alloc { .. } => Code::Refused,
            NpyError::NotAFile { .. } | NpyError::NotInNumpy { .. } => Code::Usage,
            _ => Code::Problem,
        };
        Failure::new(code, error)
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Failure {
        match error {
            BundleError::Lease(error) => error.into(),
            BundleError::Name(error) => error.into(),
            error => Failure::refused(error),
        }
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Failure {
        match error {
            ObjectError::Lease(error) => error.into(),
            error => Failure::damaged(error),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Failure {
        Failure::refused(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Segment(error) => error.into(),
            Error::Lease(error) => error.into(),
            error => Failure::refused(error),
        }
    }
}
