//! Draws charts with ratatui, in a buffer that fits the terminal.

use std::io::{self, IsTerminal};

use ratatui::buffer::Buffer;
use ratatui::layout::{HorizontalAlignment, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::{Marker, border};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::canvas::{self, Canvas, Painter, Shape};
use ratatui::widgets::{Block, Borders, Widget};

use super::chart::{Chart, Grid, Histogram, Line, label};
use super::scene::heat_colour;
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

    /// Returns the maximum rows and columns of a heat map.
    pub fn cells(&self) -> (usize, usize) {
        (self.rows.into(), (self.columns - MARGIN).into())
    }
}

/// Draws a chart.
pub fn draw(chart: &Chart, viewport: &Viewport) -> Buffer {
    match chart {
        Chart::Histogram(histogram) => bars(histogram, viewport),
        Chart::Line(line) => curve(line, viewport),
        Chart::Heat(grid) => shades(grid, viewport),
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

/// Draws the numbers as a curve of braille dots, two by four per character; in ASCII one star per
/// character.
fn curve(line: &Line, viewport: &Viewport) -> Buffer {
    let mut buffer = viewport.buffer(usize::from(viewport.rows) + 1);
    let (marker, axes) = match viewport.ascii {
        true => (Marker::Custom('*'), ASCII_AXES),
        false => (Marker::Braille, border::PLAIN),
    };
    let axes = Block::new()
        .borders(Borders::LEFT | Borders::BOTTOM)
        .border_set(axes);
    let runs = line.runs();
    let area = Rect::new(MARGIN, 0, viewport.columns - MARGIN, viewport.rows);
    Canvas::default()
        .block(axes)
        .marker(marker)
        .x_bounds([0.0, line.last().max(1) as f64])
        .y_bounds([0.0, 1.0])
        .paint(|context| {
            for run in &runs {
                context.draw(&canvas::Points::new(run, COLOUR));
                for pair in run.windows(2) {
                    let [(x1, y1), (x2, y2)] = [pair[0], pair[1]];
                    context.draw(&canvas::Line::new(x1, y1, x2, y2, COLOUR));
                }
            }
        })
        .render(area, &mut buffer);
    margin(&mut buffer, 0, &label(line.max));
    margin(&mut buffer, viewport.rows - 2, &label(line.min));
    let below = Rect::new(MARGIN + 1, viewport.rows, viewport.columns - MARGIN - 1, 1);
    Text::from("0").render(below, &mut buffer);
    if line.last() > 0 {
        let last = Text::from(line.last().to_string());
        last.alignment(HorizontalAlignment::Right)
            .render(below, &mut buffer);
    }
    buffer
}

/// From low to high.
const SHADES: [char; 6] = [' ', '░', '▒', '▓', '█', '█'];
const ASCII_SHADES: [char; 6] = ['.', ':', '-', '+', '#', '@'];

/// The cells of a heat map that one marker draws.
struct Cells<'g, F> {
    grid: &'g Grid,
    /// Returns the colour of a level; `None` for cells of other markers.
    colour: F,
}

impl<F: Fn(Option<f64>) -> Option<Color>> Shape for Cells<'_, F> {
    fn draw(&self, painter: &mut Painter<'_, '_>) {
        for ((row, column), _) in self.grid.cells.indexed_iter() {
            if let Some(colour) = (self.colour)(self.grid.level(row, column)) {
                painter.paint(column, row, colour);
            }
        }
    }
}

/// Draws one character per cell: in colour, or else as a shade.
fn shades(grid: &Grid, viewport: &Viewport) -> Buffer {
    let mut buffer = viewport.buffer(grid.rows() + 1);
    let below = buffer.area.height - 1;
    let area = Rect::new(MARGIN, 0, grid.columns() as u16, below);
    Canvas::default()
        .paint(|context| {
            if viewport.colour {
                context.marker(Marker::Block);
                let colour = |level: Option<f64>| {
                    let [red, green, blue] = heat_colour(level?);
                    Some(Color::Rgb(red, green, blue))
                };
                context.draw(&Cells { grid, colour });
            } else {
                let shades = if viewport.ascii { ASCII_SHADES } else { SHADES };
                for (step, shade) in shades.into_iter().enumerate() {
                    context.marker(Marker::Custom(shade));
                    let colour = |level: Option<f64>| {
                        ((level? * 5.0).round() as usize == step).then_some(Color::Reset)
                    };
                    context.draw(&Cells { grid, colour });
                }
            }
            context.marker(Marker::Custom('?'));
            let colour = |level: Option<f64>| level.is_none().then_some(Color::Reset);
            context.draw(&Cells { grid, colour });
        })
        .render(area, &mut buffer);
    for row in 0..below {
        let index = usize::from(row) * grid.covered.0 / grid.rows();
        margin(&mut buffer, row, &index.to_string());
    }
    let text = format!(
        "{} to {}; {} x {} in {} x {} cells",
        label(grid.min),
        label(grid.max),
        grid.covered.0,
        grid.covered.1,
        grid.rows(),
        grid.columns(),
    );
    buffer.set_string(MARGIN, below, text, Style::new());
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    const VIEWPORT: Viewport = Viewport {
        columns: MARGIN + 20,
        rows: 5,
        ascii: true,
        colour: false,
    };

    /// Returns the rows of the drawn chart without the spaces at their ends.
    fn drawn(chart: &Chart, viewport: &Viewport) -> Vec<String> {
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
        let line = Line::of([0.0, 1.0, f64::NAN, 3.0].into_iter());
        let expected = [
            "         3 |                  *",
            "           |",
            "           |    ***",
            "         0 |****",
            "           +-------------------",
            "            0                 3",
        ];
        assert_eq!(drawn(&Chart::Line(line), &VIEWPORT), expected);
    }

    #[test]
    fn dots_are_eight_to_a_character() {
        let line = Line::of([0.0, 1.0].into_iter());
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
        assert_eq!(drawn(&Chart::Line(line), &viewport), expected);
    }

    #[test]
    fn cells_without_a_number_are_marked() {
        let grid = || Grid::of(&arr2(&[[0.0, 10.0], [5.0, f64::NAN]]), 4, 4);
        let lines = drawn(&Chart::Heat(grid()), &VIEWPORT);
        let expected = [
            "         0 .@",
            "         1 +?",
            "           0 to 10; 2 x 2 in 2 x 2 cells",
        ];
        assert_eq!(lines[..2], expected[..2]);
        let viewport = Viewport {
            colour: true,
            columns: 60,
            ..VIEWPORT
        };
        let buffer = draw(&Chart::Heat(grid()), &viewport);
        assert_eq!(buffer[(MARGIN, 0)].bg, Color::Rgb(68, 1, 84));
        assert_eq!(buffer[(MARGIN + 1, 0)].bg, Color::Rgb(253, 231, 37));
        assert_eq!(buffer[(MARGIN + 1, 1)].symbol(), "?");
        assert_eq!(drawn(&Chart::Heat(grid()), &viewport)[2], expected[2]);
    }
}
