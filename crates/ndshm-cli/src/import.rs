//! `ndshm import`: a file of numpy as an array.

use std::path::PathBuf;

use ndshm::HandleTable;
use serde_json::json;

use crate::output::{Code, Failure, Output, bytes};
use crate::set::check_inhabited;
use crate::target::Place;

const HELP: &str = "\
This takes part in the segment, with a seat. The array belongs to nobody: it lives until a program \
frees it.

JSON: {handle, name, dtype, shape, bytes}.";

/// Make an array of a .npy file, and print its handle
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

/// Makes it.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let place = Place::parse(&args.segment);
    check_inhabited(&place, &place.observe()?)?;
    let table = HandleTable::join(&place.enter()?)?;
    // Until it is detached it goes with this process, should that end early.
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
