//! The segment's own limits, reached by several processes: seats, slots, capacity.

use ndarray::Ix1;
use ndshm::error::{AllocError, JoinError};
use ndshm::{Handle, HandleTable, Segment};

use crate::common::{Bytes, KIB, MIB, assert_intact, assert_usable, fill, free_all, report, says};
use crate::support::{Child, Pipe};

pub fn full_seats_name_their_holders() {
    let segment = Segment::options().seats(4).anonymous().unwrap();
    let told = Pipe::new();
    let stop = Pipe::new();
    let sit = || {
        Child::fork(|| {
            let _table = HandleTable::join(&segment).unwrap();
            told.send(1);
            stop.receive();
        })
    };
    let sitting: Vec<Child> = (0..4).map(|_| sit()).collect();
    for _ in &sitting {
        told.receive();
    }
    let error = HandleTable::join(&segment).map(drop).unwrap_err();
    let JoinError::SeatsFull { seats, holders } = &error else {
        panic!("{error}");
    };
    assert_eq!(*seats, 4);
    let mut pids: Vec<u32> = sitting.iter().map(Child::pid).collect();
    let mut holders = holders.clone();
    pids.sort_unstable();
    holders.sort_unstable();
    assert_eq!(holders, pids);
    let text = says(error, &["all 4 seats", "leave", "SegmentOptions::seats(8)"]);
    // A seat is freed by a participant that leaves, and by one that is killed.
    let mut sitting = sitting.into_iter();
    sitting.next().unwrap().kill();
    let table = HandleTable::join(&segment).unwrap();
    assert!(HandleTable::join(&segment).is_err());
    stop.send(0);
    crate::support::eventually("a seat is free", || HandleTable::join(&segment).is_ok());
    for _ in 0..2 {
        stop.send(0);
    }
    for child in sitting {
        child.join();
    }
    assert_usable(&table);
    report("seats used up by 4 processes", text);
}

pub fn full_slots_name_the_limit() {
    let segment = Segment::options()
        .capacity(1 << 30)
        .arrays(64)
        .anonymous()
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let told = Pipe::new();
    let go = Pipe::new();
    let other = Child::fork(|| {
        let arrays: Vec<Bytes> = (0..40_000).map(|_| table.zeros(8).unwrap()).collect();
        told.send(1);
        go.receive();
        for array in arrays {
            table.free(array).unwrap();
        }
        told.send(2);
        go.receive();
    });
    told.receive();
    let (mine, error) = fill(&table, 8);
    assert_eq!(mine.len() + 40_000, 65_536, "all slots were used");
    let AllocError::Full { arrays: 65_536, .. } = error else {
        panic!("{error}");
    };
    let text = says(
        error,
        &[
            "table of arrays",
            "65536 slots",
            "free arrays",
            "SegmentOptions::arrays",
        ],
    );
    go.send(1);
    told.receive();
    // The other process lives, and its freed slots are reused here.
    let (more, _) = fill(&table, 8);
    assert_eq!(more.len(), 40_000);
    assert_intact(&table, &mine[..1000]);
    go.send(2);
    other.join();
    free_all(&table, mine);
    free_all(&table, more);
    assert_usable(&table);
    report("slots used up by two processes", text);
}

pub fn two_processes_use_the_whole_capacity() {
    let segment = Segment::options()
        .capacity(8 * MIB as u64)
        .anonymous()
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let told = Pipe::new();
        let go = Pipe::new();
        let filler = Child::fork(|| {
            go.receive();
            let (arrays, error) = fill(&table, 64 * KIB);
            says(&error, &["64 KiB", "8 MiB", "SegmentOptions::capacity"]);
            told.send(arrays.len() as u64);
            go.receive();
            free_all(&table, arrays);
        });
        go.send(0);
        let (arrays, error) = fill(&table, 64 * KIB);
        assert!(matches!(error, AllocError::Full { .. }), "{error}");
        counts.push(told.receive() + arrays.len() as u64);
        assert_intact(&table, &arrays);
        go.send(0);
        filler.join();
        free_all(&table, arrays);
        assert_usable(&table);
    }
    // No other class had taken memory: the arrays took the whole capacity, except for the small
    // spans of `usable`.
    assert!(counts.iter().all(|&count| count >= 100), "{counts:?}");
    let fits: Handle<u64, Ix1> = table.zeros(1000).unwrap();
    table.free(fits).unwrap();
    report(
        "capacity used up by two processes",
        format!("{counts:?} arrays of 64 KiB"),
    );
}
