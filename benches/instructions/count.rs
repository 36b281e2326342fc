//! Counts the calls and prints the table of results.

use std::io;

use crate::calls::{CALLS, Call, NOTHING, REPEATS};
use crate::ceilings::{Ceilings, Verdict};
use crate::tracer::{Victim, may_trace};

/// Number of equal counts in a row after which a count is accepted.
const SETTLED: usize = 3;

pub fn main() {
    let option = |name: &str| std::env::args().any(|argument| argument == name);
    let (json, check, update) = (option("--json"), option("--check"), option("--update"));
    if !may_trace() {
        println!("(not counted: this process may not trace a child by ptrace)");
        return;
    }
    if cfg!(debug_assertions) {
        println!("(not release code: its counts are not checked)");
    }
    let ceilings = Ceilings::load();
    if !json {
        println!("{ceilings}");
        println!("{:<32}{:>12}{:>12}", "", "instructions", "ceiling");
    }
    let nothing = count(&NOTHING).expect("ptrace");
    let mut counted = Vec::new();
    let mut failures = 0;
    for call in CALLS {
        let name = call.0;
        let instructions = count(call).unwrap_or_else(|error| panic!("{name}: {error}")) - nothing;
        counted.push((name.to_owned(), instructions));
        let ceiling = ceilings.of(name);
        let verdict = ceilings.judge(name, instructions);
        failures += usize::from(verdict != Verdict::Within);
        if json {
            let ceiling = ceiling.map_or("null".to_owned(), |ceiling| ceiling.to_string());
            println!(
                r#"{{"name": "{name}", "instructions": {instructions}, "ceiling": {ceiling}}}"#
            );
        } else {
            let ceiling = ceiling.map_or("-".to_owned(), |ceiling| ceiling.to_string());
            println!("{name:<32}{instructions:>12}{ceiling:>12}{verdict}");
        }
    }
    if update && !cfg!(debug_assertions) {
        ceilings.update(&counted).expect("the file is there");
    } else if check && !cfg!(debug_assertions) && failures > 0 {
        eprintln!("{failures} out of range");
        std::process::exit(1);
    }
}

/// Returns the instructions of one repetition, once successive repetitions take the same number.
fn count(&(_, repeat): &Call) -> io::Result<usize> {
    let mut child = Victim::start(repeat)?;
    let mut counts = Vec::new();
    for _ in 1..REPEATS {
        counts.push(child.record()?.addresses.len());
        if let Some(last) = counts.last_chunk::<SETTLED>()
            && last.iter().all(|count| count == &last[0])
        {
            return Ok(last[0]);
        }
    }
    let text = format!("the count of instructions does not settle: {counts:?}");
    Err(io::Error::other(text))
}
