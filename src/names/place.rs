//! The word of a bucket, and its record: their places, and checks that they belong together.

use super::record::{Contents, Name, Value};
use crate::descriptor::{ControlKind, Descriptor};
use crate::memory::Memory;
use crate::span::Spans;
use crate::sync::{Atom, Ordering};
use crate::table::slot::Slot;
use crate::word::{BucketIndex, BucketWord, Lifecycle, SeatId, SlotIndex, SlotWord};

/// Returns a reader of the words of a record. Relaxed: nobody changes them while it lives.
pub(super) fn get(words: &[Atom]) -> impl Fn(usize) -> Option<u64> + '_ {
    |at| Some(words.get(at)?.load(Ordering::Relaxed))
}

/// Returns the words of the record of `bucket` in a slot that the caller has leased.
pub(super) fn record_words<'m>(
    memory: &'m Memory,
    slot: Slot<'_>,
    bucket: BucketIndex,
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

/// Returns `true` if the descriptor `words`, of a slot with this slot word, names `bucket`.
fn is_of(words: &[Atom], word: SlotWord, bucket: BucketIndex) -> bool {
    Descriptor::bucket(words, word.generation()) == Some(bucket)
}

/// Detaches a record that `me` has just put into its bucket. Returns `true` if it is still there.
/// Otherwise the caller frees it: the participant that replaced it may have died before.
pub(super) fn hand_over(
    memory: &Memory,
    slot: Slot<'_>,
    generation: u32,
    bucket: BucketIndex,
    me: SeatId,
) -> bool {
    slot.detach_record(generation, me);
    is_in_bucket(memory, slot, generation, bucket)
}

pub(super) fn is_in_bucket(
    memory: &Memory,
    slot: Slot<'_>,
    generation: u32,
    bucket: BucketIndex,
) -> bool {
    let bundle = bucket.bundle(memory);
    bundle.is_none_or(|bundle| is_live_bundle(memory, bundle))
        && record_in(memory, bucket).is_some_and(|record| record == (slot.index, generation))
}

/// Returns slot and generation of a bucket's current record.
pub(super) fn record_in(memory: &Memory, bucket: BucketIndex) -> Option<(SlotIndex, u32)> {
    word_of(memory, bucket)?.record()
}

/// Returns `true` if the record that a bucket's word names was freed: its slot holds a later
/// generation, or is RETIRED. Returns `false` if the word names a record that never existed.
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

/// Loads a bucket's word. Returns `None` if there is no such bucket.
pub(crate) fn word_of(memory: &Memory, bucket: BucketIndex) -> Option<BucketWord> {
    place_of(memory, bucket).map(load_word)
}

/// Loads a bucket's word from its place.
#[inline]
pub(super) fn load_word(place: &Atom<BucketWord>) -> BucketWord {
    // Acquire: pairs with the Release in `cas_bucket`. A participant that sees a change also sees
    // those before it: an arrival becomes a plain name before its departure is removed.
    place.load(Ordering::Acquire)
}

/// Returns the word of a bucket, or `None` if there is no such bucket.
pub(crate) fn place_of(memory: &Memory, bucket: BucketIndex) -> Option<&Atom<BucketWord>> {
    match bucket.bundle(memory) {
        None => memory.names().get(bucket.get()),
        Some(slot) if slot.get() < memory.slots().len() => {
            Some(Descriptor::bundle(memory.descriptor(slot)))
        }
        Some(_) => None,
    }
}

/// Returns the offset of a bucket's word, or of the descriptor that has it, in bytes from the start
/// of the segment.
pub(crate) fn offset_of(memory: &Memory, bucket: BucketIndex) -> u64 {
    let layout = memory.layout();
    match bucket.bundle(memory) {
        None => layout.names + bucket.get() as u64 * 8,
        Some(slot) => layout.descriptor_at(slot),
    }
}

/// Returns `true` if the slot holds a live bundle at this moment.
pub(super) fn is_live_bundle(memory: &Memory, slot: SlotIndex) -> bool {
    let Some(slot) = Slot::of(memory, slot) else {
        return false;
    };
    // A read-modify-write: either a participant that frees the bundle afterwards sees the current
    // contents of its bucket, or we see that the bundle is freed.
    let word = slot.newest();
    word.is_live(word.generation()) && Descriptor::is_bundle(memory.descriptor(slot.index))
}

/// Returns `true` if a bucket's word names a live record of that bucket at this moment.
pub(crate) fn is_record(memory: &Memory, word: BucketWord, bucket: BucketIndex) -> bool {
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

/// Returns `true` if the record in a leased slot is in its bucket. Returns `None` if it is not a
/// valid record.
pub(crate) fn check(memory: &Memory, slot: Slot<'_>) -> Option<bool> {
    let descriptor = memory.descriptor(slot.index);
    let bucket = Descriptor::bucket(descriptor, slot.word().generation())?;
    let words = record_words(memory, slot, bucket)?;
    let contents = Contents::decode(get(words))?;
    let copy = contents.only_entry();
    let same = |at: usize| Descriptor::name_word(descriptor, at) == copy[at];
    let buckets = memory.names().len();
    let of_bundle = bucket.bundle(memory).is_some();
    let here = |(name, _): &(Name, Value)| of_bundle || name.bucket(buckets) == bucket;
    let ours = place_of(memory, bucket).is_some()
        && contents.names.iter().all(here)
        && (0..copy.len()).all(same);
    ours.then(|| is_in_bucket(memory, slot, slot.word().generation(), bucket))
}
