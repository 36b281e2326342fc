//! Ctrl-Z and `fg`: workers that stop and continue.

use std::time::Duration;

use ndarray::Axis;

use crate::support::{Flag, PROCESSES, Pipe, eventually, start, state_of, table};
use crate::{install, program, signal_group, support, tell, told_by};

fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

/// Checks that Ctrl-Z stops the parent and its workers at once, and `fg` continues all of them.
pub fn workers_stop_and_continue_with_their_group() {
    for kind in PROCESSES {
        let (pipe, handled, stopped) = (Pipe::new(), Pipe::new(), Flag::new());
        let parent = program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            // The handler stops this process itself, like programs that first restore the terminal.
            install(libc::SIGTSTP, stop_myself, &handled);
            let mut pool = start(kind, &table, 2);
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
pub fn workers_continue_if_their_parent_did_not_stop() {
    for kind in PROCESSES {
        let pipe = Pipe::new();
        let parent = program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, 2);
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
pub fn a_worker_stopped_on_purpose_stays_stopped() {
    for kind in PROCESSES {
        program(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, 2);
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
