//! Ignored and blocked signals, in workers, in the programs that they start, and in these tests.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::{PROCESSES, start, table};
use crate::{SIGNALS, program, set_of};

pub fn an_ignored_signal_stays_ignored_in_workers() {
    for kind in PROCESSES {
        program(|| {
            for signal in SIGNALS {
                // SAFETY: ignoring is a valid action.
                unsafe { libc::signal(signal, libc::SIG_IGN) };
            }
            let table = table();
            let mut pool = start(kind, &table, 2);
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
pub fn dispositions() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines();
    let sets = lines.filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"));
    sets.flat_map(|line| [line, "\n"]).collect()
}

/// Checks that a worker's handlers end at an exec: Ctrl-C ends a program that a kernel runs.
pub fn programs_that_a_kernel_starts_have_default_signals() {
    for kind in PROCESSES {
        program(|| {
            let table = table();
            let mut pool = start(kind, &table, 2);
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

pub fn workers_have_the_mask_of_their_parent() {
    for kind in PROCESSES {
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
            let mut pool = start(kind, &table, 2);
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

/// Checks that tests reset the signals that they rely on: shells start background jobs with SIGINT
/// ignored, and other programs block or ignore others.
pub fn tests_set_the_signals_that_they_rely_on() {
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
