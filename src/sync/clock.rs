//! Whether what a thread has done comes before what another one does now.
//!
//! loom knows: it refuses to read a cell whose last write does not come before. shuttle does not
//! order accesses; there an order that is missing shows only when, in the schedule at hand, the
//! accesses meet.

#[cfg(not(shuttle))]
use loom::cell::UnsafeCell;

/// A moment in the life of one thread.
pub(crate) struct Clock {
    #[cfg(not(shuttle))]
    cell: UnsafeCell<()>,
}

impl Clock {
    /// Whether it can tell.
    pub(crate) const TELLS: bool = cfg!(not(shuttle));

    /// Now.
    pub(crate) fn now() -> Clock {
        let clock = Clock {
            #[cfg(not(shuttle))]
            cell: UnsafeCell::new(()),
        };
        clock.advance();
        clock
    }

    /// Sets it to now; the caller is the thread that has made it.
    pub(crate) fn advance(&self) {
        #[cfg(not(shuttle))]
        self.cell.with_mut(|_| ());
    }

    /// Whether it comes before what the caller does now.
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
