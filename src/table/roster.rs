//! The tables of this process, and the leases that a fork would carry into its child.
//!
//! A lease belongs to the process that took it. A child that is forked during a lease has a copy of
//! the guard, by which safe code could reach the array beside the parent. The same holds for the
//! builder of an array. So the crate forks only while no table of the process holds a lease or
//! builds an array, on any segment and thread. The slot words and the
//! reader bits tell: a separate count would add a cost to every lease.
//!
//! Nothing here waits. A program may fork by other means while another thread is in here, and the
//! child enters its tables again: a lock held by the other thread would stay locked in the child.

use std::sync::{RwLock, TryLockError};

use super::slot::Slot;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::segment::fork::process_token;
use crate::segment::{Segment, WeakSegment};
use crate::sync::list::List;
use crate::sync::{Atom, Ordering};
use crate::word::{SeatId, SlotIndex};

/// A place for a table. The tables of a process use it one after the other.
struct Entry {
    number: u64,
    /// 1 while a table uses it.
    taken: Atom<u64>,
    /// The process in which the table has its seat; 0 while it has none.
    token: Atom<u64>,
    /// The index of that seat.
    seat: Atom<u64>,
    /// Written by the table that uses the place. It is only locked by `try_` calls: in a child a
    /// thread that does not exist there may hold the lock for ever.
    segment: RwLock<Option<WeakSegment>>,
}

static TABLES: List<Entry> = List::new();

/// The number of the next entry.
static NEXT: Atom<u64> = Atom::zero();

/// Returns an array on which a table of this process holds a lease, or which it builds, if there is
/// one.
///
/// Leaves out the crate's own arrays: values keep them leased while they use them, and lend
/// nothing. Leaves out the arrays for which `is_own(table_number, slot)` returns `true`: the caller
/// accounts for every lease of that table on them.
pub(crate) fn held(is_own: impl Fn(u64, SlotIndex) -> bool) -> Option<AnyHandle> {
    let token = process_token();
    // Tables of another token crossed a fork, and their leases belong to another process.
    TABLES.iter().find_map(|entry| entry.held(token, &is_own))
}

impl Entry {
    fn held(&self, token: u64, is_own: impl Fn(u64, SlotIndex) -> bool) -> Option<AnyHandle> {
        // Acquire: pairs with the Release in `Place::set`, which follows the store of the seat.
        if self.token.load(Ordering::Acquire) != token {
            return None;
        }
        let seat = SeatId::from_index(self.seat.load(Ordering::Relaxed) as usize);
        // The lock is held only while a table is created or dropped, and then it has no leases.
        let segment = match self.segment.try_read() {
            Ok(segment) => segment.as_ref()?.upgrade()?,
            Err(TryLockError::Poisoned(segment)) => segment.into_inner().as_ref()?.upgrade()?,
            Err(TryLockError::WouldBlock) => return None,
        };
        let held = held_by(&segment, seat, |slot| is_own(self.number, slot))?;
        // Check again: if the table was dropped meanwhile, another participant may have its seat.
        (self.token.load(Ordering::Acquire) == token).then_some(held)
    }

    /// Replaces the segment. Returns `false` if the lock is held.
    fn set_segment(&self, segment: Option<WeakSegment>) -> bool {
        let mut place = match self.segment.try_write() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(place)) => place.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        *place = segment;
        true
    }
}

/// Returns an array that `seat` leases or builds and that is not the caller's own, if there is one.
fn held_by(
    segment: &Segment,
    seat: SeatId,
    is_own: impl Fn(SlotIndex) -> bool,
) -> Option<AnyHandle> {
    let memory = segment.memory();
    Slot::all(memory).find_map(|(slot, _)| {
        let word = slot.word();
        if word.is_reserved_by(seat) {
            return Some(AnyHandle::pack(
                segment.key(),
                slot.index,
                word.generation(),
            ));
        }
        if !word.is_written_by(seat) && !slot.has_bit(seat) {
            return None;
        }
        let descriptor = Descriptor::load(memory.descriptor(slot.index));
        let is_control = descriptor.is_some_and(|descriptor| descriptor.is_control());
        (!is_control && !is_own(slot.index))
            .then(|| AnyHandle::pack(segment.key(), slot.index, word.generation()))
    })
}

/// A table's entry in the list. Dropping it releases the entry.
pub(super) struct Place(&'static Entry);

impl Place {
    /// Enters a table that has just taken a seat.
    pub(super) fn enter(segment: &Segment, seat: SeatId, token: u64) -> Place {
        let take = |entry: &&Entry| {
            // Acquire: pairs with the Release of the table that used it before.
            let taken = entry
                .taken
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_err() {
                return false;
            }
            let is_set = entry.set_segment(Some(WeakSegment::of(segment)));
            if !is_set {
                entry.taken.store(0, Ordering::Release);
            }
            is_set
        };
        let entry = TABLES.iter().find(take).unwrap_or_else(|| {
            let entry = Entry {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                taken: Atom::zero(),
                token: Atom::zero(),
                seat: Atom::zero(),
                segment: RwLock::new(Some(WeakSegment::of(segment))),
            };
            entry.taken.store(1, Ordering::Relaxed);
            TABLES.push(entry)
        });
        let place = Place(entry);
        place.set(seat, token);
        place
    }

    /// Returns the number by which [`held`] knows the table.
    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    /// Sets the seat that the table has taken, also in a child of the process that created it.
    pub(super) fn set(&self, seat: SeatId, token: u64) {
        let index = seat.index().unwrap_or_default() as u64;
        self.0.seat.store(index, Ordering::Relaxed);
        // Release: pairs with the Acquire in `Entry::held`.
        self.0.token.store(token, Ordering::Release);
    }

    /// Clears the table's seat. The caller then releases the seat.
    pub(super) fn leave(&self) {
        // Release: a participant that sees a lease of the seat's next holder sees this, too.
        self.0.token.store(0, Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        // If a thread reads it now, the reference stays until the next table. It keeps nothing
        // mapped.
        let _ = self.0.set_segment(None);
        // Release: pairs with the Acquire in `enter`.
        self.0.taken.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;
    use crate::handle_table::HandleTable;
    use std::collections::BTreeSet;

    /// Looks only at the tables of this test, because other tests run beside it.
    fn held_of(tables: &[&HandleTable], own: impl Fn(u64, SlotIndex) -> bool) -> Option<AnyHandle> {
        let theirs = |number| !tables.iter().any(|table| table.core.number() == number);
        held(|number, slot| theirs(number) || own(number, slot))
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
        assert_eq!(held_of(&all, |_, _| false), None);
        let guard = two.write(y).unwrap();
        assert_eq!(held_of(&all, |_, _| false), Some(y.into()));
        assert_eq!(held_of(&all, |number, _| number == two.core.number()), None);
        drop(guard);
        let guards = (beside.read(x).unwrap(), beside.read_untyped(x).unwrap());
        assert_eq!(held_of(&all, |_, _| false), Some(x.into()));
        let (slot, _) = AnyHandle::from(x).unpack(one.segment().key());
        assert_eq!(
            (
                beside.core.shared_leases(slot),
                one.core.shared_leases(slot)
            ),
            (2, 0)
        );
        drop(guards);
        assert_eq!(held_of(&all, |_, _| false), None);
        let made = two
            .builder(&u8::dtype(), &[3], crate::element::Order::C)
            .unwrap();
        let held = held_of(&all, |_, _| false);
        assert_eq!(
            held,
            Some(made.publish().unwrap()),
            "an array in the making"
        );
        assert_eq!(held_of(&all, |_, _| false), None);
        drop(queue);
    }

    /// Returns the entries of tables that this process has.
    fn numbers() -> BTreeSet<u64> {
        let has_table = |entry: &&Entry| entry.taken.load(Ordering::Relaxed) == 1;
        TABLES
            .iter()
            .filter(has_table)
            .map(|entry| entry.number)
            .collect()
    }

    #[test]
    fn a_place_is_taken_by_one_table_after_the_other() {
        let segment = Segment::in_process().unwrap();
        let join = || HandleTable::join(&segment).unwrap();
        let tables: Vec<HandleTable> = (0..10).map(|_| join()).collect();
        let used: BTreeSet<u64> = tables.iter().map(|table| table.core.number()).collect();
        assert_eq!(used.len(), 10, "no two tables have one place");
        assert!(used.is_subset(&numbers()));
        drop(tables);
        for _ in 0..1000 {
            drop(join());
        }
        assert!(
            TABLES.iter().count() < 1000,
            "places are not used again: {}",
            TABLES.iter().count()
        );
    }

    #[test]
    fn the_list_does_not_keep_a_segment_mapped() {
        let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
        let segment = WeakSegment::of(table.segment());
        assert!(segment.upgrade().is_some());
        // A thread looks at the place while the table is dropped.
        let entry = table.core.place.0;
        let look = entry.segment.read().unwrap();
        drop(table);
        assert!(segment.upgrade().is_none());
        drop(look);
    }

    #[test]
    fn a_lock_that_a_vanished_thread_holds_stops_nobody() {
        let segment = Segment::in_process().unwrap();
        let table = HandleTable::join(&segment).unwrap();
        let entry = table.core.place.0;
        let held_for_ever = entry.segment.write().unwrap();
        assert_eq!(held(|_, _| true), None);
        let other = HandleTable::join(&segment).unwrap();
        assert_ne!(other.core.number(), table.core.number());
        table
            .core
            .place
            .set(table.core.own_seat(), table.core.token());
        drop((table, other));
        // The next table skips this place.
        let next = HandleTable::join(&segment).unwrap();
        assert_ne!(next.core.number(), entry.number);
        drop(held_for_ever);
    }
}
