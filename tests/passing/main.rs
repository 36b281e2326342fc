//! Segments passed to other processes, left before their views end, bound by a fork hook, and
//! pinned.

mod leaving;
mod peers;
mod pinned;
mod sockets;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use ndarray::Ix1;
use ndshm::{Handle, Segment, SegmentOptions};

type Vector = Handle<u64, Ix1>;

const TIMEOUT: Duration = Duration::from_secs(20);

fn options() -> SegmentOptions {
    Segment::options().capacity(8 << 20).seats(8)
}

fn main() {
    support::run_tests![
        sockets::segments_pass_through_a_socket,
        sockets::a_socket_may_be_of_any_kind,
        sockets::a_stream_goes_on_behind_the_message,
        sockets::waiting_ends_in_time,
        sockets::hostile_senders_leave_nothing_open,
        sockets::a_process_without_a_free_descriptor_is_told,
        sockets::a_receiver_that_dies_keeps_nobody_alive,
        peers::a_sibling_opens_a_segment_by_its_address,
        peers::a_child_has_an_address_of_its_own,
        peers::an_address_that_leads_elsewhere_is_refused,
        peers::nothing_is_opened_or_changed_at_a_foreign_descriptor,
        peers::another_user_is_denied,
        leaving::views_outlive_the_membership,
        leaving::stores_after_leaving_reach_nobody,
        leaving::tables_must_leave_first,
        leaving::a_shared_table_leaves_with_its_pins,
        leaving::all_that_needs_the_segment_is_refused,
        leaving::a_child_may_leave_what_its_parent_uses,
        leaving::a_child_keeps_the_name_that_its_parent_leaves,
        leaving::threads_that_join_and_one_that_leaves,
        leaving::a_thread_that_has_left_stores_into_no_segment,
        leaving::a_lease_of_a_copied_segment_is_another_one,
        leaving::a_fork_hook_lets_a_dead_parent_be_reaped,
        leaving::without_address_space_nothing_changes,
        pinned::nobody_gives_pages_back,
        pinned::a_device_and_the_processes_see_the_same_pages,
    ];
}
