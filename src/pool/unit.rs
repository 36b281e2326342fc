//! Calls that run a kernel on units of tiles: several tiles in one view.

use core::ops::Range;

use super::Pool;
use super::context::{TileContext, WorkerContext};
use super::kernel::{self, Captures};
use super::params::{Kernel, Param};
use crate::error::Error;
use crate::partition::{Group, Partition, RoundMember, UnitOf};
use crate::pool::error::PoolError;

/// The context of a kernel that runs on a unit of tiles; see [`Pool::for_each_unit`].
///
/// ```
/// use ndarray::Axis;
/// use ndshm::{HandleTable, Pool, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>(8 * 5000)?;
/// let tiles = table.partition(x.write(), Axis(0), 8)?;
/// let mut pool = Pool::threads(&table, 2)?;
/// pool.for_each_unit(&tiles, &(), |mut x, (), unit| {
///     assert!(unit.worker() < 2);
///     assert_eq!((unit.call(), unit.step()), (1, 0));
///     assert_eq!(x.len(), unit.range().len());
///     assert_eq!(unit.tiles().len(), unit.indices().len());
///     for (mut tile, context) in x.axis_chunks_iter_mut(Axis(0), 8).zip(unit.tiles()) {
///         tile.fill(context.index() as f64);
///     }
/// })?;
/// assert_eq!(table.read(x)?[8 * 4321], 4321.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Debug)]
pub struct UnitContext<'p> {
    pub(super) unit: UnitOf<'p>,
    pub(super) worker: usize,
    pub(super) call: u64,
    pub(super) seed: u64,
    /// Barriers that the call passed before this round; 0 for a call with one round.
    pub(super) step: u64,
}

impl<'p> UnitContext<'p> {
    /// Returns the context of each tile of the unit, in their order: its index, its range, its
    /// random stream. They are those that [`for_each`](Pool::for_each) passes.
    ///
    /// [`UnitContext`] has an example.
    pub fn tiles(&self) -> impl ExactSizeIterator<Item = TileContext<'p>> {
        let &UnitContext {
            unit,
            worker,
            call,
            seed,
            step,
        } = self;
        unit.tiles().map(move |tile| TileContext {
            tile,
            worker,
            call,
            seed,
            step,
            run: 0,
        })
    }

    /// Returns the indices of the unit's tiles in the partition.
    ///
    /// [`UnitContext`] has an example.
    pub fn indices(&self) -> Range<usize> {
        self.unit.first..self.unit.last + 1
    }

    /// Returns the indices that the unit covers along the first divided axis.
    ///
    /// [`UnitContext`] has an example.
    pub fn range(&self) -> Range<usize> {
        self.unit.rows()
    }

    /// Returns the number of the kernel's worker, from 0. Results should not depend on it.
    ///
    /// [`UnitContext`] has an example.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of this call on the pool, from 1.
    ///
    /// [`UnitContext`] has an example.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// Returns the step of this round within the call; see [`TileContext::step`].
    ///
    /// [`UnitContext`] has an example.
    pub fn step(&self) -> u64 {
        self.step
    }
}

impl Pool<'_> {
    /// Runs `kernel` once on every unit of tiles. The kernel gets all tiles of a unit as one view, and
    /// divides it itself. This suits tiles that take less than a microsecond.
    ///
    /// A *unit* is up to 16 consecutive tiles that a worker claims together. In a partition of up to
    /// 2,048 tiles each tile is a unit. The view covers a unit if one axis is cut into blocks, bounds
    /// or weights. If several are, the kernel gets the tiles of a unit that lie side by side along the
    /// last cut axis, and then the others. Of a cyclic division it gets each tile alone. Of an array
    /// with [a row for each tile](crate::Handle::per_tile) the kernel gets the rows of the tiles.
    ///
    /// Results must not depend on which tiles are in one unit: it depends on the number of tiles, and
    /// tiles of a unit that were run before are missing when it is run again.
    ///
    /// The guarantees are those of [`for_each`](Pool::for_each), for the tiles of a unit together: if
    /// the kernel panics or its worker dies, all tiles that it got are torn. The error has their rows,
    /// [`recover`](Partition::recover) repairs each of them, and
    /// [`OnFailure::RunAgain`](crate::OnFailure::RunAgain) runs them again. [`stats`](Pool::stats)
    /// counts tiles.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// // 5000 environments, each with a state of 8 numbers and a count.
    /// let states = table.from_elem((5000, 8), 1.0)?;
    /// let counts = table.zeros::<u64, _>(5000)?;
    /// let tiles = table.partition((states.write(), counts.per_tile()), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    ///
    /// pool.for_each_unit(&tiles, &0.5, |(mut states, mut counts), &factor, _unit| {
    ///     states *= factor;                                // of all tiles at once
    ///     for (state, count) in states.rows().into_iter().zip(&mut counts) {
    ///         *count += u64::from(state.sum() < 5.0);      // tile by tile
    ///     }
    /// })?;
    /// assert_eq!(table.read(counts)?.sum(), 5000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each).
    #[doc(alias("chunks", "batch", "vectorized", "par_chunks_mut"))]
    #[track_caller]
    pub fn for_each_unit<G, P, F, M>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
    ) -> Result<(), PoolError>
    where
        G: Group,
        P: Param<M>,
        F: Fn(G::UnitViews<'_>, &P, &UnitContext<'_>) + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_units::<G, P, F, M>(kernel);
        self.run_on(tiles, &params.bytes()?, kernel, Grain::Unit, None)
    }
}

/// The tiles that a call of a kernel gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    Tile,
    Unit,
}

impl WorkerContext<'_> {
    /// Runs `body` on the units of tiles of `tiles`, which all workers of the call share, in a round
    /// between two barriers: [`for_each`](WorkerContext::for_each) with the views of
    /// [`Pool::for_each_unit`].
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>((5000, 3))?;
    /// let tiles = table.partition(x.write(), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.run(&tiles.handle(), |worker, &tiles| {
    ///     let tiles = worker.table().open_partition(tiles)?;
    ///     for _ in 0..3 {
    ///         worker.for_each_unit(&tiles, |mut x, _unit| x += 1)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(table.read(x)?.sum(), 45_000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`for_each`](WorkerContext::for_each).
    #[track_caller]
    pub fn for_each_unit<G: Group>(
        &self,
        tiles: &Partition<'_, G>,
        mut body: impl FnMut(G::UnitViews<'_>, &UnitContext<'_>),
    ) -> Result<(), Error> {
        self.in_round(tiles, |part| self.on_units(part, &mut body))
    }

    /// Runs `body` on each unit of tiles that `part` can claim.
    #[track_caller]
    pub(super) fn on_units<G: Group>(
        &self,
        part: &mut RoundMember<'_, '_, G>,
        body: &mut impl FnMut(G::UnitViews<'_>, &UnitContext<'_>),
    ) -> Result<(), Error> {
        let step = self.step();
        while let Some(mut unit) = part.claim_whole_unit()? {
            let context = UnitContext {
                unit: unit.unit_of(),
                worker: self.worker,
                call: self.call,
                seed: self.seed,
                step,
            };
            body(unit.views(), &context);
        }
        Ok(())
    }
}
