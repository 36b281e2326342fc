//! `ndshm get`: prints elements of an array.

use ndarray::ArrayD;
use ndshm::Observer;
use ndshm::inspect::ArrayInfo;
use serde_json::{Value as Json, json};

use crate::copy;
use crate::index::{self, Pick};
use crate::output::{Code, Failure, Output, escaped};
use crate::target::{self, Place};
use crate::value::Value;

const HELP: &str = "\
The index is numpy's: 3, 1:4,0, ::2,-1, ...,0. Without an index, the whole array is printed. \
Large arrays are shortened in the middle unless --all is given.

JSON: {handle, dtype, shape, writer, data}; data is a list for each axis that is left. Values \
that JSON numbers cannot express are strings: \"NaN\", \"inf\", integers beyond 64 bits. A \
complex number is [re, im], a record an object of its fields, an opaque element its bytes as \
hexadecimal digits.

Writers are not kept out: if a process writes the array meanwhile, the elements may be of \
different moments.";

/// Maximum number of elements per call.
const MOST: usize = 1 << 22;

/// Print elements of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle or one of its names
    array: String,
    /// Which elements, as a numpy index; all if left out
    #[arg(allow_hyphen_values = true, default_value = "")]
    index: String,
    /// Print every element, however many there are
    #[arg(long)]
    all: bool,
}

/// Prints the elements.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let observer = Place::parse(&args.segment).observe()?;
    let info = target::array(&observer, &args.array)?;
    let picks = index::parse(&args.index, &info.shape)?;
    let values = copy(&observer, &info, &picks)?;
    if out.json() {
        out.document(&json!({
            "handle": info.handle.to_string(),
            "dtype": info.dtype.to_string(),
            "shape": values.shape(),
            "writer": info.writer,
            "data": nested(&values),
        }))?;
    } else {
        target::warn_of_writer(&observer, &info);
        let text = match args.all {
            true => format!("{values:#}"),
            false => format!("{values}"),
        };
        out.line(escaped(&text))?;
    }
    Ok(Code::Done)
}

/// Copies the selected elements.
fn copy(observer: &Observer, info: &ArrayInfo, picks: &[Pick]) -> Result<ArrayD<Value>, Failure> {
    picks
        .iter()
        .try_fold(1usize, |count, pick| count.checked_mul(pick.count))
        .filter(|&count| count <= MOST)
        .ok_or_else(|| {
            Failure::usage(format_args!(
                "the index selects more than {MOST} elements of {:?}: select fewer, or use export",
                info.shape
            ))
        })?;
    let mut values = ArrayD::from_elem(
        picks.iter().map(|pick| pick.count).collect::<Vec<_>>(),
        Value::Bool(false),
    );
    copy::each(observer, info, picks, |place, element| {
        // Always `Some`: the element has all its bytes.
        if let Some(value) = Value::decode(&info.dtype, element) {
            values[place] = value;
        }
    })?;
    // Remove the axes of single numbers, the last first: the other axes keep their numbers.
    for axis in (0..picks.len()).rev().filter(|&axis| !picks[axis].kept) {
        values.index_axis_inplace(ndarray::Axis(axis), 0);
    }
    Ok(values)
}

fn nested(values: &ArrayD<Value>) -> Json {
    fn of(values: ndarray::ArrayViewD<'_, Value>) -> Json {
        match values.ndim() {
            0 => values.iter().next().map_or(Json::Null, Value::json),
            _ => values.outer_iter().map(of).collect(),
        }
    }
    of(values.view())
}
