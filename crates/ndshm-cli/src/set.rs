//! `ndshm set`: changes elements of an array under a write lease.

use std::fmt::Display;
use std::str::FromStr;

use ndarray::IxDyn;
use ndshm::element::{DType, ScalarType};
use ndshm::inspect::ArrayInfo;
use ndshm::{Complex, Element, Handle, HandleTable, Observer};
use serde_json::json;

use crate::index::{self, Pick};
use crate::output::{Code, Failure, Output};
use crate::path;
use crate::target::{self, Place};

const HELP: &str = "\
This command joins the segment: it takes a seat and a write lease. If another process leases the \
array, the exit code is 4 and the message names the process. The index is numpy's; every element \
that it selects gets the value. A bool is true or false, a complex number 1+2i.

JSON: {handle, changed}; `changed` is the number of elements.";

/// Set elements of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, one of its names, or the path of a bundle's part
    array: String,
    /// Which elements, as a numpy index
    #[arg(allow_hyphen_values = true)]
    index: String,
    /// The new value
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Sets the elements.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    let observer = place.observe()?;
    let info = path::array(&observer, &args.array)?;
    let picks = index::parse(&args.index, &info.shape)?;
    let write = writer(&observer, &info, &args.value)?;
    check_inhabited(&place, &observer)?;
    let table = HandleTable::join(&place.enter()?)?;
    let changed = write(&table, &picks)?;
    match out.json() {
        true => out.document(&json!({
            "handle": info.handle.to_string(),
            "changed": changed,
        }))?,
        false => out.line(format_args!(
            "{changed} elements of {} changed",
            target::called(&observer, info.handle)
        ))?,
    }
    Ok(Code::Done)
}

/// Refuses a segment that no process is in and that is not persistent. Joining would reap the dead
/// with their arrays, and leaving as the last process would remove the name.
pub fn check_inhabited(place: &Place, observer: &Observer) -> Result<(), Failure> {
    let stays = match place {
        Place::Named(_) => observer.has_members()? || observer.is_persistent(),
        // The process with the descriptor is in it.
        Place::Descriptor { .. } => true,
    };
    match stays {
        true => Ok(()),
        false => Err(Failure::refused(format_args!(
            "no live process is in {place}: joining it would clean it up; read what is left with \
             get and export, and remove it with gc"
        ))),
    }
}

/// Sets the selected elements and returns their number.
type Write = Box<dyn FnOnce(&HandleTable, &[Pick]) -> Result<usize, Failure>>;

/// Parses the value as one of the array's element type.
fn writer(observer: &Observer, info: &ArrayInfo, value: &str) -> Result<Write, Failure> {
    let scalar = match &info.dtype {
        DType::Scalar(scalar) => *scalar,
        dtype => {
            let (records, one) = match dtype {
                DType::Opaque(_) => ("opaque elements", "an opaque element"),
                _ => ("records", "a record"),
            };
            return Err(Failure::usage(format_args!(
                "{} holds {records}, {dtype}: {one} cannot be set from text",
                target::called(observer, info.handle),
            )));
        }
    };
    match scalar {
        ScalarType::U8 => typed::<u8>(info, value),
        ScalarType::I8 => typed::<i8>(info, value),
        ScalarType::U16 => typed::<u16>(info, value),
        ScalarType::I16 => typed::<i16>(info, value),
        ScalarType::U32 => typed::<u32>(info, value),
        ScalarType::I32 => typed::<i32>(info, value),
        ScalarType::U64 => typed::<u64>(info, value),
        ScalarType::I64 => typed::<i64>(info, value),
        ScalarType::U128 => typed::<u128>(info, value),
        ScalarType::I128 => typed::<i128>(info, value),
        ScalarType::F32 => typed::<f32>(info, value),
        ScalarType::F64 => typed::<f64>(info, value),
        ScalarType::Complex32 => typed::<Complex<f32>>(info, value),
        ScalarType::Complex64 => typed::<Complex<f64>>(info, value),
        ScalarType::Bool => typed::<bool>(info, value),
        other => Err(Failure::usage(format_args!(
            "an element of type {other} cannot be set by this version of the tool"
        ))),
    }
}

fn typed<T: Element + FromStr<Err: Display>>(
    info: &ArrayInfo,
    value: &str,
) -> Result<Write, Failure> {
    let value: T = value
        .trim()
        .parse()
        .map_err(|error| Failure::usage(format_args!("{value:?} is no {}: {error}", info.dtype)))?;
    let handle = Handle::<T, IxDyn>::from_bits(info.handle.to_bits());
    Ok(Box::new(move |table, picks| {
        let mut array = table.write(handle)?;
        let counts: Vec<usize> = picks.iter().map(|pick| pick.count).collect();
        let mut changed = 0;
        for place in ndarray::indices(IxDyn(&counts)) {
            let index: Vec<usize> = picks
                .iter()
                .enumerate()
                .map(|(axis, pick)| pick.index(place[axis]))
                .collect();
            // `get_mut` always succeeds: the array keeps its shape while its handle is valid.
            if let Some(element) = array.get_mut(IxDyn(&index)) {
                *element = value;
                changed += 1;
            }
        }
        Ok(changed)
    }))
}
