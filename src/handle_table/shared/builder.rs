//! Arrays that are built in steps.

use core::mem::MaybeUninit;

use ndarray::{ArrayViewMut, Dimension, RawArrayViewMut, Shape};

use super::SharedTable;
use crate::element::{DType, Element, Order};
use crate::handle::AnyHandle;
use crate::segment::fork::process_token;
use crate::table::builder::SuspendedBuilder;
use crate::table::error::AllocError;

/// An array that is being filled, without the table's lock. Nobody else knows of it before it is
/// published.
///
/// It is an [`ArrayBuilder`](crate::untyped::ArrayBuilder) that shares the table, and may be sent
/// to other threads. Dropping it allocates nothing.
///
/// ```
/// use ndshm::{Segment, SharedTable};
/// use ndshm::element::{DType, Order, ScalarType};
/// use ndarray::{Ix1, array};
///
/// let table = SharedTable::of(&Segment::anonymous()?)?;
/// let mut x = table.builder(&DType::from(ScalarType::U8), &[4], Order::C)?;
/// std::thread::scope(|scope| {
///     for (part, value) in x.bytes_mut().chunks_mut(2).zip(1..) {
///         scope.spawn(move || part.fill(value));
///     }
/// });
/// let x = table.downcast::<u8, Ix1>(x.publish()?)?;
/// assert_eq!(table.read(x)?.view(), array![1, 1, 2, 2]);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "nothing is allocated unless the array is published"]
pub struct SharedBuilder {
    /// `None` after it was published.
    array: Option<SuspendedBuilder>,
    table: SharedTable,
}

impl SharedTable {
    /// Reserves an array that the caller fills and then publishes, or drops. Its contents are
    /// unspecified before.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let mut array = table.builder(&DType::Scalar(ScalarType::U8), &[4], Order::C)?;
    /// array.bytes_mut().copy_from_slice(b"text");          // without the table's lock
    /// let x = array.publish()?;
    /// assert_eq!(table.read_untyped(x)?.bytes(), b"text");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros_untyped`](SharedTable::zeros_untyped).
    pub fn builder(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<SharedBuilder, AllocError> {
        let searched = || {
            self.with(|core| Ok::<_, AllocError>(core.builder(dtype, shape, order)?.suspend()))?
        };
        let (array, commit) =
            match self.with(|core| core.builder_uncommitted(dtype, shape, order))? {
                // The words of a new span have no pages: search for some under the lock.
                Err(AllocError::NoMemory(_)) => (searched()?, None),
                outcome => outcome?,
            };
        let mut built = SharedBuilder {
            array: Some(array),
            table: self.clone(),
        };
        let Some(commit) = commit else {
            return Ok(built);
        };
        let outcome = commit.run(self.segment());
        let refused = outcome.is_err();
        if let Some(array) = built.array.take() {
            match self.with(|core| core.builder_committed(array, &commit, outcome))? {
                Ok(array) => built.array = Some(array),
                // Other slots may have pages: search for them, now under the lock.
                Err(AllocError::NoMemory(_)) if refused => {
                    built.array = Some(searched()?);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(built)
    }
}

impl SharedBuilder {
    /// Returns the bytes of the elements, in memory order.
    ///
    /// Several threads may write parts of them, by `split_at_mut` or `chunks_mut`.
    ///
    /// [`SharedBuilder`] has an example.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(array) = &self.array else {
            return &mut [];
        };
        // SAFETY: the bytes are in the extent, which is mapped while the table lives; `self` keeps
        // it. Bytes of a mapping are initialised. The slot is RESERVED by this participant, and
        // `self` alone has its word until it is consumed or dropped, so nobody else accesses the
        // bytes. `self` is borrowed for as long as the result lives.
        unsafe { array.bytes().as_mut() }
    }

    /// Returns the elements, to be written. Sets the array's order to that of the shape.
    ///
    /// The caller has reserved the array for the element type and for the lengths of this shape.
    pub(super) fn slots<T: Element, D: Dimension>(
        &mut self,
        shape: Shape<D>,
    ) -> ArrayViewMut<'_, MaybeUninit<T>, D> {
        let bytes = self.bytes_mut();
        debug_assert_eq!(bytes.len(), shape.size() * size_of::<T>());
        let first = bytes.as_mut_ptr().cast::<MaybeUninit<T>>();
        // SAFETY: `first` is non-null and aligned: extents start on multiples of 64. The elements
        // of the shape take as many bytes as the array has, at most `isize::MAX`.
        let view = unsafe { RawArrayViewMut::from_shape_ptr(shape, first) };
        // Use C where the order makes no difference to the strides.
        let order = match view.is_standard_layout() {
            true => Order::C,
            false => Order::F,
        };
        if let Some(array) = &mut self.array {
            array.set_order(order);
        }
        // SAFETY: as in `bytes_mut`. `MaybeUninit` accepts any bytes.
        unsafe { view.deref_into_view_mut() }
    }

    /// Fills the array with zeros. Leaves pages alone that were never used: they hold zeros.
    pub(super) fn zero(&mut self) {
        if !self.array.as_ref().is_some_and(SuspendedBuilder::is_clean) {
            self.bytes_mut().fill(0);
        }
    }

    /// Makes the array live, and returns its handle. The participant owns it.
    ///
    /// [`SharedBuilder`] has an example.
    ///
    /// # Errors
    /// [`AllocError::Forked`] in a child that was forked meanwhile: the array belongs to the parent.
    pub fn publish(mut self) -> Result<AnyHandle, AllocError> {
        match self.array.take() {
            Some(array) if array.token() == process_token() => self
                .table
                .with(|core| core.resume_builder(array)?.publish())?,
            _ => Err(AllocError::Forked),
        }
    }
}

impl Drop for SharedBuilder {
    fn drop(&mut self) {
        // In a forked child it belongs to the parent. Do not take a seat for it.
        if let Some(array) = self.array.take()
            && array.token() == process_token()
        {
            // The table has a seat, and the slot is its.
            let _ = self.table.with(|core| core.resume_builder(array).map(drop));
        }
    }
}

impl core::fmt::Debug for SharedBuilder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("SharedBuilder").field(&self.array).finish()
    }
}
