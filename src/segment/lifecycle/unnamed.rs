//! Segments without a name: a memfd, or memory of this process.

use super::initialize;
use crate::layout::Layout;
use crate::segment::error::SegmentError;
use crate::segment::geometry::{IN_PROCESS_CAPACITY, SHARED_CAPACITY, make_largest};
use crate::segment::mapped::backing::Parts;
use crate::segment::mapped::description::Description;
use crate::segment::options::SegmentOptions;
use crate::segment::os::file::Kind;
use crate::segment::os::memfd;

/// Creates a memfd of the largest geometry that can be mapped.
pub(super) fn anonymous(options: &SegmentOptions) -> Result<Parts, SegmentError> {
    let geometries = options.geometries(SHARED_CAPACITY)?;
    let (fd, mapping, geometry) = make_largest(geometries, |geometry| {
        let (fd, mapping) = memfd::make_sized(Layout::new(geometry).total)?;
        Ok((fd, mapping, geometry))
    })?;
    // The description is already our own: no other process has it yet.
    let fd = Description::new(fd, Kind::Memfd, geometry.seats, None);
    initialize::initialize(fd, mapping, geometry, 0, options.pinned, "the memfd")
}

/// Creates a segment of the largest geometry that fits into this process's address space.
pub(super) fn in_process(options: &SegmentOptions) -> Result<Parts, SegmentError> {
    make_largest(options.geometries(IN_PROCESS_CAPACITY)?, |geometry| {
        initialize::in_process(geometry, options.pinned)
    })
}
