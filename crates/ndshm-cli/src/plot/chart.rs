//! The numbers of a chart: bins, points, cells.

use ndarray::{Array2, ArrayView2, Axis, s};

/// A chart.
pub enum Chart {
    /// Counts of numbers in equal bins.
    Histogram(Histogram),
    /// Numbers one after another, in one or several lines.
    Lines(Lines),
    /// Two axes as coloured cells.
    Heat(Grid),
}

/// Returns the smallest and the largest finite number.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .filter(|value| value.is_finite())
        .fold(None, |range, value| match range {
            None => Some((value, value)),
            Some((min, max)) => Some((min.min(value), max.max(value))),
        })
}

/// Returns the place of a finite number between `min` (0) and `max` (1); 0.5 if these are equal.
pub fn place(value: f64, min: f64, max: f64) -> f64 {
    // Use halves: the distance between two finite numbers may overflow.
    let span = max / 2.0 - min / 2.0;
    match span > 0.0 {
        true => (value / 2.0 - min / 2.0) / span,
        false => 0.5,
    }
}

/// Returns the square root of the count of numbers, limited to 1..=60.
pub fn bins_for(count: usize) -> usize {
    (count.isqrt()).clamp(1, 60)
}

/// Numbers in equal bins.
pub struct Histogram {
    /// Lower edge of the first bin; NaN without numbers.
    pub min: f64,
    /// Upper edge of the last bin; numbers on this edge belong to the bin.
    pub max: f64,
    /// Count of numbers in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts the finite numbers of `values`.
    pub fn of(values: impl Iterator<Item = f64> + Clone, bins: usize) -> Histogram {
        let mut counts = vec![0; bins.max(1)];
        let Some((min, max)) = range(values.clone()) else {
            return Histogram {
                min: f64::NAN,
                max: f64::NAN,
                counts,
            };
        };
        let last = counts.len() - 1;
        for value in values.filter(|value| value.is_finite()) {
            let bin = match min < max {
                true => place(value, min, max) * (last + 1) as f64,
                false => 0.0,
            };
            counts[(bin as usize).min(last)] += 1;
        }
        Histogram { min, max, counts }
    }

    /// Returns the edges of the bins; empty without numbers.
    pub fn edges(&self) -> Vec<f64> {
        let bins = self.counts.len();
        let edge = |at: usize| {
            let part = at as f64 / bins as f64;
            self.min * (1.0 - part) + self.max * part
        };
        match self.min.is_finite() {
            true => (0..=bins).map(edge).collect(),
            false => Vec::new(),
        }
    }
}

/// Numbers one after another, in one or several lines.
pub struct Lines {
    /// Smallest finite number; NaN if there is none.
    pub min: f64,
    /// Largest finite number; NaN if there is none.
    pub max: f64,
    /// The numbers of each line.
    pub series: Vec<Vec<f64>>,
    /// The index of each line in the array; empty if there is one line, which needs none.
    pub indices: Vec<usize>,
}

impl Lines {
    /// Collects lines of numbers.
    pub fn of(series: Vec<Vec<f64>>, indices: Vec<usize>) -> Lines {
        let numbers = series.iter().flatten().copied();
        let (min, max) = range(numbers).unwrap_or((f64::NAN, f64::NAN));
        Lines {
            min,
            max,
            series,
            indices,
        }
    }

    /// Returns the points of a line as (index, height), in one list for each run of finite numbers.
    /// A height is 0 at `low` and 1 at `high`.
    pub fn runs(&self, line: usize, low: f64, high: f64) -> Vec<Vec<(f64, f64)>> {
        let mut next = 0;
        let values = &self.series[line];
        let chunks = values.chunk_by(|a, b| a.is_finite() == b.is_finite());
        let run = |chunk: &[f64]| {
            let indexed = (next..).zip(chunk);
            next += chunk.len();
            let point = |(at, &value): (usize, &f64)| (at as f64, place(value, low, high));
            chunk[0].is_finite().then(|| indexed.map(point).collect())
        };
        chunks.filter_map(run).collect()
    }

    /// Returns the largest index; 0 for no numbers.
    pub fn last(&self) -> usize {
        let lengths = self.series.iter().map(Vec::len);
        lengths.max().unwrap_or(0).saturating_sub(1)
    }

    /// Returns a range a little larger than that of the numbers; if they are equal, one around them.
    pub fn margins(&self) -> (f64, f64) {
        let part = match self.min < self.max {
            true => self.max * 0.04 - self.min * 0.04,
            false => self.max.abs().max(1e-300) * 0.5,
        };
        let (low, high) = (self.min - part, self.max + part);
        match low.is_finite() && high.is_finite() {
            true => (low, high),
            false => (self.min, self.max),
        }
    }
}

/// Two axes; each cell is the mean of the numbers that it covers.
pub struct Grid {
    /// Smallest mean; NaN without numbers.
    pub min: f64,
    /// Largest mean.
    pub max: f64,
    /// Means; NaN where a cell covers no finite number.
    pub cells: Array2<f64>,
    /// Rows and columns of the array.
    pub covered: (usize, usize),
}

impl Grid {
    /// Averages `values` into at most this many rows and columns.
    pub fn of(values: &Array2<f64>, rows: usize, columns: usize) -> Grid {
        let covered = values.dim();
        let (rows, columns) = (covered.0.min(rows.max(1)), covered.1.min(columns.max(1)));
        let cells = Array2::from_shape_fn((rows, columns), |(row, column)| {
            let part = |at: usize, of: usize, all: usize| at * all / of..(at + 1) * all / of;
            mean(values.slice(s![
                part(row, rows, covered.0),
                part(column, columns, covered.1)
            ]))
        });
        let (min, max) = range(cells.iter().copied()).unwrap_or((f64::NAN, f64::NAN));
        Grid {
            min,
            max,
            cells,
            covered,
        }
    }

    /// Returns the level of a cell from 0 (smallest) to 1 (largest); `None` without numbers.
    pub fn level(&self, row: usize, column: usize) -> Option<f64> {
        let value = self.cells[(row, column)];
        let is_some = value.is_finite();
        is_some.then(|| place(value, self.min, self.max))
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.cells.len_of(Axis(0))
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> usize {
        self.cells.len_of(Axis(1))
    }
}

fn mean(values: ArrayView2<'_, f64>) -> f64 {
    let (mut count, mut mean) = (0.0, 0.0);
    for &value in values.iter().filter(|value| value.is_finite()) {
        count += 1.0;
        // Keep a running mean: its steps stay finite where a sum would overflow.
        mean += value / count - mean / count;
    }
    if count > 0.0 { mean } else { f64::NAN }
}

/// Formats a number for the margin of a chart.
pub fn label(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".into(),
        0.0 | 1e-3..1e6 => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').into()
        }
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;
    use proptest::prelude::*;

    #[test]
    fn numbers_on_an_edge_are_of_the_bin_above_and_the_last_of_the_last() {
        let values = [0.0, 1.0, 1.5, 2.0, 4.0, f64::NAN, f64::INFINITY];
        let histogram = Histogram::of(values.into_iter(), 4);
        assert_eq!(histogram.counts, [1, 2, 1, 1]);
        assert_eq!(histogram.edges(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn what_has_no_numbers_has_no_edges() {
        let histogram = Histogram::of([f64::NAN].into_iter(), 3);
        assert_eq!(
            (histogram.counts, histogram.min.is_nan()),
            (vec![0; 3], true)
        );
        assert!(Histogram::of([].into_iter(), 3).edges().is_empty());
        let lines = Lines::of(vec![Vec::new()], Vec::new());
        assert!(lines.min.is_nan() && lines.margins().0.is_nan());
        assert!(lines.runs(0, lines.min, lines.max).is_empty());
    }

    #[test]
    fn a_line_is_broken_where_a_number_is_missing() {
        let runs = |values: &[f64]| {
            let lines = Lines::of(vec![values.into()], Vec::new());
            lines.runs(0, lines.min, lines.max)
        };
        let broken = runs(&[1.0, 3.0, f64::NAN, f64::INFINITY, 2.0]);
        assert_eq!(broken, [vec![(0.0, 0.0), (1.0, 1.0)], vec![(4.0, 0.5)]]);
        let huge = runs(&[f64::MIN, 0.0, f64::MAX]);
        assert_eq!(huge, [[(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)]]);
    }

    #[test]
    fn cells_are_means_of_what_they_cover() {
        let values = arr2(&[[1.0, 3.0, 5.0], [1.0, 3.0, f64::NAN]]);
        let grid = Grid::of(&values, 1, 3);
        assert_eq!(grid.cells, arr2(&[[1.0, 3.0, 5.0]]));
        assert_eq!(
            [0, 1, 2].map(|column| grid.level(0, column)),
            [Some(0.0), Some(0.5), Some(1.0)]
        );
        assert_eq!(Grid::of(&values, 9, 9).cells.dim(), (2, 3));
        assert_eq!(Grid::of(&values, 9, 9).level(1, 2), None);
    }

    #[test]
    fn labels_are_short() {
        let labels = [0.0, 1.5, -0.25, 1e9, 1e-9, 123_456.789, f64::NAN].map(label);
        assert_eq!(
            labels,
            [
                "0",
                "1.5",
                "-0.25",
                "1.000e9",
                "1.000e-9",
                "123456.789",
                "-"
            ]
        );
    }

    proptest! {
        #[test]
        fn each_finite_number_is_in_one_bin(
            values in proptest::collection::vec(any::<f64>(), 0..200),
            bins in 1usize..50,
        ) {
            let histogram = Histogram::of(values.iter().copied(), bins);
            let finite = values.iter().filter(|value| value.is_finite()).count();
            prop_assert_eq!(histogram.counts.iter().sum::<u64>(), finite as u64);
            prop_assert!(histogram.edges().iter().all(|edge| edge.is_finite()));
        }

        #[test]
        fn a_grid_stays_within_its_numbers(
            values in proptest::collection::vec(any::<f64>(), 12),
            rows in 1usize..5,
            columns in 1usize..5,
        ) {
            let values = Array2::from_shape_vec((3, 4), values).unwrap();
            let grid = Grid::of(&values, rows, columns);
            for (row, column) in ndarray::indices((grid.rows(), grid.columns())) {
                if let Some(level) = grid.level(row, column) {
                    prop_assert!((0.0..=1.0).contains(&level));
                }
            }
        }
    }
}
