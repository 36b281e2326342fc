//! Limits of a machine and of its groups, and the pages of files.

use super::*;
use rustix::fs::MemfdFlags;
use std::os::fd::{AsFd, OwnedFd};

#[test]
fn meminfo_is_read_in_kib() {
    let text = "MemTotal:       16 kB\nMemAvailable:    12 kB\nSwapFree:  0 kB\n";
    assert_eq!(meminfo_bytes(text, "MemAvailable:"), Some(12 << 10));
    assert_eq!(meminfo_bytes(text, "SwapFree:"), Some(0));
    assert_eq!(meminfo_bytes(text, "Mlocked:"), None);
}

#[test]
fn groups_end_at_the_root() {
    let root = Path::new("/sys/fs/cgroup");
    let groups = groups_up_from(root, "/a/b");
    let expected = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"];
    assert_eq!(groups, expected.map(PathBuf::from));
    assert_eq!(groups_up_from(root, "/../x"), [root]);
    assert_eq!(groups_up_from(root, "/"), [root]);
}

#[test]
fn a_group_has_what_it_may_take_and_what_it_can_drop() {
    let group = std::env::temp_dir().join(format!("ndshm-cgroup-{}", std::process::id()));
    fs::create_dir(&group).unwrap();
    let write = |file: &str, text: &str| fs::write(group.join(file), text).unwrap();
    write("memory.max", "max\n");
    write("memory.current", "700\n");
    write("memory.stat", "anon 1\ninactive_file 50\n");
    let unlimited = cgroup_free(&group, &V2, 4096, 7);
    write("memory.max", "1000\n");
    let without_swap_file = cgroup_free(&group, &V2, 4096, 7);
    write("memory.swap.max", "9\n");
    write("memory.swap.current", "4\n");
    let with_swap_file = cgroup_free(&group, &V2, 4096, 7);
    let beyond_the_machine = cgroup_free(&group, &V2, 1000, 7);
    write("memory.limit_in_bytes", "1000\n");
    write("memory.usage_in_bytes", "700\n");
    let swap_beside = cgroup_free(&group, &V1, 4096, 7);
    write("memory.memsw.limit_in_bytes", "1000\n");
    write("memory.memsw.usage_in_bytes", "702\n");
    let swap_within = cgroup_free(&group, &V1, 4096, 7);
    fs::remove_dir_all(&group).unwrap();
    assert_eq!((unlimited, beyond_the_machine), (None, None));
    assert_eq!(without_swap_file, Some(357 - 1000 / 32));
    assert_eq!(with_swap_file, Some(355 - 1000 / 32));
    assert_eq!(swap_beside, Some(307 - 1000 / 32));
    assert_eq!(swap_within, Some(298 - 1000 / 32));
}

#[test]
fn every_hierarchy_with_a_memory_controller_has_its_limits() {
    let mounts = std::env::temp_dir().join(format!("ndshm-cgroups-{}", std::process::id()));
    let limit = |group: &str, limit: &str, usage: &str, bytes: u64| {
        let group = mounts.join(group);
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join(limit), bytes.to_string()).unwrap();
        fs::write(group.join(usage), "0").unwrap();
    };
    limit("a", "memory.max", "memory.current", 3200);
    limit("a/b", "memory.max", "memory.current", 6400);
    limit("unified/a", "memory.max", "memory.current", 9600);
    let (v1_limit, v1_usage) = ("memory.limit_in_bytes", "memory.usage_in_bytes");
    limit("memory/x", v1_limit, v1_usage, 12800);
    limit("x", v1_limit, v1_usage, 320);
    let supplies = |line: &str| -> Vec<(u64, String)> {
        let found = cgroup_supplies(mounts.to_str().unwrap(), line, 1 << 20, 0);
        let whats = found.into_iter().map(|supply| (supply.have, supply.what));
        whats.collect()
    };
    let group = |have: u64, path: &str| {
        let path = mounts.join(path);
        (have, format!("the memory cgroup {}", path.display()))
    };
    let unified = supplies("0::/a/b");
    let (both, other) = (supplies("7:cpu,memory:/x"), supplies("3:cpu,cpuacct:/x"));
    let broken = supplies("memory");
    fs::remove_dir_all(&mounts).unwrap();
    let expected = [
        group(6200, "a/b"),
        group(3100, "a"),
        group(9300, "unified/a"),
    ];
    assert_eq!(unified, expected);
    assert_eq!(both, [group(12400, "memory/x")]);
    assert_eq!((other, broken), (vec![], vec![]));
}

/// Creates a file of `mib` MiB without a page, and a mapping of it.
fn file(mib: u64) -> (OwnedFd, Mapping) {
    let fd = rustix::fs::memfd_create("commit", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, mib << 20).unwrap();
    let mapping = Mapping::of_file(fd.as_fd(), mib << 20).unwrap();
    (fd, mapping)
}

fn there(fd: &OwnedFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_blocks as u64 * 512
}

/// Returns `true` if the system makes huge pages of a memfd's pages unasked.
fn pages_are_huge() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let unasked = ["[always]", "[within_size]", "[force]"];
    setting.is_ok_and(|text| unasked.iter().any(|value| text.contains(value)))
}

#[test]
fn the_pages_of_a_range_are_allocated_and_no_others() {
    if pages_are_huge() {
        return;
    }
    let page = page_size() as u64;
    for way in [Way::File, Way::Touch] {
        let ranges = [
            (0, 1, page),
            (0, 33 << 20, 33 << 20),
            (page + page * 3 / 4, page / 4, page),
            (page + page * 3 / 4, page / 4 + 1, 2 * page),
            (2 * page - 1, page + 2, 3 * page),
            (3 * page, 0, 0),
        ];
        for (offset, len, expected) in ranges {
            let (fd, mapping) = file(40);
            allocate(Some(fd.as_fd()), &mapping, offset, len, way).unwrap();
            assert_eq!(there(&fd), expected, "{way:?} of {len} at {offset}");
            // Once more: the allocated range is this one, not another one of its size.
            let (first, last) = (offset - offset % page, (offset + len).max(1) - 1);
            for at in [first, last] {
                let at = at - at % page;
                if len > 0 {
                    fill(Some(fd.as_fd()), at, page).unwrap();
                }
            }
            assert_eq!(there(&fd), expected, "{way:?} of {len} at {offset}");
        }
    }
}

#[test]
fn without_a_descriptor_the_mapping_is_touched() {
    if pages_are_huge() {
        return;
    }
    let page = page_size() as u64;
    let (fd, mapping) = file(1);
    allocate(None, &mapping, page, 2 * page, Way::File).unwrap();
    assert_eq!(there(&fd), 2 * page);
}

#[test]
fn what_a_mapping_cannot_populate_the_file_does() {
    if pages_are_huge() {
        return;
    }
    let page = page_size() as u64;
    let (fd, mapping) = file(1);
    // An address within a page is refused with the error of a kernel that knows no such advice.
    assert_eq!(populate(None, &mapping, 100, page), Ok(()));
    assert_eq!(there(&fd), 0);
    assert_eq!(populate(Some(fd.as_fd()), &mapping, 100, 10), Ok(()));
    assert_eq!(there(&fd), page);
    assert_eq!(populate(None, &mapping, page, page), Ok(()));
    assert_eq!(there(&fd), 2 * page);
}

#[test]
fn a_refused_allocation_says_what_to_do() {
    let full = file_system_full(7, Errno::NOSPC);
    assert_eq!((full.need, full.what.as_str()), (7, "/dev/shm"));
    assert_eq!(full.remedy, super::super::file::SHM_REMEDY);
    let other = file_system_full(7, Errno::PERM);
    assert!(other.what.starts_with("fallocate failed"), "{other}");
    assert!(other.remedy.contains("anonymous"), "{other}");
}

#[test]
fn the_machine_has_memory() {
    assert!(total_memory() > 16 << 20, "{}", total_memory());
    let supply = tightest_supply().unwrap();
    assert!(supply.have <= 1 << 60, "{}", supply.have);
}

#[test]
fn an_interrupted_step_is_halved_down_to_a_page() {
    assert_eq!(smaller(STEP, 4096), STEP / 2);
    assert_eq!(smaller(8192, 4096), 4096);
    assert_eq!(smaller(4096, 4096), 4096);
}
