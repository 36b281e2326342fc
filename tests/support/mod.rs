//! Support for tests that fork: a runner without threads, children that are always waited for,
//! names that are always removed.

#![allow(dead_code, reason = "each test binary uses its own part")]

mod pools;
mod signals;

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use pools::{KINDS, Kind, PROCESSES, start, table};
pub use signals::set_signals;

/// Time limit of a child. After it the test fails and kills the child. It is many times the usual
/// time, because the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Runs these functions as tests; see [`run`]. The name of a test is the path of its function. An entry
/// may have a condition (`#[cfg(..)]`).
#[allow(unused_macros, reason = "some targets list names of their own")]
macro_rules! run_tests {
    ($($(#[$condition:meta])? $test:path),+ $(,)?) => {
        $crate::support::run(&[$($(#[$condition])? (stringify!($test), $test as fn())),+])
    };
}
#[allow(unused_imports, reason = "some targets list names of their own")]
pub(crate) use run_tests;

/// Runs the tests with names that contain the command line's first free argument, one after another
/// on the main thread. Each runs in a child of its own, so it may fork, and is killed if it hangs.
pub fn run(tests: &[(&str, fn())]) {
    set_signals();
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let child = Child::fork(test);
        let ok = child
            .wait_within(4 * DEADLINE)
            .is_some_and(|status| status.success());
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed += 1 }
    }
    println!("\n{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

/// A forked child.
pub struct Child {
    pid: i32,
    status: Option<ExitStatus>,
}

impl Child {
    /// Forks a child that runs `life` and exits: with 0, or with 101 if it panics.
    pub fn fork(life: impl FnOnce()) -> Child {
        // SAFETY: these test binaries start no thread before they fork.
        match unsafe { libc::fork() } {
            0 => {
                let code = match catch_unwind(AssertUnwindSafe(life)) {
                    Ok(()) => 0,
                    Err(_) => 101,
                };
                exit_at_once(code)
            }
            pid => {
                assert!(pid > 0, "fork failed: {}", std::io::Error::last_os_error());
                Child { pid, status: None }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: `kill` has no precondition; the pid is of a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Kills the child and waits for its end.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        assert!(self.ended_within(DEADLINE));
    }

    /// Waits for the child. Asserts that it ends with exit code 0.
    #[track_caller]
    pub fn join(self) {
        let status = self.wait_within(DEADLINE).expect("the child hangs");
        assert!(status.success(), "the child ended with {status}");
    }

    /// Returns the exit status of the child, or `None` if it had to be killed.
    pub fn wait_within(mut self, deadline: Duration) -> Option<ExitStatus> {
        self.ended_within(deadline).then_some(self.status?)
    }

    fn ended_within(&mut self, deadline: Duration) -> bool {
        let start = Instant::now();
        while self.status.is_none() && start.elapsed() < deadline {
            let mut status = 0;
            // SAFETY: `status` is a place to write to; the pid is of an own child.
            if unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } == self.pid {
                self.status = Some(ExitStatus::from_raw(status));
            } else {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.status.is_some()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            // SAFETY: as in `signal`.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.ended_within(DEADLINE);
        }
    }
}

/// Ends this process without running the exit handlers that its parent has registered.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Kills this process.
pub fn die() {
    // SAFETY: `raise` has no precondition.
    unsafe { libc::raise(libc::SIGKILL) };
}

/// Sleeps until this process is killed.
pub fn sleep_for_ever() -> ! {
    loop {
        std::thread::sleep(DEADLINE);
    }
}

/// Returns `true` if a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Returns the state of a process in the notation of /proc: T is stopped, Z has ended.
pub fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next()?.chars().next()
}

/// Waits until the condition holds.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A pipe through which related processes send numbers.
pub struct Pipe {
    ends: [i32; 2],
}

impl Pipe {
    pub fn new() -> Pipe {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        Pipe { ends }
    }

    /// Returns the descriptor to write to. Code that cannot reach this value needs it, such as
    /// signal handlers.
    pub fn writer(&self) -> i32 {
        self.ends[1]
    }

    pub fn send(&self, number: u64) {
        let bytes = number.to_le_bytes();
        // SAFETY: eight bytes are there to be read.
        let sent = unsafe { libc::write(self.ends[1], bytes.as_ptr().cast(), 8) };
        assert_eq!(sent, 8);
    }

    /// Returns `true` if a number is sent within this time.
    pub fn is_sent_within(&self, time: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.ends[0],
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, alive during the call.
        unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as i32) == 1 }
    }

    #[track_caller]
    pub fn receive(&self) -> u64 {
        assert!(self.is_sent_within(DEADLINE), "nothing was sent in time");
        let mut bytes = [0; 8];
        // SAFETY: there is room for eight bytes.
        let received = unsafe { libc::read(self.ends[0], bytes.as_mut_ptr().cast(), 8) };
        assert_eq!(received, 8);
        u64::from_le_bytes(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for end in self.ends {
            // SAFETY: the descriptor is this value's own.
            unsafe { libc::close(end) };
        }
    }
}

/// A flag that is raised once. Any related process that knows its number can use it, also kernels,
/// which have no pipe. It is lowered on drop.
pub struct Flag {
    pub number: u64,
}

impl Flag {
    pub fn new() -> Flag {
        thread_local! {
            // Flags are made on the main thread.
            static COUNT: Cell<u32> = const { Cell::new(0) };
        }
        let count = COUNT.replace(COUNT.get() + 1);
        Flag {
            number: u64::from(std::process::id()) << 32 | u64::from(count),
        }
    }

    fn path(number: u64) -> PathBuf {
        std::env::temp_dir().join(format!("ndshm-test-flag-{number:x}"))
    }

    pub fn raise(number: u64) {
        std::fs::write(Flag::path(number), []).unwrap();
    }

    pub fn is_raised(number: u64) -> bool {
        Flag::path(number).exists()
    }

    /// Waits until the flag is raised.
    #[track_caller]
    pub fn wait(number: u64) {
        eventually("a flag is raised", || Flag::is_raised(number));
    }
}

impl Drop for Flag {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Flag::path(self.number));
    }
}

/// A unique segment name. Drop removes it.
pub struct Name(pub String);

impl Name {
    pub fn new(what: &str) -> Name {
        Name(format!("ndshm-test-{}-{what}", std::process::id()))
    }

    /// Returns the path of its file.
    pub fn path(&self) -> std::path::PathBuf {
        std::path::Path::new("/dev/shm").join(&self.0)
    }

    pub fn exists(&self) -> bool {
        self.path().exists()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}
