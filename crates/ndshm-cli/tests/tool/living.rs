//! Tests with segments that programs are using.

use serde_json::{Value, json};

use crate::program::{Live, Which};
use crate::runs::{self, piped, terminal, unread as run_unread};
use crate::snapshot::compare;

/// Returns commands for a segment, each with its expected exit code.
fn commands(live: &Live) -> Vec<(Vec<String>, i32)> {
    let own = |args: &[&str]| args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>();
    let place = live.place.as_str();
    let mut commands = vec![
        (own(&["show", place]), 0),
        (own(&["gc", place]), 0),
        (own(&["watch", place, "--once"]), 0),
        (own(&["plot", place, "layer/plain"]), 0),
    ];
    for array in live.arrays() {
        if array != live.array(Which::Halves) {
            commands.push((own(&["stat", place, &array]), 0));
        }
        commands.push((own(&["get", place, &array]), 0));
    }
    commands
}

pub fn every_command_leaves_a_program_alone() {
    let mut live = Live::named("commands");
    let mut coloured = 0;
    for (args, code) in commands(&live) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let by_pipe = piped(&args);
        by_pipe.ends_with(code);
        assert!(!by_pipe.out.contains('\x1b'), "{args:?}: {}", by_pipe.out);
        let document = runs::json(&args);
        document.ends_with(code).json();
        let in_terminal = terminal(&args, &[]);
        in_terminal.ends_with(code);
        coloured += usize::from(in_terminal.out.contains('\x1b'));
        let plain = terminal(&args, &[("NO_COLOR", "1")]);
        plain.ends_with(code);
        assert!(!plain.out.contains('\x1b'), "{args:?}: {}", plain.out);
        let dumb = terminal(&args, &[("TERM", "dumb")]);
        assert!(!dumb.out.contains('\x1b'), "{args:?}: {}", dumb.out);
        let by_pipe = by_pipe.out.lines().count();
        assert!(
            plain.out.lines().count() >= by_pipe,
            "{args:?}: {}",
            plain.out
        );
        live.is_undisturbed();
    }
    // `show`, and `stat` of each array.
    assert!(coloured >= 10, "{coloured} commands with colour");
    let listed = runs::json(&["ls"]);
    listed.code();
    let listed = entry(&listed.json(), &live.place);
    assert_eq!(listed["state"], "ok");
    assert_eq!(listed["kind"], "named");
    assert_eq!(
        (&listed["arrays"], &listed["seats_alive"]),
        (&json!(10), &json!(1))
    );
    assert!(listed["resident"].as_u64() > Some(1_000_000), "{listed}");
    assert!(listed["size"].as_u64() > Some(1 << 28), "{listed}");
    live.is_undisturbed();
    live.leave();
}

/// Returns the entry for this segment from a list.
#[track_caller]
pub fn entry(list: &Value, place: &str) -> Value {
    let entries = list.as_array().expect("a list");
    let found = entries.iter().find(|entry| entry["segment"] == place);
    found
        .unwrap_or_else(|| panic!("{place} is not in {list}"))
        .clone()
}

pub fn an_anonymous_segment_is_found() {
    let mut live = Live::anonymous();
    let listed = runs::json(&["ls"]);
    let listed = entry(&listed.json(), &live.place);
    assert_eq!(listed["kind"], "anonymous");
    assert_eq!(listed["arrays"], 10);
    let shown = runs::json(&["show", &live.place]);
    let shown = shown.ends_with(0).json();
    assert_eq!(shown["seats"][0]["pid"], live.pid());
    let plain = live.array(Which::Plain);
    piped(&["set", &live.place, &plain, "0,0", "8"]).ends_with(0);
    let got = runs::json(&["get", &live.place, &plain, "0,0"]);
    assert_eq!(got.ends_with(0).json()["data"], 8.0);
    // A descriptor that exists but does not belong to a segment.
    let (pid, _) = live.place.split_once(':').unwrap();
    piped(&["show", &format!("{pid}:1")]).ends_with(1);
    piped(&["show", &format!("{pid}:99999")]).ends_with(3);
    live.is_undisturbed();
    live.leave();
}

pub fn texts_match_the_snapshots() {
    let mut live = Live::named("snapshots");
    let pid = live.pid().to_string();
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let replaced = [
        (live.place.as_str(), "NAME"),
        (pid.as_str(), "PID"),
        (command.trim(), "COMMAND"),
    ];
    let shown = piped(&["show", &live.place]);
    // The resident size depends on the page size of the machine.
    let (_, rest) = shown.ends_with(0).out.split_once(" of memory").unwrap();
    compare("show", rest, &replaced);
    let mut text = String::new();
    let indices = [
        (Which::Plain, ""),
        (Which::Plain, "1:3,::-1"),
        (Which::Plain, "-1,-1"),
        (Which::Fortran, ""),
        (Which::Flags, ""),
        (Which::Complex, ""),
        (Which::Records, ""),
        (Which::Odd, "::-2"),
        (Which::Scalar, ""),
        (Which::Large, ""),
        (Which::Large, "999990:"),
        (Which::Leased, "1:"),
        (Which::Halves, ""),
    ];
    for (which, index) in indices {
        let got = piped(&["get", &live.place, &live.array(which), index]);
        text += &format!("[{index}]\n{}{}\n", got.ends_with(0).out, got.err);
    }
    compare("get", &text, &replaced);
    let text: String = live
        .arrays()
        .iter()
        .filter(|&array| *array != live.array(Which::Halves))
        .map(|array| {
            piped(&["stat", &live.place, array])
                .ends_with(0)
                .out
                .clone()
                + "\n"
        })
        .collect();
    compare("stat", &text, &replaced);
    for command in ["ls", "show", "stat", "get", "set", "gc", "doctor", "bench"] {
        compare(
            &format!("help-{command}"),
            &piped(&[command, "--help"]).ends_with(0).out,
            &[],
        );
    }
    compare("help", &piped(&["--help"]).ends_with(0).out, &[]);
    live.is_undisturbed();
    live.leave();
}

pub fn get_prints_the_elements() {
    let live = Live::named("elements");
    let data = |which: Which, index: &str| {
        let got = runs::json(&["get", &live.place, &live.array(which), index]);
        got.ends_with(0).json()["data"].clone()
    };
    assert_eq!(data(Which::Plain, "1"), json!([3.5, 4.5, 5.5]));
    assert_eq!(data(Which::Plain, "::2,-1"), json!([2.5, 8.5]));
    assert_eq!(
        data(Which::Plain, "::-3,1:"),
        json!([[10.5, 11.5], [1.5, 2.5]])
    );
    assert_eq!(data(Which::Plain, "4:,0"), json!([]));
    assert_eq!(data(Which::Fortran, ""), json!([[-1, 0, 1], [2, 3, 4]]));
    assert_eq!(data(Which::Fortran, "1,::2"), json!([2, 4]));
    assert_eq!(data(Which::Flags, "2:4"), json!([false, true]));
    assert_eq!(data(Which::Complex, "0"), json!([1.0, -2.0]));
    assert_eq!(
        data(Which::Records, "1"),
        json!({"position": [0.25, -1.0], "id": 7})
    );
    assert_eq!(data(Which::Odd, ""), json!(["NaN", "inf", 0.0, 2.0]));
    assert_eq!(data(Which::Scalar, ""), json!(u128::MAX.to_string()));
    assert_eq!(data(Which::Halves, "::-1"), json!(["00c0", "003c"]));
    // More elements than one read takes, forwards and backwards.
    let all = data(Which::Large, "::-1");
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 1_000_000);
    let right = |(at, byte): (usize, &Value)| *byte == json!((999_999 - at) % 251);
    assert!(all.iter().enumerate().all(right));
    let sparse = data(Which::Large, "::200000");
    assert_eq!(
        sparse,
        json!([
            0,
            200_000 % 251,
            400_000 % 251,
            600_000 % 251,
            800_000 % 251
        ])
    );
    live.leave();
}

pub fn arrays_are_found_by_name() {
    let mut live = Live::named("names");
    let got = runs::json(&["get", &live.place, "layer/plain", "1,0"]);
    assert_eq!(got.ends_with(0).json()["data"], 3.5);
    piped(&["set", &live.place, "also plain", "1,0", "7"]).ends_with(0);
    let got = runs::json(&["get", &live.place, &live.array(Which::Plain), "1,0"]);
    assert_eq!(got.ends_with(0).json()["data"], 7.0);
    // Texts that give an array's handle also give its names.
    let plain = live.array(Which::Plain);
    let called = format!("{plain} (also plain, layer/plain)");
    let set = piped(&["set", &live.place, &plain, "1,0", "7"]);
    assert_eq!(
        set.ends_with(0).out,
        format!("1 elements of {called} changed\n")
    );
    let stat = piped(&["stat", &live.place, "layer/plain"]);
    assert!(stat.ends_with(0).out.starts_with(&called), "{}", stat.out);
    let plot = piped(&["plot", &live.place, &plain]);
    assert!(plot.ends_with(0).out.starts_with(&called), "{}", plot.out);
    let plot = piped(&["plot", &live.place, "layer/plain"]);
    let titled = plot.ends_with(0).out.starts_with("layer/plain ");
    assert!(titled, "{}", plot.out);
    let none = piped(&["stat", &live.place, "layer"]);
    assert!(
        none.ends_with(3)
            .err
            .contains("nothing is called \"layer\""),
        "{}",
        none.err
    );
    piped(&["stat", &live.place, ""]).ends_with(2);
    let shown = runs::json(&["show", &live.place]);
    let shown = shown.ends_with(0).json();
    let mut arrays = shown["arrays"].as_array().unwrap().iter();
    let plain = arrays
        .find(|array| array["handle"] == live.array(Which::Plain))
        .unwrap();
    assert_eq!(plain["names"], json!(["also plain", "layer/plain"]));
    assert_eq!(shown["names"].as_array().map(Vec::len), Some(3));
    // A name must not control the terminal: anybody may choose it.
    let text = terminal(&["show", &live.place], &[("NO_COLOR", "1")]);
    assert!(
        text.ends_with(0).out.contains("größe\\u{1b}[31m"),
        "{}",
        text.out
    );
    live.is_undisturbed();
    live.leave();
}

pub fn stat_summarizes_the_numbers() {
    let live = Live::named("numbers");
    let parts = |which: Which| {
        let found = runs::json(&["stat", &live.place, &live.array(which)]);
        found.ends_with(0).json()["parts"].clone()
    };
    let plain = parts(Which::Plain);
    let expected = [
        ("count", 12.0),
        ("min", 0.5),
        ("max", 11.5),
        ("mean", 6.0),
        ("zeros", 0.0),
    ];
    for (name, value) in expected {
        assert_eq!(plain[0][name].as_f64(), Some(value), "{plain}");
    }
    let std = plain[0]["std"].as_f64().unwrap();
    assert!((std - (143f64 / 12.0).sqrt()).abs() < 1e-12, "{std}");
    let odd = &parts(Which::Odd)[0];
    assert_eq!(
        (&odd["nans"], &odd["infs"], &odd["zeros"]),
        (&json!(1), &json!(1), &json!(1))
    );
    assert_eq!(
        (&odd["min"], &odd["max"], &odd["mean"]),
        (&json!(0.0), &json!("inf"), &json!(1.0))
    );
    let large = &parts(Which::Large)[0];
    let sum: u64 = (0..1_000_000).map(|at| at % 251).sum();
    assert_eq!(large["mean"], json!(sum as f64 / 1e6));
    assert_eq!(large["zeros"], json!(1_000_000_u64.div_ceil(251)));
    let complex = parts(Which::Complex);
    assert_eq!(
        (&complex[0]["part"], &complex[1]["part"]),
        (&json!("re"), &json!("im"))
    );
    assert_eq!(
        (&complex[0]["mean"], &complex[1]["mean"]),
        (&json!(0.5), &json!(-1.0))
    );
    let records = parts(Which::Records);
    assert_eq!(
        (&records[0]["part"], &records[0]["count"]),
        (&json!("position"), &json!(4))
    );
    assert_eq!(
        (&records[1]["part"], &records[1]["max"]),
        (&json!("id"), &json!(7))
    );
    let halves = piped(&["stat", &live.place, &live.array(Which::Halves)]);
    halves.ends_with(2);
    assert!(halves.err.contains("opaque \"<f2\""), "{}", halves.err);
    live.leave();
}

pub fn set_takes_a_lease() {
    let mut live = Live::named("set");
    let array = |which: Which| live.array(which);
    let set = |which: Which, index: &str, value: &str| {
        piped(&["set", &live.place, &array(which), index, value])
    };
    let get = |which: Which, index: &str| {
        let got = runs::json(&["get", &live.place, &array(which), index]);
        got.ends_with(0).json()["data"].clone()
    };
    set(Which::Plain, "::2,1", "-2.25").ends_with(0);
    assert_eq!(get(Which::Plain, ":,1"), json!([-2.25, 4.5, -2.25, 10.5]));
    set(Which::Flags, "-1", "true").ends_with(0);
    assert_eq!(
        get(Which::Flags, ""),
        json!([false, false, false, true, true])
    );
    set(Which::Complex, "1", "3-4i").ends_with(0);
    assert_eq!(get(Which::Complex, "1"), json!([3.0, -4.0]));
    let changed = runs::json(&["set", &live.place, &array(Which::Fortran), ":", "-7"]);
    assert_eq!(changed.ends_with(0).json()["changed"], 6);
    assert_eq!(get(Which::Fortran, ""), json!([[-7, -7, -7], [-7, -7, -7]]));
    // An invalid value changes nothing.
    for (which, value) in [
        (Which::Fortran, "70000"),
        (Which::Fortran, "1.5"),
        (Which::Flags, "2"),
        (Which::Plain, "x"),
        (Which::Records, "1"),
        (Which::Halves, "1"),
    ] {
        set(which, "0", value).ends_with(2);
    }
    assert_eq!(get(Which::Fortran, "0,0"), json!(-7));
    // One array is leased for writing, the other for reading.
    for which in [Which::Leased, Which::Odd] {
        let busy = set(which, "1", "1");
        busy.ends_with(4);
        let told = format!("leased by process {}", live.pid());
        assert!(busy.err.contains(&told), "{}", busy.err);
    }
    assert_eq!(get(Which::Leased, "1"), json!(0));
    live.is_undisturbed();
    live.leave();
}

pub fn invalid_arguments_are_refused() {
    let live = Live::named("nonsense");
    let place = live.place.as_str();
    let plain = live.array(Which::Plain);
    let told = [
        (vec!["show"], 2, "Usage"),
        (vec!["fly"], 2, "unrecognized subcommand"),
        (vec!["show", "a/b"], 2, "contains a slash"),
        (vec!["show", "ndshm-test-none"], 3, "no segment named"),
        (vec!["gc", "ndshm-test-none"], 3, "ndshm ls lists"),
        (vec!["show", "4294967295:1"], 3, "no process 4294967295"),
        (vec!["get", place, "ndshm:0123456789abcdef"], 3, "is stale"),
        (vec!["get", place, "x"], 3, "nothing is called"),
        (
            vec!["get", place, &plain, "4"],
            2,
            "outside axis 0, which has 4",
        ),
        (vec!["get", place, &plain, "0,0,0"], 2, "for 3 axes"),
        (vec!["stat", place], 2, "Usage"),
    ];
    for (args, code, text) in told {
        let ran = piped(&args);
        ran.ends_with(code);
        assert!(ran.err.contains(text), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
    piped(&["--version"]).ends_with(0);
    live.leave();
}

pub fn a_closed_pipe_is_no_error() {
    let live = Live::named("unread");
    let large = live.array(Which::Large);
    for args in [
        vec!["show", &live.place],
        vec!["get", &live.place, &large, "--all"],
        vec!["get", &live.place, &large, "--json"],
        vec!["bench", "--seconds", "0.1"],
    ] {
        let ran = run_unread(&args);
        assert_eq!(ran.ends_with(0).err, "", "{args:?}");
    }
    live.leave();
}
