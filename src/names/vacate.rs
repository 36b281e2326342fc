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
use crate::table::lease::SharedLease;
use crate::table::slot::{Slot, Tail};
use crate::word::{BucketWord, SeatId, SlotWord};

/// What becomes of a record, or a part of a bundle, when `seat` is vacated. `seen` is LIVE and named,
/// and the slot's word a moment ago.
///
/// With `all`, also what belongs to nobody is looked at: garbage that somebody who died has left.
/// Whether it was retired, so that a tail check must follow.
pub(crate) fn vacate(
    segment: &Segment,
    slot: Slot<'_>,
    seen: SlotWord,
    seat: SeatId,
    all: bool,
) -> bool {
    let memory = segment.memory();
    let generation = seen.generation();
    let words = memory.descriptor(slot.index);
    let record = Descriptor::load(words)
        .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names));
    if record {
        let Some(bucket) = Descriptor::bucket(words, generation) else {
            return false;
        };
        let there = || is_in_bucket(memory, slot, generation, bucket);
        let before = || retire_parts(segment, slot, generation, bucket, seat);
        vacate_member(slot, generation, seat, all, there, before)
    } else if let Some(bundle) = Descriptor::part_of(words, generation) {
        let handle = AnyHandle::pack(segment.key(), slot.index, generation);
        let there = || is_part(memory, bundle, handle, seat);
        vacate_member(slot, generation, seat, all, there, || ())
    } else {
        false
    }
}

/// One that `seat` has put where it belongs is given away; one that it had not, and one of nobody that
/// is not there any more, are retired, after what has to come `before`. Whether it was.
fn vacate_member(
    slot: Slot<'_>,
    generation: u32,
    seat: SeatId,
    all: bool,
    there: impl Fn() -> bool,
    before: impl FnOnce(),
) -> bool {
    // A read-modify-write, so that a participant that gives its own away after this sees what the
    // dead one has put in its place.
    let word = slot.newest();
    let owned = word.is_owned_by(seat);
    if !word.is_live(generation) || !(owned || all && word.is_unowned()) {
        return false;
    }
    let mut stays = there();
    if owned && stays {
        slot.detach_record(generation);
        stays = there();
    }
    if stays {
        return false;
    }
    before();
    // An error says that who was faster has retired it.
    slot.change(|word| word.retire(generation, seat)).is_ok()
}

/// Retires the parts that a record names, if it is that of a bundle which is not there: who frees the
/// bundle, and finds the record retired, takes it that they are.
fn retire_parts(segment: &Segment, slot: Slot<'_>, generation: u32, bucket: usize, seat: SeatId) {
    let memory = segment.memory();
    if bundle_of(memory, bucket).is_none_or(|bundle| is_live_bundle(memory, bundle)) {
        return;
    }
    // An error says that somebody else has done it.
    let Some(contents) = read_record(memory, slot, generation, bucket, seat).flatten() else {
        return;
    };
    for (_, value) in contents.names {
        let (index, generation) = value.handle.unpack(segment.key());
        let Some(part) = Slot::of(memory, index) else {
            continue;
        };
        // Not what a damaged record names.
        let ours = Descriptor::part_of(memory.descriptor(index), generation) == Some(bucket);
        if ours && part.change(|word| word.retire(generation, seat)).is_ok() {
            give_hint(memory, part, part.tail());
        }
    }
}

/// What a record holds, read under a lease of `seat`; `None` if that is refused.
fn read_record(
    memory: &Memory,
    slot: Slot<'_>,
    generation: u32,
    bucket: usize,
    seat: SeatId,
) -> Option<Option<Contents>> {
    let shared = match slot.lock_shared(generation, seat) {
        Ok(shared) => shared,
        Err((_, tail)) => {
            give_hint(memory, slot, tail);
            return None;
        }
    };
    let contents =
        record_words(memory, slot, bucket).and_then(|words| Contents::decode(get(words)));
    give_hint(memory, slot, slot.undo(shared, seat));
    Some(contents)
}

/// Lets others find a slot, if it is free now.
fn give_hint(memory: &Memory, slot: Slot<'_>, tail: Tail) {
    if let Tail::Freed(_) = tail
        && let Some(extent) = Spans::of(memory).extent(slot.index)
    {
        Hints::of(memory).set(extent.class, slot.index);
    }
}

/// Whether an array is a part of the bundle of that bucket. `seat` takes a lease of the record for it.
pub(super) fn is_part(memory: &Memory, bucket: usize, handle: AnyHandle, seat: SeatId) -> bool {
    let live = || bundle_of(memory, bucket).is_some_and(|slot| is_live_bundle(memory, slot));
    while live() {
        let Some((slot, generation)) = record_in(memory, bucket) else {
            return false;
        };
        let contents = Slot::of(memory, slot)
            .and_then(|slot| read_record(memory, slot, generation, bucket, seat));
        let Some(contents) = contents else {
            if record_in(memory, bucket) == Some((slot, generation)) {
                return false;
            }
            continue;
        };
        return contents.is_some_and(|contents| {
            let mut values = contents.names.iter().map(|(_, value)| value.handle);
            values.any(|value| value == handle)
        });
    }
    false
}

/// What goes with something that is freed.
pub(crate) struct Following<'t> {
    /// The bucket of the name that it was given last.
    pub(crate) name: u64,
    /// If it is a bundle.
    pub(crate) bundle: Option<Emptied<'t>>,
}

/// A bundle that was freed, whose parts are still to be.
pub(crate) struct Emptied<'t> {
    /// The number of its bucket.
    pub(crate) bucket: usize,
    /// What that held.
    pub(crate) word: BucketWord,
    /// The slot, and with it the bucket, stays its own until its parts are free.
    pub(crate) kept: SharedLease<'t>,
}

impl<'t> Following<'t> {
    /// For what is in a slot, before it is retired: after that the slot may be another's.
    pub(crate) fn name(memory: &Memory, slot: Slot<'_>) -> Following<'t> {
        Following {
            name: Descriptor::named_in(memory.descriptor(slot.index)),
            bundle: None,
        }
    }
}

impl<'t> Emptied<'t> {
    /// The bundle that was in a slot, which was `kept` since before the caller has retired it.
    pub(crate) fn of(memory: &Memory, kept: SharedLease<'t>) -> Emptied<'t> {
        let slot = kept.slot.index;
        // Relaxed: who put something there before the bundle was retired was acquired by that.
        let word = Descriptor::bundle(memory.descriptor(slot)).load(Ordering::Relaxed);
        Emptied {
            bucket: memory.names().len() + slot,
            word: BucketWord::from_bits(word),
            kept,
        }
    }
}
