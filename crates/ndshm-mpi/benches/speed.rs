//! The costs of ndshm-mpi against plain MPI, measured in turns in one run.
//!
//! ```sh
//! cargo bench --bench speed                        # starts itself under mpirun, on two ranks
//! MPI_PKG_CONFIG=mpich MPICC=mpicc.mpich cargo bench --target-dir target/mpich --bench speed
//! cargo bench --bench speed -- 2 100000 30         # ranks (even), particles, repetitions
//! ```
//!
//! Only an idle machine with a processor for each rank gives figures that mean anything.
//!
//! - `sharing`: a step of the Nile filter with all ranks on one node, against plain MPI in which each
//!   rank owns its rows. Mark: a ratio of the medians of at most 1.03.
//! - `second node`: the same step with the ranks on two simulated nodes, against one node. Mark: at
//!   most 50 us more in the median.
//! - `exchange`: rows that go from each of two nodes to the other by `Node::exchange`, against
//!   `MPI_Isend` and `MPI_Irecv` of as many bytes. Mark: at least 0.9 of the speed. An exchange asks
//!   for the ancestor of each row, so the fair comparison is `raw, chosen`, which puts the rows of a
//!   list of places together; `raw` sends a buffer that is ready.
//!
//! All three filters compute the same particles, which is checked.

#[path = "../../../examples/particle_filter/data.rs"]
#[allow(dead_code, unused_imports, reason = "the benchmark reads no file")]
mod data;
#[path = "../examples/nile/filter.rs"]
#[allow(dead_code, reason = "the benchmark looks at the digest alone")]
mod filter;
#[path = "../../../examples/particle_filter/model.rs"]
#[allow(dead_code, reason = "the benchmark has tiles of its own")]
mod model;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::request::multiple_scope;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use ndshm_mpi::{Crossing, Layout, Node, Traffic};

use filter::{Filter, traffic_of};
use model::{Partial, Seed, Step, TILE};

/// Random numbers of all filters.
const SEED: Seed = Seed {
    seed: 1,
    replicate: 0,
};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    if let Some(case) = support::case() {
        return rank(&case);
    }
    let numbers: Vec<usize> = (std::env::args().skip(1))
        .filter(|argument| !argument.starts_with("--"))
        .map(|argument| match argument.replace('_', "").parse() {
            Ok(number) if number > 0 => number,
            _ => panic!("{argument}: pass ranks, particles and repetitions, each at least 1"),
        })
        .collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let (ranks, particles, times) = (number(0, 2), number(1, 1_000_000), number(2, 300));
    assert!(
        ranks.is_multiple_of(2),
        "{ranks} ranks: two nodes take an even number"
    );
    let ran = support::run_for(
        std::time::Duration::from_secs(3600),
        ranks,
        &format!("{particles} {times}"),
    );
    print!("{}", ran.out);
    eprint!("{}", ran.err);
    std::process::exit(ran.code.unwrap_or(1));
}

fn rank(case: &[String]) -> Result<()> {
    let (particles, times): (usize, usize) = (case[0].parse().unwrap(), case[1].parse().unwrap());
    let job = ndshm_mpi::init()?;
    let one = Node::from_comm_by(&job.world(), 0)?;
    let two = Node::from_comm_by(&job.world(), support::color(&job, 2))?;
    let world = job.world();
    if one.is_first() {
        let version = mpi::environment::library_version().unwrap_or_default();
        println!("{}", version.lines().next().unwrap_or_default());
        println!(
            "{particles} particles on {} ranks, {times} times in turns",
            world.size()
        );
        println!("us: least, median, 95 % below");
    }
    let flows = data::Series::nile().values;
    let mut filters = (
        Filter::new(&one, model::NILE, particles, SEED.seed)?,
        Filter::new(&two, model::NILE, particles, SEED.seed)?,
        Plain::new(&world, particles)?,
    );
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for time in 0..times + 2 {
        // Years go round; the first one draws anew.
        let index = time % flows.len();
        // The order changes with each step, and all ranks begin together.
        for at in 0..3 {
            let at = (at + time) % 3;
            world.barrier();
            let start = Instant::now();
            match at {
                0 => drop(filters.0.step(index, flows[index])?),
                1 => drop(filters.1.step(index, flows[index])?),
                _ => filters
                    .2
                    .step(&Step::new(model::NILE, SEED, index, flows[index])),
            }
            let took = slowest(&world, start);
            if time >= 2 {
                found[at].push(took);
            }
        }
    }
    let digests = [filters.0.digest()?, filters.1.digest()?, filters.2.digest()];
    if one.is_first() {
        assert_eq!(
            digests, [digests[0]; 3],
            "all filters have the same particles"
        );
    }
    let [shared, on_two, plain] = found.map(Times::of);
    if one.is_first() {
        shared.print("one node");
        plain.print("plain MPI");
        on_two.print("two nodes");
        println!(
            "sharing: {:.3} (at most 1.03)",
            shared.median / plain.median
        );
        let more = on_two.median - shared.median;
        println!("second node: {more:.1} us more (at most 50)");
    }
    for (bytes, rows) in [(8, 1000), (8, 100_000), (1024, 1000), (1 << 20, 16)] {
        exchange(&world, &two, bytes, rows, times)?;
    }
    Ok(())
}

/// Returns the microseconds of the slowest rank since `start`.
fn slowest(world: &SimpleCommunicator, start: Instant) -> f64 {
    let mine = start.elapsed().as_secs_f64() * 1e6;
    let mut all = 0.0;
    world.all_reduce_into(&mine, &mut all, SystemOperation::max());
    all
}

struct Times {
    least: f64,
    median: f64,
    most: f64,
}

impl Times {
    fn of(mut times: Vec<f64>) -> Times {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        Times {
            least: at(0.0),
            median: at(0.5),
            most: at(0.95),
        }
    }

    fn print(&self, name: &str) {
        let Times {
            least,
            median,
            most,
        } = self;
        println!("{name:<24} {least:>10.1} {median:>10.1} {most:>10.1}");
    }
}

fn digest<'a>(all: impl Iterator<Item = &'a f64>) -> u64 {
    all.fold(0xcbf2_9ce4_8422_2325, |hash, x| {
        (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The same filter by MPI alone: each rank owns its rows, in a `Vec`. It resamples tile by tile, too. A
/// program that resamples all its rows in one pass saves some per cent more.
struct Plain<'w> {
    world: &'w SimpleCommunicator,
    layout: Layout,
    x: Vec<f64>,
    next: Vec<f64>,
    cumulative: Vec<f64>,
}

impl<'w> Plain<'w> {
    fn new(world: &'w SimpleCommunicator, particles: usize) -> Result<Plain<'w>> {
        let layout = Layout::new(particles, TILE, world.size() as usize)?;
        let here = vec![0.0; layout.rows_of(world.rank() as usize).len()];
        Ok(Plain {
            world,
            layout,
            x: here.clone(),
            next: here.clone(),
            cumulative: here,
        })
    }

    fn step(&mut self, step: &Step) {
        let (world, me) = (self.world, self.world.rank() as usize);
        let (tiles, here) = (self.layout.tiles_of(me), self.layout.rows_of(me));
        let parts = self
            .x
            .chunks_mut(TILE)
            .zip(self.cumulative.chunks_mut(TILE));
        let mine: Vec<Partial> = (tiles.clone().zip(parts))
            .map(|(tile, (x, cumulative))| model::propagate(step, tile, x, cumulative))
            .collect();
        let (counts, places): (Vec<i32>, Vec<i32>) = (0..self.layout.nodes())
            .map(|rank| self.layout.tiles_of(rank))
            .map(|tiles| (4 * tiles.len() as i32, 4 * tiles.start as i32))
            .unzip();
        let mut all = vec![Partial::default(); self.layout.tiles()];
        let mut parts =
            PartitionMut::new(bytemuck::cast_slice_mut::<_, f64>(&mut all), counts, places);
        world.all_gather_varcount_into(bytemuck::cast_slice::<_, f64>(&mine), &mut parts);
        let plan = model::combine(step, self.layout.rows(), &all).plan;
        let traffic = traffic_of(&plan, &self.layout, me);
        let own_plan = &plan[tiles.start..=tiles.end];
        let own = traffic.own();
        let (start, end) = (
            own.start.max(here.start),
            own.end.min(here.end).max(here.start),
        );
        let (x, cumulative) = (&self.x, &self.cumulative);
        let sent: Vec<Vec<f64>> = (traffic.sends().iter())
            .map(|crossing| {
                let mut rows = vec![0.0; crossing.rows.len()];
                model::resample(own_plan, x, cumulative, crossing.rows.clone(), &mut rows);
                rows
            })
            .collect();
        let mut received: Vec<Vec<f64>> = (traffic.receives().iter())
            .map(|crossing| vec![0.0; crossing.rows.len()])
            .collect();
        multiple_scope(sent.len() + received.len(), |scope, requests| {
            for (crossing, rows) in traffic.receives().iter().zip(&mut received) {
                let from = world.process_at_rank(crossing.node as i32);
                requests.add(from.immediate_receive_into(scope, &mut rows[..]));
            }
            for (crossing, rows) in traffic.sends().iter().zip(&sent) {
                let to = world.process_at_rank(crossing.node as i32);
                requests.add(to.immediate_send(scope, &rows[..]));
            }
            if start < end {
                let places = &mut self.next[start - here.start..end - here.start];
                // Tile by tile, as the other filters.
                let mut rest = places;
                for tile in tiles {
                    let rows = start.max(tile * TILE)..end.min((tile + 1) * TILE);
                    let (places, behind) = rest.split_at_mut(rows.len());
                    model::resample(own_plan, x, cumulative, rows, places);
                    rest = behind;
                }
            }
            requests.wait_all(&mut Vec::new());
        });
        for (crossing, rows) in traffic.receives().iter().zip(&received) {
            let at = crossing.rows.start - here.start;
            self.next[at..at + rows.len()].copy_from_slice(rows);
        }
        std::mem::swap(&mut self.x, &mut self.next);
    }

    fn digest(&self) -> Option<u64> {
        let (counts, places): (Vec<i32>, Vec<i32>) = (0..self.layout.nodes())
            .map(|rank| self.layout.rows_of(rank))
            .map(|rows| (rows.len() as i32, rows.start as i32))
            .unzip();
        let mut all = vec![0.0; self.layout.rows()];
        let mut parts = PartitionMut::new(&mut all[..], counts, places);
        self.world.all_gather_varcount_into(&self.x[..], &mut parts);
        (self.world.rank() == 0).then(|| digest(all.iter()))
    }
}

/// Rows of `bytes` bytes, all different, to the other node and from it.
fn exchange(
    world: &SimpleCommunicator,
    node: &Node,
    bytes: usize,
    rows: usize,
    times: usize,
) -> Result<()> {
    let width = bytes / 8;
    // Each node has as many rows again that stay.
    let (tile, all) = ((4 * rows).div_ceil(8), 4 * rows);
    let from = node.rows_in_tiles::<f64, _>((all, width), tile)?;
    let to = node.rows_in_tiles::<f64, _>((all, width), tile)?;
    let fill = node.partition(&from, from.write())?;
    node.for_each(&fill, |mut x, tile| x.fill(tile.index() as f64))?;
    let layout = to.layout();
    let (me, other) = (node.index(), 1 - node.index());
    let first = |node: usize| layout.rows_of(node).start..layout.rows_of(node).start + rows;
    let crossing = |rows| vec![Crossing { node: other, rows }];
    let (mine, theirs) = (first(me).start, first(other).start);
    let traffic = Traffic::new(&layout, me, crossing(first(other)), crossing(first(me)))?;
    let source = vec![1.0; rows * width];
    let mut target = vec![0.0; rows * width];
    let (mut places, mut chosen) = (vec![0; rows], Vec::new());
    let mut send = |source: &[f64]| {
        let leader = world.size() / 2 * other as i32;
        let partner = world.process_at_rank(leader);
        multiple_scope(2, |scope, requests| {
            requests.add(partner.immediate_receive_into(scope, &mut target[..]));
            requests.add(partner.immediate_send(scope, source));
            requests.wait_all(&mut Vec::new());
        });
    };
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for time in 0..times + 2 {
        for at in 0..3 {
            let at = (at + time) % 3;
            world.barrier();
            let start = Instant::now();
            match at {
                0 => node.exchange(&traffic, &from, &to, |rows, ancestors| {
                    for (row, ancestor) in rows.zip(ancestors) {
                        *ancestor = (row - theirs + mine) as u64;
                    }
                })?,
                1 if node.is_leader() => {
                    for (row, place) in (theirs..theirs + rows).zip(&mut places) {
                        *place = row - theirs;
                    }
                    chosen.clear();
                    match width {
                        1 => chosen.extend(places.iter().map(|&place| source[place])),
                        _ => {
                            for place in &places {
                                chosen.extend_from_slice(&source[place * width..][..width]);
                            }
                        }
                    }
                    send(&chosen);
                }
                2 if node.is_leader() => send(&source),
                _ => {}
            }
            let took = slowest(world, start);
            if time >= 2 {
                found[at].push(took);
            }
        }
    }
    let [ours, chosen, raw] = found.map(Times::of);
    if node.is_first() {
        let name = format!("{rows} x {bytes} B");
        ours.print(&format!("exchange {name}"));
        chosen.print(&format!("raw, chosen {name}"));
        raw.print(&format!("raw {name}"));
        println!(
            "exchange: {:.2} of the speed with chosen rows (at least 0.9), {:.2} with a ready buffer",
            chosen.median / ours.median,
            raw.median / ours.median
        );
    }
    drop(fill);
    node.free(from)?;
    Ok(node.free(to)?)
}
