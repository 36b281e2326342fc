//! Many segments with damaged bytes, used in each way: no panic, no hang, no access outside, and
//! errors that describe the damage.
//!
//! `cargo test --release --test hostile_bytes -- --cases 10000000 --seed 1` is the long run.
//! `--case N` with the same seed repeats one case.

mod hostile;
mod props;
mod support;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use hostile::changes::Changes;
use hostile::world::{Tally, World};
use support::{Child, Name, exit_at_once};

/// Cases that one child runs.
const BLOCK: u64 = 2_000;
/// Seconds that one case may take.
const PATIENCE: u32 = 20;
/// Time limit of one child.
const DEADLINE: Duration = Duration::from_secs(240);
/// Address space of a child. It exposes calls that allocate as much as damaged words say.
const ADDRESS_SPACE: u64 = 4 << 30;

struct Options {
    cases: u64,
    seed: u64,
    case: Option<u64>,
}

fn options() -> Options {
    let mut options = Options {
        cases: 4_000,
        seed: 0x5eed,
        case: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> u64 {
            let text = arguments.next().unwrap_or_default();
            text.parse()
                .unwrap_or_else(|_| panic!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--cases" => options.cases = number(),
            "--seed" => options.seed = number(),
            "--case" => options.case = Some(number()),
            // Arguments of cargo and the standard harness.
            _ => {}
        }
    }
    options
}

/// Returns the bytes of a case.
fn bytes(seed: u64, case: u64) -> Vec<u8> {
    let mut random = props::Numbers::from_seed(seed);
    let mut random =
        props::Numbers::from_seed(random.any() ^ case.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let changes = 1 + random.below(4) * random.below(4);
    (0..1 + 11 * changes).map(|_| random.any() as u8).collect()
}

fn dead(life: &dyn Fn()) {
    Child::fork(|| {
        life();
        exit_at_once(0);
    })
    .join();
}

/// Runs cases in this process, and keeps the number of the current one in `at`.
fn run(seed: u64, cases: std::ops::Range<u64>, at: &File) -> (Tally, Option<String>) {
    let mut world = World::new(dead);
    for case in cases {
        at.write_all_at(&case.to_le_bytes(), 0).unwrap();
        // SAFETY: `alarm` has no precondition; its signal ends a call that hangs.
        unsafe { libc::alarm(PATIENCE) };
        let bytes = bytes(seed, case);
        let mut outcome = world.run(&Changes::of(&bytes));
        if case % 64 == 0 {
            let name = Name::new("truncated");
            let len = u64::from(bytes[0]) * 40_961 + case % 4096;
            outcome = outcome.and(world.open_truncated(&name.0, len));
        }
        if let Err(what) = outcome {
            return (world.tally, Some(what));
        }
    }
    (world.tally, None)
}

/// Runs cases in a child. Returns its counts, or the failed case with the reason.
fn block(seed: u64, cases: std::ops::Range<u64>) -> Result<Vec<(String, u64)>, (u64, String)> {
    let path = std::env::temp_dir().join(format!("ndshm-hostile-{}", std::process::id()));
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let child = Child::fork(|| {
        let limit = libc::rlimit {
            rlim_cur: ADDRESS_SPACE,
            rlim_max: ADDRESS_SPACE,
        };
        // SAFETY: `limit` lives over the call, which reads it.
        unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
        let (tally, failure) = run(seed, cases.clone(), &file);
        if let Some(what) = failure {
            eprintln!("{what}");
            exit_at_once(1);
        }
        let lines: String = tally
            .iter()
            .map(|((call, outcome), count)| format!("{call}, {outcome}: {count}\n"))
            .collect();
        let mut file = &file;
        file.seek(std::io::SeekFrom::Start(8)).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    });
    let status = child.wait_within(DEADLINE);
    let mut number = [0; 8];
    file.read_exact_at(&mut number, 0).unwrap();
    let case = u64::from_le_bytes(number);
    match status {
        None => Err((case, "it does not end".into())),
        Some(status) if !status.success() => Err((case, format!("its process ended: {status}"))),
        Some(_) => {
            let mut text = String::new();
            file.seek(std::io::SeekFrom::Start(8)).unwrap();
            file.read_to_string(&mut text).unwrap();
            let count = |line: &str| {
                let (what, count) = line.rsplit_once(": ")?;
                Some((what.to_owned(), count.parse().ok()?))
            };
            Ok(text.lines().filter_map(count).collect())
        }
    }
}

fn main() {
    support::set_signals();
    let options = options();
    let start = Instant::now();
    let cases = match options.case {
        Some(case) => {
            println!("{:?}", Changes::of(&bytes(options.seed, case)));
            case..case + 1
        }
        None => 0..options.cases,
    };
    let mut tally = std::collections::BTreeMap::new();
    let mut failures = 0;
    let mut at = cases.start;
    while at < cases.end && failures < 10 {
        let end = (at + BLOCK).min(cases.end);
        match block(options.seed, at..end) {
            Ok(counts) => {
                for (what, count) in counts {
                    *tally.entry(what).or_insert(0) += count;
                }
                at = end;
            }
            Err((case, how)) => {
                failures += 1;
                println!("--seed {} --case {case}: {how}", options.seed);
                at = case + 1;
            }
        }
    }
    for (what, count) in &tally {
        println!("{count:>12} {what}");
    }
    let seconds = start.elapsed().as_secs_f64();
    let ran = at - cases.start;
    println!(
        "{ran} cases in {seconds:.1} s, {:.0} a second, {failures} failures",
        ran as f64 / seconds
    );
    // Require both calls that succeed and calls that find damage, as proof that the run did
    // something.
    let seen = |what: &str| tally.contains_key(what);
    assert!(options.case.is_some() || seen("read, done") && seen("verify, damaged"));
    std::process::exit(i32::from(failures > 0));
}
