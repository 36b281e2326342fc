//! Backing: missing memory is an error before the first touch, never a signal after it.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::mapping::{Mapping, page_size};
use crate::segment::error::NoMemory;

/// Bytes of one `fallocate` call. A much larger call would keep others from the file for long.
const STEP: u64 = 16 << 20;

/// The memory that one limit leaves to this process.
pub(crate) struct Supply {
    pub(crate) have: u64,
    pub(crate) what: String,
    pub(crate) remedy: &'static str,
}

/// Returns the limit that leaves the least memory.
pub(crate) fn tightest_supply() -> Option<Supply> {
    if cfg!(miri) {
        return Some(Supply {
            have: total_memory(),
            what: "the machine".into(),
            remedy: "ask for less: Miri runs with little memory",
        });
    }
    let Ok(meminfo) = fs::read_to_string("/proc/meminfo") else {
        // No descriptor is left, or /proc is not mounted. The reclaimable memory is unknown then,
        // but the machine's total is a limit.
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

/// The file names of one version of the cgroup interface.
struct CgroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// Prefix of the line in `memory.stat` with the bytes of files that the kernel drops under
    /// pressure.
    reclaimable: &'static str,
    /// Limit and usage of swap, if counted apart from memory.
    swap: Option<(&'static str, &'static str)>,
    /// Limit and usage of memory and swap together, if counted together.
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

/// Directory in which the hierarchies of cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Returns the limits of the group in a line of `/proc/self/cgroup`, and of the groups above it.
/// `mounts` is the directory with the hierarchies.
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

/// Returns the directories from `path` below `root` up to `root`. In a container the path may be
/// the host's, of which only the root is visible.
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

/// The part (1/32) of a group's limit that is not promised to arrays. The group is also charged for
/// the page tables of each process, and for all its other memory.
const GROUP_RESERVE: u64 = 32;

/// Returns the bytes that arrays may still take of the group; `None` if the group has no limit
/// below the machine's memory.
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
    // `None` if there is no limit, or it cannot be read.
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
