//! The memory cgroups of this process, version 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

use super::Check;
use crate::output::bytes;

/// Limit and usage of a group.
struct Group {
    path: PathBuf,
    limit: u64,
    used: u64,
}

/// Checks the group with the least free memory among this process's groups and their ancestors.
pub fn check() -> Check {
    const NAME: &str = "memory cgroup";
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let tightest = groups
        .lines()
        .flat_map(|line| limits(Path::new("/sys/fs/cgroup"), line))
        .min_by_key(|group| group.limit.saturating_sub(group.used));
    let Some(group) = tightest else {
        return Check::ok(NAME, "not limited");
    };
    let free = group.limit.saturating_sub(group.used);
    let found = format!(
        "{} of {} free in {}",
        bytes(free),
        bytes(group.limit),
        group.path.display()
    );
    match free < group.limit / 10 {
        true => Check::warn(
            NAME,
            found,
            "raise the memory limit of the container or job, or free arrays; reclaimable file \
             pages count as used here",
        ),
        false => Check::ok(NAME, found),
    }
}

/// Returns the groups with a limit that a line of `/proc/self/cgroup` names, below `mount`.
fn limits(mount: &Path, line: &str) -> Vec<Group> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (roots, limit, used) = match controllers {
        "" => (
            vec![mount.to_owned(), mount.join("unified")],
            "memory.max",
            "memory.current",
        ),
        list if list.split(',').any(|name| name == "memory") => (
            vec![mount.join("memory")],
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
        _ => return Vec::new(),
    };
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let mut found = Vec::new();
    for root in roots {
        // In a container the path may be the host's: then only the root is visible.
        let inside = !path.split('/').any(|part| part == "..");
        let below = if inside {
            path.trim_start_matches('/')
        } else {
            ""
        };
        let start = root.join(below);
        let above = start
            .ancestors()
            .take_while(|group| group.starts_with(&root));
        found.extend(above.filter_map(|group| {
            Some(Group {
                // Version 1 expresses "no limit" as a number beyond the size of any machine.
                limit: number(group.join(limit)).filter(|&limit| limit < 1 << 60)?,
                used: number(group.join(used))?,
                path: group.to_owned(),
            })
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_up_to_the_root() {
        let mount = std::env::temp_dir().join(format!("ndshm-doctor-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let file = mount.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "10\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "400\n");
        write("memory/j/memory.limit_in_bytes", "500\n");
        write("memory/j/memory.usage_in_bytes", "100\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/memory.usage_in_bytes", "7\n");
        let of = |line: &str| -> Vec<(u64, u64)> {
            let groups = limits(&mount, line);
            groups
                .iter()
                .map(|group| (group.limit, group.used))
                .collect()
        };
        let found = (
            of("0::/a/b"),
            of("4:cpu,memory:/j"),
            of("3:cpu:/a"),
            of("0::/../x"),
            of("x"),
        );
        fs::remove_dir_all(&mount).unwrap();
        assert_eq!(found.0, [(1000, 400)]);
        assert_eq!(found.1, [(500, 100)]);
        assert_eq!((found.2, found.3, found.4), (vec![], vec![], vec![]));
    }
}
