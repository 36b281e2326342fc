//! Segments: where the shared memory comes from, and how a process gets into it and out again.

#[cfg(not(loom))]
mod anonymous;
#[cfg(not(loom))]
mod commit;
#[cfg(not(loom))]
mod description;
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
#[cfg_attr(miri, path = "heap.rs")]
mod mapping;
#[cfg(not(loom))]
mod memory;
#[cfg(loom)]
mod model;
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
#[cfg(loom)]
mod races;
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

use std::fmt;
use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use huge::Touched;
#[cfg(not(loom))]
pub use huge::{HugePageReport, HugePages};
#[cfg(not(loom))]
pub(crate) use memory::{Access, Memory};
#[cfg(loom)]
pub(crate) use model::Memory;
pub use options::SegmentOptions;
#[cfg(loom)]
pub use races::Access;
#[cfg(loom)]
pub(crate) use races::put_down_to;
#[cfg(not(loom))]
pub use remove::Removal;
#[cfg(loom)]
use scripted::Inner;
#[cfg(loom)]
pub(crate) use scripted::fork;
#[cfg(not(loom))]
use shared::Inner;

use crate::layout::Header;
use crate::sync::Ordering;

/// One contiguous shared mapping that holds a table of arrays.
///
/// A clone is another reference to the same mapping; the mapping ends with the last one. A process
/// usually has one segment, and every [`HandleTable`](crate::HandleTable) of it is a participant.
///
/// The segment reserves address space, by default 16 TiB, and no memory: pages are taken when
/// arrays need them.
///
/// | made by | shared with | limited by | ends with |
/// |---|---|---|---|
/// | [`anonymous`](Segment::anonymous) | forked children, whoever gets the descriptor | the machine's memory | the last process that has it |
/// | [`create`](Segment::create) | processes of the same user that know the name | the size of `/dev/shm` | the last process, unless it persists |
/// | [`in_process`](Segment::in_process) | threads | the machine's memory | the process |
#[derive(Clone)]
pub struct Segment {
    inner: Arc<Inner>,
}

impl Segment {
    /// Options for making or opening a segment that is not like the default.
    pub fn options() -> SegmentOptions {
        SegmentOptions::new()
    }

    /// Bytes for the contents of all arrays together.
    pub fn capacity(&self) -> u64 {
        self.memory().layout().geometry.capacity
    }

    /// How many participants there can be at once.
    pub fn seats(&self) -> u32 {
        self.memory().layout().geometry.seats
    }

    /// How many arrays there can be at once.
    pub fn arrays(&self) -> u64 {
        self.memory().layout().geometry.slots() as u64
    }

    /// Says whether the name stays when the last participant leaves; without effect on a segment
    /// that has none.
    ///
    /// A persistent segment keeps its arrays, and the memory below them, until the machine
    /// restarts or someone who is in it calls `persist(false)` and leaves last.
    pub fn persist(&self, persistent: bool) {
        let word = &self.memory().header()[Header::PERSISTENT];
        // Who leaves last reads it after it has closed the gate that this process has entered by:
        // the kernel's lock is the order.
        word.store(u64::from(persistent), Ordering::Relaxed);
    }

    /// Whether the name stays when the last participant leaves.
    pub fn is_persistent(&self) -> bool {
        self.memory().header()[Header::PERSISTENT].load(Ordering::Relaxed) != 0
    }

    /// The tables of the mapping.
    #[inline]
    pub(crate) fn memory(&self) -> &Memory {
        self.inner.memory()
    }

    /// The random number that handles of this segment are xored with.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.inner.key()
    }

    /// Bytes of freed extents that may keep their pages.
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
