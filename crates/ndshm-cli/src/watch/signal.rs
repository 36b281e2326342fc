//! Records signals that ask the tool to end: the terminal must be restored first.

#![expect(
    clippy::disallowed_types,
    reason = "a signal handler may only store to an atomic; no protocol depends on it"
)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    CAME.store(true, Relaxed);
}

/// Installs the handler for SIGTERM, SIGHUP and SIGINT.
pub fn catch() {
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Returns `true` if a signal has arrived.
pub fn came() -> bool {
    CAME.load(Relaxed)
}

/// Waits for this time or a signal. Returns `true` if a signal has arrived.
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
