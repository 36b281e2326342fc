//! Actions of a victim on arrays that others know too: it passes handles on, and uses handles that
//! others have passed on. It checks the contents at the beginning and at the end of each lease.

use ndarray::{ArrayRef, Dimension};
use ndshm::Handle;
use ndshm::error::LeaseError;

use super::board::Count;
use super::pattern::Pattern;
use super::victim::{Array, KEEPS, Sitting};
use super::world::CELLS;

impl Sitting<'_, '_> {
    pub fn free_known(&mut self, handle: Array) {
        match self.table.free(handle) {
            Ok(()) => self.me.count(Count::Frees),
            Err(LeaseError::Stale { .. }) => self.me.count(Count::Stale),
            Err(LeaseError::Join(error)) => self.join_refused(error),
            Err(other) => self.me.found(format!("free: {other}")),
        }
    }

    pub fn free_published(&mut self) {
        if !self.published.is_empty() {
            let index = self.me.random.below(self.published.len());
            let handle = self.published.swap_remove(index);
            self.free_known(handle);
        }
    }

    /// Passes an array on to others, through the queue or through the array of handles.
    pub fn publish(&mut self) {
        if self.published.len() >= KEEPS {
            return self.free_published();
        }
        let Some(handle) = self.take_private() else {
            return;
        };
        self.published.push(handle);
        if self.me.random.one_in(2) {
            match self.mail.push(handle.to_bits()) {
                Ok(()) => self.me.count(Count::Pushes),
                Err(refused) if refused.is_full() => {}
                Err(refused) => self.queue_refused(refused.into()),
            }
            return;
        }
        let cell = self.me.random.below(CELLS);
        match self.table.write(self.world.exchange) {
            Ok(mut cells) => cells[cell] = handle.to_bits(),
            Err(error) => self.exchange_refused(error),
        }
    }

    /// Handles a refused lease of the exchange. Clears poison without a repair, because its words
    /// are written whole: a dead writer leaves valid contents.
    pub fn exchange_refused(&mut self, error: LeaseError) {
        if self.refused(error)
            && let Err(error) = self.table.clear_poison(self.world.exchange)
        {
            self.refused(error);
        }
    }

    /// Returns an array that others know too.
    pub fn known(&mut self) -> Option<Array> {
        let bits = match self.me.random.below(3) {
            0 => match self.mail.pop() {
                Ok(bits) => bits,
                Err(error) => {
                    self.queue_refused(error);
                    None
                }
            },
            1 => {
                let cell = self.me.random.below(CELLS);
                match self
                    .table
                    .read(self.world.exchange)
                    .map(|cells| cells[cell])
                {
                    Ok(bits) => (bits != 0).then_some(bits),
                    Err(error) => {
                        self.exchange_refused(error);
                        None
                    }
                }
            }
            _ if self.published.is_empty() => None,
            _ => {
                let index = self.me.random.below(self.published.len());
                Some(self.published[index].to_bits())
            }
        };
        bits.map(Handle::from_bits)
    }

    pub fn use_anothers(&mut self) {
        if let Some(handle) = self.known() {
            self.use_known(handle);
        }
    }

    pub fn use_known(&mut self, handle: Array) {
        let poisoned = match self.me.random.below(16) {
            0..6 => self.read(handle, None).err() == Some(true),
            6..11 => self.write(handle, None).err() == Some(true),
            11 => self.free_while_leased(handle),
            12 => match self.table.attach(handle) {
                Ok(place) => {
                    self.me.count(Count::Attaches);
                    if !(8..13_008).contains(&place.dim()) {
                        self.me
                            .found(format!("{handle} has {} elements", place.dim()));
                    }
                    false
                }
                Err(error) => self.refused(error),
            },
            13 => match self.table.adopt(handle) {
                Ok(()) => {
                    self.me.count(Count::Adopts);
                    self.published.push(handle);
                    false
                }
                Err(error) => self.refused(error),
            },
            14 => match self.table.detach(handle) {
                Ok(()) => {
                    self.me.count(Count::Detaches);
                    false
                }
                Err(error) => self.refused(error),
            },
            _ => {
                self.free_known(handle);
                false
            }
        };
        if poisoned {
            // Others may free the array at any moment, so it cannot be overwritten in place.
            self.free_known(handle);
        }
    }

    /// Frees an array between two checks under the same lease. Returns `true` if it is poisoned.
    pub fn free_while_leased(&mut self, handle: Array) -> bool {
        match self.table.read(handle) {
            Ok(x) => {
                self.check(handle.to_bits(), &x, None);
                self.free_known(handle);
                self.me.count(Count::FreesLeased);
                self.allocate();
                self.check(handle.to_bits(), &x, None);
                false
            }
            Err(error) => self.refused(error),
        }
    }

    /// Checks the contents, and returns the pattern. Half-written contents are a finding, except in
    /// a lasting array that is being healed.
    pub fn check<D: Dimension>(
        &mut self,
        place: u64,
        x: &ArrayRef<u64, D>,
        healing: Option<usize>,
    ) -> Option<Pattern> {
        match Pattern::read(place, x.view()) {
            Ok(pattern) => Some(pattern),
            Err(_) if healing.is_some_and(|index| self.world.board.is_healing(index)) => {
                self.me.count(Count::Tolerated);
                None
            }
            Err(torn) => self.me.found(torn),
        }
    }

    /// Reads an array, and checks it again at the end of the lease. Returns `Err(true)` if it is
    /// poisoned, `Err(false)` if the lease is refused for another reason.
    pub fn read(&mut self, handle: Array, healing: Option<usize>) -> Result<(), bool> {
        let x = self
            .table
            .read(handle)
            .map_err(|error| self.refused(error))?;
        self.me.count(Count::Reads);
        let before = self.check(handle.to_bits(), &x, healing);
        if self.me.random.one_in(8) {
            self.me.random.nap(200);
        }
        if self.me.random.one_in(8) {
            // Take a second lease with the same seat.
            match self.table.read(handle) {
                Ok(_second) => self.me.count(Count::Reads),
                // Perhaps poisoned: a writer died while the first lease turned it away.
                Err(error) => {
                    let _ = self.refused(error);
                }
            }
        }
        let after = self.check(handle.to_bits(), &x, healing);
        if before != after {
            self.me.found(format!(
                "{handle} changed while it was read: {before:?}, then {after:?}"
            ));
        }
        Ok(())
    }

    /// Checks an array, overwrites it, and checks it again. Returns `Err(true)` if it is poisoned,
    /// `Err(false)` if the lease is refused for another reason.
    pub fn write(&mut self, handle: Array, healing: Option<usize>) -> Result<Pattern, bool> {
        let mut x = self
            .table
            .write(handle)
            .map_err(|error| self.refused(error))?;
        self.me.count(Count::Writes);
        self.check(handle.to_bits(), &x, healing);
        let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
        if self.me.random.one_in(8) {
            // Stay half-written long enough to be killed.
            x.slice_mut(ndarray::s![..4]).fill(1);
            self.me.random.nap(200);
        }
        pattern.write(x.view_mut());
        match Pattern::read(handle.to_bits(), x.view()) {
            Ok(found) if found == pattern => {}
            Ok(found) => self.me.found(format!(
                "{handle}: wrote {pattern:?}, but read {found:?} under the same lease"
            )),
            Err(torn) => self.me.found(format!(
                "{handle}: wrote {pattern:?}, but read under the same lease: {torn}"
            )),
        }
        if let Some(index) = healing {
            self.world.board.end_healing(index);
        }
        Ok(pattern)
    }
}
