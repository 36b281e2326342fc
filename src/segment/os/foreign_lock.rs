//! Read locks on the bytes of the seats. The crate takes none. A process that may only read the
//! file can use one to keep a seat from being taken. The error names such processes.

use std::fs;
use std::os::fd::BorrowedFd;

use super::lock::{self, OnByte, seat_byte};
use crate::segment::error::ForeignLock;

/// Returns the foreign lock on a seat, if there is one. Costs one system call if there is none.
pub(crate) fn find(fd: BorrowedFd<'_>, seat: usize) -> Option<ForeignLock> {
    let pid = match lock::on_seat(fd, seat).ok()? {
        OnByte::Foreign { pid } => pid,
        OnByte::Nothing | OnByte::Participant => return None,
    };
    let stat = rustix::fs::fstat(fd).ok()?;
    Some(ForeignLock {
        seat,
        pids: holder_of(pid).unwrap_or_else(|| holders(&stat, seat_byte(seat))),
        inode: stat.st_ino,
    })
}

/// Returns `true` if a foreign lock is on a seat. Does not search for its holder.
pub(crate) fn is_on(fd: BorrowedFd<'_>, seat: usize) -> bool {
    matches!(lock::on_seat(fd, seat), Ok(OnByte::Foreign { .. }))
}

/// Returns the holder if the system gives its pid. A lock of a description has none, and a lock
/// from another pid namespace has the pid 0.
fn holder_of(pid: libc::pid_t) -> Option<Vec<u32>> {
    match u32::try_from(pid) {
        Ok(pid) if pid > 0 => Some(vec![pid]),
        _ => None,
    }
}

/// Returns the processes that have a description with a read lock on this byte of the file.
fn holders(stat: &rustix::fs::Stat, byte: u64) -> Vec<u32> {
    let (major, minor) = (
        rustix::fs::major(stat.st_dev),
        rustix::fs::minor(stat.st_dev),
    );
    let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fdinfo"));
            open.into_iter().flatten().any(|entry| {
                let text = entry.map(|entry| fs::read_to_string(entry.path()));
                matches!(text, Ok(Ok(text)) if text.lines().any(|line| locks(line, &file, byte)))
            })
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Returns `true` if a line of an fdinfo file shows a read lock on this byte of the file:
/// `lock: 1: OFDLCK ADVISORY READ -1 00:1b:215 0 EOF`.
fn locks(line: &str, file: &str, byte: u64) -> bool {
    let mut words = line.split_whitespace().skip(4);
    let mut word = || words.next().unwrap_or_default();
    let (kind, _, on, first, last) = (word(), word(), word(), word(), word());
    let within = first.parse().is_ok_and(|first: u64| first <= byte)
        && (last == "EOF" || last.parse().is_ok_and(|last: u64| byte <= last));
    line.starts_with("lock:") && kind == "READ" && on == file && within
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;

    #[test]
    fn only_a_positive_pid_is_a_process() {
        assert_eq!(holder_of(7), Some(vec![7]));
        assert_eq!(
            [holder_of(1), holder_of(0), holder_of(-1)],
            [Some(vec![1]), None, None]
        );
    }

    #[test]
    fn a_read_lock_on_a_seat_is_found_with_its_process() {
        use std::os::fd::AsRawFd;

        let _quiet = crate::segment::tests::no_forks();
        let options = || Segment::options().capacity(1 << 20).seats(4);
        let in_process = options().in_process().unwrap();
        assert!(in_process.foreign_lock(2).is_none() && !in_process.is_foreign_locked(2));
        let segment = options().anonymous().unwrap();
        let stat = rustix::fs::fstat(segment.fd().unwrap()).unwrap();
        // A lock of a description, then one of this process.
        for command in [libc::F_OFD_SETLK, libc::F_SETLK] {
            let other = segment.inheritable_fd().unwrap();
            let set = |kind: libc::c_int| {
                let request = lock::request(seat_byte(2), kind);
                // SAFETY: the argument of this command, which reads it during the call.
                unsafe { libc::fcntl(other.as_raw_fd(), command, &request) }
            };
            assert!(segment.foreign_lock(2).is_none() && !segment.is_foreign_locked(2));
            assert_eq!(set(libc::F_RDLCK), 0);
            let found = segment.foreign_lock(2).unwrap();
            assert_eq!((found.seat, found.inode), (2, stat.st_ino));
            assert_eq!(found.pids, [std::process::id()]);
            assert!(segment.is_foreign_locked(2) && !segment.is_foreign_locked(1));
            assert!(segment.foreign_lock(1).is_none());
            assert_eq!(set(libc::F_WRLCK), 0);
            assert!(segment.foreign_lock(2).is_none(), "a participant's");
            assert!(!segment.is_foreign_locked(2));
        }
    }

    #[test]
    fn a_line_of_fdinfo_is_read() {
        let line = "lock:\t1: OFDLCK ADVISORY  READ -1 00:1b:215 100 200";
        for (byte, found) in [(99, false), (100, true), (200, true), (201, false)] {
            assert_eq!(locks(line, "00:1b:215", byte), found, "{byte}");
        }
        assert!(!locks(line, "00:1b:21", 150), "another file");
        assert!(!locks(&line.replace("READ", "WRITE"), "00:1b:215", 150));
        assert!(locks(&line.replace("200", "EOF"), "00:1b:215", u64::MAX));
        for other in [
            "",
            "lock:",
            "pos:\t0",
            "lock: 1: OFDLCK ADVISORY READ -1 00:1b:215 x y",
        ] {
            assert!(!locks(other, "00:1b:215", 150), "{other}");
        }
    }
}
