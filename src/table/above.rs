//! The calls from the table to the layers above it.
//!
//! Names, bundles and queues are built on the table, but freeing an array or reclaiming a seat has
//! to reach them. The table does not know their words. It calls this trait, which `reclaim.rs`
//! implements on top of all of them.

use super::core::Core;
use super::lease::SharedLease;
use super::slot::Slot;
use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
use crate::memory::Memory;
use crate::seat::Reclaim;
use crate::sync::Ordering;
use crate::word::{BucketIndex, BucketWord, SeatId, SlotIndex};
use core::ops::Range;

/// Operations that the table needs from the layers above it.
pub(crate) trait Above: Reclaim + Sync {
    /// Returns `true` if the slot has a queue that owns arrays.
    fn owns_arrays(&self, memory: &Memory, slot: Slot<'_>) -> bool;

    /// Frees the arrays in a RETIRED queue. The bit of `seat` keeps its cells in place.
    fn free_queued(&self, core: &Core, slot: Slot<'_>, seat: SeatId);

    /// Removes the names of a freed array, and frees the parts of a freed bundle.
    fn finish_free(&self, core: &Core, after: AfterFree<'_>);

    /// Removes the names of all arrays that were freed.
    fn forget_dead_names(&self, core: &Core);

    /// Removes the names of the arrays that leave with this participant.
    fn forget_own_names(&self, core: &Core);

    /// Returns a name of the array for an error text, if it has one that can be read at this
    /// moment.
    fn name_of(&self, core: &Core, handle: AnyHandle) -> Option<String>;

    /// Returns the rows of an array's torn tiles for an error text, if they can be read at this
    /// moment. `partition` is the slot of the partition that has the tiles.
    fn torn_rows(&self, core: &Core, partition: SlotIndex, handle: AnyHandle) -> Vec<Range<usize>>;
}

/// The items to free with an array, queue or bundle.
pub(crate) struct AfterFree<'t> {
    /// The bucket of the name that it was given last.
    pub(crate) name: BucketIndex,
    /// The contents, if it is a bundle.
    pub(crate) bundle: Option<FreedBundle<'t>>,
}

/// A freed bundle with parts that are still to be freed.
pub(crate) struct FreedBundle<'t> {
    /// The number of its bucket.
    pub(crate) bucket: BucketIndex,
    /// The bucket's word.
    pub(crate) word: BucketWord,
    /// Keeps the slot, and with it the bucket, until the parts are freed.
    pub(crate) kept: SharedLease<'t>,
}

impl<'t> AfterFree<'t> {
    /// Reads the noted bucket of a slot. Must run before the slot is retired: afterwards it may
    /// have another array.
    pub(super) fn name(memory: &Memory, slot: SlotIndex) -> AfterFree<'t> {
        AfterFree {
            name: Descriptor::named_in(memory.descriptor(slot)),
            bundle: None,
        }
    }
}

impl<'t> FreedBundle<'t> {
    /// Reads the bucket of a bundle that the caller has retired. The caller has `kept` its slot
    /// since before the retirement.
    pub(super) fn of(memory: &Memory, kept: SharedLease<'t>) -> FreedBundle<'t> {
        let slot = kept.slot.index;
        // Relaxed: the retirement has acquired all changes of the bucket before it.
        let word = Descriptor::bundle(memory.descriptor(slot)).load(Ordering::Relaxed);
        FreedBundle {
            bucket: BucketIndex::of_bundle(memory, slot),
            word,
            kept,
        }
    }
}
