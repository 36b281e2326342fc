//! Segments that another process has open, found through `/proc`.

use std::io::ErrorKind;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::passed;
use crate::segment::error::SegmentError;
use crate::segment::id::PeerAddress;
use crate::segment::mapped::backing::Parts;
use crate::segment::options::SegmentOptions;
use crate::segment::os::file::os_error;

/// Opens the segment that the address names, if the descriptor leads to the segment with its id.
pub(super) fn attach(
    address: &PeerAddress,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    let address = *address;
    let denied = |source| SegmentError::PeerDenied { address, source };
    let path = format!("/proc/{}/fd/{}", address.pid(), address.fd());
    // PATH: the descriptor may be that of a device by now, and to open a device may start
    // something. What we get stays the same file, whatever becomes of the process and of its
    // number.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::SRCH) => return Err(SegmentError::NoPeer { address }),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => return Err(denied(errno.into())),
        Err(errno) => return Err(os_error("open", &path, errno)),
    };
    match passed::attach_checked(fd, Some(address.id()), &path, options) {
        // The file itself belongs to another user.
        Err(SegmentError::Os {
            call: "open",
            source,
            ..
        }) if source.kind() == ErrorKind::PermissionDenied => Err(denied(source)),
        outcome => outcome,
    }
}
