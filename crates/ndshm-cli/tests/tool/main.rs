//! Tests of the command-line tool, with pipes and in a terminal. The segments are in use, left by a
//! crash, or damaged. The tool must always end with a documented exit code, and must not disturb
//! the program that it inspects.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p ndshm-cli --test tool` rewrites the texts in `snapshots/`.

mod charts;
mod damage;
mod files;
mod hostile;
mod leftovers;
mod living;
mod paths;
mod program;
mod runs;
mod snapshot;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod system;
mod watch;

fn main() {
    support::run_tests!(
        living::every_command_leaves_a_program_alone,
        living::an_anonymous_segment_is_found,
        living::texts_match_the_snapshots,
        living::get_prints_the_elements,
        living::arrays_are_found_by_name,
        living::stat_summarizes_the_numbers,
        living::set_takes_a_lease,
        living::invalid_arguments_are_refused,
        living::a_closed_pipe_is_no_error,
        leftovers::a_crashed_program_can_be_inspected,
        leftovers::gc_removes_only_when_told,
        leftovers::gc_keeps_what_is_being_opened,
        leftovers::gc_keeps_persistent_segments,
        leftovers::gc_reaps_the_dead_among_the_living,
        leftovers::gc_leaves_segments_that_others_may_write,
        leftovers::segments_of_other_users_are_listed,
        leftovers::a_file_truncated_meanwhile_does_not_end_the_list,
        leftovers::gc_leaves_files_of_zeros,
        damage::damage_is_named,
        damage::a_truncated_file_is_refused,
        damage::no_bytes_crash_the_tool,
        files::export_and_import_keep_the_contents,
        files::a_file_is_drawn_without_a_segment,
        files::invalid_files_are_refused,
        paths::parts_are_found_by_their_paths,
        paths::objects_are_printed_as_json,
        paths::pickles_are_not_read,
        paths::lists_have_parts_below_their_parents,
        paths::odd_keys_and_shadowed_parts_are_reached,
        hostile::small_tensors_do_not_end_the_tool,
        hostile::lists_of_many_values_are_limited,
        hostile::large_sizes_are_refused_before_they_are_read,
        charts::charts_show_the_numbers,
        watch::watch_follows_a_live_segment,
        watch::watch_shows_a_dead_segment,
        watch::watch_sorts_and_filters,
        watch::watch_measures_rates,
        watch::watch_survives_damage,
        watch::watch_once_needs_no_terminal,
        system::doctor_reports_low_limits,
        system::doctor_finds_leftovers,
        system::bench_measures_all_operations,
        system::completions_are_printed_for_shells,
    );
}
