//! Output that is buffered: written once around a fork, and not lost when a worker ends.

use std::fs::File;
use std::io::{self, Write};

/// Writes out what this process has buffered for standard output, which a forked worker would
/// otherwise write a second time. With `c_streams` also the buffers of C's streams.
///
/// Returns `false` if the system took less: then the worker calls [`discard_inherited`].
#[must_use]
pub(super) fn flush_before_fork(c_streams: bool) -> bool {
    let c_is_empty = !c_streams || flush_c();
    io::stdout().flush().is_ok() && c_is_empty
}

/// In a forked worker: empties the buffers of standard output, whose text its parent still has.
pub(super) fn discard_inherited(c_streams: bool) {
    // No crate's call empties the buffer, so it is written to nowhere.
    let Ok(stdout) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3) else {
        return;
    };
    let Ok(nowhere) = File::options().write(true).open("/dev/null") else {
        return;
    };
    if rustix::stdio::dup2_stdout(nowhere).is_ok() {
        let _ = io::stdout().flush();
        if c_streams {
            flush_c();
        }
        let _ = rustix::stdio::dup2_stdout(stdout);
    }
}

/// Writes out what a job has printed without a final newline: the worker may be killed next.
///
/// An error is no business of the job's: the next one that prints meets it again.
pub(super) fn flush_after_job() {
    let _ = io::stdout().flush();
}

/// Writes out what is left when a worker ends.
pub(super) fn flush_at_end(c_streams: bool) {
    flush_after_job();
    if c_streams {
        flush_c();
    }
}

/// Writes out the buffers of C's streams. Waits for every thread that is inside one.
fn flush_c() -> bool {
    // SAFETY: a null pointer asks for all streams; the function may be called at any time.
    unsafe { libc::fflush(core::ptr::null_mut()) == 0 }
}
