//! `SharedTable`: one participant for all threads of a process. Each test runs in a child of its
//! own, so it may start threads and fork.

mod forks;
mod peers;
mod rounds;
#[path = "../support/mod.rs"]
mod support;
mod threads;

fn main() {
    support::run_tests![
        threads::one_seat_serves_all_threads,
        threads::writers_and_readers_of_two_threads_exclude_each_other,
        threads::readers_of_two_threads_count_privately,
        threads::guards_move_between_threads,
        threads::functions_of_the_caller_may_use_the_table,
        threads::a_panic_poisons_and_locks_nobody_out,
        threads::arrays_equal_those_of_a_handle_table,
        threads::values_are_unlocked_once_and_by_their_table,
        threads::a_wait_for_a_lease_ends,
        threads::a_wait_takes_back_what_the_dead_held,
        threads::pages_are_given_back_after_a_free,
        threads::memory_that_is_refused_leaves_nothing_behind,
        threads::the_last_clone_or_guard_releases_the_seat,
        threads::pins_keep_the_bytes_of_a_freed_array,
        rounds::threads_share_rounds_through_one_seat,
        rounds::a_waiting_thread_leaves_the_table_to_others,
        rounds::waits_sleep_but_not_without_a_timeout,
        rounds::one_thread_leaves_while_another_writes,
        rounds::panics_tear_the_tile_and_lock_nobody_out,
        rounds::checks_release_no_lease_of_another_thread,
        rounds::values_are_dropped_by_any_thread,
        rounds::values_are_used_with_their_table,
        rounds::forks_at_any_moment_of_a_round,
        rounds::waits_notice_the_death_of_the_opener,
        rounds::parts_are_used_by_another_thread,
        peers::a_thread_watches_while_others_use_the_table,
        peers::a_watch_crosses_a_fork,
        peers::both_tables_tell_the_same_peers,
        forks::pins_cross_a_fork,
        forks::eight_threads_and_many_forks,
        forks::a_child_takes_a_seat_of_its_own,
        forks::a_child_and_its_threads_have_one_table,
        forks::the_default_table_crosses_a_fork,
        forks::a_killed_process_is_reaped_with_all_its_threads,
    ]
}
