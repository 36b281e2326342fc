//! Freeing arrays: the slot is retired, and its extent goes back with the last lease.

use super::above::{AfterFree, FreedBundle};
use super::core::Core;
use super::slot::Slot;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::span::{Extent, Spans};
use crate::table::error::LeaseError;
use crate::word::{SlotIndex, SlotWord};

impl Core {
    /// Frees an array. Its handle is stale at once, in every process. If the array is leased, its
    /// bytes are released with the last lease.
    pub(crate) fn free(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        if let Some(after) = self.retire(handle, true)? {
            self.above.finish_free(self, after);
        }
        Ok(())
    }

    /// Frees the contents of a slot, also of a control array that the crate keeps for itself.
    /// Returns the items to free with it.
    pub(crate) fn free_slot(&self, handle: AnyHandle) -> Result<Option<AfterFree<'_>>, LeaseError> {
        self.retire(handle, false)
    }

    /// Frees the contents of a slot and returns the items to free with it. Refuses the crate's own
    /// control arrays if `user` is set.
    #[inline(always)]
    fn retire(&self, handle: AnyHandle, user: bool) -> Result<Option<AfterFree<'_>>, LeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle });
        };
        // Load the word before reading the page state. This Acquire pairs with the publisher's
        // Release, so the page state read below belongs to this array.
        let word = slot.word();
        if user
            && word.is_control()
            && let Some(what) = self.tables().internal(slot.index, generation)
        {
            return Err(LeaseError::Internal { handle, what });
        }
        let memory = self.segment.memory();
        let Some(extent) = Spans::of(memory).extent(slot.index) else {
            return Err(LeaseError::Stale { handle });
        };
        let backed = self.backed(slot, &extent);
        if word.is_named() {
            return self.free_named(handle, slot.index, word, extent, backed);
        }
        let Ok(retired) = slot.retire(word, generation, me) else {
            return Err(LeaseError::Stale { handle });
        };
        if retired.is_named() {
            // The array was named after we read the word. It is not a bundle, because bundles are
            // named from creation to free.
            let after = AfterFree::name(memory, slot.index);
            self.give_back_named(slot.index, retired, extent, backed);
            return Ok(Some(after));
        }
        self.give_back(slot, retired, extent, backed);
        Ok(None)
    }

    /// Retires an array that had a name when `word` was read; see [`Core::retire`].
    #[cold]
    fn free_named(
        &self,
        handle: AnyHandle,
        slot: SlotIndex,
        word: SlotWord,
        extent: Extent,
        backed: u64,
    ) -> Result<Option<AfterFree<'_>>, LeaseError> {
        let memory = self.segment.memory();
        let (_, generation) = handle.unpack(self.segment.key());
        let slot = Slot::of(memory, slot).ok_or(LeaseError::Stale { handle })?;
        let mut after = AfterFree::name(memory, slot.index);
        let bundle = match Descriptor::is_bundle(memory.descriptor(slot.index)) {
            true => self.hold_for_retire(slot, handle),
            false => None,
        };
        let queue = match bundle.is_none() && self.above.owns_arrays(memory, slot) {
            true => self.hold_for_retire(slot, handle),
            false => None,
        };
        let Ok(retired) = slot.retire(word, generation, self.own_seat()) else {
            return Err(LeaseError::Stale { handle });
        };
        after.bundle = bundle.map(|kept| FreedBundle::of(memory, kept));
        self.give_back(slot, retired, extent, backed);
        if let Some(kept) = queue {
            self.above.free_queued(self, kept.slot, self.own_seat());
        }
        Ok(Some(after))
    }

    /// Calls [`Core::give_back`], out of line for the rare case.
    #[cold]
    fn give_back_named(&self, slot: SlotIndex, retired: SlotWord, extent: Extent, backed: u64) {
        if let Some(slot) = Slot::of(self.segment.memory(), slot) {
            self.give_back(slot, retired, extent, backed);
        }
    }

    /// Releases the extent of a slot that this participant has just retired.
    #[inline(always)]
    fn give_back(&self, slot: Slot<'_>, retired: SlotWord, extent: Extent, backed: u64) {
        self.allocator(&mut self.cache.borrow_mut(), self.seat.get())
            .give_back(slot, retired, extent, backed);
    }

    /// Returns the committed bytes of a LIVE slot's extent.
    #[inline]
    fn backed(&self, slot: Slot<'_>, extent: &Extent) -> u64 {
        if extent.size() <= crate::span::WHOLE_COMMIT {
            return extent.size();
        }
        Descriptor::committed(self.segment.memory().descriptor(slot.index)).min(extent.size())
    }
}
