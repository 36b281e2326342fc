//! This process's own description of a segment's file, and all that depends on it: the file of the
//! mapping, the locks of the seats, the membership of a name.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{DupFlags, Errno};

use super::membership::{self, Membership};
use crate::segment::error::SegmentError;
use crate::segment::os::file::{FileId, Kind, os_error, reopen, reopen_with};
use crate::segment::os::lock::SeatLocks;
use crate::segment::os::mapping::{Mapping, map_error};

/// A descriptor, and the identity of its file. A program may close the descriptor unnoticed, as
/// daemons close all of theirs, and then reuse its number for another file.
struct Numbered {
    fd: ManuallyDrop<OwnedFd>,
    file: Option<FileId>,
}

impl Numbered {
    fn is_ours(&self) -> bool {
        self.file.is_some() && self.file == FileId::of_fd(self.fd.as_fd())
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

/// This process's own description of a segment's file.
pub(crate) struct Description {
    // Closed before `membership` drops: our own lock would prevent the removal of the name.
    fd: Numbered,
    pub(crate) kind: Kind,
    pub(crate) seats: SeatLocks,
    pub(crate) membership: Option<Membership>,
}

impl Description {
    pub(crate) fn new(
        fd: OwnedFd,
        kind: Kind,
        seats: u32,
        membership: Option<Membership>,
    ) -> Description {
        let file = FileId::of_fd(fd.as_fd());
        let fd = ManuallyDrop::new(fd);
        Description {
            fd: Numbered { fd, file },
            kind,
            seats: SeatLocks::new(seats),
            membership,
        }
    }

    /// Adapts to a geometry chosen by another process. Runs before any seat is locked.
    pub(crate) fn resize_seats(&mut self, seats: u32) {
        self.seats = SeatLocks::new(seats);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.fd.as_fd()
    }

    /// Returns the identity of the segment's file, if it could be read.
    pub(crate) fn file(&self) -> Option<FileId> {
        self.fd.file
    }

    /// Returns the descriptor if it still belongs to the segment's file. Locking or filling a
    /// foreign file would be worse than an error.
    pub(crate) fn checked_fd(&self) -> Result<BorrowedFd<'_>, SegmentError> {
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
    pub(crate) fn rebind(&self, mapping: &Mapping, bytes: u64) -> Result<(), SegmentError> {
        let own = reopen(self.checked_fd()?)?;
        // Become a member by the new description before the old one ends, so the name always has a
        // member.
        if self.kind == Kind::Limited && !membership::enter(own.as_fd())? {
            return Err(membership::lock_error(Errno::AGAIN));
        }
        mapping
            .rebind(own.as_fd())
            .map_err(|errno| map_error(errno, bytes))?;
        self.replace(&own)?;
        self.seats.forget_all();
        Ok(())
    }

    /// Puts another description of the segment's file under the descriptor's number. The number
    /// stays valid for all that borrow it.
    fn replace(&self, other: &OwnedFd) -> Result<(), SegmentError> {
        // SAFETY: the number is that of `self.fd`, which is open and stays so: `dup3` replaces its
        // file in one step, and `ManuallyDrop` keeps the alias from closing it.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.fd().as_raw_fd()) });
        rustix::io::dup3(other, &mut number, DupFlags::CLOEXEC)
            .map_err(|errno| os_error("dup3", "the segment", errno))
    }

    /// Attempts to take the lock of a seat. Returns `false` if it is held.
    pub(crate) fn try_lock_seat(&self, index: usize) -> Result<bool, SegmentError> {
        self.seats
            .try_lock(self.checked_fd()?, index)
            .map_err(|errno| os_error("fcntl(F_OFD_SETLK)", "a seat", errno))
    }

    pub(crate) fn is_seat_locked(&self, index: usize) -> Result<bool, SegmentError> {
        self.seats
            .is_locked(self.checked_fd()?, index)
            .map_err(|errno| os_error("fcntl(F_OFD_GETLK)", "a seat", errno))
    }

    /// Exchanges the mapping for a private one: this process's stores stay its own. Returns the
    /// description of the private mapping, which can only read and has no lock.
    pub(crate) fn make_private(
        &self,
        mapping: &Mapping,
        bytes: u64,
    ) -> Result<OwnedFd, SegmentError> {
        let reader = reopen_with(self.checked_fd()?, OFlags::RDONLY | OFlags::CLOEXEC)?;
        mapping
            .make_private(reader.as_fd())
            .map_err(|errno| map_error(errno, bytes))?;
        Ok(reader)
    }

    /// Gives up the description, with its locks, and removes the name if no process is left. A
    /// child that was forked and has not bound the segment yet keeps the locks. The mapping is
    /// private.
    pub(crate) fn give_up(&self, reader: &OwnedFd) -> Result<(), SegmentError> {
        self.replace(reader)?;
        if let Some(member) = &self.membership {
            member.remove_if_last();
        }
        Ok(())
    }
}
