//! Segments opened by a descriptor that was inherited over an exec or sent through a socket.

use std::os::fd::{AsFd, OwnedFd};

use super::description::{self, Kind};
use super::file_check;
use super::named::{self, FileId, Patience};
use super::open::{self, Opened, Parts};
use super::options::SegmentOptions;
use crate::segment::error::SegmentError;

const WHAT: &str = "the descriptor";

/// Opens the segment behind `passed` through its own description, and closes `passed`, which may
/// belong to another process's description.
pub(super) fn attach(passed: OwnedFd, options: &SegmentOptions) -> Result<Parts, SegmentError> {
    let fd = description::reopen(passed.as_fd())?;
    drop(passed);
    let file = file_check::check_passed(fd.as_fd(), WHAT, options)?;
    let member = match file.kind {
        Kind::Memfd => None,
        Kind::Limited => {
            let name = file.path.strip_prefix(named::DIR).unwrap_or(&file.path);
            let mut patience = Patience::new(options.open_timeout);
            while !description::enter_gate(fd.as_fd())? {
                if !patience.wait() {
                    return Err(patience.unsettled(name));
                }
            }
            let id = FileId::of(&file.stat);
            // If the file no longer has its name, there is no name to remove later.
            let named = named::check_name(name).is_ok() && named::resolves_to(name, id);
            named.then_some((name, id))
        }
    };
    match open::open_file(fd, file.kind, member, WHAT, options)? {
        Opened::Ready(parts) => Ok(*parts),
        Opened::Unfinished { size } => Err(SegmentError::NotOurs {
            what: WHAT.into(),
            problem: "it is not initialized",
            header: 0,
            size,
        }),
    }
}
