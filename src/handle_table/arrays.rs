//! Creating, describing and freeing arrays.

use core::ops::Deref;

use ndarray::{ArrayRef, Dimension, ShapeBuilder};

use super::HandleTable;
use crate::element::Order;
use crate::element::{DType, Element};
use crate::handle::{AnyHandle, Handle};
use crate::seat::JoinError;
use crate::table::builder::{ArrayBuilder, SuspendedBuilder};
use crate::table::create::Owned;
use crate::table::error::{AllocError, LeaseError};
use crate::table::info::ArrayInfo;

impl HandleTable {
    /// Creates an array of zeros. Takes `shape` as ndarray does: `(3, 4)`, `(3, 4).f()`,
    /// `IxDyn(&[3, 4])`.
    ///
    /// Pages that were never used hold zeros already and stay untouched until a write.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::ShapeBuilder;
    ///
    /// let rows = table.zeros::<f64, _>((3, 4))?;
    /// let columns = table.zeros::<f32, _>((3, 4).f())?;    // Fortran order
    /// assert_eq!(table.read(rows)?.dim(), table.read(columns)?.dim());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError`], with the numbers and the remedy.
    #[doc(alias(
        "RawArray",
        "SharedArray",
        "share_memory",
        "MPI_Win_allocate_shared",
        "calloc",
        "allocate",
        "create",
    ))]
    #[inline]
    #[track_caller]
    pub fn zeros<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.core.zeros(shape)
    }

    /// Creates an array with all elements `elem`.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let weights = table.from_elem(4, 0.25)?;
    /// let step = table.from_elem((), 0_u64)?;              // no axes: a number
    /// assert_eq!(table.read(weights)?.sum(), 1.0);
    /// assert_eq!(table.read(step)?[()], 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](HandleTable::zeros).
    #[doc(alias("full", "ones"))]
    #[inline]
    #[track_caller]
    pub fn from_elem<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        elem: T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.core.filled(shape, elem)
    }

    /// Creates an array with the element `f(i)` at index `i`.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_shape_fn((3, 4), |(row, column)| (10 * row + column) as f64)?;
    /// assert_eq!(table.read(x)?[[2, 1]], 21.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](HandleTable::zeros). If `f` panics, nothing is allocated. If `f` forks, the
    /// child gets [`AllocError::Forked`], and the array belongs to the parent.
    #[inline]
    #[track_caller]
    pub fn from_shape_fn<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
        f: impl FnMut(<Sh::Dim as Dimension>::Pattern) -> T,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.core.filled_by_fn(shape, f)
    }

    /// Creates a copy of `source`: in Fortran order if `source` lies so in memory, else in C order.
    ///
    /// Takes views of any strides. Copies of 16 MiB and more use several threads, which have ended
    /// when the call returns. A lease is an ndarray, so ndarray's `to_owned` copies back:
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndarray::{Array2, array, s};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let own = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    /// let x = table.from_array(&own)?;
    /// let every_other = table.from_array(&own.slice(s![.., ..;2]))?;
    ///
    /// let copy: Array2<f64> = table.read(x)?.to_owned();
    /// assert_eq!(copy, own);
    /// let copy = table.read(every_other)?.to_owned();
    /// assert_eq!(copy, array![[1.0, 3.0], [4.0, 6.0]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](HandleTable::zeros).
    #[doc(alias("share_memory", "put", "share"))]
    #[inline]
    #[track_caller]
    pub fn from_array<T: Element, D: Dimension>(
        &self,
        source: &impl Deref<Target = ArrayRef<T, D>>,
    ) -> Result<Handle<T, D>, AllocError> {
        self.core.copied(source)
    }

    /// Creates an array of unspecified contents: zeros, or the bytes of an earlier array.
    ///
    /// An array of `bool` is filled with [`zeros`](HandleTable::zeros), since not every byte is
    /// valid.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.uninit::<f32, _>((480, 640))?;
    /// table.write(x)?.fill(0.5);                           // before anybody reads it
    /// assert_eq!(table.read(x)?[[0, 0]], 0.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros`](HandleTable::zeros).
    #[doc(alias("malloc", "empty"))]
    #[inline]
    #[track_caller]
    pub fn uninit<T: Element, Sh: ShapeBuilder>(
        &self,
        shape: Sh,
    ) -> Result<Handle<T, Sh::Dim>, AllocError> {
        self.core.uninit(shape)
    }

    /// Returns a guard that frees the array when it is dropped.
    ///
    /// Other participants may use the handle meanwhile. Freeing the array twice does no harm.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let scratch = table.owned(table.zeros::<f64, _>(1000)?);
    /// let handle = scratch.handle();
    /// table.write(handle)?.fill(1.0);
    /// drop(scratch);                                       // frees the array
    /// assert!(table.read(handle).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[inline]
    pub fn owned<T: Element, D: Dimension>(&self, handle: Handle<T, D>) -> Owned<'_, T, D> {
        self.core.owned(handle)
    }

    /// Frees an array. Its handle is stale at once, in every process. If the array is leased, its
    /// bytes are released with the last lease.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::error::LeaseError;
    ///
    /// let x = table.from_elem(3, 1.0)?;
    /// let reader = table.read(x)?;
    /// table.free(x)?;
    /// assert!(matches!(table.read(x), Err(LeaseError::Stale { .. })));
    /// assert_eq!(reader.sum(), 3.0);                       // a lease keeps the bytes
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if it was freed before. [`LeaseError::Internal`] if the handle names
    /// memory that the crate keeps for itself, as a pool's mailbox.
    #[doc(alias("unlink", "delete", "remove", "destroy", "MPI_Win_free"))]
    #[inline]
    pub fn free(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.core.free(handle)
    }

    /// Gives up the ownership of an array: it lives until a participant frees or
    /// [adopts](HandleTable::adopt) it. Does nothing if nobody owns it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// let other = HandleTable::join(&segment)?;
    /// let kept = other.from_elem(3, 1.0)?;
    /// let lost = other.from_elem(3, 1.0)?;
    /// other.detach(kept)?;
    /// drop(other);                                         // it leaves
    /// assert!(table.read(kept).is_ok());
    /// assert!(table.read(lost).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`]. [`LeaseError::Owned`] if another participant owns the array.
    /// [`LeaseError::Internal`] if the handle names memory that the crate keeps for itself.
    /// [`LeaseError::Queued`] if a queue owns the array.
    #[doc(alias("leak", "persist", "keep"))]
    #[inline]
    pub fn detach(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.core.detach(handle)
    }

    /// Takes the ownership of an array that nobody owns. Also takes it from an owner that is dead
    /// and was not reaped yet. The array is freed when this participant leaves or dies, unless it
    /// is detached.
    ///
    /// Of several participants that adopt an array, one succeeds. A participant hands an array over
    /// by [`detach`](HandleTable::detach) and the array's handle.
    ///
    /// ```
    /// use ndshm::error::LeaseError;
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let producer = HandleTable::join(&segment)?;
    /// let x = producer.from_elem(100, 0.5)?;
    /// producer.detach(x)?;
    /// drop(producer);
    ///
    /// let (first, second) = (HandleTable::join(&segment)?, HandleTable::join(&segment)?);
    /// first.adopt(x)?;
    /// assert!(matches!(second.adopt(x), Err(LeaseError::Owned { .. })));
    /// first.free(x)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`detach`](HandleTable::detach), and [`LeaseError::Owned`] also if this participant owns
    /// the array already.
    #[doc(alias("take_ownership"))]
    #[inline]
    pub fn adopt(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.core.adopt(handle)
    }

    /// Returns the type, shape and state of the array that a handle names.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((3, 4))?;
    /// let reader = table.read(x)?;
    /// let info = table.info(x)?;
    /// assert_eq!(info.shape, [3, 4]);
    /// assert_eq!(info.bytes, 96);
    /// assert_eq!(info.readers, [std::process::id()]);
    /// # drop(reader);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if the handle names none. [`LeaseError::WrongKind`] if it names a
    /// queue, a partition or a bundle.
    #[doc(alias("shape", "dtype"))]
    #[inline]
    pub fn info(&self, handle: impl Into<AnyHandle>) -> Result<ArrayInfo, LeaseError> {
        self.core.info(handle)
    }

    /// Returns all live arrays, in the order of their slots.
    ///
    /// Arrays that come or go during the iteration may be missing or not. The table's own arrays
    /// (the words of partitions) are left out.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let y = table.zeros::<u8, _>((2, 2))?;
    /// let handles: Vec<_> = table.arrays().map(|info| info.handle).collect();
    /// assert_eq!(handles.len(), 2);
    /// assert!(handles.contains(&x.into()) && handles.contains(&y.into()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("list", "ls"))]
    #[inline]
    pub fn arrays(&self) -> impl Iterator<Item = ArrayInfo> + '_ {
        self.core.arrays()
    }

    /// Gives the pages of all free extents back to the system. Returns the bytes of these extents.
    ///
    /// Freed arrays keep their pages for the next array, up to a limit (see
    /// [`SegmentOptions::retain`](crate::SegmentOptions::retain)). This call gives up all of them.
    /// Nobody waits for it: it reserves the free slots of one span at a time, and frees them again.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(10_000, 1.0)?;
    /// table.free(x)?;                                      // its pages are kept for the next array
    /// let bytes = table.trim()?;
    /// assert!(bytes >= 80_000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[inline]
    pub fn trim(&self) -> Result<u64, JoinError> {
        self.core.trim()
    }

    /// Creates an array of zeros as [`zeros`](HandleTable::zeros) does, of an element type that is
    /// a value. `shape` is the length of each axis. A program that knows the type opens the array
    /// by [`AnyHandle::downcast`].
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::element::{DType, Order, ScalarType};
    /// use ndarray::{Ix2, array};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let any = table.zeros_untyped(&DType::from(ScalarType::U16), &[2, 2], Order::C)?;
    /// table.write_untyped(any)?.bytes_mut()[6] = 7;
    ///
    /// let x = any.downcast::<u16, Ix2>(&table)?;
    /// assert_eq!(table.read(x)?.view(), array![[0, 0], [0, 7]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError`], with the numbers and the remedy.
    #[inline]
    pub fn zeros_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        self.core.zeros_untyped(dtype, shape, order)
    }

    /// Creates an array of unspecified contents as [`uninit`](HandleTable::uninit) does, of an
    /// element type that is a value. Recycled memory is not zeroed, unless the elements are bools.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let x = table.uninit_untyped(&DType::Scalar(ScalarType::F32), &[2, 3], Order::C)?;
    /// table.write_untyped(x)?.bytes_mut().fill(0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros_untyped`](HandleTable::zeros_untyped).
    #[inline]
    pub fn uninit_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        self.core.uninit_untyped(dtype, shape, order)
    }

    /// Creates an array with these bytes, of an element type that is a value. `bytes` are the
    /// elements in memory order: `order` says which axis is contiguous.
    ///
    /// Copies of 16 MiB and more use several threads, as [`from_array`](HandleTable::from_array)
    /// does.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::element::{DType, Order, ScalarType};
    /// use ndarray::{Ix2, array};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let any = table.from_bytes(&DType::from(ScalarType::U8), &[2, 2], Order::F, &[1, 2, 3, 4])?;
    /// let x = any.downcast::<u8, Ix2>(&table)?;
    /// assert_eq!(table.read(x)?.view(), array![[1, 3], [2, 4]]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AllocError::WrongLength`] if the shape needs another number of bytes. Otherwise as
    /// [`zeros_untyped`](HandleTable::zeros_untyped). A bool that is neither 0 nor 1 is found by the
    /// typed lease that would read it.
    #[inline]
    pub fn from_bytes(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
        bytes: &[u8],
    ) -> Result<AnyHandle, AllocError> {
        self.core.copied_bytes(dtype, shape, order, bytes)
    }

    /// Reserves an array that the caller fills and then publishes, or drops. Its contents are
    /// unspecified before. See [`ArrayBuilder`].
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use ndshm::element::{DType, Order, ScalarType};
    ///
    /// let mut building = table.builder(&DType::Scalar(ScalarType::U8), &[5], Order::C)?;
    /// building.bytes_mut().copy_from_slice(b"hello");      // nobody else sees it so far
    /// let x = building.publish()?.downcast::<u8, Ix1>(&table)?;
    /// assert_eq!(table.read(x)?[4], b'o');
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`zeros_untyped`](HandleTable::zeros_untyped).
    #[inline]
    pub fn builder(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<ArrayBuilder<'_>, AllocError> {
        self.core.builder(dtype, shape, order)
    }

    /// Continues with an array that this table has reserved. [`ArrayBuilder::suspend`] has an
    /// example.
    ///
    /// # Errors
    /// [`AllocError::OtherTable`] if another table reserved it: its memory then stays reserved until
    /// that table is dropped. [`AllocError::Forked`] in a child that was forked since: the array
    /// belongs to the parent.
    #[inline]
    pub fn resume(&self, suspended: SuspendedBuilder) -> Result<ArrayBuilder<'_>, AllocError> {
        self.core.resume_builder(suspended)
    }
}
