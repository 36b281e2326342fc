//! What one participant remembers for itself: recently freed slots, and the spans it is filling.
//!
//! All of it is hints in private memory. The words it refers to are FREE, so anyone may take the
//! slots by the sweep; and if the process dies, nothing is lost but the memory of them.

use crate::span::{CLASSES, Extent, Span};
use crate::word::SlotWord;

/// Slots remembered a class.
const RECENT: usize = 64;

/// A slot that this participant freed, exactly as it left it.
///
/// If a compare-and-swap from `word` succeeds, nobody has used or cleaned the slot since, so that
/// what is known of its pages still holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    pub(crate) slot: u32,
    pub(crate) word: SlotWord,
    pub(crate) extent: Extent,
    /// Bytes of the extent that are backed by pages, or may be.
    pub(crate) backed: u64,
}

/// A span that this participant carved, and how far it has got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    pub(crate) span: Span,
    /// Positions below it were tried.
    pub(crate) next: u32,
    /// Bytes from the span's base that are committed.
    pub(crate) committed: u64,
}

#[derive(Default)]
struct ClassCache {
    recent: Vec<Recent>,
    filling: Option<Filling>,
}

/// The private memory of one participant.
pub(crate) struct Cache {
    classes: Box<[ClassCache]>,
    /// Bytes backed in `recent`.
    retained: u64,
    /// Bytes that went into the shared hint trees from here, less those taken out, since the
    /// last report.
    unreported: i64,
    /// The segment's sum of such reports, as last seen.
    shared: i64,
    retain_limit: u64,
    /// For models that demand that hints suffice.
    #[cfg(loom)]
    pub(crate) sweeps: u64,
}

/// Room for all slots that are remembered of a class; `false` if there was.
#[cold]
fn make_room(recent: &mut Vec<Recent>) -> bool {
    let room = recent.capacity() >= RECENT;
    recent.reserve_exact(RECENT.saturating_sub(recent.len()));
    !room
}

/// Reports are made when this many bytes have gathered, so that participants do not meet on the
/// sum: it is right within this much for each of them.
const REPORT: u64 = 16 << 20;

impl Cache {
    pub(crate) fn new(retain_limit: u64) -> Cache {
        Cache {
            classes: (0..CLASSES).map(|_| ClassCache::default()).collect(),
            retained: 0,
            unreported: 0,
            shared: 0,
            retain_limit,
            #[cfg(loom)]
            sweeps: 0,
        }
    }

    /// All slots are about to be searched.
    pub(crate) fn note_sweep(&mut self) {
        #[cfg(loom)]
        {
            self.sweeps += 1;
        }
    }

    /// The slot of `class` freed last, if at least `needed` bytes of it are backed.
    #[inline]
    pub(crate) fn pop_backed(&mut self, class: u32, needed: u64) -> Option<Recent> {
        let recent = &mut self.classes[class as usize].recent;
        let last = recent.pop_if(|last| last.backed >= needed)?;
        self.retained -= last.backed;
        Some(last)
    }

    pub(crate) fn has_recent(&self, class: u32) -> bool {
        !self.classes[class as usize].recent.is_empty()
    }

    /// Whether the pages of one more extent may be kept.
    #[inline]
    pub(crate) fn may_retain(&self, backed: u64) -> bool {
        self.retained.saturating_add(backed) <= self.retain_limit
    }

    /// Whether the pages of one more extent may be kept by the segment as a whole.
    pub(crate) fn may_share(&self, backed: u64) -> bool {
        let shared = u64::try_from(self.shared.saturating_add(self.unreported)).unwrap_or(0);
        shared.saturating_add(backed) <= self.retain_limit
    }

    /// Notes that `bytes` went into the shared trees (or came out of them); what to add to the
    /// segment's sum, if it is time.
    pub(crate) fn note_shared(&mut self, bytes: i64) -> Option<i64> {
        self.unreported = self.unreported.saturating_add(bytes);
        (self.unreported.unsigned_abs() >= REPORT).then(|| core::mem::take(&mut self.unreported))
    }

    /// The segment's sum after a report.
    pub(crate) fn saw_shared(&mut self, sum: i64) {
        self.shared = sum;
    }

    /// Remembers a freed slot; gives it back if there is no room for it.
    #[inline]
    pub(crate) fn push(&mut self, freed: Recent) -> Result<(), Recent> {
        if !self.may_retain(freed.backed) {
            return Err(freed);
        }
        let recent = &mut self.classes[freed.extent.class as usize].recent;
        if recent.len() == recent.capacity() && !make_room(recent) {
            return Err(freed);
        }
        recent.push(freed);
        self.retained += freed.backed;
        Ok(())
    }

    #[inline]
    pub(crate) fn filling(&mut self, class: u32) -> &mut Option<Filling> {
        &mut self.classes[class as usize].filling
    }

    /// Empties the cache: everything that the others should hear of.
    pub(crate) fn drain(&mut self) -> (Vec<Recent>, Vec<Filling>) {
        self.retained = 0;
        let mut recent = Vec::new();
        let mut filling = Vec::new();
        for class in &mut self.classes {
            recent.append(&mut class.recent);
            filling.extend(class.filling.take());
        }
        (recent, filling)
    }
}
