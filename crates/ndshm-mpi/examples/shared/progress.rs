//! Lines about the progress of a run, which the first rank prints.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Prints at most a line every few seconds: launchers pass on whole lines.
pub struct Progress {
    last: Cell<Instant>,
    interval: Duration,
}

impl Progress {
    pub fn new() -> Progress {
        Progress {
            last: Cell::new(Instant::now()),
            interval: match std::io::stderr().is_terminal() {
                true => Duration::from_millis(200),
                false => Duration::from_secs(5),
            },
        }
    }

    /// Prints the step after which the run is, if it is time.
    pub fn show(&self, step: u64, steps: u64) {
        if self.last.get().elapsed() < self.interval && step < steps {
            return;
        }
        self.last.set(Instant::now());
        match std::io::stderr().is_terminal() {
            true if step < steps => eprint!("\rstep {step} of {steps}"),
            true => eprintln!("\rstep {step} of {steps}"),
            false => eprintln!("step {step} of {steps}"),
        }
    }
}
