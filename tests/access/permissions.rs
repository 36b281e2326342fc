//! Modes and owners of named segments.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};

use ndarray::Ix1;
use ndshm::error::SegmentError;
use ndshm::{Handle, HandleTable};

use crate::support::{Child, Name};
use crate::{STRANGER, become_stranger, may_be_others, options};

/// Returns the permission bits of the segment's file.
fn bits(name: &Name) -> u32 {
    fs::metadata(name.path()).unwrap().mode() & 0o777
}

fn set_mask(mask: u32) {
    // SAFETY: `umask` has no precondition.
    unsafe { libc::umask(mask) };
}

pub fn a_name_is_private_whatever_the_mask() {
    for mask in [0, 0o077, 0o777] {
        set_mask(mask);
        let name = Name::new("private");
        let _segment = options().create(&name.0).unwrap();
        assert_eq!(bits(&name), 0o600, "mask {mask:o}");
    }
}

pub fn mode_sets_the_permission_bits() {
    set_mask(0o777);
    let name = Name::new("bits");
    let _segment = options().mode(0o640).create(&name.0).unwrap();
    assert_eq!(bits(&name), 0o640);
    // Read permission for others does not endanger a process that opens the segment.
    options().open(&name.0).unwrap();
}

pub fn a_segment_that_others_may_write_is_refused() {
    let name = Name::new("shared");
    let _segment = options().mode(0o660).create(&name.0).unwrap();
    for options in [options(), options().mode(0o606)] {
        let error = options.open(&name.0).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, SegmentError::PermissionMismatch { mode: 0o660, .. }),
            "{text}"
        );
        assert!(
            text.contains("mode 660") && text.contains("`mode`"),
            "{text}"
        );
    }
    options().mode(0o660).open(&name.0).unwrap();
    assert!(options().observe(&name.0).is_err());
    options().mode(0o666).observe(&name.0).unwrap();
}

pub fn a_segment_of_another_user_is_refused() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("owned");
    let _segment = options().create(&name.0).unwrap();
    chown(name.path(), Some(STRANGER), None).unwrap();
    let refused = [
        options().open(&name.0).err(),
        options().open_or_create(&name.0).err(),
        options().owner(STRANGER + 1).open(&name.0).err(),
        options().observe(&name.0).err(),
    ];
    for error in refused {
        assert!(
            matches!(
                error,
                Some(SegmentError::PermissionMismatch { uid: STRANGER, .. })
            ),
            "{error:?}"
        );
    }
    assert!(matches!(
        options().create(&name.0),
        Err(SegmentError::Exists { .. })
    ));
    options().owner(STRANGER).open(&name.0).unwrap();
}

pub fn a_link_is_not_followed() {
    let target = std::env::temp_dir().join(format!("ndshm-target-{}", std::process::id()));
    fs::write(&target, "what must stay").unwrap();
    let name = Name::new("link");
    symlink(&target, name.path()).unwrap();
    assert!(matches!(
        options().create(&name.0),
        Err(SegmentError::Exists { .. })
    ));
    for error in [
        options().open(&name.0).err(),
        options().open_or_create(&name.0).err(),
        options().observe(&name.0).err(),
    ] {
        let error = error.expect("a link is no segment");
        assert!(error.to_string().contains(&name.0), "{error}");
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "what must stay");
    fs::remove_file(&target).unwrap();
}

pub fn two_users_share_a_segment_if_both_allow_it() {
    if !may_be_others() {
        return;
    }
    let name = Name::new("users");
    let segment = options().mode(0o666).create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let x: Handle<u32, Ix1> = table.from_elem(10, 1).unwrap();
    let stranger = Child::fork(|| {
        assert!(become_stranger());
        for options in [options().mode(0o666), options().owner(0)] {
            let error = options.open(&name.0).unwrap_err();
            assert!(
                matches!(error, SegmentError::PermissionMismatch { uid: 0, .. }),
                "{error}"
            );
        }
        let segment = options().mode(0o666).owner(0).open(&name.0).unwrap();
        let table = HandleTable::join(&segment).unwrap();
        table.write(x).unwrap().fill(2);
        let own = table.from_elem(10, 3u8).unwrap();
        assert_eq!(table.read(own).unwrap().sum(), 30);
    });
    stranger.join();
    assert_eq!(table.read(x).unwrap().sum(), 20);
    drop((table, segment));
    assert!(!name.exists(), "the last participant has left");
}
