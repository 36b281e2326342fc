//! `ndshm doctor`: checks whether this system's limits suit shared memory.

mod checks;
mod memory;

use ndshm::{HandleTable, Segment};
use serde_json::{Value, json};

use crate::output::{Align, Code, Failure, Output, Style, Table, bytes};

const HELP: &str = "\
Checks /dev/shm, the memory of the machine and of this process's memory cgroups, kernel settings, \
the limits of this process (other processes may have other limits) and leftovers of crashed \
programs, and makes a small segment of its own.

JSON: a list of {check, status: ok|warn|fail, found, remedy}; `remedy` is null if none is needed. \
Exit code 1 if a check fails.";

/// Check the system's limits on shared memory, and print remedies
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {}

/// Result of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// No problem.
    Ok,
    /// A problem is possible.
    Warn,
    /// There is a problem.
    Fail,
}

/// A check and its result.
pub struct Check {
    name: &'static str,
    status: Status,
    found: String,
    remedy: Option<&'static str>,
}

impl Check {
    /// Returns a check that found no problem.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// Returns a check that found a possible problem.
    pub fn warn(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Check {
        Check {
            status: Status::Warn,
            remedy: Some(remedy),
            ..Check::ok(name, found)
        }
    }

    /// Returns a check that found a problem.
    pub fn fail(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Check {
        Check {
            status: Status::Fail,
            ..Check::warn(name, found, remedy)
        }
    }
}

/// Runs all checks and prints them.
pub fn run(_: &Args, out: &Output) -> Result<Code, Failure> {
    let mut all = vec![probe()];
    all.extend(checks::shm());
    all.extend(memory::checks());
    all.extend(checks::kernel());
    all.extend(checks::limits());
    all.push(checks::leftovers());
    all.push(checks::user_namespace());
    match out.json() {
        true => out.document(&all.iter().map(document).collect())?,
        false => print(&all, out)?,
    }
    Ok(match all.iter().any(|check| check.status == Status::Fail) {
        true => Code::Problem,
        false => Code::Done,
    })
}

/// Makes a segment, joins it and writes an array.
fn probe() -> Check {
    const NAME: &str = "a segment of its own";
    let made = || -> ndshm::Result<u64> {
        let segment = Segment::anonymous()?;
        let table = HandleTable::join(&segment)?;
        let array = table.from_elem(1 << 16, 1u8)?;
        drop(table.read(array)?);
        table.free(array)?;
        Ok(segment.capacity())
    };
    match made() {
        Ok(capacity) => Check::ok(NAME, format!("{} of address space", bytes(capacity))),
        Err(error) => Check::fail(
            NAME,
            error.to_string(),
            "memfd_create, open-file-description locks and a mounted /proc are needed",
        ),
    }
}

fn status(status: Status) -> (&'static str, Style) {
    match status {
        Status::Ok => ("ok", Style::Good),
        Status::Warn => ("warn", Style::Warn),
        Status::Fail => ("fail", Style::Bad),
    }
}

fn document(check: &Check) -> Value {
    json!({
        "check": check.name,
        "status": status(check.status).0,
        "found": check.found,
        "remedy": check.remedy,
    })
}

fn print(all: &[Check], out: &Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("STATUS", Align::Left),
        ("CHECK", Align::Left),
        ("FOUND", Align::Left),
    ]);
    for check in all {
        let (status, style) = status(check.status);
        table.styled([
            (status.into(), style),
            (check.name.into(), Style::Plain),
            (check.found.clone(), Style::Plain),
        ]);
    }
    table.print(out)?;
    for check in all {
        if let Some(remedy) = check.remedy {
            out.line(format_args!(
                "{}: {remedy}",
                out.paint(Style::Bold, check.name)
            ))?;
        }
    }
    Ok(())
}
