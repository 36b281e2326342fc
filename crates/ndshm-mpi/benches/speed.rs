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
use ndarray::{Ix1, Ix2};
use ndshm::partition::PerTile;
use ndshm::{WholeArray, Write};
use ndshm_mpi::{Crossing, Layout, Node, Rows, Tiles, Traffic};

use model::{Partial, Seed, Step, Stretch, TILE};

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
        Shared::new(&one, particles)?,
        Shared::new(&two, particles)?,
        Plain::new(&world, particles)?,
    );
    let mut found = [Vec::new(), Vec::new(), Vec::new()];
    for time in 0..times + 2 {
        // Years go round; the first one draws anew.
        let index = time % flows.len();
        let step = Step::new(
            model::NILE,
            Seed {
                seed: 1,
                replicate: 0,
            },
            index,
            flows[index],
        );
        // The order changes with each step, and all ranks begin together.
        for at in 0..3 {
            let at = (at + time) % 3;
            world.barrier();
            let start = Instant::now();
            match at {
                0 => filters.0.step(&step)?,
                1 => filters.1.step(&step)?,
                _ => filters.2.step(&step),
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

fn first_of(plan: &[Stretch], tile: usize) -> usize {
    bytemuck::cast::<Stretch, [u64; 3]>(plan[tile])[2] as usize
}

fn traffic_of(plan: &[Stretch], layout: &Layout, node: usize) -> Traffic {
    let borders: Vec<usize> = (0..layout.nodes())
        .map(|node| layout.tiles_of(node).start)
        .chain([layout.tiles()])
        .map(|tile| first_of(plan, tile))
        .collect();
    Traffic::of_offspring(layout, &borders, node)
}

type Move = (Write<f64, Ix1>, Write<f64, Ix1>, PerTile<f64, Ix2>);
type Gather = (WholeArray<f64, Ix1>, WholeArray<f64, Ix1>, Write<f64, Ix1>);

/// The filter of `examples/nile`.
struct Shared<'n> {
    node: &'n Node,
    particles: usize,
    x: [Rows<f64, Ix1>; 2],
    moves: [Tiles<'n, Move>; 2],
    gathers: [Tiles<'n, Gather>; 2],
    current: usize,
    cumulative: Rows<f64, Ix1>,
    partials: Rows<f64, Ix2>,
    numbers: Vec<f64>,
}

impl<'n> Shared<'n> {
    fn new(node: &'n Node, particles: usize) -> Result<Shared<'n>> {
        let rows = || node.rows_in_tiles::<f64, _>(particles, TILE);
        let (x, cumulative) = ([rows()?, rows()?], rows()?);
        let partials = node.rows_per_tile(&cumulative, 4)?;
        let moves = |at: usize| {
            let group = (x[at].write(), cumulative.write(), partials.per_tile());
            node.partition(&x[at], group)
        };
        let gathers = |at: usize| {
            let group = (x[at].whole(), cumulative.whole(), x[1 - at].write());
            node.partition(&x[1 - at], group)
        };
        Ok(Shared {
            moves: [moves(0)?, moves(1)?],
            gathers: [gathers(0)?, gathers(1)?],
            current: 0,
            numbers: (0..cumulative.range().len())
                .map(|row| row as f64)
                .collect(),
            node,
            particles,
            x,
            cumulative,
            partials,
        })
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let node = self.node;
        let moved = &self.moves[self.current];
        node.for_each(moved, |(mut x, mut cumulative, mut partial), tile| {
            if let (Some(x), Some(cumulative), Some(place)) = (
                x.as_slice_mut(),
                cumulative.as_slice_mut(),
                partial.as_slice_mut(),
            ) {
                let found = model::propagate(step, tile.index(), x, cumulative);
                place.copy_from_slice(bytemuck::cast_slice(&[found]));
            }
        })?;
        let partials = node.gather_everywhere(&self.partials)?;
        let partials: &[Partial] = bytemuck::cast_slice(partials.as_slice().unwrap_or_default());
        let plan = model::combine(step, self.particles, partials).plan;
        let (x, next) = (self.x[self.current], self.x[1 - self.current]);
        let traffic = traffic_of(&plan, &x.layout(), node.index());
        let tiles = x.layout().tiles_of(node.index());
        let own_plan = &plan[tiles.start..=tiles.end];
        if node.nodes() > 1 {
            let cumulative = match node.is_leader() {
                true => Some(node.read(&self.cumulative)?),
                false => None,
            };
            let cumulative = cumulative.as_ref().and_then(|all| all.as_slice());
            let first = x.range().start;
            let mut places = Vec::new();
            node.exchange(&traffic, &x, &next, |rows, ancestors| {
                places.resize(rows.len(), 0.0);
                let cumulative = cumulative.unwrap_or_default();
                model::resample(own_plan, &self.numbers, cumulative, rows, &mut places);
                for (ancestor, &place) in ancestors.iter_mut().zip(&places) {
                    *ancestor = first as u64 + place as u64;
                }
            })?;
        }
        node.for_each(
            &self.gathers[self.current],
            |(x, cumulative, mut next), tile| {
                let rows = tile.rows();
                let own = rows.start.max(traffic.own().start)..rows.end.min(traffic.own().end);
                if let (Some(x), Some(cumulative), Some(next)) =
                    (x.as_slice(), cumulative.as_slice(), next.as_slice_mut())
                    && !own.is_empty()
                {
                    let places = &mut next[own.start - rows.start..own.end - rows.start];
                    model::resample(own_plan, x, cumulative, own, places);
                }
            },
        )?;
        self.current = 1 - self.current;
        Ok(())
    }

    fn digest(&self) -> Result<Option<u64>> {
        Ok(self
            .node
            .gather(&self.x[self.current])?
            .map(|all| digest(all.iter())))
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
