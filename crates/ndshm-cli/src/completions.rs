//! `ndshm completions`: prints completion scripts.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::{Code, Failure};

/// Print a completion script for a shell
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> Result<Code, Failure> {
    // Generate into memory first: the generator panics on a write error.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ndshm", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Code::Done)
}
