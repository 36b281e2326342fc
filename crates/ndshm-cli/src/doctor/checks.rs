//! The checks, one function per subject.

use std::fs;

use rustix::fs::{Access, StatVfs};
use rustix::process::{Resource, getrlimit};

use super::Check;
use crate::gc;
use crate::output::bytes;
use crate::target;

const MIB: u64 = 1 << 20;
/// Size of /dev/shm in Docker by default.
const DOCKER_SHM: u64 = 64 * MIB;

/// Checks the file system of named segments.
pub fn shm() -> Vec<Check> {
    const NAME: &str = "/dev/shm";
    let (fs, access) = match rustix::fs::statvfs(target::SHM) {
        Ok(fs) => (
            fs,
            rustix::fs::access(target::SHM, Access::WRITE_OK | Access::EXEC_OK),
        ),
        Err(errno) => {
            let remedy = "mount a tmpfs there, or use Segment::anonymous, which needs none";
            return vec![Check::fail(NAME, errno.to_string(), remedy)];
        }
    };
    if let Err(errno) = access {
        let remedy = "named segments cannot be made: let this user write there (mode 1777), or use \
                      Segment::anonymous";
        return vec![Check::fail(NAME, errno.to_string(), remedy)];
    }
    vec![shm_memory(&fs), shm_names(&fs)]
}

fn shm_memory(fs: &StatVfs) -> Check {
    const NAME: &str = "/dev/shm memory";
    let size = fs.f_blocks.saturating_mul(fs.f_frsize);
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    let found = format!("{} of {} free", bytes(free), bytes(size));
    match (size, free) {
        // No limit.
        (0, _) => Check::ok(NAME, "not limited"),
        (_, ..MIB) => Check::fail(
            NAME,
            found,
            "named segments get no memory: remove files there that nobody needs (ndshm gc), or \
             remount it larger (mount -o remount,size=... /dev/shm)",
        ),
        (..=DOCKER_SHM, _) => Check::warn(
            NAME,
            found,
            "in Docker pass --shm-size, in Kubernetes mount an emptyDir of medium Memory, or use \
             Segment::anonymous, which is not limited by it",
        ),
        _ if free < size / 10 => Check::warn(
            NAME,
            found,
            "remove files there that nobody needs (ndshm gc), or remount it larger",
        ),
        _ => Check::ok(NAME, found),
    }
}

fn shm_names(fs: &StatVfs) -> Check {
    const NAME: &str = "/dev/shm names";
    match (fs.f_files, fs.f_favail) {
        (0, _) => Check::ok(NAME, "not limited"),
        (all, 0) => Check::fail(
            NAME,
            format!("none of {all} left"),
            "remount it with more inodes (mount -o remount,nr_inodes=... /dev/shm)",
        ),
        (all, free) => Check::ok(NAME, format!("{free} of {all} left")),
    }
}

/// Checks kernel settings.
pub fn kernel() -> Vec<Check> {
    vec![overcommit(), huge_pages(), mappings()]
}

fn setting(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn overcommit() -> Check {
    const NAME: &str = "overcommit";
    match setting("/proc/sys/vm/overcommit_memory").as_deref() {
        Some("0") => Check::ok(NAME, "0: by estimate"),
        Some("1") => Check::ok(NAME, "1: always"),
        Some("2") => Check::warn(
            NAME,
            "2: never",
            "every page counts against the commit limit, and touching a page beyond it kills the \
             process: sysctl vm.overcommit_memory=0",
        ),
        other => Check::ok(NAME, other.unwrap_or("unknown")),
    }
}

fn huge_pages() -> Check {
    const NAME: &str = "huge pages";
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Some(modes) = setting(path) else {
        return Check::ok(NAME, "none for shared memory");
    };
    let chosen = modes.split(['[', ']']).nth(1).unwrap_or(&modes).to_owned();
    match chosen.as_str() {
        "always" | "force" | "within_size" => Check::warn(
            NAME,
            chosen,
            "the sparse tables of a segment take 2 MiB where they need 4 KiB: write advise to \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled, and have arrays ask for huge pages \
             by SegmentOptions::huge_pages",
        ),
        "deny" => Check::warn(
            NAME,
            chosen,
            "no array can have huge pages: write advise to \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled, and ask for them by \
             SegmentOptions::huge_pages",
        ),
        "never" => Check::ok(
            NAME,
            "never at the first touch; SegmentOptions::huge_pages(HugePages::Collapse) and prefault \
             give them",
        ),
        _ => Check::ok(
            NAME,
            format!("{chosen}: for segments that ask with SegmentOptions::huge_pages"),
        ),
    }
}

fn mappings() -> Check {
    const NAME: &str = "mappings of a process";
    let limit = setting("/proc/sys/vm/max_map_count").and_then(|text| text.parse::<u64>().ok());
    match limit {
        Some(limit @ ..1024) => Check::warn(
            NAME,
            format!("at most {limit}"),
            "each segment takes one: sysctl vm.max_map_count=65530",
        ),
        Some(limit) => Check::ok(NAME, format!("at most {limit}")),
        None => Check::ok(NAME, "unknown"),
    }
}

/// Checks the limits of this process.
pub fn limits() -> Vec<Check> {
    let limit = |resource| getrlimit(resource).current;
    let size = |limit: Option<u64>| limit.map_or("not limited".into(), bytes);
    let check = |name, limit, least: u64, remedy| match limit {
        Some(limit) if limit < least => Check::warn(name, bytes(limit), remedy),
        limit => Check::ok(name, size(limit)),
    };
    vec![
        check(
            "address space (ulimit -v)",
            limit(Resource::As),
            64 << 30,
            "segments are made smaller, to leave half of it to the program: raise it, or choose a \
             suitable capacity",
        ),
        check(
            "file size (ulimit -f)",
            limit(Resource::Fsize),
            64 << 30,
            "a segment is a file of its capacity, most of it a hole: raise it, or choose a smaller \
             capacity",
        ),
        match limit(Resource::Nofile) {
            Some(limit @ ..64) => Check::warn(
                "descriptors (ulimit -n)",
                limit.to_string(),
                "each segment takes one, and each worker of a pool another: raise it",
            ),
            limit => Check::ok(
                "descriptors (ulimit -n)",
                limit.map_or("not limited".into(), |limit| limit.to_string()),
            ),
        },
        // ndshm locks no memory, so the machine may swap it. The limit is for information.
        Check::ok("locked memory (ulimit -l)", size(limit(Resource::Memlock))),
    ]
}

/// Checks for leftovers of crashed programs.
pub fn leftovers() -> Check {
    const NAME: &str = "leftovers";
    let count = gc::all()
        .iter()
        .filter(|leftover| leftover.is_cleanable())
        .count();
    match count {
        0 => Check::ok(NAME, "none"),
        count => Check::warn(NAME, format!("{count} segments"), "see ndshm gc"),
    }
}

/// Checks whether user numbers differ outside this namespace.
pub fn user_namespace() -> Check {
    const NAME: &str = "user namespace";
    let map = setting("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    match words[..] {
        [] => Check::ok(NAME, "unknown"),
        ["0", "0", "4294967295"] => Check::ok(NAME, "that of the machine"),
        _ => Check::ok(
            NAME,
            "one of its own: segments of users outside of it are refused",
        ),
    }
}
