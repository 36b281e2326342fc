//! The parent's part in a call: waiting for workers, noticing deaths, reporting failures.

use core::time::Duration;

use super::call_memory::CallMemory;
use super::report::{Cause, Failure};
use super::workers::Death;
use super::{OnDeath, Pool};
use crate::error::{PoolError, RoundError};
use crate::partition::{Group, Partition, Round};
use crate::sync::time::{Instant, Interval};

/// Time between two checks for dead workers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Workers that may die in one call under [`OnDeath::RunAgain`].
const MOST_DEATHS: usize = 8;

/// A running call.
pub(super) struct Ongoing<'t> {
    /// Number of the call.
    pub(super) number: u64,
    /// Number of the open job.
    pub(super) job: u64,
    pub(super) pace: Pace,
    /// Keeps long parameters in place for the workers.
    pub(super) _params: Option<CallMemory<'t>>,
    pub(super) deaths: Vec<Death>,
    /// The parent is a participant of the round too.
    pub(super) entered: bool,
}

/// The times for checking the deadline and the workers.
pub(super) struct Pace {
    start: Instant,
    look: Interval,
    deadline: Option<Duration>,
}

impl Pace {
    pub(super) fn new(deadline: Option<Duration>) -> Pace {
        Pace {
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
    /// Sleeps until `is_over`, an event after `seen`, or the next check.
    ///
    /// The caller must read `seen` before it tests its condition: later changes are then later
    /// events.
    pub(super) fn sleep_after(&self, seen: u64, is_over: impl Fn() -> bool) {
        let mailbox = self.mailbox;
        let moved = || (is_over() || mailbox.events() != seen).then_some(());
        if self.spin.until(moved).is_none() {
            mailbox.wait_event(seen, LOOK_EVERY);
        }
    }

    /// Waits until all tiles of the round are done or torn, no worker is left, or the deadline has
    /// passed.
    pub(super) fn wait<G: Group>(&mut self, round: &Round<'_, '_, G>, call: &mut Ongoing<'t>) {
        loop {
            let seen = self.mailbox.events();
            if round.is_counted() {
                break;
            }
            if (call.pace.is_due() || self.any_failed(call.number)) && self.is_stuck(round, call) {
                break;
            }
            self.sleep_after(seen, || round.is_counted());
        }
    }

    /// Checks the workers. Returns `true` if there is nothing left to wait for.
    pub(super) fn is_stuck<G: Group>(
        &mut self,
        round: &Round<'_, '_, G>,
        call: &mut Ongoing<'t>,
    ) -> bool {
        let deaths = self.collect_dead();
        let somebody_died = !deaths.is_empty();
        call.deaths.extend(deaths);
        if self.on_death == OnDeath::RunAgain && call.deaths.len() <= MOST_DEATHS {
            // Torn by this reap, or by another process's that began earlier.
            let reopened = match call.deaths.is_empty() || self.any_failed(call.number) {
                true => 0,
                false => round.reopen_torn(),
            };
            if somebody_died || reopened > 0 {
                let _ = self
                    .start_missing(&|table, slot| round.accounts_for(table, slot, call.entered));
                // Workers that have finished look again.
                call.job = self.mailbox.announce();
            }
        }
        // In a model only a death makes this check necessary. Checking every tile each time would
        // be most of the model's work.
        let may_be_over = !cfg!(loom) || !call.deaths.is_empty();
        may_be_over && round.is_over()
            || self.crew.is_empty()
            || self.all_have_failed(call)
            || self.is_blocked(call)
            || call.pace.is_overdue()
    }

    /// Returns `true` if only dead workers still hold tiles, and a lock of an outside process
    /// prevents their reap. Tries the reap again, because the lock may be gone.
    fn is_blocked(&self, call: &Ongoing<'_>) -> bool {
        if call.deaths.is_empty() || cfg!(loom) {
            return false;
        }
        let mut workers = (0..self.shared.workers).filter(|&worker| self.crew.is_there(worker));
        workers.all(|worker| self.mailbox.has_served(worker, call.job))
            && self.table.reap().is_ok_and(|report| report.locked > 0)
    }

    /// Removes the dead workers from the crew and reaps their seats, which tears their tiles.
    pub(super) fn collect_dead(&mut self) -> Vec<Death> {
        let deaths = self.crew.collect_dead(&self.mailbox);
        if !deaths.is_empty() {
            self.deaths += deaths.len() as u64;
            for death in &deaths {
                super::trace::death(death.worker, death.pid, death.signal, death.code);
            }
            // An error means that the parent has no seat, and then no participant has.
            let _ = self.table.reap();
        }
        deaths
    }

    pub(super) fn any_failed(&self, call: u64) -> bool {
        (0..self.shared.workers).any(|worker| self.mailbox.report(worker).has_failed(call))
    }

    /// Returns `true` if a kernel has panicked, or a worker has died and the policy does not allow
    /// recovery.
    pub(super) fn must_fail(&self, call: &Ongoing<'_>) -> bool {
        let makes_up = self.on_death == OnDeath::RunAgain && call.deaths.len() <= MOST_DEATHS;
        self.any_failed(call.number) || !call.deaths.is_empty() && !makes_up
    }

    /// Returns `true` if a worker has failed and all have finished the job.
    fn all_have_failed(&self, call: &Ongoing<'_>) -> bool {
        let mut workers = (0..self.shared.workers).filter(|&worker| self.crew.is_there(worker));
        self.any_failed(call.number)
            && workers.all(|worker| self.mailbox.has_served(worker, call.job))
    }

    /// Waits until no worker is checked in. The caller has closed the job.
    pub(super) fn wait_until_out(&mut self, call: &mut Ongoing<'t>) {
        let mailbox = self.mailbox;
        let workers = self.shared.workers;
        let is_out = || (0..workers).all(|worker| !mailbox.is_in(worker));
        loop {
            let seen = mailbox.events();
            if is_out() {
                break;
            }
            if call.pace.is_due() {
                call.deaths.extend(self.collect_dead());
                // A kernel that does not return keeps its tile, and the arrays stay closed.
                if call.pace.is_overdue() || is_out() {
                    break;
                }
            }
            self.sleep_after(seen, is_out);
        }
    }

    /// Takes the failures that workers reported in `call`, in the order of the workers.
    pub(super) fn failures(&self, call: u64) -> Vec<(usize, Failure)> {
        (0..self.shared.workers)
            .filter_map(|worker| Some((worker, self.mailbox.report(worker).take(call)?)))
            .collect()
    }

    /// Returns the call's result. If several things went wrong, reports the first of: a panic at a
    /// tile, a worker's death if the round did not succeed, another failure of a worker if tiles
    /// are missing, the deadline or the round's own error.
    pub(super) fn outcome<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        mut call: Ongoing<'t>,
    ) -> Result<(), PoolError> {
        let failures = self.failures(call.number);
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
                (Err(round.deadline(call.pace.waited())), torn)
            }
        };
        let at_tile = |failure: &Failure| match failure.cause {
            Cause::Tile(tile) => Some(tile),
            _ => None,
        };
        for (worker, failure) in &failures {
            if let Some(tile) = at_tile(failure) {
                return Err(PoolError::KernelPanicked {
                    tile,
                    rows: tiles.range(tile),
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
            }) => match failures.into_iter().next() {
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
