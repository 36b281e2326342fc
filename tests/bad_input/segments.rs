//! Segments that cannot be created or opened: bad names, bad numbers, foreign files.

#![allow(clippy::disallowed_types, reason = "no model checker runs these tests")]

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ndshm::error::{JoinError, SegmentError};
use ndshm::{HandleTable, Segment};

use super::says;

/// A unique segment name. Its file is removed on drop.
struct Name(String);

impl Name {
    fn new() -> Name {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Name(format!("ndshm-bad-input-{}-{count}", process::id()))
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.file());
    }
}

// ---- names ----------------------------------------------------------------------------------

#[test]
fn invalid_names_are_refused_by_every_call() {
    let long = "n".repeat(251);
    let cases: [(&str, &[&str]); 6] = [
        ("", &["\"\"", "empty"]),
        (".", &["\".\"", "directory"]),
        ("..", &["\"..\"", "directory"]),
        ("/x", &["\"/x\"", "without the leading slash"]),
        ("a/b", &["\"a/b\"", "slash"]),
        (&long, &["nnn", "250 bytes"]),
    ];
    for (name, parts) in cases {
        for open in [Segment::create, Segment::open, Segment::open_or_create] {
            let error = open(name).unwrap_err();
            assert!(
                matches!(error, SegmentError::Name { .. }),
                "{name:?}: {error}"
            );
            says(error, parts);
        }
        assert!(HandleTable::open(name).is_err());
        assert!(HandleTable::open_or_create(name).is_err());
    }
}

#[test]
fn existing_and_missing_names_are_named_with_the_remedy() {
    let name = Name::new();
    let error = Segment::open(&name.0).unwrap_err();
    assert!(matches!(error, SegmentError::NotFound { .. }));
    says(error, &[&name.0, "open_or_create"]);
    assert!(!name.file().exists(), "a failed open creates no file");

    let _held = Segment::create(&name.0).unwrap();
    let error = Segment::create(&name.0).unwrap_err();
    assert!(matches!(error, SegmentError::Exists { .. }));
    says(error, &[&name.0, "open it", "/dev/shm/"]);
}

// ---- geometry -------------------------------------------------------------------------------

#[test]
fn numbers_out_of_range_are_refused_by_every_way_to_make_a_segment() {
    let name = Name::new();
    let options = Segment::options;
    let cases = [
        (options().capacity(0), vec!["0 bytes", "1 byte to", "TiB"]),
        (
            options().capacity(u64::MAX),
            vec!["18446744073709551615", "1 byte to", "TiB"],
        ),
        (options().seats(0), vec!["0 seats", "1 to 2048"]),
        (options().seats(4096), vec!["4096 seats", "1 to 2048"]),
        (
            options().arrays(u64::MAX),
            vec!["18446744073709551615 arrays", "268435456"],
        ),
    ];
    for (options, parts) in cases {
        let refused = [
            options.clone().anonymous(),
            options.clone().in_process(),
            options.clone().create(&name.0),
            options.clone().open_or_create(&name.0),
        ];
        for refused in refused {
            says(refused.unwrap_err(), &parts);
        }
    }
    assert!(!name.file().exists());
}

#[test]
fn all_seats_taken_names_the_holders() {
    let segment = Segment::options().seats(2).anonymous().unwrap();
    let first = HandleTable::join(&segment).unwrap();
    let _second = HandleTable::join(&segment).unwrap();
    let error = HandleTable::join(&segment).unwrap_err();
    assert!(matches!(error, JoinError::SeatsFull { seats: 2, .. }));
    let pid = process::id().to_string();
    says(
        error,
        &["all 2 seats", &pid, "leave", "SegmentOptions::seats(4)"],
    );
    drop(first);
    assert!(HandleTable::join(&segment).is_ok());
}

// ---- files that are no segments -------------------------------------------------------------

/// Returns the first word and the size of a small segment's file.
fn header_of_a_segment() -> (u64, u64) {
    let name = Name::new();
    let options = Segment::options().capacity(1 << 20).persistent(true);
    drop(HandleTable::join(&options.create(&name.0).unwrap()).unwrap());
    let bytes = fs::read(name.file()).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (header, bytes.len() as u64)
}

/// Opens a file with this first word and size as a segment.
fn open_forged(header: u64, size: u64) -> SegmentError {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let name = Name::new();
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(name.file())
        .unwrap();
    file.set_len(size).unwrap();
    file.write_all_at(&header.to_le_bytes(), 0).unwrap();
    let error = Segment::open(&name.0).unwrap_err();
    says(&error, &[&name.0]);
    assert!(name.file().exists(), "a foreign file is not removed");
    error
}

#[test]
fn another_layout_version_names_both_and_the_remedy() {
    let (header, size) = header_of_a_segment();
    let version = ndshm::segment::LAYOUT_VERSION;
    for other in [0, version + 1, 255] {
        let forged = header & !(0xff << 16) | u64::from(other) << 16;
        let error = open_forged(forged, size);
        let SegmentError::Version {
            found, supported, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((found, supported), (other, version));
        let found = format!("layout version {other}");
        let reads = format!("reads version {version}");
        says(error, &[&found, &reads, "same release"]);
    }
}

#[test]
fn a_foreign_file_is_refused_with_its_first_word_and_size() {
    let (header, size) = header_of_a_segment();
    let error = open_forged(0x1234, size);
    // A size that is a whole number of MiB is written in MiB only.
    let written = match size.is_multiple_of(1 << 20) {
        true => format!("{} MiB", size >> 20),
        false => size.to_string(),
    };
    assert!(matches!(
        error,
        SegmentError::NotOurs { header: 0x1234, .. }
    ));
    says(error, &["not a segment", "0x0000000000001234", &written]);

    // A valid header on a truncated file.
    let error = open_forged(header, size - 4096);
    assert!(matches!(error, SegmentError::NotOurs { .. }), "{error}");
    says(error, &["size", &(size - 4096).to_string()]);
    assert!(matches!(
        open_forged(header, 8),
        SegmentError::NotOurs { .. }
    ));
}

#[test]
fn an_uninitialized_file_is_an_error_after_the_timeout() {
    let name = Name::new();
    fs::write(name.file(), []).unwrap();
    let options = Segment::options().open_timeout(Duration::from_millis(50));
    let error = options.open(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::NotInitialized { size: 0, .. }),
        "{error}"
    );
    says(error, &[&name.0, "50ms", "0 bytes", "open_timeout"]);
}

#[test]
fn a_file_that_others_may_write_is_refused_with_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let name = Name::new();
    let options = Segment::options().capacity(1 << 20).persistent(true);
    drop(HandleTable::join(&options.create(&name.0).unwrap()).unwrap());
    fs::set_permissions(name.file(), fs::Permissions::from_mode(0o666)).unwrap();
    let error = Segment::open(&name.0).unwrap_err();
    assert!(
        matches!(error, SegmentError::PermissionMismatch { mode: 0o666, .. }),
        "{error}"
    );
    says(error, &[&name.0, "666", "use another name"]);
}
