//! The primitives against sequential references, with several numbers and kinds of workers.

mod moves;
#[path = "../props/mod.rs"]
mod props;
mod reference;
mod sums;
#[path = "../support/mod.rs"]
mod support;
mod weights;

use ndshm::{HandleTable, Pool};
use support::table;

/// Lengths around the end of a tile and of a lane, and others.
const LENGTHS: [usize; 10] = [0, 1, 7, 8, 9, 4031, 4032, 4033, 8064, 30_001];

fn main() {
    support::run_tests![
        moves::fill_copy_and_swap_move_every_type,
        moves::copy_and_swap_keep_indices_in_any_order_of_memory,
        moves::an_array_may_be_copied_to_itself_and_swapped_with_itself,
        moves::shapes_that_differ_are_errors,
        moves::an_array_in_use_is_an_error,
        moves::a_gather_takes_rows_in_any_order_of_memory,
        moves::an_index_out_of_range_is_an_error_and_the_others_are_gathered,
        moves::a_gather_refuses_aliases_and_other_shapes,
        sums::prefix_sums_of_floats_equal_the_reference,
        sums::sums_of_many_tiles_equal_the_reference,
        sums::prefix_sums_of_integers_are_exact,
        sums::a_prefix_sum_that_overflows_names_the_position_and_writes_nothing,
        sums::sums_of_integers_are_exact_or_an_error,
        sums::sums_do_not_depend_on_the_shape,
        sums::minimum_and_maximum_propagate_nan,
        sums::means_and_variances_equal_the_reference,
        sums::a_large_mean_costs_no_digits,
        sums::too_few_elements_are_an_error,
        weights::log_sum_exp_equals_the_reference,
        weights::log_sum_exp_of_infinities_and_nan,
        weights::log_weights_are_normalized,
        weights::invalid_log_weights_are_errors,
        weights::the_effective_sample_size_does_not_depend_on_the_scale,
        weights::systematic_resampling_equals_the_reference,
        weights::a_systematic_plan_has_the_ancestors_of_the_pool,
        weights::plans_refuse_what_does_not_fit,
        weights::systematic_offspring_are_the_share_rounded_up_or_down,
        weights::multinomial_resampling_equals_the_reference,
        weights::multinomial_offspring_follow_the_weights,
        weights::invalid_weights_are_errors,
        weights::the_scale_of_weights_does_not_matter,
        weights::tiny_weights_keep_their_share,
        weights::calls_leave_no_arrays,
    ];
}

/// Runs a test with one, two and three worker processes, and with threads.
fn with_pools(test: impl Fn(&HandleTable, &mut Pool<'_>)) {
    let table = table();
    let mut pools: Vec<_> = (1..=3)
        .map(|workers| Pool::fork(&table, workers).unwrap())
        .collect();
    pools.push(Pool::threads(&table, 2).unwrap());
    for pool in &mut pools {
        test(&table, pool);
    }
}

/// Returns random numbers from -1 to 1, the same in each run.
fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut numbers = props::Numbers::from_seed(seed);
    let scale = 2f64.powi(-63);
    (0..count)
        .map(|_| numbers.any() as f64 * scale - 1.0)
        .collect()
}
