//! One participant's private cache: recently freed slots, and the spans it is filling.
//!
//! All of it is hints in private memory. Its slots are FREE, so any participant may take them by
//! the sweep. If the process dies, only the hints are lost.

use super::alloc::Cleaning;
use crate::segment::RetainLimits;
use crate::span::{CLASSES, Extent, Span};
use crate::word::SlotWord;

/// Recently freed slots that are kept per class.
const RECENT: usize = 64;

/// A slot that this participant freed, with the word that it left.
///
/// If a compare-and-swap from `word` succeeds, nobody has used or cleaned the slot since, and the
/// record of its pages still holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    pub(crate) slot: u32,
    pub(crate) word: SlotWord,
    pub(crate) extent: Extent,
    /// Bytes of the extent that are backed by pages, or may be.
    pub(crate) backed: u64,
}

/// A span that this participant appended, and its progress in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    pub(crate) span: Span,
    /// The next position to try.
    pub(crate) next: u32,
    /// Bytes from the span's base that are committed.
    pub(crate) committed: u64,
}

#[derive(Default)]
struct ClassCache {
    recent: Vec<Recent>,
    filling: Option<Filling>,
}

/// The private cache of one participant.
pub(crate) struct Cache {
    classes: Box<[ClassCache]>,
    /// Bytes backed in `recent`.
    retained: u64,
    /// Bytes that this participant added to the shared hint trees, less those it took, since the
    /// last report.
    unreported: i64,
    /// The segment's sum of all reports, as last seen.
    shared: i64,
    limits: RetainLimits,
    /// Pages to give back later, if the participant does so outside of its calls.
    deferred: Option<Vec<Cleaning>>,
    /// For models that require hints to suffice.
    #[cfg(loom)]
    pub(crate) sweeps: u64,
}

/// Reserves memory for all slots that are kept per class. Returns `false` if it was reserved.
#[cold]
fn make_room(recent: &mut Vec<Recent>) -> bool {
    let room = recent.capacity() >= RECENT;
    recent.reserve_exact(RECENT.saturating_sub(recent.len()));
    !room
}

/// Backed bytes beyond an array's end are few if they are at most this part of its own.
pub(super) const CLOSE: u64 = 8;
/// Bytes beyond an array's end go back to the system, if they are more than this part of those that
/// the participant may still retain.
const SPARE: u64 = 8;

/// Returns the cost of storing `needed` bytes in a slot of which `backed` bytes are backed. A missing
/// page costs a fault, and counts as much as `MISSING` pages beyond the end.
fn misfit(backed: u64, needed: u64) -> u64 {
    const MISSING: u64 = 4;
    match backed.checked_sub(needed) {
        Some(beyond) => beyond,
        None => (needed - backed).saturating_mul(MISSING),
    }
}

/// The size of a report in bytes. Participants report rarely, to keep off each other's cache line:
/// the sum is exact within this much per participant.
const REPORT: u64 = 16 << 20;

impl Cache {
    pub(crate) fn new(limits: RetainLimits) -> Cache {
        Cache {
            classes: (0..CLASSES).map(|_| ClassCache::default()).collect(),
            retained: 0,
            unreported: 0,
            shared: 0,
            limits,
            deferred: None,
            #[cfg(loom)]
            sweeps: 0,
        }
    }

    /// Collects the pages to give back from now on, for [`take_deferred`](Cache::take_deferred).
    pub(crate) fn defer(&mut self) {
        self.deferred.get_or_insert_default();
    }

    /// Returns `true` if pages are given back later.
    pub(crate) fn is_deferring(&self) -> bool {
        self.deferred.is_some()
    }

    /// Adds pages to give back later. Returns them if the caller gives them back at once.
    pub(crate) fn push_deferred(&mut self, cleaning: Cleaning) -> Option<Cleaning> {
        match &mut self.deferred {
            Some(deferred) => {
                deferred.push(cleaning);
                None
            }
            None => Some(cleaning),
        }
    }

    /// Returns the pages to give back now.
    pub(crate) fn take_deferred(&mut self) -> Vec<Cleaning> {
        self.deferred
            .as_mut()
            .map(core::mem::take)
            .unwrap_or_default()
    }

    /// Counts a sweep. Only models need the count.
    pub(crate) fn note_sweep(&mut self) {
        #[cfg(loom)]
        {
            self.sweeps += 1;
        }
    }

    /// Takes the last freed slot of `class`, if `needed` bytes of it are backed, and few more.
    #[inline]
    pub(crate) fn pop_backed(&mut self, class: u32, needed: u64) -> Option<Recent> {
        let recent = &mut self.classes[class as usize].recent;
        // One comparison for both bounds: too few bytes wrap to a large number.
        let fits = |last: &mut Recent| last.backed.wrapping_sub(needed) <= needed / CLOSE;
        let last = recent.pop_if(fits)?;
        self.retained -= last.backed;
        Some(last)
    }

    /// Takes the freed slot of `class` with the bytes backed that are closest to `needed`.
    ///
    /// An array leaves the pages beyond its end with its slot. If each array took the slot that was
    /// freed last, then slots of arrays of different lengths would soon all have pages for the
    /// longest.
    pub(crate) fn pop_closest(&mut self, class: u32, needed: u64) -> Option<Recent> {
        let recent = &mut self.classes[class as usize].recent;
        // The last one of several: its pages are the warmest.
        let latest_first = (0..recent.len()).rev();
        let at = latest_first.min_by_key(|&at| misfit(recent[at].backed, needed))?;
        let closest = recent.remove(at);
        self.retained -= closest.backed;
        Some(closest)
    }

    /// Returns `true` if this participant may retain `backed` more bytes for itself.
    #[inline]
    pub(crate) fn within_retain_limit(&self, backed: u64) -> bool {
        self.retained.saturating_add(backed) <= self.limits.own
    }

    /// Returns `true` if this participant may retain few bytes more, compared with `bytes` beyond the
    /// end of an array, which are not counted as retained.
    pub(super) fn is_short_of(&self, bytes: u64) -> bool {
        bytes > self.limits.own.saturating_sub(self.retained) / SPARE
    }

    /// Returns the bytes that this participant retains for itself.
    pub(crate) fn retained(&self) -> u64 {
        self.retained
    }

    /// Returns `true` if the segment as a whole may retain `backed` more bytes.
    pub(crate) fn within_shared_limit(&self, backed: u64) -> bool {
        let shared = u64::try_from(self.shared.saturating_add(self.unreported)).unwrap_or(0);
        shared.saturating_add(backed) <= self.limits.shared
    }

    /// Counts `bytes` that went into the shared trees (or came out, if negative). Returns the
    /// amount to add to the segment's sum, if a report is due.
    pub(crate) fn note_shared(&mut self, bytes: i64) -> Option<i64> {
        self.unreported = self.unreported.saturating_add(bytes);
        (self.unreported.unsigned_abs() >= REPORT).then(|| core::mem::take(&mut self.unreported))
    }

    /// Returns the amount that was not reported yet, which the caller reports.
    pub(crate) fn take_unreported(&mut self) -> i64 {
        core::mem::take(&mut self.unreported)
    }

    /// Forgets all retained bytes: their pages were given back.
    pub(crate) fn forget_shared(&mut self) {
        (self.unreported, self.shared) = (0, 0);
    }

    /// Sets the segment's sum, as the caller has read it.
    pub(crate) fn saw_shared(&mut self, sum: i64) {
        self.shared = sum;
    }

    /// Adds a freed slot. Returns it if there is no room.
    #[inline]
    pub(crate) fn push(&mut self, freed: Recent) -> Result<(), Recent> {
        if !self.within_retain_limit(freed.backed) {
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

    /// Empties the cache and returns its slots and spans for the shared hints.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::class_of;

    /// Returns a cache that has these bytes backed in slots 0, 1, .. of the class of 1 MiB.
    fn cache_of(limit: u64, backed: &[u64]) -> (Cache, u32) {
        let limits = RetainLimits {
            own: limit,
            shared: limit,
        };
        let (mut cache, class) = (Cache::new(limits), class_of(1 << 20).unwrap());
        for (slot, &backed) in backed.iter().enumerate() {
            let freed = Recent {
                slot: slot as u32,
                word: SlotWord::default(),
                extent: Extent { offset: 0, class },
                backed,
            };
            assert!(cache.push(freed).is_ok());
        }
        (cache, class)
    }

    #[test]
    fn the_last_slot_is_taken_if_few_bytes_are_beyond_the_end() {
        let (mut cache, class) = cache_of(10 << 20, &[900_000]);
        assert!(cache.pop_backed(class, 900_001).is_none(), "a byte misses");
        assert!(cache.pop_backed(class, 799_999).is_none(), "too many");
        assert!(cache.pop_backed(class, 800_000).is_some());
        assert_eq!(cache.retained(), 0);
    }

    #[test]
    fn the_closest_slot_is_the_latest_of_the_best() {
        let (mut cache, class) = cache_of(10 << 20, &[900_000, 600_000, 900_000, 1_000_000]);
        let mut pop = |needed| cache.pop_closest(class, needed).map(|taken| taken.slot);
        assert_eq!(pop(800_000), Some(2));
        // 20,000 missing bytes count as much as 80,000 beyond the end.
        assert_eq!(pop(919_999), Some(0));
        assert_eq!(pop(620_000), Some(1));
        assert_eq!(pop(1 << 20), Some(3));
        assert_eq!(pop(1), None);
        assert_eq!(cache.retained(), 0);
    }

    #[test]
    fn bytes_beyond_the_end_are_kept_if_many_more_may_be_retained() {
        let (cache, _) = cache_of(2_000_000, &[900_000, 300_000]);
        assert!(!cache.is_short_of(100_000) && cache.is_short_of(100_001));
        let (cache, _) = cache_of(1_200_000, &[900_000, 300_000]);
        assert!(!cache.is_short_of(0) && cache.is_short_of(1));
    }
}
