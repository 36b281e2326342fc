//! Interaction of processes: forks, deaths, names, passed descriptors.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod creation;
mod deaths;
mod forks;
mod segments;
#[path = "../support/mod.rs"]
mod support;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[allow(dead_code, reason = "its other half is for single instructions")]
#[path = "../steps/tracer.rs"]
mod tracer;
mod waiting;

use segments::helper;
use support::{Child, Pipe};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--helper") {
        return helper(std::env::args().skip(2).collect());
    }
    support::run_tests![
        forks::a_child_takes_a_seat_of_its_own,
        forks::arrays_made_after_the_fork_are_seen,
        forks::guards_that_crossed_a_fork_do_nothing_when_dropped,
        forks::a_child_pins_the_arrays_of_its_parent_for_itself,
        forks::a_grandchild_takes_a_seat_of_its_own,
        forks::a_child_continues_after_its_parent_left,
        forks::a_child_is_reaped_however_it_ends,
        forks::the_global_table_is_inherited,
        forks::in_process_segments_are_not_shared,
        deaths::a_dead_writer_leaves_poison,
        deaths::a_dead_reader_leaves_nothing,
        deaths::a_pinned_array_keeps_its_bytes_until_its_holder_is_killed,
        deaths::arrays_of_a_dead_owner_are_freed,
        deaths::a_dead_participant_tears_its_tiles,
        deaths::a_dead_opener_does_not_block_its_arrays,
        deaths::a_dead_opener_is_reported_to_those_who_wait,
        deaths::a_killed_waiter_holds_nobody_up,
        deaths::a_stopped_process_is_alive,
        deaths::killed_allocators_lose_nothing,
        waiting::a_stream_of_readers_does_not_hold_a_writer_off,
        waiting::a_killed_writer_leaves_poison_to_those_who_wait,
        waiting::a_killed_reader_leaves_the_array_to_a_waiting_writer,
        waiting::a_killed_waiter_keeps_nobody_out,
        segments::a_segment_is_passed_by_descriptor,
        segments::a_segment_is_opened_by_name,
        segments::racing_creators_join_the_same_segment,
        segments::the_last_to_leave_removes_the_name,
        segments::a_persistent_name_stays,
        segments::a_name_of_killed_processes_is_joined_and_reaped,
        segments::no_process_joins_an_unlinked_segment,
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        creation::an_opener_that_stands_still_beside_a_creator_is_not_refused,
    ];
}

/// Forks a child that runs `life`, which never returns, and kills it once it has sent a number.
fn kill_during(life: impl FnOnce(&Pipe)) -> (u32, u64) {
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        life(&pipe);
        unreachable!("it was to be killed");
    });
    let sent = pipe.receive();
    let pid = child.pid();
    child.kill();
    (pid, sent)
}
