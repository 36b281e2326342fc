//! Panics of kernels.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the kernel. Returns its result, or the message of its panic.
pub(crate) fn catch<R>(kernel: impl FnOnce() -> R) -> Result<R, String> {
    // A panic leaves the tile half-written. The caller tears it.
    let payload = match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(result) => return Ok(result),
        Err(payload) => payload,
    };
    let payload = match payload.downcast::<String>() {
        Ok(message) => return Err(*message),
        Err(payload) => payload,
    };
    match payload.downcast::<&'static str>() {
        Ok(message) => Err(message.to_string()),
        Err(payload) => {
            // Do not drop the payload: the destructor of an unknown value could panic again.
            core::mem::forget(payload);
            Err("a panic without a message".to_owned())
        }
    }
}
