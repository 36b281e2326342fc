//! The data by which a worker finds its pool.

use super::mailbox::Mailbox;
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::memory::Memory;
use crate::segment::Segment;
use crate::span::Spans;

/// The data by which a worker finds its pool.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub(super) mailbox: AnyHandle,
    pub(super) workers: usize,
}

impl Shared {
    /// Opens the mailbox. The caller keeps its slot in place by a lease.
    pub(super) fn open<'t>(&self, table: &'t HandleTable) -> Option<Mailbox<'t>> {
        self.open_in(table.segment())
    }

    pub(super) fn open_in<'t>(&self, segment: &'t Segment) -> Option<Mailbox<'t>> {
        let memory: &Memory = segment.memory();
        let (slot, _) = self.mailbox.unpack(segment.key());
        let extent = Spans::of(memory).extent(slot)?;
        Descriptor::load(memory.descriptor(slot))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Pool))?;
        Mailbox::open(memory, extent, self.workers)
    }
}
