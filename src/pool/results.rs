//! A worker's side of a call's memory: results that it writes.

use core::slice;

use super::call_memory::{CallMemory, Opened, state};
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::sync::Ordering;
use crate::table::error::LeaseError;

/// One result per tile or worker, written by the worker that has claimed the tile.
pub struct Results<'t> {
    table: &'t HandleTable,
    opened: Opened<'t>,
}

impl<'t> Results<'t> {
    /// Opens the results that `handle` names. The parent allocated them for the kernel's results.
    pub(super) fn open(table: &'t HandleTable, handle: AnyHandle) -> Result<Self, LeaseError> {
        Ok(Results {
            table,
            opened: Opened::of(table, handle)?,
        })
    }

    /// Stores the result of the tile or worker `at`, which the caller has claimed, in a
    /// [`Slot::Bytes`] of `size` bytes.
    #[track_caller]
    pub(super) fn store(&mut self, at: usize, size: usize, write: impl FnOnce(&mut [u8])) {
        let end = at.checked_add(1).and_then(|next| next.checked_mul(size));
        if end.is_none_or(|end| end > self.opened.len) {
            return;
        }
        let _access = self.opened.track((at * size) as u64, size as u64, true);
        // SAFETY: `at * size + size` is at most `len`, so the place is in the extent.
        let place = unsafe { self.opened.first.add(at * size) };
        // SAFETY: the `size` bytes from `place` are in the extent, which is mapped while the table
        // lives, and bytes of a mapping are initialised. The lease keeps them in place. They belong
        // to the tile that the caller has claimed (or to this worker), so no other worker accesses
        // them, and the parent reads them only after the call.
        let bytes = unsafe { slice::from_raw_parts_mut(place.as_ptr(), size) };
        write(bytes);
    }

    /// Stores a result, or the text of an error, in the [`Slot::Message`] of the tile or worker
    /// `at`, which the caller has claimed. The message is this worker's until the parent frees it.
    #[cfg_attr(
        not(feature = "serde"),
        allow(dead_code, reason = "for values of serde")
    )]
    pub(crate) fn store_message(&mut self, at: usize, result: Result<&[u8], &str>) {
        let Some([handle, len, state]) = self.opened.message_words(at) else {
            return;
        };
        let (bytes, stored) = match result {
            Ok(bytes) => (bytes, state::VALUE),
            Err(text) => (text.as_bytes(), state::ERROR),
        };
        // Relaxed: the check-out publishes the words. An earlier message here belonged to a worker
        // that died in this tile, and was freed with it.
        match CallMemory::message(self.table, bytes) {
            Ok(message) => {
                handle.store(message.keep().to_bits(), Ordering::Relaxed);
                len.store(bytes.len() as u64, Ordering::Relaxed);
                state.store(stored, Ordering::Relaxed);
            }
            Err(_) => state.store(state::NO_MEMORY, Ordering::Relaxed),
        }
    }
}
