//! The count of this process's seat locks in a segment, which decides whether the process may
//! leave.

use crate::sync::{Atom, Ordering};

/// The number of seats that are locked by this process, or [`Gate::CLOSED`] after it has left.
///
/// One word for both: a process that leaves and a thread that joins at the same time exclude each
/// other by one compare-and-swap.
pub(crate) struct Gate {
    word: Atom<u64>,
}

impl Gate {
    const CLOSED: u64 = u64::MAX;

    pub(crate) fn new() -> Gate {
        Gate { word: Atom::zero() }
    }

    /// Counts a seat that is about to be locked. Returns `false` if the process has left.
    pub(crate) fn enter(&self) -> bool {
        // Acquire: pairs with the Release in `open`.
        let entered = self
            .word
            .update(Ordering::Acquire, Ordering::Relaxed, |count| {
                (count != Self::CLOSED).then(|| count + 1)
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
                (count != Self::CLOSED).then(|| count.checked_sub(1))?
            });
    }

    /// Closes the gate. Returns the number of locked seats if there are any.
    pub(crate) fn close(&self) -> Result<(), u64> {
        // From 0 to CLOSED. Acquire: pairs with the Release in `exit`.
        self.word
            .compare_exchange(0, Self::CLOSED, Ordering::Acquire, Ordering::Relaxed)
            .map(drop)
    }

    /// Opens the gate that the caller has closed.
    pub(crate) fn open(&self) {
        self.word.store(0, Ordering::Release);
    }

    /// Forgets the seats that were counted before a fork, because they are the parent's.
    pub(crate) fn forget(&self) {
        let _ = self
            .word
            .update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count != Self::CLOSED).then_some(0)
            });
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Relaxed) == Self::CLOSED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_closes_on_nobody_and_stays_closed() {
        let gate = Gate::new();
        assert!(gate.enter() && gate.enter());
        assert_eq!(gate.close(), Err(2));
        gate.exit();
        assert_eq!(gate.close(), Err(1));
        gate.exit();
        assert!(!gate.is_closed());
        assert_eq!(gate.close(), Ok(()));
        gate.exit();
        gate.forget();
        assert!(gate.is_closed() && !gate.enter());
        gate.open();
        assert!(gate.enter());
        gate.forget();
        gate.exit();
        assert_eq!(gate.close(), Ok(()));
    }
}
