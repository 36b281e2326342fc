//! Events for those who trace a pool, with the feature `tracing`; nothing without it.

use super::crew::Death;

/// A call was opened.
pub(super) fn opened(call: u64, tiles: usize) {
    #[cfg(feature = "tracing")]
    tracing::debug!(call, tiles, "round opened");
    let _ = (call, tiles);
}

/// A call is over.
pub(super) fn ended(call: u64, failed: bool) {
    #[cfg(feature = "tracing")]
    tracing::debug!(call, failed, "round ended");
    let _ = (call, failed);
}

/// In a worker: a tile was claimed, from another worker's stretch or from the own one.
#[inline]
pub(super) fn claimed(worker: usize, tile: usize, stolen: bool) {
    #[cfg(feature = "tracing")]
    tracing::trace!(worker, tile, stolen, "tile claimed");
    let _ = (worker, tile, stolen);
}

/// A worker has died.
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

/// Workers are being started.
pub(super) fn hiring(kind: super::crew::Kind) {
    #[cfg(feature = "tracing")]
    tracing::info!(?kind, "starting workers");
    let _ = kind;
}
