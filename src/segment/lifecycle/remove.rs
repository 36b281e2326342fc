//! Removal of names that a crash left behind, by the rule, and under the lock, of the last process
//! to leave.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::layout::{Header, SEGMENT_MAGIC};
use crate::segment::error::SegmentError;
use crate::segment::mapped::membership::{Unused, remove_if_unused};
use crate::segment::options::{Removal, SegmentOptions};
use crate::segment::os::check::{check_owner, check_regular};
use crate::segment::os::file::{check_name, header_word, open_file, os_error, path};
use crate::segment::os::retry::RetryDeadline;

/// Removes the name of a segment without members.
pub(crate) fn unused(name: &str, options: &SegmentOptions) -> Result<Removal, SegmentError> {
    remove(name, options, |file| {
        let magic = file.header & 0xffff == u64::from(SEGMENT_MAGIC);
        match magic {
            true if file.persistent && !options.persistent => Ok(false),
            true => Ok(true),
            false if file.header == 0 => Err(SegmentError::NotInitialized {
                name: name.into(),
                size: file.size,
                waited: std::time::Duration::ZERO,
            }),
            false => Err(not_ours(name, file)),
        }
    })
}

/// Removes the name of a file that no process has initialized, as a process that creates the name
/// does.
pub(crate) fn unfinished(name: &str, options: &SegmentOptions) -> Result<Removal, SegmentError> {
    // Wait, because the creator may be about to initialize the file.
    let mut deadline = RetryDeadline::new(options.open_timeout);
    while is_unfinished(name)? && deadline.wait() {}
    remove(name, options, |file| match file.header {
        0 => Ok(true),
        _ => Err(not_ours(name, file)),
    })
}

fn is_unfinished(name: &str) -> Result<bool, SegmentError> {
    check_name(name)?;
    open_file(name)
        .and_then(|fd| header_word(fd.as_fd(), Header::ALIVE))
        .map(|header| header == 0)
        .map_err(|errno| failed(name, errno))
}

fn failed(name: &str, errno: Errno) -> SegmentError {
    match errno {
        Errno::NOENT => SegmentError::NotFound { name: name.into() },
        errno => os_error("open or unlink", &path(name), errno),
    }
}

fn not_ours(name: &str, file: &Unused) -> SegmentError {
    SegmentError::NotOurs {
        what: name.into(),
        problem: match file.header & 0xffff == u64::from(SEGMENT_MAGIC) {
            true => "it is initialized by now; remove it as a segment",
            false => "it starts with something else",
        },
        header: file.header,
        size: file.size,
    }
}

/// Removes the name if `condition` is true for its file. `condition` runs while the file has no
/// members, and no process can join until the removal is over.
fn remove(
    name: &str,
    options: &SegmentOptions,
    condition: impl Fn(&Unused) -> Result<bool, SegmentError>,
) -> Result<Removal, SegmentError> {
    check_name(name)?;
    let verdict = std::cell::Cell::new(Ok(false));
    let removed = remove_if_unused(name, |file| {
        let found = check_owner(name, &file.stat, options)
            .and_then(|()| check_regular(name, &file.stat))
            .and_then(|()| condition(file));
        let go = matches!(found, Ok(true));
        // The file has no members, and the name stays: it is persistent.
        verdict.set(found.map(|go| !go));
        go
    });
    let persists = verdict.into_inner()?;
    match removed {
        Ok(true) => Ok(Removal::Removed),
        Ok(false) if persists => Ok(Removal::Persistent),
        Ok(false) => Ok(Removal::InUse),
        Err(errno) => Err(failed(name, errno)),
    }
}
