//! Runs the families of programs, and reports failures.
#![expect(
    clippy::disallowed_types,
    reason = "the counters here are outside of the programs"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use proptest::test_runner::{
    Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{FailurePersistence, MaxSteps, Runner};

use crate::history::explain;
use crate::program::{Program, Size, programs};
use crate::run::{Record, run};
use crate::world::Rounds;

/// A family of programs.
struct Family {
    name: &'static str,
    size: Size,
    /// The number of programs, unless the arguments set it.
    cases: u32,
    /// The number of schedules of each kind per program.
    schedules: usize,
}

const FAMILIES: [Family; 3] = [
    Family {
        name: "small programs",
        size: Size {
            lives: (2, 4),
            acts: 14,
            operations: 250,
            spans: (0, 1),
            crowded: false,
        },
        cases: 1500,
        schedules: 12,
    },
    Family {
        name: "large programs",
        size: Size {
            lives: (4, 8),
            acts: 80,
            operations: 1500,
            spans: (1, 3),
            crowded: false,
        },
        cases: 150,
        schedules: 5,
    },
    Family {
        name: "crowded tables",
        size: Size {
            lives: (3, 6),
            acts: 24,
            operations: 400,
            spans: (1, 4),
            crowded: true,
        },
        cases: 700,
        schedules: 12,
    },
];

/// The most places in a schedule at which the PCT scheduler changes priorities.
const PCT_DEPTH: usize = 4;

/// The factor on the number of schedules during shrinking. It keeps a failure that occurs only in
/// few schedules.
const WHILE_SHRINKING: usize = 8;

/// Counts of everything that was run.
#[derive(Default)]
struct Tally {
    programs: usize,
    schedules: usize,
    calls: usize,
    kills: usize,
    rounds: Rounds,
    states: usize,
    answers: BTreeMap<String, usize>,
}

impl Tally {
    fn add(&mut self, record: &Record, states: usize) {
        self.schedules += 1;
        self.states += states;
        self.kills += record.notes.kills;
        self.rounds.begun += record.notes.rounds.begun;
        self.rounds.finished += record.notes.rounds.finished;
        self.rounds.torn += record.notes.rounds.torn;
        for call in record.history.iter().flatten() {
            self.calls += 1;
            let word = |text: String| text.split([' ', '(']).next().map(str::to_owned);
            let question = word(format!("{:?}", call.what)).unwrap_or_default();
            let answer = match &call.answered {
                Some((_, answer)) => word(format!("{answer:?}")).unwrap_or_default(),
                None => "Died".to_owned(),
            };
            *self
                .answers
                .entry(format!("{question} {answer}"))
                .or_default() += 1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} programs, {} schedules, {} calls, {} kills, {} rounds ({} ended, {} of them torn), \
             {} states of the reference",
            self.programs,
            self.schedules,
            self.calls,
            self.kills,
            self.rounds.begun,
            self.rounds.finished,
            self.rounds.torn,
            self.states,
        )?;
        self.answers
            .iter()
            .try_for_each(|(kind, count)| write!(f, "; {kind} {count}"))
    }
}

struct Arguments {
    iterations: Option<u32>,
    seed: u64,
}

const USAGE: &str = "options: --iterations N (programs of each family; with 0 only those \
                     that failed before), --seed N (of the programs)";

fn arguments() -> Result<Arguments, String> {
    let mut read = Arguments {
        iterations: None,
        seed: 0x5eed,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut number = || {
            let value = given
                .next()
                .ok_or(format!("{name} needs a number\n{USAGE}"))?;
            value
                .parse::<u64>()
                .map_err(|error| format!("{name} {value}: {error}\n{USAGE}"))
        };
        match name.as_str() {
            "--iterations" => {
                let number = number()?;
                read.iterations = Some(number.try_into().unwrap_or(u32::MAX));
            }
            "--seed" => read.seed = number()?,
            _ => return Err(format!("unknown option {name}\n{USAGE}")),
        }
    }
    Ok(read)
}

pub fn main() {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    crate::known::check();
    quiet_panics();
    let failed = std::thread::scope(|scope| {
        let families = FAMILIES.each_ref().map(|family| {
            let arguments = &arguments;
            scope.spawn(move || check(family, arguments))
        });
        families
            .into_iter()
            .filter(|_| true)
            .map(|family| family.join())
            .collect::<Vec<_>>()
    });
    let failed = failed
        .into_iter()
        .filter(|outcome| !matches!(outcome, Ok(true)))
        .count();
    std::process::exit(i32::from(failed > 0));
}

thread_local! {
    /// The message and the place of this thread's last panic.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics for the report, because shrinking causes thousands. shuttle installs a hook in its
/// first run, which this hook replaces.
fn quiet_panics() {
    shuttle::check_random(|| {}, 1);
    std::panic::set_hook(Box::new(|panic| {
        LAST_PANIC.with(|last| *last.borrow_mut() = panic.to_string());
    }));
}

/// Checks a family. Returns `true` if all of its programs passed.
fn check(family: &Family, arguments: &Arguments) -> bool {
    let start = Instant::now();
    let config = Config {
        cases: arguments.iterations.unwrap_or(family.cases),
        rng_seed: RngSeed::Fixed(arguments.seed),
        max_shrink_iters: 500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/large.txt",
        ))),
        ..Config::default()
    };
    let tally = Mutex::new(Tally::default());
    let is_shrinking = AtomicBool::new(false);
    let outcome = TestRunner::new(config).run(&programs(family.size), |program| {
        let schedules = match is_shrinking.load(SeqCst) {
            true => family.schedules * WHILE_SHRINKING,
            false => family.schedules,
        };
        check_program(&program, schedules, &tally).map_err(|failure| {
            is_shrinking.store(true, SeqCst);
            TestCaseError::fail(failure)
        })
    });
    let tally = tally
        .into_inner()
        .unwrap_or_else(|tally| tally.into_inner());
    println!("{}: {tally}, {:.1?}", family.name, start.elapsed());
    match outcome {
        Ok(()) => true,
        Err(TestError::Fail(reason, program)) => {
            println!(
                "{}: FAILED: {reason}\nThe smallest program: {program:#?}",
                family.name
            );
            false
        }
        Err(error) => {
            println!("{}: {error}", family.name);
            false
        }
    }
}

fn check_program(program: &Program, schedules: usize, tally: &Mutex<Tally>) -> Result<(), String> {
    let random = RandomScheduler::new_from_seed(program.seed, schedules);
    explore(program, "random", random, tally)?;
    let pct = PctScheduler::new_from_seed(program.seed, PCT_DEPTH, schedules);
    explore(program, "PCT", pct, tally)?;
    let tally = &mut tally.lock().unwrap_or_else(|tally| tally.into_inner());
    tally.programs += 1;
    Ok(())
}

fn explore(
    program: &Program,
    name: &str,
    scheduler: impl Scheduler + 'static,
    tally: &Mutex<Tally>,
) -> Result<(), String> {
    let mut config = shuttle::Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    config.stack_size = 256 << 10;
    config.max_steps = MaxSteps::FailAfter(2_000_000);
    let records = Arc::new(Mutex::new(Vec::<Record>::new()));
    let (kept, code) = (records.clone(), program.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config).run(move || {
            let record = run(&code);
            kept.lock()
                .unwrap_or_else(|kept| kept.into_inner())
                .push(record);
        })
    }));
    let records = std::mem::take(&mut *records.lock().unwrap_or_else(|kept| kept.into_inner()));
    let where_ = |at: usize| format!("in the {name} schedule {at} of seed {:#x}", program.seed);
    if outcome.is_err() {
        let panic = LAST_PANIC.with(RefCell::take);
        return Err(format!("{}: {panic}", where_(records.len())));
    }
    for (at, record) in records.into_iter().enumerate() {
        let states = explain(record.start.clone(), &record.history)
            .map_err(|error| format!("{}: {error}", where_(at)))?;
        let mut tally = tally.lock().unwrap_or_else(|tally| tally.into_inner());
        tally.add(&record, states);
    }
    Ok(())
}
