//! The parent's part in a round: waiting for the workers, noticing deaths, naming what went wrong.

use core::time::Duration;
use std::time::Instant;

use super::Pool;
use super::fork::{self, Child};
use super::worker::WorkerLife;
use crate::error::{PoolError, RoundError};
use crate::partition::{Group, Partition, Round};

/// Between two looks at whether the workers live, while waiting for them.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Pool<'_> {
    /// Waits until all tiles of the round are done or torn, or no worker is left, or time is up.
    pub(super) fn wait<G: Group>(&mut self, round: &Round<'_, '_, G>) {
        let start = Instant::now();
        let mut looked = start;
        loop {
            let mailbox = self.mailbox;
            let seen = mailbox.events();
            if self
                .spin
                .until(|| (round.is_counted() || mailbox.events() != seen).then_some(()))
                .is_none()
            {
                mailbox.wait_event(seen, LOOK_EVERY);
            }
            if round.is_counted() {
                return;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                // Every one is asked: each that has died is to be waited for.
                let died = self
                    .children
                    .iter_mut()
                    .flatten()
                    .filter_map(|child| child.has_died().then_some(()));
                if died.count() > 0 {
                    // Its tiles become torn, so that the round can end.
                    let _ = self.table.reap();
                }
                let alive = self.children.iter().flatten().any(|child| !child.is_dead());
                let overdue = |deadline| start.elapsed() >= deadline;
                if round.is_over() || !alive || self.deadline.is_some_and(overdue) {
                    return;
                }
            }
        }
    }

    /// Waits until no worker is in the job that was closed. Those that died are taken out of the
    /// pool, and returned.
    pub(super) fn wait_until_out(&mut self) -> Result<Vec<(usize, Child)>, PoolError> {
        let start = Instant::now();
        let mut died = Vec::new();
        loop {
            let mailbox = self.mailbox;
            let seen = mailbox.events();
            let is_out = || (0..self.shared.workers).all(|worker| !mailbox.is_in(worker));
            if self.spin.until(|| is_out().then_some(())).is_some() {
                break;
            }
            mailbox.wait_event(seen, LOOK_EVERY);
            for worker in 0..self.shared.workers {
                if self.children[worker].as_mut().is_some_and(Child::has_died) {
                    died.extend(self.children[worker].take().map(|child| (worker, child)));
                    mailbox.reset(worker);
                }
            }
            // A kernel that does not come back keeps its tile, and the arrays stay closed.
            let overdue = |deadline| start.elapsed() >= deadline;
            if self.deadline.is_some_and(overdue) {
                break;
            }
        }
        for worker in 0..self.shared.workers {
            if self.children[worker].as_ref().is_some_and(Child::is_dead) {
                died.extend(self.children[worker].take().map(|child| (worker, child)));
                self.mailbox.reset(worker);
            }
        }
        if !died.is_empty() {
            self.table.reap()?;
        }
        Ok(died)
    }

    /// What the call came to: a panic before a death before anything else.
    pub(super) fn outcome<G: Group>(
        &mut self,
        tiles: &Partition<'_, G>,
        round: Round<'_, '_, G>,
        deaths: Vec<(usize, Child)>,
    ) -> Result<(), PoolError> {
        let mailbox = self.mailbox;
        let panics: Vec<_> = (0..self.shared.workers)
            .filter_map(|worker| Some((worker, mailbox.take_panic(worker)?)))
            .collect();
        let ended = match round.try_finish() {
            Ok(outcome) => outcome,
            // Dropped here, and so given up.
            Err(round) => Err(round.deadline(self.deadline.unwrap_or_default())),
        };
        if let Some((worker, panic)) = panics.into_iter().next() {
            return Err(PoolError::KernelPanicked {
                tile: panic.tile,
                rows: tiles.rows(panic.tile),
                worker,
                message: panic.message,
            });
        }
        let torn = match &ended {
            Err(RoundError::Torn { rows, .. }) => rows.clone(),
            _ => Vec::new(),
        };
        if let Some((worker, child)) = deaths.into_iter().next()
            && ended.is_err()
        {
            return Err(PoolError::WorkerDied {
                worker,
                pid: child.pid(),
                signal: child.signal(),
                code: child.code(),
                tiles: (0..tiles.tiles())
                    .filter(|&tile| torn.contains(&tiles.rows(tile)))
                    .collect(),
                rows: torn,
            });
        }
        match ended {
            Err(RoundError::Deadline { done, tiles, .. }) => Err(PoolError::Deadline {
                waited: self.deadline.unwrap_or_default(),
                done,
                tiles,
            }),
            ended => Ok(ended?),
        }
    }

    /// Forks the workers that are not there.
    pub(super) fn fork_missing(&mut self) -> Result<(), PoolError> {
        for worker in 0..self.shared.workers {
            if self.children[worker].as_mut().is_some_and(Child::has_died) {
                self.children[worker] = None;
                self.mailbox.reset(worker);
            }
        }
        if self.children.iter().all(Option::is_some) {
            return Ok(());
        }
        fork::refuse_threads()?;
        for worker in 0..self.shared.workers {
            if self.children[worker].is_none() {
                let life = WorkerLife {
                    table: self.table,
                    shared: self.shared,
                    worker,
                    parent: std::process::id(),
                };
                self.children[worker] = Some(fork::fork(&life)?);
            }
        }
        Ok(())
    }
}
