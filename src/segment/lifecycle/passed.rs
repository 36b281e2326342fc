//! Segments opened by a descriptor that was inherited over an exec or sent through a socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::initialize::{self, Opened};
use crate::layout::Header;
use crate::segment::error::SegmentError;
use crate::segment::geometry::geometry_in;
use crate::segment::id::SegmentId;
use crate::segment::mapped::backing::Parts;
use crate::segment::mapped::membership;
use crate::segment::options::SegmentOptions;
use crate::segment::os::check;
use crate::segment::os::file::{
    DIR, FileId, Kind, check_name, header_word, os_error, reopen, resolves_to,
};
use crate::segment::os::retry::RetryDeadline;

const WHAT: &str = "the descriptor";

/// Opens the segment behind `passed` through its own description, and closes `passed`, which may
/// belong to another process's description.
pub(crate) fn attach(passed: OwnedFd, options: &SegmentOptions) -> Result<Parts, SegmentError> {
    attach_checked(passed, None, WHAT, options)
}

/// Opens a segment like [`attach`], if it is the one with this id.
pub(super) fn attach_checked(
    passed: OwnedFd,
    id: Option<SegmentId>,
    what: &str,
    options: &SegmentOptions,
) -> Result<Parts, SegmentError> {
    check::check_memory(passed.as_fd(), what)?;
    let fd = reopen(passed.as_fd())?;
    drop(passed);
    let file = check::check_passed(fd.as_fd(), what, options)?;
    if let Some(id) = id {
        check_id(fd.as_fd(), file.stat.st_size as u64, id, what)?;
    }
    let member = match file.kind {
        Kind::Memfd => None,
        Kind::Limited => {
            let name = file.path.strip_prefix(DIR).unwrap_or(&file.path);
            let mut deadline = RetryDeadline::new(options.open_timeout);
            while !membership::enter(fd.as_fd())? {
                if !deadline.wait() {
                    return Err(deadline.unsettled(name));
                }
            }
            let id = FileId::of(&file.stat);
            // If the file no longer has its name, there is no name to remove later.
            let named = check_name(name).is_ok() && resolves_to(name, id);
            named.then_some((name, id))
        }
    };
    match initialize::open_file(fd, file.kind, member, what, options)? {
        Opened::Ready(parts) => Ok(*parts),
        Opened::Unfinished { size } => Err(SegmentError::NotOurs {
            what: what.into(),
            problem: "it is not initialized",
            header: 0,
            size,
        }),
    }
}

/// Refuses a file that is not the segment with this id. Runs before the file is mapped, and before
/// a file of zeros could be initialized.
fn check_id(
    fd: BorrowedFd<'_>,
    size: u64,
    expected: SegmentId,
    what: &str,
) -> Result<(), SegmentError> {
    let word = |index| {
        let word = header_word(fd, index);
        word.map_err(|errno| os_error("pread", what, errno))
    };
    geometry_in(word(Header::ALIVE)?, size, what)?;
    let found = SegmentId::from_bits(word(Header::ID)?);
    match found == expected {
        true => Ok(()),
        false => Err(SegmentError::OtherSegment {
            what: what.into(),
            expected,
            found,
        }),
    }
}
