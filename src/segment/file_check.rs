//! Checks of the files that may hold a segment. Every call that joins or observes an existing
//! segment checks its file here before it maps a byte.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Stat;
use rustix::io::Errno;

use super::anonymous::SIZE_SEALS;
use super::description::{self, Kind};
use super::named;
use super::options::SegmentOptions;
use crate::segment::error::SegmentError;

/// The type of hugetlbfs, as `statfs` reports it.
const HUGETLBFS: u64 = 0x9584_58f6;

/// Checks the file behind a name.
///
/// Refuses a file on hugetlbfs: the first access to a page raises SIGBUS if the system's reserve of
/// huge pages is empty. The owner of a regular file can still truncate it, even if trusted; see
/// `guide::trust`.
pub(super) fn check_named(
    fd: BorrowedFd<'_>,
    name: &str,
    options: &SegmentOptions,
) -> Result<Stat, SegmentError> {
    let stat =
        rustix::fs::fstat(fd).map_err(|errno| description::os_error("fstat", name, errno))?;
    named::check_owner(name, &stat, options)?;
    named::check_regular(name, &stat)?;
    check_file_system(fd, name)?;
    Ok(stat)
}

/// Properties of the file behind a passed descriptor.
pub(super) struct Passed {
    pub(super) kind: Kind,
    pub(super) stat: Stat,
    /// The path that the system shows for the file.
    pub(super) path: String,
}

/// Checks the file behind a descriptor, whatever its origin. Accepts a memfd of ordinary pages with
/// a sealed size, or a shared memory object that meets the rules of a name.
pub(super) fn check_passed(
    fd: BorrowedFd<'_>,
    what: &str,
    options: &SegmentOptions,
) -> Result<Passed, SegmentError> {
    let failed = |call| move |errno| description::os_error(call, what, errno);
    let stat = rustix::fs::fstat(fd).map_err(failed("fstat"))?;
    let seals = match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) => seals,
        Err(Errno::INVAL) => {
            return Err(SegmentError::NotOurs {
                what: what.into(),
                problem: "neither a memfd nor a shared memory object",
                header: description::header_word(fd, 0).unwrap_or(0),
                size: stat.st_size as u64,
            });
        }
        Err(errno) => return Err(failed("fcntl(F_GET_SEALS)")(errno)),
    };
    check_file_system(fd, what)?;
    let path = rustix::fs::readlink(description::proc_path(fd.as_fd()), Vec::new())
        .map_err(failed("readlink"))?;
    let path = path.to_string_lossy().into_owned();
    let kind = match path.starts_with("/memfd:") {
        true if seals.contains(SIZE_SEALS) => Kind::Memfd,
        true => return Err(SegmentError::NotSealed),
        false => {
            check_named(fd, path.strip_prefix(named::DIR).unwrap_or(&path), options)?;
            Kind::Limited
        }
    };
    Ok(Passed { kind, stat, path })
}

fn check_file_system(fd: BorrowedFd<'_>, what: &str) -> Result<(), SegmentError> {
    let fs =
        rustix::fs::fstatfs(fd).map_err(|errno| description::os_error("fstatfs", what, errno))?;
    // The magic numbers have 32 bits.
    match fs.f_type as u64 & 0xffff_ffff {
        HUGETLBFS => Err(SegmentError::Hugetlb {
            what: what.into(),
            page: fs.f_bsize as u64,
        }),
        _ => Ok(()),
    }
}
