//! Draws a snapshot on the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};

use super::snapshot::{Participant, Watched};
use super::view::{View, name_of};
use crate::output::{bytes, escaped};
use crate::path::Kind;

/// Maximum rows of participants and of rounds.
const FEW: usize = 8;

/// State that is kept between two draws.
pub struct Screen {
    /// The first array on the screen.
    first: usize,
    /// What is shown, and in which order.
    pub view: View,
}

impl Screen {
    /// Returns a screen that shows what `view` chooses.
    pub fn new(view: View) -> Screen {
        Screen { first: 0, view }
    }

    /// Scrolls the arrays by this many rows.
    pub fn scroll(&mut self, by: isize) {
        self.first = self.first.saturating_add_signed(by);
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>, watched: &Watched) {
        let snapshot = &watched.snapshot;
        let rounds = snapshot.rounds.len().min(FEW) as u16;
        let seats = snapshot.seats.len().min(FEW) as u16;
        // Each table has a frame and a heading.
        let high = |rows: u16| if rows > 0 { rows + 3 } else { 0 };
        let [title, memory, round, people, arrays] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(5),
            Constraint::Length(high(rounds)),
            Constraint::Length(high(seats)),
            Constraint::Min(3),
        ])
        .areas(frame.area());
        heading(frame, title, watched, &self.view);
        draw_memory(frame, memory, watched);
        if rounds > 0 {
            draw_rounds(frame, round, watched);
        }
        if seats > 0 {
            draw_participants(frame, people, &self.view.seats(snapshot), &self.view);
        }
        self.draw_arrays(frame, arrays, watched);
    }

    fn draw_arrays(&mut self, frame: &mut Frame<'_>, area: Rect, watched: &Watched) {
        let arrays = self.view.arrays(&watched.snapshot);
        let rows = usize::from(area.height.saturating_sub(3)).max(1);
        self.first = self.first.min(arrays.len().saturating_sub(rows));
        let end = (self.first + rows).min(arrays.len());
        let row = |array: &ndshm::inspect::ArrayInfo| {
            let name = watched.snapshot.names.get(&array.handle.to_bits());
            let pid = |pid: Option<u32>| pid.map_or("-".into(), |pid| pid.to_string());
            let (dtype, shape) = Kind::describe(array);
            let state = match array.poisoned {
                true => Span::raw("poisoned").red(),
                false => Span::raw(""),
            };
            Row::new([
                Cell::from(array.handle.to_string()),
                Cell::from(name.map_or("-".into(), |name| escaped(name).to_string())),
                Cell::from(dtype),
                Cell::from(shape),
                Cell::from(bytes(array.bytes)),
                Cell::from(pid(array.owner)),
                Cell::from(pid(array.writer)),
                Cell::from(array.readers.len().to_string()),
                Cell::from(state),
            ])
        };
        let widths = [
            Constraint::Length(22),
            Constraint::Min(8),
            Constraint::Length(9),
            Constraint::Length(14),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(8),
        ];
        let headings = [
            "handle", "name", "dtype", "shape", "bytes", "owner", "writer", "readers", "",
        ];
        let mut shown_now = match arrays.len() {
            0 => "arrays: none".into(),
            all => format!("arrays {} to {end} of {all}", self.first + 1),
        };
        if arrays.len() < watched.snapshot.arrays.len() {
            shown_now += &format!(" (filtered, {} in all)", watched.snapshot.arrays.len());
        }
        let reverse = if self.view.reverse { ", reversed" } else { "" };
        shown_now += &format!(", by {}{reverse}", name_of(self.view.arrays));
        let rows = arrays[self.first..end].iter().map(|array| row(array));
        let table = Table::new(rows, widths)
            .header(Row::new(headings).bold())
            .block(Block::bordered().title(shown_now));
        frame.render_widget(table, area);
    }
}

fn heading(frame: &mut Frame<'_>, area: Rect, watched: &Watched, view: &View) {
    let mut line = vec![Span::raw(escaped(&watched.place).to_string()).bold()];
    // What is wrong comes first: the line may be longer than the screen is wide.
    if !watched.snapshot.is_inhabited() {
        line.push(Span::raw("  no live process is in it").yellow());
    }
    if let Some(damage) = &watched.snapshot.damage {
        line.push(Span::raw(format!("  {}", escaped(damage))).red());
    }
    let filter = escaped(&view.filter);
    match (view.typing, filter.is_empty()) {
        (true, _) => line.push(Span::raw(format!("  filter: {filter}_  Enter, Esc")).bold()),
        (false, false) => line.push(Span::raw(format!("  filter: {filter}")).bold()),
        (false, true) => {}
    }
    line.push(Span::raw(
        "  q leaves, arrows scroll, s and p sort, r reverses, / filters",
    ));
    frame.render_widget(Paragraph::new(Line::from(line)), area);
}

fn draw_memory(frame: &mut Frame<'_>, area: Rect, watched: &Watched) {
    let snapshot = &watched.snapshot;
    let [numbers, graph] =
        Layout::horizontal([Constraint::Length(46), Constraint::Min(10)]).areas(area);
    let rates = match snapshot.rates {
        Some((made, freed)) => format!("{made:.0} made and {freed:.0} freed a second"),
        None => "made and freed a second: not yet known".into(),
    };
    let lines = vec![
        Line::from(format!(
            "memory {} of {}",
            bytes(snapshot.resident),
            bytes(snapshot.size)
        )),
        Line::from(format!(
            "{} arrays, {} in all",
            snapshot.arrays.len(),
            snapshot.census.live
        )),
        Line::from(rates),
    ];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered()), numbers);
    let wide = usize::from(graph.width.saturating_sub(2));
    let skip = watched.history.len().saturating_sub(wide);
    let recent: Vec<u64> = watched.history.iter().skip(skip).copied().collect();
    let sparkline = Sparkline::default()
        .block(Block::bordered().title("memory over time"))
        .data(&recent)
        .style(Style::new().fg(Color::Blue));
    frame.render_widget(sparkline, graph);
}

fn draw_rounds(frame: &mut Frame<'_>, area: Rect, watched: &Watched) {
    let row = |(partition, round): &(ndshm::AnyHandle, ndshm::inspect::RoundProgress)| {
        let state = match (round.running, round.torn) {
            (_, torn) if torn > 0 => Span::raw(format!("{torn} torn")).red(),
            (true, _) => Span::raw("running").green(),
            (false, _) => Span::raw("over"),
        };
        Row::new([
            Cell::from(partition.to_string()),
            Cell::from(round.round.to_string()),
            Cell::from(format!("{} of {}", round.done, round.tiles)),
            Cell::from(round.held.to_string()),
            Cell::from(state),
        ])
    };
    let widths = [
        Constraint::Length(22),
        Constraint::Length(12),
        Constraint::Length(20),
        Constraint::Length(10),
        Constraint::Min(8),
    ];
    let all = watched.snapshot.rounds.len();
    let table = Table::new(watched.snapshot.rounds.iter().take(FEW).map(row), widths)
        .header(Row::new(["partition", "round", "tiles done", "held", ""]).bold())
        .block(Block::bordered().title(count("rounds", all)));
    frame.render_widget(table, area);
}

fn draw_participants(frame: &mut Frame<'_>, area: Rect, seats: &[&Participant], view: &View) {
    let row = |participant: &&Participant| {
        let rate = |rate: Option<f64>| rate.map_or("-".into(), |rate| format!("{rate:.1}"));
        let rates = participant.rates;
        let cpu = rates.map_or("-".into(), |rates| format!("{:.0} %", 100.0 * rates.cpu));
        let state = match participant.seat.alive {
            true => Span::raw(participant.state.to_string()).green(),
            false => Span::raw("dead").red(),
        };
        Row::new([
            Cell::from(participant.seat.seat.to_string()),
            Cell::from(participant.seat.pid.to_string()),
            Cell::from(state),
            Cell::from(cpu),
            Cell::from(participant.owned.to_string()),
            Cell::from(bytes(participant.bytes)),
            Cell::from(rate(rates.map(|rates| rates.made))),
            Cell::from(rate(rates.map(|rates| rates.freed))),
            Cell::from(participant.writes.to_string()),
            Cell::from(participant.reads.to_string()),
            Cell::from(escaped(&participant.command).to_string()),
        ])
    };
    let widths = [
        Constraint::Length(5),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Min(10),
    ];
    let headings = [
        "seat", "pid", "state", "cpu", "owns", "memory", "made/s", "freed/s", "writes", "reads",
        "command",
    ];
    let title = count("participants", seats.len()) + ", by " + &name_of(view.seats);
    let table = Table::new(seats.iter().take(FEW).map(row), widths)
        .header(Row::new(headings).bold())
        .block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

/// Formats a heading. Adds the total if not all rows are shown.
fn count(what: &str, all: usize) -> String {
    match all {
        ..=FEW => what.to_owned(),
        _ => format!("{what}: {FEW} of {all}"),
    }
}
