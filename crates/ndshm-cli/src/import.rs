//! `ndshm import`: loads a numpy file into a new array.

use std::path::PathBuf;

use ndshm::HandleTable;
use serde_json::json;

use crate::output::{Code, Failure, Output, bytes};
use crate::set::check_inhabited;
use crate::target::Place;

const HELP: &str = "\
This command joins the segment and takes a seat. The array has no owner: it lives until a program \
frees it.

JSON: {handle, name, dtype, shape, bytes}.";

/// Load a .npy file into a new array, and print its handle
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The file
    file: PathBuf,
    /// Give the array this name
    #[arg(long)]
    name: Option<String>,
}

/// Imports the file.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    check_inhabited(&place, &place.observe()?)?;
    let table = HandleTable::join(&place.enter()?)?;
    // Until `detach` this process owns the array: if it ends early, the array goes with it.
    let handle = table.load_npy(&args.file)?;
    if let Some(name) = &args.name {
        table.publish(name, handle)?;
    }
    let info = table.info(handle)?;
    table.detach(handle)?;
    match out.json() {
        true => out.document(&json!({
            "handle": handle.to_string(),
            "name": args.name,
            "dtype": info.dtype.to_string(),
            "shape": info.shape,
            "bytes": info.bytes,
        }))?,
        false => out.line(format_args!(
            "{handle}: {} {:?}, {}",
            info.dtype,
            info.shape,
            bytes(info.bytes)
        ))?,
    }
    Ok(Code::Done)
}
