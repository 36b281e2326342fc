//! Processes: forking, signals, waiting.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::board::{Board, FOUND};

/// A child; nobody waits for it unless asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child(Pid);

impl Child {
    /// Forks a child that runs `life`, in which a panic is a finding. This program has one thread.
    pub fn fork(board: &'static Board, life: impl FnOnce()) -> Child {
        // SAFETY: no other thread exists that could hold a lock which the child needs.
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

    /// Sends a signal to a child that was not waited for yet.
    pub fn signal(self, signal: Signal) {
        kill_process(self.0, signal).expect("a child to signal");
    }

    /// How it ended, if it has.
    pub fn ended(self) -> Option<WaitStatus> {
        wait(Some(self.0), WaitOptions::NOHANG).map(|(_, status)| status)
    }

    /// Waits for its end, at most so long.
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

    /// Stops it, and waits until it is; `Err` if it has ended instead.
    pub fn stop(self) -> Result<(), WaitStatus> {
        self.signal(Signal::STOP);
        match wait(Some(self.0), WaitOptions::UNTRACED) {
            Some((_, status)) if !status.stopped() => Err(status),
            _ => Ok(()),
        }
    }
}

/// Any child that has ended, those among them whose parent is gone.
pub fn any_ended() -> Option<(Child, WaitStatus)> {
    wait(None, WaitOptions::NOHANG).map(|(pid, status)| (Child(pid), status))
}

/// Whether there is a child that was not waited for.
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

/// Makes this process the parent of those of its descendants whose own parent is gone.
pub fn adopt_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .expect("a kernel that has subreapers");
}

/// Sees to it that this process does not outlive its parent, whatever that ends by.
pub fn end_with(parent: Option<Pid>) {
    let armed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    armed.expect("a signal for the parent's death");
    if rustix::process::getppid() != parent {
        exit_at_once(0);
    }
}

/// Ends this process as it is: nothing is given back, nothing of its parent's is run.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}
