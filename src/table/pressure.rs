//! Allocating where memory is short: free slots may hold the pages that are needed.

use super::alloc::Reserved;
use super::core::Core;
use super::hints::Hints;
use super::slot::Slot;
use crate::segment::NoMemory;
use crate::span::{Spans, committed_size};
use crate::table::error::AllocError;
use crate::word::SeatId;

/// The most slots to try. Each one is tried because the one before could not be backed.
const TRIES: usize = 64;

impl Core {
    /// Finds a slot for `bytes` after new pages were refused: a slot that has pages, or one for the
    /// pages of other free slots and of dead participants.
    #[cold]
    pub(super) fn alloc_under_pressure(
        &self,
        bytes: u64,
        class: u32,
        me: SeatId,
        refused: NoMemory,
    ) -> Result<Reserved<'_>, AllocError> {
        // Try without a trim first, because a trim costs the other participants their warm pages.
        if let Some(reserved) = self.used_before(bytes, class, me) {
            return Ok(reserved);
        }
        let reaped = self.reap_seats(me).is_ok_and(|report| report.seats > 0);
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

    /// Reserves a free slot of `class` that held an array before and still has its pages.
    fn used_before(&self, bytes: u64, class: u32, me: SeatId) -> Option<Reserved<'_>> {
        let memory = self.segment.memory();
        let needed = committed_size(class, bytes);
        Spans::of(memory)
            .iter()
            .filter(|span| span.class == class)
            .flat_map(|span| Slot::in_span(memory, span))
            .filter_map(|(slot, extent)| {
                let seen = slot.word();
                let word = (!seen.is_clean()).then(|| slot.reserve(seen, me).ok())??;
                Some(Reserved {
                    slot,
                    word,
                    extent,
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

    /// Abandons a reserved slot whose extent could not be backed, and punches the pages that the
    /// attempt got: nobody has a record of them, so nobody would give them back.
    #[cold]
    pub(super) fn abandon_unbacked(&self, reserved: Reserved<'_>) {
        let extent = reserved.extent;
        // An extent that shares its page with others has no pages of its own to punch.
        let punched = extent.has_own_pages() && self.segment.punch(extent.offset, extent.size());
        let clean = punched || reserved.clean;
        let _ = reserved.slot.abandon(reserved.word, self.seat.get(), clean);
        Hints::of(self.segment.memory()).set(extent.class, reserved.slot.index);
    }
}
