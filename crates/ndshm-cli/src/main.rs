//! `ndshm`: looks at segments of shared memory, and at what a crash left of them.
//!
//! It looks on through an [`Observer`](ndshm::Observer), which maps a segment to be read only and
//! takes no seat: a running program neither waits for it nor notices it. Only `set`, `import` and
//! `gc --yes` take part. Contents of arrays are copied out by the system, never read in place.

mod apart;
mod bench;
mod cli;
mod completions;
mod copy;
mod doctor;
mod export;
mod gc;
mod get;
mod import;
mod index;
mod ls;
mod output;
mod plot;
mod set;
mod show;
mod stat;
mod survey;
mod target;
mod value;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use output::{Code, Failure, Output};

fn main() -> ExitCode {
    // SAFETY: no handler is installed. A file that would exceed the limit is an error from now on;
    // by the signal it would be the end, and half a file would stay.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    apart::catch();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to be told if this cannot be written.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Code::Done,
                _ => Code::Usage,
            }
            .into();
        }
    };
    let out = Output::new(cli.json);
    match run(&cli.command, &out) {
        Ok(code) => code.into(),
        Err(failure) => failure.report(),
    }
}

fn run(command: &Command, out: &Output) -> Result<Code, Failure> {
    match command {
        Command::Ls(args) => ls::run(args, out),
        Command::Show(args) => show::run(args, out),
        Command::Stat(args) => stat::run(args, out),
        Command::Get(args) => get::run(args, out),
        Command::Set(args) => set::run(args, out),
        Command::Export(args) => export::run(args, out),
        Command::Import(args) => import::run(args, out),
        Command::Plot(args) => plot::run(args, out),
        Command::Watch(args) => watch::run(args, out),
        Command::Gc(args) => gc::run(args, out),
        Command::Doctor(args) => doctor::run(args, out),
        Command::Bench(args) => bench::run(args, out),
        Command::Completions(args) => completions::run(args),
    }
}
