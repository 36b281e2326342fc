//! Started programs, exec, and closed descriptors.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ndarray::Ix1;
use ndshm::error::LeaseError;
use ndshm::{Handle, HandleTable, Segment};

use crate::support::{Child, Name, Pipe, eventually, sleep_for_ever, table};
use crate::{Vector, support};

/// Prints the descriptors of this process above the standard ones.
pub fn list_descriptors() {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = files.map(|file| file.unwrap().path());
    let targets: Vec<_> = numbers
        .filter_map(|path| Some((path.clone(), std::fs::read_link(path).ok()?)))
        .filter(|(_, target)| !target.starts_with("/proc"))
        .collect();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps
        .lines()
        .filter(|line| line.contains("ndshm") && line.contains("/memfd"));
    for (path, target) in targets {
        println!("{} {}", path.display(), target.display());
    }
    mapped.for_each(|line| println!("{line}"));
}

/// Rule: all descriptors are closed on exec, however a program is started.
pub fn a_started_program_inherits_nothing() {
    let name = Name::new("exec");
    let named = HandleTable::open_or_create(&name.0).unwrap();
    let anonymous = table();
    let this = std::env::current_exe().unwrap();
    let x: Vector = named.from_elem(4, 1).unwrap();
    let y: Vector = anonymous.from_elem(4, 1).unwrap();
    let _held = (named.write(x).unwrap(), anonymous.read(y).unwrap());
    // Start it by posix_spawn, and by fork and exec.
    for by_fork in [false, true] {
        let mut program = Command::new(&this);
        program
            .arg("--list-descriptors")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        if by_fork {
            // SAFETY: the closure does nothing.
            unsafe { program.pre_exec(|| Ok(())) };
        }
        let output = program.output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("/fd/0") && !text.contains("ndshm"), "{text}");
    }
    // Only the descriptor that is passed on purpose stays open.
    let _passed = anonymous.segment().inheritable_fd().unwrap();
    let output = Command::new(&this)
        .arg("--list-descriptors")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("memfd:ndshm").count(), 1, "{text}");
}

/// Rule: a program that a participant has started does not keep the participant alive.
pub fn a_started_program_keeps_nobody_alive() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let told = Pipe::new();
    let parent = Child::fork(|| {
        std::mem::forget(table.write(x).unwrap());
        let mut program = Command::new("sleep");
        let program = program.arg("60").stdin(Stdio::null()).spawn().unwrap();
        told.send(u64::from(program.id()));
        // The process that inherits the program waits for it, because this process is killed.
        std::mem::forget(program);
        sleep_for_ever();
    });
    let program = told.receive() as i32;
    parent.kill();
    assert_eq!(table.reap().unwrap().poisoned.len(), 1);
    // SAFETY: the program belongs to this test, and runs for a minute.
    let running = unsafe { libc::kill(program, libc::SIGKILL) } == 0;
    assert!(running, "the program ran all the time");
}

/// Rule: a participant that executes another program is dead, although its process lives.
pub fn exec_ends_a_participant() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let told = Pipe::new();
    let child = Child::fork(|| {
        std::mem::forget(table.write(x).unwrap());
        told.send(0);
        let error = Command::new("sleep").arg("60").exec();
        panic!("{error}");
    });
    told.receive();
    eventually("the exec frees its seat", || {
        table.reap().unwrap().seats == 1
    });
    assert!(support::is_alive(child.pid()));
    assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    child.kill();
}

/// Rule: a participant keeps its mapping and its lock when the program closes its descriptor. It
/// works on, and counts as alive. Calls that need the descriptor return an error. If another file
/// has got the number by now, that file is neither locked, nor filled, nor closed.
pub fn a_participant_works_after_its_descriptor_was_closed() {
    let name = Name::new("daemon");
    for replaced in [false, true] {
        let table = HandleTable::open_or_create(&name.0).unwrap();
        let x: Vector = table.from_elem(4, 1).unwrap();
        let (told, asked) = (Pipe::new(), Pipe::new());
        let daemon = Child::fork(|| {
            let own = HandleTable::open(&name.0).unwrap();
            let mut held = own.write(x).unwrap();
            let number = own.segment().fd().unwrap().as_raw_fd();
            // SAFETY: the test shows that the crate tolerates a close that it does not know of.
            assert_eq!(unsafe { libc::close(number) }, 0);
            let other = replaced.then(|| {
                let path = std::env::temp_dir().join(format!("ndshm-other-{number}"));
                let mut options = File::options();
                let file = options.read(true).write(true).create(true).truncate(true);
                let file = file.open(&path).unwrap();
                std::fs::remove_file(path).unwrap();
                assert_eq!(file.as_raw_fd(), number, "the lowest free number");
                file
            });
            held[0] = 2;
            let large: Handle<u8, Ix1> = own.zeros(3 << 20).unwrap();
            own.write(large).unwrap().fill(1);
            for error in [own.reap().err(), HandleTable::join(own.segment()).err()] {
                let text = error.expect("this call needs the descriptor").to_string();
                assert!(text.contains(&format!("descriptor {number}")), "{text}");
            }
            assert!(own.segment().inheritable_fd().is_err());
            told.send(0);
            asked.receive();
            drop(held);
            drop(own);
            if let Some(file) = other {
                assert_eq!(
                    file.metadata().unwrap().len(),
                    0,
                    "the other file is unchanged"
                );
            }
        });
        told.receive();
        assert_eq!(table.reap().unwrap().seats, 0, "the participant is alive");
        assert!(matches!(table.read(x), Err(LeaseError::Busy { .. })));
        asked.send(0);
        daemon.join();
        assert_eq!(table.read(x).unwrap()[0], 2);
        assert_eq!(table.arrays().count(), 1, "its own array was freed with it");
        table.reap().unwrap();
        assert!(table.verify().unwrap().is_clean());
        drop(table);
        assert!(!name.exists());
    }
}

/// Rule: all descriptors are closed on exec, also those that a child has exchanged for its own, and
/// those of a segment that was opened through another descriptor.
pub fn a_program_started_by_a_child_inherits_nothing() {
    let name = Name::new("exec-child");
    let named = HandleTable::open_or_create(&name.0).unwrap();
    let anonymous = table();
    let child = Child::fork(|| {
        named.seat().unwrap();
        anonymous.seat().unwrap();
        let passed = anonymous
            .segment()
            .fd()
            .unwrap()
            .try_clone_to_owned()
            .unwrap();
        let passed = HandleTable::join(&Segment::from_fd(passed).unwrap()).unwrap();
        let this = std::env::current_exe().unwrap();
        let output = Command::new(&this).arg("--list-descriptors").output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(text.contains("/fd/0") && !text.contains("ndshm"), "{text}");
        passed.seat().unwrap();
    });
    child.join();
}
