//! Forking workers, and learning how they end.

use core::ops::Range;
use core::time::Duration;
use std::fs;
use std::io;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::worker::WorkerLife;
use crate::error::PoolError;

/// A forked child, which is waited for by who has this.
pub(super) struct Child {
    pid: Pid,
    ended: bool,
    status: Option<WaitStatus>,
}

impl Child {
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks the system, without waiting, whether the child has ended.
    pub(super) fn has_died(&mut self) -> bool {
        if !self.ended {
            match waitpid(Some(self.pid), WaitOptions::NOHANG) {
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
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

    /// Whether it was found to have ended.
    pub(super) fn is_dead(&self) -> bool {
        self.ended
    }

    /// The signal that killed it.
    pub(super) fn signal(&self) -> Option<i32> {
        self.status.and_then(|status| status.terminating_signal())
    }

    /// The code it exited with.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.exit_status())
    }
}

/// Waits for the children to end, which they were told to; kills those that do not.
pub(super) fn end<'c>(children: impl Iterator<Item = &'c mut Child>, grace: Duration) {
    let start = Instant::now();
    for child in children {
        while !child.has_died() {
            if start.elapsed() >= grace {
                let _ = kill_process(child.pid, Signal::KILL);
                while let Err(rustix::io::Errno::INTR) =
                    waitpid(Some(child.pid), WaitOptions::empty())
                {}
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Forks; the child lives as the worker and does not return.
pub(super) fn fork(worker: &WorkerLife<'_>) -> Result<Child, PoolError> {
    // SAFETY: the process has one thread (`refuse_threads`, called just before), so the child is a
    // whole copy in which every lock is as free as here; it runs the worker's life alone, which never returns
    // into the parent's frames.
    match unsafe { libc::fork() } {
        0 => worker.live(),
        -1 => Err(PoolError::System {
            what: "fork a worker",
            error: io::Error::last_os_error(),
        }),
        pid => match Pid::from_raw(pid) {
            Some(pid) => Ok(Child {
                pid,
                ended: false,
                status: None,
            }),
            None => Err(PoolError::System {
                what: "fork a worker",
                error: io::Error::other("the system returned no pid"),
            }),
        },
    }
}

/// An error if this process runs more than one thread.
pub(super) fn refuse_threads() -> Result<(), PoolError> {
    let threads = fs::read_dir("/proc/self/task").map_err(|error| PoolError::System {
        what: "count the threads in /proc/self/task",
        error,
    })?;
    match threads.count() {
        1 => Ok(()),
        threads => Err(PoolError::Threads { threads }),
    }
}

/// The code that was mapped when the workers were forked.
pub(super) struct Image {
    code: Vec<Range<u64>>,
}

impl Image {
    pub(super) fn of_this_process() -> Result<Image, PoolError> {
        let maps = fs::read_to_string("/proc/self/maps").map_err(|error| PoolError::System {
            what: "read /proc/self/maps",
            error,
        })?;
        Ok(Image {
            code: maps.lines().filter_map(code_range).collect(),
        })
    }

    pub(super) fn contains(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }
}

/// The range of a line of /proc/self/maps, if it is executable.
fn code_range(line: &str) -> Option<Range<u64>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.contains('x');
    let address = |text| u64::from_str_radix(text, 16).ok();
    executable.then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_function_is_in_the_image() {
        let image = Image::of_this_process().unwrap();
        assert!(image.contains(this_very_function_is_in_the_image as *const () as u64));
        assert!(
            !image.contains(&raw const image as u64),
            "the stack is not code"
        );
    }

    #[test]
    fn lines_of_maps() {
        let code = "55d0-55ff r-xp 0000 08:01 1234  /bin/cat";
        assert_eq!(code_range(code), Some(0x55d0..0x55ff));
        assert_eq!(code_range("55d0-55ff rw-p 0000 08:01 1234"), None);
        assert_eq!(code_range("nonsense"), None);
    }

    #[test]
    fn the_test_harness_has_threads() {
        let other = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(100)));
        assert!(matches!(refuse_threads(), Err(PoolError::Threads { threads }) if threads >= 2));
        other.join().unwrap();
    }
}
