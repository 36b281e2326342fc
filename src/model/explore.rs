//! Running a model under loom, to its end or not at all.
#![expect(
    clippy::disallowed_types,
    reason = "what is counted here is outside of the model"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A model that needs more executions than this is to be made smaller.
pub const MOST_EXECUTIONS: u64 = 500_000;

/// Operations in one execution: beyond it loom takes the model for one that never ends.
const MOST_BRANCHES: usize = 20_000;

/// Runs `model` in every interleaving of at most `bound` preemptions, and with every value that the
/// memory model lets a load return. How many executions that were.
///
/// A preemption is a switch away from a thread that could go on; most faults need one or two.
/// loom's environment variables that cut an exploration off are not looked at: one that passes is
/// complete.
///
/// # Panics
/// If the model panics or deadlocks in any execution; if two accesses to the same bytes are not
/// ordered, with the places in the source of both; if there are more than [`MOST_EXECUTIONS`].
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

/// Demands that [`explore`] refuses `model`: it shows that a model can see what it is to exclude.
/// What it was refused with: for accesses that race, both places.
///
/// # Panics
/// If the model passes.
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

/// As [`explore`], for a participant that is killed before its first, second, ... operation on the
/// segment's words, until it comes to its end alive in every execution. How many executions and how
/// many deaths that were.
///
/// `model` gets the number of operations, for [`mortal`](super::mortal) or
/// [`mortal_pool`](super::mortal_pool), and returns whether the participant died.
///
/// # Panics
/// As [`explore`].
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
