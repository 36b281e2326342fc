//! Segments that are opened by a descriptor, inherited over an exec or sent through a socket.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::anonymous::SIZE_SEALS;
use super::description::{self, Kind};
use super::named::{self, FileId, Patience};
use super::open::{self, Opened, Parts};
use super::options::SegmentOptions;
use crate::error::SegmentError;

const WHAT: &str = "the descriptor";

/// Opens the segment behind `passed` through a description of our own, and closes `passed`, whose
/// description may be another process's.
pub(super) fn attach(passed: OwnedFd, options: &SegmentOptions) -> Result<Parts, SegmentError> {
    let fd = description::reopen(passed.as_fd())?;
    drop(passed);
    let stat =
        rustix::fs::fstat(&fd).map_err(|errno| description::os_error("fstat", WHAT, errno))?;
    let not_ours = |problem| SegmentError::NotOurs {
        what: WHAT.into(),
        problem,
        header: description::header_word(fd.as_fd(), 0).unwrap_or(0),
        size: stat.st_size as u64,
    };
    let seals = match rustix::fs::fcntl_get_seals(&fd) {
        Ok(seals) => seals,
        Err(Errno::INVAL) => return Err(not_ours("neither a memfd nor a shared memory object")),
        Err(errno) => return Err(description::os_error("fcntl(F_GET_SEALS)", WHAT, errno)),
    };
    let path = rustix::fs::readlink(description::proc_path(fd.as_fd()), Vec::new())
        .map_err(|errno| description::os_error("readlink", WHAT, errno))?;
    let path = path.to_string_lossy();
    let (kind, member) = if path.starts_with("/memfd:") {
        if !seals.contains(SIZE_SEALS) {
            return Err(SegmentError::NotSealed);
        }
        (Kind::Memfd, None)
    } else {
        let name: &str = path.strip_prefix(named::DIR).unwrap_or(&path);
        named::check_owner(name, &stat, options)?;
        let mut patience = Patience::new(options.open_timeout);
        while !description::enter_gate(fd.as_fd())? {
            if !patience.wait() {
                return Err(patience.unsettled(name));
            }
        }
        let id = FileId::of(&stat);
        // A file that has no name any more, or has it elsewhere, has no name to remove either.
        let named = named::check_name(name).is_ok() && named::resolves_to(name, id);
        (Kind::Limited, named.then_some((name, id)))
    };
    match open::open_file(fd, kind, member, WHAT, options)? {
        Opened::Ready(parts) => Ok(*parts),
        Opened::Unfinished { size } => Err(SegmentError::NotOurs {
            what: WHAT.into(),
            problem: "nobody has brought it to life",
            header: 0,
            size,
        }),
    }
}
