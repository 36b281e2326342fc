//! Pins: the bytes of an array stay this array's, also after it is freed.

use core::cell::RefCell;
use core::ops::Deref;
use core::ptr::NonNull;

use ndarray::{ArrayView, Dimension};

use super::builder::Address;
use super::core::Core;
use super::locked::Stay;
use super::untyped::ArrayKind;
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
        self.footprint.add(slot.index);
        if let Err((why, tail)) = slot.pin(self.segment.memory(), generation, me) {
            return Err(self.refuse(handle, why, tail).into());
        }
        *self.pins.borrow_mut().entry(handle).or_insert(0) += 1;
        // The pin keeps the descriptor as a lease does.
        match self.locate_untyped(slot, handle) {
            Ok(found) => Ok(RawPin {
                handle,
                stay: self.stay(),
                held: true,
                offset: found.offset,
                address: Address(NonNull::slice_from_raw_parts(found.first, found.len)),
                kind: found.kind,
            }),
            Err(error) => {
                self.release_pin(handle);
                Err(error)
            }
        }
    }

    /// Gives back what [`pin_raw`](Core::pin_raw) took.
    pub(crate) fn unpin(&self, pin: &mut RawPin) -> Result<(), LeaseError> {
        self.check_held(pin.handle, pin.stay, pin.held)?;
        pin.held = false;
        self.release_pin(pin.handle);
        Ok(())
    }

    /// Releases one of this participant's pins of an array.
    pub(crate) fn release_pin(&self, handle: AnyHandle) {
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
            let tail = slot.unpin(self.segment.memory(), self.own_seat());
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

/// A pin without a lifetime: address, type and shape of the array. The result of
/// [`HandleTable::pin_raw`](crate::HandleTable::pin_raw).
///
/// It is released by [`unpin`](crate::HandleTable::unpin) of the same table, never by a drop: a
/// value that is dropped without that leaves the array pinned until the table is dropped, or the
/// process ends. [`Pinned`] is the guard.
///
/// The value is data: it may be kept for any time, and passed to other threads. A copy of it in a
/// forked child belongs to the parent.
///
/// ```
/// use ndshm::element::{Element, Order};
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_elem((2, 3), 7u8)?;
/// let mut pin = table.pin_raw(x)?;
/// table.free(x)?;                                      // its bytes stay in place
/// assert_eq!((pin.dtype(), pin.order(), pin.shape()), (&u8::dtype(), Order::C, &[2, 3][..]));
/// assert_eq!((pin.handle(), pin.len(), pin.is_empty()), (x.into(), 6, false));
/// // SAFETY: nobody writes the array, and the pin is held.
/// assert_eq!(unsafe { pin.bytes() }, [7; 6]);
/// // SAFETY: as above; the array has elements.
/// assert_eq!(unsafe { pin.as_ptr().read() }, 7);
/// table.unpin(&mut pin)?;
/// assert!(!pin.is_held());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the array stays pinned until the value is unpinned"]
pub struct RawPin {
    handle: AnyHandle,
    /// The participant that has pinned the array.
    stay: Stay,
    /// Not yet unpinned.
    held: bool,
    /// The offset of the array's extent in the data region.
    offset: u64,
    address: Address,
    kind: ArrayKind,
}

impl RawPin {
    /// Returns the array's handle, which may be stale by now.
    ///
    /// [`RawPin`] has an example.
    pub fn handle(&self) -> AnyHandle {
        self.handle
    }

    /// Returns the offset of the elements in the data region, and their length in bytes.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.offset, self.len() as u64)
    }

    /// Returns the address of the first element.
    ///
    /// [`RawPin`] has an example.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.address.0.cast()
    }

    /// Returns the number of bytes of the elements.
    ///
    /// [`RawPin`] has an example.
    pub fn len(&self) -> usize {
        self.address.0.len()
    }

    /// Returns `true` if the array has no elements.
    ///
    /// [`RawPin`] has an example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the type of the elements.
    ///
    /// [`RawPin`] has an example.
    pub fn dtype(&self) -> &DType {
        &self.kind.dtype
    }

    /// Returns the length of each axis.
    ///
    /// [`RawPin`] has an example.
    pub fn shape(&self) -> &[usize] {
        &self.kind.shape
    }

    /// Returns the order: the first or the last axis is contiguous.
    ///
    /// [`RawPin`] has an example.
    pub fn order(&self) -> Order {
        self.kind.order
    }

    /// Returns `true` until the value is unpinned. A copy in a forked child returns what the
    /// parent's returned at the fork.
    ///
    /// [`RawPin`] has an example.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// [`RawPin`] has an example.
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - the array is not unpinned, and the table that pinned it is not dropped;
    /// - the process is the one that pinned the array, not a child of it;
    /// - nobody writes the bytes, in any process; earlier writes happen before this call (by a
    ///   lease, a round, or a message through the kernel).
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are in the array's extent, which is mapped while the table lives
        // (`locate_untyped`), and they are initialised. The caller ensures that the array is
        // pinned, so that they are no other array's, and that nobody writes them.
        unsafe { self.address.0.as_ref() }
    }
}

impl core::fmt::Debug for RawPin {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RawPin")
            .field("handle", &self.handle())
            .field("is_held", &self.held)
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
    /// [`HandleTable::pin`](crate::HandleTable::pin) has an example.
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
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 7u8)?;
    /// let pinned = table.pin(x)?;
    /// table.free(x)?;
    /// // SAFETY: the program does not write the array any more.
    /// assert_eq!(unsafe { pinned.bytes() }, [7, 7, 7]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Safety
    /// For as long as the slice lives:
    /// - nobody writes the bytes, in any process; earlier writes happen before this call (by a
    ///   lease, a round, or a message through the kernel);
    /// - the process is the one that pinned the array, not a child of it.
    #[track_caller]
    pub unsafe fn bytes(&self) -> &[u8] {
        self.note_access();
        // SAFETY: the caller's duties. While `self` is borrowed, the array is pinned, and its table
        // lives.
        unsafe { self.pin.bytes() }
    }

    #[track_caller]
    fn note_access(&self) {
        let memory = self.table.segment.memory();
        let access = memory.track(self.pin.offset, self.len() as u64, false);
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
        // An error means that the pin crossed a fork, and belongs to the parent.
        let _ = self.table.unpin(&mut self.pin);
    }
}

impl core::fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(&self.pin, f)
    }
}
