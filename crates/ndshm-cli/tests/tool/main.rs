//! Tests of the command-line tool, with pipes and in a terminal. The segments are in use, left by a
//! crash, or damaged. The tool must always end with a documented exit code, and must not disturb
//! the program that it inspects.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p ndshm-cli --test tool` rewrites the texts in `snapshots/`.

mod damage;
mod files;
mod leftovers;
mod living;
mod program;
mod runs;
mod snapshot;
#[path = "../../../../tests/support/mod.rs"]
mod support;
mod system;
mod views;

fn main() {
    support::run(&[
        ("every_command_leaves_a_program_alone", living::all_commands),
        ("an_anonymous_segment_is_found", living::anonymous),
        ("the_texts_are_those_of_the_snapshots", living::snapshots),
        ("elements_are_those_that_were_written", living::elements),
        ("arrays_are_found_by_name", living::names),
        ("numbers_are_those_that_were_written", living::numbers),
        ("set_takes_a_lease", living::set),
        ("what_makes_no_sense_is_told", living::nonsense),
        ("who_stops_reading_is_no_error", living::unread),
        ("what_a_crash_left_can_be_seen", leftovers::seen),
        ("what_a_crash_left_is_removed_when_told", leftovers::removed),
        ("nothing_is_removed_under_who_opens_it", leftovers::raced),
        ("what_persists_stays", leftovers::persistent),
        (
            "the_dead_are_reaped_among_the_living",
            leftovers::dead_seats,
        ),
        ("what_others_may_write_is_left_alone", leftovers::foreign),
        ("segments_of_other_users_are_seen", leftovers::other_users),
        (
            "a_file_that_is_cut_meanwhile_ends_no_list",
            leftovers::cut_meanwhile,
        ),
        ("what_may_be_anybodys_stays", leftovers::unfinished),
        ("damage_is_named", damage::named),
        ("a_cut_file_is_refused", damage::cut),
        ("no_bytes_end_the_tool", damage::anything),
        ("files_keep_what_is_in_arrays", files::round_trip),
        ("files_that_cannot_be_are_told", files::refusals),
        ("charts_show_what_is_there", views::charts),
        ("a_segment_is_watched", views::watch_living),
        ("a_dead_segment_is_watched", views::watch_dead),
        ("a_damaged_segment_is_watched", views::watch_damaged),
        (
            "watch_needs_no_terminal_for_one_look",
            views::watch_without_terminal,
        ),
        ("doctor_says_what_is_in_the_way", system::doctor),
        ("doctor_finds_what_is_left", system::doctor_leftovers),
        ("bench_measures", system::bench),
        ("completions_are_for_shells", system::completions),
    ]);
}
