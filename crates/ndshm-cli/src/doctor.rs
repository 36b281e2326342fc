//! `ndshm doctor`: whether this system lets programs share memory as they would like to.

mod cgroup;
mod checks;

use ndshm::{HandleTable, Segment};
use serde_json::{Value, json};

use crate::output::{Align, Code, Failure, Output, Style, Table, bytes};

const HELP: &str = "\
It looks at /dev/shm, at the memory of the machine and of this process's memory cgroups, at settings \
of the kernel, at the limits of this process (which others may have other), at what crashed programs \
left behind, and makes a small segment of its own.

JSON: a list of {check, status: ok|warn|fail, found, remedy}; `remedy` is null where none is needed. \
Exit code 1 if something fails.";

/// Look at what the system lets shared memory have, and say what to do about it
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing is in the way.
    Ok,
    /// Something may be, some day.
    Warn,
    /// Something is.
    Fail,
}

/// A thing that was looked at.
pub struct Check {
    name: &'static str,
    status: Status,
    found: String,
    remedy: Option<&'static str>,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    /// Something may be in the way.
    pub fn warn(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Check {
        Check {
            status: Status::Warn,
            remedy: Some(remedy),
            ..Check::ok(name, found)
        }
    }

    /// Something is in the way.
    pub fn fail(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Check {
        Check {
            status: Status::Fail,
            ..Check::warn(name, found, remedy)
        }
    }
}

/// Looks at all of it.
pub fn run(_: &Args, out: &Output) -> Result<Code, Failure> {
    let mut all = vec![probe()];
    all.extend(checks::shm());
    all.push(checks::memory());
    all.push(cgroup::check());
    all.extend(checks::kernel());
    all.extend(checks::limits());
    all.push(checks::leftovers());
    all.push(checks::user_namespace());
    match out.json() {
        true => out.document(&all.iter().map(document).collect())?,
        false => print(&all, out)?,
    }
    Ok(match all.iter().any(|check| check.status == Status::Fail) {
        true => Code::Wanting,
        false => Code::Done,
    })
}

/// Makes a segment, takes part in it, and writes an array.
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
