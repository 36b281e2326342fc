//! Draws charts as lines of text that fit the terminal.

use std::io::{self, IsTerminal};

use super::chart::{Chart, Grid, Histogram, Line, label};
use super::scene::heat_colour;
use crate::output::Output;

/// Size and abilities of the output.
pub struct Place {
    columns: usize,
    rows: usize,
    ascii: bool,
    colour: bool,
}

/// Width of the labels at the left, in columns.
const MARGIN: usize = 11;

impl Place {
    /// Returns the size of standard output; 80 columns and 24 rows if it is not a terminal.
    pub fn here(ascii: bool, out: &Output) -> Place {
        let size = match io::stdout().is_terminal() {
            true => rustix::termios::tcgetwinsize(io::stdout()).ok(),
            false => None,
        };
        let (columns, rows) = match size {
            Some(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        };
        Place {
            columns: usize::from(columns).clamp(MARGIN + 10, 400),
            // Leave room for the title, the axis and the prompt.
            rows: usize::from(rows).saturating_sub(4).clamp(4, 60),
            ascii,
            colour: out.colour(),
        }
    }

    /// Returns the maximum rows and columns of a heat map.
    pub fn cells(&self) -> (usize, usize) {
        (self.rows, self.columns - MARGIN)
    }
}

/// Returns the lines of a chart.
pub fn draw(chart: &Chart, place: &Place) -> Vec<String> {
    match chart {
        Chart::Histogram(histogram) => bars(histogram, place),
        Chart::Line(line) => dots(line, place),
        Chart::Heat(grid) => shades(grid, place),
    }
}

/// Eighths of a block, from the left.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Draws one line per bin: lower edge, bar, count.
fn bars(histogram: &Histogram, place: &Place) -> Vec<String> {
    let most = histogram.counts.iter().copied().max().unwrap_or(0);
    let widest = most.to_string().len();
    let room = place.columns.saturating_sub(MARGIN + widest + 2).max(4);
    let edges = histogram.edges();
    let mut lines = Vec::new();
    for (at, &count) in histogram.counts.iter().enumerate() {
        let eighths = match most {
            0 => 0,
            // Show every bin that is not empty.
            _ => ((count as f64 / most as f64 * (8 * room) as f64) as usize)
                .max(usize::from(count > 0)),
        };
        let bar = match place.ascii {
            true => "#".repeat(eighths.div_ceil(8)),
            false => {
                let rest = EIGHTHS[eighths % 8];
                let whole = "█".repeat(eighths / 8);
                if rest == ' ' {
                    whole
                } else {
                    format!("{whole}{rest}")
                }
            }
        };
        let edge = edges.get(at).copied().map_or("-".into(), label);
        lines.push(format!("{edge:>width$} {bar} {count}", width = MARGIN - 1));
    }
    lines.push(format!(
        "{:>width$}",
        label(histogram.max),
        width = MARGIN - 1
    ));
    lines
}

/// Draws braille dots, two by four per character; in ASCII one star per character.
fn dots(line: &Line, place: &Place) -> Vec<String> {
    let (across, down) = if place.ascii { (1, 1) } else { (2, 4) };
    let columns = place.columns - MARGIN;
    let (wide, high) = (columns * across, place.rows * down);
    let mut canvas = vec![false; wide * high];
    let span = line.max / 2.0 - line.min / 2.0;
    let last = line.values.len().saturating_sub(1).max(1);
    let mut before: Option<usize> = None;
    for (at, &value) in line.values.iter().enumerate() {
        let x = at * (wide - 1) / last;
        if !value.is_finite() {
            before = None;
            continue;
        }
        let part = match span > 0.0 {
            true => (value / 2.0 - line.min / 2.0) / span,
            false => 0.5,
        };
        let y = ((1.0 - part) * (high - 1) as f64).round() as usize;
        // Connect to the previous point: a steep line must not become a cloud of dots.
        let from = before.unwrap_or(y);
        for y in from.min(y)..=from.max(y) {
            canvas[y.min(high - 1) * wide + x] = true;
        }
        before = Some(y);
    }
    (0..place.rows)
        .map(|row| {
            let text: String = (0..columns)
                .map(|column| {
                    let dot = |dx: usize, dy: usize| {
                        canvas[(row * down + dy) * wide + column * across + dx]
                    };
                    if place.ascii {
                        return if dot(0, 0) { '*' } else { ' ' };
                    }
                    // Bit order of a braille pattern: Unicode, block 2800.
                    let places = [
                        (0, 0),
                        (0, 1),
                        (0, 2),
                        (1, 0),
                        (1, 1),
                        (1, 2),
                        (0, 3),
                        (1, 3),
                    ];
                    let bits = places
                        .iter()
                        .enumerate()
                        .map(|(bit, &(dx, dy))| u32::from(dot(dx, dy)) << bit)
                        .sum::<u32>();
                    char::from_u32(0x2800 + bits).unwrap_or(' ')
                })
                .collect();
            let edge = match row {
                0 => label(line.max),
                _ if row + 1 == place.rows => label(line.min),
                _ => String::new(),
            };
            format!("{edge:>width$} {}", text.trim_end(), width = MARGIN - 1)
        })
        .chain([format!(
            "{:>width$} 0 to {}",
            "",
            line.values.len().saturating_sub(1),
            width = MARGIN - 1
        )])
        .collect()
}

/// From low to high.
const SHADES: [char; 6] = [' ', '░', '▒', '▓', '█', '█'];
const ASCII_SHADES: [char; 6] = ['.', ':', '-', '+', '#', '@'];

/// Draws one character per cell.
fn shades(grid: &Grid, place: &Place) -> Vec<String> {
    let mut lines = Vec::new();
    for row in 0..grid.rows() {
        let index = row * grid.covered.0 / grid.rows();
        let mut text = format!("{index:>width$} ", width = MARGIN - 1);
        for column in 0..grid.columns() {
            match grid.level(row, column) {
                None => text.push('?'),
                Some(level) if place.colour => {
                    let [red, green, blue] = heat_colour(level);
                    text += &format!("\x1b[48;2;{red};{green};{blue}m \x1b[0m");
                }
                Some(level) => {
                    let shades = if place.ascii { ASCII_SHADES } else { SHADES };
                    text.push(shades[(level * 5.0).round() as usize]);
                }
            }
        }
        lines.push(text);
    }
    lines.push(format!(
        "{:>width$} {} to {}; {} x {} in {} x {} cells",
        "",
        label(grid.min),
        label(grid.max),
        grid.covered.0,
        grid.covered.1,
        grid.rows(),
        grid.columns(),
        width = MARGIN - 1
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    const PLACE: Place = Place {
        columns: MARGIN + 20,
        rows: 4,
        ascii: true,
        colour: false,
    };

    #[test]
    fn bars_are_as_long_as_their_counts() {
        let histogram = Histogram::of([0.0, 1.0, 1.0, 1.0].into_iter(), 2);
        let lines = draw(&Chart::Histogram(histogram), &PLACE);
        assert_eq!(
            lines,
            [
                "         0 ###### 1",
                "       0.5 ################# 3",
                "         1",
            ]
        );
    }

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let lines = draw(
            &Chart::Line(Line::of([0.0, 1.0, 2.0, 3.0].into_iter())),
            &PLACE,
        );
        assert!(
            lines[0].starts_with("         3 ") && lines[0].ends_with('*'),
            "{lines:?}"
        );
        assert!(lines[3].starts_with("         0 *"), "{lines:?}");
        assert_eq!(lines[4], "           0 to 3");
    }

    #[test]
    fn cells_that_have_no_number_are_told() {
        let grid = Grid::of(&arr2(&[[0.0, 10.0], [5.0, f64::NAN]]), 4, 4);
        let lines = draw(&Chart::Heat(grid), &PLACE);
        assert_eq!(lines[..2], ["         0 .@", "         1 +?"]);
    }
}
