//! What killed processes leave behind: poison, torn tiles, arrays that are freed.

use std::ops::Range;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2};
use ndshm::error::{AllocError, HalfWritten, LeaseError, PartitionError, RoundError};
use ndshm::partition::Entered;
use ndshm::{Handle, HandleTable, PartitionHandle, Read, Segment, Write};

use crate::support::{Child, Pipe, sleep_for_ever, table};
use crate::{kill_during, support};

pub fn a_dead_writer_leaves_poison() {
    let table = table();
    let x = table.from_elem(1000, 1u8).unwrap();
    let (pid, _) = kill_during(|pipe| {
        let mut x = table.write(x).unwrap();
        x[0] = 2;
        pipe.send(0);
        sleep_for_ever();
    });
    assert!(matches!(table.write(x), Err(LeaseError::Busy { pid: holder, .. }) if holder == pid));
    let report = table.reap().unwrap();
    assert_eq!((report.seats, report.poisoned.len()), (1, 1));
    for refused in [table.read(x).err(), table.write(x).err()] {
        let Some(LeaseError::Poisoned {
            pid: culprit,
            unix_time,
            what: HalfWritten::Array,
            ..
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert!(culprit == pid && unix_time > 1_600_000_000);
    }
    table.clear_poison(x).unwrap();
    assert_eq!(table.read(x).unwrap()[0], 2);
    table.write(x).unwrap().fill(0);
    assert_eq!(table.reap().unwrap().seats, 0);
}

pub fn a_dead_reader_leaves_nothing() {
    let table = table();
    let x = table.from_elem(10, 1u8).unwrap();
    kill_during(|pipe| {
        let _x = table.read(x).unwrap();
        let _again = table.read(x).unwrap();
        pipe.send(0);
        sleep_for_ever();
    });
    table.free(x).unwrap();
    let report = table.reap().unwrap();
    assert_eq!((report.leases, report.poisoned.len()), (1, 0));
    assert_eq!(table.arrays().count(), 0);
}

/// One process pins an array, another frees it, and others allocate from its class 10^5 times.
pub fn a_pinned_array_keeps_its_bytes_until_its_holder_is_killed() {
    const LENGTH: usize = 1000;
    let table = Segment::options().capacity(1 << 20).anonymous().unwrap();
    let table = HandleTable::join(&table).unwrap();
    let x = table.from_elem(LENGTH, 7u64).unwrap();
    // The extents of the class that others can have.
    let room = || {
        let mut all = Vec::new();
        while let Ok(y) = table.uninit::<u64, _>(LENGTH) {
            all.push(y);
        }
        let count = all.len();
        all.into_iter().for_each(|y| table.free(y).unwrap());
        count
    };
    let (looked, freed) = (Pipe::new(), Pipe::new());
    let to_holder = Pipe::new();
    let holder = Child::fork(|| {
        let pinned = table.pin(x).unwrap();
        freed.send(0);
        loop {
            to_holder.receive();
            // SAFETY: nobody writes the array after its creation.
            let view = unsafe { pinned.view::<u64, Ix1>() }.unwrap();
            looked.send(u64::from(view.iter().all(|&element| element == 7)));
        }
    });
    freed.receive();
    table.free(x).unwrap();
    let pinned = room();
    let others: Vec<Child> = (1..=2)
        .map(|value| {
            Child::fork(|| {
                for _ in 0..50_000 {
                    let y = table.from_elem(LENGTH, value).unwrap();
                    table.free(y).unwrap();
                }
            })
        })
        .collect();
    let look = || {
        to_holder.send(0);
        assert_eq!(looked.receive(), 1, "the pinned bytes have changed");
    };
    for other in others {
        look();
        other.join();
        look();
    }
    assert_eq!(table.verify().unwrap().retired, 1);
    assert_eq!(table.reap().unwrap().pins, 0, "the holder lives");
    holder.kill();
    let report = table.reap().unwrap();
    assert_eq!((report.seats, report.pins, report.leases), (1, 1, 0));
    assert_eq!(table.verify().unwrap().retired, 0);
    assert_eq!(room(), pinned + 1, "the memory came back");

    let x = table.zeros::<u64, _>(LENGTH).unwrap();
    let held = [table.pin(x).unwrap(), table.pin(x).unwrap()];
    table.free(x).unwrap();
    let [first, last] = held;
    drop(first);
    assert_eq!(room(), pinned, "the last pin keeps it");
    drop(last);
    assert_eq!(room(), pinned + 1, "the memory came back");
}

pub fn arrays_of_a_dead_owner_are_freed() {
    let table = table();
    let kept = Pipe::new();
    let (_, gone) = kill_during(|pipe| {
        let x = table.zeros::<u8, _>(10).unwrap();
        let y = table.from_elem(10, 3u8).unwrap();
        table.detach(y).unwrap();
        kept.send(y.to_bits());
        pipe.send(x.to_bits());
        sleep_for_ever();
    });
    let (x, y) = (
        Handle::<u8, Ix1>::from_bits(gone),
        Handle::<u8, Ix1>::from_bits(kept.receive()),
    );
    assert_eq!(table.info(x).unwrap().bytes, 10);
    assert_eq!(table.reap().unwrap().arrays_freed, 1);
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    assert_eq!(table.read(y).unwrap().sum(), 30);
}

pub fn a_dead_participant_tears_its_tiles() {
    let table = table();
    let x = table.zeros::<u32, _>((100, 2)).unwrap();
    let w = table.from_elem(100, 1u32).unwrap();
    let tiles = table.partition((x.write(), w.read()), Axis(0), 10).unwrap();
    let handle = tiles.handle();
    let round = tiles.begin().unwrap();
    let (pid, first) = kill_during(|pipe| {
        let tiles = table.open_partition(handle).unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        let mut tile = part.claim().unwrap().unwrap();
        tile.views().0.fill(1);
        pipe.send(tile.range().start as u64);
        sleep_for_ever();
    });
    assert_eq!(first, 0);
    let mut part = tiles.enter().unwrap().unwrap();
    let mut claimed = 0;
    while let Some(mut tile) = part.claim().unwrap() {
        let (mut x, w) = tile.views();
        x.column_mut(1).assign(&w);
        claimed += 1;
    }
    assert_eq!(claimed, 9);
    drop(part);
    let Err(RoundError::Torn { rows, round, .. }) = round.finish(support::DEADLINE) else {
        panic!("the dead participant's tile was not noticed");
    };
    assert_eq!((rows.len(), &rows[0], round), (1, &(0..10), 1));
    let refused = table.read(x).unwrap_err();
    let what = HalfWritten::Tiles;
    assert!(
        matches!(refused, LeaseError::Poisoned { pid: p, what: w, .. } if (p, w) == (pid, what))
    );
    assert_eq!(table.read(w).unwrap().sum(), 100, "the array was only read");
    a_tile_is_repaired_by_others(&table, handle, pid);
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(support::DEADLINE).unwrap();
}

/// Reads the rest of a partition with tile 0 torn, in another process. A process repairs half of
/// the tile and is killed; the next one repairs all of it.
fn a_tile_is_repaired_by_others(
    table: &HandleTable,
    tiles: PartitionHandle<(Write<u32, Ix2>, Read<u32, Ix1>)>,
    dead: u32,
) {
    Child::fork(|| {
        let tiles = table.open_partition(tiles).unwrap();
        let rest = tiles.read_rest().unwrap();
        let whole = rest.iter().map(|tile| {
            let tile = tile.unwrap();
            let (x, w) = tile.views();
            assert_eq!((x.column(1).sum(), w.sum()), (10, 10));
            tile.index()
        });
        assert!(whole.eq(1..10));
        let refused = rest.tile(0).map(|tile| tile.index());
        assert!(matches!(
            refused,
            Err(RoundError::HalfWritten {
                tile: 0,
                rows: Range { start: 0, end: 10 }
            })
        ));
    })
    .join();
    let (_, began) = kill_during(|pipe| {
        let tiles = table.open_partition(tiles).unwrap();
        let _ = tiles.recover(|tile, (mut x, _)| {
            x.row_mut(0).fill(1);
            pipe.send(tile.tile as u64);
            sleep_for_ever();
        });
    });
    assert_eq!(began, 0);
    table.reap().unwrap();
    let opened = table.open_partition(tiles).unwrap();
    let torn = opened.torn().unwrap();
    assert_eq!((torn.len(), torn[0].tile, &torn[0].rows), (1, 0, &(0..10)));
    let x = opened.group().0.handle();
    match table.read(x).map(drop) {
        Err(LeaseError::Poisoned { pid, rows, .. }) => {
            assert_eq!((pid, rows.len(), &rows[0]), (dead, 1, &(0..10)));
        }
        other => panic!("{other:?}"),
    }
    Child::fork(|| {
        let tiles = table.open_partition(tiles).unwrap();
        let repaired = tiles.recover(|_, (mut x, w)| x.column_mut(1).assign(&w));
        assert_eq!(repaired.unwrap(), 1);
    })
    .join();
    assert!(opened.torn().unwrap().is_empty());
    assert_eq!(table.read(x).unwrap().column(1).sum(), 100);
}

pub fn a_dead_opener_does_not_block_its_arrays() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let handle = tiles.handle();
    let (to_child, opened) = (Pipe::new(), Pipe::new());
    let opener = Child::fork(|| {
        let tiles = table.open_partition(handle).unwrap();
        let _round = tiles.begin().unwrap();
        opened.send(1);
        to_child.receive();
    });
    opened.receive();
    let mut part = tiles.enter().unwrap().unwrap();
    let mut tile = part.claim().unwrap().unwrap();
    opener.kill();
    assert_eq!(table.reap().unwrap().seats, 1);
    // The tile is still held: no participant may lease the array.
    tile.views().fill(1);
    table.clear_poison(x).unwrap_err();
    assert!(matches!(table.write(x), Err(LeaseError::Busy { .. })));
    drop(tile);
    drop(part);
    let refused = table.write(x).unwrap_err();
    assert!(matches!(
        refused,
        LeaseError::Poisoned {
            what: HalfWritten::Round,
            ..
        }
    ));
    table.clear_poison(x).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 10);
    assert!(tiles.enter().unwrap().is_none());
    drop(tiles.begin().unwrap());
}

/// Kills the opener of a round while others wait for its end, and for the next round.
pub fn a_dead_opener_is_reported_to_those_who_wait() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let handle = tiles.handle();
    let (opened, told) = (Pipe::new(), Pipe::new());
    let opener = Child::fork(|| {
        let tiles = table.open_partition(handle).unwrap();
        let _round = tiles.begin().unwrap();
        opened.send(1);
        sleep_for_ever();
    });
    opened.receive();
    let waiter = Child::fork(|| {
        let tiles = table.open_partition(handle).unwrap();
        let outcome = tiles.wait_finished(1, support::DEADLINE);
        assert!(matches!(outcome, Err(RoundError::GivenUp { round: 1 })));
        told.send(1);
        let Entered::Member(mut part) = tiles.enter_next(1, support::DEADLINE).unwrap() else {
            panic!("round 2 cannot end without us");
        };
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views().fill(2);
        }
        drop(part);
        tiles.wait_finished(2, support::DEADLINE).unwrap();
        assert_eq!(table.read(x).unwrap().sum(), 200);
        let late = tiles.enter_next(1, support::DEADLINE).unwrap();
        assert!(matches!(late, Entered::Over { round: 2 }), "{late:?}");
        told.send(2);
        let entered = tiles.enter_next(2, support::DEADLINE).unwrap();
        assert!(matches!(entered, Entered::Freed), "{entered:?}");
    });
    opener.kill();
    assert_eq!(told.receive(), 1);
    table.clear_poison(x).unwrap();
    tiles.begin().unwrap().finish(support::DEADLINE).unwrap();
    assert_eq!(told.receive(), 2);
    drop(tiles);
    waiter.join();
    let late = table.open_partition(handle).unwrap_err();
    assert!(matches!(late, PartitionError::Freed { .. }), "{late}");
}

/// Kills a participant that sleeps until a round opens. The round has all other participants.
pub fn a_killed_waiter_holds_nobody_up() {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let handle = tiles.handle();
    kill_during(|pipe| {
        let tiles = table.open_partition(handle).unwrap();
        pipe.send(1);
        let nap = std::time::Duration::from_millis(5);
        while tiles.enter_next(0, nap).is_err() {}
    });
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(support::DEADLINE).unwrap();
    assert_eq!(table.reap().unwrap().seats, 1);
}

pub fn a_stopped_process_is_alive() {
    let table = table();
    let x = table.zeros::<u8, _>(4).unwrap();
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let mut guard = table.write(x).unwrap();
        to_parent.send(1);
        to_child.receive();
        guard.fill(9);
    });
    to_parent.receive();
    child.signal(libc::SIGSTOP);
    for _ in 0..10 {
        assert_eq!(table.reap().unwrap().seats, 0);
        assert!(matches!(table.read(x), Err(LeaseError::Busy { .. })));
    }
    to_child.send(1);
    child.signal(libc::SIGCONT);
    child.join();
    table.reap().unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 36);
}

/// Allocates until the segment is full, then frees everything. Returns the number of arrays.
fn room(table: &HandleTable) -> usize {
    let mut handles = Vec::new();
    loop {
        match table.uninit::<u8, _>(50_000) {
            Ok(handle) => handles.push(handle),
            Err(AllocError::Full { .. }) => break,
            Err(other) => panic!("{other}"),
        }
    }
    for &handle in &handles {
        table.free(handle).unwrap();
    }
    handles.len()
}

pub fn killed_allocators_lose_nothing() {
    let segment = Segment::options().capacity(4 << 20).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let before = room(&table);
    assert!(before > 10);
    for kill in 0..200 {
        let pipe = Pipe::new();
        let child = Child::fork(|| {
            pipe.send(1);
            let mut kept = Vec::new();
            for step in 0.. {
                match table.uninit::<u8, _>(50_000) {
                    Ok(handle) => kept.push(handle),
                    Err(AllocError::Full { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
                if step % 3 != 0
                    && let Some(handle) = kept.pop()
                {
                    drop(table.write(handle));
                    table.free(handle).unwrap();
                }
            }
        });
        pipe.receive();
        std::thread::sleep(Duration::from_micros(37 * kill % 1500));
        child.kill();
        let x = table.zeros::<u8, _>(50_000).unwrap();
        table.free(x).unwrap();
    }
    table.reap().unwrap();
    assert_eq!(table.arrays().count(), 0);
    assert_eq!(room(&table), before);
}
