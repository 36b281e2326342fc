//! The threads of a model have no processors.

use crate::pool::mailbox::Mailbox;

#[derive(Default)]
pub(in crate::pool) struct Placement {}

impl Placement {
    /// Does nothing.
    #[expect(clippy::unused_self, reason = "as in production")]
    pub(in crate::pool) fn look(&self, _mailbox: Mailbox<'_>, _worker: usize, _workers: usize) {}
}
