//! A progress bar: one line on standard error that is overwritten repeatedly.

use std::io::IsTerminal;

use ndshm::bytemuck::{Pod, Zeroable};

/// A bar that shows the progress of a task. Without a terminal it shows nothing.
///
/// It is a plain value, and can thus also be a parameter of kernels, which draw it from their
/// worker.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Bar {
    total: u64,
    is_seen: u64,
}

impl Bar {
    pub fn new(total: usize) -> Bar {
        let bar = Bar {
            total: total as u64,
            is_seen: u64::from(std::io::stderr().is_terminal()),
        };
        bar.show(0);
        bar
    }

    /// Shows that `done` of the total are done.
    pub fn show(&self, done: usize) {
        if self.is_seen != 0 {
            eprint!("\r\x1b[K{}", self.line(done as u64));
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if self.is_seen != 0 {
            eprint!("\r\x1b[K");
        }
    }

    fn line(&self, done: u64) -> String {
        const WIDTH: u64 = 30;
        let done = done.min(self.total);
        let filled = (WIDTH * done).checked_div(self.total).unwrap_or(WIDTH) as usize;
        let bar = "#".repeat(filled) + &".".repeat(WIDTH as usize - filled);
        format!("[{bar}] {done} of {}", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_from_nothing_to_all() {
        let line = |done, total| Bar { total, is_seen: 0 }.line(done);
        assert!(line(0, 4).starts_with("[....."));
        assert!(line(4, 4).ends_with("##] 4 of 4"));
        let half = line(2, 4);
        assert_eq!(half.matches('#').count(), half.matches('.').count());
        assert_eq!(line(0, 0).matches('#').count(), 30);
        assert_eq!(line(5, 4), line(4, 4));
    }
}
