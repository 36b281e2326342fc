//! Runs models, each in a process of its own, with one ordering weakened.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use loom_tests::steer;

/// A model: the file of its test, and the name of the test.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Model {
    pub file: String,
    pub name: String,
    pub executable: PathBuf,
}

/// The result of a run of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    Passed,
    /// loom found an execution that fails.
    Refused,
    /// Undecided: too many executions, or too much time.
    CutOff,
}

/// Tests of this crate that are not models for this purpose: they test loom itself or a copy of the
/// code, or run under another checker.
const NO_MODELS: [&str; 3] = ["explores", "planted", "large"];

/// Builds and lists all models of this crate.
///
/// # Errors
/// If cargo cannot build or list them.
pub fn models(root: &Path) -> io::Result<Vec<Model>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(root)
        .args(["loom", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !built.status.success() {
        return Err(io::Error::other("the models cannot be built"));
    }
    let mut models = Vec::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let target = &message["target"];
        let (Some(executable), Some(file), Some("test")) = (
            message["executable"].as_str(),
            target["name"].as_str(),
            target["kind"][0].as_str(),
        ) else {
            continue;
        };
        if NO_MODELS.contains(&file) {
            continue;
        }
        let listed = Command::new(executable).args(["--list"]).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        models.extend(
            listed
                .lines()
                .filter_map(|line| line.strip_suffix(": test"))
                .map(|name| Model {
                    file: file.to_owned(),
                    name: name.to_owned(),
                    executable: executable.into(),
                }),
        );
    }
    models.sort();
    Ok(models)
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.file, self.name)
    }
}

impl Model {
    /// Runs the model with the given variables of [`steer`].
    ///
    /// # Errors
    /// If its process cannot be started or waited for.
    pub fn run(
        &self,
        root: &Path,
        variables: &[(&str, &str)],
        deadline: Duration,
    ) -> io::Result<Ending> {
        let mut child = Command::new(&self.executable)
            .current_dir(root.join("loom-tests"))
            .args(["--exact", &self.name, "--nocapture", "--test-threads=1"])
            .envs(variables.iter().copied())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = drain(child.stdout.take());
        let complaint = drain(child.stderr.take());
        let ended = wait(&mut child, deadline)?;
        let said = output.join().unwrap_or_default() + &complaint.join().unwrap_or_default();
        Ok(match ended {
            None => Ending::CutOff,
            Some(true) => Ending::Passed,
            Some(false) if said.contains("cut off after") => Ending::CutOff,
            Some(false) if said.contains("maximum number of branches") => Ending::CutOff,
            Some(false) if said.contains(steer::WEAKEN) => return Err(io::Error::other(said)),
            // Refused by loom or by the model's own assertions, or aborted while cleaning up after
            // a deadlock.
            Some(false) => Ending::Refused,
        })
    }
}

/// Waits for the process. Returns `true` if it succeeded, and `None` if it was killed at the
/// deadline.
fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<bool>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if start.elapsed() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

/// Returns the value of the variable that weakens an ordering.
pub fn weakening(asked: &crate::scan::Asked, to: &str) -> String {
    let part = if asked.look { "Look" } else { "Change" };
    let text = format!("{} {} {} {part} {to}", asked.file, asked.line, asked.column);
    debug_assert!(steer::parse(&text).is_some(), "{text}");
    text
}
