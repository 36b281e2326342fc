//! What a child may do with the tables, arrays and guards of its parent.

use std::mem::ManuallyDrop;

use ndarray::{Axis, Ix1, Ix2};
use ndshm::error::{LeaseError, RoundError};
use ndshm::{Handle, HandleTable, Segment};

use crate::support;
use crate::support::{Child, Pipe, exit_at_once, table};

pub fn a_child_takes_a_seat_of_its_own() {
    let table = table();
    let x = table.from_elem(4, 1u32).unwrap();
    let seat = table.seat().unwrap();
    Child::fork(|| {
        assert_ne!(table.seat().unwrap(), seat);
        table.write(x).unwrap().fill(2);
    })
    .join();
    assert_eq!(table.read(x).unwrap().sum(), 8);
    assert_eq!(table.seat().unwrap(), seat);
}

pub fn arrays_made_after_the_fork_are_seen() {
    let table = table();
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let x = Handle::<u64, Ix1>::from_bits(to_child.receive());
        assert_eq!(table.read(x).unwrap().sum(), 30);
        let y = table.from_elem((2, 2), 1.5f32).unwrap();
        table.detach(y).unwrap();
        to_parent.send(y.to_bits());
    });
    let x = table.from_elem(3, 10u64).unwrap();
    to_child.send(x.to_bits());
    let y = Handle::<f32, Ix2>::from_bits(to_parent.receive());
    child.join();
    assert_eq!(table.read(y).unwrap().sum(), 6.0);
}

pub fn guards_that_crossed_a_fork_do_nothing_when_dropped() {
    let table = table();
    let x = table.from_elem(4, 1u8).unwrap();
    let y = table.from_elem(4, 1u8).unwrap();
    let z = table.from_elem(4, 1u8).unwrap();
    let tiles = table.partition(z.write(), Axis(0), 2).unwrap();
    let owned = table.owned(x);
    let guard = table.write(x).unwrap();
    let reader = table.read(y).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    let tile = part.claim().unwrap().unwrap();
    let parent = std::process::id();
    let mut crossed = ManuallyDrop::new(Some((tile, round, guard, reader, owned)));
    Child::fork(|| {
        // Drop before the child has a seat of its own, and after.
        drop(crossed.take());
        let refused = table.read(x).unwrap_err();
        assert!(
            matches!(refused, LeaseError::Busy { pid, .. } if pid == parent),
            "{refused}"
        );
    })
    .join();
    Child::fork(|| {
        table.seat().unwrap();
        let (tile, round, guard, reader, owned) = crossed.take().unwrap();
        drop((tile, guard, reader, owned));
        assert!(matches!(
            round.finish(support::DEADLINE),
            Err(RoundError::Forked)
        ));
        assert!(
            matches!(table.read(x), Err(LeaseError::Busy { .. })),
            "it still belongs to the parent"
        );
        assert!(
            matches!(table.write(y), Err(LeaseError::Busy { .. })),
            "it still belongs to the parent"
        );
        assert!(
            matches!(tiles.begin(), Err(RoundError::Running { .. })),
            "it still belongs to the parent"
        );
    })
    .join();
    let (tile, round, guard, reader, owned) = crossed.take().unwrap();
    drop((guard, reader, tile));
    assert!(part.claim().unwrap().is_some());
    drop(part);
    round.finish(support::DEADLINE).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 4);
    drop(owned);
    assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
}

pub fn a_child_pins_the_arrays_of_its_parent_for_itself() {
    let table = table();
    let x = table.from_elem(4, 1u8).unwrap();
    let pinned = table.pin(x).unwrap();
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let pins = table.pins();
        assert_eq!(pins, [(x.into(), 1)], "the parent's, until the first use");
        let own = table.pin(pins[0].0).unwrap();
        assert_eq!(table.pins().len(), 1);
        to_parent.send(0);
        to_child.receive();
        // SAFETY: nobody writes the array.
        assert_eq!(unsafe { own.bytes() }, [1; 4]);
    });
    to_parent.receive();
    drop(pinned);
    table.free(x).unwrap();
    assert_eq!(table.verify().unwrap().retired, 1, "the child's pin");
    let others: Vec<_> = (0..10).map(|_| table.from_elem(4, 2u8).unwrap()).collect();
    to_child.send(0);
    child.join();
    for other in others {
        table.free(other).unwrap();
    }
    table.reap().unwrap();
    assert_eq!(table.verify().unwrap().retired, 0);
}

pub fn a_grandchild_takes_a_seat_of_its_own() {
    let table = table();
    let x = table.zeros::<u32, _>(3).unwrap();
    Child::fork(|| {
        table.write(x).unwrap()[1] = 1;
        let seat = table.seat().unwrap();
        Child::fork(|| {
            assert_ne!(table.seat().unwrap(), seat);
            table.write(x).unwrap()[2] = 2;
        })
        .join();
        // The child does not use the table, but its own child does.
        Child::fork(|| Child::fork(|| table.write(x).unwrap()[0] = 3).join()).join();
    })
    .join();
    assert_eq!(table.read(x).unwrap().to_vec(), [3, 1, 2]);
}

pub fn a_child_continues_after_its_parent_left() {
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    let table = table();
    let x = table.from_elem(4, 5i64).unwrap();
    table.detach(x).unwrap();
    let child = Child::fork(|| {
        to_child.receive();
        assert_eq!(table.read(x).unwrap().sum(), 20);
        let y = table.from_elem(4, 1i64).unwrap();
        assert_eq!(table.read(y).unwrap().sum(), 4);
        to_parent.send(1);
    });
    drop(table);
    to_child.send(1);
    to_parent.receive();
    child.join();
}

pub fn a_child_is_reaped_however_it_ends() {
    let table = table();
    let x = table.zeros::<u8, _>(4).unwrap();
    let count = table.arrays().count();
    let lives: [fn(&HandleTable); 3] = [
        |table| {
            let _ = table.zeros::<u8, _>(100).unwrap();
            exit_at_once(0)
        },
        |table| {
            let _ = table.zeros::<u8, _>(100).unwrap();
        },
        |table| {
            let y = table.zeros::<u8, _>(100).unwrap();
            let _guard = table.write(y).unwrap();
            std::panic::panic_any("an expected panic");
        },
    ];
    for life in lives {
        let child = Child::fork(|| {
            std::panic::set_hook(Box::new(|_| {}));
            table.write(x).unwrap()[0] += 1;
            life(&table);
        });
        assert!(child.wait_within(support::DEADLINE).is_some());
        assert_eq!(table.reap().unwrap().seats, 1);
        assert_eq!(table.arrays().count(), count, "its array was freed with it");
    }
    assert_eq!(table.read(x).unwrap()[0], 3);
}

pub fn the_global_table_is_inherited() {
    let x = HandleTable::global().unwrap().zeros::<f64, _>(10).unwrap();
    Child::fork(|| {
        HandleTable::global().unwrap().write(x).unwrap().fill(0.5);
    })
    .join();
    assert_eq!(HandleTable::global().unwrap().read(x).unwrap().sum(), 5.0);
}

pub fn in_process_segments_are_not_shared() {
    let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
    let x = table.zeros::<u8, _>(4).unwrap();
    Child::fork(|| {
        let error = table.read(x).unwrap_err().to_string();
        assert!(error.contains("anonymous"), "{error}");
    })
    .join();
    assert_eq!(table.read(x).unwrap().sum(), 0);
}
