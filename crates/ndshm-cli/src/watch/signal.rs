//! Being asked to end by a signal: noted, so that the terminal is restored first.

#![expect(
    clippy::disallowed_types,
    reason = "a signal handler may do no more than this, and no protocol is behind it"
)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    CAME.store(true, Relaxed);
}

/// From here on SIGTERM, SIGHUP and SIGINT are noted.
pub fn catch() {
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is allowed at any
        // point of the program.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether one came.
pub fn came() -> bool {
    CAME.load(Relaxed)
}

/// Waits; whether one came.
pub fn wait(time: Duration) -> bool {
    let end = Instant::now() + time;
    while !came() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
    true
}
