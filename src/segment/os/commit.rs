//! Backing: missing memory is an error before the first touch, never a signal after it.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::mapping::{Mapping, page_size};
use crate::segment::error::NoMemory;
use crate::segment::limits::MemoryLimits;

/// Bytes of one `fallocate` call. A much larger call would keep others from the file for long.
const STEP: u64 = 16 << 20;

/// The memory that one limit leaves to this process.
pub(crate) struct AvailableMemory {
    pub(crate) have: u64,
    pub(crate) what: String,
    pub(crate) remedy: &'static str,
}

/// Returns the limit that leaves the least memory.
pub(crate) fn tightest_supply() -> Option<AvailableMemory> {
    if cfg!(miri) {
        return Some(AvailableMemory {
            have: total_memory(),
            what: "the machine".into(),
            remedy: "ask for less: Miri runs with little memory",
        });
    }
    let limits = match MemoryLimits::read() {
        Ok(limits) => limits,
        // A kernel that does not tell the available memory.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return None,
        // No descriptor is left, or /proc is not mounted. The available memory is unknown then,
        // but the machine's total is a limit.
        Err(_) => {
            return Some(AvailableMemory {
                have: total_memory(),
                what: "the machine".into(),
                remedy: "ask for less; more exact numbers are in /proc/meminfo, which cannot be read",
            });
        }
    };
    let machine = limits.available.saturating_add(limits.swap_free);
    Some(match limits.tightest_group() {
        Some(group) if group.available <= machine => AvailableMemory {
            have: group.available,
            what: format!("the memory cgroup {}", group.path.display()),
            remedy: "raise the memory limit of the container or job, or free arrays",
        },
        _ => AvailableMemory {
            have: machine,
            what: "the machine".into(),
            remedy: "free arrays, call trim() in processes that have freed some, or add memory or \
                     swap",
        },
    })
}

/// Allocates the pages of a range of a file on a file system that may be full.
///
/// On failure the pages of earlier steps stay: some may have existed before the call, so the caller
/// must punch the range if it gives it up. A failing step frees only pages that it has allocated
/// itself: the kernel keeps pages that two calls have asked for.
///
/// Without a descriptor the pages are allocated through the mapping.
pub(crate) fn allocate(
    fd: Option<BorrowedFd<'_>>,
    mapping: &Mapping,
    offset: u64,
    len: u64,
    way: Way,
) -> Result<(), NoMemory> {
    let page = page_size() as u64;
    let end = (offset + len).next_multiple_of(page);
    let mut at = offset - offset % page;
    let mut step = STEP;
    while at < end {
        let now = step.min(end - at);
        let outcome = match way {
            Way::File => match fill(fd, at, now) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => mapping.populate(at, now),
                outcome => outcome,
            },
            Way::Touch => populate(fd, mapping, at, now),
        };
        match outcome {
            Ok(()) => at += now,
            Err(Errno::INTR) => step = smaller(step, page),
            Err(errno) => {
                // The pages that this call has allocated are not in use, so they count as
                // available.
                let mut error = file_system_full(len, errno);
                error.have += at.saturating_sub(offset);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Returns the step to try after an interrupted one. The kernel undoes an interrupted step. A
/// smaller step completes between two signals of a busy timer.
fn smaller(step: u64, page: u64) -> u64 {
    (step / 2).max(page)
}

/// Means of allocating the pages of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Through the file: pages are neither mapped nor filled with zeros until they are touched.
    File,
    /// Through the mapping, as a touch would: with the page size that was advised for it.
    Touch,
}

fn fill(fd: Option<BorrowedFd<'_>>, at: u64, len: u64) -> Result<(), Errno> {
    let fd = fd.ok_or(Errno::NOSYS)?;
    rustix::fs::fallocate(fd, FallocateFlags::empty(), at, len)
}

/// Allocates and maps the pages of a range, as a touch would. On a kernel without this call (before
/// Linux 5.14) it only allocates them, if there is a file, and the first use maps them.
pub(crate) fn populate(
    fd: Option<BorrowedFd<'_>>,
    mapping: &Mapping,
    at: u64,
    len: u64,
) -> Result<(), Errno> {
    match mapping.populate(at, len) {
        Err(Errno::INVAL) if fd.is_some() => fill(fd, at, len),
        Err(Errno::INVAL) => Ok(()),
        outcome => outcome,
    }
}

fn file_system_full(need: u64, errno: Errno) -> NoMemory {
    let have = super::file::shm_free();
    match errno {
        Errno::NOSPC | Errno::FAULT => NoMemory {
            need,
            have,
            what: "/dev/shm".into(),
            remedy: super::file::SHM_REMEDY,
        },
        errno => NoMemory {
            need,
            have,
            what: format!("fallocate failed ({errno}); /dev/shm"),
            remedy: "use Segment::anonymous, which needs no file system",
        },
    }
}

/// The assumed memory of the machine under Miri, which cannot tell.
const UNDER_MIRI: u64 = 64 << 20;

/// Returns the bytes of memory that the machine has.
pub(crate) fn total_memory() -> u64 {
    if cfg!(miri) {
        return UNDER_MIRI;
    }
    let info = rustix::system::sysinfo();
    // The type of `totalram` is the C library's `unsigned long`.
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests;
