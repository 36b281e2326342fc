//! Memory cgroups: the test creates a group with a limit and moves a child into it.

use std::fs;
use std::io;
use std::path::PathBuf;

use ndshm::error::AllocError;
use ndshm::{HandleTable, Segment};

use crate::common::{Bytes, KIB, MIB, assert_usable, free_all, no_memory, report, says};
use crate::support::{Child, Pipe, eventually};

const LIMIT: u64 = 64 << 20;

/// A cgroup with a memory limit. Drop removes it, when its processes have ended.
struct Group {
    path: PathBuf,
    v1: bool,
}

impl Group {
    /// Creates the group. Where this is not allowed, prints the reason and returns `None`.
    fn new() -> Option<Group> {
        let name = format!("ndshm-test-{}", std::process::id());
        let mut problem = String::from("no hierarchy with a memory controller is mounted");
        for (root, v1) in [("/sys/fs/cgroup/memory", true), ("/sys/fs/cgroup", false)] {
            let control = if v1 {
                "memory.limit_in_bytes"
            } else {
                "cgroup.controllers"
            };
            let root = PathBuf::from(root);
            if !root.join(control).exists() {
                continue;
            }
            let group = Group {
                path: root.join(&name),
                v1,
            };
            match group.set_up() {
                Ok(true) => return Some(group),
                Ok(false) => {
                    println!("  skipped: this group cannot be kept from using swap");
                    return None;
                }
                Err(error) => problem = format!("{}: {error}", group.path.display()),
            }
        }
        println!("  skipped: no right to make a memory cgroup ({problem})");
        None
    }

    /// Creates the group. Returns `true` if its limit is enforced without swap.
    fn set_up(&self) -> io::Result<bool> {
        fs::create_dir(&self.path)?;
        let limit = LIMIT.to_string();
        let set = |file: &str, limit: &str| fs::write(self.path.join(file), limit);
        let without_swap = if self.v1 {
            set("memory.limit_in_bytes", &limit)?;
            set("memory.memsw.limit_in_bytes", &limit)
        } else {
            set("memory.max", &limit)?;
            set("memory.swap.max", "0")
        };
        let swaps = fs::read_to_string("/proc/swaps")?;
        Ok(without_swap.is_ok() || swaps.lines().count() <= 1)
    }

    /// Moves this process into the group.
    fn enter(&self) {
        fs::write(
            self.path.join("cgroup.procs"),
            std::process::id().to_string(),
        )
        .unwrap();
    }

    /// Returns how often the kernel has killed a process of this group.
    fn kills(&self) -> u64 {
        let file = if self.v1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
            .unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.path.exists() {
            eventually("the group is empty", || fs::remove_dir(&self.path).is_ok());
        }
    }
}

/// Runs `life` in a child inside a group. The child must succeed, and the kernel must kill no
/// process.
fn inside(life: impl Fn(&Group)) {
    let Some(group) = Group::new() else { return };
    let child = Child::fork(|| {
        group.enter();
        life(&group);
    });
    let status = child.wait_within(crate::support::DEADLINE);
    let kills = group.kills();
    let status = status.expect("the child hangs");
    assert!(
        status.success(),
        "the child ended with {status}, {kills} OOM kills"
    );
    assert_eq!(kills, 0);
}

/// Creates untouched arrays until one is refused.
fn promised(table: &HandleTable, bytes: usize) -> (Vec<Bytes>, AllocError) {
    let mut arrays = Vec::new();
    loop {
        match table.zeros(bytes) {
            Ok(array) => arrays.push(array),
            Err(error) => return (arrays, error),
        }
        assert!(
            arrays.len() * bytes < 1 << 30,
            "1 GiB was promised out of 64 MiB"
        );
    }
}

/// Writes every page of every array.
fn touch(table: &HandleTable, arrays: &[Bytes]) {
    for &array in arrays {
        table.write(array).unwrap().fill(1);
    }
}

fn anonymous() -> HandleTable {
    HandleTable::join(&Segment::anonymous().unwrap()).unwrap()
}

pub fn a_request_beyond_the_limit_is_refused() {
    inside(|group| {
        let table = anonymous();
        let refused = no_memory(table.zeros::<u8, _>(80 * MIB).unwrap_err());
        assert_eq!(refused.need, 80 << 20);
        assert!(
            refused.have <= LIMIT && refused.have > LIMIT / 2,
            "{refused}"
        );
        assert!(
            refused.what.contains(group.path.to_str().unwrap()),
            "{refused}"
        );
        says(&refused, &["memory limit of the container"]);
        let fits: Bytes = table.from_elem(30 * MIB, 1).unwrap();
        table.free(fits).unwrap();
        assert_usable(&table);
        report("one request of 80 MiB in a group of 64 MiB", refused);
    });
}

pub fn large_requests_add_up() {
    inside(|_| {
        let table = anonymous();
        for bytes in [8 * MIB, 3 * MIB, MIB] {
            let (arrays, error) = promised(&table, bytes);
            let refused = no_memory(error);
            let sum = arrays.len() * bytes;
            assert!(sum as u64 <= LIMIT && sum as u64 > LIMIT / 2, "{sum}");
            touch(&table, &arrays);
            // The number is the same after all arrays were freed and their pages given back.
            let count = arrays.len();
            free_all(&table, arrays);
            table.trim().unwrap();
            let (again, _) = promised(&table, bytes);
            assert!(again.len() + 1 >= count, "{} of {count}", again.len());
            touch(&table, &again);
            free_all(&table, again);
            assert_usable(&table);
            table.trim().unwrap();
            report(
                "untouched large arrays in a group of 64 MiB",
                format!("{count} of {} MiB; {refused}", bytes / MIB),
            );
        }
    });
}

pub fn small_requests_add_up() {
    inside(|_| {
        let table = anonymous();
        for bytes in [600 * KIB, 64 * KIB, 16 * KIB, 1000] {
            let (arrays, error) = promised(&table, bytes);
            let refused = no_memory(error);
            let sum = arrays.len() * bytes;
            assert!(sum as u64 <= LIMIT && sum as u64 > LIMIT / 3, "{sum}");
            touch(&table, &arrays);
            let count = arrays.len();
            free_all(&table, arrays);
            table.trim().unwrap();
            assert_usable(&table);
            table.trim().unwrap();
            report(
                "untouched small arrays in a group of 64 MiB",
                format!("{count} of {bytes} B; {refused}"),
            );
        }
    });
}

pub fn requests_of_two_processes_add_up() {
    inside(|_| {
        let table = anonymous();
        let (told, go) = (Pipe::new(), Pipe::new());
        let other = Child::fork(|| {
            let arrays: Vec<Bytes> = (0..3).map(|_| table.zeros(8 * MIB).unwrap()).collect();
            told.send(1);
            go.receive();
            touch(&table, &arrays);
            told.send(2);
            go.receive();
            free_all(&table, arrays);
        });
        told.receive();
        let (arrays, error) = promised(&table, 8 * MIB);
        let refused = no_memory(error);
        touch(&table, &arrays);
        go.send(0);
        told.receive();
        go.send(0);
        other.join();
        let count = arrays.len();
        assert!((2..=5).contains(&count), "{count}");
        free_all(&table, arrays);
        assert_usable(&table);
        report(
            "another process has 24 MiB untouched",
            format!("{count} of 8 MiB here; {refused}"),
        );
    });
}

pub fn freed_pages_serve_others() {
    inside(|_| {
        let table = anonymous();
        for round in 0..3 {
            let large: Vec<Bytes> = (0..10)
                .map(|_| table.from_elem(4 * MIB, 1).unwrap())
                .collect();
            free_all(&table, large);
            // Their pages are retained without an owner.
            let small: Vec<Bytes> = (0..40)
                .map(|at| {
                    let made = table.from_elem(MIB, 1);
                    made.unwrap_or_else(|error| panic!("round {round}, array {at}: {error}"))
                })
                .collect();
            free_all(&table, small);
        }
        assert_usable(&table);
        report(
            "freed pages in a group",
            "3 times 40 MiB of 4 MiB, then of 1 MiB",
        );
    });
}

pub fn requests_in_named_segments_add_up() {
    let name = crate::support::Name::new("group");
    inside(|_| {
        // The pages of a named segment are charged to the group that asks for them.
        let table = HandleTable::join(&Segment::create(&name.0).unwrap()).unwrap();
        let (arrays, error) = promised(&table, 3 * MIB);
        let refused = no_memory(error);
        touch(&table, &arrays);
        let count = arrays.len();
        free_all(&table, arrays);
        table.trim().unwrap();
        assert_usable(&table);
        report(
            "a named segment in a group",
            format!("{count} of 3 MiB; {refused}"),
        );
    });
    assert!(!name.exists());
}
