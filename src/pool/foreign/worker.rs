//! The worker's side of a foreign pool.

use core::cell::Cell;
use core::time::Duration;

use super::parent::{FAILED, FINISHED};
use super::words::{At, Member, Words};
use super::{ForeignHandle, TableAccess};
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::handle_table::access::Inside;
use crate::pool::call_memory::{self, CallMemory};
use crate::pool::error::PoolError;
use crate::pool::is_failed_model;
use crate::pool::mailbox::{Arguments, ENDED, ParamWords};
use crate::pool::report::{ROOM, Work};
use crate::pool::spin::{Spin, SpinState};
use crate::pool::waiting::next_job;
use crate::pool::workers::platform::placement::Placement;
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::sync::Ordering;
use crate::sync::time::{Instant, Interval};
use crate::table::error::LeaseError;
use crate::table::locked::Ticket;

/// Time between two checks that the parent lives.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Time between two attempts to take a place.
const RETRY: Duration = Duration::from_millis(5);

/// A call, as a worker gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ForeignCall {
    /// The number by which the parent called.
    pub number: u64,
    /// The bytes that the parent passed.
    pub bytes: Vec<u8>,
}

/// The job that the worker serves.
struct Served {
    job: u64,
    call: u64,
    /// The start, if the parent profiles.
    start: Option<Instant>,
    work: Work,
}

/// A worker of a [`ForeignPool`](super::ForeignPool), in any process that has the segment; see the
/// [module](super).
///
/// Dropping it leaves the pool. The answer to the last call is kept, unless it is longer than 384
/// bytes and the parent has not read it yet.
pub struct ForeignWorker<A: TableAccess> {
    segment: Segment,
    at: At,
    worker: usize,
    me: Member,
    token: u64,
    parent: Member,
    spin: Cell<SpinState>,
    placement: Placement,
    look: Interval,
    /// The last look by `is_wanted` has found the parent dead.
    is_orphan: bool,
    /// Number of the last job that this worker has seen.
    last: u64,
    served: Option<Served>,
    /// Memory of a long answer.
    answer: Option<AnyHandle>,
    /// Keeps the words in place.
    lease: Option<Ticket>,
    table: A,
}

impl<A: TableAccess> ForeignWorker<A> {
    /// Takes a place in the pool: number `worker`, or any. Waits at most `timeout` for one.
    ///
    /// The place of a worker that has died or left is free once the parent has noticed that: it
    /// looks when it calls, waits, or asks for its [pids](super::ForeignPool::pids).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let pool = ForeignPool::new(&table, 2)?;
    /// let worker = ForeignWorker::attach(&other, pool.handle(), Some(1), second)?;
    /// assert_eq!((worker.worker(), worker.places()), (1, 2));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::PlaceTaken`] if no place is free.
    /// - [`PoolError::Gone`] if the pool has ended.
    /// - [`PoolError::Lease`] if the handle names no foreign pool.
    pub fn attach(
        table: A,
        handle: ForeignHandle,
        worker: Option<usize>,
        timeout: Duration,
    ) -> Result<ForeignWorker<A>, PoolError> {
        let open = |table: &HandleTable| {
            table.core.enter()?;
            let found = At::find(table, handle).map_err(|error| match error {
                LeaseError::Stale { .. } => PoolError::Gone,
                error => error.into(),
            });
            let (at, lease) = found?;
            let (me, segment) = (Member::of(table), table.segment().clone());
            Ok::<_, PoolError>((at, lease, me, segment, table.core.token()))
        };
        let (at, lease, me, segment, token) = table.with(Inside, open)??;
        let start = Instant::now();
        let taken = loop {
            let Some(words) = Words::of(&segment, &at) else {
                // Unreachable: `find` has found them.
                break Err(PoolError::Gone);
            };
            if !words.parent().is_alive(&segment, me.seat())
                || words.mailbox.job().number() == ENDED
            {
                break Err(PoolError::Gone);
            }
            let asked = worker.map_or(0..at.workers, |worker| worker..worker.saturating_add(1));
            let mut places = asked.filter(|&worker| worker < at.workers);
            if let Some(worker) = places.find(|&worker| words.take(worker, me)) {
                words.mailbox.arrive(worker);
                let spin = Spin::of_worker(at.workers, words.mailbox.crowded())
                    .patient(at.workers)
                    .state();
                break Ok((worker, words.parent(), spin));
            }
            let waited = start.elapsed();
            if waited >= timeout {
                break Err(PoolError::PlaceTaken {
                    worker,
                    places: at.workers,
                    waited,
                });
            }
            // A job that is announced meanwhile ends the sleep.
            words
                .mailbox
                .sleep(words.mailbox.job(), RETRY.min(timeout - waited));
        };
        match taken {
            Ok((worker, parent, spin)) => Ok(ForeignWorker {
                segment,
                at,
                worker,
                me,
                token,
                parent,
                spin: Cell::new(spin),
                placement: Placement::default(),
                look: Interval::new(LOOK_AROUND),
                is_orphan: false,
                last: 0,
                served: None,
                answer: None,
                lease: Some(lease),
                table,
            }),
            Err(error) => {
                let _ = table.with(Inside, |table| table.core.release(&lease, false));
                Err(error)
            }
        }
    }

    /// Returns this worker's number, from 0.
    ///
    /// [`attach`](ForeignWorker::attach) has an example.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Returns the number of places in the pool. With it and [`worker`](ForeignWorker::worker) a
    /// worker can enter a round of a partition at its own range of tiles.
    ///
    /// [`attach`](ForeignWorker::attach) has an example.
    pub fn places(&self) -> usize {
        self.at.workers
    }

    /// Waits for a call. Returns `None` after `timeout`: call it again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{Answer, ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// # let mut pool = ForeignPool::new(&table, 1)?;
    /// # let mut worker = ForeignWorker::attach(&other, pool.handle(), None, second)?;
    /// assert!(worker.next(Duration::ZERO)?.is_none());     // nothing to do so far
    /// pool.call(7, b"text")?;
    /// let call = worker.next(second)?.expect("it is open");
    /// assert_eq!((call.number, &call.bytes[..]), (7, &b"text"[..]));
    /// worker.finish(b"")?;
    /// drop(pool);
    /// assert!(worker.next(second).unwrap_err().is_gone());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Gone`] if the parent has closed the pool or died. A death is noticed within
    ///   about 100 ms.
    /// - [`PoolError::NotAnswered`] if the last call was not answered.
    /// - [`PoolError::Lease`] if the bytes of the call cannot be read. The parent is told that the
    ///   worker has failed.
    /// - [`PoolError::Forked`] in a forked child of the worker.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<ForeignCall>, PoolError> {
        self.check_ours()?;
        if self.served.is_some() {
            return Err(PoolError::NotAnswered);
        }
        let start = Instant::now();
        loop {
            let words = Self::words(&self.segment, &self.at)?;
            let spin = self.spin.get().on(words.mailbox.crowded());
            let mut gone = false;
            let job = next_job(&words.mailbox, &spin, self.last, || {
                if self.look.is_due() {
                    gone = !self.parent.is_alive(&self.segment, self.me.seat());
                }
                let left = timeout.checked_sub(start.elapsed());
                let left = left.filter(|left| !left.is_zero() && !gone)?;
                Some(left.min(LOOK_AROUND))
            });
            self.spin.set(spin.state());
            let Some(job) = job else {
                return match gone {
                    true => Err(PoolError::Gone),
                    false => Ok(None),
                };
            };
            if job.number() == ENDED {
                return Err(PoolError::Gone);
            }
            self.last = job.number();
            self.placement
                .look(words.mailbox, self.worker, self.at.workers);
            let Some((arguments, inline)) = words.mailbox.check_in(self.worker, job) else {
                continue;
            };
            // The parent has read the last answer before it opened this job; or it has announced the
            // call once more, and does not read that answer.
            if let Some(answer) = self.answer.take() {
                let _ = self
                    .table
                    .with(Inside, |table| call_memory::free(table, answer));
            }
            let served = Served {
                job: job.number(),
                call: arguments.call,
                start: arguments.has(Arguments::PROFILE).then(Instant::now),
                work: Work::default(),
            };
            match self.bytes_of(&arguments, &inline) {
                Ok(bytes) => {
                    self.served = Some(served);
                    return Ok(Some(ForeignCall {
                        number: arguments.task,
                        bytes,
                    }));
                }
                Err(error) if words.mailbox.is_open(job) => {
                    self.served = Some(served);
                    self.fail(error.to_string().as_bytes())?;
                    return Err(error.into());
                }
                // The parent has ended the call, and freed its memory.
                Err(_) => words.mailbox.check_out(self.worker, None),
            }
        }
    }

    fn bytes_of(&self, arguments: &Arguments, inline: &ParamWords) -> Result<Vec<u8>, LeaseError> {
        if let Some(bytes) = call_memory::beside(arguments, inline) {
            return Ok(bytes.to_vec());
        }
        let (memory, len) = (AnyHandle::from_bits(arguments.params), arguments.params_len);
        self.table.with(Inside, |table| {
            call_memory::read_message(table, memory, len)
        })?
    }

    /// Counts tiles that this worker has run in its call, and how many of them it took from other
    /// workers' ranges: for [`ForeignPool::stats`](super::ForeignPool::stats). Does nothing without
    /// a call.
    ///
    /// [`ForeignPool::set_profiling`](super::ForeignPool::set_profiling) has an example.
    pub fn count_tiles(&mut self, tiles: u64, stolen: u64) {
        if let Some(served) = &mut self.served {
            served.work.tiles = served.work.tiles.saturating_add(tiles);
            served.work.stolen = served.work.stolen.saturating_add(stolen);
        }
    }

    /// Tells the parent that something in the call has changed, such as a finished tile: ends a
    /// sleep of [`ForeignPool::wait_until`](super::ForeignPool::wait_until), which has an example.
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the worker.
    pub fn notify(&self) -> Result<(), PoolError> {
        self.check_ours()?;
        Self::words(&self.segment, &self.at)?.mailbox.event();
        Ok(())
    }

    /// Returns `false` if the worker's call was [cancelled](super::ForeignPool::cancel) or ended,
    /// if the parent has died, or if there is no call. A worker asks between two tiles. It notices
    /// the death within about 100 ms. [`cancel`](super::ForeignPool::cancel) has an example.
    pub fn is_wanted(&mut self) -> bool {
        let Some(call) = self.served.as_ref().map(|served| served.call) else {
            return false;
        };
        if self.check_ours().is_err() {
            return false;
        }
        let Ok(words) = Self::words(&self.segment, &self.at) else {
            return false;
        };
        if self.look.is_due() {
            self.is_orphan = !self.parent.is_alive(&self.segment, self.me.seat());
        }
        let job = words.mailbox.job();
        // The parent may have announced the call once more, which changes the job alone.
        job.is_open() && job.number() != ENDED && words.mailbox.call() == call && !self.is_orphan
    }

    /// Answers the call: the worker has finished, and leaves these bytes.
    ///
    /// [`ForeignPool::call`](super::ForeignPool::call) has an example.
    ///
    /// # Errors
    /// - [`PoolError::NothingToAnswer`] if there is no call.
    /// - [`PoolError::Alloc`] if there is no memory for the bytes. Up to 384 bytes need none. The
    ///   call is not answered.
    /// - [`PoolError::Forked`] in a forked child of the worker.
    pub fn finish(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        self.answer(FINISHED, bytes)
    }

    /// Answers the call: the worker has failed, and leaves these bytes, such as the text of an
    /// exception.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{Answer, ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// # let mut pool = ForeignPool::new(&table, 1)?;
    /// # let mut worker = ForeignWorker::attach(&other, pool.handle(), None, second)?;
    /// pool.call(7, b"x.npy")?;
    /// worker.next(second)?.expect("it is open");
    /// worker.fail(b"no such file")?;
    /// assert!(pool.wait(second)?);
    /// assert_eq!(pool.end()?[0].outcome, Answer::Failed(b"no such file".to_vec()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`finish`](ForeignWorker::finish).
    pub fn fail(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        self.answer(FAILED, bytes)
    }

    fn answer(&mut self, code: u64, bytes: &[u8]) -> Result<(), PoolError> {
        self.check_ours()?;
        let words = Self::words(&self.segment, &self.at)?;
        let Some(served) = &self.served else {
            return Err(PoolError::NothingToAnswer);
        };
        let inline = match bytes.len() <= ROOM {
            true => bytes,
            false => {
                let store = |table: &HandleTable| Ok(CallMemory::message(table, bytes)?.keep());
                let memory = self.table.with(Inside, store)?.map_err(PoolError::Alloc)?;
                self.answer = Some(memory);
                // Relaxed: `check_out` publishes it.
                words
                    .answer(self.worker)
                    .store(memory.to_bits(), Ordering::Relaxed);
                &[]
            }
        };
        let report = words.mailbox.report(self.worker);
        report.put(served.call, code, bytes.len() as u64, inline);
        let mut work = served.work;
        work.jobs = 1;
        work.busy = served.start.map_or(Duration::ZERO, |start| start.elapsed());
        report.add(work);
        words.mailbox.check_out(self.worker, Some(served.job));
        self.served = None;
        Ok(())
    }

    fn check_ours(&self) -> Result<(), PoolError> {
        // A refused call takes no seat for a child.
        if self.token != process_token() {
            return Err(PoolError::Forked);
        }
        match self
            .table
            .with(Inside, |table| table.core.is_of(self.token))?
        {
            true => Ok(()),
            false => Err(PoolError::Forked),
        }
    }

    fn words<'s>(segment: &'s Segment, at: &At) -> Result<Words<'s>, PoolError> {
        // Unreachable: `attach` has found them.
        Words::of(segment, at).ok_or(PoolError::Gone)
    }
}

impl<A: TableAccess> Drop for ForeignWorker<A> {
    fn drop(&mut self) {
        // In a forked child the place is the parent's. A failed model must reach its report.
        if self.check_ours().is_err() || is_failed_model() {
            return;
        }
        if let Ok(words) = Self::words(&self.segment, &self.at) {
            if let Some(served) = self.served.take() {
                words.mailbox.report(self.worker).add(served.work);
            }
            words.leave(self.worker, self.me);
        }
        let (answer, lease) = (self.answer.take(), self.lease.take());
        let _ = self.table.with(Inside, |table| {
            if let Some(answer) = answer {
                call_memory::free(table, answer);
            }
            // The lease is the table's: `check_ours`.
            let _ = lease.map(|lease| table.core.release(&lease, false));
        });
    }
}

impl<A: TableAccess> core::fmt::Debug for ForeignWorker<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ForeignWorker")
            .field("worker", &self.worker)
            .field("places", &self.at.workers)
            .finish_non_exhaustive()
    }
}
