//! The memory of a segment as the protocol has it: tables of words, and places of bytes.
//!
//! Protocol code sees slices of [`Atom`](crate::sync::Atom)s. Production has them in a mapping that
//! a segment makes; under the model checker they are the checker's own words, and the bytes of
//! arrays are watched for races. Only the constructors differ.

mod corrupt;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod tables;

use crate::word::{BucketIndex, SlotIndex};
pub use corrupt::Corrupt;
#[cfg(loom)]
pub use model::{Access, Memory, TileAccesses, ViewAccesses, put_down_to};
#[cfg(not(loom))]
pub use tables::{Access, Memory, TileAccesses, ViewAccesses};

/// Buckets of the table come first. Behind them, each slot has the number of one bucket: that of
/// the bundle in the slot.
impl BucketIndex {
    /// Returns the bucket of the bundle in `slot`.
    #[inline]
    pub(crate) fn of_bundle(memory: &Memory, slot: SlotIndex) -> BucketIndex {
        BucketIndex::new(memory.names().len() + slot.get())
    }

    /// Returns the slot of the bundle that has this bucket, or `None` for a bucket of the table.
    #[inline]
    pub(crate) fn bundle(self, memory: &Memory) -> Option<SlotIndex> {
        self.get()
            .checked_sub(memory.names().len())
            .map(SlotIndex::new)
    }
}
