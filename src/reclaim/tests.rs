//! The items that a reap takes back, and the seats that it leaves alone.

mod leaving;

use ndarray::{Axis, Ix1};

use super::*;
use crate::descriptor::{ControlKind, Descriptor, HalfWritten};
use crate::handle::{AnyHandle, Handle};
use crate::handle_table::HandleTable;
use crate::queue::OwnedArray;
use crate::queue::cells::Cells;
use crate::seat::{leave, reap};
use crate::span::Spans;
use crate::sync::Ordering;
use crate::table::error::LeaseError;
use crate::table::hints::Hints;
use crate::table::slot::Slot;
use crate::word::BucketWord;

type Vector = Handle<u64, Ix1>;

fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).unwrap()
}

/// Ends the participant as the kernel ends a process: its locks are released, its words stay.
fn kill(table: HandleTable) {
    let seat = table.seat().unwrap();
    table.segment().model_kill(seat);
    std::mem::forget(table);
}

#[test]
fn a_reap_reports_all_that_it_takes_back() {
    let segment = Segment::in_process().unwrap();
    let survivor = join(&segment);
    let rows: Vector = survivor.from_elem(6, 1).unwrap();
    let tiles = survivor.partition(rows.write(), Axis(0), 2).unwrap();
    let queue = survivor.queue::<u64>(4).unwrap();
    queue.push(7).unwrap();
    let round = tiles.begin().unwrap();

    let dead = join(&segment);
    let _owned: Vector = dead.from_elem(4, 1).unwrap();
    let read: Vector = survivor.from_elem(4, 2).unwrap();
    let written: Vector = survivor.from_elem(4, 3).unwrap();
    std::mem::forget(dead.read(read).unwrap());
    std::mem::forget(dead.write(written).unwrap());
    let theirs = dead.open_partition(tiles.handle()).unwrap();
    let mut part = theirs.enter().unwrap().unwrap();
    std::mem::forget(part.claim().unwrap().unwrap());
    std::mem::forget(part);
    std::mem::forget(theirs);
    std::mem::forget(dead.open_queue(queue.handle()).unwrap());
    let control = AnyHandle::from(queue.handle());
    let extent = Spans::of(segment.memory()).extent(dead.core.slot(control).unwrap().0.index);
    let (cells, _) = Cells::open(segment.memory(), extent.unwrap()).unwrap();
    let seat = SeatId::from_index(dead.seat().unwrap());
    let _taken = cells.take(seat).unwrap();
    let _reserved = dead.core.reserve(64).unwrap();
    kill(dead);

    let me = SeatId::from_index(survivor.seat().unwrap());
    let report = reap(&segment, me, &Reclaimer).unwrap();
    assert_eq!((report.seats, report.arrays_freed), (1, 1));
    assert_eq!((report.reservations, report.jobs), (1, 1));
    // The array that it read, the round's array, the partition, and the queue.
    assert_eq!(report.leases, 4, "{report:?}");
    let [torn] = &report.torn[..] else {
        panic!("{report:?}")
    };
    assert_eq!((torn.rows.len(), torn.round), (2, 1));
    assert!(!report.names);
    let poisoned: Vec<u64> = report
        .poisoned
        .iter()
        .map(|handle| handle.to_bits())
        .collect();
    assert_eq!(poisoned, [rows.to_bits(), written.to_bits()]);
    drop(round);
    // There is nothing more to take back.
    assert_eq!(
        reap(&segment, me, &Reclaimer).unwrap(),
        ReapReport::default()
    );
    assert_eq!(queue.pop().unwrap(), Some(7));
}

#[test]
fn a_report_adds_up_all_seats_and_mentions_names() {
    let segment = Segment::in_process().unwrap();
    let survivor = join(&segment);
    let named: Vector = survivor.from_elem(4, 1).unwrap();
    survivor.publish("rows", named).unwrap();
    let dead = [join(&segment), join(&segment)];
    for table in dead {
        let _owned: [Vector; 2] = [1, 2].map(|value| table.from_elem(4, value).unwrap());
        kill(table);
    }
    let me = SeatId::from_index(survivor.seat().unwrap());
    let report = reap(&segment, me, &Reclaimer).unwrap();
    assert_eq!(
        (report.seats, report.arrays_freed, report.names),
        (2, 4, true)
    );
    assert_eq!(survivor.find("rows").unwrap(), named);
}

#[test]
fn the_living_keep_their_seats_and_all_that_they_hold() {
    let segment = Segment::in_process().unwrap();
    let (first, second) = (join(&segment), join(&segment));
    let owned: Vector = second.from_elem(4, 1).unwrap();
    let me = SeatId::from_index(first.seat().unwrap());
    assert_eq!(
        reap(&segment, me, &Reclaimer).unwrap(),
        ReapReport::default()
    );
    assert_eq!(first.read(owned).unwrap().sum(), 4);
    // With no seat as the reaper, no seat is skipped as its own.
    assert_eq!(
        reap(&segment, SeatId::NONE, &Reclaimer).unwrap(),
        ReapReport::default()
    );
}

#[test]
fn a_card_has_the_pid_of_a_seat_and_0_otherwise() {
    let segment = Segment::in_process().unwrap();
    let table = join(&segment);
    let memory = segment.memory();
    let pid = |seat| ParticipantInfo::of(memory, seat).pid;
    let mine = SeatId::from_index(table.seat().unwrap());
    assert_eq!(pid(mine), std::process::id());
    let seats = memory.layout().geometry.seats as usize;
    memory.seat_card(seats - 1)[0].store(77, Ordering::Relaxed);
    assert_eq!(pid(SeatId::from_index(seats - 1)), 77);
    for none in [SeatId::NONE, SeatId::ORPHAN] {
        assert_eq!(pid(none), 0);
    }
    if seats < SeatId::MAX_SEATS as usize {
        assert_eq!(pid(SeatId::from_index(seats)), 0);
    }
}

/// Counts the arrays in the queue of an owner that is gone.
#[test]
fn a_reap_counts_the_arrays_of_a_queue() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let queue = dead.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
    let arrays = [1, 2, 3].map(|value| dead.owned(dead.from_elem(4, value).unwrap()));
    let freed = arrays[0].handle();
    for array in arrays {
        queue.push_owned(array).unwrap();
    }
    dead.free(freed).unwrap();
    std::mem::forget(queue);
    kill(dead);
    let me = SeatId::from_index(survivor.seat().unwrap());
    let report = reap(&segment, me, &Reclaimer).unwrap();
    assert_eq!((report.arrays_freed, report.leases), (3, 1), "{report:?}");
    assert_eq!(survivor.arrays().count(), 0);
    assert!(survivor.verify().unwrap().is_clean());
}

/// Words of a control array may be another's unless the dead had leased it.
#[test]
fn a_reap_leaves_control_arrays_that_the_dead_had_not_leased() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let queue = survivor.queue::<u64>(4).unwrap();
    queue.push(7).unwrap();
    let control = AnyHandle::from(queue.handle());
    let extent = Spans::of(segment.memory()).extent(survivor.core.slot(control).unwrap().0.index);
    let (cells, _) = Cells::open(segment.memory(), extent.unwrap()).unwrap();
    let seat = SeatId::from_index(dead.seat().unwrap());
    let _taken = cells.take(seat).unwrap();
    kill(dead);
    let me = SeatId::from_index(survivor.seat().unwrap());
    let report = reap(&segment, me, &Reclaimer).unwrap();
    assert_eq!((report.seats, report.jobs), (1, 0));
    assert_eq!(queue.pop().unwrap(), None);
}

/// Checks that the next search for room finds the slots of a participant that left.
#[test]
fn hints_lead_to_what_one_that_leaves_held() {
    let segment = Segment::in_process().unwrap();
    let (survivor, leaver) = (join(&segment), join(&segment));
    let index = |handle: Vector| survivor.core.slot(AnyHandle::from(handle)).unwrap().0.index;
    let owned = index(leaver.from_elem(4, 1).unwrap());
    let reserved = leaver.core.reserve(64).unwrap().slot.index;
    let arrays: [Vector; 2] = [1, 2].map(|value| survivor.from_elem(4, value).unwrap());
    std::mem::forget(leaver.read(arrays[0]).unwrap());
    std::mem::forget(leaver.write(arrays[1]).unwrap());
    let [read, written] = arrays.map(index);
    for array in arrays {
        survivor.free(array).unwrap();
    }
    let seat = SeatId::from_index(leaver.seat().unwrap());
    let memory = segment.memory();
    let hints = Hints::of(memory);
    let class = Spans::of(memory).extent(reserved).unwrap().class;
    let slots = [owned, reserved, read, written];
    let led_to = || slots.map(|slot| hints.leads_to(class, slot));
    assert_eq!(led_to(), [false; 4]);
    leave(&segment, seat, &leaver.core.footprint, &Reclaimer);
    std::mem::forget(leaver);
    assert_eq!(led_to(), [true; 4]);
    let seat = seat.index().unwrap();
    assert!(!memory.seat_word(seat).load(Ordering::Relaxed).is_taken());
    assert!(segment.try_lock_seat(seat, None).unwrap());
}

/// Reaps as the participant of a table.
fn reap_by(table: &HandleTable) -> ReapReport {
    let me = SeatId::from_index(table.seat().unwrap());
    reap(table.segment(), me, &Reclaimer).unwrap()
}

#[test]
fn a_reap_leaves_the_queues_of_the_living_open() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let jobs = survivor.queue::<u64>(4).unwrap();
    let arrays = survivor.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
    let array = survivor.owned(survivor.from_elem(4, 1).unwrap());
    arrays.push_owned(array).unwrap();
    std::mem::forget(dead.open_queue(jobs.handle()).unwrap());
    std::mem::forget(dead.open_queue(arrays.handle()).unwrap());
    kill(dead);
    let report = reap_by(&survivor);
    assert_eq!((report.leases, report.arrays_freed), (2, 0));
    assert!(!jobs.is_closed() && !arrays.is_closed());
    assert!(arrays.pop_owned().unwrap().is_some());
}

/// Reaps a queue of other jobs: their words are not handles, even if they look like it.
#[test]
fn a_reap_frees_no_array_that_a_job_of_a_freed_queue_names() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let queue = survivor.queue::<u64>(4).unwrap();
    let arrays = survivor.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
    let array = survivor.owned(survivor.from_elem(4, 1).unwrap());
    let handle = array.handle();
    arrays.push_owned(array).unwrap();
    queue.push(handle.to_bits()).unwrap();
    std::mem::forget(dead.open_queue(queue.handle()).unwrap());
    drop(queue);
    kill(dead);
    let report = reap_by(&survivor);
    assert_eq!((report.leases, report.arrays_freed), (1, 0));
    assert_eq!(survivor.read(handle).unwrap().sum(), 4);
}

#[test]
fn a_reap_counts_the_arrays_of_a_queue_that_was_freed_beside_the_dead() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let queue = survivor.queue::<OwnedArray<u64, Ix1>>(4).unwrap();
    for value in [1, 2] {
        let array = survivor.owned(survivor.from_elem(4, value).unwrap());
        queue.push_owned(array).unwrap();
    }
    let control = AnyHandle::from(queue.handle());
    let extent = Spans::of(segment.memory()).extent(survivor.core.slot(control).unwrap().0.index);
    let (cells, _) = Cells::open(segment.memory(), extent.unwrap()).unwrap();
    std::mem::forget(dead.open_queue(queue.handle()).unwrap());
    // The dead was popping while the queue was freed with all else that was in it.
    let _taken = cells
        .take(SeatId::from_index(dead.seat().unwrap()))
        .unwrap();
    drop(queue);
    assert_eq!(survivor.arrays().count(), 1);
    kill(dead);
    let report = reap_by(&survivor);
    assert_eq!((report.jobs, report.arrays_freed), (1, 1), "{report:?}");
    assert_eq!(survivor.arrays().count(), 0);
}

/// Stops a reaper when it has put a bound job back. A consumer that was woken meets no lease of the
/// dead, which would refuse it without a cause that it can see.
#[test]
fn an_array_that_comes_back_is_not_leased_by_the_dead() {
    for writes in [false, true] {
        let segment = Segment::in_process().unwrap();
        let (survivor, dead) = (join(&segment), join(&segment));
        let queue = survivor.queue::<OwnedArray<u64, Ix1>>(2).unwrap();
        let array = survivor.owned(survivor.from_elem(4, 1).unwrap());
        let handle = array.handle();
        queue.push_owned(array).unwrap();
        let theirs = dead.open_queue(queue.handle()).unwrap();
        std::mem::forget(theirs.pop_owned_with_ack().unwrap().unwrap());
        match writes {
            true => std::mem::forget(dead.write(handle).unwrap()),
            false => std::mem::forget(dead.read(handle).unwrap()),
        }
        std::mem::forget(theirs);
        let seat = SeatId::from_index(dead.seat().unwrap());
        kill(dead);

        let mut report = ReapReport::default();
        let (slot, _) = survivor.core.slot(AnyHandle::from(queue.handle())).unwrap();
        let extent = Spans::of(segment.memory()).extent(slot.index).unwrap();
        leave_control(&segment, slot, extent, seat, &mut report);
        let job = queue.pop_owned_with_ack().unwrap().unwrap();
        assert_eq!((job.handle(), job.deliveries()), (handle, 2));
        match survivor.write(handle) {
            Ok(_) => assert!(!writes),
            Err(error) => assert!(
                writes && matches!(error, LeaseError::Poisoned { .. }),
                "{error}"
            ),
        }
        drop(job);
        let report = reap_by(&survivor);
        assert_eq!((report.seats, report.jobs), (1, 0));
        assert_eq!(survivor.verify().unwrap().damage.len(), 0);
    }
}

#[test]
fn a_round_whose_opener_is_dead_poisons_its_array() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let rows: Vector = survivor.from_elem(6, 1).unwrap();
    let tiles = survivor.partition(rows.write(), Axis(0), 2).unwrap();
    let theirs = dead.open_partition(tiles.handle()).unwrap();
    std::mem::forget(theirs.begin().unwrap());
    std::mem::forget(theirs);
    // One that takes part in it holds the array until it is through.
    let part = tiles.enter().unwrap().unwrap();
    kill(dead);
    let report = reap_by(&survivor);
    assert_eq!(report.poisoned, [AnyHandle::from(rows)]);
    let pid = std::process::id();
    let is_of_the_dead = |what| {
        let error = survivor.read(rows).unwrap_err();
        matches!(error, LeaseError::Poisoned { pid: by, what: found, .. } if (by, found) == (pid, what))
    };
    assert!(matches!(
        survivor.clear_poison(rows),
        Err(LeaseError::Busy { .. })
    ));
    drop(part);
    assert!(is_of_the_dead(HalfWritten::Round));
    survivor.clear_poison(rows).unwrap();
    assert_eq!(survivor.read(rows).unwrap().sum(), 6);
}

#[test]
fn an_array_in_which_two_have_died_is_reported_once() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), [join(&segment), join(&segment)]);
    let rows: Vector = survivor.from_elem(6, 1).unwrap();
    let tiles = survivor.partition(rows.write(), Axis(0), 2).unwrap();
    let round = tiles.begin().unwrap();
    for table in dead {
        let theirs = table.open_partition(tiles.handle()).unwrap();
        let mut part = theirs.enter().unwrap().unwrap();
        std::mem::forget(part.claim().unwrap().unwrap());
        std::mem::forget(part);
        std::mem::forget(theirs);
        kill(table);
    }
    let report = reap_by(&survivor);
    assert_eq!(report.torn.len(), 2);
    assert_eq!(report.poisoned, [AnyHandle::from(rows)]);
    drop(round);
}

#[test]
fn an_array_that_the_dead_was_writing_names_it() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let array: Vector = survivor.from_elem(4, 1).unwrap();
    std::mem::forget(dead.write(array).unwrap());
    kill(dead);
    assert_eq!(reap_by(&survivor).poisoned, [AnyHandle::from(array)]);
    let error = survivor.read(array).unwrap_err();
    let LeaseError::Poisoned { pid, what, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((pid, what), (std::process::id(), HalfWritten::Array));
}

/// Checks that a reap sets no hint that misleads, which would cost time.
#[test]
fn a_reap_leads_searches_to_free_slots_alone() {
    let segment = Segment::in_process().unwrap();
    let (survivor, dead) = (join(&segment), join(&segment));
    let array: Vector = survivor.from_elem(4, 1).unwrap();
    survivor.publish("array", array).unwrap();
    let theirs: Vector = dead.from_elem(4, 1).unwrap();
    std::mem::forget(dead.read(array).unwrap());
    let memory = segment.memory();
    let [kept, freed] = [array, theirs].map(|handle| {
        let (slot, _) = survivor.core.slot(AnyHandle::from(handle)).unwrap();
        let class = Spans::of(memory).extent(slot.index).unwrap().class;
        (class, slot.index)
    });
    kill(dead);
    reap_by(&survivor);
    let leads_to = |(class, slot)| Hints::of(memory).leads_to(class, slot);
    assert!(leads_to(freed) && !leads_to(kept));
}

/// Reaps a participant that died with a record that it had not yet put into its bucket.
#[test]
fn a_record_that_is_in_no_bucket_goes_with_its_participant() {
    let segment = Segment::in_process().unwrap();
    let (survivor, leaver) = (join(&segment), join(&segment));
    let array: Vector = survivor.from_elem(4, 1).unwrap();
    leaver.publish("array", array).unwrap();
    let memory = segment.memory();
    for bucket in memory.names() {
        bucket.store(BucketWord::EMPTY, Ordering::Relaxed);
    }
    let is_record = |slot: &Slot<'_>| {
        Descriptor::load(memory.descriptor(slot.index))
            .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Names))
    };
    let mut slots = (0..128).filter_map(|index| Slot::of(memory, SlotIndex::new(index)));
    let record = slots.find(is_record).unwrap();
    let me = SeatId::from_index(leaver.seat().unwrap());
    record
        .change(|word| word.adopt(word.generation(), SeatId::NONE, me))
        .unwrap();
    drop(leaver);
    let found = survivor.verify().unwrap();
    assert_eq!((found.live, found.retired), (1, 0), "{found}");
    assert!(record.word().is_free());
    let class = Spans::of(memory).extent(record.index).unwrap().class;
    assert!(Hints::of(memory).leads_to(class, record.index));
}
