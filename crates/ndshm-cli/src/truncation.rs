//! Protection against files that other users truncate.
//!
//! An access to a mapping beyond the end of its file raises SIGBUS. Copying the segment instead of
//! mapping it is no alternative: `verify` reports a finding only if it is still there at a second
//! look. Therefore the tool ends with a message. A list inspects each such segment in a child.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crate::output::{Code, Failure};

/// Description of a `SIGBUS` in a child.
pub const MESSAGE: &str = "another process truncated its file during the inspection";

extern "C" fn end(_: libc::c_int) {
    let text = b"ndshm: the segment's file was truncated during the inspection\n";
    // SAFETY: `write` is async-signal-safe; the text has that length.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    // SAFETY: `_exit` is async-signal-safe, too.
    unsafe { libc::_exit(Code::Refused as libc::c_int) }
}

/// Installs a SIGBUS handler: a truncated file ends the tool with a message and its exit code.
pub fn catch() {
    let handler = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler calls only async-signal-safe functions.
    unsafe { libc::signal(libc::SIGBUS, handler) };
}

/// Runs `work` in a child and returns its text, or `None` if the child ended by SIGBUS. Call it
/// only while the tool has one thread.
pub fn in_child(work: impl FnOnce() -> String) -> Result<Option<String>, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format_args!("a child: {error}"));
    let (mut reader, mut writer) = std::io::pipe().map_err(failed)?;
    // SAFETY: this process has one thread, so the child may run any code after the fork.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(failed(std::io::Error::last_os_error())),
        0 => {
            // SAFETY: the default action has no precondition.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            let sent = writer.write_all(work().as_bytes());
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(sent.is_err())) }
        }
        _ => {}
    }
    drop(writer);
    let mut text = String::new();
    let read = reader.read_to_string(&mut text);
    let mut status = 0;
    // SAFETY: `status` is valid for the write; nothing else waits for `child`.
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
