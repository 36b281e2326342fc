//! Memory without a name: a memfd of sealed size.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::file::{check_file_size, os_error};
use super::mapping::{Mapping, map_error};
use crate::segment::error::SegmentError;

/// The seals that keep every process from truncating the memory below a mapping.
pub(crate) const SIZE_SEALS: SealFlags = SealFlags::GROW.union(SealFlags::SHRINK);

/// Creates a memfd of `size` bytes, maps it, and seals its size.
pub(crate) fn make_sized(size: u64) -> Result<(OwnedFd, Mapping), SegmentError> {
    check_file_size(size)?;
    let failed = |call| move |errno| os_error(call, "an anonymous segment", errno);
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
