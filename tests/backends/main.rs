//! Behaviour that all kinds of workers share: forked, spawned, threads.

mod barrier;
mod calls;
mod deaths;
mod events;
mod kept;
mod mended;
mod running;
mod spawn;
mod spins;
#[path = "../support/mod.rs"]
mod support;
mod units;
#[cfg(feature = "serde")]
mod values;
#[cfg(not(feature = "serde"))]
mod values {
    pub fn values_of_any_type_cross() {}
    pub fn results_of_any_type_come_back() {}
    pub fn results_of_a_dead_worker_are_reported() {}
    pub fn a_started_call_fails_with_one_worker() {}
    pub fn panics_of_values_are_failures() {}
}

use ndarray::{ArrayViewMut1, Axis, Ix1};
use ndshm::{Handle, HandleTable, Partition, Pool, TileContext, Write};
use spawn::{FORGETFUL, forget_to_become_a_worker};
use support::{Child, Kind, die, start, table};

fn main() {
    if std::env::var_os(FORGETFUL).is_some() {
        forget_to_become_a_worker();
    }
    ndshm::become_worker();
    support::run_tests![
        calls::every_tile_runs_once_in_each_call,
        calls::results_are_in_the_order_of_the_tiles,
        calls::random_numbers_are_the_same_for_all_pools,
        calls::two_partitions_of_a_call_draw_different_numbers,
        calls::each_run_of_a_tile_draws_its_own_numbers,
        calls::parameters_may_be_long,
        calls::bools_tuples_and_arrays_cross,
        values::values_of_any_type_cross,
        values::results_of_any_type_come_back,
        values::results_of_a_dead_worker_are_reported,
        values::a_started_call_fails_with_one_worker,
        values::panics_of_values_are_failures,
        calls::a_broadcast_runs_once_in_each_worker,
        calls::workers_may_loop_over_a_partition,
        calls::pools_work_in_a_named_segment,
        calls::stats_count_tiles_calls_and_time,
        calls::more_workers_than_processors_make_progress,
        barrier::a_barrier_separates_the_steps_of_all_workers,
        barrier::a_worker_that_skips_a_barrier_fails_the_call,
        barrier::an_error_that_breaks_a_barrier_is_reported,
        barrier::a_barrier_ends_at_its_deadline,
        barrier::a_death_breaks_the_barrier,
        deaths::a_panic_names_its_tile,
        deaths::a_death_names_its_worker_and_tile,
        deaths::a_death_is_reported_within_50_ms,
        deaths::a_death_names_the_tiles_that_did_not_run,
        deaths::tiles_of_the_dead_run_again,
        deaths::a_tile_that_kills_every_worker_ends_the_call,
        deaths::rows_are_named_when_no_worker_is_left,
        deaths::workers_end_with_their_parent,
        deaths::an_interrupt_ends_parent_and_workers,
        running::ready_tiles_are_returned_and_run_again,
        running::a_slow_tile_does_not_delay_others,
        running::a_death_between_tiles_tears_none,
        running::a_panic_ends_a_wait_while_others_stay_ready,
        running::a_death_ends_a_wait_while_others_stay_ready,
        running::a_dropped_call_releases_its_arrays,
        events::a_panic_and_a_kill_are_reported_while_others_go_on,
        events::torn_tiles_that_are_dropped_stay_torn,
        events::each_of_several_panics_is_reported,
        events::deaths_without_a_tile_cost_nothing,
        events::the_last_death_is_an_error_after_its_tile,
        events::panics_are_run_again_up_to_eight_times,
        events::failures_at_the_end_are_errors,
        events::a_repair_that_panics_leaves_the_tile_torn,
        events::a_tile_that_a_stranger_tears_is_lost,
        events::a_call_that_is_dropped_keeps_its_poison,
        events::a_panic_is_an_event_in_a_serial_pool,
        mended::torn_tiles_of_a_skipped_call_belong_to_the_partition,
        mended::tiles_that_are_repaired_in_a_call_leave_no_poison,
        mended::a_failed_call_runs_the_tiles_that_were_sent_back,
        mended::the_remedies_of_errors_work,
        mended::a_later_policy_leaves_resting_tiles_alone,
        mended::idle_deaths_are_counted_after_a_lost_tile,
        units::units_have_the_elements_of_their_tiles,
        units::units_have_the_rows_of_their_tiles,
        units::few_tiles_are_units_of_one,
        units::tiles_of_units_draw_their_own_numbers,
        units::stats_count_the_tiles_of_units,
        units::workers_may_loop_over_units,
        units::a_panic_tears_its_unit,
        units::a_death_tears_its_unit,
        units::a_panic_in_a_loop_over_units_tears_the_unit,
        units::an_invalid_tile_leaves_its_unit,
        kept::calls_in_a_row_are_those_of_the_pool,
        kept::long_parameters_are_given_back,
        kept::units_stay_too,
        kept::steps_end_when_they_are_dropped,
        kept::a_panic_ends_the_round_and_not_the_steps,
        kept::a_death_ends_the_round_and_not_the_steps,
        kept::a_death_between_calls_tears_none,
        kept::tiles_of_the_dead_run_again_in_steps,
        kept::a_deadline_ends_the_round,
        kept::a_freed_array_ends_the_steps,
        kept::a_serial_pool_runs_steps,
        kept::workers_run_steps_within_a_call,
        spins::a_spin_of_more_than_10_ms_is_refused,
        spins::pools_of_any_spin_run_calls,
        spawn::spawn_works_beside_threads_and_fork_does_not,
        spawn::kernels_may_use_rayon,
        spawn::fork_is_refused_after_rayon,
        spawn::threads_started_after_a_fork_prevent_replacements,
        spawn::fork_with_threads_works_beside_a_sleeping_thread,
        spawn::spawn_reports_a_missing_become_worker,
    ];
}

type Tiles<'t> = Partition<'t, Write<u32, Ix1>>;

/// Runs `test` with a pool of each kind and a partition of ten tiles with ten numbers each.
fn with_each_pool(
    kinds: &[Kind],
    workers: usize,
    test: impl Fn(Kind, &HandleTable, Handle<u32, Ix1>, &Tiles<'_>, &mut Pool<'_>),
) {
    for &kind in kinds {
        // Run each kind in a child, because threads of the previous kind would prevent a fork.
        Child::fork(|| {
            let table = table();
            let x = table.zeros::<u32, _>(100).unwrap();
            let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
            let mut pool = start(kind, &table, workers);
            test(kind, &table, x, &tiles, &mut pool);
        })
        .join();
    }
}

fn kill_at_tile_5(mut x: ArrayViewMut1<u32>, _: &(), tile: &TileContext) {
    x.fill(1);
    if tile.index() == 5 {
        die();
    }
}
