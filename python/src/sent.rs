//! The arrays of this process that were sent, and that have no view in it any more: they stay until
//! somebody frees them.

use ndshm::AnyHandle;

/// The most arrays in the list before it is searched for freed ones.
const FEW: usize = 4096;

/// A list of these arrays, with their bytes. Some may be free by now.
#[derive(Default)]
pub(crate) struct SentArrays {
    arrays: Vec<(AnyHandle, u64)>,
    bytes: u64,
    /// The number of bytes, and of arrays, at which to look again which of them were freed
    /// meanwhile.
    next_bytes: u64,
    next_count: usize,
}

impl SentArrays {
    pub(crate) fn note(&mut self, handle: AnyHandle, bytes: u64) {
        self.arrays.push((handle, bytes));
        self.bytes += bytes;
    }

    /// Takes the arrays out of the list, to remove the free ones, if there are many of them or they
    /// have more than `limit` bytes.
    pub(crate) fn take_many(&mut self, limit: u64) -> Option<Vec<(AnyHandle, u64)>> {
        let is_few = self.arrays.len() <= FEW.max(self.next_count);
        if is_few && self.bytes <= limit.max(self.next_bytes) {
            return None;
        }
        Some(std::mem::take(&mut self.arrays))
    }

    /// Puts the arrays back that live. Returns their number and bytes if these are more than `limit`
    /// bytes, and a quarter of it more than at the last such answer.
    pub(crate) fn put_back(
        &mut self,
        mut arrays: Vec<(AnyHandle, u64)>,
        limit: u64,
    ) -> Option<(usize, u64)> {
        let count = arrays.len();
        let bytes: u64 = arrays.iter().map(|(_, bytes)| bytes).sum();
        // Other threads may have added some.
        self.arrays.append(&mut arrays);
        self.bytes = self.arrays.iter().map(|(_, bytes)| bytes).sum();
        let is_more = bytes > limit.max(self.next_bytes);
        self.next_count = 2 * count;
        if bytes <= limit {
            self.next_bytes = 0;
        } else if is_more {
            self.next_bytes = bytes.saturating_add(limit / 4);
        }
        is_more.then_some((count, bytes))
    }
}
