//! Counting, and the table of what was counted.

use std::io;

use crate::calls::{CALLS, Call, NOTHING, REPEATS};
use crate::ceilings::{Ceilings, Verdict};
use crate::tracer::{Victim, may_trace};

/// A call is counted once it has taken the same number of instructions so often in a row.
const SETTLED: usize = 3;

pub fn main() {
    let option = |name: &str| std::env::args().any(|argument| argument == name);
    let (json, check, update) = (option("--json"), option("--check"), option("--update"));
    if !may_trace() {
        println!("(not counted: that takes the right to trace a child by ptrace)");
        return;
    }
    if cfg!(debug_assertions) {
        println!("(not release code: its counts are compared with nothing)");
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

/// The instructions of one repetition, as soon as it always takes as many.
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
    let text = format!("it never takes as many instructions as before: {counts:?}");
    Err(io::Error::other(text))
}
