//! Sums, means, extremes, log-sum-exp and prefix sums, with the same bits on any number of nodes and
//! ranks.

use bytemuck::Pod;
use mpi::datatype::PartitionMut;
use mpi::traits::*;
use ndarray::{Array1, ArrayView, Axis, Dimension, Ix2};
use ndshm::primitives::Real;
use ndshm::{Handle, Read};

use crate::blocks;
use crate::call::Call;
use crate::error::Result;
use crate::layout::Layout;
use crate::leaders::Leaders;
use crate::node::Node;
use crate::rows::Rows;

/// Tag of the values that go to the owner of a block.
const TO_OWNER: i32 = 0x6e66;

impl Node {
    /// Returns the sum of all elements. Collective; all ranks get it.
    ///
    /// Elements are added in `f64`: within a tile in eight interleaved chains, then the tiles in
    /// blocks of 256, then the blocks. So the bits depend on the tiles alone, not on nodes and ranks.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>((10_000, 2))?;
    /// if node.is_leader() {
    ///     node.write(&x)?.fill(0.5);
    /// }
    /// assert_eq!(node.sum(&x)?, 10_000.0);
    /// assert_eq!(node.mean(&x)?, 0.5);
    /// assert_eq!(node.min_max(&x)?, [0.5, 0.5]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`for_each`](Node::for_each); [`Error::NotCalled`](crate::Error::NotCalled) and
    /// [`Error::Unequal`](crate::Error::Unequal) also name ranks of other nodes.
    /// [`Error::Argument`](crate::Error::Argument) if another `Node` made the array.
    pub fn sum<T: Real + Pod, D: Dimension + 'static>(&self, x: &Rows<T, D>) -> Result<f64> {
        self.reduce("sum", x, |tile| [sum_of(tile)], |[a], [b]| [a + b])
            .map(|[sum]| sum)
    }

    /// Returns the mean of all elements. Collective; all ranks get it. NaN if there are none.
    ///
    /// # Errors
    /// See [`sum`](Node::sum).
    pub fn mean<T: Real + Pod, D: Dimension + 'static>(&self, x: &Rows<T, D>) -> Result<f64> {
        Ok(self.sum(x)? / (x.layout().rows() as f64 * x.width() as f64))
    }

    /// Returns the least and the greatest element. Collective; all ranks get them. Both are NaN if
    /// an element is.
    ///
    /// # Errors
    /// See [`sum`](Node::sum).
    pub fn min_max<T: Real + Pod, D: Dimension + 'static>(
        &self,
        x: &Rows<T, D>,
    ) -> Result<[f64; 2]> {
        let least = |a: f64, b: f64| if b < a || b.is_nan() { b } else { a };
        let both = |a: [f64; 2], b: [f64; 2]| [least(a[0], b[0]), -least(-a[1], -b[1])];
        let of_tile = |tile: &[T]| {
            tile.iter()
                .fold([f64::INFINITY, f64::NEG_INFINITY], |found, &x| {
                    let x: f64 = x.into();
                    both(found, [x, x])
                })
        };
        self.reduce("min_max", x, of_tile, both)
    }

    /// Returns the logarithm of the sum of the exponentials of all elements, without overflow.
    /// Collective; all ranks get it.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let log_weights = node.rows::<f64, _>(10_000)?;
    /// if node.is_leader() {
    ///     node.write(&log_weights)?.fill(-2000.0);
    /// }
    /// let found = node.log_sum_exp(&log_weights)?;
    /// assert!((found - (-2000.0 + 10_000f64.ln())).abs() < 1e-9);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`sum`](Node::sum).
    pub fn log_sum_exp<T: Real + Pod, D: Dimension + 'static>(
        &self,
        x: &Rows<T, D>,
    ) -> Result<f64> {
        // A partial is the greatest element, and the sum relative to it.
        let of_tile = |tile: &[T]| {
            let max = tile.iter().fold(f64::NEG_INFINITY, |max, &x| {
                let x: f64 = x.into();
                if x > max || x.is_nan() { x } else { max }
            });
            match max.is_finite() {
                true => [max, tile.iter().map(|&x| (x.into() - max).exp()).sum()],
                // An infinite term, NaN, or no term above zero.
                false => [max, if max == f64::NEG_INFINITY { 0.0 } else { 1.0 }],
            }
        };
        let add = |a: [f64; 2], b: [f64; 2]| match b[0] > a[0] || b[0].is_nan() {
            true => [b[0], b[1] + scaled(a, b[0])],
            false => [a[0], a[1] + scaled(b, a[0])],
        };
        let [max, sum] = self.reduce("log_sum_exp", x, of_tile, add)?;
        Ok(max + sum.ln())
    }

    /// Replaces each element by the sum of the elements up to it, in the order of rows. Collective.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>(10_000)?;
    /// if node.is_leader() {
    ///     node.write(&x)?.fill(1.0);
    /// }
    /// assert_eq!(node.prefix_sum(&x)?, 10_000.0);
    /// for (row, &sum) in x.range().zip(node.read(&x)?.iter()) {
    ///     assert_eq!(sum, (row + 1) as f64);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// Returns the sum of all. Every node gets one number per tile of all nodes.
    ///
    /// # Errors
    /// See [`sum`](Node::sum).
    pub fn prefix_sum(&self, x: &Rows<f64, ndarray::Ix1>) -> Result<f64> {
        self.has(x)?;
        let call = Call::new(format_args!("prefix_sum of {x}"));
        let layout = x.layout();
        let [bits, sums, all] = self.lead(call, |_| {
            let sums = self
                .table
                .zeros::<f64, _>((layout.tiles_of(self.index).len(), 1))?;
            let all = self.table.zeros::<f64, _>(layout.tiles())?;
            let tiles =
                self.table
                    .partition((x.write(), sums.per_tile()), Axis(0), layout.tile())?;
            let bits = tiles.handle().to_bits();
            self.keep((tiles, self.table.owned(sums), self.table.owned(all)));
            Ok([bits, sums.to_bits(), all.to_bits()])
        })?;
        type Sums = (
            ndshm::Write<f64, ndarray::Ix1>,
            ndshm::partition::PerTile<f64, Ix2>,
        );
        self.run_posted::<Sums>(bits, |tile| {
            let (mut x, mut sum) = tile.views();
            let mut total = 0.0;
            for x in &mut x {
                total += *x;
                *x = total;
            }
            sum[0] = total;
        })?;
        let (sums, all) = (
            Handle::<f64, Ix2>::from_bits(sums),
            Handle::<f64, ndarray::Ix1>::from_bits(all),
        );
        let gathered = Call::new(format_args!("prefix_sum, gathered"));
        let [tiles] = self.go_on(gathered, |leaders| {
            let mine = self.table.read(sums)?;
            let mut all = self.table.write(all)?;
            let all = all.as_slice_mut().unwrap_or_default();
            all_gather::<1>(leaders, &layout, pairs(&mine.view()), all);
            let tiles = self.table.partition(x.write(), Axis(0), layout.tile())?;
            let bits = tiles.handle().to_bits();
            self.keep(tiles);
            Ok([bits])
        })?;
        let starts = blocks::starts(self.table.read(all)?.as_slice().unwrap_or_default());
        let before = layout.tiles_of(self.index).start;
        self.run_posted::<ndshm::Write<f64, ndarray::Ix1>>(tiles, |tile| {
            let start = starts[before + tile.index()];
            tile.views().map_inplace(|x| *x += start);
        })?;
        Ok(starts[layout.tiles()])
    }

    /// Folds a value of each tile, in blocks of tiles.
    fn reduce<T: Real + Pod, D: Dimension + 'static, const W: usize>(
        &self,
        name: &str,
        x: &Rows<T, D>,
        of_tile: impl Fn(&[T]) -> [f64; W],
        add: impl Fn([f64; W], [f64; W]) -> [f64; W],
    ) -> Result<[f64; W]> {
        self.has(x)?;
        let layout = x.layout();
        let call = Call::new(format_args!("{name} of {x}"));
        let [tiles, partials] = self.lead_here(call, || {
            let partials = self
                .table
                .zeros::<f64, _>((layout.tiles_of(self.index).len(), W))?;
            let group = (x.read(), partials.per_tile());
            let tiles = self.table.partition(group, Axis(0), layout.tile())?;
            let bits = tiles.handle().to_bits();
            self.keep((tiles, self.table.owned(partials)));
            Ok([bits, partials.to_bits()])
        })?;
        type Partials<T, D> = (Read<T, D>, ndshm::partition::PerTile<f64, Ix2>);
        self.run_posted::<Partials<T, D>>(tiles, |tile| {
            let (x, mut partial) = tile.views();
            let value = of_tile(slice_of(&x));
            partial.assign(&Array1::from_iter(value));
        })?;
        let partials = Handle::<f64, Ix2>::from_bits(partials);
        let folded = self.go_on(call, |leaders| {
            let mine = self.table.read(partials)?;
            let folded = fold_blocks(leaders, &layout, pairs(&mine.view()), &add);
            Ok(folded.map(f64::to_bits))
        })?;
        Ok(folded.map(f64::from_bits))
    }
}

/// Returns the elements of a tile: whole rows of a row-major array.
fn slice_of<'a, T, D: Dimension>(tile: &'a ArrayView<'_, T, D>) -> &'a [T] {
    tile.as_slice().unwrap_or_default()
}

/// Returns the values of tiles, `W` each.
pub(crate) fn pairs<'a, const W: usize>(values: &'a ArrayView<'_, f64, Ix2>) -> &'a [[f64; W]] {
    values.as_slice().unwrap_or_default().as_chunks().0
}

/// Sends the values of tiles to the owners of their blocks, and folds the blocks of all nodes.
fn fold_blocks<const W: usize>(
    leaders: &Leaders,
    layout: &Layout,
    mine: &[[f64; W]],
    add: &impl Fn([f64; W], [f64; W]) -> [f64; W],
) -> [f64; W] {
    let comm = &leaders.comm;
    let node = comm.rank() as usize;
    let here = layout.tiles_of(node);
    let mut own = mine;
    // Values go to earlier nodes only, so the waiting ends.
    if let Some((owner, head)) = blocks::head(layout, node) {
        let (head, rest) = mine.split_at(head.len());
        comm.process_at_rank(owner as i32)
            .send_with_tag(head.as_flattened(), TO_OWNER);
        own = rest;
    }
    debug_assert!(own.is_empty() || (here.end - own.len()).is_multiple_of(blocks::BLOCK));
    let mut own = own.to_vec();
    for (other, tiles) in blocks::tails(layout, node) {
        let at = own.len();
        own.resize(at + tiles.len(), [0.0; W]);
        comm.process_at_rank(other as i32)
            .receive_into_with_tag(own[at..].as_flattened_mut(), TO_OWNER);
    }
    let folded = blocks::fold(&own, add);
    let mut all = vec![[0.0; W]; blocks::blocks(layout)];
    gather_parts(
        leaders,
        folded.as_flattened(),
        all.as_flattened_mut(),
        |node| {
            let blocks = blocks::owned(layout, node);
            W * blocks.start..W * blocks.end
        },
    );
    all.into_iter().reduce(add).unwrap_or([0.0; W])
}

/// Gathers the values of all tiles, in their order.
pub(crate) fn all_gather<const W: usize>(
    leaders: &Leaders,
    layout: &Layout,
    mine: &[[f64; W]],
    all: &mut [f64],
) {
    gather_parts(leaders, mine.as_flattened(), all, |node| {
        let tiles = layout.tiles_of(node);
        W * tiles.start..W * tiles.end
    });
}

/// Gathers the parts of all nodes, of which each has a known range.
fn gather_parts(
    leaders: &Leaders,
    mine: &[f64],
    all: &mut [f64],
    range: impl Fn(usize) -> std::ops::Range<usize>,
) {
    let ranges: Vec<_> = (0..leaders.comm.size() as usize).map(range).collect();
    let counts: Vec<i32> = ranges.iter().map(|range| range.len() as i32).collect();
    let places: Vec<i32> = ranges.iter().map(|range| range.start as i32).collect();
    let mut all = PartitionMut::new(all, counts, places);
    leaders.comm.all_gather_varcount_into(mine, &mut all);
}

/// Adds in eight chains, as the processor can, and then the chains.
fn sum_of<T: Real>(tile: &[T]) -> f64 {
    let (chunks, rest) = tile.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            let x: f64 = x.into();
            *sum += x;
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        let x: f64 = x.into();
        *sum += x;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Returns the sum of a partial relative to a greater element.
fn scaled([max, sum]: [f64; 2], to: f64) -> f64 {
    match sum == 0.0 || max == to {
        true => sum,
        false => sum * (max - to).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_elements_of_a_tile_are_added() {
        for len in [0, 1, 7, 8, 9, 100] {
            let tile: Vec<f32> = (0..len).map(|i| i as f32).collect();
            assert_eq!(sum_of(&tile), (len * (len.max(1) - 1) / 2) as f64);
        }
    }

    #[test]
    fn partials_of_log_sum_exp_are_scaled() {
        assert_eq!(scaled([f64::NEG_INFINITY, 0.0], f64::NEG_INFINITY), 0.0);
        assert_eq!(scaled([0.0, 2.0], 0.0), 2.0);
        assert!((scaled([0.0, 2.0], 1.0) - 2.0 / std::f64::consts::E).abs() < 1e-15);
    }
}
