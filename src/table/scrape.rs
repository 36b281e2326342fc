//! Allocating where memory is short: what is free already may hold the pages that are wanted.

use super::HandleTable;
use super::alloc::Reserved;
use super::create::committed_size;
use super::hints::Hints;
use super::slot::Slot;
use crate::error::{AllocError, NoMemory};
use crate::seat;
use crate::span::Spans;
use crate::word::SeatId;

/// Slots that are tried although others before them could not be backed.
const TRIES: usize = 64;

impl HandleTable {
    /// A slot for `bytes` after all, although none could be backed by new pages: one that has
    /// some, or one for the pages of other free slots and of the dead.
    #[cold]
    pub(super) fn scrape(
        &self,
        bytes: u64,
        class: u32,
        me: SeatId,
        refused: NoMemory,
    ) -> Result<Reserved<'_>, AllocError> {
        // First without a trim, which costs the others their warm pages.
        if let Some(reserved) = self.used_before(bytes, class, me) {
            return Ok(reserved);
        }
        let reaped = seat::reap(&self.segment, me).is_ok_and(|report| report.seats > 0);
        if self.trim()? == 0 && !reaped {
            return Err(refused.into());
        }
        match self.find_room(bytes, class, me) {
            Err(AllocError::NoMemory(refused)) => {
                self.used_before(bytes, class, me).ok_or(refused.into())
            }
            outcome => outcome,
        }
    }

    /// A free slot of `class` that held an array before, and has its pages still.
    fn used_before(&self, bytes: u64, class: u32, me: SeatId) -> Option<Reserved<'_>> {
        let memory = self.segment.memory();
        let geometry = &memory.layout().geometry;
        let needed = committed_size(class, bytes);
        Spans::of(memory)
            .iter()
            .filter(|span| span.class == class)
            .flat_map(|span| (0..span.count).map(move |position| (span, position)))
            .filter_map(|(span, position)| {
                let slot = Slot::of(memory, span.slot(geometry, position))?;
                let seen = slot.word();
                let word = (!seen.is_clean()).then(|| slot.reserve(seen, me).ok())??;
                Some(Reserved {
                    slot,
                    word,
                    extent: span.extent(position),
                    clean: false,
                    backed: 0,
                })
            })
            .take(TRIES)
            .find_map(|mut reserved| {
                if self.segment.commit(reserved.extent.offset, needed).is_err() {
                    self.abandon_unbacked(reserved);
                    return None;
                }
                reserved.backed = needed;
                Some(reserved)
            })
    }

    /// Gives a reserved slot back whose extent could not be backed, without the pages that it got
    /// on the way: nobody knows of them, so that nobody would give them back.
    #[cold]
    pub(super) fn abandon_unbacked(&self, reserved: Reserved<'_>) {
        let extent = reserved.extent;
        // What shares its page with others is backed by a page or is not.
        let punched = extent.has_own_pages() && self.segment.punch(extent.offset, extent.size());
        let clean = punched || reserved.clean;
        let _ = reserved.slot.abandon(reserved.word, self.seat.get(), clean);
        Hints::of(self.segment.memory()).set(extent.class, reserved.slot.index);
    }
}
