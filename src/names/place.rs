//! The word of a bucket, and the record that it names: where they are, and whether they belong together.
//!
//! Behind the buckets of the table, each slot is the number of one: that of the bundle which is in it.

use super::record::{Contents, Name, Value};
use crate::descriptor::{ControlKind, Descriptor};
use crate::layout::Layout;
use crate::segment::Memory;
use crate::span::Spans;
use crate::sync::{Atom, Ordering, Word};
use crate::table::slot::Slot;
use crate::word::{BucketWord, Lifecycle, SlotWord};

/// How the words of a record are read: nobody changes them while it lives.
pub(super) fn get(words: &[Atom]) -> impl Fn(usize) -> Option<u64> + '_ {
    |at| Some(words.get(at)?.load(Ordering::Relaxed))
}

/// The words of the record of `bucket` in a slot that the caller has leased.
pub(super) fn record_words<'m>(
    memory: &'m Memory,
    slot: Slot<'_>,
    bucket: usize,
) -> Option<&'m [Atom]> {
    let words = memory.descriptor(slot.index);
    let descriptor = Descriptor::load(words)?;
    let ours = descriptor.is_control_of(ControlKind::Names) && is_of(words, slot.word(), bucket);
    let extent = Spans::of(memory).extent(slot.index).filter(|_| ours)?;
    let len = *descriptor.shape().first()?;
    let fits = len
        .checked_mul(8)
        .is_some_and(|bytes| bytes <= extent.size());
    memory.control(extent.offset, fits.then_some(len as usize)?)
}

/// Whether these are the words of a record of that bucket, in a slot that has this word.
fn is_of(words: &[Atom], word: SlotWord, bucket: usize) -> bool {
    Descriptor::bucket(words, word.generation()) == Some(bucket)
}

/// Gives a record to its bucket, where it has just been put; whether it is still there. If not, the
/// caller frees it, for whoever has put another one there may have died before.
pub(super) fn settle(memory: &Memory, slot: Slot<'_>, generation: u32, bucket: usize) -> bool {
    slot.detach_record(generation);
    is_in_bucket(memory, slot, generation, bucket)
}

pub(super) fn is_in_bucket(
    memory: &Memory,
    slot: Slot<'_>,
    generation: u32,
    bucket: usize,
) -> bool {
    bundle_of(memory, bucket).is_none_or(|bundle| is_live_bundle(memory, bundle))
        && record_in(memory, bucket).is_some_and(|record| record == (slot.index, generation))
}

/// Slot and generation of a bucket's record, as its word says now.
pub(super) fn record_in(memory: &Memory, bucket: usize) -> Option<(usize, u32)> {
    word_of(memory, bucket)?.record()
}

/// Whether the record that a bucket's word names was freed: its slot holds a later generation, or is
/// RETIRED. `false` for a word that names no record that ever was.
pub(super) fn was_freed(memory: &Memory, word: BucketWord) -> bool {
    let Some((slot, generation)) = word.record() else {
        return false;
    };
    Slot::of(memory, slot).is_some_and(|slot| {
        let now = slot.word();
        let over = matches!(now.lifecycle(), Lifecycle::Retired | Lifecycle::Exhausted);
        now.generation() > generation || now.generation() == generation && over
    })
}

/// What a bucket's word says now; `None` if there is no such bucket.
pub(crate) fn word_of(memory: &Memory, bucket: usize) -> Option<BucketWord> {
    // Acquire: pairs with the Release in `put`. Who finds a bucket changed finds what was done before: a
    // name that has arrived before its trace went, for instance.
    let word = place_of(memory, bucket)?.load(Ordering::Acquire);
    Some(BucketWord::from_bits(word))
}

/// The word of a bucket; `None` if there is no such bucket.
pub(crate) fn place_of(memory: &Memory, bucket: usize) -> Option<&Atom> {
    match bundle_of(memory, bucket) {
        None => memory.names().get(bucket),
        Some(slot) if slot < memory.slots().len() => {
            Some(Descriptor::bundle(memory.descriptor(slot)))
        }
        Some(_) => None,
    }
}

/// Where the word of a bucket is, or the descriptor that has it, in bytes from the start of the segment.
pub(crate) fn offset_of(layout: &Layout, bucket: usize) -> u64 {
    match bucket.checked_sub(layout.geometry.buckets()) {
        None => layout.names + bucket as u64 * 8,
        Some(slot) => layout.descriptor_at(slot),
    }
}

/// The slot of the bundle whose bucket has that number; `None` if it is one of the table's.
pub(super) fn bundle_of(memory: &Memory, bucket: usize) -> Option<usize> {
    bucket.checked_sub(memory.names().len())
}

/// Whether there is a bundle in the slot, at the moment of this call.
pub(super) fn is_live_bundle(memory: &Memory, slot: usize) -> bool {
    let Some(slot) = Slot::of(memory, slot) else {
        return false;
    };
    // A read-modify-write: either who frees the bundle afterwards sees what its bucket holds now, or
    // we see that it is freed.
    let word = slot.newest();
    word.is_live(word.generation()) && is_bundle(memory, slot)
}

/// Whether what is in a slot is a bundle.
pub(crate) fn is_bundle(memory: &Memory, slot: Slot<'_>) -> bool {
    Descriptor::load(memory.descriptor(slot.index))
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Bundle))
}

/// Whether a bucket's word names a live record of that bucket, at this moment.
pub(crate) fn is_record(memory: &Memory, word: BucketWord, bucket: usize) -> bool {
    let Some((slot, generation)) = word.record() else {
        return false;
    };
    let Some(slot) = Slot::of(memory, slot).filter(|slot| slot.word().is_live(generation)) else {
        return false;
    };
    let words = memory.descriptor(slot.index);
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    record && Descriptor::bucket(words, generation) == Some(bucket) && slot.word().is_named()
}

/// Whether the record in a leased slot is in its bucket; `None` if it is no record.
pub(crate) fn check(memory: &Memory, slot: Slot<'_>) -> Option<bool> {
    let words = memory.descriptor(slot.index);
    let bucket = Descriptor::bucket(words, slot.word().generation())?;
    let words = record_words(memory, slot, bucket)?;
    let contents = Contents::decode(get(words))?;
    let buckets = memory.names().len();
    let here = |(name, _): &(Name, Value)| bucket >= buckets || name.bucket(buckets) == bucket;
    let ours = place_of(memory, bucket).is_some() && contents.names.iter().all(here);
    ours.then(|| is_in_bucket(memory, slot, slot.word().generation(), bucket))
}
