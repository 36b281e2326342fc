//! The filter on forked workers, with all particles in shared memory.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix1};
use ndshm::{Handle, HandleTable, Partition, Pool, TileContext, WholeArray, Write};

use crate::Result;
use crate::filter::Engine;
use crate::model::{self, Partial, Step, Stretch, TILE};

type Move = (Write<f64, Ix1>, Write<f64, Ix1>);
type Gather = (
    WholeArray<Stretch, Ix1>,
    WholeArray<f64, Ix1>,
    WholeArray<f64, Ix1>,
    Write<f64, Ix1>,
);

/// Two buffers of particles, and the partitions from each to the other.
pub struct Shared<'p, 't> {
    table: &'t HandleTable,
    pool: &'p mut Pool<'t>,
    x: [Handle<f64, Ix1>; 2],
    cumulative: Handle<f64, Ix1>,
    plan: Handle<Stretch, Ix1>,
    moves: [Partition<'t, Move>; 2],
    gathers: [Partition<'t, Gather>; 2],
    current: usize,
}

impl<'p, 't> Shared<'p, 't> {
    pub fn new(table: &'t HandleTable, pool: &'p mut Pool<'t>, particles: usize) -> Result<Self> {
        let x = [
            table.zeros::<f64, _>(particles)?,
            table.zeros::<f64, _>(particles)?,
        ];
        let cumulative = table.zeros::<f64, _>(particles)?;
        let plan = table.zeros::<Stretch, _>(particles.div_ceil(TILE) + 1)?;
        let moves =
            |x: Handle<_, _>| table.partition((x.write(), cumulative.write()), Axis(0), TILE);
        let gathers = |from: Handle<_, _>, to: Handle<_, _>| {
            let group = (plan.whole(), from.whole(), cumulative.whole(), to.write());
            table.partition(group, Axis(0), TILE)
        };
        Ok(Shared {
            table,
            pool,
            x,
            cumulative,
            plan,
            moves: [moves(x[0])?, moves(x[1])?],
            gathers: [gathers(x[0], x[1])?, gathers(x[1], x[0])?],
            current: 0,
        })
    }

    /// Frees the arrays.
    pub fn free(self) -> Result<()> {
        for x in self.x {
            self.table.free(x)?;
        }
        self.table.free(self.cumulative)?;
        self.table.free(self.plan)?;
        Ok(())
    }
}

impl Engine for Shared<'_, '_> {
    fn propagate(&mut self, step: &Step) -> Result<Vec<Partial>> {
        let tiles = &self.moves[self.current];
        let partials = Vec::with_capacity(tiles.tiles());
        let collect = |mut partials: Vec<Partial>, partial: Partial| {
            partials.push(partial);
            partials
        };
        Ok(self
            .pool
            .map_reduce(tiles, step, propagate, partials, collect)?)
    }

    fn resample(&mut self, plan: &[Stretch]) -> Result<()> {
        self.table.write(self.plan)?.assign(&ArrayView1::from(plan));
        self.pool
            .for_each(&self.gathers[self.current], &(), resample)?;
        self.current = 1 - self.current;
        Ok(())
    }

    fn inspect(&self, look: &mut dyn FnMut(&[f64])) -> Result<()> {
        look(slice(&self.table.read(self.x[self.current])?.view()));
        Ok(())
    }
}

fn propagate(
    (mut x, mut cumulative): (ArrayViewMut1<'_, f64>, ArrayViewMut1<'_, f64>),
    step: &Step,
    tile: &TileContext,
) -> Partial {
    model::propagate(
        step,
        tile.index(),
        slice_mut(&mut x),
        slice_mut(&mut cumulative),
    )
}

fn resample(
    (plan, x, cumulative, mut next): (
        ArrayView1<'_, Stretch>,
        ArrayView1<'_, f64>,
        ArrayView1<'_, f64>,
        ArrayViewMut1<'_, f64>,
    ),
    _: &(),
    tile: &TileContext,
) {
    model::resample(
        slice(&plan),
        slice(&x),
        slice(&cumulative),
        tile.range(),
        slice_mut(&mut next),
    );
}

fn slice<'a, T>(view: &'a ArrayView1<'_, T>) -> &'a [T] {
    view.as_slice()
        .expect("one-dimensional arrays are contiguous")
}

fn slice_mut<'a, T>(view: &'a mut ArrayViewMut1<'_, T>) -> &'a mut [T] {
    view.as_slice_mut()
        .expect("one-dimensional arrays are contiguous")
}
