//! Exhausted resources: each case is an error with numbers and a remedy, and afterwards everything
//! works as before.

mod common;
mod group;
mod limits;
mod machine;
mod own_shm;
mod small_shm;
#[path = "../support/mod.rs"]
mod support;
mod table;

fn main() {
    support::run_tests![
        small_shm::a_segment_is_created_or_refused_at_any_fill,
        small_shm::a_mount_without_inodes_is_an_error,
        small_shm::an_array_larger_than_the_rest_is_refused,
        small_shm::small_arrays_are_refused_on_a_full_mount,
        small_shm::the_last_pages_can_be_allocated,
        small_shm::a_foreign_file_takes_no_promised_pages,
        small_shm::no_pages_for_the_tables_of_a_span_is_an_error,
        small_shm::freed_pages_serve_any_array,
        small_shm::a_full_segment_can_be_opened_read_and_written,
        small_shm::two_processes_fill_the_mount_at_once,
        small_shm::a_trim_by_another_is_noticed,
        small_shm::an_uninitialized_segment_on_a_full_mount_is_an_error,
        group::a_request_beyond_the_limit_is_refused,
        group::large_requests_add_up,
        group::small_requests_add_up,
        group::requests_of_two_processes_add_up,
        group::freed_pages_serve_others,
        group::requests_in_named_segments_add_up,
        limits::a_file_size_limit_is_an_error,
        limits::an_address_space_limit_is_an_error,
        limits::an_open_segment_works_under_an_address_space_limit,
        limits::exhausted_address_space_is_an_error,
        limits::exhausted_mappings_are_an_error,
        limits::exhausted_descriptors_are_an_error,
        limits::a_forked_child_without_descriptors_gets_an_error,
        limits::available_memory_is_known_without_descriptors,
        machine::the_seals_keep_the_size,
        table::full_seats_name_their_holders,
        table::full_slots_name_the_limit,
        table::two_processes_use_the_whole_capacity,
    ];
}
