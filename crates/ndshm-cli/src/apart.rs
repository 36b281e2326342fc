//! Looking at files that their owners may cut short.
//!
//! An access to a mapping beyond the end of its file raises SIGBUS. Copying such a segment instead of
//! mapping it would not do: what `verify` finds it believes only if it is there at a second look. So
//! the tool ends with a message, and a list looks at each segment in a child that may end.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::output::{Code, Failure};

/// What `SIGBUS` means here.
pub const CUT: &str = "its file was cut short by somebody who may write it, while it was looked at";

extern "C" fn end(_: libc::c_int) {
    let text = b"ndshm: the segment's file was cut short while it was looked at\n";
    // SAFETY: `write` may be called in a handler; the text has that length.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    // SAFETY: so may `_exit`.
    unsafe { libc::_exit(Code::Refused as libc::c_int) }
}

/// From here on a file that is cut short ends the tool with a message and its code.
pub fn catch() {
    let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does what is allowed at any point of the program.
    unsafe { libc::signal(libc::SIGBUS, handler) };
}

/// Runs `work` in a child, and returns the text that it made; `None` if the child ended by SIGBUS.
/// The tool has one thread when this is called.
pub fn run(work: impl FnOnce() -> String) -> Result<Option<String>, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format_args!("a child: {error}"));
    let (mut told, mut tell) = std::io::pipe().map_err(failed)?;
    // SAFETY: this process has one thread, so the child may go on like its parent.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(failed(std::io::Error::last_os_error())),
        0 => {
            // SAFETY: the default action has no precondition.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            let sent = tell.write_all(work().as_bytes());
            // SAFETY: ends the child without what its parent has to do at its end.
            unsafe { libc::_exit(i32::from(sent.is_err())) }
        }
        _ => {}
    }
    drop(tell);
    let mut text = String::new();
    let read = told.read_to_string(&mut text);
    let mut status = 0;
    // SAFETY: `status` is a place for the answer, `child` a child that nobody else waits for.
    while unsafe { libc::waitpid(child, &mut status, 0) } == -1
        && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
    {}
    let status = ExitStatus::from_raw(status);
    match (status.signal(), status.success()) {
        (Some(libc::SIGBUS), _) => Ok(None),
        (_, true) => read.map(|_| Some(text)).map_err(failed),
        _ => Err(Failure::refused(format_args!(
            "a child ended with {status}"
        ))),
    }
}
