//! Interaction of processes: forks, deaths, names, passed descriptors.

mod support;

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use ndarray::{Axis, Ix1, Ix2};
use ndshm::{AllocError, HalfWritten, Handle, HandleTable, LeaseError, RoundError, Segment};
use support::{Child, Name, Pipe, exit_at_once};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--helper") {
        return helper(std::env::args().skip(2).collect());
    }
    support::run_tests![
        a_child_takes_a_seat_of_its_own,
        arrays_made_after_the_fork_are_seen,
        what_crossed_a_fork_does_nothing_when_dropped,
        a_child_of_a_child,
        the_parent_may_leave_first,
        a_child_may_end_in_any_way,
        the_global_table_is_inherited,
        a_dead_writer_leaves_poison,
        a_dead_reader_leaves_nothing,
        a_dead_owner_takes_its_arrays_along,
        a_dead_participant_tears_its_tiles,
        a_dead_opener_does_not_block_its_arrays,
        a_stopped_process_is_alive,
        killed_allocators_lose_nothing,
        a_segment_is_passed_by_descriptor,
        a_segment_is_opened_by_name,
        racing_creators_join_the_same_segment,
        the_last_to_leave_removes_the_name,
        a_persistent_name_stays,
        a_name_left_by_the_dead_is_joined,
        nobody_is_left_behind_an_unlinked_name,
        in_process_segments_are_not_shared,
    ];
}

/// Runs as an unrelated process: this program started anew.
fn helper(args: Vec<String>) {
    let table = match args[0].as_str() {
        "fd" => {
            let fd = args[1].parse().unwrap();
            // SAFETY: the parent passed this descriptor on, and this process is to own it.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            HandleTable::join(&Segment::from_fd(fd).unwrap()).unwrap()
        }
        _ => HandleTable::open(&args[1]).unwrap(),
    };
    let x: Handle<i32, Ix2> = args[2].parse().unwrap();
    let mut x = table.write(x).unwrap();
    assert_eq!(x.sum(), 6);
    x.fill(7);
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

fn a_child_takes_a_seat_of_its_own() {
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

fn arrays_made_after_the_fork_are_seen() {
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

fn what_crossed_a_fork_does_nothing_when_dropped() {
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

fn a_child_of_a_child() {
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

fn the_parent_may_leave_first() {
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

fn a_child_may_end_in_any_way() {
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

fn the_global_table_is_inherited() {
    let x = HandleTable::global().unwrap().zeros::<f64, _>(10).unwrap();
    Child::fork(|| {
        HandleTable::global().unwrap().write(x).unwrap().fill(0.5);
    })
    .join();
    assert_eq!(HandleTable::global().unwrap().read(x).unwrap().sum(), 5.0);
}

/// Forks a child that runs `life`, which never returns, and kills it once it has sent a number.
fn kill_during(life: impl FnOnce(&Pipe)) -> (u32, u64) {
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        life(&pipe);
        unreachable!("it was to be killed");
    });
    let sent = pipe.receive();
    let pid = child.pid();
    child.kill();
    (pid, sent)
}

fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn a_dead_writer_leaves_poison() {
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

fn a_dead_reader_leaves_nothing() {
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

fn a_dead_owner_takes_its_arrays_along() {
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

fn a_dead_participant_tears_its_tiles() {
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
    table.clear_poison(x).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(support::DEADLINE).unwrap();
}

fn a_dead_opener_does_not_block_its_arrays() {
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

fn a_stopped_process_is_alive() {
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

fn killed_allocators_lose_nothing() {
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

fn run_helper(how: &str, place: &str, handle: Handle<i32, Ix2>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--helper", how, place, &handle.to_string()]);
    let status = Child::fork(|| panic!("{}", command.exec())).wait_within(support::DEADLINE);
    assert!(status.expect("the helper hangs").success());
}

fn a_segment_is_passed_by_descriptor() {
    let table = table();
    let x = table.from_elem((2, 3), 1).unwrap();
    let fd = table.segment().inheritable_fd().unwrap();
    run_helper("fd", &fd.as_raw_fd().to_string(), x);
    assert_eq!(table.read(x).unwrap().sum(), 42);
}

fn a_segment_is_opened_by_name() {
    let name = Name::new("open");
    let table = HandleTable::join(&Segment::create(&name.0).unwrap()).unwrap();
    let x = table.from_elem((2, 3), 1).unwrap();
    run_helper("name", &name.0, x);
    assert_eq!(table.read(x).unwrap().sum(), 42);
    assert!(name.exists(), "its creator has not left");
    drop(table);
    assert!(!name.exists());
}

fn racing_creators_join_the_same_segment() {
    for attempt in 0..20 {
        let name = Name::new(&format!("race{attempt}"));
        let (start, made, all) = (Pipe::new(), Pipe::new(), Pipe::new());
        let end = Pipe::new();
        const RACERS: usize = 6;
        let racers: Vec<Child> = (0..RACERS)
            .map(|racer| {
                Child::fork(|| {
                    start.receive();
                    let table = HandleTable::open_or_create(&name.0).unwrap();
                    let x = table.from_elem(4, racer as u64).unwrap();
                    made.send(x.to_bits());
                    // Each process finds the arrays of all others.
                    for _ in 0..RACERS {
                        let other = Handle::<u64, Ix1>::from_bits(all.receive());
                        assert_eq!(table.read(other).unwrap().len(), 4);
                    }
                    made.send(0);
                    end.receive();
                })
            })
            .collect();
        (0..RACERS).for_each(|_| start.send(1));
        let handles: Vec<u64> = (0..RACERS).map(|_| made.receive()).collect();
        for _ in 0..RACERS {
            handles.iter().for_each(|&handle| all.send(handle));
        }
        (0..RACERS).for_each(|_| assert_eq!(made.receive(), 0));
        (0..RACERS).for_each(|_| end.send(0));
        racers.into_iter().for_each(Child::join);
        assert!(!name.exists());
    }
}

fn the_last_to_leave_removes_the_name() {
    let name = Name::new("last");
    let (to_child, to_parent) = (Pipe::new(), Pipe::new());
    // The child is forked first, so it inherits nothing of the parent's segment.
    let child = Child::fork(|| {
        to_child.receive();
        let table = HandleTable::open(&name.0).unwrap();
        to_parent.send(1);
        to_child.receive();
        drop(table);
    });
    let first = HandleTable::open_or_create(&name.0).unwrap();
    to_child.send(1);
    to_parent.receive();
    drop(first);
    assert!(name.exists(), "a participant has not left");
    to_child.send(1);
    child.join();
    assert!(!name.exists());
}

fn a_persistent_name_stays() {
    let name = Name::new("persistent");
    let segment = Segment::options().persistent(true).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x = table.from_elem(3, 1.0f32).unwrap();
    table.detach(x).unwrap();
    drop((table, segment));
    assert!(name.exists());
    let table = HandleTable::open(&name.0).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 3.0);
    table.segment().persist(false);
    drop(table);
    assert!(!name.exists());
}

fn a_name_left_by_the_dead_is_joined() {
    let name = Name::new("left");
    let (_, bits) = kill_during(|pipe| {
        let table = HandleTable::open_or_create(&name.0).unwrap();
        let x = table.zeros::<u8, _>(10).unwrap();
        pipe.send(x.to_bits());
        sleep_for_ever();
    });
    assert!(name.exists());
    let table = HandleTable::open_or_create(&name.0).unwrap();
    assert_eq!(table.arrays().count(), 0, "reaped on joining");
    assert!(table.read(Handle::<u8, Ix1>::from_bits(bits)).is_err());
    drop(table);
    assert!(!name.exists());
}

/// Runs processes that come and go for a while. Each proves that the name leads to its segment: a
/// child opens the name and resolves its handle.
fn nobody_is_left_behind_an_unlinked_name() {
    let name = Name::new("churn");
    let comers: Vec<Child> = (0..4)
        .map(|_| {
            Child::fork(|| {
                for _ in 0..40 {
                    let table = HandleTable::open_or_create(&name.0).unwrap();
                    let x = table.from_elem(3, 7u8).unwrap();
                    let other = HandleTable::open(&name.0).unwrap();
                    assert_eq!(other.read(x).unwrap().sum(), 21);
                }
            })
        })
        .collect();
    comers.into_iter().for_each(Child::join);
    assert!(!name.exists());
}

fn in_process_segments_are_not_shared() {
    let table = HandleTable::join(&Segment::in_process().unwrap()).unwrap();
    let x = table.zeros::<u8, _>(4).unwrap();
    Child::fork(|| {
        let error = table.read(x).unwrap_err().to_string();
        assert!(error.contains("anonymous"), "{error}");
    })
    .join();
    assert_eq!(table.read(x).unwrap().sum(), 0);
}
