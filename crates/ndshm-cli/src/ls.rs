//! `ndshm ls`: lists all segments, or the contents of one.

mod contents;

use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::output::{Align, Code, Failure, Output, Style, Table, age, bytes, escaped};
use crate::survey::{self, FoundSegment, State};
use crate::target::Place;

const HELP: &str = "\
Named segments are the files in /dev/shm that begin like a segment, whatever their names. \
Anonymous segments are found through the descriptors of the processes that this user may inspect. \
Segments of other users are inspected if their mode lets this user read them; root sees all. \
Files and processes that may not be opened are counted.

JSON: a list of {segment, kind: named|anonymous, state: ok|damaged|version|unreadable, problem, \
size, resident, arrays, seats_alive, seats_dead, persistent, damage, created, uid, user}. Sizes \
are in bytes, `created` is a Unix time or null; arrays, seats and damage are null if the segment \
was not inspected. State `version` means that another release of ndshm made the segment, state \
`unreadable` that the file may not be opened and may be a segment. Exit code 1 if a segment is \
damaged.

With a SEGMENT, its arrays are listed, the named ones first, and below each bundle its parts, below \
each object of up to 16 MiB and 4,194,304 values its first keys. These are the paths for get; a \
part whose path is the name of something else is listed by its handle.

JSON: a list of {path, handle, kind: array|bundle|object|python|tensor|map|list|value, dtype, \
shape, bytes, parts, more}; `parts` is such a list again, of an object at most 1,000, and `more` \
the number of its other parts.";

/// List all segments, named and anonymous; or the arrays, bundles and objects of one
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// List the contents of this segment: its name, or PID:FD
    segment: Option<String>,
}

/// Lists the segments.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    if let Some(segment) = &args.segment {
        contents::print(&Place::parse(segment).observe()?, out)?;
        return Ok(Code::Done);
    }
    let found = survey::all(true);
    match out.json() {
        true => out.document(&found.iter().map(document).collect())?,
        false => table(&found, out)?,
    }
    Ok(match found.iter().all(FoundSegment::is_sound) {
        true => Code::Done,
        false => Code::Problem,
    })
}

fn document(found: &FoundSegment) -> Value {
    let contents = match &found.state {
        State::Inspected(contents) => Some(contents),
        _ => None,
    };
    let created = found.created();
    json!({
        "segment": found.place.to_string(),
        "kind": match found.place {
            Place::Named(_) => "named",
            Place::Descriptor { .. } => "anonymous",
        },
        "state": state(found).0,
        "problem": match &found.state {
            State::Damaged(problem) | State::Version(problem) | State::Unreadable(problem) => {
                Some(problem)
            }
            _ => None,
        },
        "size": found.metadata.size(),
        "resident": found.resident(),
        "arrays": contents.map(|contents| contents.arrays),
        "seats_alive": contents.map(|contents| contents.alive),
        "seats_dead": contents.map(|contents| contents.dead),
        "persistent": contents.map(|contents| contents.persistent),
        "damage": contents.map(|contents| contents.damage),
        "created": created
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map(|since| since.as_secs()),
        "uid": found.metadata.uid(),
        "user": survey::user(found.metadata.uid()),
    })
}

fn state(found: &FoundSegment) -> (&'static str, Style) {
    match &found.state {
        _ if !found.is_sound() => ("damaged", Style::Bad),
        State::Foreign => ("foreign", Style::Dim),
        State::Unreadable(_) => ("unreadable", Style::Dim),
        State::Version(_) => ("version", Style::Warn),
        _ => ("ok", Style::Good),
    }
}

fn is_unreadable(found: &FoundSegment) -> bool {
    matches!(found.state, State::Unreadable(_))
}

fn table(found: &[FoundSegment], out: &Output) -> Result<(), Failure> {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("SEGMENT", Left),
        ("SIZE", Right),
        ("RESIDENT", Right),
        ("ARRAYS", Right),
        ("ALIVE", Right),
        ("DEAD", Right),
        ("AGE", Right),
        ("USER", Left),
        ("STATE", Left),
    ]);
    for found in found {
        let contents = match &found.state {
            State::Inspected(contents) => Some(contents),
            _ => None,
        };
        let number = |number: Option<usize>| number.map_or("-".into(), |number| number.to_string());
        let dead = contents.map(|contents| contents.dead);
        let created = found.created();
        let since = created.and_then(|created| SystemTime::now().duration_since(created).ok());
        let (state, style) = state(found);
        let dead_style = match dead {
            Some(1..) => Style::Warn,
            _ => Style::Plain,
        };
        table.styled([
            (escaped(&found.place.to_string()), Style::Plain),
            (bytes(found.metadata.size()), Style::Plain),
            (bytes(found.resident()), Style::Plain),
            (
                number(contents.map(|contents| contents.arrays)),
                Style::Plain,
            ),
            (
                number(contents.map(|contents| contents.alive)),
                Style::Plain,
            ),
            (number(dead), dead_style),
            (since.map_or("-".into(), age), Style::Plain),
            (survey::user(found.metadata.uid()), Style::Plain),
            (state.into(), style),
        ]);
    }
    table.print(out)?;
    for found in found {
        if let State::Damaged(problem) | State::Version(problem) = &found.state {
            out.line(format_args!(
                "{}: {}",
                escaped(&found.place.to_string()),
                escaped(problem)
            ))?;
        }
    }
    let files = found.iter().filter(|found| is_unreadable(found)).count();
    let processes = survey::hidden_processes();
    if found.len() == files {
        out.line(match (files, processes) {
            (0, 0) => "no segments",
            _ => "no segments that this user may open",
        })?;
    }
    if files > 0 {
        out.line(format_args!(
            "{files} files in /dev/shm may be segments and could not be opened (permission denied): \
             ask their owners for read permission, or run this as root"
        ))?;
    }
    if processes > 0 {
        out.line(format_args!(
            "the descriptors of {processes} processes of other users could not be inspected \
             (permission denied): run this as root to find their anonymous segments"
        ))?;
    }
    Ok(())
}
