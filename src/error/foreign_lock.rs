//! Locks that processes outside the crate hold on seats.

use core::fmt;

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
