//! Pins, which a forked child takes over.
//!
//! The copies of views in a child need pins of the child's own: the parent may give its pins back.
//! So each pin has an entry in a list of the table, and a child pins all entries when it takes its
//! seat. The entries are words outside of the table's lock: a child reads them also if a thread of
//! the parent had the lock at the fork. A pin is entered after the array is pinned, and before the
//! value is returned, so every value that can be in a child has its entry there.

use core::ops::Deref;
use std::sync::Arc;

use super::{Seat, SharedTable};
use crate::handle::AnyHandle;
use crate::seat::JoinError;
use crate::segment::SegmentError;
use crate::segment::fork::process_token;
use crate::sync::list::List;
use crate::sync::{Atom, Ordering};
use crate::table::error::LeaseError;
use crate::table::pin::RawPin;

/// The entry of a pin. It changes under the lock of its process alone, which orders it.
pub(super) struct Entry {
    handle: Atom<u64>,
    /// The process that has the pin; 0 if the entry is free.
    token: Atom<u64>,
}

impl Entry {
    fn set(&self, handle: AnyHandle, token: u64) {
        self.handle.store(handle.to_bits(), Ordering::Relaxed);
        self.token.store(token, Ordering::Relaxed);
    }

    /// Frees the entry. The handle stays: a child that is forked between two stores would pin handle
    /// 0.
    fn clear(&self) {
        self.token.store(0, Ordering::Relaxed);
    }

    fn handle(&self) -> AnyHandle {
        AnyHandle::from_bits(self.handle.load(Ordering::Relaxed))
    }

    fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }
}

/// The entries of a table's pins. They are used again, and freed with the table.
pub(super) type Entries = List<Arc<Entry>>;

impl Seat {
    /// Takes a seat in a child, and pins what the values that crossed the fork need.
    #[cold]
    pub(super) fn cross(&mut self, entries: &Entries) -> Result<(), JoinError> {
        if self.table.segment().has_left() {
            return Err(SegmentError::Left.into());
        }
        self.table.core.enter()?;
        self.token = process_token();
        self.free.clear();
        self.lost.clear();
        for entry in entries.iter() {
            if entry.token() == 0 {
                self.free.push(Arc::clone(entry));
                continue;
            }
            let handle = entry.handle();
            match self.table.core.pin_raw(handle) {
                // Its value that crossed has the address, which is the same here.
                Ok(_) => entry.set(handle, self.token),
                Err(_) => self.lost.push(handle),
            }
        }
        self.lost.sort_unstable();
        self.lost.dedup();
        Ok(())
    }

    /// Pins an array, and enters the pin.
    fn pin(
        &mut self,
        entries: &Entries,
        handle: AnyHandle,
    ) -> Result<(RawPin, Arc<Entry>), LeaseError> {
        let pin = self.table.core.pin_raw(handle)?;
        let entry = self.free.pop().unwrap_or_else(|| {
            let entry = Entry {
                handle: Atom::zero(),
                token: Atom::zero(),
            };
            Arc::clone(entries.push(Arc::new(entry)))
        });
        entry.set(handle, self.token);
        Ok((pin, entry))
    }

    /// Gives a pin back, if this process has it.
    fn unpin(&mut self, entry: &Arc<Entry>) {
        if entry.token() == process_token() {
            self.table.core.release_pin(entry.handle());
        }
        entry.clear();
        self.free.push(Arc::clone(entry));
    }
}

impl SharedTable {
    /// Pins an array: until the result is dropped, its bytes belong to no other array, also after
    /// it is freed. See [`HandleTable::pin`](crate::HandleTable::pin).
    ///
    /// A forked child pins the array for itself, when it takes its seat: at its first use of the
    /// table, or in [`after_fork`](SharedTable::after_fork). It does so for all values of its
    /// parent, also for those of threads that it does not have: these last until the child ends.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 7u8)?;
    /// let pin = table.pin(x)?;
    /// table.free(x)?;
    /// assert_eq!((pin.shape(), pin.len()), (&[3][..], 3));
    /// // SAFETY: nobody writes the array.
    /// assert_eq!(unsafe { pin.bytes() }, [7, 7, 7]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::pin`](crate::HandleTable::pin).
    pub fn pin(&self, handle: impl Into<AnyHandle>) -> Result<SharedPin, LeaseError> {
        let handle = handle.into();
        let (pin, entry) = self.with_seat(|seat| seat.pin(&self.inner.pins, handle))??;
        Ok(SharedPin {
            pin,
            entry,
            table: self.clone(),
        })
    }

    /// Returns the arrays that this process has pinned by the table, and the number of its pins of
    /// each.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let _pin = table.pin(x)?;
    /// assert_eq!(table.pins()?, [(x.into(), 1)]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pins(&self) -> Result<Vec<(AnyHandle, usize)>, JoinError> {
        self.with(|core| core.pins())
    }
}

/// A pinned array: its address, type and shape, as of a [`RawPin`], to which it dereferences. It
/// may be sent to other threads.
///
/// Dropping it gives the pin back. A value that crossed a `fork` into a child has a pin of the
/// child's own there, unless [`is_kept`](SharedPin::is_kept) returns `false`; so the duties of
/// [`RawPin::bytes`] hold in the child as well.
#[must_use = "the pin is given back when the value is dropped"]
pub struct SharedPin {
    pin: RawPin,
    entry: Arc<Entry>,
    table: SharedTable,
}

impl SharedPin {
    /// Returns `true` if this process has the pin. In a child that is not so before it takes its
    /// seat, and never if the array was freed before that: then its bytes may be another array's as
    /// soon as the parent gives its pin back.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let pin = table.pin(table.from_elem(3, 7u8)?)?;
    /// // In a child that a fork has made, this comes after `table.after_fork()`.
    /// if pin.is_kept() {
    ///     // SAFETY: nobody writes the array.
    ///     assert_eq!(unsafe { pin.bytes() }, [7, 7, 7]);
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_kept(&self) -> bool {
        self.entry.token() == process_token()
    }
}

impl Deref for SharedPin {
    type Target = RawPin;

    fn deref(&self) -> &RawPin {
        &self.pin
    }
}

impl Drop for SharedPin {
    fn drop(&mut self) {
        self.table.visit(|seat| match seat {
            Some(seat) => seat.unpin(&self.entry),
            // A child without a seat. Do not take one for it: its entry is not to be pinned.
            None => self.entry.clear(),
        });
    }
}

impl core::fmt::Debug for SharedPin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SharedPin")
            .field("pin", &self.pin)
            .field("is_kept", &self.is_kept())
            .finish_non_exhaustive()
    }
}
