//! Torture: processes that use everything in the crate at random, are killed and stopped at random
//! moments, and check all that they see.
//!
//! A supervisor creates a segment and forks victims. Each victim takes a seat, and allocates,
//! frees, leases, passes on, adopts and detaches arrays, runs and enters rounds, pushes and pops
//! jobs, forks children, and takes all memory, slots or seats for a moment. The supervisor kills
//! victims with SIGKILL at any point, and replaces them. It stops others and continues them later.
//! All contents are patterns that name their place and their writer, so every holder of a lease or
//! a tile can check that it sees one whole pattern of one writer. From time to time the supervisor
//! asks all victims to end, and checks that they leave nothing: no seat, no lease, no array, no
//! byte, no job.
//!
//! ```sh
//! cargo run --release --example torture -- --seconds 60 --processes 6
//! cargo run --release --example torture -- --kills 10000 --seconds 600 --named
//! ```
//!
//! If there are findings, it prints them and exits with 1.

mod audit;
mod board;
mod deeds;
mod known;
mod names;
mod numbers;
mod own;
mod pattern;
mod process;
mod rounds;
#[path = "../../tests/support/signals.rs"]
mod signals;
mod supervisor;
mod victim;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ndshm::{HandleTable, Segment};

use audit::Auditor;
use board::{Board, COUNTS};
use supervisor::{Plan, Supervisor};
use world::World;

#[derive(Parser)]
struct Options {
    /// Seconds after which the run ends.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Number of victims at once.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=32))]
    processes: u64,
    /// Seed of the random choices. The moments of the kills depend on the system.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of kills after which the run ends, even before the time is over.
    #[arg(long)]
    kills: Option<u64>,
    /// Number of kills between two audits.
    #[arg(long, default_value_t = 1000)]
    audit_every: u64,
    /// Use a named segment. Its name is removed at the end.
    #[arg(long)]
    named: bool,
}

/// Bytes for all arrays. They are few, to be exhausted soon.
const CAPACITY: u64 = 64 << 20;

fn main() -> ExitCode {
    signals::set_signals();
    let options = Options::parse();
    let board = Board::new();
    let start = Instant::now();
    if let Err(error) = torture(&options, board) {
        board.find(&format!("supervisor: {error}"));
    }
    for (what, name) in COUNTS {
        println!("{:>14}  {name}", board.get(*what));
    }
    println!("{:>14.1}  seconds", start.elapsed().as_secs_f64());
    println!("{:>14}  findings", board.findings());
    for text in board.texts() {
        println!("\nfinding (seed {}): {text}", options.seed);
    }
    ExitCode::from(u8::from(board.findings() > 0))
}

fn torture(options: &Options, board: &'static Board) -> ndshm::Result<()> {
    process::adopt_orphans();
    let processes = options.processes as usize;
    // One seat for each victim, and some for children and second seats.
    let wish = Segment::options()
        .capacity(CAPACITY)
        .seats((2 * processes + 2) as u32)
        .retain(8 << 20);
    let name = Name(format!("ndshm-torture-{}", std::process::id()));
    let segment = match options.named {
        true => wish.create(&name.0)?,
        false => wish.anonymous()?,
    };
    let table = HandleTable::join(&segment)?;
    let (world, kept) = World::new(&table, board, options.seed)?;
    let auditor = Auditor::new(&table)?;
    let plan = Plan {
        processes,
        seconds: options.seconds,
        kills: options.kills,
        audit_every: options.audit_every,
    };
    Supervisor::new(&world, &table, plan).run(&kept, &auditor);
    drop((kept, world));
    drop((table, segment));
    if name.exists() {
        board.find("the name still exists after the last participant left");
    }
    Ok(())
}

/// The name of a segment, removed at the end of the run.
struct Name(String);

impl Name {
    fn exists(&self) -> bool {
        Path::new("/dev/shm").join(&self.0).exists()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(&self.0));
    }
}
