//! A small tmpfs over `/dev/shm`, in a mount namespace of the test.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

pub const SHM: &str = "/dev/shm";

/// Mounts a tmpfs over `/dev/shm` for this process and its children. Where this is not allowed,
/// prints the reason and returns `false`.
pub fn own_shm(bytes: usize, inodes: usize) -> bool {
    let is_own = own_shm_of(&format!("size={bytes},nr_inodes={inodes}"));
    assert!(!is_own || free_bytes() <= bytes as u64);
    is_own
}

/// Works like [`own_shm`], with tmpfs options in the syntax of `mount`.
pub fn own_shm_of(options: &str) -> bool {
    if let Err(error) = try_own_shm(options) {
        println!("  skipped: no right to mount a tmpfs in a new namespace ({error})");
        return false;
    }
    // Children of the test share its namespace, so they see the small tmpfs too.
    true
}

fn try_own_shm(options: &str) -> io::Result<()> {
    // SAFETY: `getuid` has no precondition.
    let uid = unsafe { libc::getuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getgid() };
    // SAFETY: this process has one thread; its namespace ends with it and its children.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        // SAFETY: as above.
        done(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) })?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount("tmpfs", SHM, "tmpfs", 0, &format!("{options},mode=1777"))
}

fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let [source, target, kind, data] =
        [source, target, kind, data].map(|text| CString::new(text).unwrap());
    // SAFETY: four texts that end with NUL and live over the call.
    done(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

fn done(answer: libc::c_int) -> io::Result<()> {
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

pub fn free_bytes() -> u64 {
    let path = CString::new(SHM).unwrap();
    // SAFETY: all zeros is a value of this struct of numbers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a text that ends with NUL, and a place for the answer.
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &mut stat) }, 0);
    stat.f_bavail * stat.f_frsize
}

/// A file of another program. It takes up room until it is dropped.
pub struct Foreign(&'static str);

impl Foreign {
    /// Fills the file system except for `left` bytes.
    pub fn leaving(left: u64) -> Foreign {
        use std::os::fd::AsRawFd;
        let path = "/dev/shm/foreign";
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        let len = free_bytes()
            .checked_sub(left)
            .expect("less is left already");
        if len > 0 {
            // SAFETY: an open descriptor.
            let answer = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) };
            assert_eq!(answer, 0, "{}", io::Error::last_os_error());
        }
        assert_eq!(free_bytes(), left);
        Foreign(path)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}
