//! Backing: memory that cannot be had is an error before it is touched, never a signal after.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::mapping::{Mapping, page_size};
use crate::error::NoMemory;

/// Bytes that one `fallocate` takes: a huge one would keep others from the file for long.
const STEP: u64 = 16 << 20;

/// What to do about a full file system of named segments.
pub(super) const SHM_REMEDY: &str = "free arrays, remove files there that nobody needs, in Docker \
    pass --shm-size, or remount it larger (mount -o remount,size=... /dev/shm), or use \
    Segment::anonymous";

/// What one limit still lets this process have.
pub(super) struct Supply {
    pub(super) have: u64,
    pub(super) what: String,
    pub(super) remedy: &'static str,
}

/// The limit that leaves least.
pub(super) fn tightest_supply() -> Option<Supply> {
    if cfg!(miri) {
        return Some(Supply {
            have: total_memory(),
            what: "the machine".into(),
            remedy: "ask for less: Miri runs with little memory",
        });
    }
    let Ok(meminfo) = fs::read_to_string("/proc/meminfo") else {
        // No descriptor is left, or /proc is not mounted. What the machine can drop is not known
        // then: what it cannot have at all is.
        return Some(Supply {
            have: total_memory(),
            what: "the machine".into(),
            remedy: "ask for less; more exact numbers are in /proc/meminfo, which cannot be read",
        });
    };
    let field = |name| meminfo_bytes(&meminfo, name);
    let swap = field("SwapFree:").unwrap_or(0);
    let total = field("MemTotal:")?.saturating_add(field("SwapTotal:").unwrap_or(0));
    let machine = Supply {
        have: field("MemAvailable:")?.saturating_add(swap),
        what: "the machine".into(),
        remedy: "free arrays, call trim() in processes that have freed some, or add memory or swap",
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .flat_map(|line| cgroup_supplies(CGROUPS, line, total, swap))
        .chain([machine])
        .min_by_key(|supply| supply.have)
}

fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What a version of the cgroup interface calls its files.
struct CgroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the bytes of files that are dropped under pressure.
    reclaimable: &'static str,
    /// Limit and usage of swap, where it is counted apart from memory.
    swap: Option<(&'static str, &'static str)>,
    /// Limit and usage of memory and swap together, where they are counted so.
    both: Option<(&'static str, &'static str)>,
}

const V1: CgroupFiles = CgroupFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file ",
    swap: None,
    both: Some(("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes")),
};

const V2: CgroupFiles = CgroupFiles {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file ",
    swap: Some(("memory.swap.max", "memory.swap.current")),
    both: None,
};

/// Where the hierarchies of cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The limits of the group that a line of `/proc/self/cgroup` names, and of those above it;
/// `mounts` has the hierarchies.
fn cgroup_supplies(mounts: &str, line: &str, machine: u64, swap_free: u64) -> Vec<Supply> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (hierarchies, files): (&[&str], _) = match controllers {
        "" => (&["", "/unified"], &V2),
        list if list.split(',').any(|name| name == "memory") => (&["/memory"], &V1),
        _ => return Vec::new(),
    };
    let mut supplies = Vec::new();
    for hierarchy in hierarchies {
        for group in groups_up_from(Path::new(&format!("{mounts}{hierarchy}")), path) {
            supplies.extend(
                cgroup_free(&group, files, machine, swap_free).map(|have| Supply {
                    have,
                    what: format!("the memory cgroup {}", group.display()),
                    remedy: "raise the memory limit of the container or job, or free arrays",
                }),
            );
        }
    }
    supplies
}

/// The directories from `path` below `root` up to `root`. In a container the path may be the
/// host's, of which only the root is there to see.
fn groups_up_from(root: &Path, path: &str) -> Vec<PathBuf> {
    let below = Path::new(path.trim_start_matches('/'));
    let inside = !path.split('/').any(|part| part == "..");
    let start = if inside {
        root.join(below)
    } else {
        root.into()
    };
    start
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .map(PathBuf::from)
        .collect()
}

/// The part of a group's limit that is not promised to arrays: the tables by which each process
/// finds their pages are charged to the group too, as is all else that it needs.
const GROUP_RESERVE: u64 = 32;

/// Bytes that arrays may still take of the group; `None` if its limit is none, or beyond the machine's.
fn cgroup_free(group: &Path, files: &CgroupFiles, machine: u64, swap_free: u64) -> Option<u64> {
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(group.join(file)).ok()?;
        text.trim().parse().ok()
    };
    let limit = number(files.limit).filter(|&limit| limit < machine)?;
    let usage = number(files.usage)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat
        .lines()
        .find_map(|line| line.strip_prefix(files.reclaimable)?.trim().parse().ok())
        .unwrap_or(0u64);
    // None where it is not limited, or not told.
    let left = |files: Option<(&str, &str)>| -> Option<u64> {
        let (limit, usage) = files?;
        Some(number(limit)?.saturating_sub(number(usage)?))
    };
    let swap = left(files.swap).map_or(swap_free, |left| left.min(swap_free));
    let both = left(files.both).unwrap_or(u64::MAX);
    let free = limit.saturating_sub(usage).saturating_add(swap).min(both);
    let free = free.saturating_add(reclaimable);
    Some(free.saturating_sub(limit / GROUP_RESERVE))
}

/// Allocates the pages of a range of a file on a file system that may be full.
///
/// On failure the pages of earlier steps stay: some may have been there before the call, so that
/// it is for whoever gives the range up to punch it. A failing step gives back only pages that it has
/// allocated itself: the kernel keeps those that two calls have asked for.
///
/// Without a descriptor it is done through the mapping.
pub(super) fn allocate(
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
                // What this call has got so far is not in use by anybody.
                let mut error = file_system_full(len, errno);
                error.have += at.saturating_sub(offset);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The step after one that was interrupted. The kernel undoes an interrupted step: a smaller one
/// gets through between two signals of a busy timer.
fn smaller(step: u64, page: u64) -> u64 {
    (step / 2).max(page)
}

/// By what the pages of a file are allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The file: nothing is mapped, or filled with zeros, until it is touched.
    File,
    /// The mapping, as a touch would: of the size that it was advised to have.
    Touch,
}

fn fill(fd: Option<BorrowedFd<'_>>, at: u64, len: u64) -> Result<(), Errno> {
    let fd = fd.ok_or(Errno::NOSYS)?;
    rustix::fs::fallocate(fd, FallocateFlags::empty(), at, len)
}

/// Allocates the pages of a range as a touch would, and maps them here; a kernel that cannot
/// (before Linux 5.14) allocates them, if there is a file, and leaves the mapping to the first use.
pub(super) fn populate(
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
    let have = rustix::fs::statvfs(super::named::DIR)
        .map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize))
        .unwrap_or(0);
    match errno {
        Errno::NOSPC | Errno::FAULT => NoMemory {
            need,
            have,
            what: "/dev/shm".into(),
            remedy: SHM_REMEDY,
        },
        errno => NoMemory {
            need,
            have,
            what: format!("fallocate failed ({errno}); /dev/shm"),
            remedy: "use Segment::anonymous, which needs no file system",
        },
    }
}

/// What a program under Miri may take for the machine's memory; Miri does not tell.
const UNDER_MIRI: u64 = 64 << 20;

/// Bytes of memory that the machine has.
pub(super) fn total_memory() -> u64 {
    if cfg!(miri) {
        return UNDER_MIRI;
    }
    let info = rustix::system::sysinfo();
    // The field's type is the C library's `unsigned long`.
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests;
