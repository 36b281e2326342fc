//! Failures of kernels in a model, in which a panic fails the model or is the death of a participant.

use core::cell::Cell;

use crate::sync::checker::thread_local;

thread_local! {
    static FAILURE: Cell<Option<&'static str>> = Cell::new(None);
}

/// Makes the kernel that this worker runs fail when it returns, as if it had panicked.
pub(crate) fn fail_kernel(message: &'static str) {
    FAILURE.with(|failure| failure.set(Some(message)));
}

/// Runs the kernel. Returns its result, or the message of its [failure](fail_kernel).
pub(crate) fn catch<R>(kernel: impl FnOnce() -> R) -> Result<R, String> {
    let result = kernel();
    match FAILURE.with(Cell::take) {
        None => Ok(result),
        Some(message) => Err(message.to_owned()),
    }
}
