//! Plants bugs, one at a time, in a copy of the code. Each must be caught by its model. A model
//! that has never failed proves nothing.
//!
//! The copy contains all bugs at once, each behind a check of an environment variable, so it is
//! built only once.
#![cfg(all(loom, not(shuttle)))]

mod bugs;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bugs::{BUGS, Bug};

/// The environment variable that names the active bug.
const VARIABLE: &str = "NDSHM_PLANTED";

const DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn each_bug_is_caught_by_its_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = root.join("target/planted");
    plant(&root, &copy);
    let executables = build(&copy);
    let next = Mutex::new(BUGS.iter());
    let missed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let bug = next.lock().unwrap().next();
                    let Some(bug) = bug else { break };
                    match try_to_catch(bug, &executables) {
                        Ok(how) => print(&format!("planted: {} | {how}\n", bug.name)),
                        Err(why) => missed.lock().unwrap().push(format!("{}: {why}", bug.name)),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not caught: {missed:#?}");
    assert!(BUGS.len() >= 12);
}

/// Runs the model with the bug. Returns how the model fails, or an error if it does not. (The other
/// tests of this crate show that it passes without the bug.)
fn try_to_catch(bug: &Bug, executables: &BTreeMap<String, PathBuf>) -> Result<String, String> {
    let (file, model) = bug.model;
    let planted = run(&executables[file], model, bug.name)?;
    let said = text(&planted);
    let refused = said
        .lines()
        .find(|line| line.contains("was refused in execution"));
    match refused {
        _ if said.contains("0 passed; 0 failed") => Err(format!("there is no {file}::{model}")),
        _ if planted.status.success() => Err(format!("{file}::{model} passes")),
        _ if said.contains("cut off after") => Err(format!("{file}::{model} is cut off")),
        Some(line) => Ok(line.trim_start_matches("model ").to_owned()),
        // loom aborts while it cleans up after a deadlock.
        None if said.contains("deadlock") => Ok(format!("{model}: a deadlock")),
        None => Err(format!("{file}::{model}: {said}")),
    }
}

fn run(executable: &Path, model: &str, planted: &str) -> Result<Output, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", executable.display());
    // Use a file, not a pipe: no thread reads a pipe while this one waits.
    let log = executable.with_extension(format!("{:?}.log", thread::current().id()));
    let file = fs::File::create(&log).map_err(failed)?;
    let mut child = Command::new(executable)
        .args(["--exact", model, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, planted)
        .env("RUST_BACKTRACE", "0")
        .stdout(file.try_clone().map_err(failed)?)
        .stderr(file)
        .spawn()
        .map_err(failed)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if start.elapsed() > DEADLINE {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(format!("{model} took longer than {DEADLINE:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let stdout = fs::read(&log).map_err(failed)?;
    let _ = fs::remove_file(&log);
    Ok(Output {
        status,
        stdout,
        stderr: Vec::new(),
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes the copy. Unchanged files keep their modification time, so they are not built again.
fn plant(root: &Path, copy: &Path) {
    let mut files = BTreeMap::new();
    for name in ["Cargo.toml", "Cargo.lock", "README.md"] {
        files.insert(
            PathBuf::from(name),
            fs::read_to_string(root.join(name)).unwrap(),
        );
    }
    for directory in ["src", "loom-tests"] {
        read_all(root, Path::new(directory), &mut files);
    }
    // The manifest names targets in these directories, but none of them is built.
    fs::create_dir_all(copy).unwrap();
    for directory in ["benches", "crates", "examples", "python", "tests"] {
        let link = copy.join(directory);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(root.join(directory).canonicalize().unwrap(), link).unwrap();
        }
    }
    for bug in BUGS {
        let text = files.get_mut(Path::new(bug.file)).expect(bug.file);
        *text = with_bug(text, bug);
    }
    let library = files.get_mut(Path::new("src/lib.rs")).unwrap();
    library.push_str(&format!(
        "\n#[allow(clippy::all)]\npub(crate) fn planted(bug: &str) -> bool {{\n    \
         static BUG: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();\n    \
         BUG.get_or_init(|| std::env::var({VARIABLE:?}).ok()).as_deref() == Some(bug)\n}}\n"
    ));
    // Remove files that an earlier run left in the copy and that are gone from the tree.
    let mut old = BTreeMap::new();
    for directory in ["src", "loom-tests"] {
        if copy.join(directory).exists() {
            read_all(copy, Path::new(directory), &mut old);
        }
    }
    for name in old.keys().filter(|name| !files.contains_key(*name)) {
        fs::remove_file(copy.join(name)).unwrap();
    }
    for (name, text) in files {
        let path = copy.join(name);
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
}

fn with_bug(text: &str, bug: &Bug) -> String {
    let (before, rest) = bug.at.split_once('«').expect(bug.name);
    let (good, after) = rest.split_once('»').expect(bug.name);
    let whole = format!("{before}{good}{after}");
    // Other bugs may be planted in the same lines: each is found by its own text.
    assert_eq!(
        text.matches(&whole).count(),
        1,
        "{}: {} does not contain this exactly once:\n{whole}",
        bug.name,
        bug.file
    );
    let (name, instead) = (bug.name, bug.instead);
    let both =
        format!("{before}(if crate::planted({name:?}) {{ {instead} }} else {{ {good} }}){after}");
    text.replacen(&whole, &both, 1)
}

fn read_all(root: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let name = directory.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            // Skip this test and the programs: the copy does not plant bugs in a copy of its own.
            true if entry.file_name() == "planted" || entry.file_name() == "bin" => {}
            true => read_all(root, &name, files),
            false => drop(files.insert(name, fs::read_to_string(entry.path()).unwrap())),
        }
    }
}

/// Builds the models of the copy. Returns their executables by the names of their programs.
fn build(copy: &Path) -> BTreeMap<String, PathBuf> {
    let built = Command::new(env!("CARGO"))
        .current_dir(copy)
        .args(["test", "--no-run", "--release", "-p", "loom-tests"])
        .args(["--config", "build.rustflags=['--cfg','loom','-Aunused']"])
        .args(["--config", "profile.release.debug=false"])
        .args([
            "--target-dir",
            "built",
            "--message-format",
            "short",
            "--offline",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "{said}");
    // "Executable tests/leases.rs (built/release/deps/leases-0123)", or "tests/queue/main.rs (...)"
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Executable tests/"))
        .filter_map(|line| line.strip_suffix(')')?.split_once(".rs ("))
        .map(|(file, path)| (file.trim_end_matches("/main").to_owned(), copy.join(path)))
        .collect()
}

/// Prints past the test harness, which hides the output of tests that pass.
fn print(line: &str) {
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}
