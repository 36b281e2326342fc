//! Guards that share the table instead of borrowing it: they may be sent to other threads.

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::thread::{self, ThreadId};

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Dimension};

use super::SharedTable;
use crate::element::{DType, Element, Order};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::segment::fork::process_token;
use crate::table::locate::Located;
use crate::table::locked::{Locked, Ticket};

/// A lease of a shared table. Dropping it releases it.
pub(crate) struct Held {
    table: SharedTable,
    ticket: Ticket,
    /// The thread that a panic was already unwinding when the lease was taken. That panic says
    /// nothing of this array.
    panicking: Option<ThreadId>,
}

/// Returns this thread if a panic unwinds it.
fn unwinding() -> Option<ThreadId> {
    thread::panicking().then(|| thread::current().id())
}

/// Returns `true` if a panic unwinds this thread, and not since before the lease was taken.
fn poisons(panicking: Option<ThreadId>) -> bool {
    thread::panicking() && panicking != unwinding()
}

impl Held {
    pub(super) fn new(table: &SharedTable, ticket: Ticket) -> Held {
        Held {
            table: table.clone(),
            ticket,
            panicking: unwinding(),
        }
    }

    fn handle(&self) -> AnyHandle {
        self.ticket.handle()
    }

    /// Releases a lease that was taken to recover the array, and clears its poison.
    pub(super) fn release_repaired(mut self) {
        self.ticket = self.ticket.repaired();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A lease that crossed a fork belongs to the parent. Do not take a seat for it.
        if self.ticket.token() != process_token() {
            return;
        }
        let poison = poisons(self.panicking);
        // The table has a seat, and the lease is its.
        let _ = self.table.with(|core| core.release(&self.ticket, poison));
    }
}

/// A shared lease of an array, which dereferences to ndarray's [`ArrayRef`]. It is a
/// [`ReadGuard`](crate::ReadGuard) that shares the table, and may be sent to other threads.
///
/// Dropping it releases the lease, on any thread. A guard that crossed a `fork` into a child still
/// belongs to the parent: dropping it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct SharedReadGuard<T: 'static, D> {
    // Before the lease: the access ends first. The guard keeps the table, and so the memory, which
    // is what the lifetime stands for; it lends the view for shorter ones only.
    view: ArrayView<'static, T, D>,
    _access: Access,
    held: Held,
}

impl<T: Element, D: Dimension> SharedReadGuard<T, D> {
    /// Builds the guard. The caller has checked that the elements are values of `T`.
    #[track_caller]
    pub(super) fn new(held: Held, located: Located<T, D>) -> Self {
        let access = located.track(held.table.segment().memory(), false);
        // SAFETY: the view is of memory that is mapped while `held` keeps the table (see `locate`).
        // It is initialised and holds values of `T`. Nobody writes it while the shared lease lives;
        // `self` keeps the lease, which outlives every borrow that the guard hands out.
        let view = unsafe { located.view.deref_into_view() };
        SharedReadGuard {
            view,
            _access: access,
            held,
        }
    }

    /// Returns a view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_shape_fn(4, |i| i as u64)?;
    /// let guard = table.read(x)?;
    /// let (left, right) = guard.view().split_at(ndarray::Axis(0), 2);
    /// assert_eq!((left.sum(), right.sum()), (1, 5));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.view.view()
    }

    /// Returns the array's handle.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// assert_eq!(table.read(x)?.handle(), x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> AnyHandle {
        self.held.handle()
    }

    /// Returns the lease without the view.
    #[cfg(feature = "arrow")]
    pub(crate) fn into_lease(self) -> Held {
        self.held
    }
}

impl<T, D> Deref for SharedReadGuard<T, D> {
    type Target = ArrayRef<T, D>;

    fn deref(&self) -> &ArrayRef<T, D> {
        &self.view
    }
}

/// An exclusive lease of an array, which dereferences to ndarray's [`ArrayRef`]. It is a
/// [`WriteGuard`](crate::WriteGuard) that shares the table, and may be sent to other threads.
///
/// Dropping it releases the lease, on any thread; a drop by a panic poisons the array. A guard that
/// crossed a `fork` into a child still belongs to the parent: dropping it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct SharedWriteGuard<T: 'static, D> {
    // Before the lease, and lent for shorter lifetimes: as in `SharedReadGuard`.
    view: ArrayViewMut<'static, T, D>,
    _access: Access,
    held: Held,
}

impl<T: Element, D: Dimension> SharedWriteGuard<T, D> {
    /// Builds the guard. The caller has checked that the elements are values of `T`.
    #[track_caller]
    pub(super) fn new(held: Held, located: Located<T, D>) -> Self {
        let access = located.track(held.table.segment().memory(), true);
        // SAFETY: the view is of memory that is mapped while `held` keeps the table (see `locate`).
        // It is initialised and holds values of `T`. Nobody else reads or writes it while the
        // exclusive lease lives; `self` keeps the lease, which outlives every borrow that the guard
        // hands out.
        let view = unsafe { located.view.deref_into_view_mut() };
        SharedWriteGuard {
            view,
            _access: access,
            held,
        }
    }

    /// Returns a view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 2)?;
    /// let guard = table.write(x)?;
    /// assert_eq!(guard.view().product(), 8);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.view.view()
    }

    /// Returns a mutable view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u32, _>((2, 3))?;
    /// let mut guard = table.write(x)?;
    /// for (number, mut row) in guard.view_mut().rows_mut().into_iter().enumerate() {
    ///     row.fill(number as u32);
    /// }
    /// assert_eq!(guard.sum(), 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn view_mut(&mut self) -> ArrayViewMut<'_, T, D> {
        self.view.view_mut()
    }

    /// Returns the array's handle.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// assert_eq!(table.write(x)?.handle(), x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> AnyHandle {
        self.held.handle()
    }

    /// Ends the access, and then the lease, and clears the poison.
    pub(super) fn release_repaired(self) {
        let SharedWriteGuard {
            view,
            _access: access,
            held,
        } = self;
        drop((view, access));
        held.release_repaired();
    }
}

impl<T, D> Deref for SharedWriteGuard<T, D> {
    type Target = ArrayRef<T, D>;

    fn deref(&self) -> &ArrayRef<T, D> {
        &self.view
    }
}

impl<T, D: Dimension> DerefMut for SharedWriteGuard<T, D> {
    fn deref_mut(&mut self) -> &mut ArrayRef<T, D> {
        &mut self.view
    }
}

/// Implements the texts that both typed guards have.
macro_rules! texts {
    ($guard:ident) => {
        impl<T: fmt::Debug, D: Dimension> fmt::Debug for $guard<T, D> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.view, f)
            }
        }

        impl<T: fmt::Display, D: Dimension> fmt::Display for $guard<T, D> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.view, f)
            }
        }
    };
}

texts!(SharedReadGuard);
texts!(SharedWriteGuard);

/// A lease of an array of any type. Dropping it releases it.
struct HeldBytes {
    table: SharedTable,
    locked: Locked,
    /// As in [`Held`].
    panicking: Option<ThreadId>,
}

impl HeldBytes {
    fn new(table: &SharedTable, locked: Locked) -> HeldBytes {
        HeldBytes {
            locked,
            table: table.clone(),
            panicking: unwinding(),
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        // As in `Held`.
        if self.locked.token() != process_token() {
            return;
        }
        let poison = poisons(self.panicking);
        let _ = self.table.unlock(&mut self.locked, poison);
    }
}

/// A shared lease of an array as bytes: an
/// [`UntypedReadGuard`](crate::untyped::UntypedReadGuard) that shares the table, and may be sent to
/// other threads.
///
/// ```
/// use ndshm::element::{Element, Order};
/// use ndshm::{Segment, SharedTable};
///
/// let table = SharedTable::of(&Segment::anonymous()?)?;
/// let x = table.from_elem((2, 3), 1.5)?;
/// let lease = table.read_untyped(x)?;
/// assert_eq!((lease.dtype(), lease.order()), (&f64::dtype(), Order::C));
/// assert_eq!((lease.shape(), lease.bytes().len()), (&[2, 3][..], 48));
/// assert_eq!(lease.handle(), x.into());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the lease is given back when the guard is dropped"]
pub struct SharedUntypedReadGuard(HeldBytes);

impl SharedUntypedReadGuard {
    /// Builds the guard of an array that is locked for reading.
    pub(super) fn new(table: &SharedTable, locked: Locked) -> Self {
        SharedUntypedReadGuard(HeldBytes::new(table, locked))
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(2, 258_u16)?;
    /// assert_eq!(table.read_untyped(x)?.bytes(), [2, 1, 2, 1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are in the array's extent, which is mapped while the table lives
        // (`locate_untyped`), and they are initialised. Nobody writes them while the shared lease
        // lives; `self` keeps the table and the lease, which outlive this borrow of `self`.
        unsafe { self.0.locked.bytes().as_ref() }
    }
}

/// An exclusive lease of an array as bytes: an
/// [`UntypedWriteGuard`](crate::untyped::UntypedWriteGuard) that shares the table, and may be sent
/// to other threads. A drop by a panic poisons the array.
///
/// ```
/// use ndshm::element::{Element, Order};
/// use ndshm::{Segment, SharedTable};
///
/// let table = SharedTable::of(&Segment::anonymous()?)?;
/// let x = table.zeros::<u8, _>(4)?;
/// let mut lease = table.write_untyped(x)?;
/// assert_eq!((lease.dtype(), lease.order()), (&u8::dtype(), Order::C));
/// assert_eq!((lease.shape(), lease.handle()), (&[4][..], x.into()));
/// lease.bytes_mut().copy_from_slice(b"text");
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the lease is given back when the guard is dropped"]
pub struct SharedUntypedWriteGuard(HeldBytes);

impl SharedUntypedWriteGuard {
    /// Builds the guard of an array that is locked for writing.
    pub(super) fn new(table: &SharedTable, locked: Locked) -> Self {
        SharedUntypedWriteGuard(HeldBytes::new(table, locked))
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(4, 7_u8)?;
    /// assert_eq!(table.write_untyped(x)?.bytes(), [7; 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as in `SharedUntypedReadGuard::bytes`; nobody else writes them while the
        // exclusive lease lives.
        unsafe { self.0.locked.bytes().as_ref() }
    }

    /// Returns the bytes of the elements, in memory order, to be written.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u8, _>(4)?;
    /// table.write_untyped(x)?.bytes_mut().copy_from_slice(b"text");
    /// assert_eq!(table.read(x)?.to_vec(), b"text");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed mutably, so no other borrow of the bytes lives.
        unsafe { self.0.locked.bytes().as_mut() }
    }
}

/// Implements the methods that both untyped guards have.
macro_rules! kind_of_array {
    ($guard:ident) => {
        impl $guard {
            /// Returns the type of the elements.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn dtype(&self) -> &DType {
                self.0.locked.dtype()
            }

            /// Returns the length of each axis.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn shape(&self) -> &[usize] {
                self.0.locked.shape()
            }

            /// Returns the order: the first or the last axis is contiguous.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn order(&self) -> Order {
                self.0.locked.order()
            }

            /// Returns the array's handle.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn handle(&self) -> AnyHandle {
                self.0.locked.handle()
            }
        }

        impl fmt::Debug for $guard {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($guard))
                    .field(&self.0.locked)
                    .finish()
            }
        }
    };
}

kind_of_array!(SharedUntypedReadGuard);
kind_of_array!(SharedUntypedWriteGuard);
