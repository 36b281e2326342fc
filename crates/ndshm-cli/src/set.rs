//! `ndshm set`: elements of an array, changed under a write lease.

use std::fmt::Display;
use std::str::FromStr;

use ndarray::IxDyn;
use ndshm::{ArrayInfo, Complex, DType, Element, Handle, HandleTable, Observer, ScalarType};
use serde_json::json;

use crate::index::{self, Pick};
use crate::output::{Code, Failure, Output};
use crate::target::{self, Place};

const HELP: &str = "\
This takes part in the segment, with a seat and a write lease: exit code 4 names the process that \
leases the array at that moment. The index is numpy's, and every element that it takes gets the \
value. A bool is true or false, a complex number 1+2i.

JSON: {handle, changed}, the number of elements.";

/// Set elements of an array
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, or a name of it
    array: String,
    /// Which elements, as numpy writes it
    #[arg(allow_hyphen_values = true)]
    index: String,
    /// What they are to be
    #[arg(allow_hyphen_values = true)]
    value: String,
}

/// Sets them.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    let observer = place.observe()?;
    let info = target::array(&observer, &args.array)?;
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

/// Refuses a segment that only its name keeps: whoever takes part in one first reaps the dead, with
/// their arrays, and leaving last removes the name.
pub fn check_inhabited(place: &Place, observer: &Observer) -> Result<(), Failure> {
    let stays = match place {
        Place::Named(_) => observer.has_members()? || observer.is_persistent(),
        // Who has the descriptor is in it.
        Place::Descriptor { .. } => true,
    };
    match stays {
        true => Ok(()),
        false => Err(Failure::refused(format_args!(
            "no process that lives is in {place}: to change it would clean it up; look at what \
             is left by get and export, and remove it by gc"
        ))),
    }
}

/// Sets what the picks take, and says how many that were.
type Write = Box<dyn FnOnce(&HandleTable, &[Pick]) -> Result<usize, Failure>>;

/// The value, read as one of the array's type.
fn writer(observer: &Observer, info: &ArrayInfo, value: &str) -> Result<Write, Failure> {
    let DType::Scalar(scalar) = info.dtype else {
        return Err(Failure::usage(format_args!(
            "{} holds records, {}: a record cannot be set from text",
            target::called(observer, info.handle),
            info.dtype
        )));
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
            // The shape is that of the look before: an array keeps it while its handle is good.
            if let Some(element) = array.get_mut(IxDyn(&index)) {
                *element = value;
                changed += 1;
            }
        }
        Ok(changed)
    }))
}
