//! Forks at special moments, and by threads.

use ndshm::error::AllocError;
use ndshm::{HandleTable, Segment};

use crate::Vector;
use crate::support::{Child, Pipe, eventually, exit_at_once, table};

/// Rule: an array under construction belongs to the parent. A child that completes it, or gives it
/// up, changes nothing.
pub fn an_array_under_construction_belongs_to_the_parent() {
    let table = table();
    let this = std::process::id();
    for panics in [false, true] {
        let mut child = None;
        let made = table.from_shape_fn(4, |at| {
            if at == 2 {
                // SAFETY: this program has one thread.
                match unsafe { libc::fork() } {
                    0 if panics => std::panic::panic_any("an expected panic"),
                    0 => {}
                    pid => child = Some(pid),
                }
            }
            at as u64
        });
        // A child that panics unwinds from here to the runner, and ends there.
        if std::process::id() != this {
            let forked = matches!(made, Err(AllocError::Forked));
            let own = table.zeros::<u64, _>(4).is_ok();
            exit_at_once(if forked && own { 0 } else { 1 });
        }
        let mut status = 0;
        // SAFETY: `status` is a place to write to; the child is this process's own.
        unsafe { libc::waitpid(child.unwrap(), &raw mut status, 0) };
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), if panics { 101 } else { 0 });
        let made: Vector = made.unwrap();
        assert_eq!(table.read(made).unwrap().to_vec(), [0, 1, 2, 3]);
        table.reap().unwrap();
        let found = table.verify().unwrap();
        assert!(found.is_clean(), "{found}");
        assert_eq!((found.live, found.reserved), (1, 0), "{found}");
        table.free(made).unwrap();
    }
}

/// Rule: after a fork the child is an ordinary process; its threads join by themselves.
pub fn threads_of_a_child_use_what_it_inherited() {
    let segment = Segment::anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Vector = table.from_elem(4, 0).unwrap();
    let child = Child::fork(|| {
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    let own = HandleTable::join(&segment).unwrap();
                    eventually("the others give it back", || match own.write(x) {
                        Ok(mut x) => {
                            x[0] += 1;
                            true
                        }
                        Err(_) => false,
                    });
                });
            }
        });
        table.write(x).unwrap()[1] = 1;
    });
    child.join();
    assert_eq!(table.read(x).unwrap().to_vec(), [4, 1, 0, 0]);
}

/// Rule: whichever thread forks, the child has its copies of all tables. Each copy takes a seat of
/// its own at its first use.
pub fn a_thread_may_fork_a_child_that_uses_the_tables() {
    let segment = Segment::anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Vector = table.from_elem(4, 0).unwrap();
    std::thread::scope(|threads| {
        let forks = || {
            let own = HandleTable::join(&segment).unwrap();
            let seats = (own.seat().unwrap(), 0);
            Child::fork(|| {
                assert_ne!(own.seat().unwrap(), seats.0);
                own.write(x).unwrap().fill(1);
            })
            .join();
        };
        threads.spawn(forks).join().unwrap();
    });
    assert_eq!(
        table.reap().unwrap().seats,
        1,
        "the child that did not leave"
    );
    assert_eq!(table.read(x).unwrap().sum(), 4);
}

/// Rule: a child uses the tables that crossed, whatever the parent's other threads were doing. It
/// waits for no lock that one of them held. A lock that is held during a join and a leave makes one
/// of some 200 children hang; the unit tests of `src/table/roster.rs` hold one on purpose.
pub fn a_child_waits_for_no_lock_of_other_threads() {
    let segment = Segment::anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Vector = table.from_elem(4, 7).unwrap();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Mutex::new(ended);
    std::thread::scope(|threads| {
        let joins = || {
            while ended.lock().unwrap().try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                HandleTable::join(&segment).unwrap();
            }
        };
        threads.spawn(joins);
        threads.spawn(joins);
        for _ in 0..1500 {
            Child::fork(|| assert_eq!(table.read(x).unwrap().sum(), 28)).join();
        }
        drop(end);
    });
}

/// Rule: the parent's leases belong to the parent. A child that releases its only lease no longer
/// holds the array, however many leases its parent had at the fork.
pub fn a_child_counts_only_its_own_leases() {
    let table = table();
    let x: Vector = table.from_elem(4, 1).unwrap();
    let (told, asked) = (Pipe::new(), Pipe::new());
    let held = [(); 3].map(|()| table.read(x).unwrap());
    let child = Child::fork(|| {
        drop(table.read(x).unwrap());
        told.send(0);
        asked.receive();
    });
    told.receive();
    drop(held);
    table
        .write(x)
        .expect("the child released its lease")
        .fill(2);
    asked.send(0);
    child.join();
}
