//! What a handle opens: guards that are ndarray arrays while they live, and the view without a lease.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut, Range};

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Axis, Dimension, RawArrayViewMut, Slice};

use crate::element::Element;
use crate::handle::AnyHandle;
use crate::segment::Access;
use crate::table::HandleTable;
use crate::table::attach::Located;
use crate::table::lease::{ExclusiveLease, SharedLease};
#[cfg(loom)]
use crate::table::runs::{Accesses, runs};

/// A shared lease of an array, which dereferences to ndarray's [`ArrayRef`].
///
/// Given back on drop. A guard that crossed a `fork` into a child is the parent's still: dropping
/// it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct ReadGuard<'t, T, D> {
    // Before the lease: the access ends first.
    view: ArrayView<'t, T, D>,
    _access: Access,
    lease: SharedLease<'t>,
}

impl<'t, T: Element, D: Dimension> ReadGuard<'t, T, D> {
    /// Returns `true` in the process that took the lease, and `false` in a child of it.
    #[cfg(all(feature = "serde", not(loom)))]
    pub(crate) fn is_ours(&self) -> bool {
        self.lease.is_ours()
    }

    /// The caller has found the elements to be values of `T`.
    #[track_caller]
    pub(crate) fn new(lease: SharedLease<'t>, located: Located<T, D>) -> Self {
        let access = located.track(lease.table(), false);
        // SAFETY: the view is of mapped memory (see `locate`), initialised (bytes of a mapping
        // are), holding values of `T`, and nobody writes it while the shared lease lives, which
        // `self` keeps and which outlives every borrow that the guard hands out.
        let view = unsafe { located.view.deref_into_view() };
        ReadGuard {
            view,
            _access: access,
            lease,
        }
    }

    /// A view that lives as long as the guard is borrowed.
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.view.view()
    }

    /// The array's handle.
    pub fn handle(&self) -> AnyHandle {
        self.lease.handle
    }

    /// Returns the lease without the view.
    #[cfg(feature = "arrow")]
    pub(crate) fn into_lease(self) -> SharedLease<'t> {
        self.lease
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

/// The exclusive lease of an array, which dereferences to ndarray's [`ArrayRef`].
///
/// Given back on drop; a drop by a panic poisons the array. A guard that crossed a `fork` into a
/// child is the parent's still: dropping it there does nothing.
#[must_use = "the lease is given back when the guard is dropped"]
pub struct WriteGuard<'t, T, D> {
    // Before the lease: the access ends first.
    view: ArrayViewMut<'t, T, D>,
    _access: Access,
    lease: ExclusiveLease<'t>,
}

impl<'t, T: Element, D: Dimension> WriteGuard<'t, T, D> {
    /// The caller has found the elements to be values of `T`.
    #[track_caller]
    pub(crate) fn new(lease: ExclusiveLease<'t>, located: Located<T, D>) -> Self {
        let access = located.track(lease.table(), true);
        // SAFETY: the view is of mapped memory (see `locate`), initialised, holding values of `T`,
        // and nobody else reads or writes it while the exclusive lease lives, which `self` keeps
        // and which outlives every borrow that the guard hands out.
        let view = unsafe { located.view.deref_into_view_mut() };
        WriteGuard {
            view,
            _access: access,
            lease,
        }
    }

    /// A view that lives as long as the guard is borrowed.
    pub fn view(&self) -> ArrayView<'_, T, D> {
        self.view.view()
    }

    /// A mutable view that lives as long as the guard is borrowed.
    pub fn view_mut(&mut self) -> ArrayViewMut<'_, T, D> {
        self.view.view_mut()
    }

    /// The array's handle.
    pub fn handle(&self) -> AnyHandle {
        self.lease.handle
    }

    /// The contents are good: takes the poison away that the array was leased with.
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

/// A live array's place, without a lease: for those who synchronise by other means.
///
/// It may be stale at any later moment, for it keeps nobody from freeing the array.
///
/// Under the model checker its views count as accesses from the moment they are asked for, to all
/// they show, until the `Attached` is dropped or lends another one mutably: attach anew for each
/// step, and ask for the part that you mean. What is done with its pointers the checker does not
/// see.
pub struct Attached<'t, T, D> {
    view: RawArrayViewMut<T, D>,
    table: PhantomData<&'t ()>,
    #[cfg(loom)]
    accesses: Accesses<'t>,
}

impl<'t, T: Element, D: Dimension> Attached<'t, T, D> {
    #[cfg_attr(not(loom), expect(unused_variables, reason = "for the model checker"))]
    pub(crate) fn new(table: &'t HandleTable, located: Located<T, D>) -> Self {
        Attached {
            #[cfg(loom)]
            accesses: Accesses::new(table, located.offset),
            view: located.view,
            table: PhantomData,
        }
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.view.shape()
    }

    /// The shape as ndarray's pattern: a number for one axis, a tuple for two, ...
    pub fn dim(&self) -> D::Pattern {
        self.view.dim()
    }

    /// The first element.
    pub fn as_ptr(&self) -> *const T {
        self.view.as_ptr()
    }

    /// The first element, to write to.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.view.as_mut_ptr()
    }

    /// A view that no lease protects.
    ///
    /// # Safety
    /// For as long as the view lives:
    /// - the array is not freed, by anyone (or the caller holds a lease of it besides);
    /// - nobody writes the elements that are read through it, in any process; writes before it
    ///   happen before its creation (a lease, a round, a message through the kernel);
    /// - an array of `bool` holds bytes 0 and 1 only.
    #[cfg_attr(loom, track_caller)]
    pub unsafe fn view_unsynchronized(&self) -> ArrayView<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend(self.view.clone()) }
    }

    /// As [`view_unsynchronized`](Attached::view_unsynchronized), of a part of the array: what
    /// `range` covers of `axis`.
    ///
    /// **Panics** if there is no such axis, or if it is shorter.
    ///
    /// # Safety
    /// As [`view_unsynchronized`](Attached::view_unsynchronized), for the part's elements.
    #[cfg_attr(loom, track_caller)]
    pub unsafe fn slice_unsynchronized(
        &self,
        axis: Axis,
        range: Range<usize>,
    ) -> ArrayView<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend(self.part(axis, range)) }
    }

    /// A mutable view that no lease protects: the raw contract that tiles are built on.
    ///
    /// # Safety
    /// For as long as the view lives:
    /// - the array is not freed, by anyone (or the caller holds a lease of it besides);
    /// - nobody else reads or writes any element that is read or written through the view, in any
    ///   process; several such views of one array are allowed if what they touch is disjoint, and
    ///   then each is to be sliced to its own part before use, best by
    ///   [`slice_mut_unsynchronized`](Attached::slice_mut_unsynchronized);
    /// - accesses before it happen before its creation, and its own happen before those after it:
    ///   by a lease, a round, or a message through the kernel;
    /// - an array of `bool` holds bytes 0 and 1 only.
    #[cfg_attr(loom, track_caller)]
    pub unsafe fn view_mut_unsynchronized(&mut self) -> ArrayViewMut<'_, T, D> {
        // SAFETY: the caller's duties.
        unsafe { self.lend_mut(self.view.clone()) }
    }

    /// As [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized), of a part of the array:
    /// what `range` covers of `axis`.
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
    /// As [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized), for the part's elements.
    #[cfg_attr(loom, track_caller)]
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
    /// As [`view_unsynchronized`](Attached::view_unsynchronized), for `part`, which is one of
    /// `self.view`.
    #[cfg_attr(loom, track_caller)]
    unsafe fn lend(&self, part: RawArrayViewMut<T, D>) -> ArrayView<'_, T, D> {
        #[cfg(loom)]
        self.accesses.read(runs(&part, self.view.as_ptr()));
        // SAFETY: the memory is mapped, aligned and initialised (see `locate`), and stays so while
        // the table lives; that nobody writes it is the caller's duty.
        unsafe { part.deref_into_view() }
    }

    /// # Safety
    /// As [`view_mut_unsynchronized`](Attached::view_mut_unsynchronized), for `part`, which is one
    /// of `self.view`.
    #[cfg_attr(loom, track_caller)]
    unsafe fn lend_mut(&mut self, part: RawArrayViewMut<T, D>) -> ArrayViewMut<'_, T, D> {
        #[cfg(loom)]
        self.accesses.write(runs(&part, self.view.as_ptr()));
        // SAFETY: as in `lend`; that the access is exclusive is the caller's duty.
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
