//! The items that a reap takes back, and the seats that it leaves alone.

use ndarray::{Axis, Ix1};

use super::*;
use crate::handle::{AnyHandle, Handle};
use crate::queue::cells::Cells;
use crate::span::Spans;
use crate::table::HandleTable;

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
    let control = AnyHandle::from_bits(queue.handle().to_bits());
    let extent = Spans::of(segment.memory()).extent(dead.slot(control).unwrap().0.index);
    let (cells, _) = Cells::open(segment.memory(), extent.unwrap()).unwrap();
    let seat = SeatId::from_index(dead.seat().unwrap());
    let _taken = cells.take(seat).unwrap();
    let _reserved = dead.reserve(64).unwrap();
    kill(dead);

    let me = SeatId::from_index(survivor.seat().unwrap());
    let report = reap(&segment, me).unwrap();
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
    assert_eq!(reap(&segment, me).unwrap(), ReapReport::default());
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
    let report = reap(&segment, me).unwrap();
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
    assert_eq!(reap(&segment, me).unwrap(), ReapReport::default());
    assert_eq!(first.read(owned).unwrap().sum(), 4);
    // With no seat as the reaper, no seat is skipped as its own.
    assert_eq!(reap(&segment, SeatId::NONE).unwrap(), ReapReport::default());
}

#[test]
fn a_card_has_the_pid_of_a_seat_and_0_otherwise() {
    let segment = Segment::in_process().unwrap();
    let table = join(&segment);
    let memory = segment.memory();
    let pid = |seat| Card::of(memory, seat).pid;
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
