//! Checks the memory of the machine and of this process's memory cgroups.

use std::io;

use ndshm::inspect::MemoryLimits;

use super::Check;
use crate::output::bytes;

/// Checks the limits that segments check before they hand out memory.
pub fn checks() -> Vec<Check> {
    of(&MemoryLimits::read())
}

fn of(limits: &io::Result<MemoryLimits>) -> Vec<Check> {
    match limits {
        Ok(limits) => vec![machine(limits), cgroup(limits)],
        Err(error) => vec![Check::warn(
            "memory",
            format!("/proc/meminfo cannot be read: {error}"),
            "mount /proc",
        )],
    }
}

fn machine(limits: &MemoryLimits) -> Check {
    const NAME: &str = "memory";
    let (total, free) = (limits.total, limits.available);
    let found = format!("{} of {} available", bytes(free), bytes(total));
    match free < total / 20 {
        true => Check::warn(
            NAME,
            found,
            "allocations that the machine cannot keep are refused",
        ),
        false => Check::ok(NAME, found),
    }
}

fn cgroup(limits: &MemoryLimits) -> Check {
    const NAME: &str = "memory cgroup";
    let Some(group) = limits.tightest_group() else {
        return Check::ok(NAME, "not limited");
    };
    let found = format!(
        "{} of {} available in {}",
        bytes(group.available),
        bytes(group.limit),
        group.path.display()
    );
    match group.available < group.limit / 10 {
        true => Check::warn(
            NAME,
            found,
            "raise the memory limit of the container or job, or free arrays",
        ),
        false => Check::ok(NAME, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn little_memory_is_a_warning() {
        let mut limits = MemoryLimits::read().unwrap();
        limits.total = 1000 << 20;
        for (available, status) in [(49 << 20, Status::Warn), (50 << 20, Status::Ok)] {
            limits.available = available;
            assert_eq!(machine(&limits).status, status, "{available}");
        }
        assert_eq!(machine(&limits).found, "50 MiB of 1000 MiB available");
    }

    #[test]
    fn a_machine_that_tells_nothing_is_a_warning() {
        let checks = of(&Err(io::ErrorKind::NotFound.into()));
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].status, Status::Warn);
        assert!(checks[0].found.starts_with("/proc/meminfo cannot be read"));
    }

    #[test]
    fn without_groups_memory_is_not_limited() {
        let mut limits = MemoryLimits::read().unwrap();
        limits.groups.clear();
        assert_eq!(cgroup(&limits).found, "not limited");
    }
}
