//! Leases of values that may cross a fork: a queue, a bundle.

use core::cell::{Cell, RefCell};

use super::core::Core;
use super::lease::SharedLease;
use crate::table::error::LeaseError;
use crate::word::SeatId;

/// A shared lease that a value keeps while it lives. In a forked child it is taken anew at the
/// first use, because the parent's lease does not count there.
pub(crate) struct KeptLease<'t> {
    core: &'t Core,
    lease: RefCell<SharedLease<'t>>,
    /// The process that holds the lease.
    token: Cell<u64>,
}

impl<'t> KeptLease<'t> {
    pub(crate) fn new(lease: SharedLease<'t>) -> Self {
        let core = lease.table();
        KeptLease {
            core,
            lease: RefCell::new(lease),
            token: Cell::new(core.token()),
        }
    }

    /// Returns this participant's seat, after making sure that this process holds the lease.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the array was freed before a child's first use.
    #[inline]
    pub(crate) fn enter(&self) -> Result<SeatId, LeaseError> {
        let me = self.core.enter()?;
        if self.token.get() != self.core.token() {
            self.take_again()?;
        }
        Ok(me)
    }

    /// Keeps the lease until this participant leaves or dies.
    pub(crate) fn keep(&self) {
        self.lease.borrow_mut().keep();
    }

    #[cold]
    fn take_again(&self) -> Result<(), LeaseError> {
        let handle = self.lease.borrow().handle;
        let lease = self.core.lease_shared(handle)?;
        // The parent's lease. Its drop does nothing here.
        drop(self.lease.replace(lease));
        self.token.set(self.core.token());
        Ok(())
    }
}
