//! The count of this process's seat locks in a segment, which decides whether the process may
//! leave.

use crate::sync::{Atom, Ordering};

/// The number of seats that are locked by this process; [`Gate::CLOSED`] while it leaves, and
/// [`Gate::LEFT`] afterwards.
///
/// One word for both: a process that leaves and a thread that joins at the same time exclude each
/// other by one compare-and-swap.
pub(crate) struct Gate {
    word: Atom<u64>,
}

impl Gate {
    const CLOSED: u64 = u64::MAX - 1;
    const LEFT: u64 = u64::MAX;

    pub(crate) fn new() -> Gate {
        Gate { word: Atom::zero() }
    }

    /// Counts a seat that is about to be locked. Returns `false` if the process leaves or has left.
    pub(crate) fn enter(&self) -> bool {
        // Acquire: pairs with the Release in `open`.
        let entered = self
            .word
            .update(Ordering::Acquire, Ordering::Relaxed, |count| {
                (count < Self::CLOSED).then(|| count + 1)
            });
        entered.is_ok()
    }

    /// Takes back one [`enter`](Gate::enter), after the seat was unlocked.
    pub(crate) fn exit(&self) {
        // Release: pairs with the Acquire in `close`. All that the participant did is done when the
        // mapping is exchanged.
        let _ = self
            .word
            .update(Ordering::Release, Ordering::Relaxed, |count| {
                (count < Self::CLOSED).then(|| count.checked_sub(1))?
            });
    }

    /// Closes the gate if so many seats are locked. Returns their number if it is another.
    pub(crate) fn close(&self, seats: u64) -> Result<(), u64> {
        // Acquire: pairs with the Release in `exit`.
        self.word
            .compare_exchange(seats, Self::CLOSED, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }

    /// Ends the leaving of the caller, which has closed the gate.
    pub(crate) fn end(&self) {
        // Release: pairs with the Acquire in `has_left`. The mapping is private.
        self.word.store(Self::LEFT, Ordering::Release);
    }

    /// Opens the gate that the caller has closed on so many locked seats.
    pub(crate) fn open(&self, seats: u64) {
        self.word.store(seats, Ordering::Release);
    }

    /// Forgets the seats that were counted before a fork, because they are the parent's. A parent
    /// that was about to leave has not left for the child, either.
    pub(crate) fn forget(&self) {
        let _ = self
            .word
            .update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count != Self::LEFT).then_some(0)
            });
    }

    /// Returns `true` if the process has left: its stores reach the segment no more.
    pub(crate) fn has_left(&self) -> bool {
        self.word.load(Ordering::Acquire) == Self::LEFT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_closes_on_nobody_and_stays_closed() {
        let gate = Gate::new();
        assert!(gate.enter() && gate.enter());
        assert_eq!(gate.close(0), Err(2));
        gate.exit();
        assert_eq!(gate.close(0), Err(1));
        gate.exit();
        assert_eq!(gate.close(0), Ok(()));
        gate.exit();
        assert!(!gate.enter() && !gate.has_left(), "it is about to leave");
        gate.forget();
        assert!(
            gate.enter(),
            "a child may join although its parent is leaving"
        );
        gate.exit();
        assert_eq!(gate.close(0), Ok(()));
        gate.end();
        gate.exit();
        gate.forget();
        assert!(gate.has_left() && !gate.enter());
        gate.open(0);
        assert!(gate.enter());
        assert_eq!(gate.close(1), Ok(()), "on the seat that is left");
        gate.open(1);
        gate.forget();
        gate.exit();
        assert_eq!(gate.close(0), Ok(()));
    }
}
