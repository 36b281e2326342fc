//! What the subjects in Rust have in common: the protocol of `benches/peers/run.py`, and trials in
//! which a process is killed.

#[path = "../../../common/process.rs"]
pub mod process;
mod trial;

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

pub use trial::{Outcome, mixed, trial_arguments};

/// A call that can be timed: repeats itself and returns the time that this took.
pub type Subject = Box<dyn FnMut(u64) -> Duration>;

/// Numbers and names that the driver gives in the environment.
pub struct Plan {
    /// Elements of a large array.
    pub large: usize,
    /// Elements of a small array.
    pub small: usize,
    /// Arrays that have names.
    pub names: usize,
    /// The beginning of all names of this run.
    pub prefix: String,
}

impl Plan {
    /// Reads the plan.
    ///
    /// # Panics
    ///
    /// If the program was not started by the driver.
    pub fn read() -> Plan {
        let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("no {name}"));
        let number = |name: &str| text(name).parse().expect("a number");
        Plan {
            large: number("PEERS_LARGE"),
            small: number("PEERS_SMALL"),
            names: number("PEERS_NAMES"),
            prefix: text("PEERS_PREFIX"),
        }
    }
}

/// Creates a subject from a call.
pub fn each<R>(mut call: impl FnMut() -> R + 'static) -> Subject {
    Box::new(move |times| timed(times, &mut call))
}

/// Returns the time of a number of calls.
pub fn timed<R>(times: u64, mut call: impl FnMut() -> R) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        black_box(call());
    }
    start.elapsed()
}

/// Creates a subject that a child process runs. `prepare` is called in the child.
///
/// # Panics
///
/// If the process has more than one thread.
pub fn in_child(prepare: impl FnOnce() -> Subject) -> Subject {
    let mut child = process::Process::fork(|| {
        let mut subject = prepare();
        move |times| subject(times).as_nanos() as u64
    });
    Box::new(move |times| {
        child.ask(times);
        Duration::from_nanos(child.answer())
    })
}

/// Returns indices below `count` in an order that no cache predicts.
pub fn scattered(count: usize) -> impl FnMut() -> usize {
    let mut at = 0u64;
    move || {
        at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ((at >> 16) % count as u64) as usize
    }
}

/// Answers the driver until it closes the input. `prepare` returns the subject of a row.
///
/// # Panics
///
/// If the driver does not keep to the protocol.
pub fn serve(mut prepare: impl FnMut(&str) -> Result<Subject, String>) {
    let mut subjects = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line of the driver");
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let answer = match (word(), word()) {
            ("prepare", row) => match prepare(row) {
                Ok(subject) => {
                    subjects.insert(row.to_owned(), subject);
                    "ready".to_owned()
                }
                Err(reason) => format!("none {reason}"),
            },
            ("sample", row) => {
                let times = word().parse().expect("a number of calls");
                let subject = subjects.get_mut(row).expect("a row that is prepared");
                format!("{:e}", subject(times).as_secs_f64())
            }
            ("finish", row) => {
                subjects.remove(row);
                "done".to_owned()
            }
            (what, _) => panic!("what is {what:?}?"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").expect("the driver reads");
        out.flush().expect("the driver reads");
    }
}
