//! `ndshm completions`: what makes a shell complete the tool's commands.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::{Code, Failure};

/// Print what makes a shell complete commands and options
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints it.
pub fn run(args: &Args) -> Result<Code, Failure> {
    // Into memory first: the generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ndshm", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Code::Done)
}
