//! Facts about the process and the machine, and the end of the process for all tables.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::segment;

/// Returns the bytes of the machine's memory.
pub(crate) fn memory() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map_or(1 << 32, |kib| kib.saturating_mul(1024))
    })
}

/// The pid, or 0 if it is not known: in a child that a fork has just made.
static PID: AtomicU32 = AtomicU32::new(0);

/// Returns the pid, without a call of the system.
pub(crate) fn pid() -> u32 {
    match PID.load(Ordering::Relaxed) {
        0 => look_up_pid(),
        pid => pid,
    }
}

#[cold]
fn look_up_pid() -> u32 {
    static HOOK: OnceLock<bool> = OnceLock::new();
    extern "C" fn forget() {
        PID.store(0, Ordering::Relaxed);
    }
    let pid = std::process::id();
    let is_hooked = HOOK.get_or_init(|| {
        // SAFETY: the function makes one store, which is allowed in a child at any moment. The
        // module is never unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) == 0 }
    });
    if *is_hooked {
        PID.store(pid, Ordering::Relaxed);
    }
    pid
}

/// `true` once the process has left its tables because the interpreter ends.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// Returns `true` after the process has left its tables because the interpreter ends.
pub(crate) fn has_ended() -> bool {
    HAS_ENDED.load(Ordering::Relaxed)
}

/// The most bytes of views that are copied when the interpreter ends: more would delay that.
const KEPT_AT_END: u64 = 64 << 20;

/// Leaves all tables. Views stay readable, because finalizers may still use them.
#[pyfunction]
fn leave_all(py: Python<'_>) {
    HAS_ENDED.store(true, Ordering::Relaxed);
    let mut left = KEPT_AT_END;
    for joined in segment::all() {
        let bytes = joined.bytes_in_view();
        let are_kept = bytes <= left;
        if are_kept {
            left -= bytes;
        }
        // If a thread still uses the table after a while, the end of the process leaves it.
        let _ = joined.leave(py, are_kept);
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(leave_all, module)?)
}
