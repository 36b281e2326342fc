//! Work counts of each worker. They help to tune tiles.

use core::time::Duration;

use super::Pool;
use super::mailbox::{Arguments, Mailbox};
use super::report::Work;
use crate::sync::time::Instant;

/// The work of one worker since the start of the pool, or since the last
/// [`set_profiling`](Pool::set_profiling).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WorkerStats {
    /// The worker's number.
    pub worker: usize,
    /// Its process, if the worker is present.
    pub pid: Option<u32>,
    /// Calls it has taken part in. A call counts again each time the worker serves tiles that were
    /// sent back or reopened.
    pub calls: u64,
    /// Tiles it has run, without those of
    /// [`WorkerContext::for_each`](super::WorkerContext::for_each).
    pub tiles: u64,
    /// Tiles among them that lay in another worker's range.
    pub stolen: u64,
    /// Time in calls; zero unless the pool [profiles](Pool::set_profiling).
    pub busy: Duration,
    /// Time since profiling began that the worker spent outside calls.
    pub idle: Duration,
}

/// The start of profiling, and the work done before it.
#[derive(Default)]
pub(super) struct Profile {
    since: Option<Instant>,
    before: Vec<Work>,
}

impl Profile {
    /// Returns the flag that asks workers to measure their time, or 0.
    pub(super) fn flag(&self) -> u64 {
        match self.elapsed() {
            Some(_) => Arguments::PROFILE,
            None => 0,
        }
    }

    fn elapsed(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }
}

impl Pool<'_> {
    /// Starts or stops measuring the workers' times, which costs about 50 ns per worker and call.
    /// Resets the counts of [`stats`](Pool::stats).
    ///
    /// Does nothing in a forked child, which does not own the workers.
    ///
    /// ```
    /// # use ndarray::Axis;
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.from_shape_fn(100, |i| i as f64)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// pool.set_profiling(true);
    /// pool.for_each(&tiles, &1.0, |mut x, &by, _tile| x += by)?;
    /// let tiles_run: u64 = pool.stats().iter().map(|worker| worker.tiles).sum();
    /// assert_eq!(tiles_run, 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn set_profiling(&mut self, on: bool) {
        if !self.is_ours() {
            return;
        }
        self.stats = Profile::start(on, &self.mailbox, self.workers());
    }

    /// Returns the work of each worker, including that of dead workers that it replaced.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Pool, Segment};
    /// # use ndarray::Axis;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(1000)?;
    /// # let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// # let mut pool = Pool::threads(&table, 2)?;
    /// pool.set_profiling(true);
    /// pool.for_each(&tiles, &(), |mut x, _, _| x.fill(1.0))?;
    /// for worker in pool.stats() {
    ///     println!("{worker}");
    /// }
    /// assert_eq!(pool.stats().iter().map(|worker| worker.tiles).sum::<u64>(), 100);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// Returns an empty list in a forked child, which does not own the workers.
    pub fn stats(&self) -> Vec<WorkerStats> {
        if !self.is_ours() {
            return Vec::new();
        }
        self.stats.of(&self.mailbox, self.pids())
    }
}

impl Profile {
    /// Starts or stops measuring, and takes the work of `workers` workers as done before.
    pub(super) fn start(on: bool, mailbox: &Mailbox<'_>, workers: usize) -> Profile {
        Profile {
            since: on.then(Instant::now),
            before: (0..workers)
                .map(|worker| mailbox.report(worker).work())
                .collect(),
        }
    }

    /// Returns the work of the workers, of which `pids` are the processes.
    pub(super) fn of(&self, mailbox: &Mailbox<'_>, pids: Vec<Option<u32>>) -> Vec<WorkerStats> {
        let elapsed = self.elapsed().unwrap_or_default();
        pids.into_iter()
            .enumerate()
            .map(|(worker, pid)| {
                let before = self.before.get(worker).copied().unwrap_or_default();
                let now = mailbox.report(worker).work();
                let busy = now.busy.saturating_sub(before.busy);
                WorkerStats {
                    worker,
                    pid,
                    calls: now.jobs.saturating_sub(before.jobs),
                    tiles: now.tiles.saturating_sub(before.tiles),
                    stolen: now.stolen.saturating_sub(before.stolen),
                    busy,
                    idle: elapsed.saturating_sub(busy),
                }
            })
            .collect()
    }
}

impl core::fmt::Display for WorkerStats {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "worker {}: {} calls, {} tiles ({} stolen), {:?} busy, {:?} idle",
            self.worker, self.calls, self.tiles, self.stolen, self.busy, self.idle
        )
    }
}
