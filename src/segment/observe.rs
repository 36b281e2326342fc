//! Segments that are looked at and not entered: mapped to be read only, without a lock or a name's
//! membership.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::description;
use super::mapping::{Mapping, map_error};
use super::memory::Memory;
use super::named::{self, Patience};
use super::open;
use super::options::SegmentOptions;
use super::seat_lock;
use crate::error::SegmentError;
use crate::layout::{Header, Layout};
use crate::sync::Ordering;

/// A segment that is mapped to be read. The fields drop in this order.
pub(crate) struct Observed {
    memory: Memory,
    _mapping: Mapping,
    fd: OwnedFd,
}

impl Observed {
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The number that handles are xored with; 0 while there are no handles.
    pub(crate) fn key(&self) -> u64 {
        self.memory.header()[Header::KEY].load(Ordering::Relaxed)
    }

    /// Fills `out` with the bytes of the file from `offset` on, without touching the mapping.
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

    /// Whether anybody is in the file of a name.
    pub(crate) fn has_members(&self) -> Result<bool, SegmentError> {
        seat_lock::is_gate_held(self.fd.as_fd())
            .map_err(|errno| description::os_error("fcntl(F_OFD_GETLK)", "the gate", errno))
    }

    /// Whether whoever took the seat lives.
    pub(crate) fn is_alive(&self, seat: usize) -> Result<bool, SegmentError> {
        seat_lock::is_locked(self.fd.as_fd(), seat)
            .map_err(|errno| description::os_error("fcntl(F_OFD_GETLK)", "a seat", errno))
    }
}

/// Looks at the segment of this name; waits, as long as the options say, until it is alive.
pub(crate) fn by_name(name: &str, options: &SegmentOptions) -> Result<Observed, SegmentError> {
    named::check_name(name)?;
    let path = named::path(name);
    let mut patience = Patience::new(options.open_timeout);
    loop {
        // NONBLOCK, so that something that is not a file under this name does not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Err(SegmentError::NotFound { name: name.into() }),
            Err(errno) => return Err(description::os_error("open", &path, errno)),
        };
        let stat =
            rustix::fs::fstat(&fd).map_err(|errno| description::os_error("fstat", name, errno))?;
        named::check_owner(name, &stat, options)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        match map(fd, name)? {
            Some(observed) => return Ok(observed),
            None if is_file && patience.wait() => {}
            None => {
                return Err(SegmentError::Unfinished {
                    name: name.into(),
                    size: stat.st_size as u64,
                    waited: options.open_timeout,
                });
            }
        }
    }
}

/// Looks at the segment behind a descriptor, which need not be one for writing.
pub(crate) fn by_descriptor(passed: OwnedFd) -> Result<Observed, SegmentError> {
    const WHAT: &str = "the descriptor";
    let path = description::proc_path(passed.as_fd());
    let fd = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| description::os_error("open", &path, errno))?;
    drop(passed);
    let stat = rustix::fs::fstat(&fd);
    let size = stat.map_or(0, |stat| stat.st_size as u64);
    map(fd, WHAT)?.ok_or_else(|| SegmentError::NotOurs {
        what: WHAT.into(),
        problem: "nobody has brought it to life",
        header: 0,
        size,
    })
}

/// Maps a file; `None` if it is no segment yet.
fn map(fd: OwnedFd, what: &str) -> Result<Option<Observed>, SegmentError> {
    let failed = |call| move |errno| description::os_error(call, what, errno);
    let size = rustix::fs::fstat(&fd).map_err(failed("fstat"))?.st_size as u64;
    let header = description::header_word(fd.as_fd(), Header::ALIVE).map_err(failed("pread"))?;
    if header == 0 {
        return Ok(None);
    }
    let geometry = open::geometry_in(header, size, what)?;
    let mapping =
        Mapping::of_file_read_only(fd.as_fd(), size).map_err(|errno| map_error(errno, size))?;
    // SAFETY: the mapping has the bytes of the layout, for `geometry_in` has compared them with the
    // size of the file; it starts at a page, and lives as long as the `Memory`, in one struct with
    // it. It is not writable: an observer loads words and changes none.
    let memory = unsafe { Memory::new(mapping.base(), Layout::new(geometry)) };
    Ok(Some(Observed {
        memory,
        _mapping: mapping,
        fd,
    }))
}
