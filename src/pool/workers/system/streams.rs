//! Buffered output: written once despite a fork, and not lost when a worker ends.

use std::fs::File;
use std::io::{self, Write};

/// Writes out this process's buffered standard output, which a forked worker would write a second
/// time. With `c_streams`, also writes out the buffers of C's streams.
///
/// Returns `false` if the system took only a part. Then the worker must call [`discard_inherited`].
#[must_use]
pub(super) fn flush_before_fork(c_streams: bool) -> bool {
    let c_is_empty = !c_streams || flush_c();
    io::stdout().flush().is_ok() && c_is_empty
}

/// Empties the buffers of standard output in a forked worker. The parent still has their text.
pub(super) fn discard_inherited(c_streams: bool) {
    // No safe function empties the buffer, so flush it into /dev/null.
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

/// Writes out text that a job printed without a final newline, because the worker may be killed
/// next.
///
/// Ignores errors: the next job that prints meets them again.
pub(super) fn flush_after_job() {
    let _ = io::stdout().flush();
}

/// Writes out the remaining text when a worker ends.
pub(super) fn flush_at_end(c_streams: bool) {
    flush_after_job();
    if c_streams {
        flush_c();
    }
}

/// Writes out the buffers of C's streams. Waits for every thread that is using one.
fn flush_c() -> bool {
    // SAFETY: a null pointer means all streams, and the function may be called at any time.
    unsafe { libc::fflush(core::ptr::null_mut()) == 0 }
}
