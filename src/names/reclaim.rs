//! The transitions of records and bundle parts when their owner leaves or dies, or when they are
//! freed.

use super::place::{get, is_in_bucket, is_live_bundle, record_in, record_words};
use super::record::Contents;
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::memory::Memory;
use crate::segment::Segment;
use crate::table::alloc::give_hint;
use crate::table::slot::Slot;
use crate::word::{BucketIndex, SeatId, SlotWord};

/// Reclaims a record, or a part of a bundle, when `seat` is reclaimed. `seen` was the slot's word a
/// moment ago: LIVE and NAMED.
///
/// With `all`, also retires detached records and parts that a dead participant has left. Returns
/// `true` if this call retired it: then a release check must follow.
pub(crate) fn reclaim(
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
        reclaim_member(slot, generation, seat, all, there, before)
    } else if let Some(bundle) = Descriptor::part_of(words, generation) {
        let handle = AnyHandle::pack(segment.key(), slot.index, generation);
        let there = || is_part(memory, bundle, handle, seat);
        reclaim_member(slot, generation, seat, all, there, || ())
    } else {
        false
    }
}

/// Detaches a linked member of `seat`. Retires an unlinked member of `seat` or, with `all`, a
/// detached one, after calling `before`. Returns `true` if this call retired it.
fn reclaim_member(
    slot: Slot<'_>,
    generation: u32,
    seat: SeatId,
    all: bool,
    there: impl Fn() -> bool,
    before: impl FnOnce(),
) -> bool {
    // A read-modify-write: a participant that detaches its own member after this sees the dead
    // participant's member in its place.
    let word = slot.newest();
    let owned = word.is_owned_by(seat);
    let is_left = |word: SlotWord| word.is_owned_by(seat) || all && word.is_unowned();
    if !word.is_live(generation) || !is_left(word) {
        return false;
    }
    let mut stays = there();
    if owned && stays {
        slot.detach_record(generation, seat);
        stays = there();
    }
    if stays {
        return false;
    }
    before();
    // An error says that another participant has retired it, or adopted it.
    slot.change(|word| match is_left(word) {
        true => word.retire(generation, seat),
        false => None,
    })
    .is_ok()
}

/// Retires the parts that a record names if its bundle was freed. A participant that frees the
/// bundle and finds its record retired relies on this.
fn retire_parts(
    segment: &Segment,
    slot: Slot<'_>,
    generation: u32,
    bucket: BucketIndex,
    seat: SeatId,
) {
    let memory = segment.memory();
    if bucket
        .bundle(memory)
        .is_none_or(|bundle| is_live_bundle(memory, bundle))
    {
        return;
    }
    // An error says that another participant has done it.
    let Some(contents) = read_record(memory, slot, generation, bucket, seat).flatten() else {
        return;
    };
    for (_, value) in contents.names {
        let (index, generation) = value.handle.unpack(segment.key());
        let Some(part) = Slot::of(memory, index) else {
            continue;
        };
        // A damaged record may name an array that is not a part.
        let ours = Descriptor::part_of(memory.descriptor(index), generation) == Some(bucket);
        if ours && part.change(|word| word.retire(generation, seat)).is_ok() {
            give_hint(memory, part, part.finish_release());
        }
    }
}

/// Reads the contents of a record under a lease of `seat`. Returns `None` if the lease is refused.
fn read_record(
    memory: &Memory,
    slot: Slot<'_>,
    generation: u32,
    bucket: BucketIndex,
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

/// Returns `true` if the array is a part of the bundle of that bucket. Takes leases of its record
/// for `seat`.
pub(super) fn is_part(
    memory: &Memory,
    bucket: BucketIndex,
    handle: AnyHandle,
    seat: SeatId,
) -> bool {
    let live = || {
        bucket
            .bundle(memory)
            .is_some_and(|slot| is_live_bundle(memory, slot))
    };
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
