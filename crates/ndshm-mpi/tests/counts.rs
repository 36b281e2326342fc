//! The messages that `examples/cost` counts are those that a job sends.
//!
//! This program defines `MPI_Send`, `MPI_Isend` and `MPI_Allgatherv` by MPI's profiling interface,
//! so every message of a rank passes here.

#[path = "../examples/cost/count.rs"]
mod count;
mod support;

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use mpi::ffi::{MPI_Comm, MPI_Datatype, MPI_Request};
use ndshm::primitives::SystematicPlan;
use ndshm_mpi::{Layout, Node, Result};

use count::Message;

fn main() {
    match support::case() {
        Some(case) => sent(&case).unwrap_or_else(|error| panic!("{error}")),
        None => support::main(&[
            ("counted_messages_are_sent", counted_messages_are_sent),
            ("the_table_has_efficiencies", the_table_has_efficiencies),
        ]),
    }
}

/// Destination and bytes of each message; a gathering has no destination.
type Sent = Vec<(Option<c_int>, usize)>;

thread_local! {
    static SENT: RefCell<Sent> = const { RefCell::new(Vec::new()) };
}

fn note(to: Option<c_int>, count: c_int, kind: MPI_Datatype) {
    let mut size = 0;
    // SAFETY: the caller passes the datatype of a message.
    unsafe { mpi::ffi::MPI_Type_size(kind, &mut size) };
    SENT.with_borrow_mut(|sent| sent.push((to, count as usize * size as usize)));
}

#[rustfmt::skip]
unsafe extern "C" {
    fn PMPI_Send(from: *const c_void, count: c_int, kind: MPI_Datatype, to: c_int, tag: c_int, comm: MPI_Comm) -> c_int;
    fn PMPI_Isend(from: *const c_void, count: c_int, kind: MPI_Datatype, to: c_int, tag: c_int, comm: MPI_Comm, request: *mut MPI_Request) -> c_int;
    fn PMPI_Allgatherv(from: *const c_void, count: c_int, kind: MPI_Datatype, to: *mut c_void, counts: *const c_int, places: *const c_int, of: MPI_Datatype, comm: MPI_Comm) -> c_int;
}

/// # Safety
/// See MPI.
#[rustfmt::skip]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Send(from: *const c_void, count: c_int, kind: MPI_Datatype, to: c_int, tag: c_int, comm: MPI_Comm) -> c_int {
    note(Some(to), count, kind);
    // SAFETY: the caller's arguments.
    unsafe { PMPI_Send(from, count, kind, to, tag, comm) }
}

/// # Safety
/// See MPI.
#[rustfmt::skip]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Isend(from: *const c_void, count: c_int, kind: MPI_Datatype, to: c_int, tag: c_int, comm: MPI_Comm, request: *mut MPI_Request) -> c_int {
    note(Some(to), count, kind);
    // SAFETY: the caller's arguments.
    unsafe { PMPI_Isend(from, count, kind, to, tag, comm, request) }
}

/// # Safety
/// See MPI.
#[rustfmt::skip]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn MPI_Allgatherv(from: *const c_void, count: c_int, kind: MPI_Datatype, to: *mut c_void, counts: *const c_int, places: *const c_int, of: MPI_Datatype, comm: MPI_Comm) -> c_int {
    note(None, count, kind);
    // SAFETY: the caller's arguments.
    unsafe { PMPI_Allgatherv(from, count, kind, to, counts, places, of, comm) }
}

const ROWS: usize = 40_000;
const WIDE_ROWS: usize = 500;
const WIDE_TILE: usize = 16;

/// Weights without a pattern, with one row in a thousand, or with one row of all.
fn weight(row: usize, weights: &str) -> f64 {
    match weights {
        "ordinary" => ((row * 7919) % 1013) as f64,
        "heavy" if row % 1000 == 77 => 1.0 + (row % 7) as f64,
        "heavy" => 1e-9,
        _ => f64::from(u8::from(row == 77)),
    }
}

/// A resampling of narrow rows in large tiles, or of wide ones in small tiles.
fn sent(case: &[String]) -> Result<()> {
    let nodes = case[1].parse().unwrap();
    let job = ndshm_mpi::init()?;
    let node = Node::from_comm_by(&job.world(), support::color(&job, nodes))?;
    let wide = case[0] == "wide";
    let (rows, tile, width) = match wide {
        false => (ROWS, SystematicPlan::TILE, 2),
        true => (WIDE_ROWS, WIDE_TILE, 100),
    };
    let x = node.rows_in_tiles::<f64, _>((rows, width), tile)?;
    let next = node.rows_in_tiles::<f64, _>((rows, width), tile)?;
    let w = node.rows_in_tiles::<f64, _>(rows, tile)?;
    let tiles = node.partition(&w, w.write())?;
    node.for_each(&tiles, |mut w, tile| {
        for (row, w) in tile.rows().zip(&mut w) {
            *w = weight(row, &case[2]);
        }
    })?;
    SENT.with_borrow_mut(Vec::clear);
    node.resample_systematic(&w, 0.5, &x, &next)?;
    for (to, bytes) in SENT.take() {
        match to {
            Some(to) => println!("message {} {to} {bytes}", node.index()),
            None => println!("gathered {bytes}"),
        }
    }
    Ok(())
}

fn counted_messages_are_sent() {
    for (nodes, ranks) in [(2, 2), (4, 4), (2, 3)] {
        for weights in ["ordinary", "heavy", "one"] {
            for (name, rows, tile, bytes) in [
                ("narrow", ROWS, SystematicPlan::TILE, 16),
                ("wide", WIDE_ROWS, WIDE_TILE, 800),
            ] {
                let case = format!("{name} {nodes} {weights}");
                let ran = support::run(ranks, &case).succeeded();
                let all: Vec<f64> = (0..rows).map(|row| weight(row, weights)).collect();
                let plan = SystematicPlan::new(&SystematicPlan::sums(&all), 0.5, rows).unwrap();
                let of_tiles = |tiles: std::ops::Range<usize>| {
                    let end = (tiles.end * SystematicPlan::TILE).min(rows);
                    all[tiles.start * SystematicPlan::TILE..end].to_vec()
                };
                let layout = Layout::new(rows, tile, nodes).unwrap();
                let counted = count::resampling(&plan, &layout, bytes, &of_tiles).unwrap();
                let mut expected: Vec<Message> = counted.exchange.clone();
                assert!(!expected.is_empty(), "{case}: nothing crosses");
                for _ in 0..counted.agreements {
                    expected.extend(&counted.agreement);
                }
                expected.sort();
                let mut found: Vec<Message> = (ran.out.lines())
                    .filter_map(|line| line.strip_prefix("message "))
                    .map(|line| {
                        let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
                        let mut next = || numbers.next().unwrap();
                        Message {
                            from: next(),
                            to: next(),
                            bytes: next(),
                        }
                    })
                    .collect();
                found.sort();
                assert_eq!(found, expected, "{case}");
                if (name, weights) == ("wide", "one") {
                    // The one ancestor goes to each other node once, however many offspring it has.
                    let rows = found.iter().filter(|message| message.bytes == bytes);
                    assert_eq!(rows.count(), nodes - 1, "{case}");
                }
                let gathered = (ran.out.lines())
                    .filter_map(|line| line.strip_prefix("gathered ")?.parse::<usize>().ok());
                assert_eq!(gathered.sum::<usize>(), counted.gathered, "{case}");
            }
        }
    }
}

/// The program runs without a launcher. With more nodes, the work of a step is a smaller share of it.
fn the_table_has_efficiencies() {
    let program = support::example("cost");
    let arguments = ["--nodes", "50", "--rows", "5000", "--work", "1000"];
    let ran = std::process::Command::new(program).args(arguments).output();
    let text = String::from_utf8(ran.unwrap().stdout).unwrap();
    let rows = text.lines().skip(2).map(|line| {
        let numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        numbers.collect::<Vec<f64>>()
    });
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows.len(), 11, "{text}");
    let (one, fifty) = (&rows[0], &rows[10]);
    // One node has no partner, and sends nothing.
    assert_eq!(one[..4], [1.0, 0.0, 0.0, 0.0], "{text}");
    assert_eq!([one[6], one[9]], [1.0, 1.0], "{text}");
    assert_eq!(fifty[0], 50.0, "{text}");
    // Each of 50 nodes in a row has at most its two neighbours.
    assert_eq!(fifty[2], 2.0, "{text}");
    // The bytes of the centre: weights of 49 nodes, indices of 50.
    assert_eq!(fifty[7], (5000 * 8 * (49 + 50)) as f64, "{text}");
    assert!(fifty[9] < fifty[6] && fifty[6] < 1.0, "{text}");
}
