//! Lays out a chart on a page.

use ndarray::Array2;

use super::axis::{self, Tick};
use super::chart::{Chart, Grid, Histogram, Lines};
use super::render::text_width;
use super::scene::{Anchor, FAINT, INK, LINES, Scene, Shape};

/// Maximum cells of a heat map along each axis.
pub const MOST_CELLS: usize = 512;

/// Size of the area of lines and bars.
const AREA: (f64, f64) = (680.0, 400.0);
/// Largest size of the area of a heat map.
const LARGEST: (f64, f64) = (680.0, 560.0);
/// Smallest width and height of a heat map, for grids that are much longer than wide.
const SMALLEST: f64 = 60.0;

const TOP: f64 = 44.0;
const BOTTOM: f64 = 36.0;
const EDGE: f64 = 16.0;
/// Length of a tick's mark.
const MARK: f64 = 5.0;
/// Pixels between two ticks.
const APART: (f64, f64) = (90.0, 50.0);
/// Sizes of texts.
const TITLE: f64 = 16.0;
const LABEL: f64 = 13.0;

/// A page in the making: the area of the numbers, and the shapes so far.
struct Page {
    left: f64,
    size: (f64, f64),
    shapes: Vec<Shape>,
}

/// Returns the page of a chart.
pub fn page(chart: &Chart, title: &str) -> Scene {
    let (page, right) = match chart {
        Chart::Histogram(histogram) => bars(histogram),
        Chart::Lines(lines) => curves(lines),
        Chart::Heat(grid) => cells(grid),
    };
    let width = (page.left + page.size.0 + right).max(360.0).ceil();
    let mut shapes = page.shapes;
    shapes.push(Shape::Text {
        at: (EDGE, TOP / 2.0),
        anchor: Anchor::Start,
        size: TITLE,
        text: fitting(title, width - 2.0 * EDGE),
    });
    Scene {
        width: width as usize,
        height: (TOP + page.size.1 + BOTTOM).ceil() as usize,
        shapes,
    }
}

/// Shortens a title that is wider than the page.
fn fitting(title: &str, width: f64) -> String {
    let mut short = title.to_owned();
    let mut letters: Vec<char> = title.chars().collect();
    while text_width(&short, TITLE) > width && letters.pop().is_some() {
        short = letters.iter().collect::<String>() + "…";
    }
    short
}

impl Page {
    /// Returns a page whose left margin has room for the labels of the vertical axis.
    fn new(size: (f64, f64), side: &[Tick]) -> Page {
        Page {
            left: EDGE + widest(side.iter().map(|tick| &*tick.label)) + 2.0 * MARK,
            size,
            shapes: Vec::new(),
        }
    }

    fn floor(&self) -> f64 {
        TOP + self.size.1
    }

    fn line(&mut self, points: [(f64, f64); 2], colour: super::scene::Colour) {
        self.shapes.push(Shape::Line {
            points: points.into(),
            width: 1.0,
            colour,
        });
    }

    fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str) {
        self.shapes.push(Shape::Text {
            at,
            anchor,
            size: LABEL,
            text: text.to_owned(),
        });
    }

    /// Draws the lines behind the numbers.
    fn lines_behind(&mut self, below: &[Tick], side: &[Tick]) {
        let (left, floor) = (self.left, self.floor());
        for tick in below {
            let x = left + tick.place * self.size.0;
            self.line([(x, TOP), (x, floor)], FAINT);
        }
        for tick in side {
            let y = floor - tick.place * self.size.1;
            self.line([(left, y), (left + self.size.0, y)], FAINT);
        }
    }

    /// Draws the axes with their ticks.
    fn axes(&mut self, below: &[Tick], side: &[Tick]) {
        let (left, floor) = (self.left, self.floor());
        // Beside the area: an image would cover half of a line on its edge.
        let (x, y) = (left - 0.5, floor + 0.5);
        self.line([(x, TOP), (x, y)], INK);
        self.line([(x, y), (left + self.size.0, y)], INK);
        for tick in below {
            let x = left + tick.place * self.size.0;
            self.line([(x, floor), (x, floor + MARK)], INK);
            self.text((x, floor + MARK + 10.0), Anchor::Middle, &tick.label);
        }
        for tick in side {
            let y = floor - tick.place * self.size.1;
            self.line([(left - MARK, y), (left, y)], INK);
            self.text((left - MARK - 4.0, y), Anchor::End, &tick.label);
        }
    }
}

fn widest<'t>(labels: impl Iterator<Item = &'t str>) -> f64 {
    labels
        .map(|label| text_width(label, LABEL))
        .fold(0.0, f64::max)
}

/// Returns the number of ticks for an axis of this length.
fn count(length: f64, apart: f64) -> usize {
    ((length / apart) as usize).max(2)
}

fn bars(histogram: &Histogram) -> (Page, f64) {
    let most = histogram.counts.iter().copied().max().unwrap_or(0).max(1);
    let side = axis::indices(most as usize, count(AREA.1, APART.1));
    let below = axis::ticks(histogram.min, histogram.max, count(AREA.0, APART.0));
    let mut page = Page::new(AREA, &side);
    page.lines_behind(&[], &side);
    let wide = AREA.0 / histogram.counts.len() as f64;
    for (at, &count) in histogram
        .counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
    {
        // Show every bin that is not empty.
        let high = (AREA.1 * count as f64 / most as f64).max(1.0);
        page.shapes.push(Shape::Rectangle {
            at: (page.left + at as f64 * wide, page.floor() - high),
            size: (wide * 0.94, high),
            colour: LINES[0],
        });
    }
    page.axes(&below, &side);
    let right = below
        .last()
        .map_or(0.0, |tick| text_width(&tick.label, LABEL) / 2.0);
    (page, EDGE + right)
}

fn curves(lines: &Lines) -> (Page, f64) {
    // Leave room above and below: a line on the frame cannot be seen.
    let (low, high) = lines.margins();
    let side = axis::ticks(low, high, count(AREA.1, APART.1));
    let below = axis::indices(lines.last(), count(AREA.0, APART.0));
    let mut page = Page::new(AREA, &side);
    page.lines_behind(&below, &side);
    let last = lines.last().max(1) as f64;
    let (left, floor) = (page.left, page.floor());
    for (at, colour) in (0..lines.series.len()).zip(LINES.into_iter().cycle()) {
        for run in lines.runs(at, low, high) {
            let point = |(at, part)| (left + AREA.0 * at / last, floor - AREA.1 * part);
            let mut points = thinned(run.into_iter().map(point).collect());
            if let [(x, y)] = points[..] {
                // A number between two that are missing: a dot.
                points = vec![(x - 1.0, y), (x + 1.0, y)];
            }
            page.shapes.push(Shape::Line {
                points,
                width: 1.6,
                colour,
            });
        }
    }
    page.axes(&below, &side);
    let start = left + AREA.0 + 14.0;
    let labels: Vec<String> = lines.indices.iter().map(usize::to_string).collect();
    for ((text, colour), at) in labels.iter().zip(LINES.into_iter().cycle()).zip(0..) {
        let y = TOP + 8.0 + 20.0 * f64::from(at);
        page.shapes.push(Shape::Line {
            points: vec![(start, y), (start + 20.0, y)],
            width: 3.0,
            colour,
        });
        page.text((start + 26.0, y), Anchor::Start, text);
    }
    let right = match labels.is_empty() {
        true => EDGE + 8.0,
        false => 40.0 + widest(labels.iter().map(|label| &**label)) + EDGE,
    };
    (page, right)
}

/// Keeps the first, the lowest, the highest and the last of the points in each half pixel, if there
/// are many more points than pixels.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if (points.len() as f64) < 8.0 * AREA.0 {
        return points;
    }
    let column = |point: &(f64, f64)| (point.0 * 2.0) as i64;
    let mut kept = Vec::new();
    for run in points.chunk_by(|a, b| column(a) == column(b)) {
        let extreme = |better: fn(f64, f64) -> bool| {
            let found = (0..run.len()).reduce(|best, at| match better(run[at].1, run[best].1) {
                true => at,
                false => best,
            });
            found.unwrap_or(0)
        };
        let mut places = [
            0,
            extreme(|a, b| a < b),
            extreme(|a, b| a > b),
            run.len() - 1,
        ];
        places.sort_unstable();
        kept.extend(places.map(|at| run[at]));
        // A place may have been taken twice.
        kept.dedup();
    }
    kept
}

fn cells(grid: &Grid) -> (Page, f64) {
    let (rows, columns) = (grid.covered.0.max(1) as f64, grid.covered.1.max(1) as f64);
    let scale = (LARGEST.0 / columns).min(LARGEST.1 / rows);
    let size = (
        (columns * scale).max(SMALLEST),
        (rows * scale).max(SMALLEST),
    );
    // The ticks are at the centres of rows and columns; rows go down.
    let centred = |tick: Tick, length: f64| Tick {
        place: (tick.place * (length - 1.0) + 0.5) / length,
        ..tick
    };
    let below: Vec<Tick> = axis::indices(grid.covered.1.saturating_sub(1), count(size.0, APART.0))
        .into_iter()
        .map(|tick| centred(tick, columns))
        .collect();
    let side: Vec<Tick> = axis::indices(grid.covered.0.saturating_sub(1), count(size.1, APART.1))
        .into_iter()
        .map(|tick| centred(tick, rows))
        .map(|tick| Tick {
            place: 1.0 - tick.place,
            ..tick
        })
        .collect();
    let mut page = Page::new(size, &side);
    page.shapes.push(Shape::Image {
        at: (page.left, TOP),
        size,
        levels: Array2::from_shape_fn(grid.cells.dim(), |(row, column)| grid.level(row, column)),
    });
    page.axes(&below, &side);
    // The colour bar.
    let (high, start) = (size.1, page.left + size.0 + 24.0);
    let scale = axis::ticks(grid.min, grid.max, count(high, APART.1));
    page.shapes.push(Shape::Image {
        at: (start, TOP),
        size: (16.0, high),
        levels: Array2::from_shape_fn((255, 1), |(row, _)| Some(1.0 - row as f64 / 254.0)),
    });
    for tick in &scale {
        let y = page.floor() - tick.place * high;
        page.line([(start + 16.0, y), (start + 16.0 + MARK, y)], INK);
        page.text((start + 20.0 + MARK, y), Anchor::Start, &tick.label);
    }
    let labels = widest(scale.iter().map(|tick| &*tick.label));
    (page, 24.0 + 16.0 + MARK + 4.0 + labels + EDGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::render;

    #[test]
    fn a_grid_keeps_its_ratio() {
        let image = |rows: usize, columns: usize| {
            let grid = Grid::of(&Array2::zeros((rows, columns)), MOST_CELLS, MOST_CELLS);
            let scene = page(&Chart::Heat(grid), "");
            let sizes = scene.shapes.iter().filter_map(|shape| match shape {
                Shape::Image { size, .. } => Some(*size),
                _ => None,
            });
            sizes.collect::<Vec<_>>()[0]
        };
        for (rows, columns) in [(300, 200), (20, 100), (1000, 1000), (4, 5)] {
            let (width, height) = image(rows, columns);
            let ratio = width / height * rows as f64 / columns as f64;
            assert!(
                (ratio - 1.0).abs() < 1e-9,
                "{rows} {columns}: {width} {height}"
            );
        }
        assert_eq!(image(3, 2000), (LARGEST.0, SMALLEST));
    }

    #[test]
    fn a_long_line_keeps_its_peaks() {
        let mut points: Vec<_> = (0..100_000)
            .map(|at| (f64::from(at) * 0.0068, 5.0))
            .collect();
        points[70_001].1 = -3.0;
        let thin = thinned(points.clone());
        assert!(
            thin.len() < 6000 && thin.contains(&points[70_001]),
            "{}",
            thin.len()
        );
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[99_999]));
        points.truncate(100);
        assert_eq!(thinned(points.clone()), points);
    }

    #[test]
    fn texts_stay_on_the_page() {
        let long = "a title that is much longer than any page is wide ".repeat(5);
        let histogram = Histogram::of([-1.5e300, 2.0e300].into_iter(), 7);
        let lines = Lines::of(vec![vec![1.0, f64::NAN, 1e-7]], Vec::new());
        let grid = Grid::of(&Array2::from_elem((2, 90), f64::NAN), 9, 9);
        for chart in [
            Chart::Histogram(histogram),
            Chart::Lines(lines),
            Chart::Heat(grid),
        ] {
            let scene = page(&chart, &long);
            for shape in &scene.shapes {
                let Shape::Text {
                    at,
                    anchor,
                    size,
                    text,
                } = shape
                else {
                    continue;
                };
                let width = render::text_width(text, *size);
                let left = match anchor {
                    Anchor::Start => at.0,
                    Anchor::Middle => at.0 - width / 2.0,
                    Anchor::End => at.0 - width,
                };
                assert!(
                    left >= 0.0 && left + width <= scene.width as f64,
                    "{text}: {at:?}"
                );
            }
        }
    }
}
