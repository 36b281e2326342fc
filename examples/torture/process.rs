//! Processes: forking, signals, waiting.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::board::{Board, FOUND};

/// A child process. Dropping this does not wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child(Pid);

impl Child {
    /// Forks a child that runs `life`. A panic in it is a finding. This program has one thread.
    pub fn fork(board: &'static Board, life: impl FnOnce()) -> Child {
        // SAFETY: there is no other thread, so no lock that the child needs is held.
        match unsafe { libc::fork() } {
            0 => {
                std::panic::set_hook(Box::new(|info| {
                    board.find(&format!("process {}: {info}", std::process::id()));
                    exit_at_once(FOUND)
                }));
                life();
                exit_at_once(0)
            }
            pid => Child(Pid::from_raw(pid).expect("a fork")),
        }
    }

    pub fn pid(self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the child, which was not waited for yet.
    pub fn signal(self, signal: Signal) {
        kill_process(self.0, signal).expect("a child to signal");
    }

    /// Returns the child's status if it has ended.
    pub fn ended(self) -> Option<WaitStatus> {
        wait(Some(self.0), WaitOptions::NOHANG).map(|(_, status)| status)
    }

    /// Waits for the child's end until `deadline` has elapsed.
    pub fn ends_within(self, deadline: Duration) -> Option<WaitStatus> {
        let start = Instant::now();
        loop {
            match self.ended() {
                None if start.elapsed() < deadline => {
                    std::thread::sleep(Duration::from_micros(50));
                }
                end => return end,
            }
        }
    }

    /// Stops the child, and waits until it is stopped. Returns `Err` if it has ended instead.
    pub fn stop(self) -> Result<(), WaitStatus> {
        self.signal(Signal::STOP);
        match wait(Some(self.0), WaitOptions::UNTRACED) {
            Some((_, status)) if !status.stopped() => Err(status),
            _ => Ok(()),
        }
    }
}

/// Returns any child that has ended. Adopted orphans count as children.
pub fn any_ended() -> Option<(Child, WaitStatus)> {
    wait(None, WaitOptions::NOHANG).map(|(pid, status)| (Child(pid), status))
}

/// Returns `true` if there is a child that was not waited for.
pub fn has_children() -> bool {
    let ended = rustix::process::waitid(
        rustix::process::WaitId::All,
        rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT,
    );
    !matches!(ended, Err(rustix::io::Errno::CHILD))
}

fn wait(pid: Option<Pid>, options: WaitOptions) -> Option<(Pid, WaitStatus)> {
    loop {
        let found = match pid {
            Some(pid) => waitpid(Some(pid), options),
            None => rustix::process::wait(options),
        };
        match found {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
            Ok(found) => return found,
        }
    }
}

/// Makes this process adopt its orphaned descendants.
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .expect("a kernel that has subreapers");
}

/// Arranges that this process is killed when its parent ends for any reason.
pub fn end_with(parent: Option<Pid>) {
    let armed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    armed.expect("a signal for the parent's death");
    if rustix::process::getppid() != parent {
        exit_at_once(0);
    }
}

/// Ends this process at once: it releases nothing, and runs no exit handlers of its parent.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}
