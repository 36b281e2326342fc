//! The machine's memory, and what happens to all tables of a process when it ends.

use pyo3::prelude::*;

use crate::segment;

/// Returns the bytes of the machine's memory.
pub(crate) fn memory() -> u64 {
    static BYTES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map_or(1 << 32, |kib| kib.saturating_mul(1024))
    })
}

/// Leaves all tables. Views stay readable, because finalizers may still use them.
#[pyfunction]
fn leave_all() {
    for joined in segment::all() {
        // A thread may use the table at this moment. The end of the process leaves it then.
        let _ = joined.leave();
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(leave_all, module)?)
}
