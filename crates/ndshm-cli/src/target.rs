//! Finds the segment that the command line names, and formats the names of arrays.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use ndshm::error::SegmentError;
use ndshm::inspect::ArrayInfo;
use ndshm::{AnyHandle, Observer, Segment, SegmentOptions};
use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;

use crate::output::{Failure, escaped};
use crate::path;

/// Directory of named segments.
pub const SHM: &str = "/dev/shm/";

/// Time to wait for a segment that another process is creating.
const PATIENCE: Duration = Duration::from_millis(200);

/// A segment, as given on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A named segment.
    Named(String),
    /// A descriptor of a process.
    Descriptor {
        /// The process id.
        pid: u32,
        /// The descriptor's number in that process.
        fd: u32,
    },
}

impl Place {
    /// Parses `PID:FD` or a name. A name of that form is written as its path, `/dev/shm/1:2`.
    pub fn parse(text: &str) -> Place {
        if let Some(name) = text.strip_prefix(SHM) {
            return Place::Named(name.into());
        }
        let number = |text: &str| -> Option<u32> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        match text.split_once(':') {
            Some((pid, fd)) => match (number(pid), number(fd)) {
                (Some(pid), Some(fd)) => Place::Descriptor { pid, fd },
                _ => Place::Named(text.into()),
            },
            None => Place::Named(text.into()),
        }
    }

    /// Opens the segment as an observer, of any owner, if this user may read it.
    pub fn observe(&self) -> Result<Observer, Failure> {
        match self {
            Place::Named(name) => {
                let metadata = std::fs::symlink_metadata(format!("{SHM}{name}"));
                let options = match metadata {
                    Ok(metadata) => trusting(&metadata),
                    // `observe` below reports why the segment cannot be opened.
                    Err(_) => Segment::options(),
                };
                Ok(options.open_timeout(PATIENCE).observe(name)?)
            }
            Place::Descriptor { .. } => Ok(Observer::from_fd(self.descriptor(OFlags::RDONLY)?)?),
        }
    }

    /// Opens the segment as a participant.
    pub fn enter(&self) -> Result<Segment, Failure> {
        match self {
            Place::Named(name) => Ok(Segment::options().open_timeout(PATIENCE).open(name)?),
            Place::Descriptor { .. } => Ok(Segment::from_fd(self.descriptor(OFlags::RDWR)?)?),
        }
    }

    /// Opens the segment's file for reading.
    pub fn file(&self) -> Result<File, Failure> {
        match self {
            Place::Named(name) if name.contains('/') => Err(SegmentError::Name {
                name: name.into(),
                problem: "it contains a slash",
            }
            .into()),
            Place::Named(name) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                match rustix::fs::open(format!("{SHM}{name}"), flags, Mode::empty()) {
                    Ok(fd) => Ok(fd.into()),
                    Err(Errno::NOENT) => Err(SegmentError::NotFound { name: name.into() }.into()),
                    Err(errno) => Err(Failure::refused(format_args!("{SHM}{name}: {errno}"))),
                }
            }
            Place::Descriptor { .. } => Ok(self.descriptor(OFlags::RDONLY)?.into()),
        }
    }

    /// Opens a new file description of a process's memfd. Refuses other files, because they could
    /// be truncated below our mapping.
    fn descriptor(&self, flags: OFlags) -> Result<OwnedFd, Failure> {
        let path = self.to_string();
        let Place::Descriptor { pid, fd } = self else {
            return Err(Failure::usage(format_args!("{path} is not PID:FD")));
        };
        let opened = rustix::fs::open(
            format!("/proc/{pid}/fd/{fd}"),
            // NONBLOCK: if the descriptor is a pipe, the open must not wait.
            flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        );
        let file = match opened {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                return Err(Failure::not_found(format_args!(
                    "there is no process {pid}, or it has no descriptor {fd}"
                )));
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(Failure::refused(format_args!(
                    "descriptor {fd} of process {pid} may not be opened: run this as its user, or \
                     as root"
                )));
            }
            Err(errno) => return Err(Failure::refused(format_args!("{path}: {errno}"))),
        };
        match is_sealed(file.as_fd()) {
            true => Ok(file),
            false => Err(Failure::damaged(format_args!(
                "descriptor {fd} of process {pid} does not belong to an anonymous segment"
            ))),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Named(name) => f.write_str(name),
            Place::Descriptor { pid, fd } => write!(f, "{pid}:{fd}"),
        }
    }
}

/// Returns options that accept the file with its owner and mode, whatever they are.
pub fn trusting(metadata: &Metadata) -> SegmentOptions {
    Segment::options()
        .owner(metadata.uid())
        .mode(metadata.mode() & 0o777)
}

/// Returns `true` if nobody can shrink the file. All anonymous segments are sealed so.
pub fn is_sealed(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// Formats an array's handle with its names: `ndshm:0000000700000003 (weights)`.
///
/// Omits the names if they cannot be read; `show` reports that.
pub fn called(observer: &Observer, handle: AnyHandle) -> String {
    let paths = path::all(observer).unwrap_or_default();
    match paths.get(&handle.to_bits()) {
        None => handle.to_string(),
        Some(names) => format!("{handle} ({})", escaped(&names.join(", "))),
    }
}

/// Warns on standard error if a process is writing the array: the printed contents may be torn.
pub fn warn_of_writer(observer: &Observer, info: &ArrayInfo) {
    if let Some(pid) = info.writer {
        // Ignore the result: there is no other place to report a failed write.
        let _ = writeln!(
            io::stderr(),
            "ndshm: process {pid} is writing {}: the contents may be torn",
            called(observer, info.handle)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_are_a_descriptor_and_all_else_a_name() {
        let named = |name: &str| Place::Named(name.into());
        assert_eq!(Place::parse("12:3"), Place::Descriptor { pid: 12, fd: 3 });
        assert_eq!(Place::parse("/dev/shm/12:3"), named("12:3"));
        for name in [
            "",
            "x",
            "12",
            ":",
            "12:",
            ":3",
            "+1:2",
            "12:3:4",
            "99999999999:1",
        ] {
            assert_eq!(Place::parse(name), named(name));
        }
    }
}
