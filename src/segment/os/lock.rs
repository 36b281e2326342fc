//! Locks on bytes of a segment's file. A seat is alive while an open-file-description lock on its
//! byte is held; the membership lock is held by every process in a named segment.
//!
//! The kernel drops such a lock with the last descriptor and the last mapping of the description.
//! By then no thread of the process can store to the segment any more.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::sync::{Atom, Ordering};

/// Byte of the file that carries the lock of the first seat; the bytes of the other seats follow.
const SEAT_LOCKS: u64 = 1 << 62;

/// Byte of the file on which every process in a named segment holds a shared lock.
const MEMBERS: u64 = 1 << 61;

// The kernel's `struct flock` has 64-bit offsets, as has libc's if `off_t` has 64 bits.
const _: () = assert!(size_of::<libc::off_t>() == 8);

/// Returns a request for a lock on one byte.
pub(crate) fn request(byte: u64, kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        // The kernel requires 0 here for locks of a description.
        l_pid: 0,
    }
}

/// Attempts to set a lock on one byte, without waiting. Returns `false` if another description
/// holds a conflicting lock.
fn set_lock(fd: BorrowedFd<'_>, byte: u64, kind: libc::c_int) -> Result<bool, Errno> {
    let request = request(byte, kind);
    // SAFETY: `request` is the argument of this command, and lives until the call, which only reads
    // it, has returned.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &request) } {
        -1 => match last_errno() {
            Errno::AGAIN | Errno::ACCESS => Ok(false),
            errno => Err(errno),
        },
        _ => Ok(true),
    }
}

fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

/// Takes the membership lock together with other members. Returns `false` while another process
/// holds it exclusively.
pub(crate) fn share_membership(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    set_lock(fd, MEMBERS, libc::F_RDLCK)
}

/// Attempts to take the membership lock exclusively. Returns `false` if another process is in the
/// segment.
pub(crate) fn close_membership(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    set_lock(fd, MEMBERS, libc::F_WRLCK)
}

/// Returns `true` if another description holds the membership lock. Takes no lock.
pub(crate) fn has_members(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    is_held(fd, MEMBERS)
}

/// The lock on a seat's byte, apart from one of the asking description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnByte {
    Nothing,
    /// A write lock, which requires a descriptor for writing: a participant or a reaper.
    Participant,
    /// A read lock, which this crate never takes. It excludes write locks: the seat's participant
    /// is dead, but the seat cannot be taken. The pid is -1 if the lock belongs to a description.
    Foreign {
        pid: libc::pid_t,
    },
}

/// Returns the lock on the byte of a seat. Takes no lock.
pub(crate) fn on_seat(fd: BorrowedFd<'_>, index: usize) -> Result<OnByte, Errno> {
    let found = conflict(fd, seat_byte(index))?;
    Ok(match libc::c_int::from(found.l_type) {
        libc::F_UNLCK => OnByte::Nothing,
        libc::F_RDLCK => OnByte::Foreign { pid: found.l_pid },
        _ => OnByte::Participant,
    })
}

/// Returns `true` if a participant or a reaper holds the lock of a seat. Takes no lock.
pub(crate) fn is_locked(fd: BorrowedFd<'_>, index: usize) -> Result<bool, Errno> {
    Ok(on_seat(fd, index)? == OnByte::Participant)
}

/// Returns the byte that carries the lock of a seat.
pub(crate) fn seat_byte(index: usize) -> u64 {
    SEAT_LOCKS + index as u64
}

fn is_held(fd: BorrowedFd<'_>, byte: u64) -> Result<bool, Errno> {
    Ok(libc::c_int::from(conflict(fd, byte)?.l_type) != libc::F_UNLCK)
}

/// Returns a lock of another description that excludes a write lock of this one.
fn conflict(fd: BorrowedFd<'_>, byte: u64) -> Result<libc::flock, Errno> {
    let mut request = request(byte, libc::F_WRLCK);
    // SAFETY: `request` is the argument of this command, and lives until the call, which writes the
    // answer to it, has returned.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut request) } {
        -1 => Err(last_errno()),
        _ => Ok(request),
    }
}

/// The seats locked by this process.
///
/// Locks of one description never conflict, so the threads of a process exclude each other by these
/// bits. A thread sets the bit before it takes the lock.
pub(crate) struct SeatLocks {
    own: Box<[Atom<u64>]>,
}

impl SeatLocks {
    pub(crate) fn new(seats: u32) -> SeatLocks {
        let words = seats.div_ceil(64);
        SeatLocks {
            own: (0..words).map(|_| Atom::zero()).collect(),
        }
    }

    /// Attempts to take the lock of a seat. Returns `false` if another thread or another process
    /// holds it.
    pub(crate) fn try_lock(&self, fd: BorrowedFd<'_>, index: usize) -> Result<bool, Errno> {
        let (word, bit) = self.bit(index);
        // Acquire: pairs with the Release in `unlock`.
        if word.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return Ok(false);
        }
        let outcome = set_lock(fd, seat_byte(index), libc::F_WRLCK);
        if !matches!(outcome, Ok(true)) {
            word.fetch_and(!bit, Ordering::Release);
        }
        outcome
    }

    /// Returns `true` if a participant or a reaper holds the lock of a seat, in this process or in
    /// another one. Takes no lock.
    pub(crate) fn is_locked(&self, fd: BorrowedFd<'_>, index: usize) -> Result<bool, Errno> {
        let (word, bit) = self.bit(index);
        // The kernel does not report the locks of this description.
        // Acquire: pairs with the Release in `unlock`.
        match word.load(Ordering::Acquire) & bit {
            0 => is_locked(fd, index),
            _ => Ok(true),
        }
    }

    /// Releases a lock taken by `try_lock`.
    pub(crate) fn unlock(&self, fd: BorrowedFd<'_>, index: usize) {
        let (word, bit) = self.bit(index);
        // Unlocking fails only for an invalid descriptor or byte, and both are valid here.
        let outcome = set_lock(fd, seat_byte(index), libc::F_UNLCK);
        debug_assert!(outcome.is_ok());
        // Release: pairs with the Acquire in `try_lock`.
        word.fetch_and(!bit, Ordering::Release);
    }

    /// Clears the bits inherited at a fork, because the locks are the parent's.
    pub(crate) fn forget_all(&self) {
        for word in &self.own {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn bit(&self, index: usize) -> (&Atom<u64>, u64) {
        (&self.own[index / 64], 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    fn two_descriptions() -> (OwnedFd, OwnedFd) {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let first = rustix::fs::memfd_create("seat-locks", flags).unwrap();
        let second = super::super::file::reopen(first.as_fd()).unwrap();
        (first, second)
    }

    #[test]
    fn a_seat_is_locked_once() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        let (mine, others) = (SeatLocks::new(128), SeatLocks::new(128));
        assert_eq!(mine.try_lock(first.as_fd(), 127), Ok(true));
        assert_eq!(
            mine.try_lock(first.as_fd(), 127),
            Ok(false),
            "by the registry"
        );
        assert_eq!(
            others.try_lock(second.as_fd(), 127),
            Ok(false),
            "by the kernel"
        );
        assert_eq!(
            others.try_lock(second.as_fd(), 126),
            Ok(true),
            "another seat"
        );
        mine.unlock(first.as_fd(), 127);
        assert_eq!(others.try_lock(second.as_fd(), 127), Ok(true));
    }

    /// Processes with different versions of the crate must agree on them.
    #[test]
    fn the_locks_are_on_fixed_bytes() {
        let _quiet = crate::segment::tests::no_forks();
        assert_eq!(seat_byte(5), 0x4000_0000_0000_0005);
        let (first, second) = two_descriptions();
        assert_eq!(share_membership(first.as_fd()), Ok(true));
        for (byte, held) in [(0, false), (1 << 61, true), ((1 << 61) + 1, false)] {
            assert_eq!(is_held(second.as_fd(), byte), Ok(held), "{byte:x}");
        }
    }

    #[test]
    fn a_seat_can_be_locked_again_after_its_lock_is_given_back() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        let (mine, others) = (SeatLocks::new(128), SeatLocks::new(128));
        for seat in [0, 1, 64, 127] {
            assert_eq!(mine.try_lock(first.as_fd(), seat), Ok(true));
            assert_eq!(others.try_lock(second.as_fd(), seat), Ok(false));
            mine.unlock(first.as_fd(), seat);
            assert_eq!(mine.try_lock(first.as_fd(), seat), Ok(true));
        }
        // The kernel's locks stay: those that are forgotten were the parent's.
        mine.forget_all();
        assert_eq!(others.try_lock(second.as_fd(), 127), Ok(false));
        assert_eq!(mine.try_lock(first.as_fd(), 127), Ok(true));
    }

    #[test]
    fn a_look_finds_the_locks_of_all_and_takes_none() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        let (mine, others) = (SeatLocks::new(2), SeatLocks::new(2));
        let seen = || {
            [(&mine, &first), (&others, &second)]
                .map(|(seats, fd)| seats.is_locked(fd.as_fd(), 1).unwrap())
        };
        assert_eq!(seen(), [false, false]);
        assert_eq!(mine.try_lock(first.as_fd(), 1), Ok(true));
        assert_eq!(seen(), [true, true]);
        mine.unlock(first.as_fd(), 1);
        assert_eq!(seen(), [false, false]);
        // A read lock is no participant's.
        assert_eq!(
            set_lock(first.as_fd(), seat_byte(1), libc::F_RDLCK),
            Ok(true)
        );
        assert_eq!(seen(), [false, false]);
        assert_eq!(
            set_lock(first.as_fd(), seat_byte(1), libc::F_UNLCK),
            Ok(true)
        );
        // Beside a look that does not end, each attempt to take the lock succeeds.
        let is_over = Atom::<u64>::zero();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while is_over.load(Ordering::Relaxed) == 0 {
                    let _ = (others.is_locked(second.as_fd(), 1).unwrap(), seen());
                }
            });
            let taken = (0..5000).all(|_| {
                let is_taken = mine.try_lock(first.as_fd(), 1) == Ok(true);
                if is_taken {
                    mine.unlock(first.as_fd(), 1);
                }
                is_taken
            });
            is_over.store(1, Ordering::Relaxed);
            assert!(taken);
        });
    }

    #[test]
    fn a_descriptor_that_cannot_lock_is_an_error() {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/shm", flags, rustix::fs::Mode::empty()).unwrap();
        let fd = fd.as_fd();
        assert_eq!(on_seat(fd, 0), Err(Errno::BADF));
        assert_eq!(has_members(fd), Err(Errno::BADF));
        assert_eq!(share_membership(fd), Err(Errno::BADF));
        let seats = SeatLocks::new(1);
        assert_eq!(seats.try_lock(fd, 0), Err(Errno::BADF));
        let (writable, _) = two_descriptions();
        assert_eq!(seats.try_lock(writable.as_fd(), 0), Ok(true));
    }

    #[test]
    fn a_lock_ends_with_its_description() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        let (mine, others) = (SeatLocks::new(1), SeatLocks::new(1));
        assert_eq!(mine.try_lock(first.as_fd(), 0), Ok(true));
        let copy = first.try_clone().unwrap();
        drop(first);
        assert_eq!(
            others.try_lock(second.as_fd(), 0),
            Ok(false),
            "the copy keeps it"
        );
        drop(copy);
        assert_eq!(others.try_lock(second.as_fd(), 0), Ok(true));
    }

    #[test]
    fn a_read_lock_is_no_participant() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        let on_seat = || on_seat(second.as_fd(), 3).unwrap();
        assert_eq!(on_seat(), OnByte::Nothing);
        assert_eq!(
            set_lock(first.as_fd(), seat_byte(3), libc::F_RDLCK),
            Ok(true)
        );
        assert_eq!(on_seat(), OnByte::Foreign { pid: -1 });
        assert_eq!(is_locked(second.as_fd(), 3), Ok(false));
        let seats = SeatLocks::new(4);
        assert_eq!(seats.try_lock(second.as_fd(), 3), Ok(false));
        assert_eq!(seats.try_lock(second.as_fd(), 2), Ok(true), "another seat");
        assert_eq!(
            set_lock(first.as_fd(), seat_byte(3), libc::F_WRLCK),
            Ok(true)
        );
        assert_eq!(on_seat(), OnByte::Participant);
        assert_eq!(is_locked(second.as_fd(), 3), Ok(true));
    }

    #[test]
    fn membership_closes_only_on_nobody() {
        let _quiet = crate::segment::tests::no_forks();
        let (first, second) = two_descriptions();
        assert_eq!(has_members(second.as_fd()), Ok(false));
        assert_eq!(share_membership(first.as_fd()), Ok(true));
        assert_eq!(has_members(second.as_fd()), Ok(true));
        assert_eq!(has_members(first.as_fd()), Ok(false), "its own");
        assert_eq!(close_membership(second.as_fd()), Ok(false));
        assert_eq!(share_membership(second.as_fd()), Ok(true));
        drop(first);
        // A description's own shared lock gives way to its exclusive one.
        assert_eq!(close_membership(second.as_fd()), Ok(true));
    }
}
