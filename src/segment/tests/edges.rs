//! Limits: each refusal with its reason, and the nearest case that is not refused.

use super::super::Removal;
use super::super::anonymous::can_be_smaller;
use super::super::description::{self, Description, Kind, header_word, os_error};
use super::super::named::{self, FileId};
use super::super::remove;
use super::*;
use rustix::io::Errno;

/// Creates a file under a segment's name that begins with these words.
fn file(name: &Name, words: &[u64], mode: u32) -> fs::File {
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
fn each_name_is_refused_by_its_reason() {
    let reason = |name: &str| match named::check_name(name) {
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
        assert!(named::check_name(name).is_ok(), "{name}");
    }
}

#[test]
fn a_name_resolves_to_its_file_and_to_no_other() {
    let (name, other) = (Name::new("resolves"), Name::new("resolves-not"));
    let id = |file: &fs::File| FileId::of(&rustix::fs::fstat(file).unwrap());
    let (first, second) = (file(&name, &[], 0o600), file(&other, &[], 0o600));
    assert!(named::resolves_to(&name.0, id(&first)));
    assert!(!named::resolves_to(&name.0, id(&second)));
    fs::remove_file(name.path()).unwrap();
    assert!(!named::resolves_to(&name.0, id(&first)));
}

#[test]
fn others_may_write_only_as_the_options_say() {
    let name = Name::new("modes");
    let check = |mode: u32, options: &SegmentOptions| {
        let stat = rustix::fs::fstat(file(&name, &[], mode)).unwrap();
        named::check_owner(&name.0, &stat, options)
    };
    let private = small();
    for mode in [0o600, 0o400, 0o644, 0o755] {
        assert!(check(mode, &private).is_ok(), "{mode:o}");
    }
    for mode in [0o620, 0o602, 0o622, 0o666] {
        let refused = check(mode, &private).unwrap_err();
        assert!(matches!(refused, SegmentError::Foreign { mode: found, .. } if found == mode));
    }
    let group = small().mode(0o660);
    assert!(check(0o660, &group).is_ok() && check(0o662, &group).is_err());
}

#[test]
fn only_a_regular_file_can_be_a_segment() {
    let name = Name::new("regular");
    let stat = rustix::fs::fstat(file(&name, &[1, 2], 0o600)).unwrap();
    assert!(named::check_regular(&name.0, &stat).is_ok());
    let directory = rustix::fs::stat("/dev/shm").unwrap();
    let refused = named::check_regular(&name.0, &directory).unwrap_err();
    assert!(matches!(refused, SegmentError::NotOurs { .. }));
}

#[test]
fn words_of_a_header_are_read_where_they_are() {
    let name = Name::new("words");
    let file = file(&name, &[3, 5, 7], 0o600);
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
    drop(file(&name, &[header()], 0o600));
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
    drop(file(&name, &[0x1234], 0o600));
    assert!(problem(small().remove(&name.0)).contains("something else"));
    let unfinished = remove::unfinished(&name.0, &small());
    assert!(problem(unfinished).contains("something else"));
    drop(file(&name, &[header()], 0o600));
    let alive = remove::unfinished(&name.0, &small());
    assert!(problem(alive).contains("come to life"));
    // The creator of this file may still be at work.
    drop(file(&name, &[0, 0], 0o600));
    let refused = small().remove(&name.0).unwrap_err();
    assert!(matches!(refused, SegmentError::Unfinished { size: 16, .. }));
    assert!(name.exists());
    let start = std::time::Instant::now();
    let options = small().open_timeout(Duration::from_millis(20));
    let removed = remove::unfinished(&name.0, &options).unwrap();
    assert_eq!((removed, name.exists()), (Removal::Removed, false));
    assert!(start.elapsed() >= Duration::from_millis(20));
    // A file that others may write is never removed.
    drop(file(&name, &[header()], 0o666));
    assert!(matches!(
        small().remove(&name.0),
        Err(SegmentError::Foreign { .. })
    ));
    assert!(name.exists());
}

#[test]
fn patience_ends_with_its_timeout() {
    let mut none = named::Patience::new(Duration::ZERO);
    assert!(!none.wait());
    let mut some = named::Patience::new(Duration::from_millis(5));
    let start = std::time::Instant::now();
    let mut turns = 0;
    while some.wait() {
        turns += 1;
    }
    assert!(turns > 0 && start.elapsed() >= Duration::from_millis(5));
    let unsettled = some.unsettled("name");
    assert!(matches!(unsettled, SegmentError::Unsettled { waited, .. } if waited.as_millis() >= 5));
}

#[test]
fn a_description_knows_its_own_file_and_all_its_seats() {
    let _quiet = no_forks();
    let name = Name::new("description");
    let fd: OwnedFd = file(&name, &[], 0o600).into();
    let mut own = Description::new(fd, Kind::Limited, 1, None);
    assert!(own.checked_fd().is_ok());
    own.resize_seats(128);
    let writable = description::reopen(own.fd()).unwrap();
    assert_eq!(own.seats.try_lock(writable.as_fd(), 127), Ok(true));
}
