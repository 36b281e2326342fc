//! Observed segments: mapped read-only, without a lock and without a membership of the name.

mod contents;
mod tables;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::geometry::geometry_in;
use super::options::SegmentOptions;
use super::os::check;
use super::os::file::{check_name, header_word, os_error, path, proc_path};
use super::os::lock;
use super::os::retry::RetryDeadline;
use crate::layout::{Header, Layout};
use crate::memory::Memory;
use crate::segment::error::SegmentError;
use crate::sync::Ordering;
use contents::Contents;
use tables::Tables;

/// A segment mapped read-only, as far as it is in use.
pub(crate) struct Observed {
    tables: Tables,
    contents: Contents,
    fd: OwnedFd,
}

impl Observed {
    /// Returns the tables with all current slots. Leaves out the newest if there is no address
    /// space for them, see [`reach`](Observed::reach).
    pub(crate) fn memory(&self) -> &Memory {
        self.reach().unwrap_or_else(|_| self.tables.memory())
    }

    /// Returns the tables with all current slots.
    pub(crate) fn reach(&self) -> Result<&Memory, SegmentError> {
        self.tables.grown(self.fd.as_fd())
    }

    /// Returns the address of `len` bytes at `offset` of the data region. The range must be within
    /// it.
    pub(crate) fn contents(&self, offset: u64, len: u64) -> Result<NonNull<u8>, SegmentError> {
        let layout = self.tables.memory().layout();
        let at = layout.data + offset;
        self.contents.at(self.fd.as_fd(), at, len, layout.total)
    }

    /// Returns the number that handles are xored with; 0 while there are no handles.
    pub(crate) fn key(&self) -> u64 {
        self.tables.memory().header()[Header::KEY].load(Ordering::Relaxed)
    }

    /// Fills `out` with the bytes of the file from `offset` on. Does not touch the mapping.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match rustix::io::pread(&self.fd, &mut out[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Returns `true` if a process is in the segment of a name.
    pub(crate) fn has_members(&self) -> Result<bool, SegmentError> {
        lock::has_members(self.fd.as_fd())
            .map_err(|errno| os_error("fcntl(F_OFD_GETLK)", "the membership lock", errno))
    }

    /// Returns `true` if the participant of the seat is alive.
    pub(crate) fn is_alive(&self, seat: usize) -> Result<bool, SegmentError> {
        lock::is_locked(self.fd.as_fd(), seat)
            .map_err(|errno| os_error("fcntl(F_OFD_GETLK)", "a seat", errno))
    }
}

/// Observes the segment of this name. Waits until it is initialized, up to the open timeout.
pub(crate) fn by_name(name: &str, options: &SegmentOptions) -> Result<Observed, SegmentError> {
    check_name(name)?;
    let path = path(name);
    let mut deadline = RetryDeadline::new(options.open_timeout);
    loop {
        // NONBLOCK: a pipe or device under this name must not block the call.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(SegmentError::NotFound { name: name.into() }),
            Err(errno) => return Err(os_error("open", &path, errno)),
        };
        let stat = check::check_named(fd.as_fd(), name, options)?;
        match map(fd, name)? {
            Some(observed) => return Ok(observed),
            None if deadline.wait() => {}
            None => {
                return Err(SegmentError::NotInitialized {
                    name: name.into(),
                    size: stat.st_size as u64,
                    waited: options.open_timeout,
                });
            }
        }
    }
}

/// Observes the segment behind a descriptor, which may be read-only.
pub(crate) fn by_descriptor(
    passed: OwnedFd,
    options: &SegmentOptions,
) -> Result<Observed, SegmentError> {
    const WHAT: &str = "the descriptor";
    let path = proc_path(passed.as_fd());
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| os_error("open", &path, errno))?;
    drop(passed);
    let size = check::check_passed(fd.as_fd(), WHAT, options)?.stat.st_size as u64;
    map(fd, WHAT)?.ok_or_else(|| SegmentError::NotOurs {
        what: WHAT.into(),
        problem: "it is not initialized",
        header: 0,
        size,
    })
}

/// Maps a file; `None` if the segment is not initialized yet.
fn map(fd: OwnedFd, what: &str) -> Result<Option<Observed>, SegmentError> {
    let failed = |call| move |errno| os_error(call, what, errno);
    let header = header_word(fd.as_fd(), Header::ALIVE).map_err(failed("pread"))?;
    if header == 0 {
        return Ok(None);
    }
    // After the header: a creator sets the size first.
    let size = rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size as u64;
    let geometry = geometry_in(header, size, what)?;
    let layout = Layout::new(geometry);
    let first = (layout.spans / 8) as usize;
    // An unreadable entry counts as empty here; the mapping shows it again.
    let is_carved = |span| header_word(fd.as_fd(), first + span).is_ok_and(|entry| entry != 0);
    let tables = Tables::map(fd.as_fd(), &layout, is_carved)?;
    Ok(Some(Observed {
        tables,
        contents: Contents::default(),
        fd,
    }))
}

#[cfg(test)]
mod tests;
