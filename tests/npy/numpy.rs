//! Checks by numpy itself.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Directory, OPAQUE, load_all, load_opaque, refuse_all, table};

/// Time limit of one call of Python.
const DEADLINE: Duration = Duration::from_secs(100);

/// Runs Python with `arguments`. Returns its output, or `None` if it fails.
fn run(python: &OsString, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(python)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > DEADLINE => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{python:?} did not end within {DEADLINE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout?, &mut text).unwrap();
    status.success().then_some(text)
}

/// Returns a Python that has numpy. Otherwise prints that tests are skipped.
pub fn python() -> Option<OsString> {
    let found = find_python();
    if found.is_none() {
        // `eprintln` does not work here, because the harness captures it.
        let _ = std::io::stderr().write_all(
            b"\nskipped: no numpy; set NDSHM_PYTHON=\"$(.ci/numpy)\" for the files that it writes\n",
        );
    }
    found
}

fn find_python() -> Option<OsString> {
    // If SIGCHLD is ignored, the exit status of a child is lost.
    crate::signals::set_signals();
    if let Some(python) = std::env::var_os("NDSHM_PYTHON") {
        let version = run(&python, &["-c", "import numpy"]);
        assert!(version.is_some(), "NDSHM_PYTHON={python:?} has no numpy");
        return Some(python);
    }
    let python = OsString::from("python3");
    let found = Command::new(&python)
        .args(["-c", "import numpy"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    found.then_some(python)
}

pub fn script(python: &OsString, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npy/files.py");
    let arguments = [&[script.to_str().unwrap()], arguments].concat();
    run(python, &arguments).expect("files.py found a difference")
}

#[test]
fn arrays_of_numpy_come_in_and_go_back() {
    let Some(python) = python() else {
        return;
    };
    let (theirs, ours) = (Directory::new("theirs"), Directory::new("ours"));
    script(&python, &["write", theirs.0.to_str().unwrap()]);
    let table = table();
    let (arrays, archives) = load_all(&table, &theirs.0);
    for (name, handle) in &arrays {
        let path = ours.file(&format!("{name}.npy"));
        table.save_npy(*handle, path).unwrap();
    }
    let mut count = arrays.len();
    for (name, loaded) in archives {
        count += loaded.len();
        table
            .save_npz(ours.file(&format!("{name}.npz")), loaded)
            .unwrap();
    }
    // 13 types in two orders, and all but three in two byte orders; and ten more. As files of their
    // own, and in two archives.
    let each = 2 * (13 + 10) + 10;
    assert_eq!((arrays.len(), count), (each, 3 * each));
    let compared = script(
        &python,
        &[
            "compare",
            theirs.0.to_str().unwrap(),
            ours.0.to_str().unwrap(),
        ],
    );
    assert_eq!(compared.trim(), count.to_string());
    refuse_all(&table, &theirs.0);
}

#[test]
fn opaque_arrays_come_in_and_go_back_unchanged() {
    let Some(python) = python() else {
        return;
    };
    let (theirs, ours) = (
        Directory::new("opaque-theirs"),
        Directory::new("opaque-ours"),
    );
    script(&python, &["write", theirs.0.to_str().unwrap()]);
    let table = table();
    for (name, handle) in load_opaque(&table, &theirs.0) {
        let path = ours.file(&format!("opaque-{name}.npy"));
        table.save_npy(handle, path).unwrap();
    }
    for name in ["opaque.npz", "opaque-compressed.npz"] {
        let loaded = table.load_npz(theirs.file(name)).unwrap();
        table.save_npz(ours.file(name), loaded).unwrap();
    }
    let compared = script(
        &python,
        &[
            "unchanged",
            theirs.0.to_str().unwrap(),
            ours.0.to_str().unwrap(),
        ],
    );
    assert_eq!(compared.trim(), (3 * OPAQUE.len()).to_string());
}
