//! `ndshm plot`: draws a histogram, lines or a heat map of an array, in the terminal or to a file.

mod axis;
mod chart;
mod layout;
mod numbers;
mod render;
mod scene;
mod terminal;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ndarray::Axis;
use ndshm::inspect::ArrayInfo;
use ndshm::{AnyHandle, HandleTable, Observer, Segment};
use serde_json::{Value as Json, json};

use crate::index::{self, Pick};
use crate::output::{Code, Failure, Output, Style, escaped};
use crate::path;
use crate::target::{self, Place};
use chart::{Chart, Grid, Histogram, Lines};
use numbers::Sample;

const HELP: &str = "\
Without --line, --heat, --hist and --bins, an array (or slice) with one axis and at most 2,000 \
numbers is drawn as a line; one with two axes, of which one has at most 10 indices and the other at \
least 8 times as many, as a line for each index of the short axis; another one with two axes as a \
heat map; any other as a histogram. Bools count as 0 and 1, complex numbers as their moduli; for \
records, --field selects the numbers. Numbers that are not finite are left out and counted. Of \
more than 10,000,000 numbers, only each n-th along the first axis is taken, and the output says so.

A heat map keeps the ratio of rows to columns, unless one is more than about ten times the other. \
Cells without a number are grey. The texts of a PNG are set in DejaVu Sans, those of an SVG in the \
viewer's typeface.

JSON: {handle, dtype, shape, taken, left_out, kind, ...}; a \"histogram\" has {edges, counts}, a \
\"line\" {values}, \"lines\" {lines, indices}, a list of values and an index for each line, a \"heat\" map {min, max, rows}, \
where each cell is the mean of the numbers that it covers. Values without numbers are null.

Writers are not kept out: if a process writes the array meanwhile, the numbers are of different \
moments.";

/// Draw a histogram, lines or a heat map of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD; or a .npy file, without an array
    segment: String,
    /// The array: its handle, one of its names, or the path of a bundle's part
    array: Option<String>,
    /// Which elements, as a numpy index; all if left out
    #[arg(long, allow_hyphen_values = true, default_value = "")]
    slice: String,
    /// The field to draw, for an array of records
    #[arg(long)]
    field: Option<String>,
    /// Draw a histogram
    #[arg(long, group = "kind")]
    hist: bool,
    /// Draw the numbers one after another; with two axes, a line for each index of a short axis
    #[arg(long, group = "kind")]
    line: bool,
    /// Draw two axes as a heat map
    #[arg(long, group = "kind")]
    heat: bool,
    /// Bins of the histogram; the square root of the count, at most 60, if left out
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    bins: Option<u16>,
    /// Use only ASCII characters
    #[arg(long)]
    ascii: bool,
    /// Draw to this file instead; its name ends in .svg or .png
    #[arg(short, long)]
    output: Option<PathBuf>,
}

/// Maximum count of numbers that are drawn as a line by default.
const SHORT: usize = 2000;
/// Maximum number of lines.
const LINES: usize = 10;
/// An axis is drawn as lines if the other one has this many times as many indices.
const LONG: usize = 8;

/// Draws the chart.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let format = args.output.as_deref().map(Format::of).transpose()?;
    let (observer, array) = match &args.array {
        Some(array) => (Place::parse(&args.segment).observe()?, array.clone()),
        None => of_file(&args.segment)?,
    };
    let info = path::array(&observer, &array)?;
    let picks = index::parse(&args.slice, &info.shape)?;
    let field = numbers::Field::of(&info.dtype, args.field.as_deref())?;
    let taken = numbers::take(&observer, &info, &picks, &field)?;
    let step = taken.step;
    let kept: Vec<Pick> = picks.into_iter().filter(|pick| pick.kept).collect();
    let (chart, left_out) = chart(args, taken, &kept, out)?;
    if out.json() {
        out.document(&document(&chart, &info, step, left_out))?;
    }
    let array = match (&args.array, array.parse::<AnyHandle>()) {
        (None, _) => escaped(&args.segment),
        (_, Ok(handle)) => target::called(&observer, handle),
        (_, Err(_)) => escaped(&array),
    };
    let slice = match args.slice.trim().trim_matches(['[', ']']) {
        "" => String::new(),
        slice => format!("[{}]", escaped(slice)),
    };
    let title = format!(
        "{array}{slice} {} {:?}",
        escaped(&info.dtype.to_string()),
        info.shape
    );
    if let (Some(format), Some(path)) = (format, &args.output) {
        format.write(path, &layout::page(&chart, &title))?;
    } else if !out.json() {
        target::warn_of_writer(&observer, &info);
        out.line(out.paint(Style::Bold, &title))?;
        let place = terminal::Viewport::here(args.ascii, out);
        out.drawn(&terminal::draw(&chart, &place))?;
    }
    if !out.json() {
        if step > 1 {
            out.line(format_args!(
                "(each {}th along the first axis of the slice)",
                step
            ))?;
        }
        if left_out > 0 {
            let text = format!("({left_out} left out: NaN or infinite)");
            out.line(out.paint(Style::Warn, text))?;
        }
    }
    Ok(Code::Done)
}

/// Loads a file into a segment of this process. Returns the segment, and the array's handle.
fn of_file(path: &str) -> Result<(Observer, String), Failure> {
    if !path.ends_with(".npy") {
        return Err(Failure::usage(format_args!(
            "{path:?} is not a .npy file: name an array of the segment, as in ndshm plot {path} ARRAY"
        )));
    }
    let segment = Segment::anonymous()?;
    let table = HandleTable::join(&segment)?;
    let array = table.load_npy(path)?;
    // It stays when the table is dropped.
    table.detach(array)?;
    Ok((
        Observer::from_fd(segment.inheritable_fd()?)?,
        array.to_string(),
    ))
}

/// Returns the requested chart, or one that suits the shape, and the count of left-out numbers.
fn chart(args: &Args, taken: Sample, kept: &[Pick], out: &Output) -> Result<(Chart, u64), Failure> {
    let Sample { values, step } = taken;
    let left_out = values.iter().filter(|value| !value.is_finite()).count() as u64;
    let axes = values.ndim();
    let short = axes == 1 && values.len() <= SHORT;
    let plain = !(args.hist || args.line || args.heat) && args.bins.is_none();
    let lines_axis = match args.line || plain {
        true => lines_axis(values.shape(), if plain { LONG } else { 1 }),
        false => None,
    };
    let chart = if let Some(axis) = lines_axis {
        let of = |(at, line): (usize, ndarray::ArrayViewD<'_, f64>)| {
            let at = if axis == 0 { at * step } else { at };
            (line.iter().copied().collect(), kept[axis].index(at))
        };
        let lines = values.axis_iter(Axis(axis)).enumerate();
        let (series, indices) = lines.map(of).unzip();
        Chart::Lines(Lines::of(series, indices))
    } else if args.heat || plain && axes == 2 {
        let shape = values.shape().to_vec();
        let grid = values.into_dimensionality().map_err(|_| {
            Failure::usage(format_args!(
                "a heat map needs two axes, not {axes}: {shape:?}; select two with --slice, as in \
                 --slice 0,:,:"
            ))
        })?;
        let (rows, columns) = match args.output {
            Some(_) => (layout::MOST_CELLS, layout::MOST_CELLS),
            None => terminal::Viewport::here(args.ascii, out).cells(grid.dim()),
        };
        Chart::Heat(Grid::of(&grid, rows, columns))
    } else if args.line || plain && short {
        // Order: the last index changes fastest.
        let values = values.iter().copied().collect();
        Chart::Lines(Lines::of(vec![values], Vec::new()))
    } else {
        let bins = args.bins.map_or(chart::bins_for(values.len()), usize::from);
        Chart::Histogram(Histogram::of(values.iter().copied(), bins))
    };
    Ok((chart, left_out))
}

/// Returns the axis of two whose indices are drawn as a line each: the shorter one, if it has at most
/// [`LINES`] indices and the other one at least `long` times as many.
fn lines_axis(shape: &[usize], long: usize) -> Option<usize> {
    let &[rows, columns] = shape else {
        return None;
    };
    let (axis, lines, points) = match rows < columns {
        true => (0, rows, columns),
        false => (1, columns, rows),
    };
    ((1..=LINES).contains(&lines) && points / lines >= long).then_some(axis)
}

fn document(chart: &Chart, info: &ArrayInfo, step: usize, left_out: u64) -> Json {
    let mut document = json!({
        "handle": info.handle.to_string(),
        "dtype": info.dtype.to_string(),
        "shape": info.shape,
        "taken": step,
        "left_out": left_out,
    });
    let number = |value: f64| value.is_finite().then_some(value);
    let (kind, more) = match chart {
        Chart::Histogram(histogram) => (
            "histogram",
            json!({"edges": histogram.edges(), "counts": histogram.counts}),
        ),
        Chart::Lines(lines) => {
            let values = |line: &Vec<f64>| line.iter().copied().map(number).collect::<Json>();
            match (&lines.series[..], lines.indices.is_empty()) {
                ([line], true) => ("line", json!({"values": values(line)})),
                (series, _) => (
                    "lines",
                    json!({
                        "lines": series.iter().map(values).collect::<Json>(),
                        "indices": lines.indices,
                    }),
                ),
            }
        }
        Chart::Heat(grid) => (
            "heat",
            json!({
                "min": number(grid.min),
                "max": number(grid.max),
                "rows": grid.cells.axis_iter(Axis(0))
                    .map(|row| row.iter().copied().map(number).collect::<Json>())
                    .collect::<Json>(),
            }),
        ),
    };
    document["kind"] = json!(kind);
    if let (Json::Object(all), Json::Object(more)) = (&mut document, more) {
        all.extend(more);
    }
    document
}

/// Format of the output file.
#[derive(Clone, Copy)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn of(path: &Path) -> Result<Format, Failure> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("svg") => Ok(Format::Svg),
            Some("png") => Ok(Format::Png),
            _ => Err(Failure::usage(format_args!(
                "{}: the file's name must end in .svg or .png",
                path.display()
            ))),
        }
    }

    fn write(self, path: &Path, scene: &scene::Scene) -> Result<(), Failure> {
        let bytes = match self {
            Format::Svg => render::svg(scene)?.into_bytes(),
            Format::Png => render::png(scene)?,
        };
        let written = File::create(path).and_then(|mut file| file.write_all(&bytes));
        written.map_err(|error| Failure::refused(format_args!("{}: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_axis_is_drawn_as_lines() {
        let axis = |rows, columns| lines_axis(&[rows, columns], LONG);
        assert_eq!((axis(120, 3), axis(3, 120)), (Some(1), Some(0)));
        assert_eq!((axis(23, 3), axis(24, 3)), (None, Some(1)));
        assert_eq!((axis(500, 11), axis(500, 10)), (None, Some(1)));
        assert_eq!((axis(0, 0), axis(0, 9), axis(9, 0)), (None, None, None));
        assert_eq!(lines_axis(&[4, 3], 1), Some(1));
        assert_eq!(lines_axis(&[100], 1), None);
    }
}
