//! The user's choice of what is shown: order and filter of the arrays, order of the participants.

use clap::ValueEnum;
use ndshm::inspect::ArrayInfo;

use super::snapshot::{Participant, Snapshot};

/// The order of the arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ArrayOrder {
    /// As they lie in the table
    #[default]
    Slot,
    /// By name, those without a name last
    Name,
    /// The largest first
    Bytes,
    /// By the pid of the owner
    Owner,
    /// The most read first, those that are written before all
    Leases,
}

/// The order of the participants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum SeatOrder {
    /// By seat
    #[default]
    Seat,
    /// The busiest processor first
    Cpu,
    /// The one that makes and frees most first
    Rate,
    /// The owner of most memory first
    Bytes,
}

/// What is shown, and how it is ordered.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct View {
    /// The order of the arrays.
    pub arrays: ArrayOrder,
    /// The order of the participants.
    pub seats: SeatOrder,
    /// The reverse order of the arrays.
    pub reverse: bool,
    /// Only arrays whose name, handle, type or owner contain this text.
    pub filter: String,
    /// The user is typing the filter.
    pub typing: bool,
}

/// Returns the choice after this one; after the last, the first.
fn next<T: ValueEnum + PartialEq + Copy>(now: T) -> T {
    let all = T::value_variants();
    let at = all.iter().position(|it| *it == now).unwrap_or(0);
    all[(at + 1) % all.len()]
}

impl View {
    /// Handles a letter. Returns `false` if it means nothing here.
    pub fn letter(&mut self, letter: char) -> bool {
        match letter {
            _ if self.typing => self.filter.push(letter),
            's' => self.arrays = next(self.arrays),
            'p' => self.seats = next(self.seats),
            'r' => self.reverse = !self.reverse,
            '/' => {
                self.typing = true;
                self.filter.clear();
            }
            _ => return false,
        }
        true
    }

    /// Returns the arrays that are shown, in their order.
    pub fn arrays<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s ArrayInfo> {
        let name = |array: &ArrayInfo| snapshot.names.get(&array.handle.to_bits());
        let filter = self.filter.to_lowercase();
        let matches = |text: &str| text.to_lowercase().contains(&filter);
        let is_shown = |array: &&ArrayInfo| {
            filter.is_empty()
                || name(array).is_some_and(|name| matches(name))
                || matches(&array.handle.to_string())
                || matches(&array.dtype.to_string())
                || array.owner.is_some_and(|pid| pid.to_string() == filter)
        };
        let mut shown: Vec<&ArrayInfo> = snapshot.arrays.iter().filter(is_shown).collect();
        // The sorts are stable: equal arrays stay in the order of their slots.
        match self.arrays {
            ArrayOrder::Slot => {}
            ArrayOrder::Name => shown.sort_by_key(|array| (name(array).is_none(), name(array))),
            ArrayOrder::Bytes => shown.sort_by_key(|array| std::cmp::Reverse(array.bytes)),
            ArrayOrder::Owner => shown.sort_by_key(|array| (array.owner.is_none(), array.owner)),
            ArrayOrder::Leases => shown.sort_by_key(|array| {
                std::cmp::Reverse((array.writer.is_some(), array.readers.len()))
            }),
        }
        if self.reverse {
            shown.reverse();
        }
        shown
    }

    /// Returns the participants in their order.
    pub fn seats<'s>(&self, snapshot: &'s Snapshot) -> Vec<&'s Participant> {
        let mut shown: Vec<&Participant> = snapshot.seats.iter().collect();
        let rate = |seat: &Participant| seat.rates.map_or(0.0, |rates| rates.made + rates.freed);
        let cpu = |seat: &Participant| seat.rates.map_or(0.0, |rates| rates.cpu);
        match self.seats {
            SeatOrder::Seat => {}
            SeatOrder::Cpu => shown.sort_by(|a, b| cpu(b).total_cmp(&cpu(a))),
            SeatOrder::Rate => shown.sort_by(|a, b| rate(b).total_cmp(&rate(a))),
            SeatOrder::Bytes => shown.sort_by_key(|seat| std::cmp::Reverse(seat.bytes)),
        }
        shown
    }
}

/// Returns the name of a choice, as on the command line.
pub fn name_of(choice: impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndshm::{HandleTable, Observer, Segment};

    #[test]
    fn arrays_are_sorted_and_filtered() {
        let segment = Segment::anonymous().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let (small, large) = (
            table.zeros::<u8, _>(1).unwrap(),
            table.zeros::<f64, _>(9).unwrap(),
        );
        let middle = table.zeros::<i32, _>(3).unwrap();
        let _guard = table.read(middle).unwrap();
        let observer = Observer::from_fd(segment.inheritable_fd().unwrap()).unwrap();
        let named = [(large.to_bits(), "b".into()), (small.to_bits(), "a".into())];
        let snapshot = Snapshot {
            arrays: observer.arrays().collect(),
            names: named.into(),
            ..Snapshot::default()
        };
        let bytes = |view: &View| -> Vec<u64> {
            view.arrays(&snapshot).iter().map(|it| it.bytes).collect()
        };
        let mut view = View {
            arrays: ArrayOrder::Bytes,
            ..View::default()
        };
        assert_eq!(bytes(&view), [72, 12, 1]);
        assert!(view.letter('r'));
        assert_eq!(bytes(&view), [1, 12, 72]);
        view.letter('r');
        view.arrays = ArrayOrder::Name;
        assert_eq!(bytes(&view), [1, 72, 12]);
        view.arrays = ArrayOrder::Leases;
        assert_eq!(bytes(&view)[0], 12);
        for letter in "/I3".chars() {
            assert!(view.letter(letter));
        }
        assert_eq!(bytes(&view), [12], "the type i32");
        view.filter = std::process::id().to_string();
        assert_eq!(bytes(&view).len(), 3);
        view.filter = "none".into();
        assert!(bytes(&view).is_empty());
        view.typing = false;
        assert!(!view.letter('x') && view.letter('s'));
        assert_eq!(view.arrays, ArrayOrder::Slot, "after the last, the first");
    }
}
