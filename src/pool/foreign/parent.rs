//! The parent's side of a foreign pool.

mod running;

use core::cell::Cell;
use core::time::Duration;

use super::words::{At, Member, Words};
use super::{ForeignHandle, TableAccess};
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::handle_table::access::Inside;
use crate::pool::call::LOOK_EVERY;
use crate::pool::call_memory::{self, CallMemory};
use crate::pool::error::PoolError;
use crate::pool::mailbox::Arguments;
use crate::pool::report::ROOM;
use crate::pool::spin::{Spin, SpinState};
use crate::pool::stats::Profile;
use crate::pool::waiting::sleep_after;
use crate::pool::{WorkerStats, is_failed_model};
use crate::seat::ParticipantInfo;
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::sync::Ordering;
use crate::sync::time::{Instant, Interval};
use crate::table::locked::{Mode, Ticket};
use crate::word::SeatId;

/// Code of an answer in a report: the worker has finished.
pub(super) const FINISHED: u64 = 1;
/// Code of an answer in a report: the worker has failed.
pub(super) const FAILED: u64 = 2;

/// How a worker answered a call.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The worker has finished, and left these bytes.
    Finished(Vec<u8>),
    /// The worker has failed, and left these bytes: the text of an exception, for example.
    Failed(Vec<u8>),
    /// The worker has answered, but its long answer was freed before the parent read it, because
    /// the worker died or left.
    Lost,
    /// The worker has died without an answer. Its seat was reaped: the arrays that it was writing are poisoned, and
    /// its tiles are torn.
    Died,
    /// The worker has left the pool without an answer.
    Left,
    /// The call was ended before the worker has answered. A later answer is ignored.
    Running,
}

/// The answer of one worker; see [`ForeignPool::end`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WorkerAnswer {
    /// The worker's number, from 0.
    pub worker: usize,
    /// Its process.
    pub pid: u32,
    /// Its seat in the segment.
    pub seat: usize,
    /// Its answer.
    pub outcome: Answer,
}

/// A worker, as the last look found it.
#[derive(Clone, Copy)]
struct Occupant {
    member: Member,
    pid: u32,
    /// The open call waits for its answer.
    expected: bool,
}

/// The open call.
struct OpenCall {
    number: u64,
    /// The last job of the call, and its first.
    job: u64,
    first: u64,
    /// Memory of the call's bytes, if they are too long for the mailbox.
    params: Option<AnyHandle>,
    /// Answers of workers that have gone.
    gone: Vec<WorkerAnswer>,
    /// The job is closed.
    closed: bool,
    /// The parent waits for those in the job alone: the others do not begin it.
    cancelled: bool,
}

/// The parent of workers that the crate did not start; see the [module](super).
///
/// The parent calls, and every worker that is attached answers once. A worker that dies or leaves
/// is reported, and another one can take its place. Whether a worker lives is decided by the lock
/// of its seat, not by its pid: so a worker may be any process of the machine.
///
/// Dropping the pool tells the workers to end. If the parent dies, they notice it.
pub struct ForeignPool<A: TableAccess> {
    segment: Segment,
    at: At,
    handle: ForeignHandle,
    me: SeatId,
    token: u64,
    spin: Cell<SpinState>,
    look: Interval,
    occupants: Vec<Option<Occupant>>,
    /// The call that was not ended yet.
    call: Option<OpenCall>,
    /// Number of calls so far.
    calls: u64,
    deaths: u64,
    stats: Profile,
    /// Keeps the words in place.
    lease: Option<Ticket>,
    table: A,
}

impl<A: TableAccess> ForeignPool<A> {
    /// Creates a pool with places for `workers` workers.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let pool = ForeignPool::new(&table, 2)?;
    /// assert_eq!(pool.places(), 2);
    /// let handle = pool.handle().to_bits();                // the workers attach by it
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::Workers`] if `workers` is 0, or not below the number of seats.
    /// - [`PoolError::Alloc`] if the segment is full, [`PoolError::Join`] if a forked child finds
    ///   no seat.
    pub fn new(table: A, workers: usize) -> Result<ForeignPool<A>, PoolError> {
        let create = |table: &HandleTable| {
            let me = table.core.enter()?;
            let seats = table.segment().max_seats();
            if workers == 0 || workers >= seats as usize {
                return Err(PoolError::Workers { workers, seats });
            }
            let words = At::words(workers);
            let reserved = table.core.reserve((words * size_of::<u64>()) as u64)?;
            let at = At::reserved(reserved.extent, workers);
            let Some(found) = Words::of(table.segment(), &at) else {
                return Err(table.core.abandon_damaged(reserved).into());
            };
            found.clear(Member::of(table));
            let spin = Spin::of_parent(workers, found.mailbox.crowded())
                .patient(workers)
                .state();
            let handle = table.core.publish_control(reserved, |descriptor| {
                Descriptor::control(ControlKind::Foreign, words).store(descriptor);
            });
            let lease = (table.core.take(handle, Mode::Read))
                .inspect_err(|_| call_memory::free(table, handle))?;
            let segment = table.segment().clone();
            Ok((me, at, spin, handle, lease, segment, table.core.token()))
        };
        let (me, at, spin, handle, lease, segment, token) = table.with(Inside, create)??;
        Ok(ForeignPool {
            segment,
            at,
            handle: ForeignHandle::from_bits(handle.to_bits()),
            me,
            token,
            spin: Cell::new(spin),
            look: Interval::new(LOOK_EVERY),
            occupants: vec![None; workers],
            call: None,
            calls: 0,
            deaths: 0,
            stats: Profile::default(),
            lease: Some(lease),
            table,
        })
    }

    /// Returns the handle by which workers [attach](super::ForeignWorker::attach).
    ///
    /// [`new`](ForeignPool::new) has an example.
    pub fn handle(&self) -> ForeignHandle {
        self.handle
    }

    /// Returns the number of places.
    ///
    /// [`new`](ForeignPool::new) has an example.
    pub fn places(&self) -> usize {
        self.at.workers
    }

    /// Returns each place's process, or `None` for a free place. Looks for workers that have come
    /// or gone, and frees the places of those that have gone.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let mut pool = ForeignPool::new(&table, 2)?;
    /// let worker = ForeignWorker::attach(&other, pool.handle(), Some(0), second)?;
    /// assert_eq!(pool.pids()?, [Some(std::process::id()), None]);
    /// drop(worker);                                        // it leaves
    /// assert_eq!(pool.pids()?, [None, None]);
    /// assert_eq!(pool.deaths(), 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn pids(&mut self) -> Result<Vec<Option<u32>>, PoolError> {
        self.check_ours()?;
        self.look_around(true)?;
        Ok(self.known_pids())
    }

    /// Returns the number of deaths noticed so far.
    ///
    /// [`pids`](ForeignPool::pids) has an example.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// Waits until `count` workers are attached. Returns `false` after `timeout`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ndshm::pool::foreign::{ForeignPool, ForeignWorker};
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let (table, other) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// # let second = Duration::from_secs(1);
    /// let mut pool = ForeignPool::new(&table, 2)?;
    /// let worker = ForeignWorker::attach(&other, pool.handle(), None, second)?;
    /// assert!(pool.wait_for_workers(1, second)?);
    /// assert!(!pool.wait_for_workers(2, Duration::from_millis(1))?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn wait_for_workers(&mut self, count: usize, timeout: Duration) -> Result<bool, PoolError> {
        self.check_ours()?;
        let start = Instant::now();
        loop {
            let seen = self.words()?.mailbox.events();
            self.look_around(true)?;
            if self.occupants.iter().flatten().count() >= count {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            self.sleep(seen, timeout.saturating_sub(start.elapsed()), |_| false)?;
        }
    }

    /// Opens a call on all attached workers, and returns their number. Does not wait.
    ///
    /// A worker that attaches while the call is open may take part, but the call does not wait for
    /// it to come.
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
    /// assert_eq!(pool.call(7, b"text")?, 1);               // one worker is attached
    /// let call = worker.next(second)?.expect("it is open"); // in the worker
    /// worker.finish(&call.bytes[..2])?;
    /// assert!(pool.wait(second)?);
    /// assert_eq!(pool.end()?[0].outcome, Answer::Finished(b"te".to_vec()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PoolError::NoWorkers`] if no worker is attached.
    /// - [`PoolError::CallOpen`] if the last call was not [ended](ForeignPool::end).
    /// - [`PoolError::Alloc`] if there is no memory for the bytes. Up to 192 bytes need none.
    /// - [`PoolError::Forked`] in a forked child of the parent.
    pub fn call(&mut self, number: u64, bytes: &[u8]) -> Result<usize, PoolError> {
        self.check_ours()?;
        if self.call.is_some() {
            return Err(PoolError::CallOpen);
        }
        let due = self.look.is_due();
        self.look_around(due)?;
        let expected = self.occupants.iter().flatten().count();
        if expected == 0 {
            let places = self.places();
            return Err(PoolError::NoWorkers { places });
        }
        let (inline, params) = call_memory::pack(bytes, |bytes| {
            let store = |table: &HandleTable| Ok(CallMemory::message(table, bytes)?.keep());
            self.table.with(Inside, store)?
        })?;
        for occupant in self.occupants.iter_mut().flatten() {
            occupant.expected = true;
        }
        self.calls += 1;
        let arguments = Arguments {
            task: number,
            call: self.calls,
            params_len: bytes.len() as u64,
            params: params.map_or(0, AnyHandle::to_bits),
            flags: self.stats.flag(),
            ..Arguments::default()
        };
        let job = self.words()?.mailbox.open_job(&arguments, &inline);
        self.call = Some(OpenCall {
            number: self.calls,
            job,
            first: job,
            params,
            gone: Vec::new(),
            closed: false,
            cancelled: false,
        });
        Ok(expected)
    }

    /// Waits until every worker of the open call has answered, died or left. Returns `false` after
    /// `timeout`: call it again, or [end](ForeignPool::end) the call. Returns `true` if no call is
    /// open.
    ///
    /// Notices a death 10 ms later.
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
    /// pool.call(7, b"")?;
    /// assert!(!pool.wait(Duration::ZERO)?);                // the worker has not answered
    /// worker.next(second)?.expect("it is open");
    /// worker.finish(b"")?;
    /// assert!(pool.wait(second)?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, PoolError> {
        self.check_ours()?;
        let start = Instant::now();
        loop {
            let seen = self.words()?.mailbox.events();
            if self.look.is_due() {
                self.look_around(true)?;
            }
            if self.is_over()? {
                return Ok(true);
            }
            if start.elapsed() >= timeout {
                return Ok(false);
            }
            let closed = self.call.as_ref().is_some_and(|call| call.closed);
            let is_over = |words: &Words<'_>| {
                self.all_have_served(words) && (!closed || self.nobody_is_in(words))
            };
            self.sleep(seen, timeout.saturating_sub(start.elapsed()), is_over)?;
        }
    }

    /// Ends the call, and returns the answers of its workers: first of those that have gone, then
    /// in the order of the places. Does not wait: a worker that has not answered is
    /// [running](Answer::Running). Returns an empty list if no call is open.
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
    /// pool.call(7, b"")?;
    /// let answers = pool.end()?;                           // without a wait
    /// assert_eq!((answers.len(), &answers[0].outcome), (1, &Answer::Running));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`PoolError::Forked`] in a forked child of the parent.
    pub fn end(&mut self) -> Result<Vec<WorkerAnswer>, PoolError> {
        self.check_ours()?;
        let Some(call) = &self.call else {
            return Ok(Vec::new());
        };
        if !call.closed {
            self.words()?.mailbox.close_job();
        }
        // Workers that have come since the last look may have answered.
        self.look_around(false)?;
        let words = self.words()?;
        let Some(call) = &self.call else {
            // Unreachable: a look ends no call.
            return Ok(Vec::new());
        };
        let mut answers = call.gone.clone();
        for (worker, occupant) in self.occupants.iter().enumerate() {
            let Some(occupant) = occupant else {
                continue;
            };
            // A worker may have failed before the call was announced again and cancelled.
            let outcome = match self.answer_of(&words, worker, call, call.first) {
                Some(answer) => answer,
                None if occupant.expected => Answer::Running,
                None => continue,
            };
            answers.push(occupant.answer(worker, outcome));
        }
        self.close_call();
        Ok(answers)
    }

    /// Starts or stops measuring the workers' times. Resets the counts of
    /// [`stats`](ForeignPool::stats). Does nothing in a forked child of the parent.
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
    /// pool.set_profiling(true);
    /// pool.call(7, b"")?;
    /// worker.next(second)?.expect("it is open");
    /// worker.count_tiles(12, 3);                           // 3 of them were in other workers' ranges
    /// worker.finish(b"")?;
    /// assert!(pool.wait(second)?);
    /// pool.end()?;
    /// assert_eq!((pool.stats()[0].tiles, pool.stats()[0].stolen), (12, 3));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn set_profiling(&mut self, on: bool) {
        if self.check_ours().is_ok()
            && let Ok(words) = self.words()
        {
            self.stats = Profile::start(on, &words.mailbox, self.places());
        }
    }

    /// Returns the work of each place, including that of workers that have gone. Tiles are counted
    /// by [`ForeignWorker::count_tiles`](super::ForeignWorker::count_tiles). Returns an empty list
    /// in a forked child of the parent.
    ///
    /// [`set_profiling`](ForeignPool::set_profiling) has an example.
    pub fn stats(&self) -> Vec<WorkerStats> {
        match (self.check_ours(), self.words()) {
            (Ok(()), Ok(words)) => self.stats.of(&words.mailbox, self.known_pids()),
            _ => Vec::new(),
        }
    }

    fn known_pids(&self) -> Vec<Option<u32>> {
        let pid = |occupant: &Option<Occupant>| occupant.map(|occupant| occupant.pid);
        self.occupants.iter().map(pid).collect()
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

    fn words(&self) -> Result<Words<'_>, PoolError> {
        Words::of(&self.segment, &self.at).ok_or_else(|| self.corrupt())
    }

    #[cold]
    fn corrupt(&self) -> PoolError {
        let handle = AnyHandle::from(self.handle);
        let error = |table: &HandleTable| table.core.tables().corrupt(handle, "not a foreign pool");
        self.table
            .with(Inside, error)
            .map_or_else(PoolError::from, PoolError::from)
    }

    /// Sleeps until an event after `seen`, until the next look or `timeout`.
    fn sleep(
        &self,
        seen: u64,
        timeout: Duration,
        is_over: impl Fn(&Words<'_>) -> bool,
    ) -> Result<(), PoolError> {
        let words = self.words()?;
        let spin = self.spin.get().on(words.mailbox.crowded());
        let nap = timeout.min(LOOK_EVERY);
        sleep_after(&words.mailbox, &spin, seen, nap, || is_over(&words));
        self.spin.set(spin.state());
        Ok(())
    }

    /// Reads every place. Notes the answers of workers that have gone, and frees their places.
    /// Without `deaths` it notices only those that have left by themselves.
    fn look_around(&mut self, deaths: bool) -> Result<(), PoolError> {
        let words = self.words()?;
        let mut found = Vec::with_capacity(self.places());
        let (mut dead, mut gone) = (Vec::new(), Vec::new());
        for worker in 0..self.places() {
            let mut member = words.occupant(worker);
            if member.is_nobody() {
                found.push(None);
                continue;
            }
            if deaths && !member.is_alive(&self.segment, self.me) {
                // Read again: it may have left its place, and then its seat.
                member = words.occupant(worker);
                dead.push(worker);
            }
            let known = self.occupants[worker].filter(|known| known.member.is_same(member));
            let occupant = known.unwrap_or_else(|| Occupant {
                member,
                pid: ParticipantInfo::of(self.segment.memory(), member.seat()).pid,
                expected: false,
            });
            if member.has_left() || dead.contains(&worker) {
                gone.push((worker, member, occupant));
                found.push(None);
            } else {
                found.push(Some(occupant));
            }
        }
        // Read long answers before the reap, which frees them.
        let answers: Vec<WorkerAnswer> = gone
            .iter()
            .filter_map(|&(worker, member, occupant)| {
                let open = self.call.as_ref()?;
                let without = match member.has_left() {
                    true => Answer::Left,
                    false => Answer::Died,
                };
                // No worker answers a cancelled call again.
                let since = if open.cancelled { open.first } else { open.job };
                let outcome = match self.answer_of(&words, worker, open, since) {
                    Some(answer) => answer,
                    // Others have no part in the call, unless they have come and begun.
                    None if occupant.expected || words.mailbox.is_in(worker) => without,
                    None => return None,
                };
                Some(occupant.answer(worker, outcome))
            })
            .collect();
        let dead = gone.iter().filter(|(_, member, _)| !member.has_left());
        let dead = dead.count() as u64;
        if dead > 0 {
            // An error means that the parent has no seat, and then no participant has.
            let _ = self.table.reap(Inside);
        }
        for &(worker, member, _) in &gone {
            words.mailbox.reset(worker);
            words.free(worker, member);
        }
        self.deaths += dead;
        self.occupants = found;
        if let Some(call) = &mut self.call {
            call.gone.extend(answers);
        }
        Ok(())
    }

    /// Returns `true` if all expected workers have served the open call, or it was cancelled, or none
    /// is open.
    fn all_have_served(&self, words: &Words<'_>) -> bool {
        let Some(call) = self.call.as_ref().filter(|call| !call.cancelled) else {
            return true;
        };
        let mut places = self.occupants.iter().enumerate();
        places.all(|(worker, occupant)| {
            !occupant.is_some_and(|occupant| occupant.expected)
                || words.mailbox.has_served(worker, call.job)
        })
    }

    fn nobody_is_in(&self, words: &Words<'_>) -> bool {
        (0..self.places()).all(|worker| !words.mailbox.is_in(worker))
    }

    /// Returns `true` if the open call is over. Closes its job first when all have served it.
    fn is_over(&mut self) -> Result<bool, PoolError> {
        let words = self.words()?;
        if !self.all_have_served(&words) {
            return Ok(false);
        }
        let Some(call) = &self.call else {
            return Ok(true);
        };
        if !call.closed {
            words.mailbox.close_job();
        }
        let is_over = self.nobody_is_in(&words);
        if let Some(call) = &mut self.call {
            call.closed = true;
        }
        Ok(is_over)
    }

    /// Returns the answer of a worker that has served a job of `call`: the job `since`, or a later
    /// one.
    fn answer_of(
        &self,
        words: &Words<'_>,
        worker: usize,
        call: &OpenCall,
        since: u64,
    ) -> Option<Answer> {
        let served = words.mailbox.served(worker);
        // Acquires the answer: the worker's Release in `check_out` comes before the state that was
        // just seen.
        let is_in = words.mailbox.is_in(worker);
        // In a later job of the call a worker replaces its answer.
        if !(since..=call.job).contains(&served) || is_in && served != call.job {
            return None;
        }
        let answer = words.mailbox.report(worker).get(call.number);
        // A worker that has served a job has left a text. Others have falsified the words.
        let Some((code, len, bytes)) = answer else {
            return Some(Answer::Lost);
        };
        let bytes = match len as usize <= ROOM {
            true => Ok(bytes),
            false => {
                // Relaxed: acquired above.
                let memory = AnyHandle::from_bits(words.answer(worker).load(Ordering::Relaxed));
                let read = |table: &HandleTable| call_memory::read_message(table, memory, len);
                self.table
                    .with(Inside, read)
                    .unwrap_or_else(|error| Err(error.into()))
            }
        };
        Some(match (code, bytes) {
            (FINISHED, Ok(bytes)) => Answer::Finished(bytes),
            (FAILED, Ok(bytes)) => Answer::Failed(bytes),
            _ => Answer::Lost,
        })
    }

    /// Forgets the open call, and frees its memory.
    fn close_call(&mut self) {
        for occupant in self.occupants.iter_mut().flatten() {
            occupant.expected = false;
        }
        if let Some(params) = self.call.take().and_then(|call| call.params) {
            // Without a seat the memory is gone.
            let _ = self
                .table
                .with(Inside, |table| call_memory::free(table, params));
        }
    }
}

impl Occupant {
    fn answer(self, worker: usize, outcome: Answer) -> WorkerAnswer {
        WorkerAnswer {
            worker,
            pid: self.pid,
            seat: self.member.seat().index().unwrap_or(0),
            outcome,
        }
    }
}

impl<A: TableAccess> Drop for ForeignPool<A> {
    fn drop(&mut self) {
        // In a forked child the pool is a copy of the parent's. A failed model must reach its
        // report.
        if self.check_ours().is_err() || is_failed_model() {
            return;
        }
        if let Ok(words) = self.words() {
            words.mailbox.end();
        }
        self.close_call();
        let (handle, lease) = (AnyHandle::from(self.handle), self.lease.take());
        let _ = self.table.with(Inside, |table| {
            call_memory::free(table, handle);
            // The lease is the table's: `check_ours`.
            let _ = lease.map(|lease| table.core.release(&lease, false));
        });
    }
}

impl<A: TableAccess> core::fmt::Debug for ForeignPool<A> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ForeignPool")
            .field("handle", &self.handle)
            .field("pids", &self.known_pids())
            .finish_non_exhaustive()
    }
}
