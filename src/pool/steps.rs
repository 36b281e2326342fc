//! Calls in a row on one partition, whose workers stay in the round in between.

use core::time::Duration;

use super::call::{ActiveCall, LOOK_EVERY, PollTimer, Request};
use super::call_memory::CallMemory;
use super::context::TileContext;
use super::kernel::{self, Captures, Trampoline};
use super::mailbox::Arguments;
use super::params::{Kernel, Output, Param};
use super::stay::{self, Entry};
use super::unit::{Grain, UnitContext};
use super::{Pool, is_failed_model, trace};
use crate::handle::AnyHandle;
use crate::partition::{Group, Partition, Round};
use crate::pool::error::PoolError;
use crate::sync::time::Interval;

/// The longest wait for workers to leave a kept round. Only workers that are stopped take so long.
const LEAVE: Duration = Duration::from_secs(10);

/// Calls in a row on the tiles of one partition: [`Pool::steps`].
///
/// A call of a pool leases the arrays and releases them, and each worker opens the partition and enters
/// its round. For a kernel of a few microseconds this is most of the time. The calls of a `Steps` do it
/// once: the round is kept open from the first call on, and each further call is its next round. They
/// are the pool's calls in all other respects. They have numbers, random streams, deadlines and
/// policies of failure.
///
/// From the first call until this value is dropped, nobody can read or write the arrays in between. A
/// call that fails, or in which a worker dies, ends the kept round, and leaves the arrays as a failed
/// call of the pool does. The next call begins anew.
///
/// ```
/// use ndshm::{HandleTable, Pool, Segment};
/// use ndarray::Axis;
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let (x, v) = (table.zeros::<f64, _>(1000)?, table.from_elem(1000, 2.0)?);
/// let tiles = table.partition((x.write(), v.write()), Axis(0), 250)?;
/// let mut pool = Pool::threads(&table, 2)?;
///
/// let mut steps = pool.steps(&tiles);
/// for _ in 0..100 {
///     steps.for_each(&0.01, |(mut x, v), &dt, _tile| x.scaled_add(dt, &v))?;
///     steps.for_each(&0.99, |(_, mut v), &drag, _tile| v *= drag)?;
/// }
/// let fastest = steps.map_reduce(&(), |(_, v), (), _tile| v[0], 0.0, f64::max)?;
/// assert!(table.read(x).is_err());                         // the round is open
/// drop(steps);
/// assert!(fastest < 1.0 && table.read(x)?[999] > 1.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "steps without a call do nothing"]
pub struct Steps<'a, 'p, 'r, 't, G: Group> {
    pool: &'a mut Pool<'t>,
    tiles: &'p Partition<'r, G>,
    /// The round of the last call.
    round: Option<Round<'p, 'r, G>>,
    /// The number of the kept round, in which workers may be.
    kept: Option<u64>,
    /// The checks for dead workers before calls.
    look: Interval,
}

impl<'t> Pool<'t> {
    /// Returns a value that makes calls in a row on `tiles`, faster than calls of the pool.
    ///
    /// With two workers an empty call takes a quarter of the time. [`Steps`] describes the price.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut steps = pool.steps(&tiles);
    /// for factor in [2.0, 3.0] {
    ///     steps.for_each(&factor, |mut x, &factor, _tile| x *= factor)?;
    /// }
    /// drop(steps);                                         // from here on `x` can be read
    /// assert_eq!(table.read(x)?[99], 594.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("persistent", "parallel_region", "MPI_Start", "loop"))]
    pub fn steps<'a, 'p, 'r, G: Group>(
        &'a mut self,
        tiles: &'p Partition<'r, G>,
    ) -> Steps<'a, 'p, 'r, 't, G> {
        Steps {
            pool: self,
            tiles,
            round: None,
            kept: None,
            look: Interval::new(LOOK_EVERY),
        }
    }
}

impl<G: Group> Steps<'_, '_, '_, '_, G> {
    /// Runs `kernel` once on every tile, as [`Pool::for_each`] does.
    ///
    /// [`Steps`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::for_each`].
    #[track_caller]
    pub fn for_each<P, F, M>(&mut self, params: &P, kernel: F) -> Result<(), PoolError>
    where
        P: Param<M>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_tiles::<G, P, (), F, M, _>(kernel);
        self.call(&params.bytes()?, kernel, Grain::Tile, None)
    }

    /// Runs `kernel` once on every unit of tiles, as [`Pool::for_each_unit`] does.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>(5000)?;
    /// let tiles = table.partition(x.write(), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// let mut steps = pool.steps(&tiles);
    /// for _ in 0..3 {
    ///     steps.for_each_unit(&(), |mut x, (), _unit| x += 1)?;
    /// }
    /// drop(steps);
    /// assert_eq!(table.read(x)?.sum(), 15_000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Pool::for_each`].
    #[track_caller]
    pub fn for_each_unit<P, F, M>(&mut self, params: &P, kernel: F) -> Result<(), PoolError>
    where
        P: Param<M>,
        F: Fn(G::UnitViews<'_>, &P, &UnitContext<'_>) + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_units::<G, P, F, M>(kernel);
        self.call(&params.bytes()?, kernel, Grain::Unit, None)
    }

    /// Runs `kernel` once on every tile, and returns the results in the order of the tiles, as
    /// [`Pool::map_collect`] does.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// let mut steps = pool.steps(&tiles);
    /// steps.for_each(&(), |mut x, (), _tile| x += 1.0)?;
    /// assert_eq!(steps.map_collect(&(), |x, (), _tile| x[0])?[..3], [1.0, 11.0, 21.0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Pool::for_each`].
    #[track_caller]
    pub fn map_collect<P, R, F, MP, MR>(
        &mut self,
        params: &P,
        kernel: F,
    ) -> Result<Vec<R>, PoolError>
    where
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
    {
        const { <Captures<F>>::NONE };
        let kernel = kernel::on_tiles::<G, P, R, F, MP, MR>(kernel);
        let tiles = self.tiles.tiles();
        let results = CallMemory::results::<R, MR>(self.pool.table, tiles)?;
        let to = Some(results.handle());
        self.call(&params.bytes()?, kernel, Grain::Tile, to)?;
        // SAFETY: the call has succeeded: its workers have written all results and checked out.
        unsafe { results.read_results(tiles) }
    }

    /// Runs `kernel` once on every tile and folds the results in the order of the tiles, as
    /// [`Pool::map_reduce`] does.
    ///
    /// [`Steps`] has an example.
    ///
    /// # Errors
    /// Same as [`Pool::for_each`].
    #[track_caller]
    pub fn map_reduce<P, R, F, A, MP, MR>(
        &mut self,
        params: &P,
        kernel: F,
        init: A,
        fold: impl FnMut(A, R) -> A,
    ) -> Result<A, PoolError>
    where
        P: Param<MP>,
        R: Output<MR>,
        F: Fn(G::Views<'_>, &P, &TileContext<'_>) -> R + Kernel,
    {
        const { <Captures<F>>::NONE };
        let parts = self.map_collect(params, kernel)?;
        Ok(parts.into_iter().fold(init, fold))
    }

    /// Runs a kernel in the next round. Keeps the round if nothing has gone wrong in it.
    fn call(
        &mut self,
        params: &[u8],
        kernel: Trampoline,
        grain: Grain,
        results: Option<AnyHandle>,
    ) -> Result<(), PoolError> {
        let kernel = self.pool.place_of(kernel)?;
        let round = self.next_round()?;
        let request = Request {
            kernel,
            partition: self.tiles.handle().to_bits(),
            results,
            flags: self.kept.map_or(0, Arguments::in_kept_round),
        };
        let mut call = match self.pool.open(params, request) {
            Ok(call) => call,
            Err(error) => {
                self.round = Some(round);
                self.end();
                return Err(error);
            }
        };
        self.pool.wait(&round, &mut call);
        self.pool.close(&mut call)?;
        let is_calm = call.deaths.is_empty() && call.failures.is_empty();
        if round.is_counted() && is_calm && !self.pool.any_failed(call.number) {
            trace::ended(call.number, false);
            self.round = Some(round);
            return Ok(());
        }
        // A worker that is still in its kernel was waited for long enough.
        self.leave(!self.pool.is_any_in());
        self.pool.result_of(self.tiles, round, call, grain)
    }
}

impl<'p, 'r, G: Group> Steps<'_, 'p, 'r, '_, G> {
    /// Goes on to the next round, or opens the first one.
    fn next_round(&mut self) -> Result<Round<'p, 'r, G>, PoolError> {
        self.pool.check_ours()?;
        if self.look.is_due() && !self.pool.collect_dead().is_empty() {
            // Replacements of the dead start before the arrays are leased again.
            self.end();
        }
        if let Some(round) = self.round.take() {
            // A round with open tiles is not kept, so this one has none.
            let next = round
                .try_next()
                .unwrap_or_else(|round| Err(round.deadline(Duration::ZERO)));
            return next.map_err(|error| {
                self.leave(true);
                error.into()
            });
        }
        let enter: Entry = stay::enter::<G>;
        let entry = self.pool.place_of_code(enter as *const ())?;
        let round = self.pool.begin_round(self.tiles)?;
        self.kept = Some(self.pool.calls + 1);
        self.pool.mailbox.set_entry(entry);
        Ok(round)
    }
}

impl<G: Group> Steps<'_, '_, '_, '_, G> {
    /// Makes the workers leave the kept round. With `wait`, does not return before they have.
    fn leave(&mut self, wait: bool) {
        if self.kept.take().is_some() {
            self.pool.end_stay(wait);
        }
    }

    /// Ends the kept round.
    fn end(&mut self) {
        // In a forked child the round belongs to the parent. The threads of a failed model end with it.
        if !self.pool.is_ours() || is_failed_model() {
            return;
        }
        self.leave(true);
        if let Some(round) = self.round.take() {
            // All tiles are done, so the round ends without an error.
            let _ = round.try_finish();
        }
    }
}

impl Pool<'_> {
    /// Opens a job without work: workers leave a kept round before they serve it. With `wait`, waits
    /// until all have served it, for at most [`LEAVE`].
    fn end_stay(&mut self, wait: bool) {
        let arguments = Arguments {
            call: self.calls,
            ..Arguments::default()
        };
        let base = self.mailbox.barrier().begin();
        let job = self.mailbox.open_job(&arguments, &Default::default());
        if !wait {
            // A later job closes this one.
            return;
        }
        // Not the deadline of calls: the others would find the arrays leased after a short one.
        let timer = PollTimer::new(Some(LEAVE));
        let mut call = ActiveCall::new(self, job, timer, None);
        self.wait_for_all(base, &mut call);
        self.mailbox.close_job();
        self.wait_until_out(&mut call);
    }

    /// Returns `true` if a worker is checked in.
    fn is_any_in(&self) -> bool {
        (0..self.shared.workers).any(|worker| self.mailbox.is_in(worker))
    }
}

impl<G: Group> Drop for Steps<'_, '_, '_, '_, G> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<G: Group> core::fmt::Debug for Steps<'_, '_, '_, '_, G> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Steps")
            .field("tiles", &self.tiles.tiles())
            .field("is_open", &self.round.is_some())
            .finish_non_exhaustive()
    }
}
