//! Deaths and panics in every phase, and checkpoints that other numbers of nodes take up.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mpi::traits::*;
use ndshm_mpi::{Job, Node, Result, Rows};

const ROWS: usize = 20_000;

fn main() -> Result<()> {
    if let Some(case) = support::case() {
        return rank(&case);
    }
    support::main(&[
        (
            "a_death_in_any_phase_ends_the_job",
            a_death_in_any_phase_ends_the_job,
        ),
        (
            "a_panic_in_any_phase_ends_the_job",
            a_panic_in_any_phase_ends_the_job,
        ),
        (
            "an_exit_in_any_phase_ends_the_job",
            an_exit_in_any_phase_ends_the_job,
        ),
        (
            "other_nodes_take_up_a_checkpoint",
            other_nodes_take_up_a_checkpoint,
        ),
        (
            "a_wrong_checkpoint_is_named_once",
            a_wrong_checkpoint_is_named_once,
        ),
    ]);
    Ok(())
}

/// Where a rank ends.
const PHASES: [&str; 7] = [
    "start",
    "lease",
    "round",
    "sum",
    "resample",
    "checkpoint",
    "barrier",
];

fn rank(case: &[String]) -> Result<()> {
    let job = ndshm_mpi::init()?;
    match case[0].as_str() {
        "kill" | "panic" | "exit" => end_in(&job, case),
        _ => {
            let nodes = case[1].parse().unwrap();
            let node = Node::from_comm_by(&job.world(), support::color(&job, nodes))?;
            steps(&node, &PathBuf::from(&case[2]), case[3].parse().unwrap())
        }
    }
}

/// Runs steps for ever; the rank that is asked to ends in its phase.
fn end_in(job: &Job, case: &[String]) -> Result<()> {
    let nodes: usize = case[1].parse().unwrap();
    let me = job.world().rank() as usize;
    let mine = me == case[2].parse::<usize>().unwrap();
    let end = |phase: &str| {
        if mine && phase == case[3] {
            match case[0].as_str() {
                "panic" => panic!("as asked"),
                "exit" => std::process::exit(3),
                _ => {
                    let me = std::process::id() as i32;
                    // SAFETY: the call has no memory of this process as an argument.
                    unsafe { libc::kill(me, libc::SIGKILL) };
                }
            }
        }
    };
    end("start");
    let node = Node::from_comm_by(&job.world(), support::color(job, nodes))?;
    let (mut x, mut next) = (
        node.rows::<f64, _>((ROWS, 9))?,
        node.rows::<f64, _>((ROWS, 9))?,
    );
    let w = node.rows::<f64, _>(ROWS)?;
    let start = Instant::now();
    for step in 0.. {
        if step == 2 {
            let guard = node.write(&x);
            end("lease");
            drop(guard);
        }
        let tiles = node.partition(&x, (x.write(), w.write()))?;
        node.for_each(&tiles, |(mut x, mut w), tile| {
            w.fill(1.0 + tile.index() as f64);
            x.fill(step as f64);
            if step >= 3 {
                end("round");
                // The other ranks get a tile too.
                std::thread::sleep(Duration::from_millis(1));
            }
        })?;
        if step == 5 {
            end("sum");
        }
        node.sum(&x)?;
        if step == 6 {
            end("resample");
        }
        node.resample_systematic(&w, 0.5, &x, &next)?;
        if step == 7 {
            end("checkpoint");
        }
        if step % 4 == 3 {
            node.checkpoint(&case[4], step, &[("x", &x)])?;
        }
        if step == 8 {
            end("barrier");
        }
        node.barrier()?;
        std::mem::swap(&mut x, &mut next);
        assert!(start.elapsed() < Duration::from_secs(30), "nobody ended");
    }
    Ok(())
}

/// A directory that is removed at the end of a test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("ndshm-mpi-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Lets ranks end in each phase: those that `ranks` gives for the number of the phase.
fn ends(how: &str, ranks: impl Fn(usize) -> Vec<usize>) {
    let scratch = Scratch::new(how);
    for (at, phase) in PHASES.iter().enumerate() {
        for rank in ranks(at) {
            let directory = scratch.0.display();
            let case = format!("{how} 2 {rank} {phase} {directory}");
            let (ran, left) = support::run_and_look(4, &case);
            assert!(left.is_empty(), "{left:?} after {ran:#?}");
            assert_ne!(ran.code, Some(0), "{ran:#?}");
            assert!(
                ran.took < Duration::from_secs(10),
                "{phase} of rank {rank}: {ran:#?}"
            );
            assert_eq!(ran.count("nobody ended"), 0, "{ran:#?}");
            if how == "panic" {
                assert_eq!(ran.count("as asked"), 1, "{ran:#?}");
            }
        }
    }
}

fn a_death_in_any_phase_ends_the_job() {
    ends("kill", |_| (0..4).collect());
}

fn a_panic_in_any_phase_ends_the_job() {
    // Leaders and others, of the first and of the second node.
    ends("panic", |phase| vec![phase % 4]);
}

fn an_exit_in_any_phase_ends_the_job() {
    // As of an error that main returns.
    ends("exit", |phase| vec![(phase + 1) % 4]);
}

/// Runs up to step `last`, from the checkpoint if there is one.
fn steps(node: &Node, directory: &std::path::Path, last: u64) -> Result<()> {
    let (mut x, mut next) = (
        node.rows::<f64, _>((ROWS, 9))?,
        node.rows::<f64, _>((ROWS, 9))?,
    );
    let w = node.rows::<f64, _>(ROWS)?;
    let first = match node.restore(directory, &[("x", &x), ("w", &w)])? {
        Some(step) => step + 1,
        None => 0,
    };
    for step in first..=last {
        let tiles = node.partition(&x, (x.write(), w.write()))?;
        node.for_each(&tiles, |(mut x, mut w), tile| {
            use ndshm::rand_core::Rng;
            let mut rng = tile.rng(1, step);
            let mut uniform = || rng.next_u64() as f64 / u64::MAX as f64;
            w.map_inplace(|w| *w = uniform());
            x.map_inplace(|x| *x += uniform());
        })?;
        node.resample_systematic(&w, 0.5, &x, &next)?;
        std::mem::swap(&mut x, &mut next);
    }
    node.checkpoint(directory, last, &[("x", &x), ("w", &w)])?;
    let digest = |x: &Rows<f64, ndarray::Ix2>| -> Result<Option<u64>> {
        let hash = |hash: u64, x: &f64| (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
        Ok(node.gather(x)?.map(|all| all.iter().fold(0, hash)))
    };
    if let Some(digest) = digest(&x)? {
        println!("digest {digest:016x}");
        println!("from {first}");
    }
    Ok(())
}

fn other_nodes_take_up_a_checkpoint() {
    let run = |ranks: usize, nodes: usize, scratch: &Scratch, last: u64| {
        let directory = scratch.0.display();
        support::run(ranks, &format!("steps {nodes} {directory} {last}")).succeeded()
    };
    let whole = Scratch::new("whole");
    let expected = run(1, 1, &whole, 5).values("digest");
    for (ranks, nodes) in [(4, 2), (2, 1), (4, 4)] {
        let scratch = Scratch::new("taken-up");
        run(4, 4, &scratch, 2);
        let ran = run(ranks, nodes, &scratch, 5);
        assert_eq!(ran.values("from"), ["3"]);
        assert_eq!(
            ran.values("digest"),
            expected,
            "{ranks} ranks on {nodes} nodes"
        );
        let names = std::fs::read_dir(&scratch.0).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["step-0000000005", "step.json"]);
    }
}

fn a_wrong_checkpoint_is_named_once() {
    let scratch = Scratch::new("wrong");
    let directory = scratch.0.display();
    support::run(2, &format!("steps 2 {directory} 0")).succeeded();
    let cut = scratch.0.join("step-0000000000/x-00001-of-00002.npy");
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 8]).unwrap();
    let ran = support::run(2, &format!("steps 1 {directory} 1"));
    assert_eq!(ran.count("are not a .npy file with"), 1, "{ran:#?}");
    let last = scratch.0.join("step.json");
    let text = std::fs::read_to_string(&last).unwrap();
    std::fs::write(&last, text.replace("20000", "20001")).unwrap();
    let ran = support::run(4, &format!("steps 2 {directory} 1"));
    assert_eq!(
        ran.count("pass an array of the same type and shape"),
        1,
        "{ran:#?}"
    );
    std::fs::write(&last, "{}").unwrap();
    let ran = support::run(2, &format!("steps 2 {directory} 1"));
    assert_eq!(ran.count("it is not of ndshm-mpi"), 1, "{ran:#?}");
}
