//! Segments without a name: a sealed memfd.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::description::{self, Description, Kind};
use super::mapping::{Mapping, map_error};
use super::open::{self, Parts};
use super::options::{SHARED_CAPACITY, SegmentOptions};
use crate::layout::Layout;
use crate::segment::error::SegmentError;

/// The seals that keep every process from truncating the memory below a mapping.
pub(super) const SIZE_SEALS: SealFlags = SealFlags::GROW.union(SealFlags::SHRINK);

/// Creates a memfd of the largest geometry that can be mapped, and seals its size.
pub(super) fn make(options: &SegmentOptions) -> Result<Parts, SegmentError> {
    let geometries = options.geometries(SHARED_CAPACITY)?;
    let (fd, mapping, geometry) = open::make_largest(geometries, |geometry| {
        let (fd, mapping) = make_sized(Layout::new(geometry).total)?;
        Ok((fd, mapping, geometry))
    })?;
    // The description is already our own: no other process has it yet.
    let fd = Description::new(fd, Kind::Memfd, geometry.seats, None);
    open::bring_to_life(fd, mapping, geometry, "the memfd")
}

fn make_sized(size: u64) -> Result<(OwnedFd, Mapping), SegmentError> {
    description::check_file_size(size)?;
    let failed = |call| move |errno| description::os_error(call, "an anonymous segment", errno);
    let fd = create().map_err(failed("memfd_create"))?;
    rustix::fs::ftruncate(&fd, size).map_err(failed("ftruncate"))?;
    let mapping = Mapping::of_file(fd.as_fd(), size).map_err(|errno| map_error(errno, size))?;
    rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS | SealFlags::SEAL)
        .map_err(failed("fcntl(F_ADD_SEALS)"))?;
    Ok((fd, mapping))
}

fn create() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Some systems refuse an executable memfd; older ones do not know the flag.
    match rustix::fs::memfd_create("ndshm", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("ndshm", flags),
        outcome => outcome,
    }
}
