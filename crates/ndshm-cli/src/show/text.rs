//! The contents of a segment as text.

use ndshm::inspect::{ArrayInfo, ClassInfo};

use super::{Report, command, order};
use crate::output::{Align, Failure, Output, Style, Table, bytes, counted, escaped};
use crate::path::Kind;
use crate::survey;

/// Maximum lines of damage in the text; JSON has all.
const DAMAGE: usize = 20;
/// Maximum readers, and maximum pins, of an array in the table.
const HOLDERS: usize = 4;

impl Report {
    /// Prints the text.
    pub(super) fn print(&self, out: &Output) -> Result<(), Failure> {
        let name = escaped(&self.place.to_string());
        out.line(format_args!(
            "{}: {} of memory for {} of address space, of user {}{}{}",
            out.paint(Style::Bold, name),
            bytes(self.resident),
            bytes(self.size),
            survey::user(self.uid),
            if self.observer.is_pinned() {
                ", pinned"
            } else {
                ""
            },
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
        out.heading(&match self.bundles.len() {
            0 => format!("arrays: {}", self.arrays.len()),
            bundles => format!("arrays: {}, bundles: {bundles}", self.arrays.len()),
        })?;
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
            ("PINS", Left),
            ("STATE", Left),
        ]);
        let (alive, names) = (self.alive(), self.names_by_handle());
        let parts = self.bundles_by_part();
        let named = |handle: u64| match names.get(&handle) {
            None => "-".into(),
            Some(names) => escaped(&names.join(", ")),
        };
        let owner = |owner: Option<u32>| match owner {
            None => ("-".into(), Style::Plain),
            Some(pid) if alive.contains(&pid) => (pid.to_string(), Style::Plain),
            Some(pid) => (format!("{pid} dead"), Style::Bad),
        };
        let is_part = |array: &&ArrayInfo| parts.contains_key(&array.handle.to_bits());
        for array in self.arrays.iter().filter(|array| !is_part(array)) {
            let name = named(array.handle.to_bits());
            table.styled(row(array, name, owner(array.owner)));
        }
        for bundle in &self.bundles {
            // A part that was freed meanwhile is left out.
            let parts: Vec<(&str, &ArrayInfo)> = bundle
                .parts
                .iter()
                .filter_map(|part| {
                    let array = self.arrays.iter().find(|it| it.handle == part.handle)?;
                    Some((&*part.name, array))
                })
                .collect();
            let plain = |text: &str| (text.to_owned(), Style::Plain);
            let sum = parts.iter().map(|(_, array)| array.bytes).sum();
            table.styled([
                plain(&bundle.handle.to_string()),
                plain(&named(bundle.handle.to_bits())),
                plain("bundle"),
                plain(&counted(parts.len(), "part")),
                plain("-"),
                plain(&bytes(sum)),
                owner(bundle.owner),
                plain("-"),
                plain("-"),
                plain("-"),
                match bundle.frozen {
                    true => plain("frozen"),
                    false => ("ok".into(), Style::Good),
                },
            ]);
            for (name, array) in parts {
                let name = format!("  {}", escaped(name));
                table.styled(row(array, name, plain("-")));
            }
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
            table.row([info.handle.to_string(), escaped(&info.name)]);
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
                (escaped(&command), Style::Plain),
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
        ))?;
        let kept = sum(kept_bytes);
        match self.classes.iter().map(|class| class.kept).sum::<usize>() {
            0 => Ok(()),
            slots => out.line(format_args!(
                "{slots} free slots keep their pages, at most {}, for the next arrays of these \
                 sizes, which then need no new memory; HandleTable::trim (in Python table.trim()) \
                 gives the pages back, and SegmentOptions::retain limits them",
                bytes(kept)
            )),
        }
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

/// Returns the most bytes that the free slots of a class keep.
pub(super) fn kept_bytes(class: &ClassInfo) -> u64 {
    class.extent.saturating_mul(class.kept as u64)
}

/// Returns the cells of an array.
fn row(array: &ArrayInfo, name: String, owner: (String, Style)) -> [(String, Style); 11] {
    let (dtype, shape) = Kind::describe(array);
    let order = match Kind::of(&array.dtype) {
        Kind::Array => order(array.order),
        Kind::Object | Kind::Pickled => "-",
    };
    let state = match array.poisoned {
        true => ("poisoned".into(), Style::Bad),
        false => ("ok".into(), Style::Good),
    };
    let plain = |text: String| (text, Style::Plain);
    [
        plain(array.handle.to_string()),
        plain(name),
        plain(dtype),
        plain(shape),
        plain(order.into()),
        plain(bytes(array.bytes)),
        owner,
        plain(array.writer.map_or("-".into(), |pid| pid.to_string())),
        plain(holders(&array.readers)),
        plain(holders(&array.pins)),
        state,
    ]
}

fn holders(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(HOLDERS).map(u32::to_string).collect();
    match pids.len() {
        0 => "-".into(),
        1..=HOLDERS => named.join(","),
        all => format!("{} +{}", named.join(","), all - HOLDERS),
    }
}
