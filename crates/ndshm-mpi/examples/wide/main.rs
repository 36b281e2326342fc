//! A particle filter with wide states on many machines: the water of a channel, observed at a few
//! stations.
//!
//! ```sh
//! mpirun -n 64 wide --cells 50_000 --members 100_000 --checkpoint run    # rows of 100,000 numbers
//! mpirun -n 4 wide --nodes 2 --output field.npy                          # this machine, as two
//! ndshm plot field.npy --line -o field.svg
//! ```
//!
//! A member of the ensemble is a row with a height and a velocity for each cell. A known state, the
//! *truth*, is moved on beside them, and observed with errors. The result is checked against it: the
//! mean of the ensemble is nearer to the truth than a single observation, also between the stations.

mod model;
#[path = "../shared/nodes.rs"]
mod nodes;
mod options;
#[path = "../shared/progress.rs"]
mod progress;

use std::time::Instant;

use mpi::traits::*;
use ndarray::{Array2, Axis, Ix1, Ix2};
use ndshm::partition::PerTile;
use ndshm::pool::TileRng;
use ndshm::{HandleTable, Read, Segment, Write};
use ndshm_mpi::{Node, Rows, Tiles};
use rand_distr::{Distribution, StandardNormal};

use model::{Model, NOISE, uniform};
use options::Options;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Steps of random numbers beside those of the filter.
const START: u64 = u64::MAX;

fn main() -> Result<()> {
    ndshm::become_worker();
    let options = Options::parse()?;
    let job = ndshm_mpi::init()?;
    let world = job.world();
    let node = nodes::join(&world, options.nodes)?;
    if node.is_first() {
        println!(
            "{} members of {} numbers on {} ranks of {} nodes",
            options.members,
            options.model.width(),
            world.size(),
            node.nodes()
        );
    }
    Filter::new(&node, &options)?.run()
}

/// The state that is to be found. All ranks compute it.
struct Truth {
    model: Model,
    seed: u64,
    state: Array2<f64>,
}

impl Truth {
    fn new(options: &Options) -> Truth {
        let mut truth = Truth {
            model: options.model,
            seed: options.seed,
            state: Array2::zeros((1, options.model.width())),
        };
        let mut rng = truth.rng(START);
        truth.model.start(truth.state.row_mut(0), &mut rng);
        truth
    }

    fn rng(&self, step: u64) -> TileRng {
        TileRng::at(!self.seed, step, 0)
    }

    /// Moves on, and returns the observations of the stations.
    fn step(&mut self, step: u64) -> Vec<f64> {
        let mut rng = self.rng(step);
        self.model.advance(self.state.row_mut(0), &mut rng);
        let heights = self
            .model
            .observe(self.state.as_slice().unwrap_or_default());
        let error = |height| {
            let normal: f64 = StandardNormal.sample(&mut rng);
            height + NOISE * normal
        };
        heights.map(error).collect()
    }
}

type Move = (Write<f64, Ix2>, Write<f64, Ix1>);

struct Filter<'a> {
    node: &'a Node,
    options: &'a Options,
    /// The members, and room for their offspring; which is which changes with each step.
    x: [Rows<f64, Ix2>; 2],
    /// Logarithms of likelihoods, then weights.
    w: Rows<f64, Ix1>,
    moves: [Tiles<'a, Move>; 2],
    weighs: Tiles<'a, Write<f64, Ix1>>,
    current: usize,
}

impl<'a> Filter<'a> {
    fn new(node: &'a Node, options: &'a Options) -> Result<Filter<'a>> {
        let shape = (options.members, options.model.width());
        let rows = || node.rows_in_tiles::<f64, _>(shape, options.tile);
        let x = [rows()?, rows()?];
        let w = node.rows_in_tiles::<f64, _>(options.members, options.tile)?;
        let moves = |x: &Rows<f64, Ix2>| node.partition(x, (x.write(), w.write()));
        Ok(Filter {
            moves: [moves(&x[0])?, moves(&x[1])?],
            weighs: node.partition(&w, w.write())?,
            current: 0,
            node,
            options,
            x,
            w,
        })
    }

    fn run(mut self) -> Result<()> {
        let Options { steps, every, .. } = *self.options;
        let mut truth = Truth::new(self.options);
        let first = self.begin()?;
        if first > steps {
            let problem = format!(
                "--steps {steps}: the checkpoint is after step {first}; pass more steps, or another \
                 directory"
            );
            if !self.node.is_first() {
                // The first rank reports it, and ends the job.
                self.node.barrier()?;
            }
            return Err(problem.into());
        }
        for step in 0..first {
            truth.step(step);
        }
        let (start, mut log_likelihood) = (Instant::now(), 0.0);
        for step in first..steps {
            let observed = truth.step(step);
            log_likelihood += self.step(step, &observed)?;
            if let Some(directory) = &self.options.checkpoint
                && (step + 1).is_multiple_of(every)
            {
                self.node
                    .checkpoint(directory, step, &[("x", &self.x[self.current])])?;
            }
            if self.node.is_first() {
                self.options.progress.show(step + 1, steps);
            }
        }
        let time = start.elapsed() / (steps - first).max(1) as u32;
        let summary = self.summary()?;
        if let Some((mean, digest)) = summary {
            let cells = self.options.model.cells;
            let truth = truth.state.as_slice().unwrap_or_default();
            let squares = mean
                .iter()
                .zip(truth)
                .take(cells)
                .map(|(a, b)| (a - b).powi(2));
            let error = (squares.sum::<f64>() / cells as f64).sqrt();
            println!("steps {first} to {steps}");
            println!("log-likelihood {log_likelihood:.4}");
            println!("error of the mean height {error:.4}");
            println!("error of an observation {NOISE:.4}");
            println!("time of a step: {time:.1?}");
            println!("digest {digest:016x}");
            if let Some(path) = &self.options.output {
                let lines = [&truth[..cells], &mean[..cells]].concat();
                let lines = Array2::from_shape_vec((2, cells), lines)?;
                let table = HandleTable::join(&Segment::anonymous()?)?;
                table.save_npy(table.from_array(&lines)?, path)?;
                println!("heights of the truth and of the mean: {path}");
            }
        }
        Ok(())
    }

    /// Takes up the last checkpoint, or starts all members. Returns the first step.
    fn begin(&mut self) -> Result<u64> {
        let x = &self.x[0];
        if let Some(directory) = &self.options.checkpoint
            && let Some(step) = self.node.restore(directory, &[("x", x)])?
        {
            return Ok(step + 1);
        }
        let Options { model, seed, .. } = *self.options;
        self.node.for_each(&self.moves[0], |(mut x, _), tile| {
            let mut rng = tile.rng(seed, START);
            for row in x.rows_mut() {
                model.start(row, &mut rng);
            }
        })?;
        Ok(0)
    }

    /// Moves all members on, and replaces them by their offspring. Returns the logarithm of the
    /// likelihood of the observations.
    fn step(&mut self, step: u64, observed: &[f64]) -> Result<f64> {
        let Options { model, seed, .. } = *self.options;
        let node = self.node;
        node.for_each(&self.moves[self.current], |(mut x, mut w), tile| {
            let mut rng = tile.rng(seed, step);
            for (mut row, w) in x.rows_mut().into_iter().zip(&mut w) {
                model.advance(row.view_mut(), &mut rng);
                *w = model.log_likelihood(row.as_slice().unwrap_or_default(), observed);
            }
        })?;
        let [_, greatest] = node.min_max(&self.w)?;
        node.for_each(&self.weighs, |mut w, _| {
            w.mapv_inplace(|log| (log - greatest).exp());
        })?;
        let mean = node.mean(&self.w)?;
        // The same number on all ranks, of a tile that there is not.
        let u = uniform(&mut TileRng::at(seed, step, usize::MAX));
        let (x, next) = (&self.x[self.current], &self.x[1 - self.current]);
        node.resample_systematic(&self.w, u, x, next)?;
        self.current = 1 - self.current;
        Ok(greatest + mean.ln())
    }

    /// Returns the mean of all members and the digest of their bits, on the first rank.
    fn summary(&self) -> Result<Option<(Vec<f64>, u64)>> {
        type Group = (Read<f64, Ix2>, PerTile<f64, Ix2>, PerTile<u64, Ix2>);
        let (node, x) = (self.node, &self.x[self.current]);
        let sums = node.rows_per_tile::<f64, _, _>(x, x.width())?;
        let hashes = node.rows_per_tile::<u64, _, _>(x, 1)?;
        let group: Group = (x.read(), sums.per_tile(), hashes.per_tile());
        let tiles = node.partition(x, group)?;
        let add = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;
        node.for_each(&tiles, |(x, mut sum, mut hash), _| {
            sum.assign(&x.sum_axis(Axis(0)));
            hash[0] = x.iter().fold(EMPTY, |hash, x| add(hash, x.to_bits()));
        })?;
        let (sums, hashes) = (node.gather(&sums)?, node.gather(&hashes)?);
        Ok(sums.zip(hashes).map(|(sums, hashes)| {
            let mean = sums.sum_axis(Axis(0)) / self.options.members as f64;
            (mean.to_vec(), hashes.iter().copied().fold(EMPTY, add))
        }))
    }
}
