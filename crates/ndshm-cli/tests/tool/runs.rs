//! Runs the tool: with pipes, or in a pseudo-terminal, as a person would.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Resource, Rlimit};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use serde_json::Value;

/// Time limit of one run.
const DEADLINE: Duration = Duration::from_secs(30);

/// Result of a run.
pub struct Ran {
    pub status: ExitStatus,
    pub out: String,
    /// Standard error; in a terminal it is part of `out`.
    pub err: String,
    what: String,
}

impl Ran {
    /// Returns the exit code. Checks that it is documented and that the output shows no panic.
    #[track_caller]
    pub fn code(&self) -> i32 {
        let both = format!("{}{}", self.out, self.err);
        assert!(!both.contains("panicked at"), "{}: {both}", self.what);
        assert!(!both.contains("RUST_BACKTRACE"), "{}: {both}", self.what);
        let code = self.status.code();
        match code {
            Some(code @ 0..=4) => code,
            _ => panic!("{} ended with {}: {both}", self.what, self.status),
        }
    }

    /// Checks the exit code, like [`code`](Ran::code), and that it is this one.
    #[track_caller]
    pub fn ends_with(&self, code: i32) -> &Ran {
        let both = format!("{}{}", self.out, self.err);
        assert_eq!(self.code(), code, "{}: {both}", self.what);
        self
    }

    /// Parses standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{}: {error}: {}{}", self.what, self.out, self.err))
    }
}

/// Returns a command that runs the tool.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ndshm"));
    command
        .args(args)
        .env_remove("NO_COLOR")
        .env("TERM", "xterm");
    command.env_remove("RUST_BACKTRACE").env_remove("COLUMNS");
    command
}

/// Runs the tool with pipes.
pub fn piped(args: &[&str]) -> Ran {
    by_pipes(command(args), args)
}

fn by_pipes(mut command: Command, args: &[&str]) -> Ran {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let out = drain(child.stdout.take().unwrap().into(), start);
    let err = drain(child.stderr.take().unwrap().into(), start);
    ran(child, start, args, out, err)
}

/// Runs the tool with pipes and `--json`.
pub fn json(args: &[&str]) -> Ran {
    piped(&[args, &["--json"]].concat())
}

/// Opens a terminal with this many rows and columns. Returns our end and the program's end.
pub fn open_terminal((rows, columns): (u16, u16)) -> (OwnedFd, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let own = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&own).unwrap();
    rustix::pty::unlockpt(&own).unwrap();
    let name = rustix::pty::ptsname(&own, Vec::new()).unwrap();
    let name = name.to_str().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&own, size).unwrap();
    (own, theirs)
}

/// Runs the tool in a terminal of 120 columns.
pub fn terminal(args: &[&str], environment: &[(&str, &str)]) -> Ran {
    let (own, theirs) = open_terminal((40, 120));
    let start = Instant::now();
    let mut command = command(args);
    let child = command
        .envs(environment.iter().copied())
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    // Drop the command: it also holds the program's end of the terminal, so `drain` would not end.
    drop(command);
    let out = drain(own, start);
    // The terminal driver turns each "\n" into "\r\n".
    ran(child, start, args, out.replace("\r\n", "\n"), String::new())
}

/// Runs the tool with pipes, under a resource limit.
pub fn limited(args: &[&str], resource: Resource, limit: u64) -> Ran {
    let mut command = command(args);
    let set = move || {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        Ok(rustix::process::setrlimit(resource, limit)?)
    };
    // SAFETY: between fork and exec the closure only makes a system call.
    unsafe { command.pre_exec(set) };
    by_pipes(command, args)
}

/// Runs the tool with a standard output that nobody reads.
pub fn unread(args: &[&str]) -> Ran {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command(args)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let err = drain(child.stderr.take().unwrap().into(), start);
    ran(child, start, args, String::new(), err)
}

fn ran(
    mut child: std::process::Child,
    start: Instant,
    args: &[&str],
    out: String,
    err: String,
) -> Ran {
    let what = format!("ndshm {}", args.join(" "));
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Ran {
                status,
                out,
                err,
                what,
            };
        }
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what} hangs; so far: {out}{err}");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Reads until the other end is closed or the time is up.
fn drain(fd: OwnedFd, start: Instant) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 1 << 16];
    let mut file = File::from(fd);
    loop {
        let left = DEADLINE.saturating_sub(start.elapsed());
        let fd = file.as_fd();
        let mut polled = [PollFd::new(&fd, PollFlags::IN)];
        let timeout = left.try_into().unwrap();
        if left.is_zero() || rustix::event::poll(&mut polled, Some(&timeout)) == Ok(0) {
            break;
        }
        match file.read(&mut piece) {
            Ok(0) => break,
            // A terminal reports the end as an error.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(bytes).expect("the tool prints text")
}
