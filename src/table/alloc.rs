//! Finding and reserving a slot, and releasing its extent.
//!
//! The order of the search: the participant's recently freed slots, the span it is filling, the
//! hint tree of the class, a new span, dead seats, its own slots of larger classes, the sweep of
//! the words themselves, and only then an error.

use super::cache::{Cache, Filling, Recent};
use super::hints::Hints;
use super::slot::{ReleaseOutcome, Slot};
use super::sweep;
use crate::layout::Header;
use crate::memory::Memory;
use crate::segment::NoMemory;
use crate::segment::Segment;
use crate::span::{AppendOutcome, CLASSES, Extent, Spans};
use crate::sync::Ordering;
use crate::word::{Lifecycle, SeatId, SlotIndex, SlotWord, SpanIndex};

/// A slot that is RESERVED by the caller.
#[derive(Clone, Copy)]
pub(crate) struct Reserved<'m> {
    pub(crate) slot: Slot<'m>,
    /// The slot's word as the caller wrote it.
    pub(crate) word: SlotWord,
    pub(crate) extent: Extent,
    /// The extent holds zeros.
    pub(crate) clean: bool,
    /// Bytes of the extent that need not be committed again.
    pub(crate) backed: u64,
}

/// A slot that is RESERVED to give its pages back to the system.
pub(crate) struct Cleaning {
    slot: SlotIndex,
    /// The slot's word.
    reserved: SlotWord,
    extent: Extent,
}

impl Cleaning {
    /// Gives the pages back, and makes the slot FREE. `me` has reserved it.
    ///
    /// Uses nothing private to the participant: any thread of its process may run it.
    pub(crate) fn run(self, segment: &Segment, me: SeatId) {
        let memory = segment.memory();
        let clean = segment.punch(self.extent.offset, self.extent.size());
        let Some(slot) = Slot::of(memory, self.slot) else {
            return;
        };
        let free = slot.abandon(self.reserved, me, clean);
        if !matches!(free.lifecycle(), Lifecycle::Exhausted) {
            Hints::of(memory).set(self.extent.class, self.slot);
        }
    }
}

/// The reason for which no slot was reserved.
#[derive(Debug)]
pub(crate) enum Exhausted {
    /// Every slot that is large enough is in use, and no span can be added: the span table has no
    /// entries left, or the segment no address space.
    Full { entries: bool },
    /// The span table holds bytes that no transition writes.
    Corrupt { span: SpanIndex },
    /// The words of a new span's slots cannot be backed by pages.
    NoMemory(NoMemory),
}

/// The state of a search: the segment, the private cache, and the caller's seat.
pub(crate) struct Allocator<'m, 'c> {
    pub(crate) segment: &'m Segment,
    pub(crate) cache: &'c mut Cache,
    pub(crate) me: SeatId,
}

impl<'m> Allocator<'m, '_> {
    #[inline]
    fn memory(&self) -> &'m Memory {
        self.segment.memory()
    }

    /// Returns a value for a call that is not inlined. If such a call took `self`, the caller would
    /// write it to memory on every path.
    #[inline(always)]
    fn apart(&mut self) -> Allocator<'m, '_> {
        Allocator {
            segment: self.segment,
            cache: self.cache,
            me: self.me,
        }
    }

    /// Gives the pages of a reserved slot back to the system, now or later, and makes it FREE.
    fn clean_reserved(&mut self, slot: SlotIndex, reserved: SlotWord, extent: Extent) {
        let cleaning = Cleaning {
            slot,
            reserved,
            extent,
        };
        if let Some(cleaning) = self.cache.push_deferred(cleaning) {
            cleaning.run(self.segment, self.me);
        }
    }

    /// Reserves a slot of `class` that this participant freed recently, if `needed` bytes of it are
    /// committed.
    #[inline(always)]
    pub(crate) fn recent(&mut self, class: u32, needed: u64) -> Option<Reserved<'m>> {
        let recent = self.cache.pop_backed(class, needed)?;
        let slot = Slot::of(self.memory(), SlotIndex::new(recent.slot as usize))?;
        let word = slot.reserve(recent.word, self.me).ok()?;
        Some(Reserved {
            slot,
            word,
            extent: recent.extent,
            clean: recent.word.is_clean(),
            backed: recent.backed,
        })
    }

    /// Reserves a slot of `class` from any source. Calls `reap` at most once, before the costly
    /// part; `reap` takes back the property of dead seats and returns `true` if it found any.
    pub(crate) fn search(
        &mut self,
        class: u32,
        reap: impl FnOnce() -> bool,
    ) -> Result<Reserved<'m>, Exhausted> {
        while self.cache.has_recent(class) {
            if let Some(found) = self.recent(class, 0) {
                return Ok(found);
            }
        }
        if let Some(found) = self.filling(class).or_else(|| self.hinted(class)) {
            return Ok(found);
        }
        let full = match self.append_span(class)? {
            Ok(found) => return Ok(found),
            Err(full) => full,
        };
        if reap()
            && let Some(found) = self.hinted(class)
        {
            return Ok(found);
        }
        // The classes from here on may be larger than requested. The rest of such an extent is
        // address space that stays untouched.
        (class..CLASSES)
            .find_map(|class| self.recent(class, 0).or_else(|| self.filling(class)))
            .or_else(|| {
                self.cache.note_sweep();
                sweep::reserve(self.memory(), class, self.me)
            })
            .ok_or(full)
    }

    /// Reserves the next slot of the span that this participant is filling.
    fn filling(&mut self, class: u32) -> Option<Reserved<'m>> {
        let memory = self.memory();
        let filling = self.cache.filling(class);
        let mut state = (*filling)?;
        let mut found = None;
        while found.is_none() && state.next < state.span.count {
            let position = state.next;
            state.next += 1;
            let geometry = &memory.layout().geometry;
            let slot = Slot::of(memory, state.span.slot(geometry, position))?;
            let extent = state.span.extent(position);
            let end = extent.offset - state.span.base + extent.size();
            let seen = slot.word();
            // A participant that punches pages reserves the slot for it, which ends the generation.
            let untouched = seen.generation() == 0;
            found = slot.reserve(seen, self.me).ok().map(|word| Reserved {
                slot,
                word,
                extent,
                clean: seen.is_clean(),
                backed: if untouched && end <= state.committed {
                    extent.size()
                } else {
                    0
                },
            });
        }
        *filling = (state.next < state.span.count).then_some(state);
        found
    }

    /// Reserves a slot from the shared hint tree.
    fn hinted(&mut self, class: u32) -> Option<Reserved<'m>> {
        let hints = Hints::of(self.memory());
        while let Some((span, position)) = hints.take(class) {
            let index = span.slot(&self.memory().layout().geometry, position);
            let slot = Slot::of(self.memory(), index)?;
            let seen = slot.word();
            if let Ok(word) = slot.reserve(seen, self.me) {
                let extent = span.extent(position);
                if !seen.is_clean() {
                    self.note_shared(-(extent.size() as i64));
                }
                return Some(Reserved {
                    slot,
                    word,
                    extent,
                    clean: seen.is_clean(),
                    backed: 0,
                });
            }
        }
        None
    }

    /// Appends a span and reserves a slot of it. The inner error says that no span can be added.
    fn append_span(&mut self, class: u32) -> Result<Result<Reserved<'m>, Exhausted>, Exhausted> {
        loop {
            let per_span = self.memory().layout().geometry.span_slots as usize;
            let mut refused = None;
            let back = |span: usize| {
                let committed = self.segment.commit_slots(span * per_span, per_span);
                committed.map_err(|error| refused = Some(error)).is_ok()
            };
            match Spans::of(self.memory()).append_span(class, back) {
                AppendOutcome::New(span) => {
                    *self.cache.filling(class) = Some(Filling {
                        span,
                        next: 0,
                        committed: 0,
                    });
                    // Others may have swept the whole new span meanwhile: append another one.
                    if let Some(found) = self.filling(class) {
                        return Ok(Ok(found));
                    }
                }
                AppendOutcome::Exhausted { entries } => {
                    return Ok(Err(Exhausted::Full { entries }));
                }
                AppendOutcome::Unbacked => {
                    return Err(
                        refused.map_or(Exhausted::Full { entries: true }, Exhausted::NoMemory)
                    );
                }
                AppendOutcome::Corrupt { index } => return Err(Exhausted::Corrupt { span: index }),
            }
        }
    }

    /// Records that the span being filled is committed up to `end` of the data region, if `extent`
    /// adjoins the part that is known to be committed.
    pub(crate) fn committed(&mut self, extent: &Extent, end: u64) {
        if let Some(filling) = self.cache.filling(extent.class)
            && let Some(start) = extent.offset.checked_sub(filling.span.base)
            && start
                <= filling
                    .committed
                    .max(u64::from(filling.next) * extent.size())
        {
            filling.committed = filling.committed.max(end - filling.span.base);
        }
    }

    /// Returns the end of a commit for `extent`, as an offset in the data region. Small extents of
    /// the span being filled are committed many at a time.
    pub(crate) fn commit_end(&mut self, extent: &Extent, bytes: u64) -> u64 {
        const STRIDE: u64 = 256 << 10;
        let end = extent.offset + bytes;
        match self.cache.filling(extent.class) {
            Some(Filling { span, .. })
                if extent.size() < STRIDE
                    && (span.base..span.base + extent.size() * u64::from(span.count))
                        .contains(&extent.offset) =>
            {
                let span_end = span.base + extent.size() * u64::from(span.count);
                (extent.offset + STRIDE).min(span_end).max(end)
            }
            _ => end,
        }
    }

    /// Makes a slot FREE that the caller has just retired, if no lease holds it. At most `backed`
    /// bytes of its extent are backed by pages.
    ///
    /// Gives the pages of large extents back to the system if enough are retained already.
    #[inline(always)]
    pub(crate) fn give_back(
        &mut self,
        slot: Slot<'m>,
        retired: SlotWord,
        extent: Extent,
        backed: u64,
    ) {
        if extent.has_own_pages()
            && !self.cache.within_retain_limit(backed)
            && self.apart().clean(slot.index, retired, extent)
        {
            return;
        }
        if let ReleaseOutcome::Freed(word) = slot.release_after_retire(retired) {
            let freed = Recent {
                slot: slot.index.get() as u32,
                word,
                extent,
                backed,
            };
            if self.cache.push(freed).is_err() {
                self.apart().push_free_hint(slot.index, word, extent);
            }
        }
    }

    /// Cleans the extent of a slot that the caller has retired, and makes the slot FREE. Returns
    /// `false` if leases keep it from being reserved for that.
    #[cold]
    fn clean(&mut self, slot: SlotIndex, retired: SlotWord, extent: Extent) -> bool {
        let Some(slot) = Slot::of(self.memory(), slot) else {
            return false;
        };
        let Some(reserved) = slot.recycle_reserved(retired, self.me) else {
            return false;
        };
        self.clean_reserved(slot.index, reserved, extent);
        true
    }

    /// Enters a FREE slot in the hint tree. Punches its pages first if enough are retained.
    #[cold]
    pub(crate) fn push_free_hint(&mut self, slot: SlotIndex, free: SlotWord, extent: Extent) {
        let Some(slot) = Slot::of(self.memory(), slot) else {
            return;
        };
        if !free.is_clean()
            && extent.has_own_pages()
            && !self.cache.within_shared_limit(extent.size())
        {
            if let Ok(reserved) = slot.reserve(free, self.me) {
                return self.clean_reserved(slot.index, reserved, extent);
            }
        } else if !free.is_clean() {
            self.note_shared(extent.size() as i64);
        }
        if !matches!(slot.word().lifecycle(), Lifecycle::Exhausted) {
            Hints::of(self.memory()).set(extent.class, slot.index);
        }
    }

    fn note_shared(&mut self, bytes: i64) {
        if let Some(report) = self.cache.note_shared(bytes) {
            let sum = &self.memory().header()[Header::RETAINED];
            // Two's complement: a wrapping add of the bits is the signed sum.
            let before = sum.fetch_add(report as u64, Ordering::Relaxed);
            self.cache
                .saw_shared(before.wrapping_add(report as u64) as i64);
        }
    }
}
