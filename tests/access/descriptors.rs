//! Descriptors that are passed: which files are refused.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;

use ndshm::error::SegmentError;
use ndshm::{Observer, Segment};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::support::Name;
use crate::{STRANGER, may_be_others, options};

/// Returns the error of each way to open a segment by a descriptor.
fn refusals(fd: &OwnedFd) -> [Option<SegmentError>; 3] {
    let copy = || fd.try_clone().unwrap();
    [
        Segment::from_fd(copy()).err(),
        Observer::from_fd(copy()).err(),
        options()
            .owner(STRANGER)
            .mode(0o666)
            .observe_fd(copy())
            .err(),
    ]
}

pub fn an_unsealed_memfd_is_refused() {
    let segment = options().anonymous().unwrap();
    let own = segment.fd().unwrap();
    let size = rustix::fs::fstat(own).unwrap().st_size as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("unsealed", flags).unwrap();
    rustix::fs::ftruncate(&copy, size).unwrap();
    let mut head = [0; 4096];
    rustix::io::pread(own, &mut head, 0).unwrap();
    rustix::io::pwrite(&copy, &head, 0).unwrap();
    for seals in [SealFlags::empty(), SealFlags::GROW, SealFlags::SHRINK] {
        rustix::fs::fcntl_add_seals(&copy, seals).unwrap();
        if seals == SealFlags::SHRINK {
            // The remedy that the error names: now both seals are set.
            assert!(refusals(&copy).iter().all(Option::is_none));
            return;
        }
        for refused in refusals(&copy) {
            assert!(
                matches!(refused, Some(SegmentError::NotSealed)),
                "{refused:?}"
            );
        }
    }
}

pub fn a_memfd_of_huge_pages_is_refused() {
    let segment = Segment::anonymous().unwrap();
    let size = rustix::fs::fstat(segment.fd().unwrap()).unwrap().st_size as u64;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(huge) = rustix::fs::memfd_create("huge", flags) else {
        println!("  (skipped: this kernel has no hugetlbfs)");
        return;
    };
    rustix::fs::ftruncate(&huge, size).unwrap();
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&huge, seals).unwrap();
    for refused in refusals(&huge) {
        let Some(SegmentError::Hugetlb { page, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(page >= 1 << 16, "{page}");
    }
}

/// Checks that a passed descriptor of another user's file is refused.
pub fn a_passed_file_of_another_user_is_refused() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("passed");
    let _segment = options().create(&name.0).unwrap();
    chown(name.path(), Some(STRANGER), None).unwrap();
    let fd = || OwnedFd::from(fs::File::open(name.path()).unwrap());
    for refused in [
        Segment::from_fd(fd()).err(),
        Observer::from_fd(fd()).err(),
        options().owner(STRANGER + 1).observe_fd(fd()).err(),
    ] {
        let text = refused.as_ref().map(ToString::to_string);
        assert!(
            matches!(
                refused,
                Some(SegmentError::PermissionMismatch { uid: STRANGER, .. })
            ),
            "{text:?}"
        );
    }
    options().owner(STRANGER).observe_fd(fd()).unwrap();
}
