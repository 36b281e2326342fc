//! `ndshm watch`: shows a segment live on the whole screen.

mod screen;
mod signal;
mod snapshot;

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value as Json;

use crate::output::{Code, Failure, Output};
use crate::target::Place;
use screen::Screen;
use snapshot::Watched;

const HELP: &str = "\
Arrow keys, page up and page down scroll the arrays; q, Esc and Ctrl-C leave. Rates cover the \
time between two snapshots. A process's state is the letter of proc(5): R runs, S sleeps, T is \
stopped.

JSON: one line per snapshot, {time, size, resident, arrays, live, made, freed, made_per_s, \
freed_per_s, rounds: [{partition, round, running, done, held, torn, tiles}], seats: [{seat, pid, \
alive, command, state, writes, reads}]}. `arrays` counts the programs' own arrays; `live`, `made` \
and `freed` also count those that the table makes for itself. Rates are null in the first \
snapshot.";

/// Watch a segment as it changes: memory, arrays, rounds and participants
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// Milliseconds between snapshots
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(20..=3_600_000))]
    interval: u64,
    /// Print one snapshot as text, and exit
    #[arg(long)]
    once: bool,
}

/// Columns and rows of a printed snapshot.
const PRINTED: (u16, u16) = (120, 40);

/// Watches the segment until the user ends it.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    let mut watched = Watched::new(&place)?;
    let interval = Duration::from_millis(args.interval);
    if out.json() {
        return print_lines(&mut watched, interval, args.once);
    }
    if args.once {
        return print_once(&mut watched, out);
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::usage(
            "watch needs a terminal; without one use --once, or --json",
        ));
    }
    on_screen(&mut watched, interval)
}

/// Prints one JSON document per line until a signal arrives or the reader closes the pipe.
fn print_lines(watched: &mut Watched, interval: Duration, once: bool) -> Result<Code, Failure> {
    signal::catch();
    loop {
        let line: Json = watched.update()?.document();
        writeln!(io::stdout(), "{line}")?;
        io::stdout().flush()?;
        if once || signal::wait(interval) {
            return Ok(Code::Done);
        }
    }
}

fn print_once(watched: &mut Watched, out: &Output) -> Result<Code, Failure> {
    watched.update()?;
    let backend = TestBackend::new(PRINTED.0, PRINTED.1);
    // The errors of this backend cannot occur: it has no terminal.
    let Ok(mut terminal) = Terminal::new(backend);
    let mut screen = Screen::default();
    let Ok(_) = terminal.draw(|frame| screen.draw(frame, watched));
    out.drawn(terminal.backend().buffer())?;
    Ok(Code::Done)
}

/// Restores the terminal when dropped, also by a panic.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn on_screen(watched: &mut Watched, interval: Duration) -> Result<Code, Failure> {
    // Update once before taking the screen: an error is then printed on the normal screen.
    watched.update()?;
    signal::catch();
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
    let mut screen = Screen::default();
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen.draw(frame, watched))?;
        let left = next.saturating_duration_since(Instant::now());
        // Wait in short pieces: a signal does not interrupt a wait that begins after it.
        if event::poll(left.min(Duration::from_millis(50)))? {
            if leaves(&event::read()?, &mut screen) {
                return Ok(Code::Done);
            }
        } else if signal::came() {
            return Ok(Code::Done);
        }
        if Instant::now() >= next {
            watched.update()?;
            next = Instant::now() + interval;
        }
    }
}

/// Handles a key. Returns `true` if the key ends the program.
fn leaves(event: &Event, screen: &mut Screen) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Down => screen.scroll(1),
        KeyCode::Up => screen.scroll(-1),
        KeyCode::PageDown => screen.scroll(10),
        KeyCode::PageUp => screen.scroll(-10),
        KeyCode::Home => screen.scroll(isize::MIN),
        _ => {}
    }
    false
}
