//! Changes of a name by other processes during a call, in each mode.

use std::time::Duration;

use rustix::fs::Mode;

use super::*;
use crate::segment::os::lock;
use crate::segment::tests::{Name, no_forks, small};

/// Opens the segment of this name, with something done before the first look at the name.
fn after_first(
    name: &Name,
    mode: OpenMode,
    options: &SegmentOptions,
    before: impl FnOnce(),
) -> Result<Parts, SegmentError> {
    let mut before = Some(before);
    let joined = |name: &str, options: &SegmentOptions| {
        if let Some(before) = before.take() {
            before();
        }
        join(name, options)
    };
    attach_by(joined, &name.0, mode, options)
}

#[test]
fn a_segment_that_is_gone_before_it_is_entered_is_created_anew() {
    let _quiet = no_forks();
    let name = Name::new("gone");
    let options = small();
    let mut first = 0;
    let created = after_first(&name, OpenMode::Create, &options, || {
        let other = small().open(&name.0).unwrap();
        first = other.key();
        drop(other);
        assert!(!name.exists());
    });
    assert_ne!(created.unwrap().key, first);
}

#[test]
fn a_segment_of_another_is_not_taken_for_a_created_one() {
    let _quiet = no_forks();
    let name = Name::new("replaced");
    let options = small();
    let mut other = None;
    let refused = after_first(&name, OpenMode::Create, &options, || {
        drop(small().open(&name.0).unwrap());
        other = Some(small().create(&name.0).unwrap());
    });
    assert!(matches!(refused.err(), Some(SegmentError::Exists { .. })));
    let joined = attach(&name.0, OpenMode::OpenOrCreate, &options).unwrap();
    assert_eq!(joined.key, other.unwrap().key());
}

#[test]
fn a_name_that_is_being_removed_is_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("closed-membership");
    let segment = small().persistent(true).create(&name.0).unwrap();
    let key = segment.key();
    drop(segment);
    let closed = open_file(&name.0).unwrap();
    assert_eq!(lock::close_membership(closed.as_fd()), Ok(true));
    let refused = small().open(&name.0).unwrap_err();
    assert!(matches!(refused, SegmentError::NameContended { .. }));
    let passed = small().from_fd(open_file(&name.0).unwrap()).unwrap_err();
    assert!(matches!(passed, SegmentError::NameContended { .. }));
    let patient = || small().open_timeout(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let opener = scope.spawn(|| patient().open(&name.0).unwrap().key());
        let passed = scope.spawn(|| {
            patient()
                .from_fd(open_file(&name.0).unwrap())
                .unwrap()
                .key()
        });
        std::thread::sleep(Duration::from_millis(30));
        drop(closed);
        assert_eq!(opener.join().unwrap(), key);
        assert_eq!(passed.join().unwrap(), key);
    });
}

#[test]
fn a_creator_at_work_is_waited_for() {
    let _quiet = no_forks();
    let name = Name::new("at-work");
    let model = small().in_process().unwrap();
    let total = model.memory().layout().total;
    let file = std::fs::File::create(path(&name.0)).unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).unwrap();
    std::thread::scope(|scope| {
        let patient = small().open_timeout(Duration::from_secs(60));
        let opener = scope.spawn(|| patient.open(&name.0).unwrap().capacity());
        std::thread::sleep(Duration::from_millis(30));
        file.set_len(total).unwrap();
        assert_eq!(opener.join().unwrap(), 8 << 20);
    });
}

#[test]
fn a_directory_is_not_taken_for_a_name_that_nobody_has() {
    let name = Name::new("directory");
    std::fs::create_dir(path(&name.0)).unwrap();
    let refused = small().open(&name.0);
    std::fs::remove_dir(path(&name.0)).unwrap();
    assert!(matches!(refused, Err(SegmentError::Os { .. })));
}
