//! Worker processes: how they end, and making sure that they do.

use core::time::Duration;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

/// A child process, which is waited for by who has this.
pub(super) struct Child {
    pid: Pid,
    ended: bool,
    status: Option<WaitStatus>,
}

impl Child {
    /// A child that nobody else waits for.
    pub(super) fn new(pid: Pid) -> Child {
        Child {
            pid,
            ended: false,
            status: None,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks the system, without waiting, whether the child has ended.
    pub(super) fn has_died(&mut self) -> bool {
        if !self.ended {
            match waitpid(Some(self.pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) if status.stopped() => self.go_on_with_parent(status),
                Ok(Some((_, status))) => {
                    self.ended = true;
                    self.status = Some(status);
                }
                // Somebody else has waited for it: it is gone, nobody can say how.
                Err(_) => self.ended = true,
            }
        }
        self.ended
    }

    /// Lets a worker go on that Ctrl-Z has stopped, as this process was not stopped or goes on.
    /// One that was stopped on its own, by SIGSTOP or a debugger, stays so.
    fn go_on_with_parent(&self, status: WaitStatus) {
        if status.stopping_signal() == Some(Signal::TSTP.as_raw()) {
            let _ = kill_process(self.pid, Signal::CONT);
        }
    }

    /// The signal that killed it.
    pub(super) fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.terminating_signal())
    }

    /// The code it exited with.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.exit_status())
    }

    /// Kills it, and waits for its end.
    pub(super) fn kill(&mut self) {
        if !self.has_died() {
            let _ = kill_process(self.pid, Signal::KILL);
            while let Err(rustix::io::Errno::INTR) = waitpid(Some(self.pid), WaitOptions::empty()) {
            }
            self.ended = true;
        }
    }

    /// Waits for its end, which it was told of; kills it if that takes until `deadline`.
    pub(super) fn end(&mut self, deadline: Instant) {
        while !self.has_died() {
            if Instant::now() >= deadline {
                self.kill();
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
