//! Segments opened by a descriptor that was inherited over an exec or sent through a socket.

use std::os::fd::{AsFd, OwnedFd};

use super::initialize::{self, Opened};
use crate::segment::error::SegmentError;
use crate::segment::mapped::backing::Parts;
use crate::segment::mapped::membership;
use crate::segment::options::SegmentOptions;
use crate::segment::os::check;
use crate::segment::os::file::{DIR, FileId, Kind, check_name, reopen, resolves_to};
use crate::segment::os::retry::RetryDeadline;

const WHAT: &str = "the descriptor";

/// Opens the segment behind `passed` through its own description, and closes `passed`, which may
/// belong to another process's description.
pub(crate) fn attach(passed: OwnedFd, options: &SegmentOptions) -> Result<Parts, SegmentError> {
    let fd = reopen(passed.as_fd())?;
    drop(passed);
    let file = check::check_passed(fd.as_fd(), WHAT, options)?;
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
    match initialize::open_file(fd, file.kind, member, WHAT, options)? {
        Opened::Ready(parts) => Ok(*parts),
        Opened::Unfinished { size } => Err(SegmentError::NotOurs {
            what: WHAT.into(),
            problem: "it is not initialized",
            header: 0,
            size,
        }),
    }
}
