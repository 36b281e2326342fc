//! Heat in a rod, in two buffers: each step reads one and writes the other, tile by tile.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix1};
use ndshm::{Handle, HandleTable, Partition, Pool, PoolError, Read, TileContext, Whole, Write};

/// A rod's temperatures.
pub type Rod = Handle<f32, Ix1>;

/// The arrays of a step: one is written by tiles, of the other every worker sees all.
pub type Buffers = (Write<f32, Ix1>, Whole<f32, Ix1>);

/// The rod's cells in steps from `old` to `new`, `rows` cells a tile.
pub fn divide(
    table: &HandleTable,
    new: Rod,
    old: Rod,
    rows: usize,
) -> Result<Partition<'_, Buffers>, ndshm::PartitionError> {
    table.partition((new.write(), old.whole()), Axis(0), rows)
}

/// What flows in from the neighbours in a step.
fn conduct(
    (mut new, old): (ArrayViewMut1<'_, f32>, ArrayView1<'_, f32>),
    &rate: &f32,
    tile: &TileContext<'_>,
) {
    let last = old.len() - 1;
    for (cell, at) in new.iter_mut().zip(tile.range()) {
        let around = old[at.saturating_sub(1)] + old[(at + 1).min(last)];
        *cell = old[at] + rate * (around - 2.0 * old[at]);
    }
}

/// Two steps: there, and back into the first buffer.
pub fn two_steps(
    pool: &mut Pool<'_>,
    there: &Partition<'_, Buffers>,
    back: &Partition<'_, Buffers>,
    rate: f32,
) -> Result<(), PoolError> {
    pool.for_each(there, &rate, conduct)?;
    pool.for_each(back, &rate, conduct)
}

/// The heat in the rod, which no step changes.
pub fn heat(pool: &mut Pool<'_>, tiles: &Partition<'_, Read<f32, Ix1>>) -> Result<f32, PoolError> {
    pool.map_reduce(
        tiles,
        &(),
        |rod, (), _| rod.sum(),
        0.0,
        |sum, part| sum + part,
    )
}
