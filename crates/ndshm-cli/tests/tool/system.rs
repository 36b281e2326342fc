//! Tests of the commands that check and measure the system.

use rustix::process::Resource;
use serde_json::{Value, json};

use crate::program::Live;
use crate::runs::{self, limited, piped, terminal};

/// Returns the entry of `doctor` with this name.
#[track_caller]
fn check(list: &Value, name: &str) -> Value {
    let entries = list.as_array().expect("a list");
    let found = entries.iter().find(|entry| entry["check"] == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {list}"))
        .clone()
}

/// Returns the exit code that fits the list: 1 if any check failed.
#[track_caller]
fn code_of(list: &Value) -> i32 {
    let entries = list.as_array().expect("a list");
    assert!(entries.len() >= 12, "{list}");
    for entry in entries {
        let status = entry["status"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&status), "{entry}");
        assert_eq!(entry["remedy"].is_null(), status == "ok", "{entry}");
    }
    i32::from(entries.iter().any(|entry| entry["status"] == "fail"))
}

pub fn doctor_reports_low_limits() {
    let args = ["doctor", "--json"];
    let here = piped(&args);
    here.ends_with(code_of(&here.json()));
    let shown = terminal(&["doctor"], &[]);
    shown.ends_with(here.code());
    assert!(shown.out.contains("\x1b[32mok\x1b[0m"), "{}", shown.out);
    let few = limited(&args, Resource::Nofile, 40);
    let few = few.ends_with(here.code()).json();
    assert_eq!(check(&few, "descriptors (ulimit -n)")["status"], "warn");
    let narrow = limited(&args, Resource::As, 1 << 30);
    let narrow = narrow.ends_with(here.code()).json();
    assert_eq!(
        check(&narrow, "address space (ulimit -v)")["status"],
        "warn"
    );
    assert_eq!(check(&narrow, "a segment of its own")["status"], "ok");
    // A segment is always larger than this.
    let short = limited(&args, Resource::Fsize, 1 << 20);
    let short = short.ends_with(1).json();
    assert_eq!(code_of(&short), 1);
    assert_eq!(check(&short, "file size (ulimit -f)")["status"], "warn");
    let own = check(&short, "a segment of its own");
    assert_eq!(own["status"], "fail");
    assert!(
        own["found"]
            .as_str()
            .unwrap()
            .contains("file size limit of 1 MiB"),
        "{own}"
    );
}

pub fn doctor_finds_leftovers() {
    let dead = Live::named("doctor").kill();
    let found = runs::json(&["doctor"]);
    found.code();
    let leftovers = check(&found.json(), "leftovers");
    assert_eq!(leftovers["status"], "warn");
    assert!(dead.exists());
}

pub fn bench_measures_all_operations() {
    let measured = runs::json(&["bench", "--seconds", "0.2"]);
    let measured = measured.ends_with(0).json();
    let measured = measured.as_array().unwrap();
    assert_eq!(measured.len(), 7);
    for operation in measured {
        let number = |name: &str| operation[name].as_f64().unwrap();
        let (median, best) = (number("median"), number("best"));
        let ordered = match operation["unit"].as_str() {
            Some("ns") => 0.0 < best && best <= median,
            Some("GB/s") => 0.0 < median && median <= best,
            _ => false,
        };
        assert!(
            ordered && operation["repetitions"] != json!(0),
            "{operation}"
        );
    }
    let text = piped(&["bench", "--seconds", "0.2"]);
    assert!(
        text.ends_with(0).out.contains("write lease"),
        "{}",
        text.out
    );
    for nonsense in ["0", "61", "nan", "x"] {
        piped(&["bench", "--seconds", nonsense]).ends_with(2);
    }
}

pub fn completions_are_printed_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let script = piped(&["completions", shell]);
        let script = &script.ends_with(0).out;
        assert!(
            script.contains("ndshm") && script.contains("doctor"),
            "{script}"
        );
    }
    piped(&["completions", "ed"]).ends_with(2);
    let unread = runs::unread(&["completions", "bash"]);
    assert_eq!((unread.code(), unread.err.as_str()), (0, ""));
}
