//! The words on which a waiter for a lease sleeps.

use core::cell::RefCell;
use core::time::Duration;
use std::sync::Arc;

use super::slot::Slot;
use crate::memory::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::{SeatId, SlotIndex, SlotWord};

/// The word on which a waiter sleeps, with its value.
pub(crate) enum Bed {
    /// The slot word: its writer has to go.
    Word(SlotIndex, SlotWord),
    /// The word of the row that has the bit of this reader.
    Row(SlotIndex, SeatId, u64),
    /// The number of times that the last lease of the seat but for a mark has ended.
    Own(Arc<Atom>, u64),
}

impl Bed {
    /// Sleeps for at most `nap`. Needs no table.
    pub(crate) fn sleep(&self, memory: &Memory, nap: Duration) {
        match *self {
            Bed::Word(slot, seen) => {
                if let Some(slot) = Slot::of(memory, slot) {
                    slot.sleep(seen, nap);
                }
            }
            Bed::Row(slot, reader, seen) => {
                if let Some(slot) = Slot::of(memory, slot) {
                    slot.sleep_for(reader, seen, nap);
                }
            }
            Bed::Own(ref ends, seen) => ends.wait(seen as u32, nap),
        }
    }
}

/// The ends of leases that the bit of a seat does not tell: another thread of the seat has a lease
/// of the array by the same bit, or waits to write it.
///
/// Changed and read by the thread that has the table. The first wait makes it.
#[derive(Default)]
pub(super) struct OwnEnds(RefCell<Option<Arc<Atom>>>);

impl OwnEnds {
    /// Counts an end, and wakes the threads that wait for one.
    pub(super) fn ended(&self) {
        if let Some(ends) = &*self.0.borrow() {
            ends.fetch_add(1, Ordering::Relaxed);
            ends.wake_all();
        }
    }

    /// Returns the place to sleep until the next end.
    pub(super) fn bed(&self) -> Bed {
        let mut ends = self.0.borrow_mut();
        let ends = ends.get_or_insert_with(|| Arc::new(Atom::zero()));
        Bed::Own(Arc::clone(ends), ends.load(Ordering::Relaxed))
    }
}
