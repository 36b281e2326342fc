//! Prints what ratatui has drawn as lines of text.

use ratatui::backend::IntoCrossterm;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Style};

use super::{Failure, Output};

impl Output {
    /// Prints the drawn cells, without the empty end of each line and without empty lines at the
    /// end. Styles are kept if the output may have colour.
    pub fn drawn(&self, buffer: &Buffer) -> Result<(), Failure> {
        for line in lines(buffer, self.colour()) {
            self.line(line)?;
        }
        Ok(())
    }
}

fn lines(buffer: &Buffer, colour: bool) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content().chunks(width);
    let mut lines: Vec<String> = rows.map(|row| line(row, colour)).collect();
    lines.truncate(
        lines
            .iter()
            .rposition(|it| !it.is_empty())
            .map_or(0, |it| it + 1),
    );
    lines
}

fn line(row: &[Cell], colour: bool) -> String {
    let end = row.iter().rposition(|cell| !is_empty(cell, colour));
    let row = &row[..end.map_or(0, |end| end + 1)];
    let style = |cell: &Cell| if colour { style(cell) } else { Style::new() };
    row.chunk_by(|a, b| style(a) == style(b))
        .map(|run| {
            let text: String = run.iter().map(Cell::symbol).collect();
            match style(&run[0]) {
                plain if plain == Style::new() => text,
                style => style.into_crossterm().apply(text).to_string(),
            }
        })
        .collect()
}

/// Returns the style of a cell, without what the terminal does by itself.
fn style(cell: &Cell) -> Style {
    let set = |colour: Color| (colour != Color::Reset).then_some(colour);
    Style {
        fg: set(cell.fg),
        bg: set(cell.bg),
        ..Style::new().add_modifier(cell.modifier)
    }
}

fn is_empty(cell: &Cell, colour: bool) -> bool {
    cell.symbol() == " " && !(colour && cell.bg != Color::Reset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;

    #[test]
    fn styles_are_kept_and_empty_ends_are_not() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 8, 3));
        buffer.set_string(1, 0, "ab", Style::new().fg(Color::Rgb(1, 2, 3)));
        buffer.set_string(3, 0, "c", Style::new());
        buffer.set_string(4, 0, " ", Style::new().bg(Color::Rgb(4, 5, 6)));
        assert_eq!(lines(&buffer, false), [" abc"]);
        let expected = " \x1b[38;2;1;2;3mab\x1b[39mc\x1b[48;2;4;5;6m \x1b[49m";
        assert_eq!(lines(&buffer, true), [expected]);
        assert!(lines(&Buffer::empty(Rect::ZERO), true).is_empty());
    }
}
