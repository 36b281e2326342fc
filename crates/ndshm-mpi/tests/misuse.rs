//! Calls that ranks make at odd times, in odd places, or with the values of others: each ends, with
//! an error that names the remedy.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::time::Duration;

use mpi::topology::Color;
use mpi::traits::*;
use ndshm_mpi::{Error, Job, Node, Result};

/// Every case ends by itself, and no patience is needed.
const SOON: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    if let Some(case) = support::case() {
        return rank(&case[0]);
    }
    support::main(&[
        ("nodes_need_a_job", nodes_need_a_job),
        ("only_main_has_mpi", only_main_has_mpi),
        (
            "nodes_are_dropped_in_any_order",
            nodes_are_dropped_in_any_order,
        ),
        (
            "colours_are_nodes_of_their_own",
            colours_are_nodes_of_their_own,
        ),
        ("machines_are_never_one_node", machines_are_never_one_node),
        (
            "a_negative_colour_ends_the_call",
            a_negative_colour_ends_the_call,
        ),
        (
            "kernels_make_no_collective_calls",
            kernels_make_no_collective_calls,
        ),
        (
            "ranks_out_of_step_get_no_answers",
            ranks_out_of_step_get_no_answers,
        ),
        ("a_caught_panic_ends_the_job", a_caught_panic_ends_the_job),
        ("patience_without_end", patience_without_end),
        ("values_of_another_node", values_of_another_node),
        ("impossible_shapes", impossible_shapes),
        ("more_ranks_than_tiles", more_ranks_than_tiles),
    ]);
    Ok(())
}

fn rank(case: &str) -> Result<()> {
    match case {
        "universe" => {
            let universe = mpi::initialize().expect("MPI is not initialised");
            let refused = Node::from_comm(&universe.world()).unwrap_err();
            println!("refused {refused}");
            return Ok(());
        }
        "thread" => {
            let refused = std::thread::spawn(|| ndshm_mpi::init().unwrap_err().to_string());
            println!("refused {}", refused.join().unwrap());
            return Ok(());
        }
        // SAFETY: no other thread runs, and MPI reads its variables later.
        "machines" => unsafe { std::env::set_var("MPIR_CVAR_ODD_EVEN_CLIQUES", "1") },
        _ => {}
    }
    let job = ndshm_mpi::init()?;
    let me = job.world().rank();
    match case {
        "drops" => drops(&job),
        "colours" => colours(&job),
        "machines" => machines(&job),
        "negative" => {
            let refused = Node::from_comm_by(&job.world(), if me == 1 { -1 } else { 0 });
            println!("refused {me} {}", refused.unwrap_err());
            Ok(())
        }
        "endless" => {
            job.set_patience(Duration::MAX);
            few_tiles(&Node::from_comm_by(&job.world(), support::color(&job, 3))?)
        }
        "others" => others(&job),
        _ => {
            let nodes = if case.ends_with("-apart") { 2 } else { 1 };
            let node = Node::from_comm_by(&job.world(), support::color(&job, nodes))?;
            match case {
                "exit" => {
                    if me == 1 {
                        std::thread::spawn(|| exit(0));
                        std::thread::sleep(Duration::from_secs(30));
                    }
                    // The others wait for that rank.
                    node.barrier()
                }
                "nested" => nested(&node),
                "late" | "late-apart" => late(&node, me),
                "caught-0" => caught(&node, me == 0),
                "caught-1" => caught(&node, me == 1),
                "shapes" => shapes(&node),
                _ => few_tiles(&node),
            }
        }
    }
}

fn nodes_need_a_job() {
    let refused = support::run(2, "universe").succeeded().values("refused");
    assert!(
        refused[0].contains("call ndshm_mpi::init() first"),
        "{refused:?}"
    );
}

fn only_main_has_mpi() {
    let refused = support::run(1, "thread").succeeded().values("refused");
    assert!(
        refused[0].contains("call ndshm_mpi::init() in it"),
        "{refused:?}"
    );
    let ran = support::run(3, "exit");
    assert_ne!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.count("return from main instead"), 1, "{ran:#?}");
    assert!(ran.took < SOON, "{ran:#?}");
}

/// Ranks drop nodes in different orders, and one alone asks for the communicator.
fn drops(job: &Job) -> Result<()> {
    let me = job.world().rank();
    let a = Node::from_comm(&job.world())?;
    let b = Node::from_comm_by(&job.world(), me % 2)?;
    if me == 1 {
        println!("ranks {}", a.comm().size());
    }
    match me {
        0 => drop((a, b)),
        1 => drop((b, a)),
        _ => drop(b),
    }
    let c = Node::from_comm(&job.world())?;
    c.barrier()
}

fn nodes_are_dropped_in_any_order() {
    let ran = support::run(3, "drops").succeeded();
    assert_eq!(ran.values("ranks"), ["3"]);
}

/// A node of each colour, made of communicators of their own, beside a node of all ranks.
fn colours(job: &Job) -> Result<()> {
    let world = job.world();
    let color = world.rank() % 2;
    let ranks = world.split_by_color(Color::with_value(color));
    let ranks = ranks.expect("every rank has a colour");
    let node = Node::from_comm(&ranks)?;
    let all = Node::from_comm(&world)?;
    let x = node.rows::<f64, _>(1000)?;
    let y = all.rows::<f64, _>(1000)?;
    let tiles = node.partition(&x, x.write())?;
    node.for_each(&tiles, |mut x, _| x.fill(1.0 + f64::from(color)))?;
    println!("sum {}", node.sum(&x)? + all.sum(&y)?);
    // One colour makes more calls than the other.
    for _ in 0..color {
        node.barrier()?;
    }
    all.barrier()
}

fn colours_are_nodes_of_their_own() {
    let ran = support::run(4, "colours").succeeded();
    assert_eq!(ran.values("sum"), ["1000", "2000"]);
}

/// Ranks of two machines, which alternate.
fn machines(job: &Job) -> Result<()> {
    let world = job.world();
    for node in [Node::from_comm(&world)?, Node::from_comm_by(&world, 0)?] {
        println!("node {} of {}", node.index(), node.nodes());
        assert_eq!(node.index() as i32, world.rank() % 2);
        few_tiles(&node)?;
    }
    Ok(())
}

fn machines_are_never_one_node() {
    if support::is_open_mpi() {
        println!("left out: only MPICH can treat the ranks of one machine as those of two");
        return;
    }
    let ran = support::run(4, "machines").succeeded();
    assert_eq!(ran.values("node"), ["0 of 2", "1 of 2"]);
}

fn a_negative_colour_ends_the_call() {
    let ran = support::run(4, "negative").succeeded();
    let refused = ran.values("refused");
    assert_eq!(refused.len(), 4, "{refused:?}");
    assert!(
        refused[1].contains("the colour -1 is negative"),
        "{refused:?}"
    );
    assert_eq!(ran.count("rank 1 reports the error"), 3, "{ran:#?}");
    assert!(ran.took < SOON, "{ran:#?}");
}

fn nested(node: &Node) -> Result<()> {
    let x = node.rows_in_tiles::<f64, _>(64, 1)?;
    let tiles = node.partition(&x, x.write())?;
    let mut refused = None;
    node.for_each(&tiles, |mut x, _| {
        refused = node.barrier().err();
        x.fill(1.0);
    })?;
    if let Some(refused) = refused {
        println!("refused {refused}");
    }
    println!("sum {}", node.sum(&x)?);
    Ok(())
}

fn kernels_make_no_collective_calls() {
    let ran = support::run(2, "nested").succeeded();
    let refused = ran.values("refused");
    assert!(
        !refused.is_empty() && refused[0].contains("make no collective calls in a kernel"),
        "{refused:?}"
    );
    assert_eq!(ran.values("sum"), ["64"]);
}

/// The last rank goes on after a call in which it missed the others.
fn late(node: &Node, me: i32) -> Result<()> {
    if me == 0 {
        std::thread::sleep(Duration::from_secs(2));
        return node.barrier();
    }
    node.set_patience(Duration::from_millis(100));
    println!("first {}", node.barrier().unwrap_err());
    std::thread::sleep(Duration::from_secs(3));
    // The answer of the first call is there by now.
    match node.barrier() {
        Ok(()) => println!("second passed alone"),
        Err(error) => println!("second {error}"),
    }
    Ok(())
}

fn ranks_out_of_step_get_no_answers() {
    for case in ["late", "late-apart"] {
        let ran = support::run(2, case).succeeded();
        let [first, second] = ["first", "second"].map(|name| ran.values(name).concat());
        assert!(first.contains("no call from rank 0"), "{ran:#?}");
        assert!(second.contains("the ranks are out of step"), "{ran:#?}");
    }
}

/// A rank catches the panic of its kernel, and goes on.
fn caught(node: &Node, mine: bool) -> Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    let x = node.rows_in_tiles::<f64, _>(64, 1)?;
    let tiles = node.partition(&x, x.write())?;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        node.for_each(&tiles, |_, _| {
            assert!(!mine, "as asked");
            std::thread::sleep(Duration::from_millis(5));
        })
    }));
    if let Err(_panic) = ran {
        println!("caught {}", node.barrier().unwrap_err());
    }
    node.sum(&x).map(drop)
}

fn a_caught_panic_ends_the_job() {
    for case in ["caught-0", "caught-1"] {
        let ran = support::run(3, case);
        assert_ne!(ran.code, Some(0), "{ran:#?}");
        let caught = ran.values("caught").concat();
        assert!(caught.contains("the ranks are out of step"), "{ran:#?}");
        assert!(ran.took < SOON, "{ran:#?}");
    }
}

fn patience_without_end() {
    support::run(4, "endless").succeeded();
}

fn others(job: &Job) -> Result<()> {
    let a = Node::from_comm_by(&job.world(), support::color(job, 2))?;
    let b = Node::from_comm(&job.world())?;
    let (x, y) = (
        a.rows_in_tiles::<f64, _>(64, 1)?,
        b.rows_in_tiles::<f64, _>(64, 1)?,
    );
    let tiles = a.partition(&x, x.write())?;
    for refused in [
        b.read(&x).map(drop),
        b.write(&x).map(drop),
        b.free(x),
        b.partition(&x, y.write()).map(drop),
        b.for_each(&tiles, |_, _| {}),
        b.sum(&x).map(drop),
        b.prefix_sum(&x).map(drop),
        b.gather(&x).map(drop),
        b.gather_everywhere(&x).map(drop),
        b.resample_systematic(&y, 0.5, &y, &x),
        b.checkpoint("nowhere", 0, &[("x", &x)]),
        b.restore("nowhere", &[("x", &x)]).map(drop),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("use the Node that made it"), "{refused}");
    }
    a.barrier()?;
    b.barrier()
}

fn values_of_another_node() {
    support::run(4, "others").succeeded();
}

fn shapes(node: &Node) -> Result<()> {
    let print = |name: &str, refused: Error| match refused {
        Error::Elsewhere { .. } => {}
        error => println!("{name} {error}"),
    };
    print("none", node.rows::<f64, _>(0).unwrap_err());
    print("axes", node.rows::<f64, _>(()).unwrap_err());
    print(
        "wide",
        node.rows_in_tiles::<f64, _>((10, usize::MAX, 2), 1)
            .unwrap_err(),
    );
    print("tile", node.rows_in_tiles::<f64, _>(10, 0).unwrap_err());
    let empty = node.rows::<f64, _>((10, 0))?;
    assert_eq!((empty.width(), node.sum(&empty)?), (0, 0.0));
    node.barrier()
}

fn impossible_shapes() {
    let ran = support::run(2, "shapes").succeeded();
    assert!(
        ran.values("none").concat().contains("at least 1 row"),
        "{ran:#?}"
    );
    assert!(
        ran.values("tile").concat().contains("at least 1 row"),
        "{ran:#?}"
    );
    assert!(
        ran.values("axes").concat().contains("at least one axis"),
        "{ran:#?}"
    );
    assert_eq!(ran.values("wide").len(), 1, "{ran:#?}");
}

/// Most ranks find no tile, and partitions are dropped right after their round.
fn few_tiles(node: &Node) -> Result<()> {
    let x = node.rows_in_tiles::<u64, _>(node.nodes(), 1)?;
    for round in 1..=200 {
        node.for_each(&node.partition(&x, x.write())?, |mut x, _| x[0] += 1)?;
        assert!(node.read(&x)?.iter().all(|&x| x == round));
    }
    Ok(())
}

fn more_ranks_than_tiles() {
    support::run(4, "few").succeeded();
}
