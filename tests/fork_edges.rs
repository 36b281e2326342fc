//! Edge cases of fork and exec: which participants count as alive, and which parts of the parent's
//! state a child has. The rules are those of the chapter `guide::faults`.

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

use ndarray::Ix1;
use ndshm::{AllocError, Handle, HandleTable, LeaseError, Segment, SegmentError};
use support::{Child, DEADLINE, Name, Pipe, eventually, exit_at_once, sleep_for_ever, table};

type Vector = Handle<u64, Ix1>;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--list-descriptors") {
        return list_descriptors();
    }
    support::run_tests![
        a_killed_parent_is_dead_to_its_children,
        a_child_that_crashes_is_reaped,
        an_idle_child_keeps_its_parent_alive,
        a_started_program_inherits_nothing,
        a_started_program_keeps_nobody_alive,
        exec_ends_a_participant,
        a_fork_while_an_array_is_made,
        a_name_whose_last_process_was_killed,
        a_zombie_is_dead,
        a_number_in_another_namespace_says_nothing,
        descriptors_that_a_daemon_closes,
        threads_of_a_child_use_what_it_inherited,
        a_fork_by_a_thread,
        a_fork_while_other_threads_join,
        a_child_counts_only_its_own_leases,
        a_child_keeps_the_name_that_its_parent_leaves,
        a_program_started_by_a_child_inherits_nothing,
    ];
}

/// Rule: the children reap a killed parent like any other participant. Its detached arrays stay,
/// its owned arrays are freed, and the children keep the memory.
fn a_killed_parent_is_dead_to_its_children() {
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
fn a_child_that_crashes_is_reaped() {
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
fn an_idle_child_keeps_its_parent_alive() {
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

/// Prints the descriptors of this process above the standard ones.
fn list_descriptors() {
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
fn a_started_program_inherits_nothing() {
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
fn a_started_program_keeps_nobody_alive() {
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
fn exec_ends_a_participant() {
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
fn descriptors_that_a_daemon_closes() {
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

/// Rule: an array under construction belongs to the parent. A child that completes it, or gives it
/// up, changes nothing.
fn a_fork_while_an_array_is_made() {
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

/// Rule: a name stays after its last process was killed, with all detached arrays. The next process
/// that opens it takes back the rest. The name exists, so it cannot be created.
fn a_name_whose_last_process_was_killed() {
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
fn a_zombie_is_dead() {
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
fn a_number_in_another_namespace_says_nothing() {
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

/// Rule: after a fork the child is an ordinary process; its threads join by themselves.
fn threads_of_a_child_use_what_it_inherited() {
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
fn a_fork_by_a_thread() {
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
fn a_fork_while_other_threads_join() {
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
fn a_child_counts_only_its_own_leases() {
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

/// Rule: all descriptors are closed on exec, also those that a child has exchanged for its own, and
/// those of a segment that was opened through another descriptor.
fn a_program_started_by_a_child_inherits_nothing() {
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

/// Rule: a child that has used its table is an ordinary participant: the name stays when its parent
/// leaves.
fn a_child_keeps_the_name_that_its_parent_leaves() {
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
