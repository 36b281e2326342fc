//! `ndshm export`: an array as a file of numpy.

use std::path::PathBuf;

use serde_json::json;

use crate::output::{Code, Failure, Output, bytes, shown};
use crate::target::{self, Place};

const HELP: &str = "\
The file is complete when it appears, and replaces one of the same name only with --force.

Whoever writes the array meanwhile is not kept out: then the elements are of different moments. What \
a crashed program left behind can be exported, too.

JSON: {handle, dtype, shape, writer, file, bytes}; `bytes` are those of the elements.";

/// Write an array to a .npy file
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The segment: its name, or PID:FD
    segment: String,
    /// The array: its handle, or a name of it
    array: String,
    /// The file
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Writes it.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let observer = Place::parse(&args.segment).observe()?;
    let info = target::array(&observer, &args.array)?;
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
        out.line(shown(&format!("{written} of {array} in {file}")))?;
    }
    Ok(Code::Done)
}
