//! Giving the pages of free extents back to the system.

use super::core::Core;
use super::hints::Hints;
use super::slot::Slot;
use crate::layout::Header;
use crate::seat::JoinError;
use crate::segment::Segment;
use crate::span::{Span, Spans};
use crate::sync::Ordering;
use crate::word::SeatId;

impl Core {
    /// Gives the pages of all free extents back to the system. Returns the bytes of these extents.
    pub(crate) fn trim(&self) -> Result<u64, JoinError> {
        let me = self.enter()?;
        self.share_cache();
        let bytes = trim(&self.segment, me);
        self.forget_shared();
        Ok(bytes)
    }
}

/// Gives the pages of all free extents back to the system, for `me`. Uses nothing private to the
/// participant: any thread of its process may call it.
pub(crate) fn trim(segment: &Segment, me: SeatId) -> u64 {
    let memory = segment.memory();
    let spans = Spans::of(memory);
    let bytes = spans.iter().map(|span| trim_span(segment, &span, me)).sum();
    // The sum of retained bytes is a hint and starts anew here.
    let retained = &memory.header()[Header::RETAINED];
    retained.store(0, Ordering::Relaxed);
    bytes
}

/// Reserves the free, used slots of a span, punches their extents, and frees them as clean.
fn trim_span(segment: &Segment, span: &Span, me: SeatId) -> u64 {
    let memory = segment.memory();
    let held: Vec<_> = Slot::in_span(memory, *span)
        .filter_map(|(slot, extent)| {
            let seen = slot.word();
            // Clean slots have no pages; but extents that share pages are punched all or not at
            // all.
            if seen.is_clean() && extent.has_own_pages() {
                return None;
            }
            let reserved = slot.reserve(seen, me).ok()?;
            Some((slot, reserved, extent))
        })
        .collect();
    let whole = held.len() == span.count as usize;
    let mut bytes = 0;
    let mut all_clean = false;
    if whole {
        let len = held.iter().map(|(_, _, extent)| extent.size()).sum();
        all_clean = segment.punch(span.base, len);
        bytes = if all_clean { len } else { 0 };
    }
    for (slot, reserved, extent) in held {
        let mut clean = all_clean;
        if !all_clean && extent.has_own_pages() {
            clean = segment.punch(extent.offset, extent.size());
            bytes += if clean { extent.size() } else { 0 };
        }
        let _ = slot.abandon(reserved, me, clean);
        Hints::of(memory).set(extent.class, slot.index);
    }
    bytes
}
