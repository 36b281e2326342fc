//! The parts of a mapped segment.

use super::description::Description;
use crate::memory::Memory;
use crate::segment::id::SegmentId;
use crate::segment::in_process::PrivateSeats;
use crate::segment::os::mapping::Mapping;

/// The place of a segment's bytes.
pub(crate) enum Backing {
    File(Description),
    InProcess(PrivateSeats),
}

/// A segment that is mapped and initialized.
pub(crate) struct Parts {
    pub(crate) memory: Memory,
    pub(crate) mapping: Mapping,
    pub(crate) backing: Backing,
    pub(crate) key: u64,
    pub(crate) id: SegmentId,
}
