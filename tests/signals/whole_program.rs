//! Signals that a terminal or a service manager sends to the whole program.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::{Handle, HandleTable};

use crate::support::{Child, Flag, Kind, PROCESSES, Pipe, eventually, is_alive, start, table};
use crate::{RAN_MAIN, SIGNALS, install, program, set_of, signal_group, support, tell, told};

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handler {
    BeforeThePool,
    AfterThePool,
    OnAThread,
}

/// Sends a signal during a step. The step ends, the arrays are complete, and each signal is handled
/// once.
pub fn a_program_with_a_handler_finishes_its_step() {
    for kind in PROCESSES {
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
    let mut pool = start(kind, &table, 2);
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

pub fn a_signal_without_a_handler_ends_parent_and_workers() {
    for kind in PROCESSES {
        for signal in SIGNALS {
            let pipe = Pipe::new();
            let parent = program(|| {
                let table = table();
                let x = table.zeros::<u32, _>(100).unwrap();
                let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
                let mut pool = start(kind, &table, 2);
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
pub fn signals_while_workers_start_reach_the_parent_alone() {
    for kind in PROCESSES {
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
                _ => 20,
            };
            for _ in 0..pools {
                let mut pool = start(kind, &table, 2);
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

/// Kills the parent while it starts workers: the workers end too, and do not run as programs of
/// their own.
pub fn a_worker_whose_parent_was_killed_does_not_run_main() {
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
                drop(start(Kind::Spawn, &table, 2));
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
pub fn a_name_stays_after_a_signal_until_the_next_start() {
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
