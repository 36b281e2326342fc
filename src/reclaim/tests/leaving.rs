//! A participant that leaves walks over the spans that it has used. At the end of each walk a test
//! build looks at all spans.

use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use ndarray::Axis;

use super::*;

/// Arrays of one number in a span of the default segment.
const SPAN: usize = 64;

/// Creates one array in each of `spans` spans.
fn apart(table: &HandleTable, spans: usize) -> Vec<Vector> {
    let arrays = (0..spans * SPAN).map(|_| table.from_elem(1, 7).unwrap());
    arrays.step_by(SPAN).collect()
}

fn spans_of(table: &HandleTable) -> usize {
    table.core.footprint.spans().count()
}

#[test]
fn nothing_that_a_participant_can_hold_is_outside_of_its_footprint() {
    let segment = Segment::in_process().unwrap();
    let (owner, leaver) = (join(&segment), join(&segment));
    let arrays = apart(&owner, 12);
    let tiles = owner.partition(arrays[0].write(), Axis(0), 1).unwrap();
    let queue = owner.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
    for &array in &arrays[10..] {
        queue.push_owned(owner.owned(array)).unwrap();
    }
    assert_eq!(spans_of(&leaver), 0);

    forget(leaver.read(arrays[1]).unwrap());
    forget(leaver.write(arrays[2]).unwrap());
    forget(leaver.pin(arrays[3]).unwrap());
    forget(leaver.read_timeout(arrays[4], Duration::ZERO).unwrap());
    forget(leaver.write_timeout(arrays[5], Duration::ZERO).unwrap());
    owner.detach(arrays[6]).unwrap();
    leaver.adopt(arrays[6]).unwrap();
    forget(leaver.read_untyped(arrays[7]).unwrap());
    let _ = leaver.lock(arrays[8], crate::untyped::Mode::Read).unwrap();
    assert_eq!(spans_of(&leaver), 8);
    let theirs = leaver.open_queue(queue.handle()).unwrap();
    let popped = theirs.pop_owned().unwrap().unwrap().into_handle();
    let acknowledged = theirs.pop_owned_with_ack().unwrap().unwrap();
    let acknowledged = acknowledged.ack().unwrap().into_handle();
    forget(theirs);
    let round = tiles.begin().unwrap();
    let theirs = leaver.open_partition(tiles.handle()).unwrap();
    forget(theirs.enter().unwrap().unwrap());
    forget(theirs);
    let own = apart(&leaver, 3);
    let bundle = {
        let bundle = leaver.bundle().unwrap();
        bundle.insert("part", own[2]).unwrap();
        bundle.handle()
    };
    leaver.publish("name", own[1]).unwrap();
    let _reserved = leaver.core.reserve(64).unwrap();
    drop(leaver);

    drop(round);
    for gone in [own[0], popped, acknowledged, arrays[6]] {
        assert!(matches!(owner.read(gone), Err(LeaseError::Stale { .. })));
    }
    assert!(owner.open_bundle(bundle).is_err() && owner.read(own[2]).is_err());
    assert!(owner.find_any("name").is_err());
    for array in [1, 3, 4, 7, 8] {
        drop(owner.write(arrays[array]).unwrap());
    }
    for half_written in [2, 5] {
        let refused = owner.read(arrays[half_written]).map(drop);
        assert!(matches!(refused, Err(LeaseError::Poisoned { .. })));
    }
    let found = owner.verify().unwrap();
    assert!(found.damage.is_empty(), "{found}");
}

#[test]
fn what_a_participant_never_used_is_not_looked_at() {
    let segment = Segment::in_process().unwrap();
    let (owner, leaver) = (join(&segment), join(&segment));
    let arrays = apart(&owner, 5);
    drop(leaver.read(arrays[1]).unwrap());
    drop(leaver.read(arrays[1]).unwrap());
    drop(leaver.write(arrays[3]).unwrap());
    assert_eq!(spans_of(&leaver), 2);
    // A call cannot do this: the assertion at the end of the walk finds it.
    let (slot, generation) = owner.core.slot(arrays[4].into()).unwrap();
    let seat = SeatId::from_index(leaver.seat().unwrap());
    let _ = slot.lock_shared(generation, seat).unwrap();
    let left = catch_unwind(AssertUnwindSafe(|| drop(leaver)));
    assert!(left.is_err() && slot.has_bit(seat));
}

#[test]
fn a_new_seat_begins_without_a_footprint() {
    let segment = Segment::in_process().unwrap();
    let table = join(&segment);
    let arrays = apart(&table, 3);
    assert_eq!(spans_of(&table), 3);
    table.core.footprint.clear();
    assert_eq!(spans_of(&table), 0);
    // Also for the slot before, which needs no look at the spans.
    drop(table.read(arrays[2]).unwrap());
    drop(table.read(arrays[0]).unwrap());
    assert_eq!(spans_of(&table), 2);
    forget(table);
}
