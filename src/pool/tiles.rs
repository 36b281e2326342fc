//! Calls that run a kernel on every tile of a partition.

use super::Pool;
use super::call::Request;
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel::{self, Captures, Trampoline};
use super::params::{Kernel, Output, Param};
use crate::handle::AnyHandle;
use crate::partition::{Group, Partition};
use crate::pool::error::PoolError;

impl<'t> Pool<'t> {
    /// Runs `kernel` once on every tile.
    ///
    /// # Errors
    /// - [`PoolError::Round`] if an array of the partition is leased, poisoned or freed.
    /// - [`PoolError::KernelPanicked`] if the kernel panics: the tile is torn, the others are done.
    /// - [`PoolError::WorkerDied`] if a worker dies: its tiles are torn, the others are done; see
    ///   [`OnDeath`](super::OnDeath) for the alternative.
    /// - [`PoolError::WorkerFailed`] if a worker cannot run the kernel.
    /// - [`PoolError::Deadline`] if the pool's [deadline](Pool::set_deadline) passes.
    /// - [`PoolError::Lease`] if the partition belongs to another segment.
    /// - [`PoolError::KernelNotInImage`] if the workers do not have the kernel's code.
    /// - [`PoolError::Forked`] in a forked child.
    /// - [`PoolError::Alloc`] if memory is missing.
    /// - The errors of starting workers, as in [`fork`](Pool::fork), if no worker is left.
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
        self.run_on(tiles, &params.bytes()?, kernel, None)
    }

    /// Runs `kernel` once on every tile. Returns the results in the order of the tiles.
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each).
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
        self.run_on(tiles, &params.bytes()?, kernel, Some(results.handle()))?;
        // SAFETY: the call has succeeded: its workers have written all results and checked out.
        unsafe { results.read_results(tiles.tiles()) }
    }

    /// Runs `kernel` once on every tile and folds the results in the order of the tiles. So
    /// floating-point results do not depend on scheduling.
    ///
    /// # Errors
    /// Same as [`for_each`](Pool::for_each).
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
        self.end(tiles, round, call)
    }
}
