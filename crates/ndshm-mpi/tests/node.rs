//! Nodes: making them, arguments that ranks must agree on, and the end of a job.

mod support;

use std::path::Path;
use std::time::Duration;

use mpi::traits::*;
use ndshm::{HandleTable, Pool, Segment};
use ndshm_mpi::{Error, Job, Node, Result};

fn main() -> Result<()> {
    ndshm::become_worker();
    if let Some(case) = support::case() {
        return rank(&case);
    }
    support::main(&[
        (
            "ranks_share_their_nodes_segment",
            ranks_share_their_nodes_segment,
        ),
        ("a_panic_ends_the_job", a_panic_ends_the_job),
        (
            "an_error_of_main_ends_the_job",
            an_error_of_main_ends_the_job,
        ),
        (
            "unequal_arguments_are_named_once",
            unequal_arguments_are_named_once,
        ),
        ("a_missing_rank_is_named", a_missing_rank_is_named),
        (
            "a_rank_that_makes_no_node_is_named",
            a_rank_that_makes_no_node_is_named,
        ),
        ("more_nodes_than_tiles", more_nodes_than_tiles),
        ("forks_and_spawns", forks_and_spawns),
        ("a_rank_that_cannot_join", a_rank_that_cannot_join),
        ("a_rank_in_another_container", a_rank_in_another_container),
        ("a_rank_of_another_user", a_rank_of_another_user),
        ("a_launcher_of_another_mpi", a_launcher_of_another_mpi),
    ]);
    Ok(())
}

fn rank(case: &[String]) -> Result<()> {
    let number = |at: usize| case[at].parse::<usize>().unwrap();
    if case[0] == "fork" {
        return fork();
    }
    let job = ndshm_mpi::init()?;
    assert!(matches!(ndshm_mpi::init(), Err(Error::Initialized)));
    let me = job.world().rank();
    if case[0] == "stranger" && me == 1 {
        // A rank in another container has another network namespace.
        // SAFETY: the call changes only this thread's namespace.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    }
    if case[0] == "user" && me == number(2) as i32 {
        become_nobody();
    }
    let nodes = if case.len() > 1 { number(1) } else { 1 };
    if case[0] == "late" {
        job.set_patience(Duration::from_millis(500));
        if me == number(2) as i32 {
            std::thread::sleep(Duration::from_secs(30));
        }
    }
    let node = match case[0].as_str() {
        "mixed" if me == number(2) as i32 => Node::from_comm(&job.world())?,
        "shared" => Node::from_comm(&job.world())?,
        _ => Node::from_comm_by(&job.world(), support::color(&job, nodes))?,
    };
    match case[0].as_str() {
        "share" | "shared" | "user" => share(&node),
        "panic" if me == number(2) as i32 => panic!("as asked"),
        "error" if me == number(2) as i32 => Err(Error::Argument {
            call: "test".into(),
            problem: "as asked".into(),
        }),
        "exit" if me == number(2) as i32 => std::process::exit(3),
        "unequal" => {
            let rows = if me == number(2) as i32 { 9000 } else { 10_000 };
            node.rows::<f64, _>((rows, 3)).map(drop)
        }
        "absent" => {
            node.set_patience(Duration::from_millis(500));
            if me == number(2) as i32 {
                std::thread::sleep(Duration::from_secs(30));
            }
            node.barrier()
        }
        "tiles" => node.rows_in_tiles::<f64, _>(10, 8).map(drop),
        // The others wait for the one that fails.
        _ => node.barrier(),
    }
}

/// All ranks of a node write one array; each node has its own.
fn share(node: &Node) -> Result<()> {
    let x = node.rows_in_tiles::<u64, _>(64 * node.nodes(), 1)?;
    let tiles = node.partition(&x, x.write())?;
    for round in 1..=50 {
        node.for_each(&tiles, |mut x, tile| x[0] += tile.index() as u64 + round)?;
        let all = node.read(&x)?;
        let sums = round * (round + 1) / 2;
        for (row, &x) in x.range().zip(all.iter()) {
            assert_eq!(
                x,
                round * row as u64 + sums,
                "row {row} after round {round}"
            );
        }
    }
    println!(
        "node {} of {} with {}",
        node.index(),
        node.nodes(),
        node.ranks()
    );
    Ok(())
}

fn ranks_share_their_nodes_segment() {
    for (ranks, nodes, expected) in [
        (1, 1, vec!["0 of 1 with 1"]),
        (4, 1, vec!["0 of 1 with 4"]),
        (3, 2, vec!["0 of 2 with 2", "1 of 2 with 1"]),
        (
            5,
            3,
            vec!["0 of 3 with 2", "1 of 3 with 2", "2 of 3 with 1"],
        ),
    ] {
        let ran = support::run(ranks, &format!("share {nodes}")).succeeded();
        assert_eq!(ran.values("node"), expected);
    }
    let ran = support::run(2, "shared").succeeded();
    assert_eq!(ran.values("node"), ["0 of 1 with 2"]);
}

fn a_panic_ends_the_job() {
    for rank in [0, 1, 3] {
        let ran = support::run(4, &format!("panic 2 {rank}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count("as asked"), 1, "{ran:#?}");
        assert!(ran.took < Duration::from_secs(10), "{ran:#?}");
    }
}

fn an_error_of_main_ends_the_job() {
    for case in ["error 2 0", "error 2 3", "exit 2 1"] {
        let ran = support::run(4, case);
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert!(ran.took < Duration::from_secs(10), "{ran:#?}");
        let texts = usize::from(case.starts_with("error"));
        assert_eq!(ran.count("test: as asked"), texts, "{ran:#?}");
    }
}

fn unequal_arguments_are_named_once() {
    for rank in [1, 2, 3] {
        let ran = support::run(4, &format!("unequal 2 {rank}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(ran.count("all ranks make the same calls"), 1, "{ran:#?}");
        let named = format!("rank {rank} called rows::<f64> [9000, 3] 4032, and rank");
        // A leader that differs has a rank of its own node that differs from it.
        let named = match rank {
            2 => {
                "rank 3 called rows::<f64> [10000, 3] 4032, and rank 2 called rows::<f64> [9000, 3]"
            }
            _ => &named,
        };
        assert_eq!(ran.count(named), 1, "{ran:#?}");
    }
    // Leaders alone.
    let ran = support::run(2, "unequal 2 1");
    assert_eq!(
        ran.count("rank 1 called rows::<f64> [9000, 3] 4032, and rank 0"),
        1,
        "{ran:#?}"
    );
}

fn a_missing_rank_is_named() {
    for (ranks, nodes, rank) in [(4, 2, 1), (4, 2, 2), (3, 3, 2), (4, 1, 0)] {
        let ran = support::run(ranks, &format!("absent {nodes} {rank}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        let named = format!("no call from rank {rank} within");
        assert!(ran.count(&named) >= 1, "{ran:#?}");
        assert!(ran.took < Duration::from_secs(10), "{ran:#?}");
    }
}

fn a_rank_that_makes_no_node_is_named() {
    for (ranks, nodes, rank) in [(4, 2, 0), (4, 2, 3), (3, 1, 1)] {
        let ran = support::run(ranks, &format!("late {nodes} {rank}"));
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        let named = format!("Node::from_comm_by: no call from rank {rank} within");
        assert_eq!(ran.count(&named), 1, "{ran:#?}");
        assert_eq!(ran.count("no call from"), 1, "{ran:#?}");
        assert!(ran.took < Duration::from_secs(10), "{ran:#?}");
    }
    let ran = support::run(4, "mixed 2 1");
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    let named = "rank 1 called Node::from_comm, and rank 0 called Node::from_comm_by";
    assert_eq!(ran.count(named), 1, "{ran:#?}");
}

fn more_nodes_than_tiles() {
    let ran = support::run(4, "tiles 4");
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.count("run on at most 2 nodes"), 1, "{ran:#?}");
}

/// Returns `true` for root. Other users cannot start ranks of other containers and users.
fn is_root(left_out: &str) -> bool {
    // SAFETY: the call has no arguments.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        println!("left out: only root can {left_out}");
    }
    is_root
}

fn a_rank_that_cannot_join() {
    if !is_root("leave its network namespace") {
        return;
    }
    let ran = support::run(4, "stranger 2");
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(
        ran.count("run all ranks of a node in one container"),
        1,
        "{ran:#?}"
    );
    assert_eq!(ran.count("rank 1 on "), 1, "{ran:#?}");
    assert_eq!(ran.count("reports the error"), 0, "{ran:#?}");
    // The other remedy: a node for each rank.
    support::run(4, "stranger 4").succeeded();
}

/// Runs a command on 3 ranks. The shared memory of MPICH's library UCX demands one user and one pid
/// namespace.
fn run_by_tcp(command: &[&str], case: &str) -> support::Ran {
    let arguments = [&["UCX_TLS=tcp,self"], command].concat();
    support::run_program(3, Path::new("env"), &arguments, case)
}

/// Containers that have the network in common, as those of Apptainer.
fn a_rank_in_another_container() {
    if !is_root("leave its pid namespace") {
        return;
    }
    const WRAP_ONE: &str = "[ ${OMPI_COMM_WORLD_RANK:-$PMI_RANK} = 1 ] && exec $0 $1; exec $1";
    let program = std::env::current_exe().unwrap();
    for wrapper in ["unshare --mount --ipc", "unshare --pid --fork"] {
        let command = ["sh", "-c", WRAP_ONE, wrapper, program.to_str().unwrap()];
        let ran = run_by_tcp(&command, "shared").succeeded();
        assert_eq!(ran.values("node"), ["0 of 1 with 3"], "{wrapper}");
    }
}

/// Gives this process another user. It is a rank already: Open MPI refuses a new one of another user
/// in `MPI_Init`.
fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: the call has no memory of this process as an argument.
    assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) }, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
}

/// The first rank of a node, which has the segment, and another.
fn a_rank_of_another_user() {
    if !is_root("have ranks of several users") {
        return;
    }
    let program = std::env::current_exe().unwrap();
    for rank in [0, 1] {
        let case = format!("user 1 {rank}");
        let ran = run_by_tcp(&[program.to_str().unwrap()], &case).succeeded();
        assert_eq!(ran.values("node"), ["0 of 1 with 3"], "rank {rank}");
    }
}

/// Such a launcher starts each rank as a job of its own.
fn a_launcher_of_another_mpi() {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let foreign = match support::is_open_mpi() {
        true => ["PMI_SIZE", "PMI_RANK"],
        false => ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"],
    };
    for [size, number] in [foreign, ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID"]] {
        let start = |rank: &str, arguments: &[&str]| {
            let places = [(size, "3"), (number, rank)];
            support::run_alone(&places, arguments, "share 1")
        };
        let ran = start("0", &[program]);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        let named = format!("its launcher started it 3 times ({size})");
        assert_eq!(ran.count(&named), 1, "{ran:#?}");
        let ran = start("1", &[program]);
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert_eq!((ran.out.len(), ran.err.len()), (0, 0), "{ran:#?}");
        // The remedy for separate jobs.
        start("1", &["env", "-u", size, program]).succeeded();
    }
}

/// `Pool::fork` before `init` serves on, after it is refused; spawned workers are no ranks.
fn fork() -> Result<()> {
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let x = table.from_elem(1000, 1.0f64)?;
    let mut pool = Pool::fork(&table, 2).map_err(ndshm::Error::from)?;
    let job: Job = ndshm_mpi::init()?;
    assert_eq!(pool.sum(x)?, 1000.0);
    drop(pool);
    let refused = Pool::fork(&table, 2).unwrap_err().to_string();
    println!("refused {refused}");
    for (name, _) in std::env::vars() {
        let of_launcher = ["PMIX_", "PMI_", "OMPI_COMM", "OMPI_MCA"];
        assert!(
            !of_launcher.iter().any(|prefix| name.starts_with(prefix)),
            "{name}"
        );
    }
    let mut spawned = Pool::spawn(&table, 2).map_err(ndshm::Error::from)?;
    println!("sum {}", spawned.sum(x)?);
    drop(spawned);
    let mut sum = 0;
    let one = mpi::collective::SystemOperation::sum();
    job.world().all_reduce_into(&1, &mut sum, one);
    println!("ranks {sum}");
    Ok(())
}

fn forks_and_spawns() {
    let ran = support::run(2, "fork").succeeded();
    assert_eq!(ran.values("sum"), ["1000"]);
    assert_eq!(ran.values("ranks"), ["2"]);
    let refused = ran.values("refused");
    assert!(
        refused
            .iter()
            .all(|text| text.contains("cannot fork workers")),
        "{refused:?}"
    );
}
