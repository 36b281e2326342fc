//! The waits of a started call, and its end.

use super::RunningCall;
use super::scan::Scan;
use crate::partition::{Group, RoundError};
use crate::pool::call::{ActiveCall, worker_died};
use crate::pool::error::PoolError;
use crate::pool::tile_notes::StartedTiles;
use crate::pool::unit::Grain;
use crate::pool::{OnFailure, Pool};

impl<G: Group> RunningCall<'_, '_, '_, '_, G> {
    /// Waits until `count` tiles can be handed out, or all tiles that are with the workers. Under
    /// [`OnFailure::Skip`] a torn tile ends a wait for ready tiles.
    ///
    /// If the call must fail, first waits until the workers have run all their tiles. Else the round
    /// would be given up, and its partition could not repair the torn tiles.
    pub(super) fn wait_until(&mut self, count: usize, until: Until) -> Result<(), PoolError> {
        let mut fails = false;
        loop {
            let (Some((round, call)), Some(part)) = (&mut self.call, &self.part) else {
                return Ok(());
            };
            call.job = self.job.get();
            let seen = self.pool.mailbox.events();
            let mut now = Scan::of(&self.resting, part, &self.notes, &call.deaths);
            call.has_torn = !now.torn.is_empty();
            // Check for failures first. Otherwise a call in which some tile is always ready would
            // not notice a panic or a death.
            let is_due = call.timer.is_due() || self.pool.any_failed(call.number);
            let may_rest = call.policy == OnFailure::Skip && !now.has_unexplained();
            let mut stuck = false;
            if is_due || call.has_torn && !may_rest {
                let started = StartedTiles {
                    notes: &self.notes,
                    resting: &self.resting,
                };
                stuck = self.pool.is_stuck(round, call, Some(started));
                self.job.set(call.job);
                // Tiles may have become ready during the check, and those of the dead are torn.
                now = Scan::of(&self.resting, part, &self.notes, &call.deaths);
                // A reaper may have torn a worker's tile before the system reports that worker's
                // death. At the second check there is no such death.
                let before = core::mem::replace(&mut self.unexplained, now.has_unexplained());
                now.is_final = before && self.unexplained;
            }
            if until == Until::Ready {
                fails |= self.pool.must_fail(call, &now);
                if call.policy == OnFailure::Skip && !fails {
                    self.handed_out.report(&self.resting, &now);
                    self.unexplained &= !now.is_final;
                }
            }
            let (finished, wanted) = match until {
                Until::Ready if !fails => (now.ready, count.min(now.under_way)),
                Until::Ready | Until::Done => (now.ready + now.torn.len(), now.under_way),
            };
            // A torn tile that no check has reopened yet.
            let runs_again = until == Until::Done && call.runs_again() && !now.torn.is_empty();
            let is_over = !self.handed_out.is_empty() || finished >= wanted && !runs_again;
            // The next check may explain a torn tile that is missing.
            let is_stuck = stuck && (now.is_final || !now.has_unexplained());
            if is_stuck && !is_over || fails && is_over {
                return self.fail();
            }
            if is_over {
                return Ok(());
            }
            let moved = || Scan::ready(&self.resting, part) >= wanted;
            self.pool.sleep_after(seen, moved);
        }
    }

    /// Ends the call because of a failure, and returns its error.
    fn fail(&mut self) -> Result<(), PoolError> {
        let Some((_, call)) = &mut self.call else {
            return Ok(());
        };
        call.failures.extend(self.pool.failures(call.number));
        let mut failures = call.failures.iter();
        let failure = failures.find(|(_, failure)| failure.tile().is_none());
        let failure = failure.cloned();
        let death = match call.policy {
            OnFailure::Skip if !self.pool.workers.is_empty() => None,
            OnFailure::Skip => call.deaths.last().copied(),
            OnFailure::Fail | OnFailure::RunAgain => call.deaths.first().copied(),
        };
        self.end()?;
        // The others have done the tiles. The caller did not get all of them.
        match (death, failure) {
            // The dead worker held no tile.
            (Some(death), _) => Err(worker_died(death, Vec::new(), Vec::new())),
            (None, Some((worker, failure))) => Err(PoolError::WorkerFailed {
                worker,
                message: failure.message,
            }),
            (None, None) => Ok(()),
        }
    }

    /// Ends the call. Does nothing the second time.
    pub(super) fn end(&mut self) -> Result<(), PoolError> {
        self.explain();
        let forgotten = self.leave();
        let Some((round, call)) = self.call.take() else {
            return Ok(());
        };
        match self.pool.end(self.tiles, round, call, Grain::Tile) {
            Err(PoolError::Round(RoundError::Torn { tiles, rows, .. }))
                if forgotten.iter().any(|tile| tiles.contains(tile)) =>
            {
                Err(PoolError::NotGivenBack { tiles, rows })
            }
            outcome => outcome,
        }
    }

    /// Leaves in the call the failures and deaths that its result reports: those that
    /// [`wait_any`](RunningCall::wait_any) has not reported.
    fn explain(&mut self) {
        let (Some((_, call)), Some(part)) = (&mut self.call, &self.part) else {
            return;
        };
        let now = Scan::of(&self.resting, part, &self.notes, &call.deaths);
        if call.policy == OnFailure::Skip {
            let last = call.deaths.last().copied();
            call.deaths.retain(|death| now.is_by(*death));
            if call.deaths.is_empty() && self.pool.workers.is_empty() {
                call.deaths.extend(last);
            }
        }
        call.failures.extend(now.failures());
    }

    /// Leaves the round as a participant. Tears and returns the tiles that were handed out and
    /// forgotten. No [`ReadyTile`] of them can exist any more, because it borrows the call.
    pub(super) fn leave(&mut self) -> Vec<usize> {
        let Some(part) = self.part.take() else {
            return Vec::new();
        };
        let rests = |&index: &usize| self.resting[index].get();
        (0..self.resting.len())
            .filter(rests)
            .filter(|&index| part.tear_retaken(index))
            .collect()
    }
}

impl Pool<'_> {
    /// Returns `true` if a started call must end: a worker cannot run the kernel, or the policy does
    /// not allow to go on after a panic or a death.
    fn must_fail(&self, call: &ActiveCall<'_>, now: &Scan) -> bool {
        let has_failed = || !call.deaths.is_empty() || now.has_explained() || now.is_final;
        let is_over = match call.policy {
            OnFailure::Fail => has_failed(),
            OnFailure::Skip => false,
            OnFailure::RunAgain => now.is_final || !call.runs_again() && has_failed(),
        };
        is_over || self.any_failed(call.number)
    }
}

/// The purpose of a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// Tiles to hand out. A failure ends the wait even if tiles are ready.
    Ready,
    /// The end of the call, which reports failures.
    Done,
}
