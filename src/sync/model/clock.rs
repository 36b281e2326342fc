//! Happens-before between threads of a model, as a test.
//!
//! loom tracks it: it refuses to read a cell if the last write does not happen before the read.
//! shuttle does not order accesses: a missing order shows only if the accesses meet in the schedule
//! at hand.

#[cfg(not(shuttle))]
use loom::cell::UnsafeCell;

/// A moment in the life of one thread.
pub(crate) struct Clock {
    #[cfg(not(shuttle))]
    cell: UnsafeCell<()>,
}

impl Clock {
    /// `true` if this model checker tracks happens-before.
    pub(crate) const TELLS: bool = cfg!(not(shuttle));

    /// Returns a clock that is set to now.
    pub(crate) fn now() -> Clock {
        let clock = Clock {
            #[cfg(not(shuttle))]
            cell: UnsafeCell::new(()),
        };
        clock.advance();
        clock
    }

    /// Sets the clock to now. The caller is the thread that created it.
    pub(crate) fn advance(&self) {
        #[cfg(not(shuttle))]
        self.cell.with_mut(|_| ());
    }

    /// Returns `true` if the clock's moment happens before the caller's next operation.
    pub(crate) fn is_past(&self) -> bool {
        #[cfg(not(shuttle))]
        return std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.cell.with(|_| ());
        }))
        .is_ok();
        #[cfg(shuttle)]
        return true;
    }
}
