//! Values that belong to a table and do not borrow it: what becomes of them when they are dropped.
//!
//! Such a value releases its leases by a call to which its owner passes the table. If it is dropped
//! without that, it may be in any thread. Then it does at once what needs no table, and leaves the
//! rest in the table's inbox. The table's next call to partitions that do not borrow it, wait for a
//! lease, or call to `reap` releases it.
//!
//! The lock also tells that the table has its seat: a table closes its inbox before it leaves. So
//! an action under the lock acts for the seat, and not for a later holder of it. After a fork the
//! inbox belongs to the parent, and its lock may be held there for ever: a child does not lock it, and
//! leaves alone what it keeps. A shared table that leaves with its pins does not close it: its stores
//! reach nobody by then.

use std::sync::{Arc, Mutex, MutexGuard};

use super::core::Core;
use crate::segment::fork::process_token;

/// The leases of a dropped value.
pub(crate) trait LeftBehind: Send {
    /// Releases the leases of the value.
    fn release(self: Box<Self>, core: &Core);
}

/// The inbox of a table. Clones of it are the same inbox, and tell tables apart.
#[derive(Clone)]
pub(crate) struct Inbox(Arc<Inner>);

struct Inner {
    /// The process that made the table.
    token: u64,
    state: Mutex<State>,
}

struct State {
    /// The table has its seat.
    open: bool,
    left: Vec<Box<dyn LeftBehind>>,
    /// The number of values that were given a serial number.
    serial: u64,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox(Arc::new(Inner {
            token: process_token(),
            state: Mutex::new(State {
                open: true,
                left: Vec::new(),
                serial: 0,
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .unwrap_or_else(|state| state.into_inner())
    }

    /// Returns `true` if both are the inbox of one table.
    pub(crate) fn is(&self, other: &Inbox) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns a number that no other value of this table has.
    pub(crate) fn serial(&self) -> u64 {
        let mut state = self.state();
        state.serial += 1;
        state.serial
    }

    /// Calls `act` while the table has its seat, and keeps its result for the table. Does nothing
    /// if the table has left: then the value's leases have been released with it.
    pub(crate) fn leave(&self, act: impl FnOnce() -> Box<dyn LeftBehind>) {
        let mut state = self.state();
        if state.open {
            let left = act();
            state.left.push(left);
        }
    }

    fn take(&self) -> Vec<Box<dyn LeftBehind>> {
        core::mem::take(&mut self.state().left)
    }

    /// Closes the inbox of a table that is about to leave.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.open = false;
        state.left.clear();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.token != process_token() {
            // A thread of the parent may have been changing the list at the fork. Its memory stays
            // until the child ends.
            let state = self.state.get_mut();
            let state = state.unwrap_or_else(|state| state.into_inner());
            core::mem::forget(core::mem::take(&mut state.left));
        }
    }
}

impl Core {
    /// Returns the inbox of this table. The caller has entered.
    pub(crate) fn inbox(&self) -> Inbox {
        self.inbox.borrow().clone()
    }

    /// Releases the leases of dropped values of this table. The caller has entered.
    pub(crate) fn empty_inbox(&self) {
        let left = self.inbox.borrow().take();
        for left in left {
            left.release(self);
        }
    }
}
