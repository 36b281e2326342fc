//! Access to an array: guards that are ndarray arrays while they live, and the view without a
//! lease.

use core::fmt;
use core::ops::{Deref, DerefMut, Range};
use core::time::Duration;

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Axis, Dimension, RawArrayViewMut, Slice};

use super::core::Core;
use super::locate::Located;
use super::locked::Mode;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::memory::{Access, ViewAccesses};
use crate::table::error::LeaseError;
use crate::table::lease::{ExclusiveLease, SharedLease};
use crate::word::Purpose;

impl Core {
    /// Leases an array for reading. Until the guard is dropped nobody writes the array, in any
    /// process.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn read<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<ReadGuard<'_, T, D>, LeaseError> {
        let handle = AnyHandle::from(handle);
        let (slot, shared) = self.take_shared(handle)?;
        // Locate before building the `SharedLease`: a value with a destructor that lives across
        // this call would be kept in memory.
        match self.locate_checked(slot, handle) {
            Ok(located) => Ok(ReadGuard::new(
                self.shared_lease(slot, handle, shared),
                located,
            )),
            Err(error) => {
                drop(self.shared_lease(slot, handle, shared));
                Err(error.into())
            }
        }
    }

    /// Leases an array for writing. Until the guard is dropped nobody else reads or writes the
    /// array.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn write<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<WriteGuard<'_, T, D>, LeaseError> {
        let handle = AnyHandle::from(handle);
        let slot = self.take_exclusive(handle, Purpose::Write)?;
        // As in `read`.
        match self.locate_checked(slot, handle) {
            Ok(located) => Ok(WriteGuard::new(
                self.exclusive_lease(slot, handle, Purpose::Write),
                located,
            )),
            Err(error) => {
                drop(self.exclusive_lease(slot, handle, Purpose::Write));
                Err(error.into())
            }
        }
    }

    /// Leases an array for reading, and waits for its writers.
    #[track_caller]
    pub(crate) fn read_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<ReadGuard<'_, T, D>, LeaseError> {
        match self.read(handle) {
            Err(LeaseError::Busy { .. }) => {
                let handle = AnyHandle::from(handle);
                let (slot, shared) = self.wait_for(handle, Mode::Read, timeout)?;
                let lease = self.shared_lease(slot, handle, shared);
                let located = self.locate_checked(slot, handle)?;
                Ok(ReadGuard::new(lease, located))
            }
            taken => taken,
        }
    }

    /// Leases an array for writing, and waits for its readers and writers.
    #[track_caller]
    pub(crate) fn write_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<WriteGuard<'_, T, D>, LeaseError> {
        match self.write(handle) {
            Err(LeaseError::Busy { .. }) => {
                let handle = AnyHandle::from(handle);
                let (slot, _) = self.wait_for(handle, Mode::Write, timeout)?;
                let lease = self.exclusive_lease(slot, handle, Purpose::Write);
                let located = self.locate_checked(slot, handle)?;
                Ok(WriteGuard::new(lease, located))
            }
            taken => taken,
        }
    }

    /// Leases a poisoned array, passes it to `look`, which makes the contents good, and clears the
    /// poison. Nobody else gets the array in between. An array that is not poisoned is passed as
    /// well.
    #[track_caller]
    pub(crate) fn recover<T: Element, D: Dimension, R>(
        &self,
        handle: Handle<T, D>,
        look: impl FnOnce(ArrayViewMut<'_, T, D>) -> R,
    ) -> Result<R, LeaseError> {
        let lease = self.lease_exclusive(AnyHandle::from(handle), Purpose::Recover)?;
        let located = self.locate_checked(lease.slot, lease.handle)?;
        let mut guard = WriteGuard::new(lease, located);
        let seen = look(guard.view_mut());
        guard.heal();
        Ok(seen)
    }

    /// Looks up an array without a lease. Returns its shape, and a pointer for callers that
    /// synchronise by other means.
    #[inline]
    pub(crate) fn attach<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<Attached<'_, T, D>, LeaseError> {
        self.enter()?;
        let handle = AnyHandle::from(handle);
        let (slot, generation) = self.tables().live(handle)?;
        let located = self.locate(slot, handle);
        // Read the word again. If it is still LIVE in this generation, no other descriptor was
        // written between the two reads, and the result of `locate` belongs to this array.
        match slot.word().is_live(generation) {
            true => located
                .map(|located| Attached::new(self, located))
                .map_err(LeaseError::from),
            false => Err(LeaseError::Stale { handle }),
        }
    }
}

/// A shared lease of an array, which dereferences to ndarray's [`ArrayRef`].
///
/// Dropping it releases the lease. A guard that crossed a `fork` into a child still belongs to the
/// parent: dropping it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct ReadGuard<'t, T, D> {
    // Before the lease: the access ends first.
    view: ArrayView<'t, T, D>,
    _access: Access,
    lease: SharedLease<'t>,
}

impl<'t, T: Element, D: Dimension> ReadGuard<'t, T, D> {
    /// Returns `true` in the process that took the lease, and `false` in a child of it.
    #[cfg(feature = "serde")]
    pub(crate) fn is_ours(&self) -> bool {
        self.lease.is_ours()
    }

    /// Builds the guard. The caller has checked that the elements are values of `T`.
    #[track_caller]
    pub(crate) fn new(lease: SharedLease<'t>, located: Located<T, D>) -> Self {
        let access = located.track(lease.table().segment().memory(), false);
        // SAFETY: the view is of mapped memory (see `locate`). It is initialised (bytes of a
        // mapping are) and holds values of `T`. Nobody writes it while the shared lease lives;
        // `self` keeps the lease, which outlives every borrow that the guard hands out.
        let view = unsafe { located.view.deref_into_view() };
        ReadGuard {
            view,
            _access: access,
            lease,
        }
    }

    /// Returns a view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
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
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// assert_eq!(table.read(x)?.handle(), x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> AnyHandle {
        self.lease.handle
    }
}

impl<T, D> Deref for ReadGuard<'_, T, D> {
    type Target = ArrayRef<T, D>;

    fn deref(&self) -> &ArrayRef<T, D> {
        &self.view
    }
}

impl<T: fmt::Debug, D: Dimension> fmt::Debug for ReadGuard<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.view, f)
    }
}

impl<T: fmt::Display, D: Dimension> fmt::Display for ReadGuard<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.view, f)
    }
}

/// An exclusive lease of an array, which dereferences to ndarray's [`ArrayRef`].
///
/// Dropping it releases the lease; a drop by a panic poisons the array. A guard that crossed a
/// `fork` into a child still belongs to the parent: dropping it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct WriteGuard<'t, T, D> {
    // Before the lease: the access ends first.
    view: ArrayViewMut<'t, T, D>,
    _access: Access,
    lease: ExclusiveLease<'t>,
}

impl<'t, T: Element, D: Dimension> WriteGuard<'t, T, D> {
    /// Builds the guard. The caller has checked that the elements are values of `T`.
    #[track_caller]
    pub(crate) fn new(lease: ExclusiveLease<'t>, located: Located<T, D>) -> Self {
        let access = located.track(lease.table().segment().memory(), true);
        // SAFETY: the view is of mapped memory (see `locate`). It is initialised and holds values
        // of `T`. Nobody else reads or writes it while the exclusive lease lives; `self` keeps the
        // lease, which outlives every borrow that the guard hands out.
        let view = unsafe { located.view.deref_into_view_mut() };
        WriteGuard {
            view,
            _access: access,
            lease,
        }
    }

    /// Returns a view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 2)?;
    /// assert_eq!(table.write(x)?.view().product(), 8);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.view.view()
    }

    /// Returns a mutable view that lives as long as the guard is borrowed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
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
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// assert_eq!(table.write(x)?.handle(), x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn handle(&self) -> AnyHandle {
        self.lease.handle
    }

    /// Clears the poison that the array was leased with. The caller declares the contents good.
    pub(crate) fn heal(&self) {
        self.lease.heal();
    }
}

impl<T, D> Deref for WriteGuard<'_, T, D> {
    type Target = ArrayRef<T, D>;

    fn deref(&self) -> &ArrayRef<T, D> {
        &self.view
    }
}

impl<T, D: Dimension> DerefMut for WriteGuard<'_, T, D> {
    fn deref_mut(&mut self) -> &mut ArrayRef<T, D> {
        &mut self.view
    }
}

impl<T: fmt::Debug, D: Dimension> fmt::Debug for WriteGuard<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.view, f)
    }
}

/// A live array's place without a lease. Its users synchronise by other means.
///
/// It may become stale at any moment, because it does not keep the array from being freed.
///
/// Under the model checker a view counts as an access to all of its elements, from its creation
/// until the `Attached` is dropped or lends another view mutably. Attach anew for each step, and
/// ask only for the part that you use. The checker does not see accesses through the pointers.
pub struct Attached<'t, T, D> {
    view: RawArrayViewMut<T, D>,
    accesses: ViewAccesses<'t>,
}

impl<'t, T: Element, D: Dimension> Attached<'t, T, D> {
    pub(crate) fn new(table: &'t Core, located: Located<T, D>) -> Self {
        Attached {
            accesses: ViewAccesses::new(table.segment().memory(), located.offset),
            view: located.view,
        }
    }

    /// Returns the length of each axis.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// assert_eq!(table.attach(x)?.shape(), [2, 3]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    /// Returns the shape as ndarray's pattern: a number for one axis, a tuple for two, ...
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((2, 3))?;
    /// let (rows, columns) = table.attach(x)?.dim();
    /// assert_eq!((rows, columns), (2, 3));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn dim(&self) -> D::Pattern {
        self.view.dim()
    }

    /// Returns a pointer to the first element.
    ///
    /// [`HandleTable::attach`](crate::HandleTable::attach) has an example.
    pub fn as_ptr(&self) -> *const T {
        self.view.as_ptr()
    }

    /// Returns a pointer to the first element, to write to.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut place = table.attach(x)?;
    /// // SAFETY: `x` has three elements, and is known to nobody else.
    /// unsafe { place.as_mut_ptr().add(2).write(1.5) };
    /// assert_eq!(table.read(x)?[2], 1.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.view.as_mut_ptr()
    }

    /// Returns a view that no lease protects.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 2.0)?;
    /// let place = table.attach(x)?;
    /// // SAFETY: `x` is known to nobody else.
    /// assert_eq!(unsafe { place.view_unsynchronized() }.sum(), 6.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Safety
    /// For as long as the view lives:
    /// - nobody frees the array (or the caller also holds a lease of it);
    /// - nobody writes the elements that are read through it, in any process; earlier writes happen
    ///   before its creation (by a lease, a round, or a message through the kernel);
    /// - an array of `bool` holds bytes 0 and 1 only.
    #[track_caller]
    pub unsafe fn view_unsynchronized(&self) -> ArrayView<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend(self.view.clone()) }
    }

    /// Returns a view of the indices `range` of `axis`; see
    /// [`view_unsynchronized`](Attached::view_unsynchronized).
    ///
    /// [`slice_mut_unsynchronized`](Attached::slice_mut_unsynchronized) has an example.
    ///
    /// **Panics** if there is no such axis, or if it is shorter.
    ///
    /// # Safety
    /// As [`view_unsynchronized`](Attached::view_unsynchronized), but only for the part's elements.
    #[track_caller]
    pub unsafe fn slice_unsynchronized(
        &self,
        axis: Axis,
        range: Range<usize>,
    ) -> ArrayView<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend(self.part(axis, range)) }
    }

    /// Returns a mutable view that no lease protects. Tiles are built on this contract.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut place = table.attach(x)?;
    /// // SAFETY: `x` is known to nobody else.
    /// unsafe { place.view_mut_unsynchronized() }.fill(1.5);
    /// assert_eq!(table.read(x)?.sum(), 4.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Safety
    /// For as long as the view lives:
    /// - nobody frees the array (or the caller also holds a lease of it);
    /// - nobody else reads or writes any element that is read or written through the view, in any
    ///   process; several such views of one array are allowed if their accesses are disjoint, and
    ///   then each must be sliced to its own part before use, best by
    ///   [`slice_mut_unsynchronized`](Attached::slice_mut_unsynchronized);
    /// - earlier accesses happen before its creation, and its own happen before later accesses, by
    ///   a lease, a round, or a message through the kernel;
    /// - an array of `bool` holds bytes 0 and 1 only.
    #[track_caller]
    pub unsafe fn view_mut_unsynchronized(&mut self) -> ArrayViewMut<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend_mut(self.view.clone()) }
    }

    /// Returns a mutable view of the indices `range` of `axis`; see
    /// [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized).
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndarray::{Axis, array};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u8, _>((2, 3))?;
    /// let mut place = table.attach(x)?;
    /// // SAFETY: `x` is known to nobody else.
    /// unsafe { place.slice_mut_unsynchronized(Axis(1), 1..3) }.fill(7);
    /// // SAFETY: as above; the mutable view is gone.
    /// let row = unsafe { place.slice_unsynchronized(Axis(0), 1..2) };
    /// assert_eq!(row, array![[0, 7, 7]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// **Panics** if there is no such axis, or if it is shorter.
    ///
    /// # Safety
    /// As [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized), but only for
    /// the part's elements.
    #[track_caller]
    pub unsafe fn slice_mut_unsynchronized(
        &mut self,
        axis: Axis,
        range: Range<usize>,
    ) -> ArrayViewMut<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend_mut(self.part(axis, range)) }
    }

    fn part(&self, axis: Axis, range: Range<usize>) -> RawArrayViewMut<T, D> {
        let mut part = self.view.clone();
        part.slice_axis_inplace(axis, Slice::from(range));
        part
    }

    /// # Safety
    /// As [`view_unsynchronized`](Attached::view_unsynchronized). `part` is a part of `self.view`.
    #[track_caller]
    unsafe fn lend(&self, part: RawArrayViewMut<T, D>) -> ArrayView<'_, T, D> {
        self.accesses.read(&part, self.view.as_ptr());
        // SAFETY: the memory is mapped, aligned and initialised (see `locate`), and stays so while
        // the table lives. The caller ensures that nobody writes it.
        unsafe { part.deref_into_view() }
    }

    /// # Safety
    /// As [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized). `part` is a part of
    /// `self.view`.
    #[track_caller]
    unsafe fn lend_mut(&mut self, part: RawArrayViewMut<T, D>) -> ArrayViewMut<'_, T, D> {
        self.accesses.write(&part, self.view.as_ptr());
        // SAFETY: as in `lend`. The caller ensures that the access is exclusive.
        unsafe { part.deref_into_view_mut() }
    }
}

impl<T: Element, D: Dimension> fmt::Debug for Attached<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("dtype", &T::dtype())
            .field("shape", &self.shape())
            .finish()
    }
}
