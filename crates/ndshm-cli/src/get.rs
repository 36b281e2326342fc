//! `ndshm get`: prints elements of an array, an object, or the parts of a bundle.

use ndarray::ArrayD;
use ndshm::inspect::{ArrayInfo, BundleInfo};
use ndshm::{AnyHandle, Observer};
use serde_json::{Value as Json, json};

use crate::copy;
use crate::index::{self, Pick};
use crate::object::{self, Pickled};
use crate::output::{Align, Code, Failure, Output, Table, bytes, escaped};
use crate::path::{self, Found, Kind};
use crate::target::{self, Place};
use crate::value::Value;

const HELP: &str = "\
The path leads from a name or a handle over a bundle's part to an element, and into an object by \
its keys and positions: model/weights, model/weights/3, config/layers/0/name. Names and keys \
may contain slashes.

The index is numpy's: 3, 1:4,0, ::2,-1, ...,0. Without an index, the whole array is printed. \
Large arrays are shortened in the middle unless --all is given. Objects are printed as JSON, \
in full with --all or --json. The bytes of a Python object are a pickle, which only Python reads: \
its sizes are printed. Of a bundle, the parts are listed.

JSON: {handle, dtype, shape, writer, data}; data is a list for each axis that is left. Values \
that JSON numbers cannot express are strings: \"NaN\", \"inf\", integers beyond 64 bits. A \
complex number is [re, im], a record an object of its fields, an opaque element its bytes as \
hexadecimal digits. For an object {handle, kind: object, bytes, data}, where tensors are nested \
lists; for a Python object {handle, kind: python, bytes, pickle, buffers}, all sizes in bytes; for \
a bundle {handle, kind: bundle, owner, frozen, parts: [{name, handle, kind, dtype, shape, bytes}]}.

Writers are not kept out: if a process writes the array meanwhile, the elements may be of \
different moments.";

/// Print elements of an array, an object, or the parts of a bundle
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// A handle or a name, and the path from there
    #[arg(value_name = "PATH")]
    path: String,
    /// Which elements, as a numpy index; all if left out
    #[arg(allow_hyphen_values = true, default_value = "")]
    index: String,
    /// Print every element, however many there are
    #[arg(long)]
    all: bool,
}

/// Prints what the path leads to.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let observer = Place::parse(&args.segment).observe()?;
    match path::find(&observer, &args.path)? {
        Found::Bundle(bundle) => print_bundle(&observer, &bundle, args, out)?,
        Found::Array(info, rest) => match Kind::of(&info.dtype) {
            Kind::Array => print_array(&observer, &info, &rest, args, out)?,
            Kind::Object => {
                let node = object::read(&observer, &info)?;
                let node = object::select(node, &rest, &args.index)?;
                match out.json() {
                    true => out.document(&object::document(&info, &node)?)?,
                    false => out.line(escaped(&object::print(&node, args.all)?))?,
                }
            }
            Kind::Pickled => print_pickled(&observer, &info, &rest, args, out)?,
        },
    }
    Ok(Code::Done)
}

fn print_array(
    observer: &Observer,
    info: &ArrayInfo,
    rest: &[String],
    args: &Args,
    out: &Output,
) -> Result<(), Failure> {
    let index = args.index.trim().trim_matches(['[', ']']);
    let parts = rest.iter().map(String::as_str).chain([index]);
    let index: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
    let picks = index::parse(&index.join(","), &info.shape)?;
    let values = copy(observer, info, &picks)?;
    if out.json() {
        if !index::fits(values.shape().iter().copied()) {
            return Err(too_many(info));
        }
        return out.document(&json!({
            "handle": info.handle.to_string(),
            "dtype": info.dtype.to_string(),
            "shape": values.shape(),
            "writer": info.writer,
            "data": nested(&values),
        }));
    }
    target::warn_of_writer(observer, info);
    let text = match args.all {
        true => format!("{values:#}"),
        false => format!("{values}"),
    };
    out.line(escaped(&text))
}

fn print_pickled(
    observer: &Observer,
    info: &ArrayInfo,
    rest: &[String],
    args: &Args,
    out: &Output,
) -> Result<(), Failure> {
    if !(rest.is_empty() && args.index.trim().is_empty()) {
        return Err(Failure::usage(format_args!(
            "{} leads into a Python object, and only Python can read it",
            args.path
        )));
    }
    let pickled = Pickled::read(observer, info)?;
    match out.json() {
        true => out.document(&pickled.document(info)),
        false => out.line(pickled),
    }
}

fn print_bundle(
    observer: &Observer,
    bundle: &BundleInfo,
    args: &Args,
    out: &Output,
) -> Result<(), Failure> {
    use Align::{Left, Right};
    if !args.index.trim().is_empty() {
        return Err(Failure::usage(format_args!(
            "{} is a bundle, which has no elements: give the path of a part",
            args.path
        )));
    }
    // A part that is freed meanwhile is left out.
    let parts: Vec<(&str, ArrayInfo)> = bundle
        .parts
        .iter()
        .filter_map(|part| Some((&*part.name, observer.info(part.handle).ok()?)))
        .collect();
    if out.json() {
        let parts = parts.iter().map(|(name, info)| {
            json!({
                "name": name,
                "handle": info.handle.to_string(),
                "kind": Kind::of(&info.dtype).name(),
                "dtype": info.dtype.to_string(),
                "shape": info.shape,
                "bytes": info.bytes,
            })
        });
        return out.document(&json!({
            "handle": AnyHandle::from(bundle.handle).to_string(),
            "kind": "bundle",
            "owner": bundle.owner,
            "frozen": bundle.frozen,
            "parts": parts.collect::<Json>(),
        }));
    }
    let mut table = Table::new(&[
        ("PART", Left),
        ("DTYPE", Left),
        ("SHAPE", Left),
        ("BYTES", Right),
    ]);
    for (name, info) in parts {
        let (dtype, shape) = Kind::describe(&info);
        table.row([escaped(name), dtype, shape, bytes(info.bytes)]);
    }
    match bundle.parts.is_empty() {
        true => out.line("the bundle has no parts"),
        false => table.print(out),
    }
}

/// Copies the selected elements.
fn copy(observer: &Observer, info: &ArrayInfo, picks: &[Pick]) -> Result<ArrayD<Value>, Failure> {
    // An array without elements takes no memory, whatever its other lengths are.
    let most = match picks.iter().any(|pick| pick.count == 0) {
        true => usize::MAX,
        false => index::MOST,
    };
    if index::lists(picks.iter().map(|pick| pick.count)).is_none_or(|count| count > most) {
        return Err(too_many(info));
    }
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

fn too_many(info: &ArrayInfo) -> Failure {
    Failure::usage(format_args!(
        "the index selects more than {} elements or lists of {:?}: select fewer, or use export",
        index::MOST,
        info.shape
    ))
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
