//! `ndshm watch`: shows a segment live on the whole screen.

mod screen;
mod signal;
mod snapshot;
mod view;

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
use view::{ArrayOrder, SeatOrder, View};

const HELP: &str = "\
Arrow keys, page up and page down scroll the arrays; s chooses their order and r reverses it; / \
begins a filter, which Enter ends and Esc removes; p chooses the order of the participants; q, Esc \
and Ctrl-C leave. Rates cover the time between two snapshots. A process's state is the letter of \
proc(5): R runs, S sleeps, T is stopped.

For each participant: the processor time of its process, the arrays and bytes that the process \
owns, and how many arrays a second came and went. An array that is made and freed between two \
snapshots is in the segment's rates, which count each, and not in those of participants.

JSON: one line per snapshot, {time, size, resident, arrays, live, made, freed, made_per_s, \
freed_per_s, rounds: [{partition, round, running, done, held, torn, tiles}], seats: [{seat, pid, \
alive, command, state, writes, reads, owned, owned_bytes, made_per_s, freed_per_s, cpu}]}. `cpu` is \
the part of one processor. `arrays` counts the programs' own arrays; `live`, `made` \
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
    /// The order of the arrays
    #[arg(long, value_enum, default_value_t)]
    sort: ArrayOrder,
    /// Reverse the order of the arrays
    #[arg(long)]
    reverse: bool,
    /// Only arrays whose name, handle or type contains this text, or whose owner has this pid
    #[arg(long, default_value = "")]
    filter: String,
    /// The order of the participants
    #[arg(long, value_enum, default_value_t)]
    participants: SeatOrder,
}

/// Columns and rows of a printed snapshot.
const PRINTED: (u16, u16) = (120, 40);

/// Watches the segment until the user ends it.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    let mut watched = Watched::new(&place)?;
    let interval = Duration::from_millis(args.interval);
    let view = View {
        arrays: args.sort,
        seats: args.participants,
        reverse: args.reverse,
        filter: args.filter.clone(),
        typing: false,
    };
    if out.json() {
        return print_lines(&mut watched, &view, interval, args.once);
    }
    let screen = Screen::new(view);
    if args.once {
        return print_once(&mut watched, screen, out);
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::usage(
            "watch needs a terminal; without one use --once, or --json",
        ));
    }
    on_screen(&mut watched, screen, interval)
}

/// Prints one JSON document per line until a signal arrives or the reader closes the pipe.
fn print_lines(
    watched: &mut Watched,
    view: &View,
    interval: Duration,
    once: bool,
) -> Result<Code, Failure> {
    signal::catch();
    loop {
        let line: Json = watched.update()?.document(view);
        writeln!(io::stdout(), "{line}")?;
        io::stdout().flush()?;
        if once || signal::wait(interval) {
            return Ok(Code::Done);
        }
    }
}

fn print_once(watched: &mut Watched, mut screen: Screen, out: &Output) -> Result<Code, Failure> {
    watched.update()?;
    let backend = TestBackend::new(PRINTED.0, PRINTED.1);
    // The errors of this backend cannot occur: it has no terminal.
    let Ok(mut terminal) = Terminal::new(backend);
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

fn on_screen(
    watched: &mut Watched,
    mut screen: Screen,
    interval: Duration,
) -> Result<Code, Failure> {
    // Update once before taking the screen: an error is then printed on the normal screen.
    watched.update()?;
    signal::catch();
    let mut terminal = ratatui::try_init()?;
    let _restored = Restored;
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
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Enter | KeyCode::Esc if screen.view.typing => {
            screen.view.typing = false;
            if key.code == KeyCode::Esc {
                screen.view.filter.clear();
            }
        }
        KeyCode::Backspace if screen.view.typing => drop(screen.view.filter.pop()),
        KeyCode::Char(letter) if screen.view.letter(letter) => {}
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Down => screen.scroll(1),
        KeyCode::Up => screen.scroll(-1),
        KeyCode::PageDown => screen.scroll(10),
        KeyCode::PageUp => screen.scroll(-10),
        KeyCode::Home => screen.scroll(isize::MIN),
        _ => {}
    }
    false
}
