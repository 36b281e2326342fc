//! Segments: the source of the shared memory, and how a process joins and leaves it.

#[cfg(not(loom))]
mod anonymous;
#[cfg(not(loom))]
mod commit;
#[cfg(not(loom))]
mod description;
mod error;
#[cfg(not(loom))]
mod file_check;
#[cfg(not(loom))]
mod foreign_lock;
#[cfg(not(loom))]
pub(crate) mod fork;
#[cfg(all(feature = "serde", not(loom)))]
pub(crate) mod fresh;
#[cfg(not(loom))]
mod huge;
mod in_process;
#[cfg(not(loom))]
mod limits;
#[cfg(not(loom))]
#[cfg_attr(miri, path = "heap.rs")]
mod mapping;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
pub(crate) mod observe;
#[cfg(not(loom))]
mod open;
mod options;
#[cfg(not(loom))]
mod passed;
#[cfg(not(loom))]
mod promise;
#[cfg(not(loom))]
mod remove;
#[cfg(loom)]
mod scripted;
#[cfg(not(loom))]
mod seat_lock;
#[cfg(not(loom))]
mod shared;
#[cfg(all(test, not(loom)))]
pub(crate) mod tests;

pub use error::{ForeignLock, NoMemory, SegmentError};
use std::fmt;
use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use huge::Touched;
#[cfg(not(loom))]
pub use huge::{HugePageReport, HugePages};
#[cfg(not(loom))]
pub use limits::{CgroupLimit, MemoryLimits};
pub use options::SegmentOptions;
#[cfg(not(loom))]
pub use remove::Removal;
#[cfg(loom)]
use scripted::Inner;
#[cfg(loom)]
pub(crate) use scripted::fork;
#[cfg(not(loom))]
use shared::Inner;

use crate::layout::Header;
use crate::memory::Memory;
use crate::sync::Ordering;

/// One contiguous shared mapping that holds a table of arrays.
///
/// A clone is another reference to the same mapping; the mapping ends with the last reference. A
/// process usually has one segment, and every [`HandleTable`](crate::HandleTable) of it is a
/// participant.
///
/// The segment reserves address space, by default 16 TiB, but no memory: arrays take pages when
/// they need them.
///
/// | made by | shared with | limited by | ends with |
/// |---|---|---|---|
/// | [`anonymous`](Segment::anonymous) | forked children, and processes that receive the descriptor | the machine's memory | the last process that has it |
/// | [`create`](Segment::create) | processes of the same user that know the name | the size of `/dev/shm` | the last process, unless it persists |
/// | [`in_process`](Segment::in_process) | threads | the machine's memory | the process |
#[derive(Clone)]
pub struct Segment {
    inner: Arc<Inner>,
}

impl Segment {
    /// Returns the options for creating or opening a segment, set to their defaults.
    pub fn options() -> SegmentOptions {
        SegmentOptions::new()
    }

    /// Returns the bytes for the contents of all arrays together.
    pub fn capacity(&self) -> u64 {
        self.memory().layout().geometry.capacity
    }

    /// Returns the maximum number of participants at one time.
    pub fn seats(&self) -> u32 {
        self.memory().layout().geometry.seats
    }

    /// Returns the maximum number of arrays at one time.
    pub fn arrays(&self) -> u64 {
        self.memory().layout().geometry.slots() as u64
    }

    /// Sets whether the name stays when the last process leaves. Has no effect on a segment
    /// without a name.
    ///
    /// A persistent segment keeps its arrays, and their memory, until the machine restarts or a
    /// process in it calls `persist(false)` and leaves last.
    pub fn persist(&self, persistent: bool) {
        let word = &self.memory().header()[Header::PERSISTENT];
        // Relaxed: the last process to leave reads the word after it has locked the gate
        // exclusively. The kernel's lock orders that after our own leaving, and so after this
        // store.
        word.store(u64::from(persistent), Ordering::Relaxed);
    }

    /// Returns `true` if the name stays when the last process leaves.
    pub fn is_persistent(&self) -> bool {
        self.memory().header()[Header::PERSISTENT].load(Ordering::Relaxed) != 0
    }

    /// Returns the tables of the mapping.
    #[inline]
    pub(crate) fn memory(&self) -> &Memory {
        self.inner.memory()
    }

    /// Returns the random number that handles of this segment are xored with.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.inner.key()
    }

    /// Returns the limit of bytes in free extents that keep their pages.
    pub(crate) fn retain_limit(&self) -> u64 {
        self.inner.retain_limit()
    }
}

/// A reference to a segment that does not keep it mapped.
#[cfg(not(loom))]
pub(crate) struct WeakSegment {
    inner: std::sync::Weak<Inner>,
}

#[cfg(not(loom))]
impl WeakSegment {
    pub(crate) fn of(segment: &Segment) -> WeakSegment {
        WeakSegment {
            inner: Arc::downgrade(&segment.inner),
        }
    }

    /// Returns the segment if it is still mapped.
    pub(crate) fn upgrade(&self) -> Option<Segment> {
        self.inner.upgrade().map(|inner| Segment { inner })
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Segment");
        #[cfg(not(loom))]
        fields.field("name", &self.name());
        fields
            .field("capacity", &self.capacity())
            .field("seats", &self.seats())
            .field("arrays", &self.arrays())
            .finish()
    }
}
