//! `check` and its relatives. Every model runs through one of them.
#![expect(
    clippy::disallowed_types,
    reason = "the counters here are outside of the model"
)]

use std::any::type_name;
use std::fmt::Display;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use loom::thread;
use ndshm::error::LeaseError;
use ndshm::{HandleTable, Segment, SegmentOptions, model};

use crate::steer;

/// Executions of all models of this test binary.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// Checks `model` in every interleaving of at most `bound` preemptions, and prints the number of
/// executions. The model has the name of the function that passes it.
///
/// # Panics
/// If the model panics or deadlocks, if loom finds accesses that race, or if there are more
/// executions than the harness allows.
pub fn check<M: Fn() + Send + Sync + 'static>(bound: usize, model: M) {
    let name = name_of::<M>();
    let executions = named(name, bound, |bound, count| {
        model::explore(bound, counted(count, model))
    });
    report(name, executions, &format!("bound {bound}"));
}

/// Checks a model in which a participant dies, like [`check`]; see [`model::explore_deaths`].
///
/// # Panics
/// Like [`check`].
pub fn check_deaths<M: Fn(u64) -> bool + Send + Sync + 'static>(bound: usize, model: M) {
    explore_deaths(name_of::<M>(), bound, model);
}

/// Checks one case of a model, like [`check_deaths`]. The printed name ends with the case.
///
/// # Panics
/// Like [`check`].
pub fn check_deaths_in_case<M: Fn(u64) -> bool + Send + Sync + 'static>(
    case: impl Display,
    bound: usize,
    model: M,
) {
    explore_deaths(&format!("{} {case}", name_of::<M>()), bound, model);
}

fn explore_deaths(name: &str, bound: usize, model: impl Fn(u64) -> bool + Send + Sync + 'static) {
    let (executions, deaths) = named(name, bound, |bound, count| {
        model::explore_deaths(bound, move |steps| {
            count.fetch_add(1, SeqCst);
            model(steps)
        })
    });
    report(name, executions, &format!("bound {bound}, {deaths} deaths"));
}

/// Returns the name of the function that contains the closure `M`.
fn name_of<M>() -> &'static str {
    // "queue::deaths::death_while_pushing::{{closure}}"
    let function = |part: &&str| !part.starts_with('{');
    let path = type_name::<M>();
    path.rsplit("::").find(function).unwrap_or(path)
}

/// Asserts that loom refuses `model` for a race between a line of `source` that contains `first`
/// and one that contains `second`. This shows that the models detect races, and that the report
/// names both places.
///
/// # Panics
/// If the model passes, or is refused for another reason.
pub fn must_race<M: Fn() + Send + Sync + 'static>(
    bound: usize,
    source: &str,
    [first, second]: [&str; 2],
    model: M,
) {
    let name = name_of::<M>();
    let said = named(name, bound, |bound, count| {
        model::refused(bound, counted(count, model))
    });
    let places: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once(".rs:")?.1.split(':').next()?.parse().ok())
        .filter_map(|line: usize| source.lines().nth(line - 1))
        .collect();
    let found = said.starts_with("race: ")
        && places.len() == 2
        && (0..2).any(|at| places[at].contains(first) && places[1 - at].contains(second));
    assert!(
        found,
        "{name}: no race between {first:?} and {second:?}: {said}"
    );
    print(format!("model {name}: was refused, as it must be\n"));
}

/// Runs `act` as the participant of seat 1 and kills it before its operation number `steps` on a
/// shared word. Returns `true` if it died; a survivor leaves afterwards.
pub fn dies(mortal: HandleTable, steps: u64, act: impl FnOnce(&HandleTable)) -> bool {
    let segment = mortal.segment().clone();
    let life = move || {
        act(&mortal);
        mortal
    };
    model::mortal(&segment, 1, steps, life).is_none()
}

/// Runs `theirs` as another participant, in a thread of its own, beside `ours`. Returns both
/// results and the participant's table.
///
/// # Panics
/// If the thread panicked.
pub fn beside<O, T: 'static>(
    table: HandleTable,
    theirs: impl FnOnce(&HandleTable) -> T + 'static,
    ours: impl FnOnce() -> O,
) -> (O, T, HandleTable) {
    let other = thread::spawn(move || (theirs(&table), table));
    let ours = ours();
    let (theirs, table) = other.join().unwrap();
    (ours, theirs, table)
}

/// Runs `theirs` beside `ours`, as a participant that [dies]. Then the survivor reaps. Returns our
/// result, and `true` if the participant died.
///
/// # Panics
/// If the thread panicked, or the reap fails.
pub fn beside_death<O>(
    survivor: &HandleTable,
    mortal: HandleTable,
    steps: u64,
    theirs: impl FnOnce(&HandleTable) + 'static,
    ours: impl FnOnce() -> O,
) -> (O, bool) {
    let other = thread::spawn(move || dies(mortal, steps, theirs));
    let ours = ours();
    let died = other.join().unwrap();
    survivor.reap().unwrap();
    (ours, died)
}

/// Returns the options of a segment of `capacity` bytes for `seats` participants and `arrays`
/// arrays, two per span.
pub fn options(capacity: u64, seats: u32, arrays: u64) -> SegmentOptions {
    Segment::options()
        .capacity(capacity)
        .seats(seats)
        .arrays(arrays)
}

/// Creates a segment with these [`options`].
///
/// # Panics
/// If the numbers are out of range.
pub fn segment(capacity: u64, seats: u32, arrays: u64) -> Segment {
    let options = options(capacity, seats, arrays);
    options.in_process().expect("a model's segment")
}

/// Joins the segment as one more participant.
///
/// # Panics
/// If no seat is free.
pub fn join(segment: &Segment) -> HandleTable {
    HandleTable::join(segment).expect("a seat is free")
}

/// Joins the segment as `N` participants, in the order of the array.
///
/// # Panics
/// If there are too few free seats.
pub fn tables<const N: usize>(segment: &Segment) -> [HandleTable; N] {
    [(); N].map(|()| join(segment))
}

/// Asserts that exactly `arrays` arrays of one number find room: no slot has leaked, and none is
/// given out twice. Frees them again.
///
/// # Panics
/// If there is more or less room.
#[track_caller]
pub fn assert_all_free(table: &HandleTable, arrays: usize) {
    let all: Vec<_> = (0..arrays)
        .map(|_| table.uninit::<u64, _>(1).expect("a slot has leaked"))
        .collect();
    table
        .uninit::<u64, _>(1)
        .expect_err("more slots than expected");
    for array in all {
        table.free(array).expect("an array of our own");
    }
}

/// Returns `true` if the lease was refused because another participant holds one.
pub fn is_busy<T>(outcome: &Result<T, LeaseError>) -> bool {
    matches!(outcome, Err(LeaseError::Busy { .. }))
}

/// Wraps `model` so that it counts its executions.
fn counted(count: Arc<AtomicU64>, model: impl Fn()) -> impl Fn() {
    move || {
        count.fetch_add(1, SeqCst);
        model();
    }
}

/// Runs an exploration. If it fails, prints the number of the execution that was refused.
fn named<R>(name: &str, bound: usize, explore: impl FnOnce(usize, Arc<AtomicU64>) -> R) -> R {
    let bound = steer::begin(bound);
    let executions = Arc::new(AtomicU64::new(0));
    let count = executions.clone();
    catch_unwind(AssertUnwindSafe(|| explore(bound, count))).unwrap_or_else(|cause| {
        let executions = executions.load(SeqCst);
        print(format!(
            "model {name} was refused in execution {executions}, bound {bound}\n"
        ));
        resume_unwind(cause)
    })
}

fn report(name: &str, executions: u64, how: &str) {
    let total = TOTAL.fetch_add(executions, SeqCst) + executions;
    print(format!(
        "model {name}: {executions} executions, {how} [{total} in all so far]\n"
    ));
    steer::end();
}

/// Prints past the test harness, which hides the output of tests that pass. Each line is one write,
/// so lines of parallel models do not mix.
fn print(line: String) {
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}
