//! Segments that unrelated processes open, by descriptor and by name; the end of a name.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use ndarray::{Ix1, Ix2};
use ndshm::{Handle, HandleTable, Segment};

use crate::support::{Child, Name, Pipe, sleep_for_ever, table};
use crate::{kill_during, support};

/// Runs as an unrelated process: this program started anew.
pub fn helper(args: Vec<String>) {
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

fn run_helper(how: &str, place: &str, handle: Handle<i32, Ix2>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--helper", how, place, &handle.to_string()]);
    let status = Child::fork(|| panic!("{}", command.exec())).wait_within(support::DEADLINE);
    assert!(status.expect("the helper hangs").success());
}

pub fn a_segment_is_passed_by_descriptor() {
    let table = table();
    let x = table.from_elem((2, 3), 1).unwrap();
    let fd = table.segment().inheritable_fd().unwrap();
    run_helper("fd", &fd.as_raw_fd().to_string(), x);
    assert_eq!(table.read(x).unwrap().sum(), 42);
}

pub fn a_segment_is_opened_by_name() {
    let name = Name::new("open");
    let table = HandleTable::join(&Segment::create(&name.0).unwrap()).unwrap();
    let x = table.from_elem((2, 3), 1).unwrap();
    run_helper("name", &name.0, x);
    assert_eq!(table.read(x).unwrap().sum(), 42);
    assert!(name.exists(), "its creator has not left");
    drop(table);
    assert!(!name.exists());
}

pub fn racing_creators_join_the_same_segment() {
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

pub fn the_last_to_leave_removes_the_name() {
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

pub fn a_persistent_name_stays() {
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

pub fn a_name_of_killed_processes_is_joined_and_reaped() {
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
pub fn no_process_joins_an_unlinked_segment() {
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
