//! Exports arrays to numpy files, and imports them again.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::program::{Live, Which};
use crate::runs::{self, limited, piped};

/// A directory for one test, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(what: &str) -> Directory {
        let name = format!("ndshm-tool-{}-{what}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns dtype, shape and all elements of an array.
#[track_caller]
fn contents(place: &str, array: &str) -> (Value, Value, Value) {
    let got = runs::json(&["get", place, array]);
    let got = got.ends_with(0).json();
    (
        got["dtype"].clone(),
        got["shape"].clone(),
        got["data"].clone(),
    )
}

pub fn a_file_is_drawn_without_a_segment() {
    let directory = Directory::new("plot");
    let live = Live::named("plot-file");
    let (place, plain) = (live.place.clone(), live.array(Which::Plain));
    let file = directory.file("plain.npy");
    piped(&["export", &place, &plain, &file]).ends_with(0);
    let drawn = runs::json(&["plot", &file]);
    let of_segment = runs::json(&["plot", &place, &plain]);
    let (drawn, of_segment) = (drawn.ends_with(0).json(), of_segment.ends_with(0).json());
    assert_eq!(drawn["rows"][3][2], json!(11.5));
    assert_eq!(drawn["rows"], of_segment["rows"]);
    let titled = piped(&["plot", &file]).ends_with(0).out.starts_with(&file);
    assert!(titled);
    let forgotten = piped(&["plot", &place]);
    assert!(
        forgotten.ends_with(2).err.contains("name an array"),
        "{}",
        forgotten.err
    );
    piped(&["plot", &directory.file("none.npy")]).ends_with(3);
}

pub fn export_and_import_keep_the_contents() {
    let directory = Directory::new("round-trip");
    let mut live = Live::named("files");
    let place = live.place.clone();
    for (at, array) in live.arrays().iter().enumerate() {
        let file = directory.file(&format!("{at}.npy"));
        let exported = runs::json(&["export", &place, array, &file]);
        if at == Which::Scalar as usize {
            // numpy has no integers of 128 bits.
            assert!(
                exported.ends_with(2).err.contains("u128"),
                "{}",
                exported.err
            );
            continue;
        }
        assert_eq!(exported.ends_with(0).json()["handle"], json!(array));
        let bytes = fs::metadata(&file).unwrap().len();
        let elements = exported.json()["bytes"].as_u64().unwrap();
        assert_eq!(
            bytes - elements,
            (bytes - elements).next_multiple_of(64),
            "aligned"
        );
        let name = format!("loaded/{at}");
        let imported = runs::json(&["import", &place, &file, "--name", &name]);
        assert_ne!(imported.ends_with(0).json()["handle"], json!(array));
        assert_eq!(contents(&place, &name), contents(&place, array));
    }
    // The arrays outlive the tool and have no owner.
    let shown = runs::json(&["show", &place]);
    let shown = shown.ends_with(0).json();
    assert_eq!(shown["arrays"].as_array().map(Vec::len), Some(10 + 9));
    let mut arrays = shown["arrays"].as_array().unwrap().iter();
    let fortran = arrays
        .find(|array| array["names"] == json!(["loaded/1"]))
        .unwrap();
    assert_eq!(
        (&fortran["order"], &fortran["owner"]),
        (&json!("F"), &Value::Null)
    );
    assert_eq!(directory.files(), 9, "nothing else is left");
    live.is_undisturbed();
    live.leave();
}

pub fn invalid_files_are_refused() {
    let directory = Directory::new("refusals");
    let mut live = Live::named("refusals");
    let place = live.place.clone();
    let plain = live.array(Which::Plain);
    let file = directory.file("x.npy");
    let arrays = || {
        let shown = runs::json(&["show", &place]);
        shown.ends_with(0).json()["arrays"].as_array().map(Vec::len)
    };
    piped(&["import", &place, &file]).ends_with(3);
    fs::write(&file, "no numpy").unwrap();
    piped(&["import", &place, &file]).ends_with(1);
    let there = piped(&["export", &place, &plain, &file]);
    assert!(there.ends_with(4).err.contains("--force"), "{}", there.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), "no numpy");
    piped(&["export", &place, &plain, &file, "--force"]).ends_with(0);
    // The name belongs to another array: the import leaves no array behind.
    let taken = piped(&["import", &place, &file, "--name", "layer/plain"]);
    assert!(
        taken.ends_with(4).err.contains("layer/plain"),
        "{}",
        taken.err
    );
    assert_eq!(arrays(), Some(10));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let cut = piped(&["import", &place, &file]);
    assert!(cut.ends_with(1).err.contains("truncated"), "{}", cut.err);
    piped(&["import", &place, &directory.file("")]).ends_with(2);
    piped(&["export", &place, &plain, &directory.file("none/x.npy")]).ends_with(3);
    assert_eq!(arrays(), Some(10));
    // The file does not fit: the old file stays, and no other file remains.
    let large = live.array(Which::Large);
    let args = ["export", &place, &large, &file, "--force"];
    limited(&args, rustix::process::Resource::Fsize, 1 << 16).ends_with(4);
    assert_eq!(fs::read(&file).unwrap(), whole[..whole.len() - 1]);
    assert_eq!(directory.files(), 1);
    live.is_undisturbed();
    let dead = live.kill();
    let left = directory.file("left.npy");
    piped(&["export", &dead.place, &large, &left]).ends_with(0);
    piped(&["import", &dead.place, &left]).ends_with(4);
    assert_eq!(fs::metadata(&left).unwrap().len(), 1_000_128);
}
