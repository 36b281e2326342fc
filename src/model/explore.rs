//! Running a model under loom: to its end, or not at all.
#![expect(
    clippy::disallowed_types,
    reason = "what is counted here is outside of the model"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The limit of executions. A model that needs more must be made smaller.
pub const MOST_EXECUTIONS: u64 = 500_000;

/// The limit of operations in one execution. Beyond it loom assumes that the model never ends.
const MOST_BRANCHES: usize = 20_000;

/// Runs `model` in every interleaving of at most `bound` preemptions, and with every value that the
/// memory model lets a load return. Returns the number of executions.
///
/// A preemption is a switch away from a thread that could continue; most faults need one or two.
/// loom's environment variables that limit an exploration are ignored: an exploration that passes
/// is complete.
///
/// # Panics
/// Panics if the model panics or deadlocks in any execution; if two accesses to the same bytes are
/// not ordered, with the places in the source of both; if there are more than [`MOST_EXECUTIONS`].
pub fn explore(bound: usize, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let executions = Arc::new(AtomicU64::new(0));
    let count = executions.clone();
    let mut builder = loom::model::Builder::new();
    builder.max_permutations = None;
    builder.max_duration = None;
    builder.max_branches = MOST_BRANCHES;
    builder.preemption_bound = Some(bound);
    builder.check(move || {
        let executions = count.fetch_add(1, Relaxed) + 1;
        assert!(
            executions <= MOST_EXECUTIONS,
            "cut off after {MOST_EXECUTIONS} executions: make the model smaller"
        );
        model();
    });
    executions.load(Relaxed)
}

/// Checks that [`explore`] refuses `model`, which shows that a model can detect the fault that it
/// is meant to exclude. Returns the message of the refusal: for accesses that race, both places.
///
/// # Panics
/// Panics if the model passes.
pub fn refused(bound: usize, model: impl Fn() + Send + Sync + 'static) -> String {
    let cause = match catch_unwind(AssertUnwindSafe(|| explore(bound, model))) {
        Ok(executions) => panic!("{executions} executions, and none was refused"),
        Err(cause) => cause,
    };
    match cause.downcast::<String>() {
        Ok(said) => *said,
        Err(cause) => cause
            .downcast_ref::<&str>()
            .map_or_else(String::new, ToString::to_string),
    }
}

/// Runs [`explore`] with a participant that is killed before its first, second, ... operation on
/// the segment's words, until it survives in every execution. Returns the number of executions and
/// the number of deaths.
///
/// `model` gets the number of operations, to be passed to [`mortal`](super::mortal) or
/// [`mortal_pool`](super::mortal_pool), and returns `true` if the participant died.
///
/// # Panics
/// Panics as [`explore`] does.
pub fn explore_deaths(
    bound: usize,
    model: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> (u64, u64) {
    let model = Arc::new(model);
    let mut executions = 0;
    let mut steps = 0;
    loop {
        let died = Arc::new(AtomicBool::new(false));
        let (model, note) = (model.clone(), died.clone());
        executions += explore(bound, move || {
            if model(steps) {
                note.store(true, Relaxed);
            }
        });
        if !died.load(Relaxed) {
            return (executions, steps);
        }
        steps += 1;
    }
}
