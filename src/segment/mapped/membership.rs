//! Membership of a named segment: a shared lock on the file, which decides which process removes
//! the name.
//!
//! Every process in a named segment holds a shared membership lock on its file, and joins only
//! while the name resolves to that file. A leaving process first closes its description, then
//! attempts to take the lock exclusively. It gets the lock only if no process is in the segment,
//! and no process joins while the lock is held. So of two processes that leave at once the later
//! one gets the lock, and no process stays in a file that has lost its name.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::layout::Header;
use crate::segment::error::SegmentError;
use crate::segment::os::file::{FileId, header_word, open_file, os_error, path, resolves_to};
use crate::segment::os::lock;

/// Takes the membership lock together with other members. Returns `false` while another process
/// holds it exclusively.
pub(crate) fn enter(fd: BorrowedFd<'_>) -> Result<bool, SegmentError> {
    lock::share_membership(fd).map_err(lock_error)
}

/// Returns the error for a failed call on the membership lock.
pub(crate) fn lock_error(errno: Errno) -> SegmentError {
    os_error("fcntl(F_OFD_SETLK)", "the membership lock", errno)
}

/// Membership of this process in a named segment. It is dropped after the description is closed,
/// and then removes the name if no member is left.
pub(crate) struct Membership {
    pub(crate) name: String,
    id: FileId,
}

impl Membership {
    pub(crate) fn new(name: &str, id: FileId) -> Membership {
        Membership {
            name: name.into(),
            id,
        }
    }

    /// Removes the name if no member is left. Runs after this process's description has ended.
    pub(crate) fn remove_if_last(&self) {
        // On failure the name stays; the next process that opens it joins the segment.
        let _ = remove_if_unused(&self.name, |file| file.id == self.id && !file.persistent);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.remove_if_last();
    }
}

/// A file without members. The caller holds its membership lock exclusively.
pub(crate) struct Unused {
    pub(crate) id: FileId,
    pub(crate) stat: Stat,
    pub(crate) size: u64,
    pub(crate) header: u64,
    pub(crate) persistent: bool,
}

/// Removes the name if its file has no member and meets `condition`. Returns `true` if removed.
pub(crate) fn remove_if_unused(
    name: &str,
    condition: impl Fn(&Unused) -> bool,
) -> Result<bool, Errno> {
    let fd = open_file(name)?;
    // While we hold the lock exclusively, no process joins, and no other process removes the name.
    // So the checks below stay valid until the removal.
    if !lock::close_membership(fd.as_fd())? {
        return Ok(false);
    }
    let stat = rustix::fs::fstat(&fd)?;
    let file = Unused {
        id: FileId::of(&stat),
        stat,
        size: stat.st_size as u64,
        header: header_word(fd.as_fd(), Header::ALIVE)?,
        persistent: header_word(fd.as_fd(), Header::PERSISTENT)? != 0,
    };
    let removable = resolves_to(name, file.id) && condition(&file);
    if removable {
        rustix::fs::unlink(path(name))?;
    }
    Ok(removable)
}
