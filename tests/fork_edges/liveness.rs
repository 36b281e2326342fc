//! Which participants count as alive.

use std::os::unix::process::ExitStatusExt;

use ndshm::error::{LeaseError, SegmentError};
use ndshm::{HandleTable, Segment};

use crate::Vector;
use crate::support::{
    Child, DEADLINE, Name, Pipe, eventually, exit_at_once, sleep_for_ever, table,
};

/// Rule: the children reap a killed parent like any other participant. Its detached arrays stay,
/// its owned arrays are freed, and the children keep the memory.
pub fn a_killed_parent_is_dead_to_its_children() {
    let name = Name::new("orphans");
    let table = HandleTable::open_or_create(&name.0).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let parent = Child::fork(|| {
        let own: Vector = table.from_elem(4, 1).unwrap();
        let detached: Vector = table.from_elem(4, 2).unwrap();
        table.detach(detached).unwrap();
        std::mem::forget(table.write(detached).unwrap());
        let child = Child::fork(|| {
            table.seat().unwrap();
            let grandchild = Child::fork(|| {
                table.seat().unwrap();
                told.send(0);
                asked.receive();
                eventually("its parent's parent is dead to a grandchild", || {
                    table.reap().unwrap();
                    matches!(table.read(own), Err(LeaseError::Stale { .. }))
                });
                assert!(matches!(
                    table.read(detached),
                    Err(LeaseError::Poisoned { .. })
                ));
                table.recover(detached, |mut view| view.fill(3)).unwrap();
                told.send(table.read(detached).unwrap().sum());
            });
            grandchild.join();
            assert_eq!(table.read(detached).unwrap().sum(), 12);
            told.send(1);
        });
        told.send(detached.to_bits());
        std::mem::forget(child);
        sleep_for_ever();
    });
    let first = [told.receive(), told.receive()];
    let detached = Vector::from_bits(first[0].max(first[1]));
    parent.kill();
    asked.send(0);
    assert_eq!((told.receive(), told.receive()), (12, 1));
    assert_eq!(table.read(detached).unwrap().sum(), 12);
}

/// Rule: the way in which a participant ends does not matter.
pub fn a_child_that_crashes_is_reaped() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let crashes: [(fn() -> !, i32); 2] = [
        (|| std::process::abort(), libc::SIGABRT),
        (
            || {
                // SAFETY: `raise` has no precondition; the default action ends the process.
                unsafe { libc::raise(libc::SIGSEGV) };
                exit_at_once(0)
            },
            libc::SIGSEGV,
        ),
    ];
    for (crash, signal) in crashes {
        let child = Child::fork(|| {
            // The runtime's handler would look for a stack overflow.
            // SAFETY: sets the default action, which is a valid handler.
            unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
            table.zeros::<u8, _>(10).unwrap();
            let _held = table.write(x).unwrap();
            crash()
        });
        let pid = child.pid();
        let status = child.wait_within(DEADLINE).unwrap();
        assert_eq!(status.signal(), Some(signal));
        let report = table.reap().unwrap();
        assert_eq!(
            (report.seats, report.arrays_freed, report.poisoned.len()),
            (1, 1, 1)
        );
        let refused = table.read(x).unwrap_err();
        assert!(
            matches!(refused, LeaseError::Poisoned { pid: p, .. } if p == pid),
            "{refused}"
        );
        table.clear_poison(x).unwrap();
    }
}

/// Rule: a child that never uses the table shares its parent's mapping, and could write the arrays
/// that its parent has leased. So the parent counts as alive while the child lives. The child's
/// first use ends that.
pub fn an_idle_child_keeps_its_parent_alive() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let parent = Child::fork(|| {
        std::mem::forget(table.write(x).unwrap());
        let idle = Child::fork(|| {
            told.send(0);
            asked.receive();
            table.seat().unwrap();
            told.send(0);
            asked.receive();
        });
        std::mem::forget(idle);
        sleep_for_ever();
    });
    told.receive();
    let pid = parent.pid();
    parent.kill();
    for _ in 0..3 {
        assert_eq!(
            table.reap().unwrap().seats,
            0,
            "the idle child keeps its parent's lock"
        );
        let refused = table.read(x).unwrap_err();
        assert!(
            matches!(refused, LeaseError::Busy { pid: p, .. } if p == pid),
            "{refused}"
        );
    }
    asked.send(0);
    told.receive();
    assert_eq!(table.reap().unwrap().seats, 1);
    assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    asked.send(0);
}

/// Rule: a name stays after its last process was killed, with all detached arrays. The next process
/// that opens it takes back the rest. The name exists, so it cannot be created.
pub fn a_name_outlives_its_last_killed_process() {
    let name = Name::new("last-killed");
    let told = Pipe::new();
    let last = Child::fork(|| {
        let table = HandleTable::open_or_create(&name.0).unwrap();
        let own: Vector = table.from_elem(4, 1).unwrap();
        let detached: Vector = table.from_elem(4, 2).unwrap();
        table.detach(detached).unwrap();
        told.send(own.to_bits());
        told.send(detached.to_bits());
        sleep_for_ever();
    });
    let [own, detached] = [(); 2].map(|()| Vector::from_bits(told.receive()));
    last.kill();
    let refused = Segment::create(&name.0).unwrap_err();
    assert!(matches!(refused, SegmentError::Exists { .. }), "{refused}");
    let table = HandleTable::open(&name.0).unwrap();
    assert!(matches!(table.read(own), Err(LeaseError::Stale { .. })));
    assert_eq!(table.read(detached).unwrap().sum(), 8);
    drop(table);
    assert!(!name.exists(), "its last process has left");
}

/// Rule: a process that has ended, but was not waited for, is dead.
pub fn a_zombie_is_dead() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let told = Pipe::new();
    let child = Child::fork(|| {
        std::mem::forget(table.write(x).unwrap());
        told.send(0);
        exit_at_once(0);
    });
    told.receive();
    eventually("a zombie's seat can be had", || {
        table.reap().unwrap().seats == 1
    });
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    assert!(stat.contains(") Z "), "the process is no zombie: {stat}");
    child.join();
}

/// Rule: pids decide nothing. A process of another pid namespace is alive until it ends, even if
/// its pid belongs to another process here, or to none.
pub fn a_pid_of_another_namespace_is_ignored() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let outer = Child::fork(|| {
        // SAFETY: `unshare` changes this process's namespaces and nothing else.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
            println!("  (skipped: no right to make a pid namespace)");
            told.send(u64::MAX);
            return;
        }
        let inner = Child::fork(|| {
            std::mem::forget(table.write(x).unwrap());
            told.send(u64::from(std::process::id()));
            asked.receive();
            exit_at_once(0);
        });
        inner.join();
    });
    let number = told.receive();
    if number == u64::MAX {
        return outer.join();
    }
    assert_eq!(number, 1, "the first pid of its namespace");
    for _ in 0..3 {
        assert_eq!(table.reap().unwrap().seats, 0, "the process is alive");
        let refused = table.read(x).unwrap_err();
        assert!(
            matches!(refused, LeaseError::Busy { pid: 1, .. }),
            "{refused}"
        );
    }
    asked.send(0);
    outer.join();
    assert_eq!(table.reap().unwrap().poisoned.len(), 1);
}

/// Rule: a child that has used its table is an ordinary participant: the name stays when its parent
/// leaves.
pub fn a_child_keeps_the_name_that_its_parent_leaves() {
    let name = Name::new("left-to-a-child");
    let table = HandleTable::open_or_create(&name.0).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        table.seat().unwrap();
        told.send(0);
        asked.receive();
    });
    told.receive();
    drop(table);
    assert!(name.exists(), "the child keeps the name");
    drop(HandleTable::open(&name.0).unwrap());
    assert!(name.exists(), "the child still keeps the name");
    asked.send(0);
    child.join();
}
