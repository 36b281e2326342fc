//! Actions of a victim on its private arrays: they keep their contents, whatever happens to other
//! processes.

use ndshm::error::{AllocError, LeaseError};

use super::board::Count;
use super::pattern::Pattern;
use super::victim::{Array, KEEPS, Sitting};

impl Sitting<'_, '_> {
    pub fn allocate(&mut self) {
        if self.private.len() >= KEEPS {
            return self.free_private();
        }
        let len = match self.me.random.below(10) {
            0..4 => 8 + self.me.random.below(9),
            4..8 => 8 + self.me.random.below(505),
            8 => 8 + self.me.random.below(4000),
            _ => 8 + self.me.random.below(13_000),
        };
        let fill = self.me.random.any();
        let (made, first, step) = match self.me.random.below(4) {
            0 => (self.table.zeros(len), Some(0), 0),
            1 => (self.table.from_elem(len, fill), Some(fill), 0),
            2 => {
                let made = self.table.from_shape_fn(len, |index| index as u64);
                (made, Some(0), 1)
            }
            _ => (self.table.uninit(len), None, 0),
        };
        let handle: Array = match made {
            Ok(handle) => handle,
            Err(error) => return self.alloc_refused(error),
        };
        self.me.count(Count::Allocs);
        match (self.table.read(handle), first) {
            (Ok(x), Some(first)) => {
                let wrong = (first..)
                    .step_by(step.max(1))
                    .zip(&*x)
                    .position(|(next, &element)| element != if step == 0 { first } else { next });
                if x.len() != len || wrong.is_some() {
                    let found = wrong.map(|index| x[index]);
                    self.me.found(format!(
                        "{handle} is new, of {len} elements from {first} by {step}: it has {}, the \
                         first wrong one at {wrong:?}, {found:x?}",
                        x.len()
                    ));
                }
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.me.found(format!("read of a new array: {error}")),
        }
        let pattern = Pattern::new(handle.to_bits(), self.me.author(), 0);
        match self.table.write(handle) {
            Ok(mut x) => pattern.write(x.view_mut()),
            // A process with a stale handle of the same slot holds it briefly.
            Err(LeaseError::Busy { .. }) => {
                self.me.count(Count::Busy);
                return self.free_own(handle);
            }
            Err(error) => self.me.found(format!("write of a new array: {error}")),
        }
        self.private.push((handle, pattern));
        self.show();
    }

    pub fn alloc_refused(&mut self, error: AllocError) {
        match error {
            AllocError::Full { .. } | AllocError::NoMemory(_) => self.me.count(Count::Full),
            AllocError::Join(error) => self.join_refused(error),
            other => self.me.found(format!("alloc: {other}")),
        }
    }

    /// Shows the supervisor the first private array, if there is one.
    pub fn show(&mut self) {
        if let (Some(place), Some((handle, _))) = (self.place, self.private.first()) {
            self.world.board.show_private(place, handle.to_bits());
        }
    }

    /// Withdraws a shown array. Call this before passing on or freeing a private array.
    pub fn unshow(&mut self, handle: Array) {
        if let Some(place) = self.place
            && self.world.board.private(place) == handle.to_bits()
        {
            self.world.board.show_private(place, 0);
        }
    }

    pub fn take_private(&mut self) -> Option<Array> {
        if self.private.is_empty() {
            return None;
        }
        let index = self.me.random.below(self.private.len());
        let (handle, pattern) = self.private.swap_remove(index);
        self.check_private(handle, pattern);
        self.unshow(handle);
        Some(handle)
    }

    /// Checks that a private array exists with its last contents.
    pub fn check_private(&mut self, handle: Array, pattern: Pattern) {
        match self
            .table
            .read(handle)
            .map(|x| Pattern::read(handle.to_bits(), x.view()))
        {
            Ok(Ok(found)) if found == pattern => self.me.count(Count::Reads),
            Ok(Ok(found)) => self
                .me
                .found(format!("own {handle} has {found:?} instead of {pattern:?}")),
            Ok(Err(torn)) => self.me.found(format!("own {handle}: {torn}")),
            Err(error) => self.me.found(format!("own array: {error}")),
        }
    }

    pub fn look_at_private(&mut self) {
        if !self.private.is_empty() {
            let index = self.me.random.below(self.private.len());
            let (handle, pattern) = self.private[index];
            self.check_private(handle, pattern);
            if self.me.random.one_in(2)
                && let Ok(written) = self.write(handle, None)
            {
                self.private[index].1 = written;
            }
        }
    }

    pub fn free_private(&mut self) {
        if let Some(handle) = self.take_private() {
            self.free_own(handle);
        }
    }

    pub fn free_own(&mut self, handle: Array) {
        match self.table.free(handle) {
            Ok(()) => self.me.count(Count::Frees),
            Err(error) => self.me.found(format!("free of an own array: {error}")),
        }
    }
}
