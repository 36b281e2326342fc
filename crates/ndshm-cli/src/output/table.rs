//! Tables: columns as wide as their widest cell.

use super::{Failure, Output, Style};

/// Alignment of a column's cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// For text.
    Left,
    /// For numbers.
    Right,
}

/// Rows of cells under column heads.
pub struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// Returns an empty table with these columns.
    pub fn new(heads: &[(&'static str, Align)]) -> Table {
        Table {
            heads: heads.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.styled(cells.map(|text| (text, Style::Plain)));
    }

    /// Adds a row of cells with a style each.
    pub fn styled<const N: usize>(&mut self, cells: [(String, Style); N]) {
        self.rows.push(cells.into());
    }

    /// Prints the table; prints nothing if it has no rows.
    pub fn print(&self, out: &Output) -> Result<(), Failure> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let heads = self.heads.iter();
        let heads: Vec<(String, Style)> = heads
            .map(|(head, _)| ((*head).to_owned(), Style::Bold))
            .collect();
        let mut widths = vec![0; heads.len()];
        for row in self.rows.iter().chain([&heads]) {
            for (width, (text, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        for row in [&heads].into_iter().chain(&self.rows) {
            let columns = row.iter().zip(&widths).zip(&self.heads).enumerate();
            let cells = columns.map(|(at, (((text, style), width), (_, align)))| {
                let padding = " ".repeat(width - text.chars().count());
                let painted = out.paint(*style, text);
                match align {
                    Align::Right => padding + &painted,
                    // No spaces at the end of a line.
                    Align::Left if at + 1 == self.heads.len() => painted,
                    Align::Left => painted + &padding,
                }
            });
            out.line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
