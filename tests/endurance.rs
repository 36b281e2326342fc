//! Processes that use a segment at once and are killed anywhere; and the state after many have come
//! and gone.

mod props;
mod support;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use ndarray::{ArrayRef, Axis, Ix1};
use ndshm::error::{AllocError, LeaseError, RoundError};
use ndshm::{Handle, HandleTable, PartitionHandle, Segment, Write};
use props::Numbers;
use support::{Child, Name, Pipe};

fn main() {
    support::run_tests![
        arrays_half_written_by_killed_processes_are_poisoned,
        tables_that_cross_a_fork_together_get_seats_of_their_own,
        a_partition_that_crossed_a_fork_belongs_to_the_parent,
        killed_families_leave_no_memory,
        a_thousand_segments_leave_no_mapping_or_descriptor,
        seats_of_the_dead_are_reused_without_a_reap,
        the_next_reap_completes_that_of_a_killed_reaper,
    ];
}

type Array = Handle<u64, Ix1>;
const ARRAYS: usize = 5;
const LEN: usize = 3000;

/// Returns the value of all elements if they are equal.
fn uniform(x: &ArrayRef<u64, Ix1>) -> Option<u64> {
    x.iter().all(|&element| element == x[0]).then_some(x[0])
}

/// Performs random operations until the process is killed.
fn work(table: &HandleTable, shared: &[Array], tiles: PartitionHandle<Write<u64, Ix1>>, seed: u64) {
    let mut random = Numbers::from_seed(seed);
    let mut own: Vec<Array> = Vec::new();
    loop {
        let array = shared[random.below(shared.len())];
        match random.below(8) {
            0 | 1 => match table.write(array) {
                Ok(mut x) => {
                    let seen = uniform(&x);
                    assert!(seen.is_some(), "half-written, but not poisoned");
                    x.fill(random.any());
                }
                Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
                Err(other) => panic!("{other}"),
            },
            2 | 3 => match table.read(array) {
                Ok(x) => assert!(uniform(&x).is_some(), "half-written, but not poisoned"),
                Err(LeaseError::Busy { .. } | LeaseError::Poisoned { .. }) => {}
                Err(other) => panic!("{other}"),
            },
            4 => match table.from_elem(1 + random.below(LEN), seed) {
                Ok(handle) => own.push(handle),
                Err(AllocError::Full { .. }) => {}
                Err(other) => panic!("{other}"),
            },
            5 => {
                if let Some(handle) = own.pop() {
                    assert_eq!(table.read(handle).unwrap()[0], seed);
                    table.free(handle).unwrap();
                }
            }
            6 => {
                let tiles = table.open_partition(tiles).unwrap();
                match tiles.begin() {
                    Ok(round) if random.below(2) == 0 => drop(round),
                    Ok(round) => {
                        let number = random.any();
                        let mut part = tiles.enter().unwrap().unwrap();
                        while let Some(mut tile) = part.claim().unwrap() {
                            tile.views().fill(number);
                        }
                        drop(part);
                        match round.finish(Duration::from_millis(20)) {
                            Ok(()) | Err(RoundError::Torn { .. } | RoundError::Deadline { .. }) => {
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                    Err(RoundError::Lease(_) | RoundError::Running { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            _ => {
                table.reap().unwrap();
            }
        }
    }
}

/// Allocates until the segment is full, then frees everything. Returns the number of arrays.
fn room(table: &HandleTable) -> usize {
    let mut handles = Vec::new();
    while let Ok(handle) = table.uninit::<u64, _>(LEN) {
        handles.push(handle);
    }
    handles
        .iter()
        .for_each(|&handle| table.free(handle).unwrap());
    handles.len()
}

fn arrays_half_written_by_killed_processes_are_poisoned() {
    const AT_ONCE: usize = 3;
    let options = Segment::options().capacity(8 << 20).seats(8);
    let table = HandleTable::join(&options.anonymous().unwrap()).unwrap();
    let shared: Vec<Array> = (0..ARRAYS).map(|_| table.zeros(LEN).unwrap()).collect();
    // Rounds have their own array, because its tiles are written one by one.
    let x = table.zeros::<u64, _>(LEN).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 500).unwrap();
    let before = room(&table);
    assert!(before > 100);
    let mut random = Numbers::from_seed(1);
    let pipe = Pipe::new();
    let mut poisoned = 0;
    for generation in 0..120u64 {
        let children: Vec<Child> = (0..AT_ONCE as u64)
            .map(|child| {
                Child::fork(|| {
                    pipe.send(1);
                    let seed = 1 + generation * AT_ONCE as u64 + child;
                    work(&table, &shared, tiles.handle(), seed);
                })
            })
            .collect();
        children.iter().for_each(|_| assert_eq!(pipe.receive(), 1));
        for child in children {
            std::thread::sleep(Duration::from_micros(random.below(1500) as u64));
            child.signal(libc::SIGKILL);
            let status = child.wait_within(support::DEADLINE).expect("it was killed");
            assert_eq!(status.signal(), Some(libc::SIGKILL), "the child panicked");
        }
        table.reap().unwrap();
        assert_eq!(
            table.arrays().count(),
            ARRAYS + 1,
            "the arrays of the dead are freed"
        );
        for array in &shared {
            match table.write(*array) {
                Ok(x) => assert!(uniform(&x).is_some(), "half-written, but not poisoned"),
                Err(LeaseError::Poisoned { .. }) => {
                    poisoned += 1;
                    table.clear_poison(*array).unwrap();
                    table.write(*array).unwrap().fill(0);
                }
                Err(other) => panic!("{other}"),
            }
        }
        // A dead opener's round does not block the next one.
        table.clear_poison(x).unwrap();
        let round = tiles.begin().unwrap();
        let mut part = tiles.enter().unwrap().unwrap();
        while let Some(mut tile) = part.claim().unwrap() {
            tile.views().fill(generation);
        }
        drop(part);
        round.finish(support::DEADLINE).unwrap();
        assert_eq!(uniform(&table.read(x).unwrap()), Some(generation));
    }
    assert!(poisoned > 0, "no process was killed while writing");
    assert_eq!(room(&table), before);
}

fn tables_that_cross_a_fork_together_get_seats_of_their_own() {
    let segment = Segment::anonymous().unwrap();
    let name = Name::new("together");
    let join = |segment: &Segment| HandleTable::join(segment).unwrap();
    let two = join(&segment);
    // The child takes over its copies and drops them.
    let mut leaving = Some((join(&segment), join(&Segment::create(&name.0).unwrap())));
    let (one, named) = leaving.as_ref().unwrap();
    let x = one.zeros::<u8, _>(10).unwrap();
    let y = named.zeros::<u8, _>(10).unwrap();
    let seats = [one.seat().unwrap(), two.seat().unwrap()];
    let held = two.write(x).unwrap();
    Child::fork(|| {
        let (one, named) = leaving.take().unwrap();
        assert!(matches!(one.read(x), Err(LeaseError::Busy { pid, .. })
            if pid == std::os::unix::process::parent_id()));
        let own = [two.seat().unwrap(), one.seat().unwrap()];
        assert!(own[0] != own[1] && own.iter().all(|seat| !seats.contains(seat)));
        let z = one.from_elem(4, 1u8).unwrap();
        named.write(y).unwrap().fill(1);
        drop(one);
        assert!(
            two.read(z).is_err(),
            "it was freed with the child's own seat"
        );
        // A child that leaves does not remove the parent's name.
        drop(named);
        assert!(name.exists());
    })
    .join();
    drop(held);
    let (one, named) = leaving.unwrap();
    two.write(x).unwrap().fill(1);
    assert_eq!(named.read(y).unwrap().sum(), 10);
    assert_eq!([one.seat().unwrap(), two.seat().unwrap()], seats);
    assert!(name.exists());
    drop(named);
    assert!(!name.exists());
}

fn a_partition_that_crossed_a_fork_belongs_to_the_parent() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let x = table.zeros::<u64, _>(100).unwrap();
    let mut tiles = Some(table.partition(x.write(), Axis(0), 10).unwrap());
    // Drop it before the child has a seat of its own, and after.
    Child::fork(|| drop(tiles.take())).join();
    Child::fork(|| {
        table.seat().unwrap();
        drop(tiles.take());
    })
    .join();
    let tiles = tiles.as_ref().unwrap();
    let round = tiles.begin().unwrap();
    // A child can use it with a seat of its own.
    Child::fork(|| {
        let mut part = tiles.enter().unwrap().expect("the parent's round runs");
        part.claim().unwrap().unwrap().views().fill(1);
        drop(part);
    })
    .join();
    let mut part = tiles.enter().unwrap().unwrap();
    let mut claimed = 0;
    while let Some(mut tile) = part.claim().unwrap() {
        tile.views().fill(1);
        claimed += 1;
    }
    assert_eq!(claimed, 9);
    drop(part);
    round.finish(support::DEADLINE).unwrap();
    assert_eq!(table.read(x).unwrap().sum(), 100);
}

/// Returns the processes that have the file with this inode number open or mapped.
fn users_of(inode: u64) -> Vec<String> {
    let mut users = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let maps = std::fs::read_to_string(process.join("maps")).unwrap_or_default();
        let number = inode.to_string();
        let maps = maps.lines().any(|line| {
            line.contains("/memfd:") && line.split_whitespace().nth(4) == Some(&number)
        });
        let files = std::fs::read_dir(process.join("fd")).into_iter().flatten();
        let opens = files
            .filter_map(|file| Some(file.ok()?.path()))
            .any(|file| {
                let is_memfd = std::fs::read_link(&file)
                    .is_ok_and(|target| target.to_string_lossy().contains("/memfd:"));
                is_memfd && std::fs::metadata(&file).is_ok_and(|file| file.ino() == inode)
            });
        if maps || opens {
            users.push(process.display().to_string());
        }
    }
    users
}

/// Kills all processes of an anonymous segment, in any order. Checks that no process has its file
/// any more: the file never had a name, so the kernel has freed it.
fn killed_families_leave_no_memory() {
    let mut random = props::Numbers::from_seed(3);
    for _ in 0..5 {
        let pipe = Pipe::new();
        let parent = Child::fork(|| {
            let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
            let fd = table.segment().fd().unwrap().try_clone_to_owned().unwrap();
            pipe.send(std::fs::File::from(fd).metadata().unwrap().ino());
            let x: Handle<u8, Ix1> = table.from_elem(4 << 20, 1).unwrap();
            for _ in 0..3 {
                let child = Child::fork(|| {
                    table.write(x).map(|mut x| x.fill(2)).ok();
                    std::thread::sleep(support::DEADLINE);
                });
                pipe.send(u64::from(child.pid()));
                std::mem::forget(child);
            }
            std::thread::sleep(support::DEADLINE);
        });
        let inode = pipe.receive();
        let mut family = vec![parent.pid()];
        family.extend((0..3).map(|_| pipe.receive() as u32));
        support::eventually("all four have it", || users_of(inode).len() == 4);
        while !family.is_empty() {
            let pid = family.swap_remove(random.below(family.len()));
            // SAFETY: these processes belong to this test, and sleep until they are killed.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        }
        parent.wait_within(support::DEADLINE).unwrap();
        support::eventually("nobody has it", || users_of(inode).is_empty());
    }
}

fn a_thousand_segments_leave_no_mapping_or_descriptor() {
    let count = |what: &str| match what {
        "maps" => std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count(),
        what => std::fs::read_dir(format!("/proc/self/{what}"))
            .unwrap()
            .count(),
    };
    let name = Name::new("thousand");
    let come_and_go = |times: usize| {
        for _ in 0..times {
            let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
            let x = table.from_elem(100, 1u8).unwrap();
            let fd = table.segment().inheritable_fd().unwrap();
            let again = HandleTable::join(&Segment::from_fd(fd).unwrap()).unwrap();
            assert_eq!(again.read(x).unwrap().sum(), 100);
            let named = HandleTable::open_or_create(&name.0).unwrap();
            named.zeros::<u8, _>(100).unwrap();
            drop(HandleTable::join(&Segment::in_process().unwrap()).unwrap());
        }
    };
    come_and_go(2);
    let before = ["maps", "fd"].map(count);
    come_and_go(250);
    // The heap may have grown by a mapping or two.
    let after = ["maps", "fd"].map(count);
    assert!(after[0] <= before[0] + 5, "{before:?} {after:?}");
    assert_eq!(after[1], before[1]);
    assert!(!name.exists());
}

fn seats_of_the_dead_are_reused_without_a_reap() {
    let segment = Segment::options().seats(2).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    for _ in 0..50 {
        let pipe = Pipe::new();
        let child = Child::fork(|| {
            assert_eq!(table.seat().unwrap(), 1);
            let _left = table.zeros::<u8, _>(10).unwrap();
            pipe.send(1);
            std::thread::sleep(support::DEADLINE);
        });
        pipe.receive();
        child.kill();
    }
    assert_eq!(
        table.reap().unwrap().seats,
        1,
        "the seat of the last process"
    );
    assert_eq!(table.arrays().count(), 0);
}

fn the_next_reap_completes_that_of_a_killed_reaper() {
    let options = Segment::options().capacity(64 << 20).seats(4);
    let table = HandleTable::join(&options.anonymous().unwrap()).unwrap();
    for attempt in 0..60u64 {
        let pipe = Pipe::new();
        let owner = Child::fork(|| {
            for _ in 0..2000 {
                let x = table.zeros::<u8, _>(64).unwrap();
                std::mem::forget(table.write(x).unwrap());
            }
            pipe.send(1);
            std::thread::sleep(support::DEADLINE);
        });
        pipe.receive();
        owner.kill();
        let reaper = Child::fork(|| {
            table.seat().unwrap();
            pipe.send(1);
            table.reap().unwrap();
            std::thread::sleep(support::DEADLINE);
        });
        pipe.receive();
        std::thread::sleep(Duration::from_micros(attempt * 37 % 2000));
        reaper.kill();
        table.reap().unwrap();
        assert_eq!(table.arrays().count(), 0);
        assert_eq!(table.reap().unwrap(), ndshm::inspect::ReapReport::default());
    }
}
