//! Pools of worker processes.

use super::{Backend, fork, spawn};
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;
use crate::pool::{Pool, PoolBuilder};

impl<'t> Pool<'t> {
    /// Forks `workers` worker processes.
    ///
    /// Call this before the process starts any thread (including rayon's). A worker has only the
    /// calling thread, and locks that other threads hold stay locked in it. The workers end with
    /// the thread that called this.
    ///
    /// The next call replaces a dead worker by another fork. If the process runs threads or holds a
    /// lease by then, the pool continues with the remaining workers. It fails with
    /// [`PoolError::Threads`] or [`PoolError::LeaseHeld`] when none is left.
    ///
    /// A worker may start a pool of its own in a kernel of [`run`](Pool::run) or
    /// [`broadcast`](Pool::broadcast).
    ///
    /// ```standalone_crate
    /// use ndarray::Axis;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// fn main() -> ndshm::Result<()> {
    ///     let table = HandleTable::join(&Segment::anonymous()?)?;
    ///     let mut pool = Pool::fork(&table, 2)?;               // before any thread starts
    ///     let x = table.zeros::<u32, _>(100)?;
    ///     let tiles = table.partition(x.write(), Axis(0), 10)?;
    ///     pool.for_each(&tiles, &(), |mut x, (), _tile| x.fill(std::process::id()))?;
    ///     assert!(table.read(x)?.iter().all(|&pid| pid != std::process::id()));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Threads`] if this process runs several threads.
    /// - [`PoolError::LeaseHeld`] if any table of this process holds a lease of an array, because a
    ///   worker would copy the guard.
    /// - [`PoolError::Workers`] for 0 workers, or if the segment has too few seats.
    /// - [`PoolError::InProcess`] for an in-process segment.
    /// - [`PoolError::Alloc`] or [`PoolError::System`] if memory or processes are missing.
    pub fn fork(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).fork(table)
    }

    /// Forks `workers` worker processes from a process that runs threads; see [`fork`](Pool::fork).
    ///
    /// ```standalone_crate
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// fn main() -> ndshm::Result<()> {
    ///     let table = HandleTable::join(&Segment::anonymous()?)?;
    ///     let (ready, started) = std::sync::mpsc::channel();
    ///     let idle = std::thread::spawn(move || ready.send(()).map(|()| std::thread::park()));
    ///     started.recv().expect("it sends");
    ///     // SAFETY: the other thread takes no lease, and no lock that a kernel takes. Kernels do not
    ///     // need it.
    ///     let mut pool = unsafe { Pool::fork_with_threads(&table, 2) }?;
    ///     let x = table.from_elem(100, 0.5_f64)?;
    ///     assert_eq!(pool.sum(x)?, 50.0);
    ///     idle.thread().unpark();
    ///     idle.join().unwrap().unwrap();
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Safety
    /// Whenever the pool forks (here, and at every call after a worker has died):
    /// - No other thread holds a lock that a kernel or this crate takes in the worker: locks of the
    ///   allocator (glibc frees its own in the child, others may not), of the environment, of
    ///   standard streams, and of the program.
    /// - No other thread takes a lease at that moment and puts the lent data where a kernel can
    ///   reach it, such as a static.
    ///
    /// Kernels use nothing that needs the other threads: a rayon pool that the parent has started,
    /// an async runtime, a logger with a thread.
    ///
    /// The fork takes the lock of standard output and flushes it. C's streams are not flushed: text
    /// in their buffers may appear once more for each worker that prints through them.
    ///
    /// # Errors
    /// Same as [`fork`](Pool::fork), except `Threads`.
    pub unsafe fn fork_with_threads(
        table: &'t HandleTable,
        workers: usize,
    ) -> Result<Pool<'t>, PoolError> {
        let builder = Pool::builder().workers(workers);
        // SAFETY: the caller's duty.
        unsafe { builder.fork_with_threads(table) }
    }

    /// Starts this program anew as `workers` worker processes.
    ///
    /// The program's `main` must begin with [`become_worker`], which turns such a process into a
    /// worker. Kernels are found by their place in the program's file; both sides verify that it is
    /// the same file. A worker has the segment and the environment, and nothing else that the
    /// parent has computed or set. It reads nothing from the standard input. The call takes a few
    /// milliseconds and returns when all workers are ready. They end with the thread that called
    /// this.
    ///
    /// A closure may capture values of size zero, and a worker makes its copies of them without any
    /// bytes. **Do not capture a value that proves something about this process**, such as a token
    /// that a function returns after it has initialised a static: in a spawned worker that function
    /// has not run. Call it in the kernel, or once in each worker by
    /// [`broadcast`](Pool::broadcast). Code must not hand kernels of spawned workers a token on
    /// which its soundness depends.
    ///
    /// ```standalone_crate
    /// use ndarray::Axis;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// fn main() -> ndshm::Result<()> {
    ///     ndshm::become_worker();                              // a worker does not return from here
    ///     std::thread::spawn(|| ()).join().unwrap();           // threads are no problem
    ///     let table = HandleTable::join(&Segment::anonymous()?)?;
    ///     let mut pool = Pool::spawn(&table, 2)?;
    ///     let x = table.zeros::<u32, _>(100)?;
    ///     let tiles = table.partition(x.write(), Axis(0), 10)?;
    ///     pool.for_each(&tiles, &(), |mut x, (), _tile| x.fill(std::process::id()))?;
    ///     assert!(table.read(x)?.iter().all(|&pid| pid != std::process::id()));
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::WorkerNotStarted`] if a worker does not become ready, for example because
    ///   `main` does not call [`become_worker`].
    /// - [`PoolError::NotAWorker`] in a process that should itself have become a worker, and in its
    ///   children.
    /// - [`PoolError::SetUserId`] if the program runs with more rights than its parent.
    /// - [`PoolError::InProcess`], [`PoolError::Workers`], [`PoolError::Alloc`] and
    ///   [`PoolError::System`] as in [`fork`](Pool::fork).
    ///
    /// [`become_worker`]: crate::become_worker
    pub fn spawn(table: &'t HandleTable, workers: usize) -> Result<Pool<'t>, PoolError> {
        Pool::builder().workers(workers).spawn(table)
    }

    /// Starts a pool without workers: each call runs its kernel in the calling thread, tile by
    /// tile. The results are those of any other pool with the same [seed](Pool::seed), to the last
    /// bit.
    ///
    /// This is the reference for a pool of workers, and the place to debug a kernel: a breakpoint,
    /// `dbg!` or a profiler sees it in the caller's thread, in the order of the tiles. All calls of
    /// a pool work. In those that run once in each worker ([`run`](Pool::run),
    /// [`broadcast`](Pool::broadcast)) there is one.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::rand_core::Rng;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let draw = |mut pool: Pool<'_>| {
    ///     let x = table.zeros::<u64, _>(100)?;
    ///     let tiles = table.partition(x.write(), Axis(0), 7)?;
    ///     pool.for_each(&tiles, &(), |mut x, (), tile| {
    ///         let mut rng = tile.rng();
    ///         x.mapv_inplace(|_| rng.next_u64());
    ///     })?;
    ///     Ok::<_, ndshm::Error>(table.read(x)?.to_owned())
    /// };
    /// let expected = draw(Pool::builder().seed(42).serial(&table)?)?;
    /// assert_eq!(draw(Pool::builder().seed(42).workers(3).threads(&table)?)?, expected);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// A panic of the kernel is an error of the call, as in other pools. A kernel that ends the
    /// process ends the program, and a [deadline](Pool::set_deadline) does not interrupt a kernel.
    /// In a [started](Pool::start) call, the tiles run when the parent waits for them.
    ///
    /// # Errors
    /// [`PoolError::Alloc`], [`PoolError::Join`] and [`PoolError::System`] as in
    /// [`fork`](Pool::fork).
    #[doc(alias = "sequential")]
    pub fn serial(table: &'t HandleTable) -> Result<Pool<'t>, PoolError> {
        Pool::builder().serial(table)
    }
}

impl PoolBuilder {
    /// Starts no workers: the calling thread runs the kernels. The number of
    /// [workers](PoolBuilder::workers) does not matter.
    ///
    /// [`Pool::serial`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::serial`].
    pub fn serial(self, table: &HandleTable) -> Result<Pool<'_>, PoolError> {
        self.start(table, Backend::Serial)
    }

    /// Forks the workers.
    ///
    /// [`Pool::fork`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::fork`].
    pub fn fork(self, table: &HandleTable) -> Result<Pool<'_>, PoolError> {
        fork::refuse_threads()?;
        self.start(table, Backend::Fork)
    }

    /// Forks the workers from a process that runs threads.
    ///
    /// [`Pool::fork_with_threads`] has an example.
    ///
    /// # Safety
    /// Same as [`Pool::fork_with_threads`].
    ///
    /// # Errors
    /// Same as [`Pool::fork_with_threads`].
    pub unsafe fn fork_with_threads(self, table: &HandleTable) -> Result<Pool<'_>, PoolError> {
        self.start(table, Backend::ForkAnyway)
    }

    /// Starts this program anew as each worker.
    ///
    /// [`Pool::spawn`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::spawn`].
    pub fn spawn(self, table: &HandleTable) -> Result<Pool<'_>, PoolError> {
        spawn::refuse_unserved()?;
        self.start(table, Backend::Spawn)
    }
}
