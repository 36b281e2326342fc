//! Segments with a POSIX name. The `shared_memory` crate creates the file. A segment is bound through an
//! open file description of its own, with a membership that decides which process removes the name: see
//! `mapped/membership.rs`.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::initialize::{self, Opened};
use super::new_name;
use crate::segment::error::SegmentError;
use crate::segment::mapped::backing::Parts;
use crate::segment::mapped::membership::{self, remove_if_unused};
use crate::segment::options::SegmentOptions;
use crate::segment::os::check;
use crate::segment::os::file::{FileId, Kind, check_name, open_file, os_error, path, resolves_to};
use crate::segment::os::retry::RetryDeadline;

#[cfg(test)]
mod tests;

/// The purpose of a call on a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpenMode {
    Create,
    Open,
    OpenOrCreate,
}

/// Outcome of one attempt to join.
enum Entry {
    Joined(Box<Parts>),
    /// Another process is removing the name, or has removed it.
    Moved,
    Unfinished {
        size: u64,
    },
}

/// Creates or opens the segment of this name.
pub(crate) fn attach(
    name: &str,
    mode: OpenMode,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    attach_by(join, name, mode, options)
}

/// Attaches like [`attach`]. `join` is [`join`], or the step that a test puts in its place.
fn attach_by(
    mut join: impl FnMut(&str, &SegmentOptions) -> Result<Entry, SegmentError>,
    name: &str,
    mode: OpenMode,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    check_name(name)?;
    let mut deadline = RetryDeadline::new(options.open_timeout);
    let mut made = None;
    loop {
        if made.is_none() && mode == OpenMode::Create {
            made = Some(new_name::make(name, options)?);
        }
        let entry = match join(name, options) {
            Err(SegmentError::NotFound { .. }) if mode == OpenMode::OpenOrCreate => {
                match new_name::make(name, options) {
                    Ok(_) | Err(SegmentError::Exists { .. }) => {}
                    Err(error) => return Err(error),
                }
                match join(name, options) {
                    Err(SegmentError::NotFound { .. }) => Entry::Moved,
                    entry => entry?,
                }
            }
            // Our file is gone: another process joined it and left meanwhile.
            Err(SegmentError::NotFound { .. }) if mode == OpenMode::Create => {
                made = None;
                Entry::Moved
            }
            entry => entry?,
        };
        match entry {
            // Another process's segment has taken the place of the one created here.
            Entry::Joined(parts) if made.flatten().is_some_and(|key| key != parts.key) => {
                made = None;
            }
            Entry::Joined(parts) => return Ok(*parts),
            Entry::Moved if deadline.wait() => {}
            Entry::Moved => return Err(deadline.unsettled(name)),
            Entry::Unfinished { .. } if deadline.wait() => {}
            Entry::Unfinished { size } => {
                if mode == OpenMode::Open || !remove_uninitialized(name)? {
                    return Err(SegmentError::NotInitialized {
                        name: name.into(),
                        size,
                        waited: options.open_timeout,
                    });
                }
                made = None;
                deadline = RetryDeadline::new(options.open_timeout);
            }
        }
    }
}

/// Removes the name of a file left by a creator that died before it initialized the segment.
///
/// The file is not finished in place: a creator that was only stopped would later set its own size,
/// and cut off memory that members use. After the removal such a creator finds the name gone, and
/// starts anew.
fn remove_uninitialized(name: &str) -> Result<bool, SegmentError> {
    match remove_if_unused(name, |file| file.header == 0) {
        Err(Errno::NOENT) => Ok(true),
        outcome => outcome.map_err(|errno| os_error("unlink", name, errno)),
    }
}

/// Attempts to join the segment of this name through its own open file description.
fn join(name: &str, options: &SegmentOptions) -> Result<Entry, SegmentError> {
    let fd = match open_file(name) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Err(SegmentError::NotFound { name: name.into() }),
        Err(errno) => {
            if let Ok(stat) = rustix::fs::lstat(path(name)) {
                check::check_owner(name, &stat, options)?;
            }
            return Err(os_error("open", &path(name), errno));
        }
    };
    let stat = check::check_named(fd.as_fd(), name, options)?;
    let id = FileId::of(&stat);
    if !membership::enter(fd.as_fd())? || !resolves_to(name, id) {
        return Ok(Entry::Moved);
    }
    let opened = initialize::open_file(fd, Kind::Limited, Some((name, id)), name, options)?;
    Ok(match opened {
        Opened::Ready(parts) => Entry::Joined(parts),
        Opened::Unfinished { size } => Entry::Unfinished { size },
    })
}
