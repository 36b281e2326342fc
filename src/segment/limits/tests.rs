//! Limits of a machine and of its groups, from files that the test writes.

use super::*;

/// Returns the limits of a machine with this much memory and free swap.
fn machine(total: u64, swap_free: u64) -> MemoryLimits {
    MemoryLimits {
        total,
        available: total,
        swap_total: 0,
        swap_free,
        groups: Vec::new(),
    }
}

#[test]
fn meminfo_is_read_in_kib() {
    let text = "MemTotal:       16 kB\nMemAvailable:    12 kB\nSwapFree:  3 kB\n";
    let limits = MemoryLimits::of_machine(text).unwrap();
    assert_eq!((limits.total, limits.available), (16 << 10, 12 << 10));
    assert_eq!((limits.swap_total, limits.swap_free), (0, 3 << 10));
    assert_eq!(MemoryLimits::of_machine("MemTotal: 16 kB\n"), None);
}

#[test]
fn the_machine_and_its_groups_are_read() {
    let limits = MemoryLimits::read().unwrap();
    assert!(limits.total > 16 << 20, "{limits:?}");
    assert!((1..=limits.total).contains(&limits.available), "{limits:?}");
    assert!(limits.swap_free <= limits.swap_total, "{limits:?}");
    let machine = limits.total + limits.swap_total;
    for group in &limits.groups {
        assert!(group.path.starts_with(CGROUPS), "{group:?}");
        assert!(group.limit < machine, "{group:?}");
    }
}

#[test]
fn the_tightest_group_has_the_least_available() {
    let group = |path: &str, available| CgroupLimit {
        path: path.into(),
        limit: 100,
        used: 0,
        available,
    };
    let mut limits = machine(1000, 0);
    assert_eq!(limits.tightest_group(), None);
    limits.groups = vec![group("a", 70), group("b", 50), group("c", 60)];
    assert_eq!(limits.tightest_group(), Some(&group("b", 50)));
}

#[test]
fn the_lowest_limit_decides_what_is_retained() {
    let group = |limit| CgroupLimit {
        path: "a".into(),
        limit,
        used: 0,
        available: 0,
    };
    let mut limits = machine(1000, 0);
    assert_eq!(limits.default_retain(), 250);
    limits.groups = vec![group(400), group(80), group(600)];
    assert_eq!(limits.default_retain(), 20);
    // With swap a limit may lie above the machine's memory.
    limits.groups = vec![group(1200)];
    assert_eq!(limits.default_retain(), 250);
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
    let available = |total, files| {
        let limit = machine(total, 7).group(group.clone(), files)?;
        assert_eq!((limit.limit, limit.used), (1000, 700));
        Some(limit.available)
    };
    write("memory.max", "max\n");
    write("memory.current", "700\n");
    write("memory.stat", "anon 1\ninactive_file 50\n");
    let unlimited = available(4096, &V2);
    write("memory.max", "1000\n");
    let without_swap_file = available(4096, &V2);
    write("memory.swap.max", "9\n");
    write("memory.swap.current", "4\n");
    let with_swap_file = available(4096, &V2);
    let beyond_the_machine = available(1000, &V2);
    write("memory.limit_in_bytes", "1000\n");
    write("memory.usage_in_bytes", "700\n");
    let swap_beside = available(4096, &V1);
    write("memory.memsw.limit_in_bytes", "1000\n");
    write("memory.memsw.usage_in_bytes", "702\n");
    let swap_within = available(4096, &V1);
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
    // Version 1 writes "no limit" as a number beyond the memory of any machine.
    limit("memory", v1_limit, v1_usage, 9_223_372_036_854_771_712);
    limit("x", v1_limit, v1_usage, 320);
    let found = |line: &str| -> Vec<(u64, PathBuf)> {
        let groups = machine(1 << 20, 0).groups_of(&mounts, line);
        let limits = groups
            .into_iter()
            .map(|group| (group.available, group.path));
        limits.collect()
    };
    let group = |available: u64, path: &str| (available, mounts.join(path));
    let unified = found("0::/a/b");
    let (both, other) = (found("7:cpu,memory:/x"), found("3:cpu,cpuacct:/x"));
    let (outside, broken) = (found("0::/../a"), found("memory"));
    fs::remove_dir_all(&mounts).unwrap();
    let expected = [
        group(6200, "a/b"),
        group(3100, "a"),
        group(9300, "unified/a"),
    ];
    assert_eq!(unified, expected);
    assert_eq!(both, [group(12400, "memory/x")]);
    assert_eq!((other, outside, broken), (vec![], vec![], vec![]));
}
