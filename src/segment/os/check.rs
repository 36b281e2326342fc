//! Checks of the files that may hold a segment. Every call that joins or observes an existing
//! segment checks its file here before it maps a byte.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::file::{self, DIR, Kind, os_error, path};
use super::memfd::SIZE_SEALS;
use crate::segment::error::SegmentError;
use crate::segment::options::SegmentOptions;

/// The type of hugetlbfs, as `statfs` reports it.
const HUGETLBFS: u64 = 0x9584_58f6;

/// The type of memfds and of `/dev/shm`.
const TMPFS: u64 = 0x0102_1994;

/// Checks the file behind a name.
///
/// Refuses a file on hugetlbfs: the first access to a page raises SIGBUS if the system's reserve of
/// huge pages is empty. The owner of a regular file can still truncate it, even if trusted; see
/// `guide::trust`.
pub(crate) fn check_named(
    fd: BorrowedFd<'_>,
    name: &str,
    options: &SegmentOptions,
) -> Result<Stat, SegmentError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| os_error("fstat", name, errno))?;
    check_owner(name, &stat, options)?;
    check_regular(name, &stat)?;
    check_file_system(fd, name)?;
    Ok(stat)
}

/// Properties of the file behind a passed descriptor.
pub(crate) struct Passed {
    pub(crate) kind: Kind,
    pub(crate) stat: Stat,
    /// The path that the system shows for the file.
    pub(crate) path: String,
}

/// Refuses a descriptor of anything but a file in memory. Runs before the file is opened anew: to
/// open a device or a pipe may wait or have effects, and so may a file whose system is a program.
pub(crate) fn check_memory(fd: BorrowedFd<'_>, what: &str) -> Result<(), SegmentError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| os_error("fstat", what, errno))?;
    let fs = rustix::fs::fstatfs(fd).map_err(|errno| os_error("fstatfs", what, errno))?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match (regular, fs.f_type as u64 & 0xffff_ffff) {
        (true, TMPFS | HUGETLBFS) => Ok(()),
        // Not read: a device could wait, or lose what is read.
        _ => Err(not_memory(what, 0, stat.st_size as u64)),
    }
}

fn not_memory(what: &str, header: u64, size: u64) -> SegmentError {
    SegmentError::NotOurs {
        what: what.into(),
        problem: "neither a memfd nor a shared memory object",
        header,
        size,
    }
}

/// Checks the file behind a descriptor, whatever its origin. Accepts a memfd of ordinary pages with
/// a sealed size, or a shared memory object that meets the rules of a name.
pub(crate) fn check_passed(
    fd: BorrowedFd<'_>,
    what: &str,
    options: &SegmentOptions,
) -> Result<Passed, SegmentError> {
    let failed = |call| move |errno| os_error(call, what, errno);
    let stat = rustix::fs::fstat(fd).map_err(failed("fstat"))?;
    let seals = match rustix::fs::fcntl_get_seals(fd) {
        Ok(seals) => seals,
        Err(Errno::INVAL) => {
            let header = file::header_word(fd, 0).unwrap_or(0);
            return Err(not_memory(what, header, stat.st_size as u64));
        }
        Err(errno) => return Err(failed("fcntl(F_GET_SEALS)")(errno)),
    };
    check_file_system(fd, what)?;
    let path = rustix::fs::readlink(file::proc_path(fd.as_fd()), Vec::new())
        .map_err(failed("readlink"))?;
    let path = path.to_string_lossy().into_owned();
    let kind = match path.starts_with("/memfd:") {
        true if seals.contains(SIZE_SEALS) => Kind::Memfd,
        true => return Err(SegmentError::NotSealed),
        false => {
            check_named(fd, path.strip_prefix(DIR).unwrap_or(&path), options)?;
            Kind::Limited
        }
    };
    Ok(Passed { kind, stat, path })
}

/// Refuses a file that another user owns or may write to, unless the options allow it.
pub(crate) fn check_owner(
    name: &str,
    stat: &Stat,
    options: &SegmentOptions,
) -> Result<(), SegmentError> {
    let mode = stat.st_mode & 0o777;
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    let trusted = own || options.owner == Some(stat.st_uid);
    if !trusted || mode & 0o022 & !options.mode != 0 {
        return Err(SegmentError::PermissionMismatch {
            name: name.into(),
            uid: stat.st_uid,
            mode,
        });
    }
    Ok(())
}

/// Refuses directories, pipes and other special files under a segment's name.
pub(crate) fn check_regular(name: &str, stat: &Stat) -> Result<(), SegmentError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(SegmentError::NotOurs {
            what: path(name),
            problem: "it is not a shared memory object",
            header: 0,
            size: stat.st_size as u64,
        }),
    }
}

fn check_file_system(fd: BorrowedFd<'_>, what: &str) -> Result<(), SegmentError> {
    let fs = rustix::fs::fstatfs(fd).map_err(|errno| os_error("fstatfs", what, errno))?;
    // The magic numbers have 32 bits.
    match fs.f_type as u64 & 0xffff_ffff {
        HUGETLBFS => Err(SegmentError::Hugetlb {
            what: what.into(),
            page: fs.f_bsize as u64,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::small;

    #[test]
    fn only_users_that_the_options_name_are_trusted() {
        let user = rustix::process::geteuid().as_raw();
        let of = |uid| {
            let mut stat = rustix::fs::stat(DIR).unwrap();
            (stat.st_uid, stat.st_mode) = (uid, 0o100_600);
            stat
        };
        let check =
            |uid: u32, options: SegmentOptions| check_owner("a", &of(uid), &options).is_ok();
        assert!(check(user, small()) && check(user, small().owner(user + 1)));
        assert!(!check(user + 1, small()) && check(user + 1, small().owner(user + 1)));
        assert!(!check(user + 2, small().owner(user + 1)));
    }
}
