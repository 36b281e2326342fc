//! The torus in shared memory: two buffers, and the partitions that step from each to the other.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::partition::Edge;
use ndshm::pool::TileRng;
use ndshm::{
    Grid, HandleTable, Owned, Partition, PartitionHandle, Pool, ReadGuard, TileContext, WholeArray,
    WorkerContext, Write,
};
use rand_core::{Rng, SeedableRng};

use crate::common::Result;
use crate::gray_scott::{self, Rates, Torus};

/// Arrays of a step: it reads the whole of one buffer, because a tile's neighbours may lie
/// anywhere, and writes a tile of the other.
type Step = (
    WholeArray<f32, Ix2>,
    WholeArray<f32, Ix2>,
    Write<f32, Ix2>,
    Write<f32, Ix2>,
);

/// Concentrations of U and V at one time.
type Buffer<'t> = [Owned<'t, f32, Ix2>; 2];

/// The torus, with the partitions for its steps.
pub struct Lattice<'t> {
    table: &'t HandleTable,
    rates: Rates,
    buffers: [Buffer<'t>; 2],
    /// Partitions from the first buffer to the second, and back.
    ways: [Partition<'t, Step>; 2],
    /// Number of steps taken. After an even number the state is in the first buffer.
    steps: u64,
}

/// Parameters of a call: `steps` steps from number `first` on.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct March {
    ways: [PartitionHandle<Step>; 2],
    first: u64,
    steps: u64,
    rates: Rates,
}

impl<'t> Lattice<'t> {
    /// Creates a torus of `shape`, with tiles of `tile` rows and columns, in the state of `seed`.
    pub fn new(
        table: &'t HandleTable,
        pool: &mut Pool<'_>,
        shape: (usize, usize),
        tile: usize,
        rates: Rates,
        seed: u64,
    ) -> Result<Self> {
        let field = || Ok::<_, ndshm::Error>(table.owned(table.zeros::<f32, _>(shape)?));
        let buffers = [[field()?, field()?], [field()?, field()?]];
        let way = |from: &Buffer<'_>, to: &Buffer<'_>| {
            let [u, v] = [from[0].handle(), from[1].handle()];
            let [next_u, next_v] = [to[0].handle(), to[1].handle()];
            let group = (u.whole(), v.whole(), next_u.write(), next_v.write());
            // Squares: they minimise the halo, which other tiles write.
            table.partition_by(group, &Grid::blocks([(Axis(0), tile), (Axis(1), tile)]))
        };
        let lattice = Lattice {
            table,
            rates,
            ways: [
                way(&buffers[0], &buffers[1])?,
                way(&buffers[1], &buffers[0])?,
            ],
            buffers,
            steps: 0,
        };
        lattice.sow(pool, seed)?;
        Ok(lattice)
    }

    /// Fills the first buffer.
    fn sow(&self, pool: &mut Pool<'_>, seed: u64) -> Result<()> {
        let [u, v] = &self.buffers[0];
        let group = (u.handle().write(), v.handle().write());
        // Each row has its own stream, so the state does not depend on the tiles.
        let rows = self.table.partition(group, Axis(0), 1)?;
        Ok(pool.for_each(&rows, &seed, sow)?)
    }

    /// Returns the number of tiles in a step.
    pub fn tiles(&self) -> usize {
        self.ways[0].tiles()
    }

    /// Takes some steps in one call. The workers proceed from step to step by themselves.
    pub fn advance(&mut self, pool: &mut Pool<'_>, steps: u64) -> Result<()> {
        let march = March {
            ways: [self.ways[0].handle(), self.ways[1].handle()],
            first: self.steps,
            steps,
            rates: self.rates,
        };
        pool.run(&march, take_steps)?;
        self.steps += steps;
        Ok(())
    }

    /// Returns the state after the last step.
    pub fn now(&self) -> Result<State<'t>> {
        self.state(self.steps)
    }

    /// Returns the state before the last step, if there was a step.
    pub fn before(&self) -> Result<State<'t>> {
        self.state(self.steps + 1)
    }

    fn state(&self, step: u64) -> Result<State<'t>> {
        let [u, v] = &self.buffers[step as usize % 2];
        Ok(State {
            u: self.table.read(u.handle())?,
            v: self.table.read(v.handle())?,
        })
    }
}

/// Leases of one buffer.
pub struct State<'t> {
    pub u: ReadGuard<'t, f32, Ix2>,
    pub v: ReadGuard<'t, f32, Ix2>,
}

impl State<'_> {
    pub fn torus(&self) -> Torus<'_> {
        Torus {
            u: self.u.view(),
            v: self.v.view(),
        }
    }
}

/// Takes steps in a worker. All workers run this.
fn take_steps(worker: &WorkerContext<'_>, march: &March) -> ndshm::Result<()> {
    let table = worker.table();
    let ways = [
        table.open_partition(march.ways[0])?,
        table.open_partition(march.ways[1])?,
    ];
    for step in march.first..march.first + march.steps {
        worker.for_each(&ways[step as usize % 2], |(u, v, next_u, next_v), tile| {
            let (u, v) = (with_halo(tile, &u), with_halo(tile, &v));
            gray_scott::advance(march.rates, u.view(), v.view(), next_u, next_v);
        })?;
    }
    Ok(())
}

/// Returns the cells of a tile and those around it: a view, or a copy at the seam of the torus.
fn with_halo<'a>(tile: &TileContext<'_>, field: &'a ArrayView2<'_, f32>) -> CowArray<'a, f32, Ix2> {
    let halo = tile.around(field, [1, 1], Edge::Periodic);
    halo.expect("the torus is wider than a cell").to_cow()
}

/// Cells along each axis of a patch, and of the squares, which have one patch each.
const PATCH: usize = 20;
const SQUARE: usize = 64;

/// Fills one row of the first state.
fn sow(
    (mut u, mut v): (ArrayViewMut2<'_, f32>, ArrayViewMut2<'_, f32>),
    &seed: &u64,
    tile: &TileContext,
) {
    let row = tile.range().start;
    let mut noise = TileRng::seed_from_u64(seed);
    noise.set_stream(row as u64);
    let mut patch = 0..0;
    for (column, (u, v)) in u.iter_mut().zip(&mut v).enumerate() {
        if column % SQUARE == 0 {
            patch = patch_in(seed, row, column);
        }
        let (clean_u, clean_v) = match patch.contains(&column) {
            true => (0.5, 0.25),
            false => (1.0, 0.0),
        };
        // Uniform from -1 % to 1 %.
        let mut noise = || 1.0 + 0.01 * (noise.next_u32() as f32 / 2f32.powi(31) - 1.0);
        (*u, *v) = (clean_u * noise(), clean_v * noise());
    }
}

/// Returns the columns of this row's patch in the square that begins at `column`.
fn patch_in(seed: u64, row: usize, column: usize) -> Range<usize> {
    let (above, left) = ((row / SQUARE) as u64, (column / SQUARE) as u64);
    let mut rng = TileRng::seed_from_u64(seed);
    // The rows use the lower half of the streams.
    rng.set_stream(1 << 63 | above << 32 | left);
    let mut corner = || rng.next_u32() as usize % (SQUARE - PATCH);
    let (top, left) = (corner(), column + corner());
    match (top..top + PATCH).contains(&(row % SQUARE)) {
        true => left..left + PATCH,
        false => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_square_has_one_patch() {
        for (above, left) in [(0, 0), (1, 0), (2, 5)] {
            let rows = above * SQUARE..(above + 1) * SQUARE;
            let patches: Vec<_> = rows
                .map(|row| patch_in(7, row, left * SQUARE))
                .filter(|columns| !columns.is_empty())
                .collect();
            assert_eq!(patches.len(), PATCH);
            let first = &patches[0];
            assert!(patches.iter().all(|columns| columns == first));
            assert!(first.len() == PATCH && first.start >= left * SQUARE);
            assert!(first.end <= (left + 1) * SQUARE);
        }
    }
}
