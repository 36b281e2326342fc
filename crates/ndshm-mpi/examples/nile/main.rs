//! A bootstrap particle filter on many machines: the Nile's annual flow, 1871 to 1970.
//!
//! ```sh
//! mpirun -n 64 nile --particles 1_000_000_000
//! mpirun -n 4 nile --nodes 2 --output nile.npy       # this machine, as if it were two
//! ndshm plot nile.npy --line -o nile.svg
//! ```
//!
//! The model is the one of `examples/particle_filter` in the repository of ndshm, and so are all bits
//! of the result: the digest is that of the example on one machine.

#[path = "../../../../examples/particle_filter/data.rs"]
#[allow(dead_code, reason = "this example reads no file")]
mod data;
#[path = "../../../../examples/particle_filter/model.rs"]
#[allow(dead_code, reason = "this example has tiles of its own")]
mod model;
mod options;
#[path = "../shared/progress.rs"]
mod progress;

use std::time::Instant;

use mpi::traits::*;
use ndarray::{Array2, Ix1, Ix2, aview1};
use ndshm::partition::PerTile;
use ndshm::{HandleTable, Segment, WholeArray, Write};
use ndshm_mpi::{Node, Rows, Tiles, Traffic};

use model::{Partial, Seed, Step, Stretch, TILE};
use options::Options;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let options = Options::parse()?;
    let job = ndshm_mpi::init()?;
    let world = job.world();
    let node = match options.nodes {
        Some(nodes) if nodes > world.size() => {
            // One rank reports it, and ends the job.
            if world.rank() > 0 {
                world.barrier();
            }
            let ranks = world.size();
            let problem = format!(
                "--nodes {nodes} on {ranks} ranks: each node has a rank; start as many, by mpirun -n {nodes}"
            );
            return Err(problem.into());
        }
        Some(nodes) => Node::from_comm_by(&world, world.rank() * nodes / world.size())?,
        None => Node::from_comm(&world)?,
    };
    if node.is_first() {
        println!(
            "{} particles on {} ranks of {} nodes",
            options.particles,
            world.size(),
            node.nodes()
        );
    }
    Filter::new(&node, &options)?.run()
}

type Move = (Write<f64, Ix1>, Write<f64, Ix1>, PerTile<f64, Ix2>);
type Gather = (WholeArray<f64, Ix1>, WholeArray<f64, Ix1>, Write<f64, Ix1>);

struct Filter<'a> {
    node: &'a Node,
    options: &'a Options,
    model: model::Model,
    /// The particles, and room for their offspring; which is which changes with each step.
    x: [Rows<f64, Ix1>; 2],
    moves: [Tiles<'a, Move>; 2],
    gathers: [Tiles<'a, Gather>; 2],
    current: usize,
    /// Running sums of weights within each tile.
    cumulative: Rows<f64, Ix1>,
    partials: Rows<f64, Ix2>,
    /// Rows of this node, from which the rows that cross are found.
    numbers: Vec<f64>,
}

/// What a step found, and the rows that it sent from this node.
struct Outcome {
    estimate: model::Estimate,
    sent: usize,
}

impl<'a> Filter<'a> {
    fn new(node: &'a Node, options: &'a Options) -> Result<Filter<'a>> {
        let rows = || node.rows_in_tiles::<f64, _>(options.particles, TILE);
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
        Ok(Filter {
            moves: [moves(0)?, moves(1)?],
            gathers: [gathers(0)?, gathers(1)?],
            current: 0,
            numbers: match node.is_leader() {
                true => (0..cumulative.range().len()).map(|i| i as f64).collect(),
                false => Vec::new(),
            },
            model: model::Model {
                obs_var: options.obs_var.unwrap_or(model::NILE.obs_var),
                ..model::NILE
            },
            node,
            options,
            x,
            cumulative,
            partials,
        })
    }

    fn run(mut self) -> Result<()> {
        let flows = data::Series::nile().values;
        let mut drawn = Array2::zeros((2, flows.len()));
        drawn.row_mut(0).assign(&aview1(&flows));
        // As the example on one machine: two steps before the clock starts.
        for &flow in &flows[..2] {
            self.step(0, flow)?;
        }
        let (mut log_likelihood, mut mean, mut sent) = (0.0, 0.0, 0);
        let start = Instant::now();
        for (index, &flow) in flows.iter().enumerate() {
            let outcome = self.step(index, flow)?;
            log_likelihood += outcome.estimate.log_likelihood;
            mean = outcome.estimate.mean;
            drawn[(1, index)] = mean;
            sent += outcome.sent;
            if self.node.is_first() {
                self.options
                    .progress
                    .show(index as u64 + 1, flows.len() as u64);
            }
        }
        let step = start.elapsed() / flows.len() as u32;
        let digest = self.digest()?;
        if let Some(digest) = digest {
            println!("log-likelihood {log_likelihood:.4}");
            println!("last mean {mean:.3}");
            println!("rows sent by the first node: {} a step", sent / flows.len());
            println!("time of a step: {step:.1?}");
            println!("digest {digest:016x}");
            if let Some(path) = &self.options.output {
                let table = HandleTable::join(&Segment::anonymous()?)?;
                table.save_npy(table.from_array(&drawn)?, path)?;
                println!("flows and filtered levels: {}", path.display());
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize, flow: f64) -> Result<Outcome> {
        let node = self.node;
        let seed = Seed {
            seed: self.options.seed,
            replicate: 0,
        };
        let step = Step::new(self.model, seed, index, flow);
        node.for_each(
            &self.moves[self.current],
            |(mut x, mut cumulative, mut partial), tile| {
                if let (Some(x), Some(cumulative), Some(place)) = (
                    x.as_slice_mut(),
                    cumulative.as_slice_mut(),
                    partial.as_slice_mut(),
                ) {
                    let found = model::propagate(&step, tile.index(), x, cumulative);
                    place.copy_from_slice(bytemuck::cast_slice(&[found]));
                }
            },
        )?;
        let partials = node.gather_everywhere(&self.partials)?;
        let partials: &[Partial] = bytemuck::cast_slice(partials.as_slice().unwrap_or_default());
        let estimate = model::combine(&step, self.options.particles, partials);
        let sent = self.resample(&estimate.plan)?;
        Ok(Outcome { estimate, sent })
    }

    /// Replaces the particles by their offspring. Returns the number of those that this node sent.
    fn resample(&mut self, plan: &[Stretch]) -> Result<usize> {
        let node = self.node;
        let (x, next) = (self.x[self.current], self.x[1 - self.current]);
        let layout = x.layout();
        let first_of = |tile: usize| bytemuck::cast::<Stretch, [u64; 3]>(plan[tile])[2] as usize;
        let borders: Vec<usize> = (0..node.nodes())
            .map(|node| layout.tiles_of(node).start)
            .chain([layout.tiles()])
            .map(first_of)
            .collect();
        let traffic = Traffic::of_offspring(&layout, &borders, node.index());
        let tiles = layout.tiles_of(node.index());
        let own_plan = &plan[tiles.start..=tiles.end];
        {
            let cumulative = node
                .is_leader()
                .then(|| node.read(&self.cumulative))
                .transpose()?;
            let cumulative = cumulative.as_ref().and_then(|all| all.as_slice());
            let first = x.range().start;
            let mut places = Vec::new();
            // Called on leaders.
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
        Ok(traffic
            .sends()
            .iter()
            .map(|crossing| crossing.rows.len())
            .sum())
    }

    /// Returns the digest of all particles in their order, on the first rank.
    fn digest(&self) -> Result<Option<u64>> {
        let hash = |hash: u64, x: &f64| (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
        let all = self.node.gather(&self.x[self.current])?;
        Ok(all.map(|all| all.iter().fold(0xcbf2_9ce4_8422_2325, hash)))
    }
}
