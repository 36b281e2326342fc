//! One call of a pool: its opening, its end, and its result.

use core::time::Duration;

use super::call_memory::{self, CallMemory};
use super::mailbox::Arguments;
use super::report::{Cause, Failure};
use super::unit::Grain;
use super::workers::Death;
use super::{OnFailure, Pool, trace};
use crate::handle::AnyHandle;
use crate::partition::RoundError;
use crate::partition::{Group, Partition, Round};
use crate::pool::error::PoolError;
use crate::sync::time::{Instant, Interval};
use crate::table::error::LeaseError;

/// Time between two checks for dead workers.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The parts of a call that are known before its number.
pub(super) struct Request {
    /// The kernel's [place](Pool::place_of).
    pub(super) kernel: u64,
    pub(super) partition: u64,
    pub(super) results: Option<AnyHandle>,
    pub(super) flags: u64,
}

/// A running call.
pub(super) struct ActiveCall<'t> {
    /// Number of the call.
    pub(super) number: u64,
    /// Number of the open job.
    pub(super) job: u64,
    pub(super) timer: PollTimer,
    /// Keeps long parameters in place for the workers.
    pub(super) _params: Option<CallMemory<'t>>,
    pub(super) policy: OnFailure,
    pub(super) deaths: Vec<Death>,
    /// Number of deaths among them of workers that held no tile.
    pub(super) idle_deaths: usize,
    /// Failures of kernels at tiles that were taken from the workers' reports or the tiles' notes.
    pub(super) failures: Vec<(usize, Failure)>,
    /// The parent of a started call has seen a torn tile.
    pub(super) has_torn: bool,
    /// The parent is a participant of the round too.
    pub(super) entered: bool,
}

/// The times for checking the deadline and the workers.
pub(super) struct PollTimer {
    start: Instant,
    look: Interval,
    deadline: Option<Duration>,
}

impl PollTimer {
    pub(super) fn new(deadline: Option<Duration>) -> PollTimer {
        PollTimer {
            start: Instant::now(),
            look: Interval::new(LOOK_EVERY),
            deadline,
        }
    }

    /// Restarts the deadline for the next wait. Keeps the time of the last check, because calls in
    /// quick succession must not delay the next one.
    pub(super) fn restart(&mut self, deadline: Option<Duration>) {
        self.start = Instant::now();
        self.deadline = deadline;
    }

    /// Returns `true` if a check is due.
    pub(super) fn is_due(&mut self) -> bool {
        self.look.is_due()
    }

    /// Returns the time since the wait began.
    pub(super) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns `true` if the wait has exceeded the deadline. In a model only a deadline of zero
    /// passes.
    pub(super) fn is_overdue(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| self.start.elapsed() >= deadline)
    }
}

impl<'t> Pool<'t> {
    /// Opens the round and its job.
    pub(super) fn begin<'p, 'r, G: Group>(
        &mut self,
        tiles: &'p Partition<'r, G>,
        params: &[u8],
        request: Request,
    ) -> Result<(Round<'p, 'r, G>, ActiveCall<'t>), PoolError> {
        let round = self.begin_round(tiles)?;
        let call = self.open(params, request)?;
        Ok((round, call))
    }

    /// Opens a round for the next call.
    pub(super) fn begin_round<'p, 'r, G: Group>(
        &mut self,
        tiles: &'p Partition<'r, G>,
    ) -> Result<Round<'p, 'r, G>, PoolError> {
        self.prepare()?;
        if tiles.segment().key() != self.table.segment().key() {
            let handle = AnyHandle::from(tiles.handle());
            return Err(LeaseError::Stale { handle }.into());
        }
        let round = tiles.begin()?;
        trace::opened(self.calls + 1, tiles.tiles());
        Ok(round)
    }

    /// Opens the next job. From here on workers take part.
    pub(super) fn open(
        &mut self,
        params: &[u8],
        request: Request,
    ) -> Result<ActiveCall<'t>, PoolError> {
        let (words, memory) =
            call_memory::pack(params, |params| CallMemory::params(self.table, params))?;
        self.calls += 1;
        let arguments = Arguments {
            task: request.kernel,
            partition: request.partition,
            results: request.results.map_or(0, |results| results.to_bits()),
            seed: self.seed,
            call: self.calls,
            params_len: params.len() as u64,
            params: memory
                .as_ref()
                .map_or(0, |memory| memory.handle().to_bits()),
            flags: request.flags | self.stats.flag(),
        };
        let job = self.mailbox.open_job(&arguments, &words);
        let timer = PollTimer::new(self.deadline);
        Ok(ActiveCall::new(self, job, timer, memory))
    }

    /// Ends the call. Waits until all workers have checked out.
    pub(super) fn end<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        mut call: ActiveCall<'t>,
        grain: Grain,
    ) -> Result<(), PoolError> {
        self.close(&mut call)?;
        self.result_of(tiles, round, call, grain)
    }

    /// Closes the job. Waits until all workers have checked out.
    pub(super) fn close(&mut self, call: &mut ActiveCall<'t>) -> Result<(), PoolError> {
        self.check_ours()?;
        self.mailbox.close_job();
        self.wait_until_out(call);
        Ok(())
    }

    /// Ends the round of a call that is [closed](Pool::close). Returns the result of the call.
    pub(super) fn result_of<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        call: ActiveCall<'t>,
        grain: Grain,
    ) -> Result<(), PoolError> {
        let outcome = self.round_result(tiles, round, call, grain);
        trace::ended(self.calls, outcome.is_err());
        outcome
    }

    /// Takes the failures that workers reported in `call`, in the order of the workers.
    pub(super) fn failures(&self, call: u64) -> Vec<(usize, Failure)> {
        (0..self.shared.workers)
            .filter_map(|worker| Some((worker, self.mailbox.report(worker).take(call)?)))
            .collect()
    }

    /// Returns the result of a call on tiles. If several things went wrong, reports the first of: a
    /// panic at a tile that is torn, a worker's death if the round did not succeed, another failure
    /// of a worker if tiles are missing, the deadline or the round's own error.
    fn round_result<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        mut call: ActiveCall<'t>,
        grain: Grain,
    ) -> Result<(), PoolError> {
        let mut failures = core::mem::take(&mut call.failures);
        failures.extend(self.failures(call.number));
        let mut ended = round.try_finish();
        if ended.is_err() {
            // Tiles are held, but no worker is checked in: one has just died.
            call.deaths.extend(self.collect_dead());
            ended = match ended {
                Err(round) => round.try_finish(),
                ended => ended,
            };
        }
        // The claim words name the half-written tiles, even if the round cannot finish because no
        // worker is left for its other tiles.
        let (ended, torn) = match ended {
            Ok(Err(RoundError::Torn { round, tiles, rows })) => {
                let torn = (tiles.clone(), rows.clone());
                (Err(RoundError::Torn { round, tiles, rows }), torn)
            }
            Ok(outcome) => (outcome, Default::default()),
            Err(round) => {
                let torn = round.half_written();
                // Dropping the round abandons it.
                (Err(round.deadline(call.timer.waited())), torn)
            }
        };
        // A tile that has failed, was run again and is done now is no failure of the call.
        for (worker, failure) in &failures {
            if let Some(tile) = failure.tile().filter(|tile| torn.0.contains(tile)) {
                return Err(PoolError::KernelPanicked {
                    tile,
                    rows: match grain {
                        Grain::Tile => tiles.range(tile),
                        Grain::Unit => tiles.torn_unit(tile, &torn.0),
                    },
                    worker: *worker,
                    message: failure.message.clone(),
                });
            }
        }
        if let Some(&death) = call.deaths.first()
            && ended.is_err()
        {
            let (tiles, rows) = torn;
            return Err(worker_died(death, tiles, rows));
        }
        match ended {
            Err(RoundError::Deadline {
                waited,
                done,
                tiles,
                ..
            }) => match failures
                .into_iter()
                .find(|(_, failure)| failure.tile().is_none())
            {
                Some((worker, failure)) => Err(PoolError::WorkerFailed {
                    worker,
                    message: failure.message,
                }),
                None => Err(PoolError::Deadline {
                    waited,
                    done,
                    tiles,
                }),
            },
            ended => Ok(ended?),
        }
    }
}

impl<'t> ActiveCall<'t> {
    /// Returns the last call of a pool, for which `job` was opened.
    pub(super) fn new(
        pool: &Pool<'t>,
        job: u64,
        timer: PollTimer,
        params: Option<CallMemory<'t>>,
    ) -> Self {
        ActiveCall {
            number: pool.calls,
            job,
            timer,
            _params: params,
            policy: pool.on_failure,
            deaths: Vec::new(),
            idle_deaths: 0,
            failures: Vec::new(),
            has_torn: false,
            entered: false,
        }
    }

    /// Returns the result of a call that runs once in each worker. If several things went wrong,
    /// reports the first of: a worker's death, the deadline, a kernel's failure, a failure that
    /// only follows from another one.
    pub(super) fn into_result(
        self,
        mut failures: Vec<(usize, Failure)>,
        served: bool,
    ) -> Result<(), PoolError> {
        if let Some(&death) = self.deaths.first() {
            return Err(worker_died(death, Vec::new(), Vec::new()));
        }
        failures.sort_by_key(|(_, failure)| failure.cause == Cause::Consequence);
        if !served {
            return Err(PoolError::Deadline {
                waited: self.timer.waited(),
                done: 0,
                tiles: 0,
            });
        }
        match failures.into_iter().next() {
            Some((worker, failure)) => Err(PoolError::WorkerFailed {
                worker,
                message: failure.message,
            }),
            None => Ok(()),
        }
    }
}

/// Returns the error of a call in which a worker died.
pub(super) fn worker_died(
    death: Death,
    tiles: Vec<usize>,
    rows: Vec<core::ops::Range<usize>>,
) -> PoolError {
    PoolError::WorkerDied {
        worker: death.worker,
        pid: death.pid,
        signal: death.signal,
        code: death.code,
        tiles,
        rows,
    }
}
