//! Output of the tool: exit codes, JSON, colour, tables.

mod screen;
mod table;
mod text;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use ndshm::{CopyError, Error, JoinError, LeaseError, NameError, NpyError, SegmentError};
use serde_json::Value;

pub use table::{Align, Table};
pub use text::{age, bytes, shown};

/// Exit code of the tool. The numbers are stable: see `ndshm --help`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Done, nothing is wrong.
    Done = 0,
    /// Something is damaged or poisoned, or needs a remedy.
    Wanting = 1,
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
        Failure::new(Code::Wanting, message)
    }

    /// Prints the message on standard error.
    pub fn report(self) -> ExitCode {
        if !self.silent {
            // Ignore the result: there is no other place to report a failed write.
            let _ = writeln!(io::stderr(), "ndshm: {}", shown(&self.message));
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
            | SegmentError::Unfinished { .. } => Code::Wanting,
            _ => Code::Refused,
        };
        Failure::new(code, error)
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Failure {
        let code = match &error {
            LeaseError::Stale { .. } => Code::NotFound,
            LeaseError::Corrupt { .. }
            | LeaseError::InvalidElement { .. }
            | LeaseError::Poisoned { .. } => Code::Wanting,
            LeaseError::TypeMismatch(_) => Code::Usage,
            _ => Code::Refused,
        };
        Failure::new(code, error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Failure {
        match error {
            CopyError::Lease(error) => error.into(),
            error => Failure::damaged(error),
        }
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        let code = match &error {
            NameError::NotFound { .. } => Code::NotFound,
            NameError::Length { .. } => Code::Usage,
            NameError::Corrupt { .. } => Code::Wanting,
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
            NpyError::Copy(CopyError::Lease(_)) | NpyError::Lease(_) => Code::NotFound,
            NpyError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => Code::NotFound,
            NpyError::Io { .. } | NpyError::Alloc { .. } => Code::Refused,
            NpyError::NotAFile { .. } | NpyError::NotInNumpy { .. } => Code::Usage,
            _ => Code::Wanting,
        };
        Failure::new(code, error)
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

/// Style of a piece of text on a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Style {
    /// Unchanged.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Less important than the rest.
    Dim,
    /// In order.
    Good,
    /// Suspicious.
    Warn,
    /// Wrong.
    Bad,
}

impl Style {
    fn code(self) -> Option<&'static str> {
        match self {
            Style::Plain => None,
            Style::Bold => Some("1"),
            Style::Dim => Some("2"),
            Style::Good => Some("32"),
            Style::Warn => Some("33"),
            Style::Bad => Some("31"),
        }
    }
}

/// Standard output: text for people, or one JSON document.
pub struct Output {
    json: bool,
    colour: bool,
}

impl Output {
    /// Uses colour only for text on a terminal, unless `NO_COLOR` is set and not empty or `TERM` is
    /// `dumb`.
    pub fn new(json: bool) -> Output {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Output {
            json,
            colour: !json && !unwanted && io::stdout().is_terminal(),
        }
    }

    /// Returns `true` if the user asked for JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Returns `true` if the output may have colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Prints the JSON document.
    pub fn document(&self, value: &Value) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, value).map_err(io::Error::from)?;
        writeln!(stdout)?;
        stdout.flush()?;
        Ok(())
    }

    /// Prints a line.
    pub fn line(&self, text: impl fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(io::stdout(), "{text}")?)
    }

    /// Prints an empty line and a heading.
    pub fn heading(&self, text: &str) -> Result<(), Failure> {
        self.line("")?;
        self.line(self.paint(Style::Bold, text))
    }

    /// Returns the text in this style, or unchanged if the output has no colour.
    pub fn paint(&self, style: Style, text: impl fmt::Display) -> String {
        match style.code() {
            Some(code) if self.colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_string(),
        }
    }
}
