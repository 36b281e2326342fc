//! Finding and reserving a slot, and releasing its extent.
//!
//! The order of the search: the participant's recently freed slots, the span it is filling, the
//! hint tree of the class, a new span, dead seats, its own slots of larger classes, the sweep of
//! the words themselves, and only then an error. From one page on, the hint tree comes before the
//! span being filled: used extents have pages, and the rest of the span has none.

use super::cache::{Cache, Filling, Recent};
use super::hints::Hints;
use super::slot::{ReleaseOutcome, Slot};
use super::sweep;
use crate::descriptor::Descriptor;
use crate::layout::{Header, SCALE};
use crate::memory::Memory;
use crate::segment::NoMemory;
use crate::segment::Segment;
use crate::span::{
    AppendOutcome, CLASSES, Extent, Spans, WHOLE_COMMIT, class_size, committed_size,
};
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

    /// Reserves the slot of `class` that this participant freed last, if `needed` bytes of it are
    /// committed, and few more.
    #[inline(always)]
    pub(crate) fn recent(&mut self, class: u32, needed: u64) -> Option<Reserved<'m>> {
        let recent = self.cache.pop_backed(class, needed)?;
        self.reserve_recent(recent)
    }

    /// Reserves the slot of `class` that this participant freed recently and that fits `bytes` best.
    fn closest(&mut self, class: u32, bytes: u64) -> Option<Reserved<'m>> {
        let needed = committed_size(class, bytes);
        loop {
            let recent = self.cache.pop_closest(class, needed)?;
            if let Some(found) = self.reserve_recent(recent) {
                return Some(found);
            }
        }
    }

    /// Reserves a slot of the private cache. Fails if another participant has taken it.
    #[inline(always)]
    fn reserve_recent(&self, recent: Recent) -> Option<Reserved<'m>> {
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

    /// Reserves a slot of `class` for `bytes` from any source. Calls `reap` at most once, before the costly
    /// part; `reap` takes back the property of dead seats and returns `true` if it found any.
    pub(crate) fn search(
        &mut self,
        class: u32,
        bytes: u64,
        reap: impl FnOnce() -> bool,
    ) -> Result<Reserved<'m>, Exhausted> {
        if let Some(found) = self.closest(class, bytes) {
            return Ok(found);
        }
        let found = match class_size(class) >= SCALE.page {
            // The first touch of a page costs more than a shared cache line.
            true => self.hinted(class).or_else(|| self.filling(class)),
            false => self.filling(class).or_else(|| self.hinted(class)),
        };
        if let Some(found) = found {
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
            .find_map(|class| self.closest(class, bytes).or_else(|| self.filling(class)))
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
                self.note_shared(-retained(seen, extent));
                return Some(Reserved {
                    slot,
                    word,
                    extent,
                    clean: seen.is_clean(),
                    backed: self.still_promised(slot, seen, &extent),
                });
            }
        }
        None
    }

    /// Returns the bytes of a FREE slot's extent that are promised since it held an array, so that
    /// the next one needs no look at the machine's memory. `seen` is the word of the slot, which the
    /// caller has reserved since.
    fn still_promised(&self, slot: Slot<'_>, seen: SlotWord, extent: &Extent) -> u64 {
        // Small extents draw on a budget, which is cheaper than the descriptor.
        if extent.size() <= WHOLE_COMMIT || !self.segment.only_promises() {
            return 0;
        }
        let words = self.memory().descriptor(slot.index);
        if seen.is_clean() {
            // The pages were given back. If this reservation ends without an array, nothing else
            // tells the next one that the note is about pages which are no longer there.
            Descriptor::note_committed(words, 0);
        }
        Descriptor::committed(words).min(extent.size())
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
            && !self.apart().overflows(extent)
            && self.apart().clean(slot.index, retired, extent)
        {
            return;
        }
        let tail = slot.release_after_retire(retired);
        if let Some(word) = tail.freed(self.memory(), slot.index) {
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
        let Some(reserved) = slot.recycle_reserved(self.memory(), retired, self.me) else {
            return false;
        };
        self.clean_reserved(slot.index, reserved, extent);
        true
    }

    /// Enters a FREE slot of the private cache in the hint tree, as
    /// [`push_free_hint`](Allocator::push_free_hint) does.
    pub(crate) fn share(&mut self, slot: SlotIndex, free: SlotWord, extent: Extent) {
        match retained(free, extent) {
            0 => _ = Hints::of(self.memory()).set(extent.class, slot),
            _ => self.push_free_hint(slot, free, extent),
        }
    }

    /// Enters a FREE slot in the hint tree. Punches its pages first if enough are retained.
    #[cold]
    pub(crate) fn push_free_hint(&mut self, slot: SlotIndex, free: SlotWord, extent: Extent) {
        let Some(slot) = Slot::of(self.memory(), slot) else {
            return;
        };
        let mut bytes = retained(free, extent);
        if bytes > 0 && !self.has_shared_room(0, extent) {
            if let Ok(reserved) = slot.reserve(free, self.me) {
                return self.clean_reserved(slot.index, reserved, extent);
            }
            bytes = 0;
        }
        let exhausted = matches!(slot.word().lifecycle(), Lifecycle::Exhausted);
        if !exhausted && Hints::of(self.memory()).set(extent.class, slot.index) {
            self.note_shared(bytes);
        }
    }

    /// Returns `true` if the pages of an extent beyond the own limit may go to the shared hint
    /// trees.
    #[cold]
    fn overflows(&mut self, extent: Extent) -> bool {
        let own = self.cache.retained();
        self.has_shared_room(own, extent)
    }

    /// Returns `true` if the limit of the shared hint trees has room for the pages of one more
    /// extent, and for `own` bytes besides.
    #[cold]
    fn has_shared_room(&mut self, own: u64, extent: Extent) -> bool {
        let bytes = own.saturating_add(extent.size());
        if !self.cache.within_shared_limit(bytes) {
            // The sum as it was last seen may be old: look before the pages are given away.
            let sum = self.memory().header()[Header::RETAINED].load(Ordering::Relaxed);
            self.cache.saw_shared(sum as i64);
        }
        self.cache.within_shared_limit(bytes)
    }

    fn note_shared(&mut self, bytes: i64) {
        if let Some(report) = self.cache.note_shared(bytes) {
            let sum = add_retained(self.memory(), report);
            self.cache.saw_shared(sum);
        }
    }

    /// Adds what this participant has not reported yet to the segment's sum of retained bytes.
    pub(crate) fn report_shared(&mut self) {
        let rest = self.cache.take_unreported();
        if rest != 0 {
            add_retained(self.memory(), rest);
        }
    }
}

/// Returns the bytes of a FREE slot's pages that a hint makes the segment retain: those of extents
/// that can give them back.
pub(crate) fn retained(free: SlotWord, extent: Extent) -> i64 {
    match free.is_free() && !free.is_clean() && extent.has_own_pages() {
        true => extent.size() as i64,
        false => 0,
    }
}

/// Enters a FREE slot in the hint tree, with its pages. Returns the bytes that the segment retains
/// for it from now on, which the caller adds to the sum.
pub(crate) fn hint_with_pages(memory: &Memory, slot: Slot<'_>, extent: Extent) -> i64 {
    // Read before: a participant that finds the hint may take the slot at once, and subtracts.
    let bytes = retained(slot.word(), extent);
    match Hints::of(memory).set(extent.class, slot.index) {
        true => bytes,
        false => 0,
    }
}

/// Enters a slot in the hint tree, with its pages, if the release check has made it FREE. For code
/// without a participant's cache.
pub(crate) fn give_hint(memory: &Memory, slot: Slot<'_>, tail: ReleaseOutcome) {
    if tail.freed(memory, slot.index).is_some()
        && let Some(extent) = Spans::of(memory).extent(slot.index)
    {
        let bytes = hint_with_pages(memory, slot, extent);
        if bytes != 0 {
            add_retained(memory, bytes);
        }
    }
}

/// Adds `bytes` to the segment's sum of retained bytes. Returns the new sum.
pub(crate) fn add_retained(memory: &Memory, bytes: i64) -> i64 {
    // Two's complement: a wrapping add of the bits is the signed sum.
    let before = memory.header()[Header::RETAINED].fetch_add(bytes as u64, Ordering::Relaxed);
    before.wrapping_add(bytes as u64) as i64
}
