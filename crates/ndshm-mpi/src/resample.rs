//! Systematic resampling of rows over all nodes, in row order.

use bytemuck::Pod;
use ndarray::{Axis, Dimension, Ix1};
use ndshm::partition::PerTile;
use ndshm::primitives::{Real, SystematicPlan};
use ndshm::{Element, Handle, Read, WholeArray, Write};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::exchange::repeat_rows;
use crate::layout::common;
use crate::node::Node;
use crate::reduce::{all_gather, pairs};
use crate::rows::Rows;
use crate::traffic::Traffic;

impl Node {
    /// Replaces the rows of `next` by the offspring of the rows of `x`, by systematic resampling with
    /// the weights `weights`. Collective.
    ///
    /// The ancestors are those of [`Pool::resample_systematic`](ndshm::Pool::resample_systematic) on
    /// one machine, to the last bit. Ancestors do not decrease, so most rows stay on their node: with
    /// weights that do not degenerate, about the square root of the number of rows crosses to the
    /// neighbours. `u` is from [0, 1), the same number on all ranks.
    ///
    /// Nodes exchange one number for each tile of weights. If the weights are not in tiles of
    /// [`SystematicPlan::TILE`] rows, as [`rows`](Node::rows) makes them, they exchange all weights:
    /// for wide rows in small tiles, that is little.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let (x, next) = (node.rows::<f64, _>(10_000)?, node.rows::<f64, _>(10_000)?);
    /// let w = node.rows::<f64, _>(10_000)?;
    /// let tiles = node.partition(&x, (x.write(), w.write()))?;
    /// node.for_each(&tiles, |(mut x, mut w), tile| {
    ///     for ((row, x), w) in tile.rows().zip(&mut x).zip(&mut w) {
    ///         *x = row as f64;
    ///         *w = if row == 1234 { 1.0 } else { 0.0 };
    ///     }
    /// })?;
    /// node.resample_systematic(&w, 0.5, &x, &next)?;
    /// assert_eq!(node.min_max(&next)?, [1234.0, 1234.0]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// - [`Error::Argument`] if the arrays have different numbers of rows, or `x` is `next`.
    /// - [`Error::Ndshm`] with a [`PrimitiveError`](ndshm::error::PrimitiveError) for weights that are
    ///   negative, infinite or NaN, or all 0, and if `u` is not in [0, 1).
    /// - Same as [`sum`](Node::sum).
    pub fn resample_systematic<W, T, D>(
        &self,
        weights: &Rows<W, Ix1>,
        u: f64,
        x: &Rows<T, D>,
        next: &Rows<T, D>,
    ) -> Result<()>
    where
        W: Real + Pod,
        T: Element + Pod,
        D: Dimension + 'static,
    {
        self.has(weights)?;
        self.has(x).and_then(|()| self.has(next))?;
        let call = Call::new(format_args!(
            "resample_systematic of {x} by {weights} at {u:?} to {next}"
        ));
        let rows = [
            weights.layout().rows(),
            x.layout().rows(),
            next.layout().rows(),
        ];
        let mut fits = Ok(());
        if rows != [rows[0]; 3] || x.id == next.id || x.width() != next.width() {
            fits = Err(Error::Argument {
                call: call.text(),
                problem: format!(
                    "{} weights, {} rows of {} elements, and {} places: pass as many of each, and \
                     two arrays",
                    rows[0],
                    rows[1],
                    x.width(),
                    rows[2]
                ),
            });
        }
        let by_tile = weights.layout().tile() == SystematicPlan::TILE;
        let shared = match by_tile && weights.layout() == x.layout() {
            true => self.sums_by_tile(call, fits, weights)?,
            false => self.all_weights(call, fits, weights)?,
        };
        // Every rank makes the plan: it is arithmetic on one number per tile.
        let (plan, mut error) = {
            let sums = self.table.read(shared.sums)?;
            match SystematicPlan::new(sums.as_slice().unwrap_or_default(), u, rows[0]) {
                Ok(plan) => (Some(plan), None),
                Err(error) => (None, Some(error)),
            }
        };
        let exchange = Call::new(format_args!("resample_systematic, exchange"));
        let [tiles, start, end] = self.go_on(exchange, |_| {
            if let Some(error) = error.take() {
                // All ranks have it.
                return self.first_alone(Err(error));
            }
            let Some(plan) = &plan else {
                return Ok([0; 3]);
            };
            let all = self.table.read(shared.weights)?;
            let all = all.as_slice().unwrap_or_default();
            let borders = (0..self.count).map(|node| {
                let first = x.layout().rows_of(node).start;
                Traffic::border(plan, first, shared.first_tile, all)
            });
            let mut borders = borders.collect::<Result<Vec<_>>>()?;
            borders.push(plan.offspring());
            let traffic = Traffic::of_offspring(&next.layout(), &borders, self.index);
            let repeats = self.exchange_as_leader(&traffic, x, next, &mut |rows, ancestors| {
                Ok(plan.expand(rows, shared.first_tile, all, ancestors)?)
            })?;
            let repeats = match repeats {
                Some(repeats) => repeats,
                None => self.table.zeros::<u8, _>(1)?,
            };
            self.keep(self.table.owned(repeats));
            let group = (
                shared.weights.whole(),
                x.whole(),
                repeats.whole(),
                next.write(),
            );
            let tiles = self.table.partition(group, Axis(0), next.layout().tile())?;
            let bits = tiles.handle().to_bits();
            self.keep(tiles);
            Ok([bits, traffic.own().start as u64, traffic.own().end as u64])
        })?;
        let Some(plan) = plan else {
            // Not reached: then the leader has the error.
            return Err(Error::Elsewhere {
                rank: self.world_ranks[0],
            });
        };
        let offspring = start as usize..end as usize;
        type Resample<W, T, D> = (
            WholeArray<W, Ix1>,
            WholeArray<T, D>,
            WholeArray<u8, Ix1>,
            Write<T, D>,
        );
        let (here, width) = (next.range(), x.width());
        let first_tile = next.layout().tiles_of(self.index).start;
        let mut ancestors = Vec::new();
        let mut failed = None;
        self.run_posted::<Resample<W, T, D>>(tiles, |tile| {
            let rows = next.layout().rows_of_tile(first_tile + tile.index());
            let (weights, x_rows, repeats, mut next_rows) = tile.views();
            let (Some(weights), Some(from), Some(repeats), Some(to)) = (
                weights.as_slice(),
                x_rows.as_slice(),
                repeats.as_slice(),
                next_rows.as_slice_mut(),
            ) else {
                return;
            };
            let own = common(&rows, &offspring);
            ancestors.clear();
            ancestors.resize(own.len(), 0);
            if let Err(error) = plan.expand(own.clone(), shared.first_tile, weights, &mut ancestors)
            {
                failed.get_or_insert(error);
                return;
            }
            let first = x.range().start;
            let at = match own.is_empty() {
                true => 0,
                false => (own.start - rows.start) * width,
            };
            for (to, &ancestor) in to[at..].chunks_exact_mut(width.max(1)).zip(&ancestors) {
                let place = (ancestor as usize - first) * width;
                to.copy_from_slice(&from[place..place + width]);
            }
            if repeats.len() == here.len() {
                let local = rows.start - here.start..rows.end - here.start;
                repeat_rows(&repeats[local], to, width);
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Computes the sums of tiles of weights, and gathers them on each node.
    fn sums_by_tile<W: Real + Pod>(
        &self,
        call: Call,
        fits: Result<()>,
        weights: &Rows<W, Ix1>,
    ) -> Result<Shared<W>> {
        let layout = weights.layout();
        let own = layout.tiles_of(self.index);
        let [tiles, sums, all] = self.lead(call, |_| {
            self.first_alone(fits)?;
            let sums = self.table.zeros::<f64, _>((own.len(), 1))?;
            let all = self.table.zeros::<f64, _>(layout.tiles())?;
            let group = (weights.read(), sums.per_tile());
            let tiles = self.table.partition(group, Axis(0), layout.tile())?;
            let bits = tiles.handle().to_bits();
            self.keep((tiles, self.table.owned(sums), self.table.owned(all)));
            Ok([bits, sums.to_bits(), all.to_bits()])
        })?;
        type Sums<W> = (Read<W, Ix1>, PerTile<f64, ndarray::Ix2>);
        self.run_posted::<Sums<W>>(tiles, |tile| {
            let (weights, mut sum) = tile.views();
            let sums = SystematicPlan::sums(weights.as_slice().unwrap_or_default());
            sum[0] = sums.first().copied().unwrap_or(0.0);
        })?;
        let (sums, all) = (Handle::from_bits(sums), Handle::<f64, Ix1>::from_bits(all));
        self.go_on(
            Call::new(format_args!("resample_systematic, sums")),
            |leaders| {
                let mine = self.table.read(sums)?;
                let mut all = self.table.write(all)?;
                let all = all.as_slice_mut().unwrap_or_default();
                all_gather::<1>(leaders, &layout, pairs(&mine.view()), all);
                Ok([])
            },
        )
        .map(|[]| ())?;
        Ok(Shared {
            sums: all,
            weights: weights.handle(),
            first_tile: own.start,
        })
    }

    /// Gathers all weights on each node: their tiles are not those of the plan.
    fn all_weights<W: Real + Pod>(
        &self,
        call: Call,
        fits: Result<()>,
        weights: &Rows<W, Ix1>,
    ) -> Result<Shared<W>> {
        let [sums, all] = self.lead(call, |_| {
            self.first_alone(fits)?;
            let all = self.gather_in_segment(weights)?;
            self.keep(self.table.owned(all));
            let sums = {
                let all = self.table.read(all)?;
                SystematicPlan::sums(all.as_slice().unwrap_or_default())
            };
            let sums = self.table.from_array(&ndarray::Array1::from(sums))?;
            self.keep(self.table.owned(sums));
            Ok([sums.to_bits(), all.to_bits()])
        })?;
        Ok(Shared {
            sums: Handle::from_bits(sums),
            weights: Handle::from_bits(all),
            first_tile: 0,
        })
    }
}

/// The arrays and partitions of a resampling, which all ranks of a node use.
struct Shared<W> {
    /// The sums of all tiles of weights.
    sums: Handle<f64, Ix1>,
    /// The weights from a tile on.
    weights: Handle<W, Ix1>,
    first_tile: usize,
}
