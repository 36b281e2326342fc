//! `ndshm show`: shows the contents of one segment.

mod json;
mod text;

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

use ndshm::Observer;
use ndshm::element::Order;
use ndshm::error::NameError;
use ndshm::inspect::{ArrayInfo, BundleInfo, ClassInfo, NameInfo, SeatInfo, Verification};

use crate::output::{Code, Failure, Output};
use crate::target::Place;

const HELP: &str = "\
JSON: {segment, uid, user, size, resident, capacity, persistent, pinned, arrays: [{handle, names, kind: \
array|object|python, bundle, dtype, shape, order, bytes, owner, owner_alive, writer, readers, pins, \
poisoned}], bundles: [{handle, names, owner, owner_alive, frozen, parts: [{name, handle}]}], seats: [{seat, pid, alive, \
command}], classes: [{extent, slots, live, free, kept, kept_bytes, asked, taken}], verify: {clean, seats, \
spans, slots, free, reserved, live, retired, exhausted, poisoned, writers, readers, pins, in_transit, \
unhinted, damage: [{offset, what, found}]}, names: [{name, handle, pid}]}. Sizes are in bytes; \
owner, writer, readers and pins are pids, the `pid` of a name is the process that gave it; `bundle` is \
the handle of the bundle that an array is a part of, or null. Names may also stand for bundles, \
queues and partitions; `names` is null if their table is damaged.

KEPT counts free slots whose pages were not given back to the system: the next array of the class \
uses them again. `kept_bytes` is the most that they can be.

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
        bundles: observer.bundles(),
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
    bundles: Vec<BundleInfo>,
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

    /// Returns the bundle of each array that is a part of one.
    fn bundles_by_part(&self) -> HashMap<u64, &BundleInfo> {
        let bundles = self.bundles.iter();
        let parts = bundles.flat_map(|bundle| bundle.parts.iter().map(move |part| (part, bundle)));
        parts
            .map(|(part, bundle)| (part.handle.to_bits(), bundle))
            .collect()
    }

    /// Returns the names of queues and partitions.
    fn other_names(&self) -> Vec<&NameInfo> {
        let arrays = self.arrays.iter().map(|it| it.handle.to_bits());
        let bundles = self.bundles.iter().map(|it| it.handle.to_bits());
        let shown: HashSet<u64> = arrays.chain(bundles).collect();
        let names = self.names.iter().flatten();
        names
            .filter(|info| !shown.contains(&info.handle.to_bits()))
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
