//! Errors of creating and opening segments, and of reserving memory for them.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::message::Bytes;
use crate::segment::id::{PeerAddress, SegmentId};

/// Error of creating or opening a segment.
#[derive(Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The capacity is out of range.
    #[error(
        "a capacity of {:#} is out of range: 1 byte to {}",
        Bytes(*capacity),
        Bytes(*max)
    )]
    Capacity {
        /// The requested capacity.
        capacity: u64,
        /// The largest capacity.
        max: u64,
    },
    /// The number of seats is out of range.
    #[error("{seats} seats are out of range: 1 to {max}")]
    Seats {
        /// The requested number.
        seats: u32,
        /// The most seats.
        max: u32,
    },
    /// The number of arrays is out of range.
    #[error("{arrays} arrays are out of range: at most {max}")]
    Arrays {
        /// The requested number.
        arrays: u64,
        /// The most arrays.
        max: u64,
    },
    /// The name is not a valid segment name.
    #[error("invalid segment name {:?}{}: {problem}", head(.name), rest(.name))]
    Name {
        /// The name.
        name: String,
        /// The violated rule, and a valid alternative.
        problem: &'static str,
    },
    /// A segment with this name exists already.
    #[error(
        "a segment named {name:?} exists already: open it, or remove /dev/shm/{name} if it is not \
         needed"
    )]
    Exists {
        /// The name.
        name: String,
    },
    /// There is no segment with this name.
    #[error("there is no segment named {name:?}: create it first, or use open_or_create")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name belongs to another user, or others may write to it.
    #[error(
        "the segment named {name:?} belongs to another user or is writable by others (owner uid \
         {uid}, mode {mode:03o}): use another name, remove the write permission of others, or \
         permit both with the options `owner` and `mode`"
    )]
    PermissionMismatch {
        /// The name.
        name: String,
        /// The owner of the file.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The name or descriptor is not that of a segment of this crate, or the segment is damaged.
    #[error(
        "{what} is not a segment of ndshm: {problem} (first word {header:#018x}, {:#})",
        Bytes(*size)
    )]
    NotOurs {
        /// The name or descriptor.
        what: String,
        /// The check that failed.
        problem: &'static str,
        /// The first word of the file.
        header: u64,
        /// The size of the file.
        size: u64,
    },
    /// The segment was created by a version of this crate with another layout.
    #[error(
        "{what} has layout version {found}, and this program reads version {supported}: \
         build all programs that share the segment with the same release of ndshm"
    )]
    Version {
        /// The name or descriptor.
        what: String,
        /// The version of the segment.
        found: u32,
        /// The version of this crate.
        supported: u32,
    },
    /// The creator of the name has not initialized the segment in time; it may have died.
    #[error(
        "the segment named {name:?} was not initialized within {waited:?} (its file has {}): raise \
         open_timeout if its creator is slow, or let open_or_create replace it",
        Bytes(*size)
    )]
    NotInitialized {
        /// The name.
        name: String,
        /// The size of the file.
        size: u64,
        /// How long the call waited.
        waited: Duration,
    },
    /// Other processes removed and created the name again until the timeout.
    #[error(
        "other processes kept creating and removing the segment named {name:?} for {waited:?}: \
         raise open_timeout, or keep one process in the segment"
    )]
    NameContended {
        /// The name.
        name: String,
        /// How long the call waited.
        waited: Duration,
    },
    /// The address space has no room for the segment.
    #[error(
        "no room in the address space to map {}{}: ask for a smaller capacity{}",
        Bytes(*bytes),
        limit.map(|limit| format!(" (RLIMIT_AS is {})", Bytes(limit))).unwrap_or_default(),
        if limit.is_some() { ", or raise the limit (ulimit -v)" } else { "" }
    )]
    AddressSpace {
        /// Bytes of the mapping.
        bytes: u64,
        /// The limit of this process's address space, if it has one.
        limit: Option<u64>,
    },
    /// The process has the maximum number of mappings.
    #[error(
        "no mapping left for a segment of {}: this process has about {limit}, the maximum; unmap \
         some, or raise the limit (sysctl vm.max_map_count)",
        Bytes(*bytes)
    )]
    Mappings {
        /// Bytes of the segment.
        bytes: u64,
        /// The limit, vm.max_map_count.
        limit: u64,
    },
    /// No file descriptor is left, in this process or in the system.
    #[error(
        "{call} failed for {what}: no file descriptor is left {}",
        match limit {
            Some(limit) => format!(
                "in this process, which may have {limit}; close some, or raise the limit \
                 (ulimit -n)"
            ),
            None => "in the whole system; close some, or raise the limit (sysctl fs.file-max)".into(),
        }
    )]
    Descriptors {
        /// The system call that failed.
        call: &'static str,
        /// The object that it was called for.
        what: String,
        /// The limit of this process, RLIMIT_NOFILE; `None` if the system's limit was reached.
        limit: Option<u64>,
    },
    /// The file system of named segments has no inode left.
    #[error(
        "no room for the name {name:?}: all {inodes} inodes of /dev/shm are in use; remove \
         unneeded files there, remount it with more (mount -o remount,nr_inodes=... /dev/shm), or \
         use Segment::anonymous"
    )]
    Inodes {
        /// The name.
        name: String,
        /// Inodes of the file system.
        inodes: u64,
    },
    /// The process may not create files as large as the segment.
    #[error(
        "a segment of {} exceeds the file size limit of {}: ask for a smaller capacity, or raise \
         the limit (ulimit -f)",
        Bytes(*bytes),
        Bytes(*limit)
    )]
    FileSize {
        /// Bytes of the segment.
        bytes: u64,
        /// The limit, RLIMIT_FSIZE.
        limit: u64,
    },
    /// The descriptor's size is not sealed: any process that has the descriptor could truncate the
    /// memory.
    #[error(
        "the descriptor is a memfd whose size is not sealed: pass a descriptor from \
         Segment::inheritable_fd, or add F_SEAL_GROW and F_SEAL_SHRINK"
    )]
    NotSealed,
    /// The file is on hugetlbfs, where pages may be missing when they are touched.
    #[error(
        "{what} consists of huge pages of {} from the system's reserve (hugetlbfs), where an \
         access ends in SIGBUS once the reserve is empty: create the segment with \
         Segment::anonymous and SegmentOptions::huge_pages instead",
        Bytes(*page)
    )]
    Hugetlb {
        /// The name or descriptor.
        what: String,
        /// Bytes of a huge page.
        page: u64,
    },
    /// The segment is in-process memory. A forked child has a private copy of it.
    #[error(
        "an in-process segment is not shared with a forked child, which has its own copy: \
         use Segment::anonymous"
    )]
    NotShared,
    /// The program has closed the segment's descriptor, or has reused its number for another file.
    #[error(
        "descriptor {number} no longer belongs to the segment: this process has closed it; close \
         inherited descriptors before opening a segment, or spare this number (Segment::fd)"
    )]
    Closed {
        /// The descriptor.
        number: i32,
    },
    /// The socket did not pass a segment.
    #[error("the socket did not pass a segment: {problem}")]
    NotPassed {
        /// The reason, and the remedy.
        problem: &'static str,
    },
    /// The other process did not send or receive in time.
    #[error(
        "the socket passed no segment within {waited:?}: raise the timeout, or check that the \
         other process calls Segment::send_to or Segment::receive_from"
    )]
    SocketTimeout {
        /// How long the call waited.
        waited: Duration,
    },
    /// The process of an address does not have such a descriptor, or cannot be seen.
    #[error(
        "process {} has no descriptor {} that this process can see: it has ended or dropped the \
         segment, or is in another pid namespace (container), or /proc hides it (hidepid); ask it \
         for a new Segment::peer_address, or use Segment::send_to or a named segment",
        address.pid(),
        address.fd()
    )]
    NoPeer {
        /// The address.
        address: PeerAddress,
    },
    /// This process may not look into the process of an address.
    #[error(
        "no permission to open descriptor {} of process {}, which belongs to another user or user \
         namespace (container), or is not dumpable: use Segment::send_to or a named segment \
         ({source})",
        address.fd(),
        address.pid()
    )]
    PeerDenied {
        /// The address.
        address: PeerAddress,
        /// The system's error.
        source: io::Error,
    },
    /// A descriptor leads to another segment than expected.
    #[error(
        "{what} is segment {found}, not segment {expected}: the process that had it is another one \
         by now, or has reused the number; ask for a new Segment::peer_address, or use \
         Segment::send_to"
    )]
    OtherSegment {
        /// The descriptor.
        what: String,
        /// The id of the address or message.
        expected: SegmentId,
        /// The id in the file.
        found: SegmentId,
    },
    /// The process has left the segment.
    #[error(
        "this process has left the segment (Segment::leave), and can only read what it still has \
         mapped: open the segment again, by its name, a Segment::peer_address or Segment::send_to"
    )]
    Left,
    /// Tables of this process are in the segment that it wants to leave.
    #[error(
        "this process has {seats} seats in the segment that it wants to leave: drop its tables \
         first, in all threads"
    )]
    Joined {
        /// The number of seats.
        seats: u64,
    },
    /// There is no memory for the segment's tables.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// A system call failed.
    #[error("{call} failed for {what}: {source}")]
    Os {
        /// The system call.
        call: &'static str,
        /// The object that it was called for.
        what: String,
        /// The system's error.
        source: io::Error,
    },
}

/// A shortage of memory, detected before the memory is touched.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("need {}, {what} has {} free; {remedy}", Bytes(*need), Bytes(*have))]
pub struct NoMemory {
    /// Bytes that the call needs.
    pub need: u64,
    /// Bytes that are available.
    pub have: u64,
    /// The limit that was reached.
    pub what: String,
    /// The remedy.
    pub remedy: &'static str,
}

/// A read lock on a seat, taken by a process outside the crate. Until the lock is gone, no process
/// can join with this seat, and whatever a dead participant held with it is not reclaimed.
///
/// A process that may open the segment's file for reading can take such locks. See
/// [`guide::trust`](crate::guide::trust).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ForeignLock {
    /// The seat.
    pub seat: usize,
    /// The processes that have the locked description open, as far as this user may see them.
    pub pids: Vec<u32>,
    /// The inode number of the segment's file, with which a lock can be found in `/proc`.
    pub inode: u64,
}

impl fmt::Display for ForeignLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ForeignLock { seat, pids, inode } = self;
        match &pids[..] {
            [] => write!(
                f,
                "the byte of seat {seat} is read-locked by a process that this user cannot see; \
                 find it as root: grep -l 'LCK.*READ.*:{inode} ' /proc/[0-9]*/fdinfo/*; then end it"
            )?,
            [pid] => write!(
                f,
                "the byte of seat {seat} is read-locked by process {pid}; end it"
            )?,
            pids => write!(
                f,
                "the byte of seat {seat} is read-locked by processes {pids:?}; end them"
            )?,
        }
        f.write_str("; deny read access to the segment's file to users who may do that (chmod)")
    }
}

/// Characters of a name that a message repeats at most.
const SHOWN: usize = 64;

fn head(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// Returns the length of the name in bytes if [`head`] has cut it.
fn rest(name: &str) -> String {
    match name.chars().count() {
        short if short <= SHOWN => String::new(),
        _ => format!(".. ({} bytes)", name.len()),
    }
}

crate::message::debug_is_display!(SegmentError, NoMemory);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_memory_names_numbers_limit_and_remedy() {
        let error = NoMemory {
            need: 512 << 20,
            have: 64 << 20,
            what: "/dev/shm".into(),
            remedy: "in Docker pass --shm-size, or remount it larger",
        };
        assert_eq!(
            error.to_string(),
            "need 512 MiB, /dev/shm has 64 MiB free; in Docker pass --shm-size, or remount it larger"
        );
    }

    #[test]
    fn a_full_address_space_names_the_limit_only_if_there_is_one() {
        let bytes = 1 << 40;
        let text = |limit| SegmentError::AddressSpace { bytes, limit }.to_string();
        assert!(text(Some(1 << 30)).contains("RLIMIT_AS is 1 GiB"));
        assert!(!text(None).contains("RLIMIT_AS"));
    }
}
