//! Pins: the bytes of an array stay this array's, also after it is freed.

use core::cell::RefCell;
use core::ops::Deref;
use core::ptr::NonNull;
use std::sync::Arc;

use ndarray::{ArrayView, Dimension};

use super::core::Core;
use super::untyped::LocatedBytes;
use crate::element::{DType, Element, Order};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::table::error::LeaseError;

impl Core {
    /// Pins an array. The guard gives the pin back.
    pub(crate) fn pin(&self, handle: AnyHandle) -> Result<Pinned<'_>, LeaseError> {
        Ok(Pinned {
            pin: self.pin_raw(handle)?,
            accesses: RefCell::default(),
            table: self,
        })
    }

    /// Pins an array until [`Core::unpin`], or until this participant leaves.
    pub(crate) fn pin_raw(&self, handle: AnyHandle) -> Result<RawPin, LeaseError> {
        let me = self.enter()?;
        let Some((slot, generation)) = self.slot(handle) else {
            return Err(LeaseError::Stale { handle });
        };
        if let Err((why, tail)) = slot.pin(generation, me) {
            return Err(self.refuse(handle, why, tail).into());
        }
        *self.pins.borrow_mut().entry(handle).or_insert(0) += 1;
        // The pin keeps the descriptor as a lease does.
        match self.locate_untyped(slot, handle) {
            Ok(bytes) => Ok(RawPin {
                handle,
                bytes,
                table: Arc::clone(&self.identity),
                token: self.token(),
            }),
            Err(error) => {
                self.release_pin(handle);
                Err(error)
            }
        }
    }

    /// Gives a pin back. Does nothing with a pin of another table, or one that crossed a fork.
    pub(crate) fn unpin(&self, pin: RawPin) {
        self.give_back_pin(&pin);
    }

    fn give_back_pin(&self, pin: &RawPin) {
        if Arc::ptr_eq(&pin.table, &self.identity) && self.is_of(pin.token) {
            self.release_pin(pin.handle);
        }
    }

    /// Releases one of this participant's pins of an array.
    fn release_pin(&self, handle: AnyHandle) {
        let mut pins = self.pins.borrow_mut();
        match pins.get_mut(&handle) {
            None => return,
            Some(count) if *count > 1 => {
                *count -= 1;
                return;
            }
            Some(_) => pins.remove(&handle),
        };
        drop(pins);
        if let Some((slot, _)) = self.slot(handle) {
            let tail = slot.unpin(self.own_seat());
            self.hint_if_freed(slot.index, tail);
        }
    }

    /// Returns the pinned arrays, and how many pins there are of each. In a child that a fork has
    /// made, those of its parent until the child [enters](Core::enter).
    pub(crate) fn pins(&self) -> Vec<(AnyHandle, usize)> {
        let pins = self.pins.borrow();
        pins.iter()
            .map(|(&handle, &count)| (handle, count))
            .collect()
    }
}

/// A pinned array: its address, type and shape.
///
/// Dropping it does not release the pin: [`HandleTable::unpin`](crate::HandleTable::unpin) does, or
/// the end of the table that pinned the array. Programs whose language collects garbage keep it
/// beside their views. Others use [`Pinned`].
#[must_use = "the pin lasts until it is passed to `unpin`"]
pub struct RawPin {
    handle: AnyHandle,
    bytes: LocatedBytes,
    /// The identity of the table that has pinned the array.
    table: Arc<()>,
    /// The process in which that table has pinned it.
    token: u64,
}

// SAFETY: the value holds an address that it reads only in an unsafe function, whose caller has the
// duty that the bytes are mapped and not written. Everything else in it is `Send` and `Sync`.
unsafe impl Send for RawPin {}
// SAFETY: as for `Send`.
unsafe impl Sync for RawPin {}

impl RawPin {
    /// Returns the array's handle, which may be stale by now.
    pub fn handle(&self) -> AnyHandle {
        self.handle
    }

    /// Returns the address of the first element.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.bytes.first
    }

    /// Returns the number of bytes of the elements.
    pub fn len(&self) -> usize {
        self.bytes.len
    }

    /// Returns `true` if the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> &DType {
        &self.bytes.kind.dtype
    }

    /// Returns the length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.bytes.kind.shape
    }

    /// Returns the order: the first or the last axis is contiguous.
    pub fn order(&self) -> Order {
        self.bytes.kind.order
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - the table that pinned the array exists, in this process and not in a child of it;
    /// - nobody writes the bytes, in any process; earlier writes happen before this call (by a
    ///   lease, a round, or a message through the kernel).
    pub unsafe fn bytes(&self) -> &[u8] {
        let bytes = NonNull::slice_from_raw_parts(self.bytes.first, self.bytes.len);
        // SAFETY: the bytes are in the array's extent, which is mapped while the table lives
        // (`locate_untyped`), and they are initialised. The caller ensures that nobody writes them.
        // The array is pinned until `unpin` consumes `self`, so they are no other array's.
        unsafe { bytes.as_ref() }
    }
}

impl core::fmt::Debug for RawPin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RawPin")
            .field("handle", &self.handle())
            .field("dtype", self.dtype())
            .field("shape", &self.shape())
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}

/// A pin as a guard. It has the address, type and shape of a [`RawPin`].
///
/// Dropping it releases the pin. A guard that crossed a `fork` into a child still belongs to the
/// parent: dropping it there does nothing, and it keeps nothing in place there.
#[must_use = "the pin is given back when the guard is dropped"]
pub struct Pinned<'t> {
    pin: RawPin,
    accesses: RefCell<Vec<Access>>,
    table: &'t Core,
}

impl Pinned<'_> {
    /// Returns a view of the elements.
    ///
    /// # Errors
    /// [`LeaseError::WrongKind`] if they are not of type `T` with dimension `D`.
    ///
    /// # Safety
    /// For as long as the view lives:
    /// - nobody writes the elements, in any process; earlier writes happen before this call (by a
    ///   lease, a round, or a message through the kernel);
    /// - an array of `bool` holds bytes 0 and 1 only;
    /// - the process is the one that pinned the array, not a child of it.
    #[track_caller]
    pub unsafe fn view<T: Element, D: Dimension>(&self) -> Result<ArrayView<'_, T, D>, LeaseError> {
        let Some((slot, _)) = self.table.slot(self.handle) else {
            return Err(LeaseError::Stale {
                handle: self.handle,
            });
        };
        let located = self.table.locate::<T, D>(slot, self.handle)?;
        self.note_access();
        // SAFETY: the memory is mapped, aligned and initialised (see `locate`), and stays so while
        // the table lives. The pin keeps it this array's while `self` is borrowed. The caller
        // ensures that nobody writes it.
        Ok(unsafe { located.view.deref_into_view() })
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - nobody writes the bytes, in any process; earlier writes happen before this call (by a
    ///   lease, a round, or a message through the kernel);
    /// - the process is the one that pinned the array, not a child of it.
    #[track_caller]
    pub unsafe fn bytes(&self) -> &[u8] {
        self.note_access();
        // SAFETY: the caller's duties; the table lives as long as `self`.
        unsafe { self.pin.bytes() }
    }

    #[track_caller]
    fn note_access(&self) {
        let memory = self.table.segment.memory();
        let access = memory.track(self.pin.bytes.offset, self.len() as u64, false);
        self.accesses.borrow_mut().push(access);
    }
}

impl Deref for Pinned<'_> {
    type Target = RawPin;

    fn deref(&self) -> &RawPin {
        &self.pin
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        // The accesses end before the pin.
        self.accesses.get_mut().clear();
        self.table.give_back_pin(&self.pin);
    }
}

impl core::fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&self.pin, f)
    }
}
