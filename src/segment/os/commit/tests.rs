//! The tightest limit, and the pages of files.

use std::fs;

use super::*;
use rustix::fs::MemfdFlags;
use std::os::fd::{AsFd, OwnedFd};

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
