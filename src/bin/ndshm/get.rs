//! `ndshm get`: elements of an array.

use ndarray::{ArrayD, IxDyn};
use ndshm::{ArrayInfo, Observer, Order};
use serde_json::{Value as Json, json};

use crate::index::{self, Pick};
use crate::output::{Code, Failure, Output, shown};
use crate::target::{self, Place};
use crate::value::Value;

const HELP: &str = "\
The index is numpy's: 3, 1:4,0, ::2,-1, ...,0. Without one it is the whole array. Large arrays are \
shortened in the middle unless --all is given.

JSON: {handle, dtype, shape, writer, data}; data is a list for each axis that is left. What JSON \
has no number for is a string: \"NaN\", \"inf\", integers beyond 64 bits; a complex number is [re, \
im], a record an object of its fields.

Whoever writes the array meanwhile is not kept out: then the elements may be of different moments.";

/// Elements that one call copies.
const MOST: usize = 1 << 22;
/// Bytes that one read copies at most, unless an element has more.
const PIECE: usize = 1 << 20;

/// Print elements of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, or a name of it
    array: String,
    /// Which elements, as numpy writes it; all if left out
    #[arg(allow_hyphen_values = true, default_value = "")]
    index: String,
    /// Print every element, however many there are
    #[arg(long)]
    all: bool,
}

/// Prints them.
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
        target::warn_of_writer(&info);
        let text = match args.all {
            true => format!("{values:#}"),
            false => format!("{values}"),
        };
        out.line(shown(&text))?;
    }
    Ok(Code::Done)
}

/// Copies what the picks take.
fn copy(observer: &Observer, info: &ArrayInfo, picks: &[Pick]) -> Result<ArrayD<Value>, Failure> {
    let count = picks
        .iter()
        .try_fold(1usize, |count, pick| count.checked_mul(pick.count))
        .filter(|&count| count <= MOST)
        .ok_or_else(|| {
            Failure::usage(format_args!(
                "these are more than {MOST} elements of {:?}: give an index that takes fewer, or \
                 use export",
                info.shape
            ))
        })?;
    let mut values = ArrayD::from_elem(
        picks.iter().map(|pick| pick.count).collect::<Vec<_>>(),
        Value::Bool(false),
    );
    if count > 0 {
        fill(observer, info, picks, &mut values)?;
    }
    // The axes of single numbers go, the last first so that the others keep their numbers.
    for axis in (0..picks.len()).rev().filter(|&axis| !picks[axis].kept) {
        values.index_axis_inplace(ndarray::Axis(axis), 0);
    }
    Ok(values)
}

/// Bytes from one index of each axis to the next.
fn strides(info: &ArrayInfo) -> Vec<u64> {
    let mut stride = info.dtype.size() as u64;
    let mut strides = vec![0; info.shape.len()];
    let mut place = |axis: usize| {
        strides[axis] = stride;
        stride = stride.saturating_mul(info.shape[axis] as u64);
    };
    match info.order {
        Order::C => (0..info.shape.len()).rev().for_each(&mut place),
        Order::F => (0..info.shape.len()).for_each(&mut place),
    }
    strides
}

/// Reads row by row, a row being along the axis that is contiguous in memory; `picks` take at least
/// one element.
fn fill(
    observer: &Observer,
    info: &ArrayInfo,
    picks: &[Pick],
    values: &mut ArrayD<Value>,
) -> Result<(), Failure> {
    let size = info.dtype.size();
    let strides = strides(info);
    let inner = match info.order {
        Order::C => picks.len().checked_sub(1),
        Order::F => (!picks.is_empty()).then_some(0),
    };
    let row = inner.map_or(Pick::one(), |axis| picks[axis]);
    // Elements whose span, from the first to the last, one read takes.
    let apart = row.step.unsigned_abs().saturating_mul(size);
    let at_once = (PIECE / apart).clamp(1, row.count);
    let mut rows: Vec<usize> = picks.iter().map(|pick| pick.count).collect();
    if let Some(axis) = inner {
        rows[axis] = 1;
    }
    let mut bytes = Vec::new();
    for start in ndarray::indices(IxDyn(&rows)) {
        let mut place = start;
        let base: u64 = (0..picks.len())
            .filter(|&axis| Some(axis) != inner)
            .map(|axis| picks[axis].index(place[axis]) as u64 * strides[axis])
            .sum();
        for first in (0..row.count).step_by(at_once) {
            let last = (first + at_once).min(row.count) - 1;
            let (a, b) = (row.index(first), row.index(last));
            let lowest = a.min(b);
            bytes.resize((a.max(b) - lowest + 1) * size, 0);
            let offset = base + (lowest * size) as u64;
            observer.copy_bytes(info.handle, offset, &mut bytes)?;
            for at in first..=last {
                let from = (row.index(at) - lowest) * size;
                if let Some(axis) = inner {
                    place[axis] = at;
                }
                // The bytes of a whole element are there.
                if let Some(value) = Value::decode(&info.dtype, &bytes[from..from + size]) {
                    values[&place] = value;
                }
            }
        }
    }
    Ok(())
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
