//! Worker processes: noticing and enforcing their end.

use core::time::Duration;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

/// A child process. The owner of this value waits for it.
pub(in crate::pool) struct Child {
    pid: Pid,
    ended: bool,
    status: Option<WaitStatus>,
}

impl Child {
    /// Creates the value for a child that no other code waits for.
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

    /// Returns `true` if the child has ended. Asks the system without waiting.
    pub(super) fn has_died(&mut self) -> bool {
        if !self.ended {
            match waitpid(Some(self.pid), WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Ok(Some((_, status))) if status.stopped() => self.go_on_with_parent(status),
                Ok(Some((_, status))) => {
                    self.ended = true;
                    self.status = Some(status);
                }
                // Other code has waited for the child, so its status is lost.
                Err(_) => self.ended = true,
            }
        }
        self.ended
    }

    /// Continues a worker that Ctrl-Z has stopped, because this process runs. A worker that was
    /// stopped on its own, by SIGSTOP or a debugger, stays stopped.
    fn go_on_with_parent(&self, status: WaitStatus) {
        if status.stopping_signal() == Some(Signal::TSTP.as_raw()) {
            let _ = kill_process(self.pid, Signal::CONT);
        }
    }

    /// Returns the signal that killed the child.
    pub(super) fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.terminating_signal())
    }

    /// Returns the exit code of the child.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.exit_status())
    }

    /// Kills the child and waits for its end.
    pub(super) fn kill(&mut self) {
        if !self.has_died() {
            let _ = kill_process(self.pid, Signal::KILL);
            while let Err(rustix::io::Errno::INTR) = waitpid(Some(self.pid), WaitOptions::empty()) {
            }
            self.ended = true;
        }
    }

    /// Waits for the end of the child, which was told to end. Kills it at `deadline`.
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
