//! Segments against the real kernel.

mod edges;
mod places;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{RwLock, RwLockReadGuard};
use std::time::Duration;

use super::{Segment, SegmentOptions};
use crate::layout::{Geometry, Header, LAYOUT_VERSION, Layout};
use crate::segment::error::SegmentError;
use crate::sync::Ordering;

/// A forked child keeps its parent's locks. Tests that fork write-lock this; tests that expect a
/// lock to end read-lock it.
pub(crate) static FORKS: RwLock<()> = RwLock::new(());

pub(crate) fn no_forks() -> RwLockReadGuard<'static, ()> {
    FORKS
        .read()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A name that no other test and no other run uses. It is removed on drop, even if the test fails.
pub(super) struct Name(pub(super) String);

impl Name {
    pub(super) fn new(test: &str) -> Name {
        Name(format!("ndshm-unit-{}-{test}", std::process::id()))
    }

    fn path(&self) -> String {
        format!("/dev/shm/{}", self.0)
    }

    pub(super) fn exists(&self) -> bool {
        fs::exists(self.path()).unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

pub(super) fn small() -> SegmentOptions {
    Segment::options()
        .capacity(8 << 20)
        .seats(2)
        .arrays(64)
        .open_timeout(Duration::from_millis(100))
}

fn small_size() -> u64 {
    let geometry = Geometry {
        capacity: 8 << 20,
        seats: 2,
        spans: Geometry::MIN_SPANS,
        span_slots: Geometry::SPAN_SLOTS,
    };
    Layout::new(geometry).total
}

/// Opens the same anonymous segment again, through its own description.
fn again(segment: &Segment) -> Segment {
    Segment::from_fd(segment.inheritable_fd().unwrap()).unwrap()
}

fn write(segment: &Segment, offset: u64, bytes: &[u8]) {
    let at = segment.memory().data(offset, bytes.len() as u64).unwrap();
    // SAFETY: `data` has checked the range, to which this test has exclusive access.
    unsafe { at.copy_from(std::ptr::NonNull::from(bytes).cast(), bytes.len()) };
}

fn read(segment: &Segment, offset: u64) -> u8 {
    let at = segment.memory().data(offset, 1).unwrap();
    // SAFETY: `data` has checked the range, and no write happens meanwhile.
    unsafe { at.read_volatile() }
}

#[test]
fn the_default_anonymous_segment_is_huge_and_takes_no_memory() {
    let segment = Segment::anonymous().unwrap();
    assert!(segment.capacity() >= 16 << 20);
    assert_eq!(segment.max_seats(), 256);
    assert_eq!(segment.name(), None);
    let file = fs::File::from(segment.inheritable_fd().unwrap());
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_passed_descriptor_leads_to_the_same_bytes_and_key() {
    let segment = small().anonymous().unwrap();
    let other = again(&segment);
    assert_eq!(other.key(), segment.key());
    assert_ne!(segment.key(), 0);
    assert_eq!(
        (other.capacity(), other.max_seats(), other.max_arrays()),
        (8 << 20, 2, 1 << 16)
    );
    write(&segment, 77, b"x");
    assert_eq!(read(&other, 77), b'x');
}

#[test]
fn seats_are_locked_between_descriptions_and_within_one() {
    let _quiet = no_forks();
    let segment = small().anonymous().unwrap();
    let other = again(&segment);
    assert!(segment.try_lock_seat(0, None).unwrap());
    assert!(!segment.try_lock_seat(0, None).unwrap());
    assert!(!other.try_lock_seat(0, Some(1)).unwrap());
    assert!(other.try_lock_seat(1, None).unwrap());
    segment.unlock_seat(0);
    assert!(other.try_lock_seat(0, Some(1)).unwrap());
    // All locks of the other segment end with it.
    drop(other);
    assert!(segment.try_lock_seat(0, None).unwrap());
    assert!(segment.try_lock_seat(1, None).unwrap());
}

#[test]
fn seats_of_an_in_process_segment_can_die_by_script() {
    let segment = small().in_process().unwrap();
    assert!(segment.try_lock_seat(0, None).unwrap());
    assert!(!segment.clone().try_lock_seat(0, None).unwrap());
    segment.model_kill(0);
    assert!(segment.try_lock_seat(0, Some(1)).unwrap());
    assert!(matches!(
        segment.inheritable_fd(),
        Err(SegmentError::NotShared)
    ));
}

#[test]
fn a_memfd_that_could_shrink_is_refused() {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("unsealed", flags).unwrap();
    let error = Segment::from_fd(fd).unwrap_err();
    assert!(matches!(error, SegmentError::NotSealed), "{error}");
    let error = Segment::from_fd(fs::File::open("/proc/self/exe").unwrap().into()).unwrap_err();
    assert!(
        matches!(
            error,
            SegmentError::Os { .. } | SegmentError::NotOurs { .. }
        ),
        "{error}"
    );
}

#[test]
fn what_the_machine_has_not_is_refused() {
    let geometry = Geometry {
        capacity: 1 << 46,
        seats: 1,
        spans: Geometry::MIN_SPANS,
        span_slots: Geometry::SPAN_SLOTS,
    };
    // Tests may run with a limited address space, in which 64 TiB do not fit. The refusal below is
    // the same in a smaller segment.
    let huge = Segment::options()
        .capacity(geometry.capacity - (64 << 10))
        .anonymous();
    if let Ok(segment) = huge {
        let error = segment.commit(0, 1 << 45).unwrap_err();
        assert_eq!(
            (error.need, error.have < 1 << 45),
            (1 << 45, true),
            "{error}"
        );
    }
    let segment = small().in_process().unwrap();
    let error = segment.commit(1 << 20, 8 << 20).unwrap_err();
    assert_eq!((error.need, error.have), (8 << 20, 7 << 20), "{error}");
    assert_eq!(segment.commit(1 << 20, 7 << 20), Ok(()));
    assert!(segment.commit(u64::MAX, u64::MAX).is_err());
}

#[test]
fn punched_pages_read_as_zeros() {
    let name = Name::new("punch");
    let segments = [
        small().anonymous().unwrap(),
        small().in_process().unwrap(),
        small().create(&name.0).unwrap(),
    ];
    for segment in segments {
        segment.commit(0, 2 << 20).unwrap();
        write(&segment, 0, &vec![7; 2 << 20]);
        assert!(segment.punch(64 << 10, 1 << 20));
        assert_eq!(
            (read(&segment, (64 << 10) - 1), read(&segment, 64 << 10)),
            (7, 0)
        );
        let end = (1 << 20) + (64 << 10);
        assert_eq!((read(&segment, end - 1), read(&segment, end)), (0, 7));
        assert!(!segment.punch(1, 16), "no whole page");
        assert!(!segment.punch(end + 1, 256 << 10), "not the first page");
        assert_eq!((read(&segment, 1), read(&segment, end + 1)), (7, 7));
        assert!(!segment.punch(8 << 20, 4096), "outside");
    }
}

#[test]
fn named_extents_are_allocated_before_they_are_touched() {
    let name = Name::new("blocks");
    let segment = small().create(&name.0).unwrap();
    let blocks = || fs::metadata(name.path()).unwrap().blocks() * 512;
    let before = blocks();
    assert!(
        before >= 512 << 10,
        "the schemas alone have half a MiB: {before}"
    );
    segment.commit(0, 4 << 20).unwrap();
    assert_eq!(blocks(), before + (4 << 20));
    segment.commit(0, 4 << 20).unwrap();
    assert_eq!(blocks(), before + (4 << 20));
    segment.commit_slots(0, 64).unwrap();
    assert!(blocks() > before + (4 << 20));
}

#[test]
fn a_name_lives_as_long_as_someone_is_in() {
    let _quiet = no_forks();
    let name = Name::new("life");
    assert!(matches!(
        small().open(&name.0),
        Err(SegmentError::NotFound { .. })
    ));
    let creator = small().create(&name.0).unwrap();
    assert!(matches!(
        small().create(&name.0),
        Err(SegmentError::Exists { .. })
    ));
    // An existing segment keeps its own geometry.
    let second = small().capacity(1 << 30).seats(7).open(&name.0).unwrap();
    assert_eq!((second.capacity(), second.max_seats()), (8 << 20, 2));
    assert_eq!(
        (second.key(), second.name()),
        (creator.key(), Some(name.0.as_str()))
    );
    write(&creator, 0, b"y");
    drop(creator);
    assert_eq!(read(&second, 0), b'y');
    let third = small().open_or_create(&name.0).unwrap();
    assert_eq!(third.key(), second.key());
    drop(second);
    assert!(name.exists());
    drop(third);
    assert!(!name.exists());
}

#[test]
fn a_persistent_name_stays_until_it_is_told_otherwise() {
    let _quiet = no_forks();
    let name = Name::new("persist");
    let key = small().persistent(true).create(&name.0).unwrap().key();
    assert!(name.exists());
    let segment = small().open(&name.0).unwrap();
    assert_eq!((segment.key(), segment.is_persistent()), (key, true));
    segment.persist(false);
    drop(segment);
    assert!(!name.exists());
}

#[test]
fn a_descriptor_of_a_named_segment_is_a_membership() {
    let _quiet = no_forks();
    let name = Name::new("passed");
    let segment = small().create(&name.0).unwrap();
    let other = again(&segment);
    assert_eq!(other.name(), Some(name.0.as_str()));
    drop(segment);
    assert!(name.exists());
    drop(other);
    assert!(!name.exists());
}

#[test]
fn a_creator_that_died_at_once_does_not_block_its_name() {
    let _quiet = no_forks();
    for (test, size) in [("empty", 0), ("sized", 12345)] {
        let name = Name::new(test);
        let file = fs::File::create(name.path()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        file.set_len(size).unwrap();
        let error = small().open(&name.0).unwrap_err();
        assert!(matches!(error, SegmentError::NotInitialized { size: found, .. } if found == size));
        assert!(name.exists(), "a mere opener removes nothing");
        let segment = small().open_or_create(&name.0).unwrap();
        assert_eq!(segment.capacity(), 8 << 20);
    }
}

#[test]
fn a_sized_file_without_a_header_is_brought_to_life() {
    let name = Name::new("headless");
    let file = fs::File::create(name.path()).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .unwrap();
    file.set_len(small_size()).unwrap();
    let segment = small().open(&name.0).unwrap();
    let word = segment.memory().header()[Header::ALIVE].load(Ordering::Relaxed);
    assert_eq!(Header::decode(word), Ok(segment.memory().layout().geometry));
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let _quiet = no_forks();
    let name = Name::new("alien");
    let sized = |first: u64, len: u64| {
        let file = fs::File::create(name.path()).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        fs::write(name.path(), first.to_le_bytes()).unwrap();
        file.set_len(len).unwrap();
        let error = small().open_or_create(&name.0).unwrap_err();
        assert!(name.exists());
        error
    };
    let header = Header::encode(&small().in_process().unwrap().memory().layout().geometry);
    let error = sized(0x1234, small_size());
    assert!(error.to_string().contains("0x0000000000001234"), "{error}");
    let error = sized(header, small_size() - 1);
    assert!(matches!(error, SegmentError::NotOurs { .. }), "{error}");
    let error = sized(header + (1 << 16), small_size());
    let versions = matches!(
        error,
        SegmentError::Version {
            found,
            supported: LAYOUT_VERSION,
            ..
        } if found == LAYOUT_VERSION + 1
    );
    assert!(versions, "{error}");
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let name = Name::new("foreign");
    let segment = small().create(&name.0).unwrap();
    let mode = fs::metadata(name.path()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::set_permissions(name.path(), fs::Permissions::from_mode(0o620)).unwrap();
    let error = small().open(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::PermissionMismatch { mode: 0o620, .. }),
        "{error}"
    );
    drop(segment);
}

#[test]
fn names_are_checked_before_anything_is_made() {
    let long = "n".repeat(251);
    for name in ["", ".", "..", "/a", "a/b", "a\0b", long.as_str()] {
        let error = small().open_or_create(name).unwrap_err();
        assert!(
            matches!(error, SegmentError::Name { .. }),
            "{name:?}: {error}"
        );
    }
}

#[test]
fn racing_openers_agree_and_leave_nothing() {
    let _quiet = no_forks();
    let name = Name::new("race");
    for _ in 0..20 {
        let barrier = std::sync::Barrier::new(4);
        let open = || {
            barrier.wait();
            let options = small().open_timeout(Duration::from_secs(20));
            let segment = options.open_or_create(&name.0).unwrap();
            barrier.wait();
            let key = segment.key();
            // All leave at once.
            drop(segment);
            key
        };
        let keys: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(keys, [keys[0]; 4]);
        assert!(!name.exists());
    }
}

#[test]
fn a_descriptor_stays_valid_and_is_closed_on_exec() {
    let segment = small().anonymous().unwrap();
    let flags = rustix::io::fcntl_getfd(segment.fd().unwrap()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let passed: OwnedFd = segment.inheritable_fd().unwrap();
    let flags = rustix::io::fcntl_getfd(passed.as_fd()).unwrap();
    assert!(!flags.contains(rustix::io::FdFlags::CLOEXEC));
}
