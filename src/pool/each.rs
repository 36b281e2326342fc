//! Calls that run a kernel once in each worker.

use super::Pool;
use super::call::Request;
use super::call_memory::CallMemory;
use super::context::WorkerContext;
use super::kernel::{self, Captures};
use super::mailbox::Arguments;
use super::params::{Kernel, Output, Param};
use crate::error::Error;
use crate::pool::error::PoolError;

impl Pool<'_> {
    /// Runs `kernel` once in each worker, in all at the same time. The kernels may wait for each
    /// other at [barriers](WorkerContext::barrier). Returns their results in the order of the
    /// workers.
    ///
    /// In this style every worker runs the whole program, not one step of it. It suits loops with
    /// steps shorter than a call. Pass arrays as handles among the parameters, and write disjoint
    /// parts through [partitions](WorkerContext::for_each).
    ///
    /// ```
    /// use ndshm::{HandleTable, Pool, Segment};
    /// use ndarray::Axis;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>(100)?;
    /// let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.run(&tiles.handle(), |worker, &tiles| {
    ///     let tiles = worker.table().open_partition(tiles)?;
    ///     for step in 0..5 {
    ///         worker.for_each(&tiles, |mut x, _tile| x += step)?;   // a barrier on both sides
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(table.read(x)?.sum(), 1000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::WorkerFailed`] if a kernel returns an error or panics. This breaks the
    ///   barrier for the others.
    /// - [`PoolError::WorkerDied`] if a worker dies, which also breaks the barrier.
    /// - [`PoolError::Deadline`] if the pool's [deadline](Pool::set_deadline) passes.
    /// - [`PoolError::KernelNotInImage`], [`PoolError::Forked`] and [`PoolError::Alloc`] as in
    ///   [`for_each`](Pool::for_each).
    /// - The errors of starting workers, as in [`fork`](Pool::fork), if one cannot be replaced.
    #[doc(alias("spmd", "mpirun", "parallel_region"))]
    pub fn run<P, R, F, MP, MR>(&mut self, params: &P, kernel: F) -> Result<Vec<R>, PoolError>
    where
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(&WorkerContext<'_>, &P) -> Result<R, Error> + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_workers::<P, R, F, MP, MR>(kernel);
        let results = CallMemory::results::<R, MR>(self.table, self.workers())?;
        self.prepare()?;
        // A missing worker would never arrive at a barrier.
        self.start_missing(&|_, _| false)?;
        let base = self.mailbox.barrier().begin();
        let request = Request {
            kernel: self.place_of(kernel)?,
            partition: 0,
            results: Some(results.handle()),
            flags: base << Arguments::FLAGS,
        };
        let mut call = self.open(&params.bytes()?, request)?;
        let served = self.wait_for_all(base, &mut call);
        self.mailbox.close_job();
        self.wait_until_out(&mut call);
        let failures = self.failures(call.number);
        call.into_result(failures, served)?;
        // SAFETY: the call has succeeded: its workers have written all results and checked out.
        unsafe { results.read_results(self.workers()) }
    }

    /// Runs `kernel` once in each worker to set it up: opening files, reserving memory, loading a
    /// model. Returns the results in the order of the workers.
    ///
    /// A worker that replaces a dead one has not run the kernel. Call this again after
    /// [`PoolError::WorkerDied`], or if [`pids`](Pool::pids) have changed.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let numbers = pool.broadcast(&7_u64, |worker, &seven| seven + worker.worker() as u64)?;
    /// assert_eq!(numbers, [7, 8]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`run`](Pool::run).
    #[doc(alias("initializer", "MPI_Bcast"))]
    pub fn broadcast<P, R, F, MP, MR>(&mut self, params: &P, kernel: F) -> Result<Vec<R>, PoolError>
    where
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(&WorkerContext<'_>, &P) -> R + Kernel,
    {
        const { <Captures<F>>::NONE };
        /// Turns a kernel that cannot fail into one that returns a `Result`.
        fn infallible<P, R, F: Fn(&WorkerContext<'_>, &P) -> R + Copy>(
            kernel: F,
        ) -> impl Fn(&WorkerContext<'_>, &P) -> Result<R, Error> + Copy {
            move |worker, params| Ok(kernel(worker, params))
        }
        self.run::<P, R, _, MP, MR>(params, infallible::<P, R, F>(kernel))
    }
}
