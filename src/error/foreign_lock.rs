//! A lock that somebody outside the crate holds on a seat.

use core::fmt;

/// A read lock on a seat, taken by a process outside the crate: nobody can join by the seat, and
/// what a dead participant held by it is not taken back, until the lock is gone.
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
    /// The number of the segment's file in its file system, by which a lock is found.
    pub inode: u64,
}

impl fmt::Display for ForeignLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ForeignLock { seat, pids, inode } = self;
        match &pids[..] {
            [] => write!(
                f,
                "the byte of seat {seat} is read-locked by a process that this user cannot see; \
                 find it as root by grep -l 'LCK.*READ.*:{inode} ' /proc/[0-9]*/fdinfo/* and end it"
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
        f.write_str(", and let no user read the segment's file who may do that (chmod)")
    }
}
