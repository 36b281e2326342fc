//! Heat maps in the terminal.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Painter, Shape};

use super::{MARGIN, Viewport, margin, ticks_below};
use crate::plot::axis;
use crate::plot::chart::{Grid, label};
use crate::plot::scene::heat_colour;

/// Width of a cell of a heat map in characters.
const WIDE: usize = 2;
/// A heat map has at least so many rows and columns, if the array has.
const LEAST: usize = 4;

impl Viewport {
    /// Returns the rows and columns of a heat map that keeps the ratio of this grid. A cell is two
    /// characters wide, which is about as much as a character is high.
    pub fn cells(&self, (rows, columns): (usize, usize)) -> (usize, usize) {
        let most = (
            usize::from(self.rows).saturating_sub(2).max(1),
            usize::from(self.columns - MARGIN) / WIDE,
        );
        let shrunk = rows.div_ceil(most.0).max(columns.div_ceil(most.1)).max(1);
        // A grid that is much longer than wide still has some cells across.
        let least = |len: usize| len.div_ceil(shrunk).max(len.min(LEAST));
        (least(rows).min(most.0), least(columns).min(most.1))
    }
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
                for part in 0..WIDE {
                    painter.paint(column * WIDE + part, row, colour);
                }
            }
        }
    }
}

/// Draws each cell in colour, or else as a shade; below, the columns and a colour bar.
pub fn draw(grid: &Grid, viewport: &Viewport) -> Buffer {
    let mut buffer = viewport.buffer(grid.rows() + 3);
    let below = buffer.area.height - 3;
    let width = (grid.columns() * WIDE) as u16;
    let area = Rect::new(MARGIN, 0, width, below);
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
    let last = grid.covered.1.saturating_sub(1);
    let ticks = axis::indices(last, usize::from(width / 12));
    ticks_below(&mut buffer, below, (MARGIN, width.max(1)), &ticks);
    colour_bar(&mut buffer, below + 1, grid, viewport);
    buffer
}

/// Writes the smallest number, the colours or shades, and the largest number; below, the sizes.
fn colour_bar(buffer: &mut Buffer, row: u16, grid: &Grid, viewport: &Viewport) {
    const LENGTH: u16 = 32;
    let (mut x, _) = buffer.set_stringn(
        MARGIN,
        row,
        label(grid.min) + " ",
        usize::from(viewport.columns - MARGIN),
        Style::new(),
    );
    let most = format!(" {}", label(grid.max));
    let free = viewport.columns.saturating_sub(x + most.len() as u16);
    let length = LENGTH.min(free);
    for at in 0..length {
        let level = f64::from(at) / f64::from(length.max(2) - 1);
        let shades = if viewport.ascii { ASCII_SHADES } else { SHADES };
        let [red, green, blue] = heat_colour(level);
        let (shade, style) = match viewport.colour {
            true => (' ', Style::new().bg(Color::Rgb(red, green, blue))),
            false => (shades[(level * 5.0).round() as usize], Style::new()),
        };
        (x, _) = buffer.set_stringn(x, row, shade.to_string(), 1, style);
    }
    let room = usize::from(viewport.columns.saturating_sub(x));
    buffer.set_stringn(x, row, most, room, Style::new());
    let text = format!(
        "{} x {} in {} x {} cells",
        grid.covered.0,
        grid.covered.1,
        grid.rows(),
        grid.columns(),
    );
    let room = usize::from(viewport.columns - MARGIN);
    buffer.set_stringn(MARGIN, row + 1, text, room, Style::new());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::chart::Chart;
    use crate::plot::terminal::tests::{VIEWPORT, drawn};
    use ndarray::arr2;

    #[test]
    fn cells_without_a_number_are_marked() {
        let grid = || Grid::of(&arr2(&[[0.0, 10.0], [5.0, f64::NAN]]), 4, 4);
        let lines = drawn(&Chart::Heat(grid()), &VIEWPORT);
        let expected = [
            "         0 ..@@",
            "         1 ++??",
            "           0  1",
            "           0 ..:::--+++###@@ 10",
            "           2 x 2 in 2 x 2 cells",
        ];
        assert_eq!(lines, expected);
        let viewport = Viewport {
            colour: true,
            columns: 60,
            ..VIEWPORT
        };
        let buffer = draw(&grid(), &viewport);
        assert_eq!(buffer[(MARGIN, 0)].bg, Color::Rgb(68, 1, 84));
        assert_eq!(buffer[(MARGIN + 2, 0)].bg, Color::Rgb(253, 231, 37));
        assert_eq!(buffer[(MARGIN + 3, 1)].symbol(), "?");
        let lines = drawn(&Chart::Heat(grid()), &viewport);
        assert!(
            lines[3].starts_with("           0 ") && lines[3].ends_with(" 10"),
            "{lines:?}"
        );
        // The colour bar begins and ends with the colours of the smallest and the largest number.
        let bar = |x: u16| buffer[(x, 3)].bg;
        assert_eq!(bar(MARGIN + 2), Color::Rgb(68, 1, 84));
        assert_eq!(bar(MARGIN + 33), Color::Rgb(253, 231, 37));
    }
    #[test]
    fn a_heat_map_keeps_the_ratio_of_its_grid() {
        let viewport = Viewport {
            columns: MARGIN + 80,
            rows: 22,
            ..VIEWPORT
        };
        assert_eq!(viewport.cells((300, 200)), (20, 14));
        assert_eq!(viewport.cells((4, 5)), (4, 5));
        assert_eq!(viewport.cells((100, 400)), (10, 40));
        assert_eq!(viewport.cells((3, 2000)), (3, 40));
        assert_eq!(viewport.cells((0, 0)), (0, 0));
    }
}
