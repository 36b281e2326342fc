//! Seats of a segment in the memory of one process, for threads, tests and the model checker.

use crate::sync::{Atom, Ordering};

/// The locks of the seats, one word each: 0, or 1 + the index of the seat of the participant that
/// holds the lock. The lock ends with this participant.
///
/// No kernel is involved: a participant of such a segment is a thread, and does not end without
/// releasing its seat. The models script deaths by [`PrivateSeats::kill`].
pub(super) struct PrivateSeats {
    holders: Box<[Atom<u64>]>,
}

impl PrivateSeats {
    pub(super) fn new(seats: u32) -> PrivateSeats {
        PrivateSeats {
            holders: (0..seats).map(|_| Atom::zero()).collect(),
        }
    }

    /// Attempts to take a seat's lock for its own participant or, to reap it, for the participant
    /// of seat `by`.
    pub(super) fn try_lock(&self, index: usize, by: Option<usize>) -> bool {
        let holder = by.unwrap_or(index) as u64 + 1;
        // Acquire: pairs with the Release in `unlock` and `kill`.
        self.holders[index]
            .compare_exchange(0, holder, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Returns `true` if the lock of a seat is held.
    pub(super) fn is_locked(&self, index: usize) -> bool {
        // Acquire: pairs with the Release in `unlock` and `kill`. The caller sees what a participant
        // did whose lock has ended.
        self.holders[index].load(Ordering::Acquire) != 0
    }

    pub(super) fn unlock(&self, index: usize) {
        // Release: pairs with the Acquire in `try_lock`.
        self.holders[index].fetch_and(0, Ordering::Release);
    }

    /// Releases all locks of the participant of `seat`, as the kernel does when a process ends.
    #[cfg(any(test, loom))]
    pub(super) fn kill(&self, seat: usize) {
        let dead = seat as u64 + 1;
        for holder in &self.holders {
            let _ = holder.compare_exchange(dead, 0, Ordering::Release, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_frees_the_seat_and_what_it_was_reaping() {
        let seats = PrivateSeats::new(4);
        assert!(seats.try_lock(0, None));
        assert!(seats.try_lock(1, None));
        assert!(seats.try_lock(2, Some(0)));
        assert!(!seats.try_lock(2, None));
        seats.kill(0);
        assert!(!seats.try_lock(1, Some(3)), "a stranger's seat stays taken");
        assert!(seats.try_lock(2, None));
        assert!(seats.try_lock(0, Some(1)));
    }

    #[test]
    fn an_unlocked_seat_is_free() {
        let seats = PrivateSeats::new(1);
        assert!(seats.try_lock(0, None));
        assert!(seats.is_locked(0));
        seats.unlock(0);
        assert!(!seats.is_locked(0));
        assert!(seats.try_lock(0, None));
    }
}
