//! The count of a participant's shared leases beyond the bits that the segment has of them.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::word::SlotIndex;

/// The shared leases that a seat has on slots beyond the first on each.
#[derive(Default)]
pub(super) struct Recursive {
    /// Nearly every release finds 0 here, and does not look at the counts.
    total: Cell<usize>,
    /// At least 1 each.
    counts: RefCell<HashMap<SlotIndex, usize>>,
}

/// The effect of a release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Released {
    /// The seat has one lease on the slot, or none: the bit.
    None,
    /// The seat had two leases, and has the bit alone.
    Last,
    /// The seat has more leases than the bit.
    OneOfMany,
}

impl Recursive {
    /// Counts a lease on a slot whose bit the seat has set before.
    #[cold]
    pub(super) fn add(&self, slot: SlotIndex) {
        *self.counts.borrow_mut().entry(slot).or_insert(0) += 1;
        self.total.set(self.total.get() + 1);
    }

    /// Returns `true` if there is such a lease on any slot.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.total.get() > 0
    }

    /// Releases one lease beyond the bit.
    #[cold]
    pub(super) fn release(&self, slot: SlotIndex) -> Released {
        let mut counts = self.counts.borrow_mut();
        let Some(count) = counts.get_mut(&slot) else {
            return Released::None;
        };
        self.total.set(self.total.get() - 1);
        *count -= 1;
        match *count {
            0 => {
                counts.remove(&slot);
                Released::Last
            }
            _ => Released::OneOfMany,
        }
    }

    /// Returns the number of leases on a slot beyond the bit.
    pub(super) fn of(&self, slot: SlotIndex) -> usize {
        self.counts.borrow().get(&slot).copied().unwrap_or(0)
    }

    /// Forgets all leases.
    pub(super) fn clear(&self) {
        self.counts.borrow_mut().clear();
        self.total.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_one_slot_do_not_count_for_another() {
        let (one, other) = (SlotIndex::new(1), SlotIndex::new(2));
        let leases = Recursive::default();
        assert_eq!(leases.release(one), Released::None);
        leases.add(one);
        leases.add(one);
        assert_eq!(leases.release(other), Released::None);
        assert_eq!((leases.of(one), leases.of(other)), (2, 0));
        assert_eq!(leases.release(one), Released::OneOfMany);
        assert_eq!(leases.release(one), Released::Last);
        assert_eq!(leases.release(one), Released::None);
        leases.add(other);
        leases.clear();
        assert_eq!(leases.release(other), Released::None);
    }
}
