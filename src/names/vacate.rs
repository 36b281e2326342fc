//! What becomes of records, of parts, and of what a bundle held, when their owner is vacated or they
//! are freed.

use super::place::{bundle_of, get, is_in_bucket, is_live_bundle, record_in, record_words};
use super::record::Contents;
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::segment::{Memory, Segment};
use crate::span::Spans;
use crate::sync::{Ordering, Word};
use crate::table::hints::Hints;
use crate::table::slot::{Slot, Tail};
use crate::word::{BucketWord, SeatId, SlotWord};

/// What becomes of a record, or a part of a bundle, when `seat` is vacated. `seen` is LIVE and named,
/// and the slot's word a moment ago.
///
/// With `all`, also what belongs to nobody is looked at: garbage that somebody who died has left.
pub(crate) fn vacate(segment: &Segment, slot: Slot<'_>, seen: SlotWord, seat: SeatId, all: bool) {
    let memory = segment.memory();
    let generation = seen.generation();
    let words = memory.descriptor(slot.index);
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    if record {
        let Some(bucket) = Descriptor::bucket(words, generation) else {
            return;
        };
        let there = || is_in_bucket(memory, slot, generation, bucket);
        vacate_member(slot, generation, seat, all, there);
    } else if let Some(bundle) = Descriptor::part_of(words, generation) {
        let handle = AnyHandle::pack(segment.key(), slot.index, generation);
        let there = || is_part(memory, bundle, handle, seat);
        vacate_member(slot, generation, seat, all, there);
    }
}

/// One that `seat` has put where it belongs is given away; one that it had not, and one of nobody that
/// is not there any more, are retired.
fn vacate_member(
    slot: Slot<'_>,
    generation: u32,
    seat: SeatId,
    all: bool,
    there: impl Fn() -> bool,
) {
    // A read-modify-write, so that a participant that gives its own away after this sees what the
    // dead one has put in its place.
    let word = slot.newest();
    let owned = word.owner() == seat && !word.is_detached();
    if !word.is_live(generation) || !(owned || all && word.is_detached()) {
        return;
    }
    let mut stays = there();
    if owned && stays {
        slot.detach_record(generation);
        stays = there();
    }
    if !stays {
        // Who was faster has retired it. The tail check follows in the walk.
        let _ = slot.change(|word| word.retire(generation, seat));
    }
}

/// Whether an array is a part of the bundle of that bucket. `seat` takes a lease of the record for it.
pub(super) fn is_part(memory: &Memory, bucket: usize, handle: AnyHandle, seat: SeatId) -> bool {
    let live = || bundle_of(memory, bucket).is_some_and(|slot| is_live_bundle(memory, slot));
    while live() {
        let Some((slot, generation)) = record_in(memory, bucket) else {
            return false;
        };
        let record = Slot::of(memory, slot);
        let lease = record.and_then(|slot| Some((slot, slot.lock_shared(generation, seat).ok()?)));
        let Some((slot, shared)) = lease else {
            if record_in(memory, bucket) == Some((slot, generation)) {
                return false;
            }
            continue;
        };
        let contents =
            record_words(memory, slot, bucket).and_then(|words| Contents::decode(get(words)));
        if let Tail::Freed(_) = slot.undo(shared, seat)
            && let Some(extent) = Spans::of(memory).extent(slot.index)
        {
            Hints::of(memory).set(extent.class, slot.index);
        }
        return contents.is_some_and(|contents| {
            let mut values = contents.names.iter().map(|(_, value)| value.handle);
            values.any(|value| value == handle)
        });
    }
    false
}

/// What goes with something that is freed.
pub(crate) struct Following {
    /// The bucket of the name that it was given last.
    pub(crate) name: u64,
    /// The number of its own bucket, and what that held, if it is a bundle.
    pub(crate) bundle: Option<(usize, BucketWord)>,
}

/// What goes with what was in a slot, which the caller has just retired and found named.
#[cold]
pub(crate) fn following(memory: &Memory, slot: Slot<'_>) -> Following {
    let words = memory.descriptor(slot.index);
    let bundle = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Bundle));
    // Relaxed: who put something there before the bundle was retired was acquired by that.
    let word = || BucketWord::from_bits(Descriptor::bundle(words).load(Ordering::Relaxed));
    Following {
        name: Descriptor::named_in(words),
        bundle: bundle.then(|| (memory.names().len() + slot.index, word())),
    }
}
