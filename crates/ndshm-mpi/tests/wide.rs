//! The example with wide rows: the truth is found, with the same bits on any number of nodes, also
//! after a restart on another number.

mod support;

fn main() {
    support::main(&[
        ("the_truth_is_found", the_truth_is_found),
        (
            "impossible_options_are_named_once",
            impossible_options_are_named_once,
        ),
        (
            "a_restart_has_the_same_digest",
            a_restart_has_the_same_digest,
        ),
    ]);
}

fn run(ranks: usize, nodes: usize, arguments: &[&str]) -> support::Ran {
    let nodes = nodes.to_string();
    let arguments = [&["--nodes", &nodes][..], arguments].concat();
    support::run_program(ranks, &support::example("wide"), &arguments, "").succeeded()
}

fn number(ran: &support::Ran, name: &str) -> f64 {
    ran.values(name)[0].parse().unwrap()
}

fn the_truth_is_found() {
    let mut digest = None;
    for (ranks, nodes) in [(1, 1), (2, 2), (3, 1), (4, 4), (5, 2)] {
        let ran = run(ranks, nodes, &[]);
        let (error, noise) = (
            number(&ran, "error of the mean height"),
            number(&ran, "error of an observation"),
        );
        assert!(error < noise, "{ran:#?}");
        let found = ran.values("digest");
        assert_eq!(digest.get_or_insert(found.clone()), &found, "{ran:#?}");
    }
    // A single member is never replaced, so the observations do not reach it.
    let ran = run(2, 1, &["--members", "1"]);
    let (error, noise) = (
        number(&ran, "error of the mean height"),
        number(&ran, "error of an observation"),
    );
    assert!(error > noise, "{ran:#?}");
}

fn a_restart_has_the_same_digest() {
    let directory = std::env::temp_dir().join(format!("ndshm-mpi-wide-{}", std::process::id()));
    let path = directory.to_str().unwrap();
    let whole = run(2, 1, &["--steps", "25"]).values("digest");
    run(4, 4, &["--steps", "20", "--checkpoint", path]);
    let resumed = run(2, 2, &["--steps", "25", "--checkpoint", path]);
    // The checkpoint of step 20 is beyond the end.
    let past = ["--steps", "5", "--checkpoint", path];
    let past = support::run_program(2, &support::example("wide"), &past, "");
    assert_ne!(past.code, Some(0), "{past:#?}");
    assert_eq!(
        past.count("the checkpoint is after step 20"),
        1,
        "{past:#?}"
    );
    let _ = std::fs::remove_dir_all(&directory);
    assert_eq!(resumed.values("steps"), ["20 to 25"]);
    assert_eq!(resumed.values("digest"), whole);
}

fn impossible_options_are_named_once() {
    for program in ["wide", "nile"] {
        let ran = support::run_program(3, &support::example(program), &["--nodes", "4"], "");
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count("--nodes 4 on 3 ranks"), 1, "{ran:#?}");
    }
}
