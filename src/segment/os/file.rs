//! Files of segments: names, identities, descriptors, and the words at their start.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::Resource;

use crate::segment::error::SegmentError;

/// Directory in which the C library keeps named shared memory.
pub(crate) const DIR: &str = "/dev/shm/";

/// The remedy for a full file system of named segments.
pub(crate) const SHM_REMEDY: &str = "free arrays, remove files there that nobody needs, in Docker \
    pass --shm-size, or remount it larger (mount -o remount,size=... /dev/shm), or use \
    Segment::anonymous";

const MAX_NAME: usize = 250;

/// The kind of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A memfd: limited only by the machine's memory.
    Memfd,
    /// A file on a file system of limited size: its pages are allocated before they are used. Every
    /// process in the segment holds a shared membership lock on the file.
    Limited,
}

/// Identity of the file that a name resolves to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity in the answer of a `stat` call.
    pub(crate) fn of(stat: &Stat) -> FileId {
        FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }

    /// Returns the identity of the file behind a descriptor, if it can be read.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Option<FileId> {
        Some(FileId::of(&rustix::fs::fstat(fd).ok()?))
    }

    /// Returns the number of the file in its file system.
    pub(crate) fn inode(self) -> u64 {
        self.inode
    }
}

/// Refuses names that a segment cannot have.
pub(crate) fn check_name(name: &str) -> Result<(), SegmentError> {
    let problem = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory's",
        name if name.starts_with('/') => "write it without the leading slash",
        name if name.contains('/') => "it contains a slash",
        name if name.contains('\0') => "it contains a NUL byte",
        name if name.len() > MAX_NAME => "it is too long: at most 250 bytes",
        _ => return Ok(()),
    };
    Err(SegmentError::Name {
        name: name.into(),
        problem,
    })
}

/// Returns the path of a name.
pub(crate) fn path(name: &str) -> String {
    format!("{DIR}{name}")
}

/// Returns `true` if the name resolves to this file.
pub(crate) fn resolves_to(name: &str, id: FileId) -> bool {
    rustix::fs::lstat(path(name)).is_ok_and(|stat| FileId::of(&stat) == id)
}

/// Opens the file of a name for reading and writing.
pub(crate) fn open_file(name: &str) -> Result<OwnedFd, Errno> {
    // NONBLOCK: a pipe or device under this name must not block the call.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path(name), flags, Mode::empty())
}

/// Opens a new description of the file behind `fd`. It is closed on exec.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, SegmentError> {
    reopen_with(fd, OFlags::RDWR | OFlags::CLOEXEC)
}

/// Opens a new description of the file behind `fd`.
pub(crate) fn reopen_with(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, SegmentError> {
    let path = proc_path(fd);
    rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| os_error("open", &format!("{path} (is /proc mounted?)"), errno))
}

/// Returns the path under which the system shows the file of a descriptor.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Reads a word of the header or of a table through the descriptor. `index` counts words from the
/// start of the file. Returns 0 beyond the end of the file.
pub(crate) fn header_word(fd: BorrowedFd<'_>, index: usize) -> Result<u64, Errno> {
    let mut bytes = [0u8; 8];
    let read = rustix::io::pread(fd, &mut bytes, index as u64 * 8)?;
    Ok(if read == 8 {
        u64::from_le_bytes(bytes)
    } else {
        0
    })
}

/// Refuses sizes at which `ftruncate` would raise a signal.
pub(crate) fn check_file_size(bytes: u64) -> Result<(), SegmentError> {
    check_size_within(rustix::process::getrlimit(Resource::Fsize).current, bytes)
}

/// Checks like [`check_file_size`], where files may have `limit` bytes.
pub(crate) fn check_size_within(limit: Option<u64>, bytes: u64) -> Result<(), SegmentError> {
    match limit {
        Some(limit) if bytes > limit => Err(SegmentError::FileSize { bytes, limit }),
        _ => Ok(()),
    }
}

/// Returns the free bytes of the file system of named segments.
pub(crate) fn shm_free() -> u64 {
    rustix::fs::statvfs(DIR).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Returns the error for a failed system call on `what`.
pub(crate) fn os_error(call: &'static str, what: &str, errno: Errno) -> SegmentError {
    let what = what.into();
    let limit = match errno {
        Errno::MFILE => rustix::process::getrlimit(Resource::Nofile).current,
        Errno::NFILE => None,
        errno => {
            let source = errno.into();
            return SegmentError::Os { call, what, source };
        }
    };
    SegmentError::Descriptors { call, what, limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::Name;

    #[test]
    fn a_name_is_opened_for_this_program_alone_and_not_through_a_link() {
        let (name, link) = (Name::new("flags"), Name::new("flags-link"));
        std::fs::write(path(&name.0), "").unwrap();
        let fd = open_file(&name.0).unwrap();
        let descriptor = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(descriptor.contains(rustix::io::FdFlags::CLOEXEC));
        let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
        assert!(flags.contains(OFlags::RDWR | OFlags::NONBLOCK));
        std::os::unix::fs::symlink(path(&name.0), path(&link.0)).unwrap();
        assert_eq!(open_file(&link.0).err(), Some(Errno::LOOP));
    }
}
