//! Attempts to take memory away from outside, which the seals prevent.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use ndarray::Ix1;
use ndshm::{Handle, HandleTable, Segment};

use crate::common::{assert_usable, report};
use crate::support::Child;

fn truncate(fd: BorrowedFd<'_>, len: i64) -> io::Error {
    // SAFETY: an open descriptor.
    assert_ne!(unsafe { libc::ftruncate(fd.as_raw_fd(), len) }, 0);
    io::Error::last_os_error()
}

pub fn the_seals_keep_the_size() {
    use std::os::fd::AsFd;
    let segment = Segment::options().capacity(1 << 20).anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let array: Handle<u64, Ix1> = table.from_elem(1000, 5).unwrap();
    let passed = segment.inheritable_fd().unwrap();
    let mut refused = 0;
    let mut try_all = |fd: BorrowedFd<'_>| {
        // Shrinking would remove memory below the mapping. Growing would change the size that other
        // processes expect.
        for len in [0, 4096, 1 << 20, 1 << 40] {
            let error = truncate(fd, len);
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "to {len}");
            refused += 1;
        }
        // SAFETY: an open descriptor; the command takes a number.
        let answer = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        assert_eq!(answer, -1, "a seal was added");
    };
    try_all(segment.fd().unwrap());
    try_all(passed.as_fd());
    Child::fork(|| {
        truncate(passed.as_fd(), 0);
        assert_eq!(table.read(array).unwrap()[999], 5);
    })
    .join();
    assert_eq!(table.read(array).unwrap()[999], 5);
    assert_usable(&table);
    report(
        "ftruncate of an anonymous segment",
        format!("{refused} of {refused} EPERM"),
    );
}
