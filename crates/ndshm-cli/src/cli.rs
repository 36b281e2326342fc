//! The command line: what there is to ask for, and what `--help` says of it.

use clap::{Parser, Subcommand};

use crate::{
    bench, completions, doctor, export, gc, get, import, ls, plot, set, show, stat, watch,
};

const CODES: &str = "\
Exit codes:
  0  done, nothing is wrong
  1  what was looked at is damaged, poisoned or wants a remedy
  2  the command line makes no sense
  3  no such segment, array or file
  4  the system or another process is in the way
What went wrong is told on standard error, with --json as well.

A SEGMENT is the name of one, or PID:FD for the descriptor of an anonymous one (see `ndshm ls`). A \
name of that form is written as its path, /dev/shm/12:3. An ARRAY is its handle or a name that it was given \
(see `ndshm show`).";

/// Looks at ndshm's segments of shared memory, without disturbing who uses them.
#[derive(Parser)]
#[command(name = "ndshm", version, after_help = CODES, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document; its fields are named in each command's --help.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Stat(stat::Args),
    Get(get::Args),
    Set(set::Args),
    Export(export::Args),
    Import(import::Args),
    Plot(plot::Args),
    Watch(watch::Args),
    Gc(gc::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}
