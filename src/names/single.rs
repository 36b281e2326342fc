//! Reading a record of one short name without a lease, by the copy in its descriptor.
//!
//! `README.md` beside this file has the steps and the proof, under *Finding*.

use super::record::{self, Name, Value};
use crate::descriptor::{Descriptor, NAME_COPY};
use crate::memory::Memory;
use crate::table::slot::Slot;
use crate::word::{BucketIndex, BucketWord};

/// The words of a record with one short name.
pub(super) struct Single([u64; 1 + NAME_COPY]);

impl Single {
    /// Reads the record that `word`, a loaded word of `bucket`, names. Returns `None` if the caller
    /// must read the record under a lease: it has more names or a longer one, or it was freed.
    #[inline]
    pub(super) fn read(memory: &Memory, word: BucketWord, bucket: BucketIndex) -> Option<Single> {
        let (slot, generation) = word.record()?;
        let slot = Slot::of(memory, slot)?;
        let words = memory.descriptor(slot.index);
        if Descriptor::bucket(words, generation) != Some(bucket) {
            return None;
        }
        let record = record::of_entry(|at| Descriptor::name_word(words, at))?;
        // Load the slot's word last: the words above then belong to this generation.
        slot.word().is_live(generation).then_some(Single(record))
    }

    fn get(&self) -> impl Fn(usize) -> Option<u64> + '_ {
        |at| self.0.get(at).copied()
    }

    /// Returns the value if the record's name is `name`.
    #[inline]
    pub(super) fn find(&self, name: &Name) -> Option<Value> {
        record::find(self.get(), name).flatten()
    }

    /// Returns the name and its value. Returns `None` if the words are damaged.
    #[inline]
    pub(super) fn decode(&self) -> Option<(&str, Value)> {
        record::decode_only(&self.0)
    }
}
