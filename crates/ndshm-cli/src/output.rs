//! Output of the tool: exit codes, JSON, colour, tables.

mod failure;
mod screen;
mod table;
mod text;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

pub use failure::{Code, Failure};
pub use table::{Align, Table};
pub use text::{age, bytes, counted, escaped};

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
