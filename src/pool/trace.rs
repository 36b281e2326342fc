//! Trace events of a pool. Without the feature `tracing` the functions do nothing.

use super::crew::Death;

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

/// Reports that a worker claimed a tile of its own or another's stretch.
#[inline]
pub(super) fn claimed(worker: usize, tile: usize, stolen: bool) {
    #[cfg(feature = "tracing")]
    tracing::trace!(worker, tile, stolen, "tile claimed");
    let _ = (worker, tile, stolen);
}

/// Reports that a worker has died.
pub(super) fn death(death: &Death) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        worker = death.worker,
        pid = death.pid,
        signal = death.signal,
        code = death.code,
        "worker died"
    );
    let _ = death;
}

/// Reports that workers are being started.
pub(super) fn hiring(kind: super::crew::Kind) {
    #[cfg(feature = "tracing")]
    tracing::info!(?kind, "starting workers");
    let _ = kind;
}
