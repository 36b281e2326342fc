//! Starting a pool with settings.

use core::time::Duration;

use super::image::Image;
use super::mailbox::Mailbox;
use super::shared::Shared;
use super::spin::{LONGEST, Spin};
use super::workers::{Backend, Workers};
use super::{OnFailure, Pool, stats};
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle_table::HandleTable;
use crate::pool::error::PoolError;

/// The settings of a pool before its start; see [`Pool::builder`].
///
/// The last call of the chain starts the workers: [`fork`](PoolBuilder::fork),
/// [`spawn`](PoolBuilder::spawn), [`threads`](PoolBuilder::threads), or none:
/// [`serial`](PoolBuilder::serial). The table at [`Pool`] compares
/// them.
///
/// ```
/// use std::time::Duration;
/// use ndshm::{HandleTable, OnFailure, Pool, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let pool = Pool::builder()
///     .workers(2)
///     .seed(42)
///     .deadline(Duration::from_secs(60))
///     .on_failure(OnFailure::RunAgain)
///     .threads(&table)?;
/// assert_eq!((pool.workers(), pool.seed()), (2, 42));
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder starts no workers"]
pub struct PoolBuilder {
    workers: Option<usize>,
    seed: Option<u64>,
    deadline: Option<Duration>,
    on_failure: OnFailure,
    spin: Option<Duration>,
}

impl PoolBuilder {
    /// Creates a builder with a worker for each processor, a seed from the system, no deadline, and
    /// [`OnFailure::Fail`].
    ///
    /// [`PoolBuilder`] has an example.
    pub fn new() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// Sets the number of workers. Without it there is one for each processor that this process may
    /// use, or fewer if the segment has fewer seats.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let pool = Pool::builder().workers(2).threads(&table)?;
    /// assert_eq!(pool.workers(), 2);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> PoolBuilder {
        self.workers = Some(workers);
        self
    }

    /// Sets the seed of the random streams; see [`Pool::set_seed`].
    ///
    /// [`PoolBuilder`] has an example.
    pub fn seed(mut self, seed: u64) -> PoolBuilder {
        self.seed = Some(seed);
        self
    }

    /// Sets the time limit of calls. A call that takes longer fails, and its round is abandoned.
    ///
    /// Dead workers are noticed in any case: 10 ms after a death during a call, otherwise at the
    /// next call.
    ///
    /// [`PoolBuilder`] has an example.
    pub fn deadline(mut self, deadline: Duration) -> PoolBuilder {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the reaction to panics and deaths during a call.
    ///
    /// [`PoolBuilder`] has an example.
    pub fn on_failure(mut self, policy: OnFailure) -> PoolBuilder {
        self.on_failure = policy;
        self
    }

    /// Sets how long a waiting parent or worker spins before it sleeps, from 0 to 10 ms.
    ///
    /// Without it, a wait spins for 2 µs and then offers its processor to others some hundred times,
    /// about 50 µs in all, and less while other programs want the processors. Waking a sleeper takes
    /// 30 to 100 µs. A longer spin suits a pool with a processor for each worker and for the parent
    /// that no other program uses, if the parent has other work between its calls: with a spin of 2 ms,
    /// a call after a pause of 1 ms is as fast as one without a pause. A spinning worker uses its
    /// processor fully. It does not offer it to others, so if there are fewer processors than
    /// processes, calls become slower, by up to the spin in each wait.
    ///
    /// With a spin of 0 a wait sleeps at once, for programs that must leave the processors to others.
    ///
    /// Deaths are noticed later by the length of the spin. It applies also to the
    /// [barriers](crate::WorkerContext::barrier) of [`Pool::run`].
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use std::time::Duration;
    ///
    /// let spin = Duration::from_millis(2);
    /// let mut pool = Pool::builder().workers(1).spin(spin).threads(&table)?;
    /// assert_eq!(pool.broadcast(&(), |worker, ()| worker.worker())?, [0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// The start of the pool returns [`PoolError::Spin`] if the time is longer than 10 ms.
    #[doc(alias("busy_wait", "poll", "latency", "KMP_BLOCKTIME"))]
    pub fn spin(mut self, time: Duration) -> PoolBuilder {
        self.spin = Some(time);
        self
    }

    /// Starts threads of this process as workers.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let mut pool = Pool::builder().workers(2).threads(&table)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// pool.fill(x, 1.0)?;
    /// assert_eq!(table.read(x)?.sum(), 100.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Pool::threads`].
    pub fn threads(self, table: &HandleTable) -> Result<Pool<'_>, PoolError> {
        self.start(table, Backend::Threads)
    }

    /// Starts the workers of `backend`.
    pub(crate) fn start(
        self,
        table: &HandleTable,
        backend: Backend,
    ) -> Result<Pool<'_>, PoolError> {
        table.core.enter()?;
        let seats = table.segment().max_seats();
        let workers = match backend.is_serial() {
            true => 1,
            false => self.workers.unwrap_or_else(|| {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                processors.min((seats as usize).saturating_sub(1))
            }),
        };
        // The caller of a serial pool has its seat already.
        if !backend.is_serial() && (workers == 0 || workers >= seats as usize) {
            return Err(PoolError::Workers { workers, seats });
        }
        if let Some(spin) = self.spin.filter(|&spin| spin > LONGEST) {
            let limit = LONGEST;
            return Err(PoolError::Spin { spin, limit });
        }
        backend.check_segment(table.segment())?;
        let image = Image::of_this_process().map_err(|error| PoolError::System {
            what: "read /proc/self/maps",
            error,
        })?;
        let words = Mailbox::words(workers);
        let reserved = table.core.reserve((words * 8) as u64)?;
        let memory = table.segment().memory();
        let Some(mailbox) = Mailbox::open(memory, reserved.extent, workers) else {
            return Err(table.core.abandon_damaged(reserved).into());
        };
        mailbox.clear();
        if let Some(time) = self.spin {
            mailbox.set_spin(time);
        }
        let shared = Shared {
            mailbox: table.core.publish_control(reserved, |descriptor| {
                Descriptor::control(ControlKind::Pool, words).store(descriptor);
            }),
            workers,
        };
        let mut pool = Pool {
            table,
            shared,
            mailbox,
            _lease: table.core.lease_shared(shared.mailbox)?,
            workers: Workers::new(backend, workers),
            image,
            spin: Spin::of_parent(workers, mailbox.crowded()),
            seed: self
                .seed
                .unwrap_or_else(crate::segment::fork::random_nonzero),
            deadline: self.deadline,
            on_failure: self.on_failure,
            stats: stats::Profile::default(),
            calls: 0,
            deaths: 0,
            token: table.core.token(),
        };
        pool.start_missing(&|_, _| false)?;
        if backend.may_fail_to_start() {
            pool.await_all()?;
        }
        Ok(pool)
    }
}
