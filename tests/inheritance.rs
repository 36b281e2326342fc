//! The parts of its parent's state that a worker has: buffered output, random state, timers, thread
//! locals, open files, the environment. Signals are in `signals.rs`.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};

use ndarray::{Axis, Ix1};
use ndshm::error::PoolError;
use ndshm::{HandleTable, Partition, Pool, Write as Writes};
use support::{Child, Flag, Kind, PROCESSES, die, eventually, is_alive, start, table};

fn main() {
    ndshm::become_worker();
    support::run_tests![
        text_before_a_fork_appears_once,
        text_that_could_not_be_written_before_a_fork_appears_once,
        a_lock_on_stdout_does_not_block_a_fork,
        text_of_a_kernel_precedes_what_follows_the_call,
        text_of_a_worker_that_is_killed_later_appears,
        text_of_c_appears_once,
        output_of_a_dying_worker_appears,
        forked_workers_have_equal_random_states,
        a_worker_has_no_timers,
        thread_locals_are_copied_by_a_fork,
        open_files_share_their_position,
        the_environment_is_that_of_the_start,
    ];
}

type Tiles<'t> = Partition<'t, Writes<u32, Ix1>>;

/// Runs `test` with a pool of two workers and a partition of ten tiles.
fn with_pool(
    kind: Kind,
    before: impl FnOnce(),
    test: impl FnOnce(&HandleTable, &Tiles<'_>, &mut Pool<'_>),
) {
    let table = table();
    let x = table.zeros::<u32, _>(100).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    before();
    test(&table, &tiles, &mut start(kind, &table, 2));
}

/// Forks a child with a pipe as standard output and error. Returns it and the pipe's other end.
fn redirected(life: impl FnOnce()) -> (Child, File) {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: both descriptors are new, and nothing else owns them.
    let [reader, writer] = ends.map(|end| unsafe { File::from_raw_fd(end) });
    let child = Child::fork(|| {
        for stream in [1, 2] {
            // SAFETY: numbers; the former descriptor is not used any more.
            assert_eq!(unsafe { libc::dup2(ends[1], stream) }, stream);
        }
        drop(writer);
        life();
        // The child ends without the clean-up of a normal exit.
        std::io::stdout().flush().unwrap();
    });
    (child, reader)
}

/// Returns all output of a child and its workers.
fn output_of(life: impl FnOnce()) -> String {
    let (child, mut reader) = redirected(life);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    child.join();
    text
}

fn text_before_a_fork_appears_once() {
    for kind in PROCESSES {
        let text = output_of(|| {
            with_pool(
                kind,
                || print!("before the pool; "),
                |_, tiles, pool| {
                    pool.for_each(tiles, &(), |_, (), _| println!("tile"))
                        .unwrap();
                    print!("before a replacement; ");
                    let died = pool.broadcast(&(), |worker, ()| {
                        if worker.worker() == 0 {
                            die();
                        }
                    });
                    assert!(matches!(died, Err(PoolError::WorkerDied { .. })));
                    pool.broadcast(&(), |_, ()| println!("worker")).unwrap();
                },
            );
        });
        for (part, times) in [
            ("before the pool; ", 1),
            ("before a replacement; ", 1),
            ("tile\n", 10),
            ("worker\n", 2),
        ] {
            assert_eq!(
                text.matches(part).count(),
                times,
                "{kind:?}: {part}: {text}"
            );
        }
    }
}

/// Checks output while the pipe is full and does not block: the parent keeps the text, and writes
/// it later.
fn text_that_could_not_be_written_before_a_fork_appears_once() {
    let forked = Flag::new();
    let (child, mut reader) = redirected(|| {
        let stdout = std::io::stdout();
        // SAFETY: numbers; the descriptor is this process's own.
        let set = |flags: i32| unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETFL, flags) };
        assert_eq!(set(libc::O_NONBLOCK), 0);
        // SAFETY: one byte is there to be read.
        while unsafe { libc::write(1, b"-".as_ptr().cast(), 1) } == 1 {}
        with_pool(
            Kind::Fork,
            || print!("before the pool; "),
            |_, _, pool| {
                Flag::raise(forked.number);
                eventually("the pipe has room", || std::io::stdout().flush().is_ok());
                assert_eq!(set(0), 0);
                pool.broadcast(&(), |_, ()| println!("worker")).unwrap();
            },
        );
    });
    Flag::wait(forked.number);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    child.join();
    let text = text.trim_start_matches('-');
    assert_eq!(text, "before the pool; worker\nworker\n");
}

/// Checks that neither the fork nor a worker waits for a lock that the forking thread holds.
fn a_lock_on_stdout_does_not_block_a_fork() {
    for kind in PROCESSES {
        let text = output_of(|| {
            let mut locked = std::io::stdout().lock();
            write!(locked, "locked; ").unwrap();
            with_pool(
                kind,
                || (),
                |_, tiles, pool| {
                    pool.for_each(tiles, &(), |_, (), _| print!("tile; "))
                        .unwrap();
                },
            );
        });
        assert_eq!(text.matches("locked; ").count(), 1, "{kind:?}: {text}");
        assert_eq!(text.matches("tile; ").count(), 10, "{kind:?}: {text}");
    }
}

fn text_of_a_kernel_precedes_what_follows_the_call() {
    for kind in PROCESSES {
        let text = output_of(|| {
            with_pool(
                kind,
                || (),
                |_, tiles, pool| {
                    for call in 0..20u32 {
                        pool.for_each(tiles, &call, |_, call, _| print!("tile of {call}; "))
                            .unwrap();
                        print!("end of {call}; ");
                        std::io::stdout().flush().unwrap();
                    }
                },
            );
        });
        let expected: String = (0..20)
            .map(|call| format!("{}end of {call}; ", format!("tile of {call}; ").repeat(10)))
            .collect();
        assert_eq!(text, expected, "{kind:?}");
    }
}

/// Checks workers that are killed by the end of the pool or by a signal: the text of a finished
/// call is already written.
fn text_of_a_worker_that_is_killed_later_appears() {
    for kind in PROCESSES {
        let text = output_of(|| {
            with_pool(
                kind,
                || (),
                |_, _, pool| {
                    pool.broadcast(&(), |_, ()| print!("set up; ")).unwrap();
                    for pid in pool.pids().into_iter().flatten() {
                        // SAFETY: no precondition; the pid is of a worker not waited for.
                        assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
                        eventually("the worker ends", || !is_alive(pid));
                    }
                },
            );
        });
        assert_eq!(text, "set up; set up; ", "{kind:?}");
    }
}

/// Prints by C's stream, which buffers output to a pipe.
fn print_in_c(text: &std::ffi::CStr) {
    // SAFETY: the format takes one string, which lives during the call.
    assert!(unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) } > 0);
}

fn text_of_c_appears_once() {
    for kind in PROCESSES {
        let text = output_of(|| {
            with_pool(
                kind,
                || print_in_c(c"before the pool; "),
                |_, _, pool| {
                    pool.broadcast(&(), |_, ()| print_in_c(c"worker; "))
                        .unwrap();
                },
            );
            // SAFETY: a null pointer asks for all streams.
            assert_eq!(unsafe { libc::fflush(std::ptr::null_mut()) }, 0);
        });
        assert_eq!(
            text.matches("before the pool; ").count(),
            1,
            "{kind:?}: {text}"
        );
        assert_eq!(text.matches("worker; ").count(), 2, "{kind:?}: {text}");
    }
}

fn output_of_a_dying_worker_appears() {
    for kind in PROCESSES {
        let text = output_of(|| {
            with_pool(
                kind,
                || (),
                |_, _, pool| {
                    for end in 0..4u32 {
                        let outcome = pool.broadcast(&end, |worker, &end| {
                            if worker.worker() == 0 {
                                println!("line {end}");
                                eprint!("error {end}; ");
                                match end {
                                    0 => std::process::abort(),
                                    1 => die(),
                                    2 => {
                                        print!("exit without a newline; ");
                                        std::process::exit(3)
                                    }
                                    _ => {
                                        print!("panic without a newline; ");
                                        panic!("the message of the panic")
                                    }
                                }
                            }
                        });
                        assert!(outcome.is_err());
                    }
                },
            );
        });
        let words = (0..4).flat_map(|end| [format!("line {end}\n"), format!("error {end}; ")]);
        let others = ["exit without a newline; ", "panic without a newline; "];
        let message = "the message of the panic";
        let others = others.into_iter().chain([message]).map(str::to_owned);
        for words in words.chain(others) {
            assert_eq!(text.matches(&words).count(), 1, "{kind:?}: {words}: {text}");
        }
    }
}

fn random_state() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Shows the warning of the guide: only the pool's own streams of random numbers differ.
fn forked_workers_have_equal_random_states() {
    for kind in PROCESSES {
        with_pool(
            kind,
            || {
                random_state();
            },
            |_, tiles, pool| {
                let drawn = pool.broadcast(&(), |_, ()| random_state()).unwrap();
                assert_eq!(drawn[0] == drawn[1], kind == Kind::Fork, "{kind:?}");
                let drawn = pool
                    .map_collect(tiles, &(), |_, (), tile| {
                        use rand_core::Rng;
                        tile.rng().next_u64()
                    })
                    .unwrap();
                assert_eq!(drawn.into_iter().collect::<HashSet<_>>().len(), 10);
            },
        );
    }
}

fn remaining() -> u64 {
    let mut timer = std::mem::MaybeUninit::<libc::itimerval>::zeroed();
    // SAFETY: `timer` is a place for the answer.
    unsafe { libc::getitimer(libc::ITIMER_REAL, timer.as_mut_ptr()) };
    // SAFETY: it was filled, or is made of zeros, which are a value.
    unsafe { timer.assume_init() }.it_value.tv_sec as u64
}

fn a_worker_has_no_timers() {
    for kind in PROCESSES {
        with_pool(
            kind,
            || {
                // SAFETY: `alarm` has no precondition.
                unsafe { libc::alarm(3600) };
            },
            |_, _, pool| {
                assert_eq!(pool.broadcast(&(), |_, ()| remaining()).unwrap(), [0, 0]);
                assert!(remaining() > 1000, "the parent's timer goes on");
            },
        );
    }
}

/// Raises its flag when it is dropped.
struct Noted(u64);

impl Drop for Noted {
    fn drop(&mut self) {
        Flag::raise(self.0);
    }
}

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(1) };
    static NOTED: RefCell<Option<Noted>> = const { RefCell::new(None) };
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

fn thread_locals_are_copied_by_a_fork() {
    for kind in PROCESSES {
        let dropped = Flag::new();
        with_pool(
            kind,
            || {
                COUNT.set(10);
                NOTED.set(Some(Noted(dropped.number)));
            },
            |_, _, pool| {
                for call in 1..3 {
                    let counts = pool
                        .broadcast(&(), |_, ()| {
                            COUNT.set(COUNT.get() + 1);
                            COUNT.get()
                        })
                        .unwrap();
                    let start = match kind {
                        Kind::Fork => 10,
                        _ => 1,
                    };
                    assert_eq!(counts, [start + call; 2], "{kind:?}");
                    assert_eq!(COUNT.get(), 10, "{kind:?}: the parent's value is unchanged");
                }
            },
        );
        assert!(!Flag::is_raised(dropped.number), "a worker drops nothing");
        std::mem::forget(NOTED.take());
    }
}

fn open_files_share_their_position() {
    let flag = Flag::new();
    let path = std::env::temp_dir().join(format!("ndshm-test-position-{:x}", flag.number));
    std::fs::write(&path, [7; 100]).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    FILE.set(Some(file));
    with_pool(
        Kind::Fork,
        || (),
        |_, _, pool| {
            pool.broadcast(&(), |_, ()| {
                FILE.with_borrow_mut(|file| file.as_mut().unwrap().read_exact(&mut [0; 10]))
                    .unwrap();
            })
            .unwrap();
        },
    );
    let position = FILE.with_borrow_mut(|file| file.as_mut().unwrap().stream_position());
    assert_eq!(position.unwrap(), 20);
}

fn the_environment_is_that_of_the_start() {
    // SAFETY: the process of this test has one thread.
    let set = |value: &str| unsafe { std::env::set_var("NDSHM_TEST_VALUE", value) };
    let length = || std::env::var("NDSHM_TEST_VALUE").map_or(0, |value| value.len() as u64);
    for kind in PROCESSES {
        with_pool(
            kind,
            || set("12345"),
            |_, _, pool| {
                set("1");
                let seen = pool
                    .broadcast(&(), |_, ()| {
                        std::env::var("NDSHM_TEST_VALUE").map_or(0, |value| value.len() as u64)
                    })
                    .unwrap();
                assert_eq!(seen, [5, 5], "{kind:?}");
                assert_eq!(length(), 1);
            },
        );
    }
}
