//! Rounds in a row within a call of [`Pool::run`](super::Pool::run), in which the workers stay.

use core::time::Duration;

use super::context::{BARRIER, LOOK, TileContext, WorkerContext};
use super::unit::UnitContext;
use crate::error::Error;
use crate::partition::{Group, Partition, Round, RoundMember};
use crate::pool::error::PoolError;
use crate::sync::time::Instant;

/// The rounds in a row of one partition, which all workers of a call share:
/// [`WorkerContext::steps`].
pub struct WorkerSteps<'w, 'c, 'p, 't, G: Group> {
    worker: &'w WorkerContext<'c>,
    tiles: &'p Partition<'t, G>,
    /// `None` before the first round.
    part: Option<RoundMember<'p, 't, G>>,
    /// The first worker's: it opens the rounds.
    round: Option<Round<'p, 't, G>>,
}

impl<'c> WorkerContext<'c> {
    /// Calls `work`, which runs rounds of `tiles` in a row. All workers of the call share the rounds, and
    /// must run as many of them. Returns the result of `work`.
    ///
    /// The arrays are leased from the first round until `work` returns. In between the workers stay in
    /// the round, so a round takes one barrier, where [`for_each`](WorkerContext::for_each) takes
    /// several and leases the arrays each time.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use ndshm::{HandleTable, Pool, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let (x, v) = (table.zeros::<f64, _>(1000)?, table.from_elem(1000, 2.0)?);
    /// let tiles = table.partition((x.write(), v.write()), Axis(0), 250)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// let sums = pool.run(&(tiles.handle(), x), |worker, &(tiles, x)| {
    ///     let tiles = worker.table().open_partition(tiles)?;
    ///     worker.steps(&tiles, |steps| {
    ///         for _ in 0..100 {
    ///             steps.for_each(|(mut x, v), _tile| x.scaled_add(0.01, &v))?;
    ///             steps.for_each(|(_, mut v), _tile| v *= 0.99)?;
    ///         }
    ///         Ok(())
    ///     })?;
    ///     Ok(worker.table().read(x)?.sum())                // the arrays can be leased again
    /// })?;
    /// assert_eq!(sums[0], sums[1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - The error of `work`, or those of [`for_each`](WorkerContext::for_each) for the last round.
    /// - [`Error::Pool`] with [`PoolError::BarrierTimeout`] if the workers run different numbers of
    ///   rounds.
    pub fn steps<'p, 't, G: Group, R>(
        &self,
        tiles: &'p Partition<'t, G>,
        work: impl FnOnce(&mut WorkerSteps<'_, 'c, 'p, 't, G>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut steps = WorkerSteps {
            worker: self,
            tiles,
            part: None,
            round: None,
        };
        let result = work(&mut steps)?;
        let WorkerSteps { part, round, .. } = steps;
        // Without a round there is nothing to end.
        if let Some(part) = part {
            drop(part);
            self.end_round(round)?;
        }
        Ok(result)
    }
}

impl<'p, 't, G: Group> WorkerSteps<'_, '_, 'p, 't, G> {
    /// Runs `body` on the tiles in the next round. All workers must call this. Returns when all tiles are
    /// done; every worker then sees all that any of them wrote.
    ///
    /// A tile's [random stream](TileContext::rng) differs from round to round: its
    /// [step](TileContext::step) counts the barriers.
    ///
    /// [`WorkerContext::steps`] has an example.
    ///
    /// # Errors
    /// Same as [`WorkerContext::for_each`].
    #[track_caller]
    pub fn for_each(
        &mut self,
        mut body: impl FnMut(G::Views<'_>, &TileContext<'_>),
    ) -> Result<(), Error> {
        let worker = self.worker;
        self.next(|part| worker.on_tiles(part, &mut body))
    }

    /// Runs `body` on the units of tiles in the next round: [`for_each`](WorkerSteps::for_each) with the
    /// views of [`Pool::for_each_unit`](super::Pool::for_each_unit).
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u64, _>(5000)?;
    /// let tiles = table.partition(x.write(), Axis(0), 1)?;
    /// let mut pool = Pool::threads(&table, 2)?;
    /// pool.run(&tiles.handle(), |worker, &tiles| {
    ///     let tiles = worker.table().open_partition(tiles)?;
    ///     worker.steps(&tiles, |steps| {
    ///         (0..3).try_for_each(|_| steps.for_each_unit(|mut x, _unit| x += 1))
    ///     })
    /// })?;
    /// assert_eq!(table.read(x)?.sum(), 15_000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`WorkerContext::for_each`].
    #[track_caller]
    pub fn for_each_unit(
        &mut self,
        mut body: impl FnMut(G::UnitViews<'_>, &UnitContext<'_>),
    ) -> Result<(), Error> {
        let worker = self.worker;
        self.next(|part| worker.on_units(part, &mut body))
    }

    /// Runs `work` as a participant of the next round, and waits until all workers have done so.
    fn next(
        &mut self,
        work: impl FnOnce(&mut RoundMember<'p, 't, G>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let worker = self.worker;
        worker.check_worker()?;
        let part = match self.part.as_mut() {
            Some(part) => {
                match self.round.take() {
                    Some(round) => {
                        // After the barrier every tile is done or torn.
                        let next = round
                            .try_next()
                            .unwrap_or_else(|round| Err(round.deadline(Duration::ZERO)));
                        self.round = Some(next?);
                    }
                    None => worker.await_next(part)?,
                }
                part.follow();
                part
            }
            None => {
                if worker.worker == 0 {
                    self.round = Some(self.tiles.begin()?);
                }
                worker.barrier()?;
                let part = self.tiles.enter_at(worker.worker, worker.workers)?;
                // The opener has given the round up, because it has failed.
                let part = part.ok_or(PoolError::BarrierBroken)?;
                self.part.insert(part)
            }
        };
        work(part)?;
        // Also the first time: the opener must not go on before all workers have entered.
        Ok(worker.barrier()?)
    }
}

impl WorkerContext<'_> {
    /// Waits until the first worker has gone on to a later round than that of `part`.
    fn await_next<G: Group>(&self, part: &RoundMember<'_, '_, G>) -> Result<(), PoolError> {
        let mut start = None;
        loop {
            let seen = part.round_word();
            let is_later = || (part.round_word().round() > part.round()).then_some(());
            if is_later().or_else(|| self.spin.until(is_later)).is_some() {
                return Ok(());
            }
            // The first worker has failed or died, and its round has ended.
            if !seen.is_running() {
                return Err(PoolError::BarrierBroken);
            }
            if start.get_or_insert_with(Instant::now).elapsed() >= BARRIER {
                self.break_barrier();
                return Err(PoolError::BarrierTimeout { waited: BARRIER });
            }
            part.sleep(seen, LOOK);
        }
    }
}

impl<G: Group> core::fmt::Debug for WorkerSteps<'_, '_, '_, '_, G> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WorkerSteps")
            .field("worker", &self.worker)
            .field("round", &self.part.as_ref().map(RoundMember::round))
            .finish_non_exhaustive()
    }
}
