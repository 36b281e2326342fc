//! Heat in a rod with two buffers: each step reads one and writes the other, tile by tile.

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Ix1};
use ndshm::error::PoolError;
use ndshm::{Handle, HandleTable, Partition, Pool, Read, TileContext, WholeArray, Write};

/// Temperatures of a rod.
pub type Rod = Handle<f32, Ix1>;

/// Arrays of a step: one is written by tiles, the other is visible to every worker as a whole.
pub type Buffers = (Write<f32, Ix1>, WholeArray<f32, Ix1>);

/// Partitions a step from `old` to `new` into tiles of `rows` cells.
pub fn divide(
    table: &HandleTable,
    new: Rod,
    old: Rod,
    rows: usize,
) -> Result<Partition<'_, Buffers>, ndshm::error::PartitionError> {
    table.partition((new.write(), old.whole()), Axis(0), rows)
}

/// Adds the heat that flows in from the neighbours in a step.
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

/// Takes two steps: to the second buffer, and back to the first.
pub fn two_steps(
    pool: &mut Pool<'_>,
    there: &Partition<'_, Buffers>,
    back: &Partition<'_, Buffers>,
    rate: f32,
) -> Result<(), PoolError> {
    pool.for_each(there, &rate, conduct)?;
    pool.for_each(back, &rate, conduct)
}

/// Returns the heat in the rod. No step changes it.
pub fn heat(pool: &mut Pool<'_>, tiles: &Partition<'_, Read<f32, Ix1>>) -> Result<f32, PoolError> {
    pool.map_reduce(
        tiles,
        &(),
        |rod, (), _| rod.sum(),
        0.0,
        |sum, part| sum + part,
    )
}
