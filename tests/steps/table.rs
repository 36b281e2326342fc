//! The command line, and the printed table: operation, instructions, kills, failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::operations::{OPERATIONS, Operation};
use crate::run::{Death, Run};
use crate::tracer::may_trace;

/// Default number of kills of each operation.
const SPREAD: usize = 90;
/// Attempts to kill at the intended point when the victim leaves the recorded path.
const TRIES: usize = 3;
/// After so many failures in a row, one attempt is enough.
const PATIENCE: usize = 8;
/// Largest number of instructions that a victim is stepped through.
const WALK: usize = 5_000;
/// Seconds that one kill and its check may take.
const DEADLINE: u32 = 60;
/// Seconds that a recording may take. It steps through up to 600,000 instructions, at up to 0.12 ms
/// each.
const RECORDING: u32 = 300;

struct Options {
    deaths: Option<usize>,
    only: Option<String>,
    at: Option<usize>,
}

impl Options {
    fn parse() -> Options {
        let mut options = Options {
            deaths: Some(SPREAD),
            only: None,
            at: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = |what: &str| -> usize {
                let text = arguments.next().unwrap_or_default();
                text.parse()
                    .unwrap_or_else(|_| panic!("{what} needs a number"))
            };
            match argument.as_str() {
                "--all" => options.deaths = None,
                "--deaths" => options.deaths = Some(number("--deaths").max(2)),
                "--at" => options.at = Some(number("--at")),
                "--only" => options.only = arguments.next(),
                // Arguments of cargo and the standard harness, such as --nocapture.
                _ => {}
            }
        }
        options
    }

    /// Returns the places to die at in an operation with `instructions`.
    fn places(&self, instructions: usize) -> Vec<usize> {
        match (self.at, self.deaths) {
            (Some(at), _) => vec![at.min(instructions)],
            (None, Some(deaths)) if deaths <= instructions => (0..deaths)
                .map(|at| at * instructions / (deaths - 1))
                .collect(),
            _ => (0..=instructions).collect(),
        }
    }
}

pub fn main() {
    crate::support::set_signals();
    let options = Options::parse();
    if !may_trace() {
        println!("(skipped: no right to trace a child by ptrace)");
        return;
    }
    let start = Instant::now();
    println!(
        "{:44} {:>12} {:>6} {:>8} {:>8} {:>7} {:>7} {:>6}",
        "operation", "instructions", "calls", "kills", "failures", "walked", "near by", "s"
    );
    let mut total = Counts::default();
    for operation in OPERATIONS.into_iter().flatten() {
        let wanted = options.only.as_ref();
        if wanted.is_none_or(|text| operation.0.contains(text.as_str())) {
            total.add(&row(operation, &options));
        }
    }
    println!(
        "{:44} {:>12} {:>6} {:>8} {:>8} {:>7} {:>7} {:>6.1}",
        "all",
        total.instructions,
        total.calls,
        total.kills,
        total.failures,
        total.walked,
        total.astray,
        start.elapsed().as_secs_f64()
    );
    assert!(total.kills > 0, "no operation has that name");
    std::process::exit(i32::from(total.failures > 0));
}

#[derive(Default)]
struct Counts {
    instructions: usize,
    calls: usize,
    kills: usize,
    failures: usize,
    walked: usize,
    astray: usize,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.instructions += other.instructions;
        self.calls += other.calls;
        self.kills += other.kills;
        self.failures += other.failures;
        self.walked += other.walked;
        self.astray += other.astray;
    }
}

/// Records an operation, and kills it at all requested places.
fn row(&(name, operation): &Operation, options: &Options) -> Counts {
    let start = Instant::now();
    let mut run = Run::new();
    // The first run performs the work that a process does only once.
    perform(&mut run, operation).expect("the undisturbed operation fails");
    run.record();
    perform_within(RECORDING, &mut run, operation).expect("the undisturbed operation fails");
    let trace = run.trace.as_ref().expect("it was recorded");
    let (instructions, calls) = (trace.addresses.len(), trace.syscalls.clone());
    let mut counts = Counts {
        instructions,
        calls: calls.len(),
        ..Counts::default()
    };
    let places = options.places(instructions);
    let deaths = places.iter().map(|&k| Death::After(k));
    // Also die within system calls: within all of them, if there are no more than other places.
    let step = (2 * calls.len()).div_ceil(places.len()).max(1);
    let calls = calls
        .iter()
        .flat_map(|&k| [Death::Entering(k), Death::Returning(k)]);
    let mut in_vain = 0;
    for death in deaths.chain(calls.step_by(step)) {
        run.kill(death);
        // The heap, the clock or a file in /proc can lead a victim off the recorded path: then try
        // again. If that fails, step the victim along its own path for as many instructions. Far
        // from the start this would take too long: then accept a death near by.
        let (Death::After(k) | Death::Entering(k) | Death::Returning(k)) = death;
        let tries = if in_vain < PATIENCE { TRIES } else { 1 };
        let walks = usize::from(k <= WALK);
        for attempt in 0..tries + walks {
            run.astray = false;
            run.walk = attempt == tries;
            counts.kills += 1;
            if let Err(what) = perform(&mut run, operation) {
                counts.failures += 1;
                println!("{name}: killed {death:?} of {instructions}: {what}");
            }
            if !run.astray {
                break;
            }
        }
        let missed = run.walk || run.astray;
        in_vain = if missed { in_vain + 1 } else { 0 };
        counts.walked += usize::from(run.walk);
        counts.astray += usize::from(run.astray);
        run.walk = false;
    }
    println!(
        "{name:44} {instructions:>12} {:>6} {:>8} {:>8} {:>7} {:>7} {:>6.1}",
        counts.calls,
        counts.kills,
        counts.failures,
        counts.walked,
        counts.astray,
        start.elapsed().as_secs_f64()
    );
    counts
}

fn perform(run: &mut Run, operation: fn(&mut Run)) -> Result<(), String> {
    perform_within(DEADLINE, run, operation)
}

/// Performs the operation once, within a deadline in seconds: a signal ends a run that hangs, and with it
/// the test.
fn perform_within(deadline: u32, run: &mut Run, operation: fn(&mut Run)) -> Result<(), String> {
    // SAFETY: `alarm` has no precondition.
    unsafe { libc::alarm(deadline) };
    let outcome = catch_unwind(AssertUnwindSafe(|| operation(run)));
    // SAFETY: as above.
    unsafe { libc::alarm(0) };
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        text.unwrap_or_else(|| "it panicked".into())
    })
}
