//! Draws curves as an SVG, with logarithmic axes.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::{FontFamily, FontStyle, register_font};

use crate::common::time;
use crate::curve::Line;

const SIZE: (u32, u32) = (820, 420);
/// Width of the part with the axes; the legend is beside it.
const AXES: u32 = 570;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];
/// A line that is not ours, and of which no line of ours has the colour.
const PEER: RGBColor = RGBColor(120, 120, 120);
const FONT: &str = "sans-serif";

/// Draws the lines. The vertical axis has whole decades, so that a disturbance looks as small as it
/// is.
pub fn draw(path: &Path, title: &str, axis: &str, lines: &[Line]) -> Result<(), Box<dyn Error>> {
    // The backend measures texts with it. The viewer draws them with its own font.
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| "the font is damaged")?;
    let points = || lines.iter().flat_map(|line| &line.points);
    let xs = points().map(|point| point.x as f64);
    let ys = points().map(|point| point.min);
    let page = SVGBackend::new(path, SIZE).into_drawing_area();
    page.fill(&WHITE)?;
    let (left, legend) = page.split_horizontally(AXES);
    let mut chart = ChartBuilder::on(&left)
        .caption(title, text(17.0))
        .margin(10)
        .x_label_area_size(42)
        .y_label_area_size(66)
        .build_cartesian_2d(ends(xs).log_scale(), decades(ends(ys)).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .label_style(text(13.0))
        .x_desc(axis)
        .y_desc("time of an operation")
        .x_label_formatter(&|x| count(*x))
        .y_label_formatter(&|y| rounded(*y))
        .draw()?;
    for (at, line) in lines.iter().enumerate() {
        let colour = colour(lines, at);
        let points = line.points.iter().map(|point| (point.x as f64, point.min));
        let height = 40 + 24 * at as i32;
        let sample = [(0, height), (26, height)];
        if line.peer_of.is_some() {
            chart.draw_series(DashedLineSeries::new(points, 5, 4, colour.stroke_width(2)))?;
            for end in [0, 16] {
                let sample = [(end, height), (end + 10, height)];
                legend.draw(&PathElement::new(sample, colour.stroke_width(2)))?;
            }
        } else {
            chart.draw_series(points.clone().map(|at| Circle::new(at, 3, colour.filled())))?;
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            legend.draw(&PathElement::new(sample, colour.stroke_width(2)))?;
        }
        legend.draw(&Text::new(line.label.clone(), (34, height - 7), text(13.0)))?;
    }
    page.present()?;
    Ok(())
}

fn text(size: f64) -> TextStyle<'static> {
    TextStyle::from(FontDesc::new(
        FontFamily::Name(FONT),
        size,
        FontStyle::Normal,
    ))
}

/// Returns the colour of a line: a competitor has that of our line.
fn colour(lines: &[Line], at: usize) -> RGBColor {
    let ours = match &lines[at].peer_of {
        Some(ours) => lines.iter().position(|line| line.label == *ours),
        None => Some(at),
    };
    ours.map_or(PEER, |at| COLOURS[at % COLOURS.len()])
}

fn ends(values: impl Iterator<Item = f64>) -> Range<f64> {
    let none = f64::INFINITY..0.0;
    values.fold(none, |ends, value| {
        ends.start.min(value)..ends.end.max(value)
    })
}

fn decades(ends: Range<f64>) -> Range<f64> {
    let power = |exponent: f64| 10f64.powf(exponent);
    power(ends.start.log10().floor())..power(ends.end.log10().ceil())
}

/// Formats a count as a power of ten where it is one.
fn count(number: f64) -> String {
    match number {
        number if number < 1e4 => format!("{number:.0}"),
        number if number < 1e6 => format!("{:.0} k", number / 1e3),
        number => format!("{:.0} M", number / 1e6),
    }
}

/// Formats a time without its last zeros.
fn rounded(ns: f64) -> String {
    time(ns).replacen(".00", "", 1).replacen(".0", "", 1)
}
