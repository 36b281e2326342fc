//! The contents of a segment as text.

use ndshm::inspect::ClassInfo;

use super::{Report, command, order};
use crate::output::{Align, Failure, Output, Style, Table, bytes, escaped};
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
            ("PINS", Left),
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
                Some(names) => escaped(&names.join(", ")),
            };
            let writer = array.writer.map_or("-".into(), |pid| pid.to_string());
            let state = match array.poisoned {
                true => ("poisoned".into(), Style::Bad),
                false => ("ok".into(), Style::Good),
            };
            table.styled([
                (array.handle.to_string(), Style::Plain),
                (name, Style::Plain),
                (escaped(&array.dtype.to_string()), Style::Plain),
                (format!("{:?}", array.shape), Style::Plain),
                (order(array.order).into(), Style::Plain),
                (bytes(array.bytes), Style::Plain),
                owner,
                (writer, Style::Plain),
                (holders(&array.readers), Style::Plain),
                (holders(&array.pins), Style::Plain),
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

fn holders(pids: &[u32]) -> String {
    let named: Vec<String> = pids.iter().take(HOLDERS).map(u32::to_string).collect();
    match pids.len() {
        0 => "-".into(),
        1..=HOLDERS => named.join(","),
        all => format!("{} +{}", named.join(","), all - HOLDERS),
    }
}
