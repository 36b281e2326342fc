//! `ndshm show`: shows the contents of one segment.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;

use ndshm::{ArrayInfo, ClassInfo, NameError, NameInfo, Observer, Order, SeatInfo, Verification};
use serde_json::{Value, json};

use crate::output::{Align, Code, Failure, Output, Style, Table, bytes, shown};
use crate::survey;
use crate::target::Place;

const HELP: &str = "\
JSON: {segment, uid, user, size, resident, capacity, persistent, arrays: [{handle, names, dtype, \
shape, order, bytes, owner, owner_alive, writer, readers, poisoned}], seats: [{seat, pid, alive, \
command}], classes: [{extent, slots, live, free, kept, asked, taken}], verify: {clean, seats, \
spans, slots, free, reserved, live, retired, exhausted, poisoned, writers, readers, in_transit, \
unhinted, damage: [{offset, what, found}]}, names: [{name, handle, pid}]}. Sizes are in bytes; \
owner, writer and readers are pids, the `pid` of a name is the process that gave it. Names may \
also stand for queues and partitions; `names` is null if their table is damaged.

Exit code 1 if the segment is damaged.";

/// Maximum lines of damage in the text; JSON has all.
const DAMAGE: usize = 20;
/// Maximum readers of an array in the table.
const READERS: usize = 4;

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
    let shown = Shown {
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
        true => out.document(&shown.document())?,
        false => shown.print(out)?,
    }
    Ok(match shown.verification.is_clean() && shown.names.is_ok() {
        true => Code::Done,
        false => Code::Wanting,
    })
}

struct Shown {
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

impl Shown {
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

    fn document(&self) -> Value {
        let (alive, names) = (self.alive(), self.names_by_handle());
        let array = |array: &ArrayInfo| {
            json!({
                "handle": array.handle.to_string(),
                "names": names.get(&array.handle.to_bits()).cloned().unwrap_or_default(),
                "dtype": array.dtype.to_string(),
                "shape": array.shape,
                "order": order(array.order),
                "bytes": array.bytes,
                "owner": array.owner,
                "owner_alive": array.owner.map(|pid| alive.contains(&pid)),
                "writer": array.writer,
                "readers": array.readers,
                "poisoned": array.poisoned,
            })
        };
        let seat = |seat: &SeatInfo| {
            json!({
                "seat": seat.seat,
                "pid": seat.pid,
                "alive": seat.alive,
                "command": command(seat),
            })
        };
        let class = |class: &ClassInfo| {
            json!({
                "extent": class.extent,
                "slots": class.slots,
                "live": class.live,
                "free": class.free,
                "kept": class.kept,
                "asked": class.asked,
                "taken": class.taken,
            })
        };
        json!({
            "segment": self.place.to_string(),
            "uid": self.uid,
            "user": survey::user(self.uid),
            "size": self.size,
            "resident": self.resident,
            "capacity": self.observer.capacity(),
            "persistent": self.observer.is_persistent(),
            "arrays": self.arrays.iter().map(array).collect::<Value>(),
            "seats": self.seats.iter().map(seat).collect::<Value>(),
            "classes": self.classes.iter().map(class).collect::<Value>(),
            "names": self.names.as_ref().ok().map(|names| {
                let name = |info: &NameInfo| {
                    json!({
                        "name": info.name,
                        "handle": info.handle.to_string(),
                        "pid": info.pid,
                    })
                };
                names.iter().map(name).collect::<Value>()
            }),
            "verify": verification(&self.verification),
        })
    }

    fn print(&self, out: &Output) -> Result<(), Failure> {
        let name = shown(&self.place.to_string());
        out.line(format_args!(
            "{}: {} of memory for {} of address space, of user {}{}",
            out.paint(Style::Bold, name),
            bytes(self.resident),
            bytes(self.size),
            survey::user(self.uid),
            if self.observer.is_persistent() {
                ", persistent"
            } else {
                ""
            },
        ))?;
        self.print_arrays(out)?;
        self.print_seats(out)?;
        self.print_classes(out)?;
        self.print_verification(out)
    }

    fn print_arrays(&self, out: &Output) -> Result<(), Failure> {
        use Align::{Left, Right};
        out.heading(&format!("arrays: {}", self.arrays.len()))?;
        let mut table = Table::new(&[
            ("HANDLE", Left),
            ("NAME", Left),
            ("DTYPE", Left),
            ("SHAPE", Left),
            ("ORDER", Left),
            ("BYTES", Right),
            ("OWNER", Right),
            ("WRITER", Right),
            ("READERS", Left),
            ("STATE", Left),
        ]);
        let (alive, names) = (self.alive(), self.names_by_handle());
        for array in &self.arrays {
            let owner = match array.owner {
                None => ("-".into(), Style::Plain),
                Some(pid) if alive.contains(&pid) => (pid.to_string(), Style::Plain),
                Some(pid) => (format!("{pid} dead"), Style::Bad),
            };
            let name = match names.get(&array.handle.to_bits()) {
                None => "-".into(),
                Some(names) => shown(&names.join(", ")),
            };
            let writer = array.writer.map_or("-".into(), |pid| pid.to_string());
            let state = match array.poisoned {
                true => ("poisoned".into(), Style::Bad),
                false => ("ok".into(), Style::Good),
            };
            table.styled([
                (array.handle.to_string(), Style::Plain),
                (name, Style::Plain),
                (shown(&array.dtype.to_string()), Style::Plain),
                (format!("{:?}", array.shape), Style::Plain),
                (order(array.order).into(), Style::Plain),
                (bytes(array.bytes), Style::Plain),
                owner,
                (writer, Style::Plain),
                (readers(&array.readers), Style::Plain),
                state,
            ]);
        }
        table.print(out)?;
        if let Err(error) = &self.names {
            out.line(out.paint(Style::Bad, format_args!("the names: {error}")))?;
        }
        let others = self.other_names();
        if others.is_empty() {
            return Ok(());
        }
        out.heading("names of queues and partitions")?;
        let mut table = Table::new(&[("HANDLE", Left), ("NAME", Left)]);
        for info in others {
            table.row([info.handle.to_string(), shown(&info.name)]);
        }
        table.print(out)
    }

    fn print_seats(&self, out: &Output) -> Result<(), Failure> {
        use Align::{Left, Right};
        out.heading(&format!("participants: {}", self.seats.len()))?;
        let mut table = Table::new(&[
            ("SEAT", Right),
            ("PID", Right),
            ("STATE", Left),
            ("COMMAND", Left),
        ]);
        for seat in &self.seats {
            let state = match seat.alive {
                true => ("alive".into(), Style::Good),
                false => ("dead".into(), Style::Bad),
            };
            let command = command(seat).unwrap_or_else(|| "-".into());
            table.styled([
                (seat.seat.to_string(), Style::Plain),
                (seat.pid.to_string(), Style::Plain),
                state,
                (shown(&command), Style::Plain),
            ]);
        }
        table.print(out)
    }

    fn print_classes(&self, out: &Output) -> Result<(), Failure> {
        use Align::Right;
        out.heading("memory by size class")?;
        let mut table = Table::new(&[
            ("EXTENT", Right),
            ("SLOTS", Right),
            ("LIVE", Right),
            ("FREE", Right),
            ("KEPT", Right),
            ("ASKED", Right),
            ("TAKEN", Right),
            ("USED", Right),
        ]);
        let used = |asked: u64, taken: u64| match taken {
            0 => "-".into(),
            taken => format!("{:.0} %", 100.0 * asked as f64 / taken as f64),
        };
        for class in &self.classes {
            table.row([
                bytes(class.extent),
                class.slots.to_string(),
                class.live.to_string(),
                class.free.to_string(),
                class.kept.to_string(),
                bytes(class.asked),
                bytes(class.taken),
                used(class.asked, class.taken),
            ]);
        }
        table.print(out)?;
        let sum = |of: fn(&ClassInfo) -> u64| self.classes.iter().map(of).sum::<u64>();
        let (asked, taken) = (sum(|class| class.asked), sum(|class| class.taken));
        out.line(format_args!(
            "{} asked for, {} taken ({})",
            bytes(asked),
            bytes(taken),
            used(asked, taken)
        ))
    }

    fn print_verification(&self, out: &Output) -> Result<(), Failure> {
        let found = &self.verification;
        out.heading("verify")?;
        let text = found.to_string();
        out.line(text.lines().next().unwrap_or_default())?;
        for damage in found.damage.iter().take(DAMAGE) {
            out.line(out.paint(Style::Bad, damage))?;
        }
        match found.damage.len() {
            0 => out.line(out.paint(Style::Good, "in order")),
            1..=DAMAGE => Ok(()),
            more => out.line(format_args!("and {} more (see --json)", more - DAMAGE)),
        }
    }
}

/// Returns the findings of `verify` as JSON.
pub fn verification(found: &Verification) -> Value {
    let damage = found.damage.iter().map(|damage| {
        json!({
            "offset": damage.offset,
            "what": damage.what,
            "found": format!("{:#018x}", damage.found),
        })
    });
    json!({
        "clean": found.is_clean(),
        "seats": found.seats,
        "spans": found.spans,
        "slots": found.slots,
        "free": found.free,
        "reserved": found.reserved,
        "live": found.live,
        "retired": found.retired,
        "exhausted": found.exhausted,
        "poisoned": found.poisoned,
        "writers": found.writers,
        "readers": found.readers,
        "in_transit": found.in_transit,
        "unhinted": found.unhinted,
        "damage": damage.collect::<Value>(),
    })
}

fn order(order: Order) -> &'static str {
    match order {
        Order::C => "C",
        Order::F => "F",
    }
}

fn readers(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(READERS).map(u32::to_string).collect();
    match pids.len() {
        0 => "-".into(),
        1..=READERS => named.join(","),
        all => format!("{} +{}", named.join(","), all - READERS),
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
