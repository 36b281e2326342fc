//! Permissions of named segments and passed descriptors, and the abilities of an observer.

mod address_space;
mod descriptors;
mod locks;
mod observer;
mod permissions;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::chown;

use ndshm::{Segment, SegmentOptions};
use support::{Child, DEADLINE};

/// A user without any rights of its own.
const STRANGER: u32 = 54_321;

fn main() {
    support::run_tests![
        permissions::a_name_is_private_whatever_the_mask,
        permissions::mode_sets_the_permission_bits,
        permissions::a_segment_that_others_may_write_is_refused,
        permissions::a_segment_of_another_user_is_refused,
        permissions::a_link_is_not_followed,
        permissions::two_users_share_a_segment_if_both_allow_it,
        observer::an_observer_sees_seats_arrays_and_leases,
        observer::an_observer_sees_bundles,
        observer::an_observer_copies_bytes,
        observer::a_copy_never_mixes_two_arrays,
        observer::an_observer_cannot_write,
        observer::an_observer_needs_no_right_to_write,
        observer::an_observer_keeps_nothing_alive,
        observer::observing_no_segment_is_an_error,
        address_space::an_observer_needs_little_address_space,
        address_space::an_observer_without_address_space_names_the_remedy,
        descriptors::an_unsealed_memfd_is_refused,
        descriptors::a_memfd_of_huge_pages_is_refused,
        descriptors::a_passed_file_of_another_user_is_refused,
        locks::a_read_lock_of_another_process_is_named,
        locks::a_lock_on_a_dead_workers_seat_ends_the_call,
        locks::a_join_passes_over_a_locked_seat,
    ];
}

fn options() -> SegmentOptions {
    let timeout = std::time::Duration::from_millis(50);
    Segment::options()
        .capacity(1 << 20)
        .seats(4)
        .open_timeout(timeout)
}

/// Changes this process's user for good. Returns `false` if the process may not.
fn become_stranger() -> bool {
    // SAFETY: changes this process's user and nothing else; it has one thread.
    let group = unsafe { libc::setgid(STRANGER) };
    // SAFETY: as above.
    let user = unsafe { libc::setuid(STRANGER) };
    (group, user) == (0, 0)
}

/// Returns `true` if this process may act as other users. Otherwise prints that a part of the test
/// is skipped.
fn may_be_others() -> bool {
    let file = std::env::temp_dir().join(format!("ndshm-owned-{}", std::process::id()));
    fs::write(&file, "").unwrap();
    let given = chown(&file, Some(STRANGER), None).is_ok();
    fs::remove_file(&file).unwrap();
    let child = Child::fork(|| assert!(given && become_stranger()));
    let may = child.wait_within(DEADLINE).is_some_and(|end| end.success());
    if !may {
        println!("  (skipped: no right to act as another user)");
    }
    may
}
