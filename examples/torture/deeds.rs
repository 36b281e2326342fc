//! Other actions of a victim: lasting arrays and their healing, jobs, arrays without owner,
//! children, and exhaustion of memory, slots and seats.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ndarray::{Dimension, Ix1};
use ndshm::error::{AllocError, JoinError, LeaseError, PushError};
use ndshm::{AnyHandle, Handle, HandleTable};
use rustix::process::Signal;

use super::board::{Count, Me};
use super::pattern::Pattern;
use super::process::{Child, exit_at_once};
use super::supervisor::PATIENCE;
use super::victim::{Array, Sitting, expect_end};
use super::world::Lasting;

impl Sitting<'_, '_> {
    pub fn use_lasting(&mut self) {
        let world = self.world;
        let index = self.me.random.below(world.lasting.len());
        let array = &world.lasting[index];
        let outcome = match self.me.random.below(20) {
            0..10 => self.read(array.handle, Some(array.index)),
            10..19 => self.write(array.handle, Some(array.index)).map(drop),
            _ => {
                self.panic_over(array.handle);
                Ok(())
            }
        };
        if outcome == Err(true) {
            match self.me.random.one_in(2) {
                true => self.heal_in_place(array),
                false => self.heal_after(array, |sitting| {
                    let _ = sitting.write(array.handle, Some(array.index));
                }),
            }
        }
    }

    /// Takes many leases of one small array in a row, to collide with others within a call.
    pub fn crowd_around(&mut self) {
        let world = self.world;
        let array = &world.lasting[self.me.random.below(2)];
        for _ in 0..self.me.random.below(3000) {
            let outcome = match self.me.random.one_in(3) {
                true => self.write_quickly(array),
                false => self.read_quickly(array),
            };
            if let Err(error) = outcome
                && self.refused(error)
            {
                return self.heal_in_place(array);
            }
        }
    }

    fn read_quickly(&mut self, array: &Lasting<Ix1>) -> Result<(), LeaseError> {
        let x = self.table.read(array.handle)?;
        let before = self.check(array.bits(), &x, Some(array.index));
        let after = self.check(array.bits(), &x, Some(array.index));
        if before != after {
            self.me.found(format!(
                "{} changed while it was read: {before:?}, then {after:?}",
                array.handle
            ));
        }
        self.me.count(Count::Reads);
        Ok(())
    }

    fn write_quickly(&mut self, array: &Lasting<Ix1>) -> Result<(), LeaseError> {
        let mut x = self.table.write(array.handle)?;
        let pattern = Pattern::new(array.bits(), self.me.author(), 0);
        pattern.write(x.view_mut());
        match Pattern::read(array.bits(), x.view()) {
            Ok(found) if found == pattern => {}
            Ok(found) => self
                .me
                .found(format!("wrote {pattern:?}, but read {found:?}")),
            Err(torn) => self
                .me
                .found(format!("wrote {pattern:?}, but read: {torn}")),
        }
        self.world.board.end_healing(array.index);
        self.me.count(Count::Writes);
        Ok(())
    }

    /// Allocates many small arrays one after another, in slots for which others compete.
    pub fn churn(&mut self) {
        for _ in 0..self.me.random.below(2000) {
            let handle: Array = match self.table.uninit(8) {
                Ok(handle) => handle,
                Err(error) => return self.alloc_refused(error),
            };
            self.me.count(Count::Allocs);
            let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
            match self.table.write(handle) {
                Ok(mut x) => {
                    pattern.write(x.view_mut());
                    drop(x);
                    self.check_private(handle, pattern);
                }
                Err(LeaseError::Busy { .. }) => self.me.count(Count::Busy),
                Err(error) => self.me.found(format!("write of a new array: {error}")),
            }
            self.free_own(handle);
        }
    }

    /// Panics half-way through a write. This poisons the array, and the process continues.
    fn panic_over(&mut self, handle: Array) {
        let mut x = match self.table.write(handle) {
            Ok(x) => x,
            Err(error) => {
                let _ = self.refused(error);
                return;
            }
        };
        let half = x.len() / 2;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            x.slice_mut(ndarray::s![..half]).fill(1);
            let _owned = x;
            resume_unwind(Box::new(()));
        }));
        debug_assert!(outcome.is_err());
    }

    /// Overwrites a poisoned array, which refuses all leases, and clears its poison.
    fn heal_in_place(&mut self, array: &Lasting<Ix1>) {
        array.alone(|| {
            // Check again: another process may have healed the array before we took the lock.
            let unused = |info: ndshm::inspect::ArrayInfo| {
                info.poisoned && info.writer.is_none() && info.readers.is_empty()
            };
            // A poisoned array may still have readers, if its writer died while it was turned away.
            if !self.table.info(array.handle).is_ok_and(unused) {
                return;
            }
            let mut place = match self.table.attach(array.handle) {
                Ok(place) => place,
                Err(error) => self.me.found(format!("a lasting array: {error}")),
            };
            let pattern = Pattern::new(array.bits(), self.me.author(), 0);
            // SAFETY: the array lasts, so it is not freed. It is poisoned, so no process gets a
            // lease of it, and a check since then has shown that no process has one. Only the
            // holder of the lock clears poison, and we hold it.
            pattern.write(unsafe { place.view_mut_unsynchronized() });
            self.world.board.end_healing(array.index);
            match self.table.clear_poison(array.handle) {
                Ok(()) => self.me.count(Count::HealedInPlace),
                Err(error) => {
                    let _ = self.refused(error);
                }
            }
        });
    }

    /// Clears the poison of an array, then overwrites it. In between, others may see the contents
    /// that the dead writer left.
    pub fn heal_after<D: Dimension>(
        &mut self,
        array: &Lasting<D>,
        overwrite: impl FnOnce(&mut Self),
    ) {
        array.alone(|| {
            if !self.is_poisoned(array.handle) {
                return;
            }
            self.world.board.begin_healing(array.index);
            match self.table.clear_poison(array.handle) {
                Ok(()) => {
                    self.me.count(Count::HealedAfter);
                    overwrite(self);
                }
                Err(error) => {
                    let _ = self.refused(error);
                }
            }
        });
    }

    fn is_poisoned<D: Dimension>(&self, handle: Handle<u64, D>) -> bool {
        matches!(self.table.read(handle), Err(LeaseError::Poisoned { .. }))
    }

    pub fn push_job(&mut self) {
        for _ in 0..self.me.random.below(20) {
            if !self.push_one() {
                return;
            }
        }
    }

    pub fn pop_job(&mut self) {
        for _ in 0..self.me.random.below(25) {
            if !self.pop_one() {
                return;
            }
        }
    }

    /// Pushes and pops many jobs.
    pub fn pass_jobs(&mut self) {
        for _ in 0..self.me.random.below(3000) {
            match self.me.random.one_in(2) {
                true => self.push_one(),
                false => self.pop_one(),
            };
        }
    }

    /// Pushes a job. Returns `true` if there was room.
    fn push_one(&mut self) -> bool {
        let Some(job) = self.world.board.new_job() else {
            return false;
        };
        match self.jobs.push(job) {
            Ok(()) => {
                self.world.board.pushed(job, true);
                self.me.count(Count::Pushes);
                return true;
            }
            Err(PushError::Full { .. }) => self.world.board.pushed(job, false),
            Err(refused) => self.queue_refused(refused.into()),
        }
        false
    }

    /// Pops a job. Returns `true` if there was one.
    fn pop_one(&mut self) -> bool {
        match self.jobs.pop() {
            Ok(Some(job)) => {
                self.world.board.popped(job);
                self.me.count(Count::Pops);
                return true;
            }
            Ok(None) => {}
            Err(error) => self.queue_refused(error),
        }
        false
    }

    /// Searches all arrays for one without owner, and uses or frees it. Detached arrays must not
    /// accumulate.
    pub fn scavenge(&mut self) {
        let detached = |info: &ndshm::inspect::ArrayInfo| info.owner.is_none();
        let found: Vec<AnyHandle> = self
            .table
            .arrays()
            .filter(detached)
            .map(|info| info.handle)
            .collect();
        if found.is_empty() {
            return;
        }
        let handle = found[self.me.random.below(found.len())];
        match handle.downcast(self.table) {
            Ok(handle) if self.me.random.one_in(2) => self.use_known(handle),
            Ok(handle) => self.free_known(handle),
            Err(error) => {
                let _ = self.refused(error);
            }
        }
    }

    pub fn reap(&mut self) {
        match self.table.reap() {
            Ok(report) => {
                self.me.count(Count::Reaps);
                self.world.board.add(Count::Reaped, report.seats);
            }
            Err(error) => self.join_refused(error),
        }
    }

    pub fn trim(&mut self) {
        match self.table.trim() {
            Ok(_) => self.me.count(Count::Trims),
            Err(error) => self.join_refused(error),
        }
    }

    /// Forks a child that takes a few actions on this table or on its own one. This process may
    /// hold a lease meanwhile, which the child does not own.
    pub fn have_child(&mut self) {
        if self.place.is_none() {
            return;
        }
        for child in core::mem::take(&mut self.children) {
            match child.ended() {
                Some(status) => expect_end(self.me, status),
                None => self.children.push(child),
            }
        }
        if self.children.len() >= 2 {
            return;
        }
        let world = self.world;
        let array = &world.lasting[self.me.random.below(world.lasting.len())];
        let held = match self.me.random.one_in(2) {
            true => self.table.write(array.handle).ok(),
            false => None,
        };
        let before = held.as_ref().map(|x| x.view().to_owned());
        self.me.count(Count::Forks);
        let (number, deeds) = (self.me.random.any(), self.me.random.below(60));
        let held = core::cell::Cell::new(held);
        let child = Child::fork(world.board, || {
            drop(held.take());
            let me = &mut Me::new(world.board, world.seed, number | 1 << 63);
            if me.random.one_in(2) {
                let mut sitting = Sitting::new(world, self.table, me, None);
                (0..deeds).for_each(|_| sitting.act());
                exit_at_once(0);
            }
            match HandleTable::join(&world.segment) {
                Ok(table) => {
                    let mut sitting = Sitting::new(world, &table, me, None);
                    (0..deeds).for_each(|_| sitting.act());
                }
                Err(JoinError::SeatsFull { .. }) => me.count(Count::SeatsFull),
                Err(other) => me.found(format!("a child's join: {other}")),
            }
        });
        if self.me.random.one_in(3) {
            self.me.random.nap(1500);
            if child.ended().is_none_or(|status| {
                expect_end(self.me, status);
                false
            }) {
                child.signal(Signal::KILL);
                self.me.count(Count::GrandKills);
                match child.ends_within(PATIENCE) {
                    Some(status) => expect_end(self.me, status),
                    None => self.me.found("a killed grandchild does not end"),
                }
            }
        } else {
            self.children.push(child);
        }
        // The lease belongs to this process, whatever the child did with its copy.
        if let (Some(x), Some(before)) = (held.take(), before)
            && x.view() != before
        {
            self.me.found(format!(
                "{} changed under the lease of a process that had forked",
                array.handle
            ));
        }
    }

    /// Allocates arrays of one size until memory or slots are exhausted, and frees them.
    pub fn exhaust(&mut self) {
        let (what, len) = match self.me.random.below(3) {
            0 => (Count::SlotExhaustions, 8),
            1 => (Count::Exhaustions, 1000),
            _ => (Count::Exhaustions, 10_000),
        };
        let mut all: Vec<Array> = Vec::new();
        let refused = loop {
            match self.table.uninit(len) {
                Ok(handle) => all.push(handle),
                Err(error) => break error,
            }
        };
        match refused {
            AllocError::Full { .. } => self.me.count(what),
            error => self.alloc_refused(error),
        }
        if self.me.random.one_in(2) {
            self.me.random.nap(2000);
        }
        self.me.random.one_in(2).then(|| all.reverse());
        for handle in all {
            self.free_own(handle);
        }
    }

    /// Takes all free seats, and leaves them.
    pub fn crowd(&mut self) {
        let mut tables = Vec::new();
        loop {
            match HandleTable::join(&self.world.segment) {
                Ok(table) => tables.push(table),
                Err(JoinError::SeatsFull { .. }) => break,
                Err(other) => self.me.found(format!("join: {other}")),
            }
        }
        self.me.count(Count::SeatExhaustions);
        self.me.random.nap(500);
    }
}
