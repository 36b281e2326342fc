//! The command line: commands, options and the texts of `--help`.

use clap::{Parser, Subcommand};

use crate::{
    bench, completions, doctor, export, gc, get, import, ls, plot, set, show, stat, watch,
};

const CODES: &str = "\
Exit codes:
  0  done, nothing is wrong
  1  something is damaged or poisoned, or needs a remedy
  2  invalid arguments
  3  no such segment, array or file
  4  refused by the system or by another process
Error messages go to standard error, also with --json.

A SEGMENT is a segment's name, or PID:FD for a descriptor of an anonymous segment (see `ndshm \
ls`). Write a name that has the form PID:FD as its path, /dev/shm/12:3. An ARRAY is a handle, \
one of the array's names, or a path, NAME/PART (see `ndshm show`).";

/// Inspects ndshm's shared memory segments without disturbing the programs that use them.
#[derive(Parser)]
#[command(name = "ndshm", version, after_help = CODES, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document; its fields are named in each command's --help.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command to run.
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
