//! Trace events of a pool. Without the feature `tracing` the functions do nothing.

use core::fmt::Debug;
use core::ops::Range;

/// Reports that a call was opened.
pub(super) fn opened(call: u64, tiles: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(call, tiles, "round opened");
    let _ = (call, tiles);
}

/// Reports that a call has ended.
pub(super) fn ended(call: u64, failed: bool) {
    #[cfg(feature = "tracing")]
    tracing::debug!(call, failed, "round ended");
    let _ = (call, failed);
}

/// Reports that a worker claimed a tile of its own or another's range.
#[inline]
pub(super) fn claimed(worker: usize, tile: usize, stolen: bool) {
    #[cfg(feature = "tracing")]
    tracing::trace!(worker, tile, stolen, "tile claimed");
    let _ = (worker, tile, stolen);
}

/// Reports that a worker claimed these tiles together.
#[inline]
pub(super) fn claimed_unit(worker: usize, tiles: Range<usize>, stolen: bool) {
    // A loop that does nothing is not always removed.
    #[cfg(feature = "tracing")]
    tiles.for_each(|tile| claimed(worker, tile, stolen));
    #[cfg(not(feature = "tracing"))]
    let _ = (worker, tiles, stolen);
}

/// Reports that a worker has died.
pub(super) fn death(worker: usize, pid: u32, signal: Option<i32>, code: Option<i32>) {
    #[cfg(feature = "tracing")]
    tracing::warn!(worker, pid, signal, code, "worker died");
    let _ = (worker, pid, signal, code);
}

/// Reports that workers are being started.
pub(super) fn starting(backend: &impl Debug) {
    #[cfg(feature = "tracing")]
    tracing::info!(?backend, "starting workers");
    let _ = backend;
}
