//! Signals to a whole program, such as Ctrl-C and Ctrl-Z of a terminal. The parent determines their
//! effect; its workers go on, stop or end with it.

mod support;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::{Handle, HandleTable, Pool, Segment};
use support::{Child, Flag, Pipe, eventually, is_alive, state_of};

/// Environment variable of a pool's program: the flag to raise if a worker runs `main` as a user's
/// program.
const RAN_MAIN: &str = "NDSHM_TEST_RAN_MAIN";

fn main() {
    ndshm::become_worker();
    if let Ok(flag) = std::env::var(RAN_MAIN) {
        return Flag::raise(flag.parse().unwrap());
    }
    if std::env::args().nth(1).as_deref() == Some("--show-dispositions") {
        support::set_signals();
        return print!("{}", dispositions());
    }
    support::run_tests![
        a_program_with_a_handler_finishes_its_step,
        without_a_handler_a_signal_ends_all,
        signals_while_workers_start_reach_the_parent_alone,
        an_ignored_signal_stays_ignored_in_workers,
        workers_stop_and_continue_with_their_group,
        workers_continue_if_their_parent_did_not_stop,
        a_worker_that_was_stopped_on_purpose_stays_so,
        programs_that_a_kernel_starts_have_default_signals,
        workers_have_the_mask_of_their_parent,
        a_worker_whose_parent_was_killed_does_not_run_main,
        a_name_stays_after_a_signal_until_the_next_start,
        tests_set_the_signals_that_they_rely_on,
    ];
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fork,
    Spawn,
}

const KINDS: [Kind; 2] = [Kind::Fork, Kind::Spawn];

/// Signals that terminals, batch systems and service managers send to whole programs.
const SIGNALS: [i32; 6] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

fn start(kind: Kind, table: &HandleTable) -> Pool<'_> {
    let pool = match kind {
        Kind::Fork => Pool::fork(table, 2),
        Kind::Spawn => Pool::spawn(table, 2),
    };
    pool.unwrap_or_else(|error| panic!("{kind:?}: {error}"))
}

/// Forks a child in a process group of its own, as a shell starts a program.
fn program(life: impl FnOnce()) -> Child {
    Child::fork(|| {
        // SAFETY: no precondition.
        assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
        // SIGQUIT must leave no core file.
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the limit lives during the call.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
        assert_eq!(set, 0);
        life();
    })
}

fn signal_group(leader: u32, signal: i32) {
    // SAFETY: no precondition; the group's leader was not waited for.
    assert_eq!(unsafe { libc::kill(-(leader as i32), signal) }, 0);
}

fn table() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

/// The pipe to which a handler writes. Crates that run handlers on a thread do the same.
static mut HANDLED: i32 = -1;

extern "C" fn tell(signal: i32) {
    // SAFETY: the value is set before the handler is, and does not change.
    let handled = unsafe { HANDLED };
    let number = told(signal).to_le_bytes();
    // SAFETY: the eight bytes live during the call.
    unsafe { libc::write(handled, number.as_ptr().cast(), 8) };
}

/// Returns the number that a handler writes: the signal, and the handler's process.
fn told(signal: i32) -> u64 {
    told_by(std::process::id(), signal)
}

fn told_by(pid: u32, signal: i32) -> u64 {
    u64::from(pid) << 32 | signal as u64
}

fn install(signal: i32, handler: extern "C" fn(i32), pipe: &Pipe) {
    // SAFETY: there is one thread, and no handler yet.
    unsafe { HANDLED = pipe.writer() };
    // SAFETY: the handlers of this file make system calls only, which is allowed at any point.
    let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

/// Starts a thread that waits for the signal. No other thread of this process receives it.
fn handle_on_thread(signal: i32, pipe: i32) {
    let set = set_of(signal);
    // SAFETY: the set lives during the call.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    std::thread::spawn(move || {
        let mut got = 0;
        let set = set_of(signal);
        loop {
            // SAFETY: both places live during the call.
            assert_eq!(unsafe { libc::sigwait(&raw const set, &raw mut got) }, 0);
            let number = told(got).to_le_bytes();
            // SAFETY: the eight bytes live during the call.
            unsafe { libc::write(pipe, number.as_ptr().cast(), 8) };
        }
    });
}

fn set_of(signal: i32) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is a place for a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was made empty.
    unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    // SAFETY: the set was filled above.
    unsafe { set.assume_init() }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handler {
    BeforeThePool,
    AfterThePool,
    OnAThread,
}

/// Sends a signal during a step. The step ends, the arrays are complete, and each signal is handled
/// once.
fn a_program_with_a_handler_finishes_its_step() {
    for kind in KINDS {
        for signal in SIGNALS {
            for handler in [
                Handler::BeforeThePool,
                Handler::AfterThePool,
                Handler::OnAThread,
            ] {
                program(|| finish_and_save(kind, signal, handler)).join();
            }
        }
    }
}

fn finish_and_save(kind: Kind, signal: i32, handler: Handler) {
    let what = format!("{kind:?}, signal {signal}, {handler:?}");
    let handled = Pipe::new();
    let table = table();
    let x: Handle<u64, Ix1> = table.zeros(64).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 8).unwrap();
    if handler == Handler::BeforeThePool {
        install(signal, tell, &handled);
    }
    let mut pool = start(kind, &table);
    match handler {
        Handler::BeforeThePool => {}
        Handler::AfterThePool => install(signal, tell, &handled),
        Handler::OnAThread => handle_on_thread(signal, handled.writer()),
    }
    let mut steps = 0;
    let begun = Instant::now();
    while !handled.is_sent_within(Duration::ZERO) {
        assert!(begun.elapsed() < support::DEADLINE, "{what}: no signal");
        let step = pool.for_each(
            &tiles,
            &[std::process::id(), signal as u32],
            |mut x, &[group, signal], tile| {
                x += 1;
                if tile.index() == 3 && x[0] == 3 {
                    // SAFETY: no precondition.
                    unsafe { libc::kill(-(group as i32), signal as i32) };
                }
                std::thread::sleep(Duration::from_micros(200));
            },
        );
        step.unwrap_or_else(|error| panic!("{what}: {error}"));
        steps += 1;
    }
    assert_eq!(handled.receive(), told(signal), "{what}");
    // The workers have run another job since the signal, so they have finished handling it.
    pool.broadcast(&(), |_, ()| ()).unwrap();
    assert!(!handled.is_sent_within(Duration::ZERO), "{what}: twice");
    assert_eq!(pool.deaths(), 0, "{what}");
    let x = table
        .read(x)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(x.iter().all(|&x| x == steps), "{what}");
}

fn without_a_handler_a_signal_ends_all() {
    for kind in KINDS {
        for signal in SIGNALS {
            let pipe = Pipe::new();
            let parent = program(|| {
                let table = table();
                let x = table.zeros::<u32, _>(100).unwrap();
                let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
                let mut pool = start(kind, &table);
                for pid in pool.pids() {
                    pipe.send(u64::from(pid.unwrap()));
                }
                let _ = pool.for_each(&tiles, &(), |_, (), _| {
                    std::thread::sleep(support::DEADLINE);
                });
            });
            let workers = [pipe.receive() as u32, pipe.receive() as u32];
            signal_group(parent.pid(), signal);
            let status = parent.wait_within(support::DEADLINE).unwrap();
            assert_eq!(status.signal(), Some(signal), "{kind:?}");
            eventually("the workers end", || !workers.into_iter().any(is_alive));
        }
    }
}

/// Signals workers at each moment of their start. None dies, and none runs the handler.
fn signals_while_workers_start_reach_the_parent_alone() {
    for kind in KINDS {
        let (handled, stop) = (Pipe::new(), Flag::new());
        let parent = program(|| {
            // A handler must not wait for room in the pipe.
            // SAFETY: the descriptor is the pipe's, and its flags are numbers.
            let set = unsafe { libc::fcntl(handled.writer(), libc::F_SETFL, libc::O_NONBLOCK) };
            assert_eq!(set, 0);
            install(libc::SIGINT, tell, &handled);
            let group = std::process::id();
            let bystander = Child::fork(|| {
                // SAFETY: no precondition. The child gets its own group, so it is not signalled.
                assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
                while !Flag::is_raised(stop.number) {
                    signal_group(group, libc::SIGINT);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let table = table();
            let pools = match kind {
                Kind::Fork => 100,
                Kind::Spawn => 20,
            };
            for _ in 0..pools {
                let mut pool = start(kind, &table);
                pool.broadcast(&(), |_, ()| ()).unwrap();
                assert_eq!(pool.deaths(), 0, "{kind:?}");
                while handled.is_sent_within(Duration::ZERO) {
                    assert_eq!(handled.receive(), told(libc::SIGINT), "{kind:?}");
                }
            }
            Flag::raise(stop.number);
            bystander.join();
        });
        parent.join();
    }
}

fn an_ignored_signal_stays_ignored_in_workers() {
    for kind in KINDS {
        program(|| {
            for signal in SIGNALS {
                // SAFETY: ignoring is a valid action.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            let table = table();
            let mut pool = start(kind, &table);
            let ignored = pool.broadcast(&(), |_, ()| of_program("SigIgn")).unwrap();
            for ignored in ignored {
                for signal in SIGNALS {
                    assert!(has(ignored, signal), "{kind:?}: {signal} in {ignored:x}");
                }
            }
        })
        .join();
    }
}

/// Returns a set of signals from the /proc/self/status of a program that this process starts.
fn of_program(line: &str) -> u64 {
    let status = Command::new("cat").arg("/proc/self/status").output();
    let status = String::from_utf8(status.unwrap().stdout).unwrap();
    set_in(&status, line)
}

fn set_in(status: &str, name: &str) -> u64 {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    u64::from_str_radix(line.unwrap_or_else(|| panic!("{name} in {status}")), 16).unwrap()
}

fn has(set: u64, signal: i32) -> bool {
    set >> (signal - 1) & 1 == 1
}

/// Returns this process's sets of ignored and blocked signals.
fn dispositions() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines();
    let sets = lines.filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"));
    sets.flat_map(|line| [line, "\n"]).collect()
}

fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

/// Checks that Ctrl-Z stops the parent and its workers at once, and `fg` continues all of them.
fn workers_stop_and_continue_with_their_group() {
    for kind in KINDS {
        let (pipe, handled, stopped) = (Pipe::new(), Pipe::new(), Flag::new());
        let parent = program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            // The handler stops this process itself, like programs that first restore the terminal.
            install(libc::SIGTSTP, stop_myself, &handled);
            let mut pool = start(kind, &table);
            for pid in pool.pids() {
                pipe.send(u64::from(pid.unwrap()));
            }
            pool.for_each(&tiles, &stopped.number, |mut x, &stopped, _| {
                Flag::wait(stopped);
                x += 1;
            })
            .unwrap();
            assert_eq!(table.read(x).unwrap().sum(), 100);
            assert_eq!(pool.deaths(), 0);
        });
        let all = [parent.pid(), pipe.receive() as u32, pipe.receive() as u32];
        signal_group(parent.pid(), libc::SIGTSTP);
        eventually("all are stopped", || all.into_iter().all(is_stopped));
        Flag::raise(stopped.number);
        signal_group(parent.pid(), libc::SIGCONT);
        let leader = parent.pid();
        parent.join();
        assert_eq!(handled.receive(), told_by(leader, libc::SIGTSTP));
        let again = handled.is_sent_within(Duration::ZERO);
        assert!(!again, "{kind:?}: a worker ran the handler");
    }
}

extern "C" fn stop_myself(signal: i32) {
    tell(signal);
    // SAFETY: no precondition.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Checks a parent that ignores Ctrl-Z: its workers must not stay stopped.
fn workers_continue_if_their_parent_did_not_stop() {
    for kind in KINDS {
        let pipe = Pipe::new();
        let parent = program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table);
            // SAFETY: ignoring is a valid action.
            unsafe { libc::signal(libc::SIGTSTP, libc::SIG_IGN) };
            pool.set_deadline(Some(support::DEADLINE / 2));
            for signalled in [false, true, true] {
                let group = std::process::id() as i32 * i32::from(signalled);
                pool.for_each(&tiles, &group, |mut x, &group, tile| {
                    if group != 0 && tile.index() % 4 == 1 {
                        // SAFETY: no precondition.
                        unsafe { libc::kill(-group, libc::SIGTSTP) };
                    }
                    x += 1;
                })
                .unwrap();
            }
            assert_eq!(table.read(x).unwrap().sum(), 300);
            pipe.send(pool.deaths());
        });
        assert_eq!(pipe.receive(), 0, "{kind:?}");
        parent.join();
    }
}

/// Checks a worker that is stopped by SIGSTOP or a debugger: such a stop concerns this process
/// alone.
fn a_worker_that_was_stopped_on_purpose_stays_so() {
    for kind in KINDS {
        program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table);
            pool.broadcast(&(), |_, ()| ()).unwrap();
            let pid = pool.pids()[1].unwrap();
            // SAFETY: no precondition; the pid is of a worker that was not waited for.
            assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGSTOP) }, 0);
            eventually("the worker stops", || is_stopped(pid));
            // The other worker runs all tiles. Meanwhile the parent watches its workers.
            pool.for_each(&tiles, &(), |_, (), _| {
                std::thread::sleep(Duration::from_millis(10));
            })
            .unwrap();
            assert!(is_stopped(pid), "{kind:?}");
            // SAFETY: as above.
            assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGCONT) }, 0);
            pool.broadcast(&(), |_, ()| ()).unwrap();
        })
        .join();
    }
}

/// Checks that a worker's handlers end at an exec: Ctrl-C ends a program that a kernel runs.
fn programs_that_a_kernel_starts_have_default_signals() {
    for kind in KINDS {
        program(|| {
            let table = table();
            let mut pool = start(kind, &table);
            let sets = pool
                .broadcast(&(), |_, ()| [of_program("SigIgn"), of_program("SigBlk")])
                .unwrap();
            for signal in SIGNALS {
                for set in sets.as_flattened() {
                    assert!(!has(*set, signal), "{kind:?}: {signal} in {set:x}");
                }
            }
        })
        .join();
    }
}

fn workers_have_the_mask_of_their_parent() {
    for kind in KINDS {
        program(|| {
            for signal in [libc::SIGWINCH, libc::SIGRTMIN() + 3, libc::SIGINT] {
                let set = set_of(signal);
                // SAFETY: the set lives during the call.
                unsafe {
                    libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
                };
            }
            let blocked = |status: String| set_in(&status, "SigBlk");
            let own = blocked(std::fs::read_to_string("/proc/self/status").unwrap());
            let table = table();
            let mut pool = start(kind, &table);
            let after = blocked(std::fs::read_to_string("/proc/self/status").unwrap());
            assert_eq!(own, after, "{kind:?}: the parent's own are unchanged");
            let masks = pool
                .broadcast(&(), |_, ()| {
                    let status = std::fs::read_to_string("/proc/self/status").unwrap();
                    set_in(&status, "SigBlk")
                })
                .unwrap();
            for mask in masks {
                let expected = own & !(1 << (libc::SIGINT - 1));
                assert_eq!(mask, expected, "{kind:?}: {mask:x} {expected:x}");
            }
        })
        .join();
    }
}

/// Kills the parent while it starts workers: the workers end too, and do not run as programs of
/// their own.
fn a_worker_whose_parent_was_killed_does_not_run_main() {
    let ran = Flag::new();
    // This process becomes the parent of the orphans, so it can wait for them.
    // SAFETY: the option takes a number.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    for turn in 0..40 {
        let pipe = Pipe::new();
        let parent = program(|| {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(RAN_MAIN, ran.number.to_string()) };
            let table = table();
            pipe.send(0);
            loop {
                drop(start(Kind::Spawn, &table));
            }
        });
        pipe.receive();
        std::thread::sleep(Duration::from_micros(500 * turn));
        let group = parent.pid();
        match turn % 2 {
            0 => parent.kill(),
            _ => {
                signal_group(group, libc::SIGINT);
                let status = parent.wait_within(support::DEADLINE).unwrap();
                assert_eq!(status.signal(), Some(libc::SIGINT));
            }
        }
        eventually("all workers are gone", || {
            let mut status = 0;
            // SAFETY: `status` is a place to write to.
            unsafe { libc::waitpid(-(group as i32), &raw mut status, libc::WNOHANG) == -1 }
        });
        assert!(!Flag::is_raised(ran.number), "after {turn} turns");
    }
}

/// Checks the behaviour that the README and the crate documentation describe.
fn a_name_stays_after_a_signal_until_the_next_start() {
    let name = support::Name::new("interrupted");
    let pipe = Pipe::new();
    let parent = program(|| {
        let table = HandleTable::open_or_create(&name.0).unwrap();
        table.zeros::<u32, _>(100).unwrap();
        pipe.send(0);
        std::thread::sleep(support::DEADLINE);
    });
    pipe.receive();
    signal_group(parent.pid(), libc::SIGINT);
    let status = parent.wait_within(support::DEADLINE).unwrap();
    assert_eq!(status.signal(), Some(libc::SIGINT));
    assert!(name.exists());
    let next = HandleTable::open_or_create(&name.0).unwrap();
    assert_eq!(next.arrays().count(), 0, "the dead's arrays are freed");
    drop(next);
    assert!(
        !name.exists(),
        "a process that ends normally removes the name"
    );
}

/// Checks that tests reset the signals that they rely on: shells start background jobs with SIGINT
/// ignored, and other programs block or ignore others.
fn tests_set_the_signals_that_they_rely_on() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.arg("--show-dispositions");
    let hostile = || {
        for signal in 1..32 {
            // SAFETY: ignoring is a valid action.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
            let set = set_of(signal);
            // SAFETY: the set lives during the call; the old one is not asked for.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only.
    unsafe { program.pre_exec(hostile) };
    let output = program.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    // Only SIGPIPE is ignored, as in all Rust programs. 32 and 33 belong to the C library.
    let ignored = set_in(&shown, "SigIgn") & !(0b11 << 31);
    assert_eq!(ignored, 1 << (libc::SIGPIPE - 1), "{shown}");
    assert_eq!(set_in(&shown, "SigBlk"), 0, "{shown}");
}
