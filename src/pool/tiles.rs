//! Calls that run a kernel on every tile of a partition.

use super::Pool;
use super::call::Request;
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel::{self, Captures, Trampoline};
use super::params::{Kernel, Output, Param};
use super::unit::Grain;
use crate::handle::AnyHandle;
use crate::partition::{Group, Partition};
use crate::pool::error::PoolError;

impl<'t> Pool<'t> {
    /// Runs `kernel` once on every tile.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// pool.for_each(&tiles, &2.0, |mut x, &factor, _tile| x *= factor)?;
    /// assert_eq!(table.read(x)?[99], 198.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Round`] if an array of the partition is leased, poisoned or freed.
    /// - [`PoolError::KernelPanicked`] if the kernel panics: the tile is torn, the others are done.
    /// - [`PoolError::WorkerDied`] if a worker dies: its tiles are torn, the others are done; see
    ///   [`OnFailure`](super::OnFailure) for the alternative.
    /// - [`PoolError::WorkerFailed`] if a worker cannot run the kernel.
    /// - [`PoolError::Deadline`] if the pool's [deadline](Pool::set_deadline) passes.
    /// - [`PoolError::Lease`] if the partition belongs to another segment.
    /// - [`PoolError::KernelNotInImage`] if the workers do not have the kernel's code.
    /// - [`PoolError::Forked`] in a forked child.
    /// - [`PoolError::Alloc`] if memory is missing.
    /// - The errors of starting workers, as in [`fork`](Pool::fork), if no worker is left.
    #[doc(alias("par_iter", "par_chunks_mut", "map", "parallel"))]
    #[track_caller]
    pub fn for_each<G, P, F, M>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
    ) -> Result<(), PoolError>
    where
        G: Group,
        P: Param<M>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_tiles::<G, P, (), F, M, _>(kernel);
        self.run_on(tiles, &params.bytes()?, kernel, Grain::Tile, None)
    }

    /// Runs `kernel` once on every tile. Returns the results in the order of the tiles.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let sums = pool.map_collect(&tiles, &(), |x, (), _tile| x.sum())?;
    /// assert_eq!(sums.len(), 10);
    /// assert_eq!(sums[0], 45.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each).
    #[doc(alias("map", "starmap", "gather", "MPI_Gather"))]
    #[track_caller]
    pub fn map_collect<G, P, R, F, MP, MR>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
    ) -> Result<Vec<R>, PoolError>
    where
        G: Group,
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_tiles::<G, P, R, F, MP, MR>(kernel);
        let results = CallMemory::results::<R, MR>(self.table, tiles.tiles())?;
        let (params, to) = (params.bytes()?, Some(results.handle()));
        self.run_on(tiles, &params, kernel, Grain::Tile, to)?;
        // SAFETY: the call has succeeded: its workers have written all results and checked out.
        unsafe { results.read_results(tiles.tiles()) }
    }

    /// Runs `kernel` once on every tile and folds the results in the order of the tiles. So
    /// floating-point results do not depend on scheduling.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let largest = pool.map_reduce(
    ///     &tiles,
    ///     &(),
    ///     |x, (), _tile| x.fold(f64::MIN, |a, &b| a.max(b)),
    ///     f64::MIN,
    ///     f64::max,
    /// )?;
    /// assert_eq!(largest, 99.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each).
    #[doc(alias("reduce", "sum", "fold", "MPI_Reduce"))]
    #[track_caller]
    pub fn map_reduce<G, P, R, F, A, MP, MR>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &P,
        kernel: F,
        init: A,
        fold: impl FnMut(A, R) -> A,
    ) -> Result<A, PoolError>
    where
        G: Group,
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
    {
        const { <Captures<F>>::NONE };
        let parts = self.map_collect(tiles, params, kernel)?;
        Ok(parts.into_iter().fold(init, fold))
    }

    pub(super) fn run_on<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        params: &[u8],
        kernel: Trampoline,
        grain: Grain,
        results: Option<AnyHandle>,
    ) -> Result<(), PoolError> {
        let request = Request {
            kernel: self.place_of(kernel)?,
            partition: tiles.handle().to_bits(),
            results,
            flags: 0,
        };
        let (round, mut call) = self.begin(tiles, params, request)?;
        self.wait(&round, &mut call);
        self.end(tiles, round, call, grain)
    }
}
