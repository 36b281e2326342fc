//! `cargo loom-orderings`: weakens every ordering of the protocol code, one at a time, and finds a
//! model that refuses it.
//!
//! Without arguments it tries all models that use an ordering, the cheapest first and with few
//! preemptions first, and writes `ORDERINGS.md`. With `--check` it requires that the file lists
//! exactly the orderings of the code, and runs the model of each row (`--share K/N`: of each N-th
//! row, from the K-th). `--only TEXT` restricts either mode to the rows that contain the text.

#[cfg(all(loom, not(shuttle)))]
mod runs;
#[cfg(all(loom, not(shuttle)))]
mod scan;
#[cfg(all(loom, not(shuttle)))]
mod search;
#[cfg(all(loom, not(shuttle)))]
mod table;

use std::process::ExitCode;

#[cfg(any(not(loom), shuttle))]
fn main() -> ExitCode {
    eprintln!("there are no models in this build: `cargo loom-orderings`");
    ExitCode::FAILURE
}

/// The highest bound of any model.
#[cfg(all(loom, not(shuttle)))]
const MOST_PREEMPTIONS: usize = 4;

#[cfg(all(loom, not(shuttle)))]
struct Arguments {
    check: bool,
    share: (usize, usize),
    only: String,
    bound: usize,
}

#[cfg(all(loom, not(shuttle)))]
fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(argument) => {
            eprintln!("{argument}? [--check] [--share K/N] [--only TEXT] [--bound N]");
            return ExitCode::from(2);
        }
    };
    match search::run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(loom, not(shuttle)))]
fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        check: false,
        share: (1, 1),
        only: String::new(),
        bound: MOST_PREEMPTIONS,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or_else(|| argument.clone());
        match argument.as_str() {
            "--check" => parsed.check = true,
            "--only" => parsed.only = value()?,
            "--bound" => parsed.bound = value()?.parse().map_err(|_| argument)?,
            "--share" => {
                let share = value()?;
                parsed.share = share
                    .split_once('/')
                    .and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)))
                    .filter(|&(k, n)| 1 <= k && k <= n)
                    .ok_or(argument)?;
            }
            _ => return Err(argument),
        }
    }
    Ok(parsed)
}
