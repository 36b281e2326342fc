//! `ndshm stat`: summarizes the numbers of an array.

mod summary;
mod wide;

use ndshm::element::{DType, ScalarType};
use serde_json::{Value as Json, json};

use crate::output::{Align, Code, Failure, Output, Style, Table, escaped};
use crate::path;
use crate::target::{self, Place};
use crate::value::{Value, float};
use summary::{Lane, Summary};

const HELP: &str = "\
Min, max, mean and std leave out NaNs; mean and std also leave out infinities. Min, max and mean \
of integers are exact before they are printed. Std is the population standard deviation (numpy's \
ddof=0). A complex array has one line for its real and one for its imaginary parts, a record \
array one for each field.

JSON: {handle, dtype, shape, writer, parts: [{part, count, min, max, mean, std, nans, infs, \
zeros}]}; `part` is null for an array of plain numbers; min, max, mean and std are null without \
numbers.

Writers are not kept out: if a process writes the array meanwhile, the numbers are of different \
moments.";

/// Maximum bytes per read, unless one element is larger.
const CHUNK: usize = 1 << 20;

/// Print minimum, maximum, mean, deviation, NaNs, infinities and zeros of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, one of its names, or the path of a bundle's part
    array: String,
}

/// Prints the summary.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let observer = Place::parse(&args.segment).observe()?;
    let info = path::array(&observer, &args.array)?;
    let size = info.dtype.size();
    let mut parts = parts(&info.dtype)?;
    let mut chunk = vec![0; (CHUNK / size).max(1) * size];
    let mut at = 0;
    while at < info.bytes {
        let now = chunk.len().min((info.bytes - at) as usize);
        observer.copy_bytes(info.handle, at, &mut chunk[..now])?;
        for part in &mut parts {
            part.summary.take(&chunk[..now], &part.lane);
        }
        at += now as u64;
    }
    if out.json() {
        out.document(&json!({
            "handle": info.handle.to_string(),
            "dtype": info.dtype.to_string(),
            "shape": info.shape,
            "writer": info.writer,
            "parts": parts.iter().map(Part::document).collect::<Json>(),
        }))?;
    } else {
        target::warn_of_writer(&observer, &info);
        out.line(format_args!(
            "{}: {} {:?}",
            target::called(&observer, info.handle),
            out.paint(Style::Bold, escaped(&info.dtype.to_string())),
            info.shape
        ))?;
        table(&parts).print(out)?;
    }
    Ok(Code::Done)
}

/// Numbers of one kind in each element.
struct Part {
    name: Option<String>,
    lane: Lane,
    summary: Box<dyn Summary>,
}

fn parts(dtype: &DType) -> Result<Vec<Part>, Failure> {
    Ok(match dtype {
        DType::Opaque(_) => {
            return Err(Failure::usage(format_args!(
                "the elements are {dtype}, which the tool cannot read as numbers; export the \
                 array, and look at it in numpy"
            )));
        }
        DType::Scalar(scalar) => scalars(None, *scalar, dtype.size(), 0, 1),
        DType::Record(layout) => layout
            .fields()
            .iter()
            .flat_map(|field| {
                let name = Some(field.name.as_ref());
                scalars(name, field.dtype, layout.size(), field.offset, field.count)
            })
            .collect(),
    })
}

fn scalars(
    name: Option<&str>,
    scalar: ScalarType,
    stride: usize,
    offset: usize,
    count: usize,
) -> Vec<Part> {
    let half = match scalar {
        ScalarType::Complex32 => Some(ScalarType::F32),
        ScalarType::Complex64 => Some(ScalarType::F64),
        _ => None,
    };
    let part = |part: Option<&str>, number: ScalarType, offset| {
        let name = match (name, part) {
            (Some(name), Some(part)) => Some(format!("{name}.{part}")),
            (name, part) => name.or(part).map(str::to_owned),
        };
        let lane = Lane {
            stride,
            offset,
            step: scalar.size(),
            count,
        };
        summary::of(number).map(|summary| Part {
            name,
            lane,
            summary,
        })
    };
    let parts = match half {
        None => vec![part(None, scalar, offset)],
        Some(half) => vec![
            part(Some("re"), half, offset),
            part(Some("im"), half, offset + half.size()),
        ],
    };
    parts.into_iter().flatten().collect()
}

impl Part {
    fn document(&self) -> Json {
        let found = self.summary.results();
        let value = |value: &Option<Value>| value.as_ref().map(Value::json);
        json!({
            "part": self.name,
            "count": found.count,
            "min": value(&found.min),
            "max": value(&found.max),
            "mean": found.mean.map(float),
            "std": found.std.map(float),
            "nans": found.nans,
            "infs": found.infs,
            "zeros": found.zeros,
        })
    }
}

/// Formats a float, with an exponent if most digits would be zeros.
fn plain(value: f64) -> String {
    match value.abs() {
        0.0 | 1e-5..1e16 => value.to_string(),
        _ => format!("{value:e}"),
    }
}

fn table(parts: &[Part]) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("PART", Left),
        ("COUNT", Right),
        ("MIN", Right),
        ("MAX", Right),
        ("MEAN", Right),
        ("STD", Right),
        ("NANS", Right),
        ("INFS", Right),
        ("ZEROS", Right),
    ]);
    for part in parts {
        let found = part.summary.results();
        let text = |value: Option<String>| (value.unwrap_or("-".into()), Style::Plain);
        let count = |count: u64| (count.to_string(), Style::Plain);
        let odd = |count: u64| match count {
            0 => (count.to_string(), Style::Plain),
            _ => (count.to_string(), Style::Warn),
        };
        table.styled([
            (escaped(part.name.as_deref().unwrap_or("all")), Style::Plain),
            count(found.count),
            text(found.min.map(|min| min.to_string())),
            text(found.max.map(|max| max.to_string())),
            text(found.mean.map(plain)),
            text(found.std.map(plain)),
            odd(found.nans),
            odd(found.infs),
            count(found.zeros),
        ]);
    }
    table
}
