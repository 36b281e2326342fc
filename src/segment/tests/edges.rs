//! Limits: each refusal with its reason, and the nearest case that is not refused.

use super::super::geometry::{can_be_smaller, make_largest};
use super::super::lifecycle::{initialize, remove};
use super::super::limits::MemoryLimits;

use super::super::mapped::description::Description;
use super::super::os::check;
use super::super::os::file::{self, FileId, Kind, header_word, os_error};
use super::super::os::mapping::Mapping;
use super::super::os::retry::RetryDeadline;
use super::super::{Removal, WeakSegment};
use super::*;
use rustix::io::Errno;
use std::os::fd::AsRawFd;

/// Creates a file under a segment's name that begins with these words.
fn made(name: &Name, words: &[u64], mode: u32) -> fs::File {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(name.path(), bytes).unwrap();
    fs::set_permissions(name.path(), fs::Permissions::from_mode(mode)).unwrap();
    fs::File::open(name.path()).unwrap()
}

fn header() -> u64 {
    Header::encode(&small().in_process().unwrap().memory().layout().geometry)
}

#[test]
fn a_smaller_segment_is_tried_only_where_it_may_succeed() {
    let os = |call| os_error(call, "a segment", Errno::INVAL);
    assert!(can_be_smaller(&os("ftruncate")));
    assert!(!can_be_smaller(&os("memfd_create")));
    let size = SegmentError::FileSize { bytes: 2, limit: 1 };
    assert!(can_be_smaller(&size));
    assert!(!can_be_smaller(&SegmentError::NotSealed));
}

#[test]
fn the_first_geometry_that_is_not_too_large_is_made() {
    let geometries = SegmentOptions::new().geometries(64 << 20).unwrap();
    let made = |refuse: &dyn Fn(u64) -> Option<SegmentError>| {
        let mut tried = Vec::new();
        let made = make_largest(geometries.clone(), |geometry| {
            tried.push(geometry.capacity >> 20);
            refuse(geometry.capacity >> 20).map_or(Ok(geometry.capacity >> 20), Err)
        });
        (made, tried)
    };
    let large = |bytes| SegmentError::FileSize { bytes, limit: 1 };
    let (first, tried) = made(&|_| None);
    assert_eq!((first.unwrap(), tried), (64, vec![64]));
    let (second, tried) = made(&|mib| (mib > 32).then(|| large(mib)));
    assert_eq!((second.unwrap(), tried), (32, vec![64, 32]));
    let (none, tried) = made(&|mib| Some(large(mib)));
    let smallest = matches!(none, Err(SegmentError::FileSize { bytes: 16, .. }));
    assert!(smallest && tried == [64, 32, 16]);
    let (other, tried) = made(&|_| Some(SegmentError::NotSealed));
    let refused = matches!(other, Err(SegmentError::NotSealed));
    assert!(refused && tried == [64], "no smaller one would do");
}

#[test]
fn each_name_is_refused_by_its_reason() {
    let reason = |name: &str| match file::check_name(name) {
        Err(SegmentError::Name { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(reason("").contains("empty"));
    assert!(reason(".").contains("directory") && reason("..").contains("directory"));
    assert!(reason("/a").contains("leading slash"));
    assert!(reason("a/b").contains("a slash"));
    assert!(reason("a\0b").contains("NUL"));
    assert!(reason(&"n".repeat(251)).contains("250 bytes"));
    for name in [&"n".repeat(250), "a", "...", ".a"] {
        assert!(file::check_name(name).is_ok(), "{name}");
    }
}

#[test]
fn a_name_resolves_to_its_file_and_to_no_other() {
    let (name, other) = (Name::new("resolves"), Name::new("resolves-not"));
    let id = |file: &fs::File| FileId::of(&rustix::fs::fstat(file).unwrap());
    let (first, second) = (made(&name, &[], 0o600), made(&other, &[], 0o600));
    assert!(file::resolves_to(&name.0, id(&first)));
    assert!(!file::resolves_to(&name.0, id(&second)));
    fs::remove_file(name.path()).unwrap();
    assert!(!file::resolves_to(&name.0, id(&first)));
}

#[test]
fn others_may_write_only_as_the_options_say() {
    let name = Name::new("modes");
    let check = |mode: u32, options: &SegmentOptions| {
        let stat = rustix::fs::fstat(made(&name, &[], mode)).unwrap();
        check::check_owner(&name.0, &stat, options)
    };
    let private = small();
    for mode in [0o600, 0o400, 0o644, 0o755] {
        assert!(check(mode, &private).is_ok(), "{mode:o}");
    }
    for mode in [0o620, 0o602, 0o622, 0o666] {
        let refused = check(mode, &private).unwrap_err();
        assert!(
            matches!(refused, SegmentError::PermissionMismatch { mode: found, .. } if found == mode)
        );
    }
    let group = small().mode(0o660);
    assert!(check(0o660, &group).is_ok() && check(0o662, &group).is_err());
}

#[test]
fn only_a_regular_file_can_be_a_segment() {
    let name = Name::new("regular");
    let stat = rustix::fs::fstat(made(&name, &[1, 2], 0o600)).unwrap();
    assert!(check::check_regular(&name.0, &stat).is_ok());
    let directory = rustix::fs::stat("/dev/shm").unwrap();
    let refused = check::check_regular(&name.0, &directory).unwrap_err();
    assert!(matches!(refused, SegmentError::NotOurs { .. }));
}

#[test]
fn words_of_a_header_are_read_where_they_are() {
    let name = Name::new("words");
    let file = made(&name, &[3, 5, 7], 0o600);
    let words = [0, 1, 2, 3].map(|index| header_word(file.as_fd(), index));
    assert_eq!(words, [Ok(3), Ok(5), Ok(7), Ok(0)]);
}

#[test]
fn a_name_is_removed_when_nobody_is_in_and_nothing_says_otherwise() {
    let _quiet = no_forks();
    let name = Name::new("removed");
    assert!(matches!(
        small().remove(&name.0),
        Err(SegmentError::NotFound { .. })
    ));
    let segment = small().persistent(true).create(&name.0).unwrap();
    let all = || small().persistent(true);
    assert_eq!(all().remove(&name.0).unwrap(), Removal::InUse);
    drop(segment);
    assert_eq!(small().remove(&name.0).unwrap(), Removal::Persistent);
    assert!(name.exists());
    assert_eq!(all().remove(&name.0).unwrap(), Removal::Removed);
    assert!(!name.exists());
    // A header without a participant; the segment is not persistent.
    drop(made(&name, &[header()], 0o600));
    assert_eq!(small().remove(&name.0).unwrap(), Removal::Removed);
    assert!(!name.exists());
}

#[test]
fn a_file_of_others_is_not_removed() {
    let _quiet = no_forks();
    let name = Name::new("removed-not");
    let problem = |refused: Result<Removal, SegmentError>| match refused {
        Err(SegmentError::NotOurs { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    drop(made(&name, &[0x1234], 0o600));
    assert!(problem(small().remove(&name.0)).contains("something else"));
    let unfinished = remove::unfinished(&name.0, &small());
    assert!(problem(unfinished).contains("something else"));
    drop(made(&name, &[header()], 0o600));
    let alive = remove::unfinished(&name.0, &small());
    assert!(problem(alive).contains("is initialized"));
    // The creator of this file may still be at work.
    drop(made(&name, &[0, 0], 0o600));
    let refused = small().remove(&name.0).unwrap_err();
    assert!(matches!(
        refused,
        SegmentError::NotInitialized { size: 16, .. }
    ));
    assert!(name.exists());
    let start = std::time::Instant::now();
    let options = small().open_timeout(Duration::from_millis(20));
    let removed = remove::unfinished(&name.0, &options).unwrap();
    assert_eq!((removed, name.exists()), (Removal::Removed, false));
    assert!(start.elapsed() >= Duration::from_millis(20));
    // A file that others may write is never removed.
    drop(made(&name, &[header()], 0o666));
    assert!(matches!(
        small().remove(&name.0),
        Err(SegmentError::PermissionMismatch { .. })
    ));
    assert!(name.exists());
}

#[test]
fn retries_end_at_their_deadline() {
    let mut none = RetryDeadline::new(Duration::ZERO);
    assert!(!none.wait());
    let mut some = RetryDeadline::new(Duration::from_millis(5));
    let start = std::time::Instant::now();
    let mut turns = 0;
    while some.wait() {
        turns += 1;
    }
    assert!(turns > 0 && start.elapsed() >= Duration::from_millis(5));
    let unsettled = some.unsettled("name");
    assert!(
        matches!(unsettled, SegmentError::NameContended { waited, .. } if waited.as_millis() >= 5)
    );
}

#[test]
fn a_description_knows_its_own_file_and_all_its_seats() {
    let _quiet = no_forks();
    let name = Name::new("description");
    let fd: OwnedFd = made(&name, &[], 0o600).into();
    let mut own = Description::new(fd, Kind::Limited, 1, None);
    assert!(own.checked_fd().is_ok());
    own.resize_seats(128);
    let writable = file::reopen(own.fd()).unwrap();
    assert_eq!(own.seats.try_lock(writable.as_fd(), 127), Ok(true));
}

#[test]
fn a_segment_tells_what_it_was_made_with() {
    let name = Name::new("told");
    let segment = small().retain(12_345).create(&name.0).unwrap();
    assert_eq!(segment.retain_limits().own, 12_345);
    assert_eq!(segment.retain_limits().shared, 12_345);
    let limits = MemoryLimits::read().unwrap();
    let by_default = small().in_process().unwrap().retain_limits();
    assert_eq!(by_default.shared, limits.default_retain());
    assert_eq!(by_default.own, limits.default_retain() / 4);
    let text = format!("{segment:?}");
    let expected = format!(
        "Segment {{ name: Some({:?}), capacity: 8388608, seats: 2, arrays: 65536 }}",
        name.0
    );
    assert_eq!(text, expected);
    assert!(!segment.is_persistent());
    segment.persist(true);
    assert!(segment.is_persistent());
    segment.persist(false);
    // Another segment has another key.
    assert_ne!(segment.key(), small().in_process().unwrap().key());
}

#[test]
fn a_weak_reference_ends_with_the_segment() {
    let segment = small().in_process().unwrap();
    let weak = WeakSegment::of(&segment);
    assert_eq!(weak.upgrade().map(|same| same.key()), Some(segment.key()));
    drop(segment);
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_description_whose_number_was_given_away_is_not_used() {
    use std::os::fd::{FromRawFd, IntoRawFd};

    let _quiet = no_forks();
    let (name, other) = (Name::new("number"), Name::new("number-other"));
    let own = Description::new(made(&name, &[], 0o600).into(), Kind::Limited, 1, None);
    let number = own.fd().as_raw_fd();
    // SAFETY: the number is open, and this test closes it below.
    let mut given = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::dup2(made(&other, &[], 0o600), &mut given).unwrap();
    let refused = own.checked_fd().unwrap_err();
    assert!(matches!(refused, SegmentError::Closed { number: found } if found == number));
    drop(own);
    let stat = rustix::fs::fstat(&given).expect("what is another's stays open");
    assert_eq!(stat.st_ino, fs::metadata(other.path()).unwrap().ino());
    assert_eq!(given.into_raw_fd(), number);
    // SAFETY: as above.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

#[test]
fn a_size_may_be_what_the_limit_is() {
    let check = file::check_size_within;
    assert!(check(None, u64::MAX).is_ok() && check(Some(7), 6).is_ok());
    assert!(check(Some(7), 7).is_ok());
    let refused = check(Some(7), 8).unwrap_err();
    assert!(matches!(
        refused,
        SegmentError::FileSize { bytes: 8, limit: 7 }
    ));
}

/// Two that create at once may want different geometries, of one size.
#[test]
fn the_first_header_holds() {
    let _quiet = no_forks();
    let name = Name::new("first-header");
    let geometry = |seats| {
        let segment = small().seats(seats).in_process().unwrap();
        segment.memory().layout().geometry
    };
    let (first, second) = (geometry(4), geometry(2));
    let total = Layout::new(first).total;
    assert_eq!(Layout::new(second).total, total);
    made(&name, &[Header::encode(&first)], 0o600);
    let fd = file::open_file(&name.0).unwrap();
    rustix::fs::ftruncate(&fd, total).unwrap();
    let own = Description::new(fd, Kind::Limited, second.seats, None);
    let mapping = Mapping::of_file(own.fd(), total).unwrap();
    let parts = initialize::initialize(own, mapping, second, 0, false, "a file").unwrap();
    assert_eq!(parts.memory.layout().geometry, first);
}

#[test]
fn a_copy_of_a_file_gets_the_memory_of_its_tables() {
    let _quiet = no_forks();
    let (name, copy) = (Name::new("copied"), Name::new("copy"));
    let segment = small().create(&name.0).unwrap();
    let words = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| header_word(segment.fd().unwrap(), at).unwrap());
    // As `cp` does, which makes holes of pages that were never written.
    let file = made(&copy, &words, 0o600);
    let whole = fs::OpenOptions::new().write(true).open(copy.path());
    whole
        .unwrap()
        .set_len(segment.memory().layout().total)
        .unwrap();
    let backed = |file: &fs::File| file.metadata().unwrap().blocks() * 512;
    assert!(backed(&file) < segment.memory().layout().slots);
    let opened = small().open(&copy.0).unwrap();
    assert_eq!(opened.id(), segment.id());
    assert!(backed(&file) > segment.memory().layout().slots);
}

#[test]
fn a_file_without_a_name_has_none_to_remove() {
    let _quiet = no_forks();
    let name = Name::new("nameless");
    let segment = small().create(&name.0).unwrap();
    fs::remove_file(name.path()).unwrap();
    let other = again(&segment);
    assert_eq!(other.name(), None);
    assert_eq!(other.key(), segment.key());
}

#[test]
fn a_memfd_of_huge_pages_is_refused() {
    use rustix::fs::MemfdFlags;

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags) else {
        // A system without hugetlbfs.
        return;
    };
    let refused = Segment::from_fd(fd).unwrap_err();
    assert!(matches!(refused, SegmentError::Hugetlb { .. }), "{refused}");
}

#[test]
fn a_segment_that_is_alive_is_not_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("not-unfinished");
    drop(made(&name, &[header()], 0o600));
    let start = std::time::Instant::now();
    let options = small().open_timeout(Duration::from_secs(100));
    assert!(remove::unfinished(&name.0, &options).is_err());
    assert!(start.elapsed() < Duration::from_secs(50));
}
