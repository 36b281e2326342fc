//! The bootstrap particle filter on all nodes, which the benchmark `speed` measures, too.

use ndarray::{Ix1, Ix2};
use ndshm::partition::PerTile;
use ndshm::{WholeArray, Write};
use ndshm_mpi::{Layout, Node, Result, Rows, Tiles, Traffic};

use crate::model::{self, Estimate, Model, Partial, Seed, Step, Stretch, TILE};

type Move = (Write<f64, Ix1>, Write<f64, Ix1>, PerTile<f64, Ix2>);
type Gather = (WholeArray<f64, Ix1>, WholeArray<f64, Ix1>, Write<f64, Ix1>);

/// A filter whose particles lie on all nodes.
pub struct Filter<'a> {
    node: &'a Node,
    model: Model,
    particles: usize,
    seed: u64,
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

/// The result of a step.
pub struct Outcome {
    pub estimate: Estimate,
    /// The number of rows that this node sent to others.
    pub sent: usize,
}

/// Returns the rows that cross between nodes if the offspring of a step follow `plan`.
pub fn traffic_of(plan: &[Stretch], layout: &Layout, node: usize) -> Traffic {
    let borders: Vec<usize> = (0..layout.nodes())
        .map(|node| layout.tiles_of(node).start)
        .chain([layout.tiles()])
        .map(|tile| plan[tile].first as usize)
        .collect();
    Traffic::of_offspring(layout, &borders, node)
}

impl<'a> Filter<'a> {
    pub fn new(node: &'a Node, model: Model, particles: usize, seed: u64) -> Result<Filter<'a>> {
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
        Ok(Filter {
            moves: [moves(0)?, moves(1)?],
            gathers: [gathers(0)?, gathers(1)?],
            current: 0,
            numbers: match node.is_leader() {
                true => (0..cumulative.range().len()).map(|i| i as f64).collect(),
                false => Vec::new(),
            },
            node,
            model,
            particles,
            seed,
            x,
            cumulative,
            partials,
        })
    }

    /// Moves, weighs and resamples all particles by the observation of a year. Collective.
    pub fn step(&mut self, index: usize, flow: f64) -> Result<Outcome> {
        let node = self.node;
        let seed = Seed {
            seed: self.seed,
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
        let estimate = model::combine(&step, self.particles, partials);
        let sent = self.resample(&estimate.plan)?;
        Ok(Outcome { estimate, sent })
    }

    /// Replaces the particles by their offspring. Returns the number of those that this node sent.
    fn resample(&mut self, plan: &[Stretch]) -> Result<usize> {
        let node = self.node;
        let (x, next) = (self.x[self.current], self.x[1 - self.current]);
        let layout = x.layout();
        let traffic = traffic_of(plan, &layout, node.index());
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
    pub fn digest(&self) -> Result<Option<u64>> {
        let hash = |hash: u64, x: &f64| (hash ^ x.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
        let all = self.node.gather(&self.x[self.current])?;
        Ok(all.map(|all| all.iter().fold(0xcbf2_9ce4_8422_2325, hash)))
    }
}
