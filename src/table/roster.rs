//! The tables of this process, and the leases that a fork would carry into its child.
//!
//! A lease belongs to the process that took it. A child that is forked while it is in force has a copy
//! of the guard, by which safe code could reach the array beside the parent. So the crate forks only
//! while no table of the process holds a lease, whatever its segment and its thread. The slot words
//! and the reader bits tell: a count of its own would cost every lease.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::slot::Slot;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::span::Spans;
use crate::sync::{Atom, Ordering};
use crate::word::SeatId;

/// A table, and the seat that it has in which process.
struct Entry {
    number: u64,
    token: u64,
    seat: SeatId,
    segment: Segment,
}

static TABLES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// The number of the next table.
static NEXT: Atom<u64> = Atom::zero();

/// The list of the tables. While this exists no table is entered or taken out, so that a child that is
/// forked meanwhile has the list whole. The child drops its copy first of all.
pub(crate) struct Roster {
    tables: MutexGuard<'static, Vec<Entry>>,
}

impl Roster {
    pub(crate) fn lock() -> Roster {
        Roster {
            // A panic leaves the list whole: each change of it is one call of `Vec`.
            tables: TABLES.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Returns an array on which a table of this process holds a lease, if there is one.
    ///
    /// Leaves out the crate's own arrays, which are kept leased by the values that use them and lend
    /// nothing. Leaves out the arrays for which `is_own` returns `true`: it gets the number of a table
    /// and a slot, and says that the caller accounts for every lease of that table on it.
    pub(crate) fn held(&self, is_own: impl Fn(u64, usize) -> bool) -> Option<AnyHandle> {
        let token = process_token();
        // The tables of another token crossed a fork, and their leases are another process's.
        let ours = self.tables.iter().filter(|entry| entry.token == token);
        ours.into_iter().find_map(|entry| entry.held(&is_own))
    }
}

impl Entry {
    fn held(&self, is_own: impl Fn(u64, usize) -> bool) -> Option<AnyHandle> {
        let memory = self.segment.memory();
        let geometry = &memory.layout().geometry;
        Spans::of(memory).iter().find_map(|span| {
            (0..span.count).find_map(|position| {
                let slot = Slot::of(memory, span.slot(geometry, position))?;
                let word = slot.word();
                if !word.is_written_by(self.seat) && !slot.has_bit(self.seat) {
                    return None;
                }
                let descriptor = Descriptor::load(memory.descriptor(slot.index));
                let is_control = descriptor.is_some_and(|descriptor| descriptor.is_control());
                (!is_control && !is_own(self.number, slot.index))
                    .then(|| AnyHandle::pack(self.segment.key(), slot.index, word.generation()))
            })
        })
    }
}

/// Enters a table that has just taken a seat. Returns its number.
pub(super) fn enter(segment: &Segment, seat: SeatId, token: u64) -> u64 {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let segment = segment.clone();
    Roster::lock().tables.push(Entry {
        number,
        token,
        seat,
        segment,
    });
    number
}

/// Notes the seat that a table has taken in a child of the process that it was made in.
pub(super) fn enter_again(number: u64, seat: SeatId, token: u64) {
    let mut roster = Roster::lock();
    if let Some(entry) = roster
        .tables
        .iter_mut()
        .find(|entry| entry.number == number)
    {
        (entry.seat, entry.token) = (seat, token);
    }
}

/// Takes a table out.
pub(super) fn leave(number: u64) {
    let mut roster = Roster::lock();
    let place = roster
        .tables
        .iter()
        .position(|entry| entry.number == number);
    let entry = place.map(|place| roster.tables.swap_remove(place));
    // The segment may end with its last reference, which takes system calls.
    drop(roster);
    drop(entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::HandleTable;

    /// Of the tables that the test has made: others are those of tests beside it.
    fn held(tables: &[&HandleTable], own: impl Fn(u64, usize) -> bool) -> Option<AnyHandle> {
        let theirs = |number| !tables.iter().any(|table| table.number == number);
        Roster::lock().held(|number, slot| theirs(number) || own(number, slot))
    }

    #[test]
    fn every_table_and_every_kind_of_lease_is_found() {
        let table = || HandleTable::join(&Segment::in_process().unwrap()).unwrap();
        let (one, two) = (table(), table());
        let beside = HandleTable::join(one.segment()).unwrap();
        let all = [&one, &two, &beside];
        let x = one.zeros::<u64, _>(4).unwrap();
        let y = two.zeros::<u64, _>(4).unwrap();
        let queue = one.queue::<u64>(4).unwrap();
        assert_eq!(held(&all, |_, _| false), None);
        let guard = two.write(y).unwrap();
        assert_eq!(held(&all, |_, _| false), Some(y.into()));
        assert_eq!(held(&all, |number, _| number == two.number), None);
        drop(guard);
        let guards = (beside.read(x).unwrap(), beside.read_untyped(x).unwrap());
        assert_eq!(held(&all, |_, _| false), Some(x.into()));
        let (slot, _) = AnyHandle::from(x).unpack(one.segment().key());
        assert_eq!(
            (beside.shared_leases(slot), one.shared_leases(slot)),
            (2, 0)
        );
        drop(guards);
        assert_eq!(held(&all, |_, _| false), None);
        drop(queue);
    }

    #[test]
    fn a_table_that_is_dropped_is_taken_out() {
        let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
        let number = table.number;
        let is_there = || {
            Roster::lock()
                .tables
                .iter()
                .any(|entry| entry.number == number)
        };
        assert!(is_there());
        drop(table);
        assert!(!is_there());
    }
}
