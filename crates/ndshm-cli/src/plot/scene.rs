//! A chart as rectangles, lines and texts on a page, for files; writes the page as SVG.

use std::fmt::Write;

use super::chart::{Chart, label};

/// Maximum cells of a heat map along each axis.
pub const MOST_CELLS: usize = 256;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Red, green, blue.
pub type Colour = [u8; 3];

const INK: Colour = [40, 40, 40];
const BLUE: Colour = [31, 119, 180];

/// A shape. Coordinates are in pixels from the upper left corner.
pub enum Shape {
    Rectangle {
        at: (f64, f64),
        size: (f64, f64),
        colour: Colour,
    },
    Line {
        points: Vec<(f64, f64)>,
        colour: Colour,
    },
    Text {
        at: (f64, f64),
        anchor: Anchor,
        text: String,
    },
}

/// The point of a text that is at its coordinates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A page.
pub struct Scene {
    pub width: usize,
    pub height: usize,
    pub shapes: Vec<Shape>,
}

/// Maps a level from 0 to 1 to a colour from dark blue over green to yellow.
pub fn heat_colour(level: f64) -> Colour {
    // Five points of the map "viridis" of matplotlib, by N. Smith and S. van der Walt (CC0).
    const POINTS: [[f64; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let place = level.clamp(0.0, 1.0) * 4.0;
    let below = (place as usize).min(3);
    let part = place - below as f64;
    std::array::from_fn(|at| {
        (POINTS[below][at] * (1.0 - part) + POINTS[below + 1][at] * part).round() as u8
    })
}

/// Lays out a chart on a page.
pub fn of(chart: &Chart, title: &str) -> Scene {
    let mut shapes = vec![Shape::Text {
        at: (WIDTH / 2.0, TOP / 2.0),
        anchor: Anchor::Middle,
        text: title.to_owned(),
    }];
    let (inner, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let floor = TOP + high;
    // Labels at the ends of the axes: bottom left, bottom right, foot and top of the side.
    let ends = match chart {
        Chart::Histogram(histogram) => {
            let most = histogram.counts.iter().copied().max().unwrap_or(0);
            let wide = inner / histogram.counts.len() as f64;
            for (at, &count) in histogram.counts.iter().enumerate() {
                let size = high * count as f64 / most.max(1) as f64;
                shapes.push(Shape::Rectangle {
                    at: (LEFT + at as f64 * wide, floor - size),
                    size: (wide * 0.95, size),
                    colour: BLUE,
                });
            }
            [
                label(histogram.min),
                label(histogram.max),
                "0".into(),
                most.to_string(),
            ]
        }
        Chart::Line(line) => {
            let last = line.last().max(1) as f64;
            for run in line.runs() {
                let point = |(at, part)| (LEFT + inner * at / last, floor - high * part);
                shapes.push(Shape::Line {
                    points: run.into_iter().map(point).collect(),
                    colour: BLUE,
                });
            }
            [
                "0".into(),
                line.last().to_string(),
                label(line.min),
                label(line.max),
            ]
        }
        Chart::Heat(grid) => {
            let (wide, tall) = (inner / grid.columns() as f64, high / grid.rows() as f64);
            for (row, column) in ndarray::indices((grid.rows(), grid.columns())) {
                if let Some(level) = grid.level(row, column) {
                    shapes.push(Shape::Rectangle {
                        at: (LEFT + column as f64 * wide, TOP + row as f64 * tall),
                        size: (wide, tall),
                        colour: heat_colour(level),
                    });
                }
            }
            shapes.push(Shape::Text {
                at: (WIDTH / 2.0, HEIGHT - BOTTOM / 2.0),
                anchor: Anchor::Middle,
                text: format!("{} to {}", label(grid.min), label(grid.max)),
            });
            let last = |len: usize| len.saturating_sub(1).to_string();
            [
                "0".into(),
                last(grid.covered.1),
                last(grid.covered.0),
                "0".into(),
            ]
        }
    };
    shapes.push(Shape::Line {
        points: vec![(LEFT, TOP), (LEFT, floor), (WIDTH - RIGHT, floor)],
        colour: INK,
    });
    let below = HEIGHT - BOTTOM / 2.0;
    let places = [
        ((LEFT, below), Anchor::Start),
        ((WIDTH - RIGHT, below), Anchor::End),
        ((LEFT - 8.0, floor), Anchor::End),
        ((LEFT - 8.0, TOP + 6.0), Anchor::End),
    ];
    for (text, (at, anchor)) in ends.into_iter().zip(places) {
        shapes.push(Shape::Text { at, anchor, text });
    }
    Scene {
        width: WIDTH as usize,
        height: HEIGHT as usize,
        shapes,
    }
}

impl Scene {
    /// Returns the page as an SVG document.
    pub fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for shape in &self.shapes {
            // Writing to a string does not fail.
            let _ = match shape {
                Shape::Rectangle { at, size, colour } => writeln!(
                    svg,
                    "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{:.2}\" height=\"{:.2}\" fill=\"{}\"/>",
                    at.0,
                    at.1,
                    size.0,
                    size.1,
                    hex(colour)
                ),
                Shape::Line { points, colour } => {
                    let list: Vec<String> = points
                        .iter()
                        .map(|(x, y)| format!("{x:.2},{y:.2}"))
                        .collect();
                    writeln!(
                        svg,
                        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"/>",
                        list.join(" "),
                        hex(colour)
                    )
                }
                Shape::Text { at, anchor, text } => writeln!(
                    svg,
                    "<text x=\"{:.2}\" y=\"{:.2}\" text-anchor=\"{}\">{}</text>",
                    at.0,
                    at.1,
                    match anchor {
                        Anchor::Start => "start",
                        Anchor::Middle => "middle",
                        Anchor::End => "end",
                    },
                    escaped(text)
                ),
            };
        }
        svg + "</svg>\n"
    }
}

fn hex([red, green, blue]: &Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::chart::Histogram;

    #[test]
    fn what_a_title_holds_does_not_end_the_text() {
        let histogram = Histogram::of([1.0, 2.0].into_iter(), 2);
        let svg = of(&Chart::Histogram(histogram), "a<b>&c").svg();
        assert!(svg.contains(">a&lt;b&gt;&amp;c</text>"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3, "the page and two bars");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!(heat_colour(0.0), [68, 1, 84]);
        assert_eq!(heat_colour(1.0), [253, 231, 37]);
        assert_eq!(heat_colour(f64::NAN.max(0.5)), [33, 145, 140]);
    }
}
