//! The parent's part in a call: waiting for workers, and noticing deaths and failures.

use super::call::{ActiveCall, LOOK_EVERY};
use super::report::Failure;
use super::tile_notes::StartedTiles;
use super::waiting::sleep_after;
use super::worker::{Server, WorkerLife};
use super::workers::Death;
use super::{OnFailure, Pool};
use crate::partition::{Group, Round};

/// Deaths and panics in one call under [`OnFailure::RunAgain`], and deaths of workers without a tile
/// under [`OnFailure::Skip`], after which the parent no longer makes up for them.
const MOST_FAILURES: usize = 8;

impl ActiveCall<'_> {
    /// Returns `true` if torn tiles are run again.
    pub(super) fn runs_again(&self) -> bool {
        self.policy == OnFailure::RunAgain
            && self.deaths.len() + self.failures.len() <= MOST_FAILURES
    }

    /// Returns `true` if dead workers are replaced while the call runs.
    fn replaces_workers(&self) -> bool {
        match self.policy {
            OnFailure::Fail => false,
            OnFailure::Skip => self.idle_deaths <= MOST_FAILURES,
            OnFailure::RunAgain => self.runs_again(),
        }
    }
}

impl<'t> Pool<'t> {
    /// Waits as [`sleep_after`] does, at most until the next check. The parent of a
    /// [serial](Pool::serial) pool works instead of waiting.
    pub(super) fn sleep_after(&self, seen: u64, is_over: impl Fn() -> bool) {
        if self.workers.backend.is_serial() && self.work_here() {
            return;
        }
        sleep_after(&self.mailbox, &self.spin, seen, LOOK_EVERY, is_over);
    }

    /// Serves the open job in this thread, as the only worker. Returns `false` if there is none, or
    /// if it has been served.
    fn work_here(&self) -> bool {
        let (worker, job) = (0, self.mailbox.job());
        // A child that a kernel has forked is not the pool's parent.
        let is_new =
            self.is_ours() && job.is_open() && !self.mailbox.has_served(worker, job.number());
        if is_new {
            let life = WorkerLife {
                table: self.table,
                shared: self.shared,
                worker,
                parent: None,
            };
            Server::new(&life, self.mailbox, Some(&self.image), &self.spin).serve_one(job);
        }
        is_new
    }

    /// Waits until all tiles of the round are done or torn, no worker is left, or the deadline has
    /// passed.
    pub(super) fn wait<G: Group>(&mut self, round: &Round<'_, '_, G>, call: &mut ActiveCall<'t>) {
        loop {
            let seen = self.mailbox.events();
            // In a child that a kernel of a serial pool has forked, the call is the parent's.
            if round.is_counted() || !self.is_ours() {
                break;
            }
            if (call.timer.is_due() || self.any_failed(call.number))
                && self.is_stuck(round, call, None)
            {
                break;
            }
            self.sleep_after(seen, || round.is_counted());
        }
    }

    /// Checks the workers. Returns `true` if there is nothing left to wait for.
    ///
    /// `started` are the parts of a started call.
    pub(super) fn is_stuck<G: Group>(
        &mut self,
        round: &Round<'_, '_, G>,
        call: &mut ActiveCall<'t>,
        started: Option<StartedTiles<'_>>,
    ) -> bool {
        // A worker that replaces a dead one may have its seat, by which the tile of the dead is torn.
        let mut before = Vec::new();
        if !call.deaths.is_empty() {
            before = round.torn_units();
            before.retain(|torn| call.deaths.iter().any(|death| death.seat == torn.1));
        }
        let deaths = self.collect_dead();
        let somebody_died = !deaths.is_empty();
        let held_none = |death: &&Death| {
            let torn = |&(unit, seat)| seat == death.seat && !before.contains(&(unit, seat));
            !round.holds(death.seat) && !round.torn_units().iter().any(torn)
        };
        call.idle_deaths += deaths.iter().filter(held_none).count();
        call.deaths.extend(deaths);
        // Look before the torn tiles are reopened: another process's reaper may tear a tile after
        // that, and the next check must reopen it.
        //
        // In a model only a death makes this look necessary, or a failure. Checking every tile each
        // time would be most of the model's work.
        let may_be_over =
            !cfg!(loom) || !call.deaths.is_empty() || self.any_failed(call.number) || call.has_torn;
        let was_over = may_be_over && round.is_over();
        let mut reopened = 0;
        if call.policy == OnFailure::RunAgain {
            // After that look: a worker reports before it tears.
            self.take_failures(call, round, started);
            let has_failed = !call.deaths.is_empty() || !call.failures.is_empty();
            // Torn by this reap, by another process's that began earlier, or after a panic.
            if has_failed && call.runs_again() && !self.any_failed(call.number) {
                reopened = round.reopen_torn(|unit| match started {
                    // Units of a started call have one tile.
                    Some(started) if started.rests(unit) => false,
                    Some(started) => {
                        started.notes.clear(unit);
                        true
                    }
                    None => true,
                });
            }
        }
        if (somebody_died || reopened > 0) && call.replaces_workers() {
            let _ =
                self.start_missing(&|table, slot| round.accounts_for(table, slot, call.entered));
            // Workers that have finished look again.
            call.job = self.mailbox.announce();
        }
        was_over && reopened == 0
            || self.workers.is_empty()
            || self.all_have_failed(call)
            || self.is_blocked(call)
            || call.timer.is_overdue()
    }

    /// Takes the failures of kernels at tiles from the workers' reports, or from the notes of a
    /// started call. The workers may report the next ones.
    fn take_failures<G: Group>(
        &self,
        call: &mut ActiveCall<'_>,
        round: &Round<'_, '_, G>,
        started: Option<StartedTiles<'_>>,
    ) {
        let Some(started) = started else {
            let reports = (0..self.shared.workers).map(|worker| self.mailbox.report(worker));
            let at_tiles = reports
                .enumerate()
                .filter(|(_, report)| report.has_failed_at_tile(call.number))
                .filter_map(|(worker, report)| Some((worker, report.take(call.number)?)));
            call.failures.extend(at_tiles);
            return;
        };
        for tile in round.torn() {
            if started.rests(tile) {
                continue;
            }
            let noted = started.notes.failure(tile);
            let is_new = |(_, new): &(usize, Failure)| {
                let mut known = call.failures.iter();
                // A failure stays in the notes only if its tile is not run again.
                call.runs_again() || !known.any(|(_, known)| known.tile() == new.tile())
            };
            if let Some(failure) = noted.filter(is_new) {
                call.failures.push(failure);
            }
        }
    }

    /// Returns `true` if only dead workers still hold tiles, and a lock of an outside process
    /// prevents their reap. Tries the reap again, because the lock may be gone.
    fn is_blocked(&self, call: &ActiveCall<'_>) -> bool {
        if call.deaths.is_empty() || cfg!(loom) {
            return false;
        }
        let mut workers = (0..self.shared.workers).filter(|&worker| self.workers.is_there(worker));
        workers.all(|worker| self.mailbox.has_served(worker, call.job))
            && self.table.reap().is_ok_and(|report| report.locked > 0)
    }

    /// Removes the dead workers and reaps their seats, which tears their tiles.
    pub(super) fn collect_dead(&mut self) -> Vec<Death> {
        let deaths = self.workers.collect_dead(&self.mailbox);
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

    /// Returns `true` if a worker has failed and all have finished the job.
    fn all_have_failed(&self, call: &ActiveCall<'_>) -> bool {
        let mut workers = (0..self.shared.workers).filter(|&worker| self.workers.is_there(worker));
        // The next check takes the failures of tiles that are run again.
        let fails = |worker| {
            let report = self.mailbox.report(worker);
            let runs_again = || call.runs_again() && report.has_failed_at_tile(call.number);
            report.has_failed(call.number) && !runs_again()
        };
        (0..self.shared.workers).any(fails)
            && workers.all(|worker| self.mailbox.has_served(worker, call.job))
    }

    /// Waits until no worker is checked in. The caller has closed the job.
    pub(super) fn wait_until_out(&mut self, call: &mut ActiveCall<'t>) {
        let mailbox = self.mailbox;
        let workers = self.shared.workers;
        let is_out = || (0..workers).all(|worker| !mailbox.is_in(worker));
        loop {
            let seen = mailbox.events();
            if is_out() {
                break;
            }
            if call.timer.is_due() {
                call.deaths.extend(self.collect_dead());
                // A kernel that does not return keeps its tile, and the arrays stay closed.
                if call.timer.is_overdue() || is_out() {
                    break;
                }
            }
            self.sleep_after(seen, is_out);
        }
    }

    /// Waits until every worker has served the call. Returns `false` if the deadline passes first.
    pub(super) fn wait_for_all(&mut self, base: u64, call: &mut ActiveCall<'_>) -> bool {
        let mailbox = self.mailbox;
        loop {
            let seen = mailbox.events();
            if call.timer.is_due() {
                let deaths = self.collect_dead();
                if !deaths.is_empty() {
                    mailbox.barrier().break_up(base);
                    call.deaths.extend(deaths);
                }
            }
            let present = &self.workers;
            let job = call.job;
            let is_over = || {
                let mut there = (0..self.shared.workers).filter(|&worker| present.is_there(worker));
                there.all(|worker| mailbox.has_served(worker, job))
            };
            if is_over() {
                return true;
            }
            if call.timer.is_overdue() {
                mailbox.barrier().break_up(base);
                return false;
            }
            self.sleep_after(seen, is_over);
        }
    }
}
