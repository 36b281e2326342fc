//! The words on which a waiter for a lease sleeps.

use core::cell::RefCell;
use core::time::Duration;
use std::sync::Arc;

use super::slot::Slot;
use crate::memory::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::{SeatId, SlotIndex, SlotWord};

/// The word on which a waiter sleeps, with its value.
pub(crate) enum WaitWord {
    /// The slot word: its writer has to go.
    Slot(SlotIndex, SlotWord),
    /// The word of the row that has the bit of this reader.
    Row(SlotIndex, SeatId, u64),
    /// The value of a [`ReleaseCount`].
    Releases(Arc<Atom>, u64),
}

impl WaitWord {
    /// Sleeps for at most `nap`. Needs no table.
    pub(crate) fn sleep(&self, memory: &Memory, nap: Duration) {
        match *self {
            WaitWord::Slot(slot, seen) => {
                if let Some(slot) = Slot::of(memory, slot) {
                    slot.sleep(seen, nap);
                }
            }
            WaitWord::Row(slot, reader, seen) => {
                if let Some(slot) = Slot::of(memory, slot) {
                    slot.sleep_for(reader, seen, nap);
                }
            }
            WaitWord::Releases(ref count, seen) => count.wait(seen as u32, nap),
        }
    }
}

/// Counts the releases of leases that leave the bit of the seat set: another thread has a lease of
/// the array by the same bit, or waits to write it.
///
/// Changed and read by the thread that has the table. The first wait makes it.
#[derive(Default)]
pub(super) struct ReleaseCount(RefCell<Option<Arc<Atom>>>);

impl ReleaseCount {
    /// Counts a release, and wakes the threads that wait for one.
    pub(super) fn count(&self) {
        if let Some(count) = &*self.0.borrow() {
            count.fetch_add(1, Ordering::Relaxed);
            count.wake_all();
        }
    }

    /// Returns the word on which to sleep until the next release.
    pub(super) fn wait_word(&self) -> WaitWord {
        let mut count = self.0.borrow_mut();
        let count = count.get_or_insert_with(|| Arc::new(Atom::zero()));
        WaitWord::Releases(Arc::clone(count), count.load(Ordering::Relaxed))
    }
}
