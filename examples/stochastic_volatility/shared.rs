//! Particles in shared memory: one kernel of this program, and primitives of the pool.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix1};
use ndshm::{HandleTable, Owned, Partition, Pool, Read, TileContext, Write};

use crate::common::{Digest, Result};
use crate::filter::Particles;
use crate::model::{self, Step, TILE};

type Move = (Write<f64, Ix1>, Write<f64, Ix1>);
type Look = (Read<f64, Ix1>, Read<f64, Ix1>);

/// Two buffers of particles, because offspring are written while their ancestors are read.
pub struct Shared<'p, 't> {
    table: &'t HandleTable,
    pool: &'p mut Pool<'t>,
    x: [Owned<'t, f64, Ix1>; 2],
    log_weights: Owned<'t, f64, Ix1>,
    weights: Owned<'t, f64, Ix1>,
    ancestors: Owned<'t, u64, Ix1>,
    /// Partitions of a buffer with the log-weights; `looks`: of a buffer with the weights.
    moves: [Partition<'t, Move>; 2],
    looks: [Partition<'t, Look>; 2],
    /// Index of the buffer that holds the particles.
    current: usize,
}

impl<'p, 't> Shared<'p, 't> {
    pub fn new(table: &'t HandleTable, pool: &'p mut Pool<'t>, particles: usize) -> Result<Self> {
        let numbers = || Ok::<_, ndshm::Error>(table.owned(table.zeros::<f64, _>(particles)?));
        let x = [numbers()?, numbers()?];
        let (log_weights, weights) = (numbers()?, numbers()?);
        let moves = |x: &Owned<'_, f64, Ix1>| {
            let group = (x.handle().write(), log_weights.handle().write());
            table.partition(group, Axis(0), TILE)
        };
        let looks = |x: &Owned<'_, f64, Ix1>| {
            let group = (x.handle().read(), weights.handle().read());
            table.partition(group, Axis(0), TILE)
        };
        Ok(Shared {
            table,
            pool,
            moves: [moves(&x[0])?, moves(&x[1])?],
            looks: [looks(&x[0])?, looks(&x[1])?],
            x,
            log_weights,
            weights,
            ancestors: table.owned(table.zeros(particles)?),
            current: 0,
        })
    }
}

impl Particles for Shared<'_, '_> {
    fn move_and_weigh(&mut self, step: &Step) -> Result<()> {
        let tiles = &self.moves[self.current];
        Ok(self.pool.for_each(tiles, step, move_and_weigh)?)
    }

    fn normalize(&mut self) -> Result<f64> {
        let (log_weights, weights) = (self.log_weights.handle(), self.weights.handle());
        Ok(self.pool.normalize_log_weights(log_weights, weights)?)
    }

    fn moments(&mut self) -> Result<[f64; 3]> {
        let add = |[a, b, c]: [f64; 3], [x, y, z]: [f64; 3]| [a + x, b + y, c + z];
        let tiles = &self.looks[self.current];
        Ok(self.pool.map_reduce(tiles, &(), moments, [0.0; 3], add)?)
    }

    fn effective(&mut self) -> Result<f64> {
        Ok(self.pool.effective_sample_size(self.weights.handle())?)
    }

    fn resample(&mut self, offset: f64) -> Result<()> {
        let (weights, ancestors) = (self.weights.handle(), self.ancestors.handle());
        self.pool.resample_systematic(weights, offset, ancestors)?;
        let [from, to] = [self.current, 1 - self.current].map(|buffer| self.x[buffer].handle());
        self.pool.gather(from, ancestors, to)?;
        self.current = 1 - self.current;
        Ok(self.pool.fill(self.log_weights.handle(), 0.0)?)
    }

    fn restart(&mut self) -> Result<()> {
        Ok(self.pool.fill(self.log_weights.handle(), 0.0)?)
    }

    fn digest(&self) -> Result<Digest> {
        let x = self.table.read(self.x[self.current].handle())?;
        Ok(Digest::of(x.iter().map(|x| x.to_bits())))
    }
}

fn move_and_weigh(
    (mut x, mut log_weights): (ArrayViewMut1<'_, f64>, ArrayViewMut1<'_, f64>),
    step: &Step,
    tile: &TileContext,
) {
    let x = x.as_slice_mut().expect("a tile of numbers is contiguous");
    let log_weights = log_weights
        .as_slice_mut()
        .expect("a tile of numbers is contiguous");
    model::move_and_weigh(step, tile.index(), x, log_weights);
}

fn moments(
    (x, weights): (ArrayView1<'_, f64>, ArrayView1<'_, f64>),
    (): &(),
    _: &TileContext,
) -> [f64; 3] {
    x.iter()
        .zip(weights)
        .fold([0.0; 3], |[a, b, c], (&x, &weight)| {
            [
                a + weight * x,
                b + weight * x * x,
                c + weight * (x / 2.0).exp(),
            ]
        })
}
