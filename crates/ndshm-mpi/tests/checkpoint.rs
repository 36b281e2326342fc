//! Checkpoints that cannot be written, are killed while they are written, or are damaged.

mod support;

use std::path::{Path, PathBuf};

use ndshm_mpi::{Error, Node, Result, Rows};

const ROWS: usize = 20_000;

fn main() -> Result<()> {
    if let Some(case) = support::case() {
        return rank(&case);
    }
    support::main(&[
        (
            "a_full_disk_leaves_the_last_checkpoint_and_the_job",
            a_full_disk_leaves_the_last_checkpoint_and_the_job,
        ),
        (
            "a_kill_during_the_writing_leaves_the_last_checkpoint",
            a_kill_during_the_writing_leaves_the_last_checkpoint,
        ),
        ("damage_is_named_once", damage_is_named_once),
        ("names_are_checked", names_are_checked),
    ]);
    Ok(())
}

fn rank(case: &[String]) -> Result<()> {
    let job = ndshm_mpi::init()?;
    let node = Node::from_comm_by(&job.world(), support::color(&job, case[1].parse().unwrap()))?;
    let x = node.rows::<f64, _>(ROWS)?;
    let directory = PathBuf::from(&case[2]);
    match case[0].as_str() {
        "full" => full(&node, &x, &directory),
        "killed" => {
            save(&node, &x, &directory, 4, 4.0)?;
            // The signal of a file that is too long ends the process.
            if node.index() == 1 {
                limit_files(1 << 14);
            }
            save(&node, &x, &directory, 4, 5.0)
        }
        "load" => {
            let step = node.restore(&directory, &[("x", &x)])?;
            println!("step {step:?} of {:?}", node.min_max(&x)?);
            Ok(())
        }
        "names" => {
            let twice = node.checkpoint(&directory, 1, &[("x", &x), ("x", &x)]);
            outcome("twice", twice);
            outcome("slash", node.checkpoint(&directory, 1, &[("../x", &x)]));
            save(&node, &x, &directory, 1, 1.0)
        }
        other => panic!("no case {other}"),
    }
}

fn save(node: &Node, x: &Rows<f64, ndarray::Ix1>, to: &Path, step: u64, with: f64) -> Result<()> {
    let tiles = node.partition(x, x.write())?;
    node.for_each(&tiles, |mut x, _| x.fill(with))?;
    node.checkpoint(to, step, &[("x", x)])
}

/// Limits the files that this process writes.
fn limit_files(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the call reads the limit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
}

fn outcome(name: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => println!("{name} ok"),
        Err(Error::Elsewhere { .. }) => println!("{name} elsewhere"),
        Err(error) => println!("{name} cause {error}"),
    }
}

/// The second node has no room for its file, and room again later.
fn full(node: &Node, x: &Rows<f64, ndarray::Ix1>, directory: &Path) -> Result<()> {
    save(node, x, directory, 4, 4.0)?;
    // SAFETY: the call has no memory of this process as an argument.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if node.index() == 1 {
        limit_files(1 << 14);
    }
    outcome("other", save(node, x, directory, 5, 5.0));
    outcome("same", save(node, x, directory, 4, 6.0));
    limit_files(libc::RLIM_INFINITY);
    let step = node.restore(directory, &[("x", x)])?;
    println!("then {step:?} of {:?}", node.min_max(x)?);
    save(node, x, directory, 4, 7.0)?;
    let step = node.restore(directory, &[("x", x)])?;
    println!("at last {step:?} of {:?}", node.min_max(x)?);
    Ok(())
}

/// A directory that is removed at the end of a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("ndshm-mpi-checkpoint-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn run(&self, ranks: usize, case: &str, nodes: usize) -> support::Ran {
        support::run(ranks, &format!("{case} {nodes} {}", self.0.display()))
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn a_full_disk_leaves_the_last_checkpoint_and_the_job() {
    let scratch = Scratch::new("full");
    let ran = scratch.run(4, "full", 2).succeeded();
    for name in ["other", "same"] {
        let count = |what: &str| ran.count(&format!("{name} {what}"));
        assert_eq!(
            [count("cause"), count("elsewhere"), count("ok")],
            [1, 3, 0],
            "{ran:#?}"
        );
    }
    assert_eq!(ran.count("File too large"), 2, "{ran:#?}");
    assert_eq!(ran.values("then"), ["Some(4) of [4.0, 4.0]"]);
    assert_eq!(ran.values("at last"), ["Some(4) of [7.0, 7.0]"]);
    // Files of a checkpoint that failed do no harm.
    let ran = scratch.run(1, "load", 1).succeeded();
    assert_eq!(ran.values("step"), ["Some(4) of [7.0, 7.0]"]);
}

fn a_kill_during_the_writing_leaves_the_last_checkpoint() {
    let scratch = Scratch::new("killed");
    let ran = scratch.run(2, "killed", 2);
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    let ran = scratch.run(1, "load", 1).succeeded();
    assert_eq!(ran.values("step"), ["Some(4) of [4.0, 4.0]"]);
    assert!(scratch.names().contains(&"step-0000000004-1".into()));
}

fn damage_is_named_once() {
    let scratch = Scratch::new("damaged");
    scratch.run(2, "names", 2).succeeded();
    let file = scratch.0.join("step-0000000001/x-00001-of-00002.npy");
    let last = scratch.0.join("step.json");
    let (bytes, text) = (
        std::fs::read(&file).unwrap(),
        std::fs::read_to_string(&last).unwrap(),
    );
    let refused = |ranks: usize, nodes: usize, problem: &str| {
        let ran = scratch.run(ranks, "load", nodes);
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count(problem), 1, "{problem}: {ran:#?}");
        assert_eq!(ran.count("step Some"), 0, "{ran:#?}");
    };
    let mut wrong = bytes.clone();
    let at = wrong.len() - 77;
    wrong[at] ^= 1;
    std::fs::write(&file, wrong).unwrap();
    refused(1, 1, "it is damaged");
    // One rank of five is on the node that reads the file.
    refused(5, 2, "it is damaged");
    std::fs::write(&file, &bytes[..100]).unwrap();
    refused(2, 2, "100 bytes are not a .npy file with");
    std::fs::remove_file(&file).unwrap();
    refused(
        4,
        4,
        "cannot be read, and all nodes must see the files of all nodes",
    );
    std::fs::write(&file, bytes).unwrap();
    for (from, to, problem) in [
        (
            "\"f64\"",
            "\"f32\"",
            "pass an array of the same type and shape",
        ),
        (
            "\"tile\": 4032",
            "\"tile\": 0",
            "its tile of 0 rows and 2 digests",
        ),
        ("\"nodes\": 2", "\"nodes\": 99999", "do not fit 99999 nodes"),
        ("\"step\"", "\"stop\"", "it has no number \"step\""),
        ("{", "", "it is not a JSON text"),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&last, text.replacen(from, to, 1)).unwrap();
        refused(4, 2, problem);
    }
    std::fs::write(&last, text).unwrap();
    let ran = scratch.run(3, "load", 2).succeeded();
    assert_eq!(ran.values("step"), ["Some(1) of [1.0, 1.0]"]);
}

fn names_are_checked() {
    let scratch = Scratch::new("names");
    let ran = scratch.run(3, "names", 2).succeeded();
    for name in ["twice", "slash"] {
        assert_eq!(ran.count(&format!("{name} cause")), 1, "{ran:#?}");
        assert_eq!(ran.count(&format!("{name} elsewhere")), 2, "{ran:#?}");
    }
    assert_eq!(ran.count("pass different names"), 2, "{ran:#?}");
    assert_eq!(scratch.names(), ["step-0000000001", "step.json"]);
}
