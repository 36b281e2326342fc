//! Draws charts with ratatui, in a buffer that fits the terminal.

mod heat;

use std::io::{self, IsTerminal};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::{Marker, border};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::canvas::{self, Canvas};
use ratatui::widgets::{Block, Borders, Widget};

use super::axis::{self, Tick};
use super::chart::{Chart, Histogram, Lines, label};
use super::scene;
use crate::output::Output;

/// Size and abilities of the output.
pub struct Viewport {
    columns: u16,
    rows: u16,
    ascii: bool,
    colour: bool,
}

/// Width of the labels at the left, in columns.
const MARGIN: u16 = 11;
impl Viewport {
    /// Returns the size of standard output; 80 columns and 24 rows if it is not a terminal.
    pub fn here(ascii: bool, out: &Output) -> Viewport {
        let size = match io::stdout().is_terminal() {
            true => rustix::termios::tcgetwinsize(io::stdout()).ok(),
            false => None,
        };
        let (columns, rows) = match size {
            Some(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        };
        Viewport {
            columns: columns.clamp(MARGIN + 10, 400),
            // Leave room for the title, the axis and the prompt.
            rows: rows.saturating_sub(4).clamp(4, 60),
            ascii,
            colour: out.colour(),
        }
    }
}

/// Draws a chart.
pub fn draw(chart: &Chart, viewport: &Viewport) -> Buffer {
    match chart {
        Chart::Histogram(histogram) => bars(histogram, viewport),
        Chart::Lines(lines) => curves(lines, viewport),
        Chart::Heat(grid) => heat::draw(grid, viewport),
    }
}

const COLOUR: Color = Color::Cyan;

impl Viewport {
    /// Returns an empty buffer with this many rows.
    fn buffer(&self, rows: usize) -> Buffer {
        let rows = u16::try_from(rows).unwrap_or(u16::MAX);
        Buffer::empty(Rect::new(0, 0, self.columns, rows))
    }
}

/// Writes a label at the right end of the margin.
fn margin(buffer: &mut Buffer, row: u16, text: &str) {
    let text = format!("{text:>width$} ", width = usize::from(MARGIN) - 1);
    buffer.set_stringn(0, row, text, MARGIN.into(), Style::new());
}

/// Eighths of a block, from the left.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Draws one row per bin: lower edge, bar, count.
fn bars(histogram: &Histogram, viewport: &Viewport) -> Buffer {
    let mut buffer = viewport.buffer(histogram.counts.len() + 1);
    let most = histogram.counts.iter().copied().max().unwrap_or(0);
    let widest = most.to_string().len();
    let room = usize::from(viewport.columns - MARGIN)
        .saturating_sub(widest + 1)
        .max(4);
    let edges = histogram.edges().into_iter().chain([histogram.max]);
    let edges = edges.map(label).chain(std::iter::repeat("-".into()));
    let counts = histogram.counts.iter().map(Some).chain([None]);
    for ((row, count), edge) in (0..).zip(counts).zip(edges) {
        margin(&mut buffer, row, &edge);
        let Some(&count) = count else { continue };
        let eighths = match most {
            0 => 0,
            // Show every bin that is not empty.
            _ => ((count as f64 / most as f64 * (8 * room) as f64) as usize)
                .max(usize::from(count > 0)),
        };
        let bar = match viewport.ascii {
            true => "#".repeat(eighths.div_ceil(8)),
            false => "█".repeat(eighths / 8) + EIGHTHS[eighths % 8],
        };
        let text = Text::from(vec![
            Span::styled(bar, COLOUR),
            Span::raw(format!(" {count}")),
        ]);
        buffer.set_line(MARGIN, row, &text, viewport.columns - MARGIN);
    }
    buffer
}

/// Lines of the axes in ASCII.
const ASCII_AXES: border::Set<'_> = border::Set {
    vertical_left: "|",
    bottom_left: "+",
    horizontal_bottom: "-",
    ..border::PLAIN
};

/// The markers of lines in ASCII.
const MARKS: [char; 10] = ['*', '+', 'o', 'x', '#', '@', '%', '&', '=', '~'];

/// The colours of lines.
fn line_colour(at: usize, lines: &Lines) -> Color {
    let [red, green, blue] = scene::LINES[at % scene::LINES.len()];
    match lines.series.len() {
        1 => COLOUR,
        _ => Color::Rgb(red, green, blue),
    }
}

/// Draws lines of braille dots, two by four per character; in ASCII one mark per character.
fn curves(lines: &Lines, viewport: &Viewport) -> Buffer {
    let legend = u16::from(!lines.indices.is_empty());
    let mut buffer = viewport.buffer(usize::from(viewport.rows + 1 + legend));
    let axes = match viewport.ascii {
        true => ASCII_AXES,
        false => border::PLAIN,
    };
    let axes = Block::new()
        .borders(Borders::LEFT | Borders::BOTTOM)
        .border_set(axes);
    let area = Rect::new(MARGIN, 0, viewport.columns - MARGIN, viewport.rows);
    Canvas::default()
        .block(axes)
        .x_bounds([0.0, lines.last().max(1) as f64])
        .y_bounds([0.0, 1.0])
        .paint(|context| {
            for at in 0..lines.series.len() {
                context.marker(match viewport.ascii {
                    true => Marker::Custom(MARKS[at % MARKS.len()]),
                    false => Marker::Braille,
                });
                let colour = line_colour(at, lines);
                for run in &lines.runs(at, lines.min, lines.max) {
                    context.draw(&canvas::Points::new(run, colour));
                    for pair in run.windows(2) {
                        let [(x1, y1), (x2, y2)] = [pair[0], pair[1]];
                        context.draw(&canvas::Line::new(x1, y1, x2, y2, colour));
                    }
                }
                // The next line is drawn over this one, and does not mix with it.
                context.layer();
            }
        })
        .render(area, &mut buffer);
    let height = viewport.rows - 2;
    margin(&mut buffer, 0, &label(lines.max));
    margin(&mut buffer, height, &label(lines.min));
    // Two rows between labels, and none beside those at the ends.
    for tick in axis::ticks(lines.min, lines.max, usize::from(height / 4)) {
        let row = height - (tick.place * f64::from(height)).round() as u16;
        if (2..=height.saturating_sub(2)).contains(&row) {
            margin(&mut buffer, row, &tick.label);
        }
    }
    let width = viewport.columns - MARGIN - 1;
    let mut ticks = axis::indices(lines.last(), usize::from(width / 12));
    if lines.last() > 0 {
        // The last index is more use than a round number near it.
        ticks.retain(|tick| tick.place < 0.85);
        ticks.push(Tick {
            place: 1.0,
            label: lines.last().to_string(),
        });
    }
    ticks_below(&mut buffer, viewport.rows, (MARGIN + 1, width), &ticks);
    let mut x = MARGIN + 1;
    for (at, text) in lines.indices.iter().enumerate() {
        let mark = match viewport.ascii {
            true => MARKS[at % MARKS.len()],
            false => '━',
        };
        let style = Style::new().fg(line_colour(at, lines));
        let room = usize::from(viewport.columns.saturating_sub(x));
        (x, _) = buffer.set_stringn(x, viewport.rows + 1, format!("{mark}{mark}"), room, style);
        let room = usize::from(viewport.columns.saturating_sub(x));
        let text = format!(" {text}  ");
        (x, _) = buffer.set_stringn(x, viewport.rows + 1, text, room, Style::new());
    }
    buffer
}

/// Writes the labels of ticks into a row, each centred at its place.
fn ticks_below(buffer: &mut Buffer, row: u16, (start, width): (u16, u16), ticks: &[Tick]) {
    let mut free = start;
    for tick in ticks {
        let long = tick.label.chars().count() as u16;
        let place = (tick.place * f64::from(width.saturating_sub(1))).round() as u16;
        let end = (start + width).saturating_sub(long);
        let x = (start + place)
            .saturating_sub(long / 2)
            .clamp(start, end.max(start));
        if x >= free {
            let room = usize::from((start + width).saturating_sub(x));
            buffer.set_stringn(x, row, &tick.label, room, Style::new());
            free = x + long + 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) const VIEWPORT: Viewport = Viewport {
        columns: MARGIN + 20,
        rows: 5,
        ascii: true,
        colour: false,
    };

    /// Returns the rows of the drawn chart without the spaces at their ends.
    pub(super) fn drawn(chart: &Chart, viewport: &Viewport) -> Vec<String> {
        let buffer = draw(chart, viewport);
        let rows = buffer.content().chunks(buffer.area.width.into());
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>())
            .map(|row| row.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn bars_are_as_long_as_their_counts() {
        let histogram = || Histogram::of([0.0, 1.0, 1.0, 1.0].into_iter(), 2);
        let expected = [
            "         0 ###### 1",
            "       0.5 ################## 3",
            "         1",
        ];
        assert_eq!(drawn(&Chart::Histogram(histogram()), &VIEWPORT), expected);
        let unicode = Viewport {
            ascii: false,
            columns: MARGIN + 21,
            ..VIEWPORT
        };
        let lines = drawn(&Chart::Histogram(histogram()), &unicode);
        assert_eq!(lines[0], "         0 ██████▎ 1");
        let empty = Histogram::of([f64::NAN].into_iter(), 2);
        let lines = drawn(&Chart::Histogram(empty), &VIEWPORT);
        assert_eq!(lines, ["         -  0", "         -  0", "         -"]);
    }

    #[test]
    fn a_line_goes_from_corner_to_corner_between_axes() {
        let lines = Lines::of(vec![vec![0.0, 1.0, f64::NAN, 3.0]], Vec::new());
        let expected = [
            "         3 |                  *",
            "           |",
            "           |    ***",
            "         0 |****",
            "           +-------------------",
            "            0                 3",
        ];
        assert_eq!(drawn(&Chart::Lines(lines), &VIEWPORT), expected);
    }

    #[test]
    fn several_lines_have_a_mark_each() {
        let lines = Lines::of(vec![vec![0.0, 0.0], vec![1.0, 1.0]], vec![0, 10]);
        let drawn = drawn(&Chart::Lines(lines), &VIEWPORT);
        assert!(drawn[0].ends_with("|+++++++++++++++++++"), "{drawn:?}");
        assert!(drawn[3].ends_with("|*******************"), "{drawn:?}");
        assert_eq!(drawn[6], "            ** 0  ++ 10");
    }

    #[test]
    fn dots_are_eight_to_a_character() {
        let lines = Lines::of(vec![vec![0.0, 1.0]], Vec::new());
        let viewport = Viewport {
            columns: MARGIN + 5,
            ascii: false,
            ..VIEWPORT
        };
        let expected = [
            "         1 │   ⡜",
            "           │  ⡜",
            "           │ ⡜",
            "         0 │⡜",
            "           └────",
            "            0  1",
        ];
        assert_eq!(drawn(&Chart::Lines(lines), &viewport), expected);
    }
}
