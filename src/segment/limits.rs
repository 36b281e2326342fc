//! The memory that the machine and the memory cgroups leave to this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The memory of the machine, and the limits of this process's memory cgroups, at one moment.
///
/// Segments check these limits before they hand out memory: see
/// [`NoMemory`](crate::error::NoMemory).
///
/// ```
/// use ndshm::inspect::MemoryLimits;
///
/// let limits = MemoryLimits::read()?;
/// println!("{} of {} bytes available", limits.available, limits.total);
/// if let Some(group) = limits.tightest_group() {
///     println!("{}: {} of {} bytes available", group.path.display(), group.available, group.limit);
/// }
/// # assert!(limits.total > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryLimits {
    /// Bytes of memory of the machine.
    pub total: u64,
    /// Bytes of memory that the machine can give without swapping.
    pub available: u64,
    /// Bytes of swap space of the machine.
    pub swap_total: u64,
    /// Unused bytes of swap space.
    pub swap_free: u64,
    /// The memory cgroups of this process, and their ancestors, whose limit is below the machine's
    /// memory and swap space together.
    pub groups: Vec<CgroupLimit>,
}

/// The limit of a memory cgroup, version 1 or 2.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CgroupLimit {
    /// The directory of the group below `/sys/fs/cgroup`.
    pub path: PathBuf,
    /// Maximum bytes that the group may use.
    pub limit: u64,
    /// Bytes that the group uses, reclaimable ones included.
    pub used: u64,
    /// Bytes that arrays may still take. Pages of files that the kernel can drop count as
    /// available, and so does the swap space that the group may use. 1/32 of the limit does not:
    /// the group is also charged for page tables and other memory of its processes.
    pub available: u64,
}

/// The part (1/32) of a group's limit that is not promised to arrays.
const GROUP_RESERVE: u64 = 32;

/// Directory in which the hierarchies of cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

impl MemoryLimits {
    /// Reads the limits from `/proc/meminfo` and `/sys/fs/cgroup`.
    ///
    /// [`MemoryLimits`] has an example.
    ///
    /// # Errors
    /// The system's error if `/proc/meminfo` cannot be read; [`io::ErrorKind::InvalidData`] if it
    /// lacks a field. A cgroup counts as unlimited if its files cannot be read.
    pub fn read() -> io::Result<MemoryLimits> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let mut limits = MemoryLimits::of_machine(&meminfo).ok_or_else(|| {
            let what = "/proc/meminfo lacks MemTotal or MemAvailable: mount the real /proc";
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        limits.groups = groups
            .lines()
            .flat_map(|line| limits.groups_of(Path::new(CGROUPS), line))
            .collect();
        Ok(limits)
    }

    /// Returns the group that leaves the least memory; `None` if no group has a limit.
    ///
    /// [`MemoryLimits`] has an example.
    pub fn tightest_group(&self) -> Option<&CgroupLimit> {
        self.groups.iter().min_by_key(|group| group.available)
    }

    /// Returns the default of [`SegmentOptions::retain`](crate::SegmentOptions::retain): a quarter
    /// of the machine's memory, or of the lowest limit of a group if that is less.
    ///
    /// ```
    /// let limits = ndshm::inspect::MemoryLimits::read()?;
    /// assert!(limits.default_retain() <= limits.total / 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn default_retain(&self) -> u64 {
        let limits = self.groups.iter().map(|group| group.limit);
        limits.fold(self.total, u64::min) / 4
    }

    /// Returns the limits of the machine, without groups.
    fn of_machine(meminfo: &str) -> Option<MemoryLimits> {
        let field = |name| meminfo_bytes(meminfo, name);
        Some(MemoryLimits {
            total: field("MemTotal:")?,
            available: field("MemAvailable:")?,
            swap_total: field("SwapTotal:").unwrap_or(0),
            swap_free: field("SwapFree:").unwrap_or(0),
            groups: Vec::new(),
        })
    }

    /// Returns the limits of the group in a line of `/proc/self/cgroup`, and of the groups above
    /// it. `mounts` is the directory with the hierarchies.
    fn groups_of(&self, mounts: &Path, line: &str) -> Vec<CgroupLimit> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            return Vec::new();
        };
        let (hierarchies, files): (&[&str], _) = match controllers {
            "" => (&["", "unified"], &V2),
            list if list.split(',').any(|name| name == "memory") => (&["memory"], &V1),
            _ => return Vec::new(),
        };
        hierarchies
            .iter()
            .flat_map(|hierarchy| groups_up_from(&mounts.join(hierarchy), path))
            .filter_map(|group| self.group(group, files))
            .collect()
    }

    /// Returns the limit of a group; `None` if it has none below the machine's memory and swap.
    fn group(&self, path: PathBuf, files: &CgroupFiles) -> Option<CgroupLimit> {
        let machine = self.total.saturating_add(self.swap_total);
        let number = |file: &str| -> Option<u64> {
            let text = fs::read_to_string(path.join(file)).ok()?;
            text.trim().parse().ok()
        };
        let limit = number(files.limit).filter(|&limit| limit < machine)?;
        let used = number(files.usage)?;
        let stat = fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat
            .lines()
            .find_map(|line| line.strip_prefix(files.reclaimable)?.trim().parse().ok())
            .unwrap_or(0u64);
        // `None` if there is no limit, or it cannot be read.
        let left = |files: Option<(&str, &str)>| -> Option<u64> {
            let (limit, usage) = files?;
            Some(number(limit)?.saturating_sub(number(usage)?))
        };
        let swap = left(files.swap).map_or(self.swap_free, |left| left.min(self.swap_free));
        let both = left(files.both).unwrap_or(u64::MAX);
        let free = limit.saturating_sub(used).saturating_add(swap).min(both);
        let available = free
            .saturating_add(reclaimable)
            .saturating_sub(limit / GROUP_RESERVE);
        Some(CgroupLimit {
            path,
            limit,
            used,
            available,
        })
    }
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

/// Returns the directories from `path` below `root` up to `root`. In a container the path may be
/// the host's, of which only the root is visible.
fn groups_up_from(root: &Path, path: &str) -> Vec<PathBuf> {
    let inside = !path.split('/').any(|part| part == "..");
    let start = match inside {
        true => root.join(path.trim_start_matches('/')),
        false => root.into(),
    };
    start
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests;
