//! This process's own description of a segment's file, and all that depends on it: the file of the
//! mapping, the locks of the seats, the membership of a name.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno};
use rustix::process::Resource;

use super::mapping::{Mapping, map_error};
use super::named::{FileId, Membership};
use super::seat_lock::{self, SeatLocks};
use crate::segment::error::SegmentError;

/// The kind of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A memfd: limited only by the machine's memory.
    Memfd,
    /// A file on a file system of limited size: its pages are allocated before they are used. Every
    /// process in the segment holds a shared lock on the gate of the file.
    Limited,
}

/// A descriptor, and the identity of its file. A program may close the descriptor unnoticed, as
/// daemons close all of theirs, and then reuse its number for another file.
struct Numbered {
    fd: ManuallyDrop<OwnedFd>,
    file: Option<FileId>,
}

impl Numbered {
    fn is_ours(&self) -> bool {
        self.file.is_some() && self.file == file_of(self.fd.as_fd())
    }
}

impl Drop for Numbered {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: it is dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

fn file_of(fd: BorrowedFd<'_>) -> Option<FileId> {
    Some(FileId::of(&rustix::fs::fstat(fd).ok()?))
}

/// This process's own description of a segment's file.
pub(super) struct Description {
    // Closed before `membership` drops: our own lock would prevent the removal of the name.
    fd: Numbered,
    pub(super) kind: Kind,
    pub(super) seats: SeatLocks,
    pub(super) membership: Option<Membership>,
}

impl Description {
    pub(super) fn new(
        fd: OwnedFd,
        kind: Kind,
        seats: u32,
        membership: Option<Membership>,
    ) -> Description {
        let file = file_of(fd.as_fd());
        let fd = ManuallyDrop::new(fd);
        Description {
            fd: Numbered { fd, file },
            kind,
            seats: SeatLocks::new(seats),
            membership,
        }
    }

    /// Adapts to a geometry chosen by another process. Runs before any seat is locked.
    pub(super) fn resize_seats(&mut self, seats: u32) {
        self.seats = SeatLocks::new(seats);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.fd.as_fd()
    }

    /// Returns the descriptor if it still belongs to the segment's file. Locking or filling a
    /// foreign file would be worse than an error.
    pub(super) fn checked_fd(&self) -> Result<BorrowedFd<'_>, SegmentError> {
        match self.fd.is_ours() {
            true => Ok(self.fd()),
            false => Err(SegmentError::Closed {
                number: self.fd().as_raw_fd(),
            }),
        }
    }

    /// Replaces the description that a fork left shared with the parent by one of this process's
    /// own, under the mapping and under the descriptor's number.
    ///
    /// The caller is the only thread that does so.
    pub(super) fn rebind(&self, mapping: &Mapping, bytes: u64) -> Result<(), SegmentError> {
        let own = reopen(self.checked_fd()?)?;
        // Lock the gate with the new description before the old one ends, so the name always has a
        // member.
        if self.kind == Kind::Limited && !enter_gate(own.as_fd())? {
            return Err(os_error("fcntl(F_OFD_SETLK)", "the gate", Errno::AGAIN));
        }
        mapping
            .rebind(own.as_fd())
            .map_err(|errno| map_error(errno, bytes))?;
        // SAFETY: the number is that of `self.fd`, which is open and stays so: `dup3` replaces its
        // file in one step, and `ManuallyDrop` keeps the alias from closing it.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd().as_raw_fd()) });
        rustix::io::dup3(&own, &mut number, DupFlags::CLOEXEC)
            .map_err(|errno| os_error("dup3", "the segment", errno))?;
        self.seats.forget_all();
        Ok(())
    }
}

/// Locks the gate together with other members. Returns `false` while another process holds it
/// exclusively.
pub(super) fn enter_gate(fd: BorrowedFd<'_>) -> Result<bool, SegmentError> {
    seat_lock::enter_gate(fd).map_err(|errno| os_error("fcntl(F_OFD_SETLK)", "the gate", errno))
}

/// Opens a new description of the file behind `fd`. It is closed on exec.
pub(super) fn reopen(fd: BorrowedFd<'_>) -> Result<OwnedFd, SegmentError> {
    reopen_with(fd, OFlags::CLOEXEC)
}

/// Opens a new description of the file behind `fd`.
pub(super) fn reopen_with(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, SegmentError> {
    let path = proc_path(fd);
    rustix::fs::open(&path, OFlags::RDWR | flags, Mode::empty())
        .map_err(|errno| os_error("open", &format!("{path} (is /proc mounted?)"), errno))
}

/// Returns the path under which the system shows the file of a descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Reads a word of the header or of a table through the descriptor. `index` counts words from the
/// start of the file. Returns 0 beyond the end of the file.
pub(super) fn header_word(fd: BorrowedFd<'_>, index: usize) -> Result<u64, Errno> {
    let mut bytes = [0u8; 8];
    let read = rustix::io::pread(fd, &mut bytes, index as u64 * 8)?;
    Ok(if read == 8 {
        u64::from_le_bytes(bytes)
    } else {
        0
    })
}

/// Refuses sizes at which `ftruncate` would raise a signal.
pub(super) fn check_file_size(bytes: u64) -> Result<(), SegmentError> {
    check_size_within(rustix::process::getrlimit(Resource::Fsize).current, bytes)
}

/// Checks like [`check_file_size`], where files may have `limit` bytes.
pub(super) fn check_size_within(limit: Option<u64>, bytes: u64) -> Result<(), SegmentError> {
    match limit {
        Some(limit) if bytes > limit => Err(SegmentError::FileSize { bytes, limit }),
        _ => Ok(()),
    }
}

pub(super) fn os_error(call: &'static str, what: &str, errno: Errno) -> SegmentError {
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
