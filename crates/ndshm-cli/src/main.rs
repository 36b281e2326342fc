//! `ndshm`: inspects shared memory segments, also those that crashed programs left behind.
//!
//! The tool uses an [`Observer`](ndshm::Observer), which maps a segment read-only and takes no
//! seat: a running program neither waits for the tool nor notices it. Only `set`, `import` and
//! `gc --yes` join a segment. The kernel copies array contents out; the tool never reads them in
//! place.

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
mod object;
mod output;
mod path;
mod plot;
mod set;
mod show;
mod stat;
mod survey;
mod target;
mod truncation;
mod value;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use output::{Code, Failure, Output};

fn main() -> ExitCode {
    // SAFETY: no handler is installed. From now on, a write beyond the file size limit returns an
    // error. The signal would end the tool and leave half a file.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    truncation::catch();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Ignore the result: there is no other place to report a failed write.
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
