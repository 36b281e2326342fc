//! The sweep: two scans of the slot words decide if a slot is free.

use super::alloc::Reserved;
use super::slot::Slot;
use crate::memory::Memory;
use crate::span::{Extent, Spans};
use crate::word::{Lifecycle, SeatId, SlotWord};

/// Reserves a slot of `class` or a larger class, the smallest that is free.
///
/// `None` proves that there was an instant at which no such slot was free: two scans in a row read
/// the same words, none of them FREE. (One scan proves nothing: a free slot can move behind it.)
/// The words cannot have changed and changed back in between, because the generation only grows.
/// Writers that come and go free no slot, so they are not compared. Lock-free: another turn means
/// that another participant reserved, published or freed something.
pub(crate) fn reserve(memory: &Memory, class: u32, me: SeatId) -> Option<Reserved<'_>> {
    let mut before: Option<Vec<(u32, Lifecycle)>> = None;
    loop {
        let mut words = Vec::new();
        let mut best: Option<(Slot<'_>, SlotWord, Extent)> = None;
        for span in Spans::of(memory).iter().filter(|span| span.class >= class) {
            for (slot, extent) in Slot::in_span(memory, span) {
                let word = slot.word();
                words.push((word.generation(), word.lifecycle()));
                let smaller = best.is_none_or(|(_, _, best)| extent.class < best.class);
                if word.is_free() && smaller {
                    best = Some((slot, word, extent));
                }
            }
        }
        if let Some((slot, seen, extent)) = best {
            if let Ok(word) = slot.reserve(seen, me) {
                return Some(Reserved {
                    slot,
                    word,
                    extent,
                    clean: seen.is_clean(),
                    backed: 0,
                });
            }
            before = None;
        } else if before.as_ref() == Some(&words) {
            return None;
        } else {
            before = Some(words);
        }
    }
}
