//! The sweep: the slot words themselves, read twice, decide whether nothing is free.

use super::alloc::Reserved;
use super::slot::Slot;
use crate::segment::Memory;
use crate::span::{Extent, Spans};
use crate::word::{Lifecycle, SeatId, SlotWord};

/// Reserves any slot of `class` or a larger one, the smallest that is free.
///
/// `None` is a proof that there was an instant at which no such slot was free: two scans in a row
/// that read the same words, none of them FREE. (One scan proves nothing: a free slot can move
/// behind it.) The words cannot have changed and changed back in between, for the generation only
/// grows; writers that come and go make no slot free and are not compared. Lock-free: another turn
/// means that another participant reserved, published or freed something.
pub(crate) fn reserve(memory: &Memory, class: u32, me: SeatId) -> Option<Reserved<'_>> {
    let mut before: Option<Vec<(u32, Lifecycle)>> = None;
    loop {
        let mut words = Vec::new();
        let mut best: Option<(Slot<'_>, SlotWord, Extent)> = None;
        for span in Spans::of(memory).iter().filter(|span| span.class >= class) {
            for position in 0..span.count {
                let Some(slot) = Slot::of(memory, span.slot(&memory.layout().geometry, position))
                else {
                    continue;
                };
                let word = slot.word();
                words.push((word.generation(), word.lifecycle()));
                let smaller = best.is_none_or(|(_, _, extent)| span.class < extent.class);
                if word.is_free() && smaller {
                    best = Some((slot, word, span.extent(position)));
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
