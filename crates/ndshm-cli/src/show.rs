//! `ndshm show`: shows the contents of one segment.

mod json;
mod text;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

use ndshm::Observer;
use ndshm::element::Order;
use ndshm::error::NameError;
use ndshm::inspect::{ArrayInfo, ClassInfo, NameInfo, SeatInfo, Verification};

use crate::output::{Code, Failure, Output};
use crate::target::Place;

const HELP: &str = "\
JSON: {segment, uid, user, size, resident, capacity, persistent, pinned, arrays: [{handle, names, dtype, \
shape, order, bytes, owner, owner_alive, writer, readers, pins, poisoned}], seats: [{seat, pid, alive, \
command}], classes: [{extent, slots, live, free, kept, asked, taken}], verify: {clean, seats, \
spans, slots, free, reserved, live, retired, exhausted, poisoned, writers, readers, pins, in_transit, \
unhinted, damage: [{offset, what, found}]}, names: [{name, handle, pid}]}. Sizes are in bytes; \
owner, writer, readers and pins are pids, the `pid` of a name is the process that gave it. Names may \
also stand for queues and partitions; `names` is null if their table is damaged.

Exit code 1 if the segment is damaged.";

/// Show a segment's arrays, participants and memory, and verify its tables
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
}

/// Shows the segment.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    let metadata = place.file()?.metadata();
    let metadata = metadata.map_err(|error| Failure::refused(format_args!("{place}: {error}")))?;
    let observer = place.observe()?;
    let report = Report {
        uid: metadata.uid(),
        size: metadata.size(),
        resident: metadata.blocks().saturating_mul(512),
        seats: observer.seats()?,
        arrays: observer.arrays().collect(),
        classes: observer.classes(),
        names: observer.names(""),
        verification: observer.verify(),
        place,
        observer,
    };
    match out.json() {
        true => out.document(&report.document())?,
        false => report.print(out)?,
    }
    Ok(
        match report.verification.is_clean() && report.names.is_ok() {
            true => Code::Done,
            false => Code::Problem,
        },
    )
}

struct Report {
    uid: u32,
    place: Place,
    observer: Observer,
    size: u64,
    resident: u64,
    seats: Vec<SeatInfo>,
    arrays: Vec<ArrayInfo>,
    classes: Vec<ClassInfo>,
    /// The names, or the damage in their table.
    names: Result<Vec<NameInfo>, NameError>,
    verification: Verification,
}

impl Report {
    /// Returns the pids of live participants.
    fn alive(&self) -> HashSet<u32> {
        let alive = self.seats.iter().filter(|seat| seat.alive);
        alive.map(|seat| seat.pid).collect()
    }

    /// Returns the names of each array that has any.
    fn names_by_handle(&self) -> HashMap<u64, Vec<&str>> {
        let mut names = HashMap::<_, Vec<&str>>::new();
        for info in self.names.iter().flatten() {
            names
                .entry(info.handle.to_bits())
                .or_default()
                .push(&info.name);
        }
        names
    }

    /// Returns the names of queues and partitions.
    fn other_names(&self) -> Vec<&NameInfo> {
        let arrays: HashSet<u64> = self.arrays.iter().map(|it| it.handle.to_bits()).collect();
        let names = self.names.iter().flatten();
        names
            .filter(|info| !arrays.contains(&info.handle.to_bits()))
            .collect()
    }
}

fn order(order: Order) -> &'static str {
    match order {
        Order::C => "C",
        Order::F => "F",
    }
}

/// Returns the name of a participant's program. The pid is the one that the participant sees
/// itself: in another pid namespace it may belong to another process here.
fn command(seat: &SeatInfo) -> Option<String> {
    if !seat.alive {
        return None;
    }
    let comm = std::fs::read(format!("/proc/{}/comm", seat.pid)).ok()?;
    Some(String::from_utf8_lossy(&comm).trim_end().to_owned())
}
