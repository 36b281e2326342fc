//! `ndshm export`: writes an array to a numpy file.

use std::path::PathBuf;

use serde_json::json;

use crate::output::{Code, Failure, Output, bytes, escaped};
use crate::path;
use crate::target::{self, Place};

const HELP: &str = "\
The file appears when it is complete, and replaces a file of the same name only with --force.

Writers are not kept out: if a process writes the array meanwhile, the elements are of different \
moments. Arrays that a crashed program left behind can be exported, too.

JSON: {handle, dtype, shape, writer, file, bytes}; `bytes` is the size of the elements.";

/// Write an array to a .npy file
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, one of its names, or the path of a bundle's part
    array: String,
    /// The file
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Exports the array.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let observer = Place::parse(&args.segment).observe()?;
    let info = path::array(&observer, &args.array)?;
    let file = args.file.display().to_string();
    if !args.force && args.file.symlink_metadata().is_ok() {
        return Err(Failure::refused(format_args!(
            "{file} exists already: --force replaces it"
        )));
    }
    observer.save_npy(info.handle, &args.file)?;
    if out.json() {
        out.document(&json!({
            "handle": info.handle.to_string(),
            "dtype": info.dtype.to_string(),
            "shape": info.shape,
            "writer": info.writer,
            "file": file,
            "bytes": info.bytes,
        }))?;
    } else {
        target::warn_of_writer(&observer, &info);
        let written = bytes(info.bytes);
        let array = target::called(&observer, info.handle);
        out.line(escaped(&format!("{written} of {array} in {file}")))?;
    }
    Ok(Code::Done)
}
