//! Leases of values that may cross a fork: a queue, a bundle.

use core::cell::{Cell, RefCell};

use super::core::Core;
use super::lease::SharedLease;
use crate::handle::AnyHandle;
use crate::table::error::LeaseError;
use crate::word::SeatId;

/// A shared lease that a value keeps while it lives. In a forked child it is taken anew at the
/// first use, because the parent's lease does not count there.
pub(crate) struct KeptLease<'t> {
    core: &'t Core,
    handle: AnyHandle,
    lease: RefCell<SharedLease<'t>>,
    /// The process that holds the lease.
    token: Cell<u64>,
}

impl<'t> KeptLease<'t> {
    pub(crate) fn new(lease: SharedLease<'t>) -> Self {
        let core = lease.table();
        KeptLease {
            core,
            handle: lease.handle,
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

    #[cold]
    fn take_again(&self) -> Result<(), LeaseError> {
        let lease = self.core.lease_shared(self.handle)?;
        // The parent's lease. Its drop does nothing here.
        drop(self.lease.replace(lease));
        self.token.set(self.core.token());
        Ok(())
    }
}
