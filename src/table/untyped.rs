//! Arrays as bytes: for programs that learn the element type at run time.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::time::Duration;

use super::core::Core;
use super::lease::{ExclusiveLease, SharedLease};
use super::locked::Mode;
use super::slot::Slot;
use crate::descriptor::bytes_of;
use crate::element::Order;
use crate::element::{DType, ScalarType};
use crate::handle::AnyHandle;
use crate::memory::Access;
use crate::parallel::{self, PIECE};
use crate::table::error::{AllocError, LeaseError};
use crate::word::Purpose;

impl Core {
    /// Creates an array of zeros as [`zeros`](crate::HandleTable::zeros) does, of an element type
    /// that is a value. `shape` is the length of each axis. A program that knows the type opens the
    /// array by [`AnyHandle::downcast`].
    pub(crate) fn zeros_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        let mut array = self.builder(dtype, shape, order)?;
        array.zero();
        array.publish()
    }

    /// Creates an array of unspecified contents, of an element type that is a value.
    pub(crate) fn uninit_untyped(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
    ) -> Result<AnyHandle, AllocError> {
        let mut array = self.builder(dtype, shape, order)?;
        if *dtype == DType::Scalar(ScalarType::Bool) {
            array.zero();
        }
        array.publish()
    }

    /// Creates an array with these bytes, of an element type that is a value.
    pub(crate) fn copied_bytes(
        &self,
        dtype: &DType,
        shape: &[usize],
        order: Order,
        bytes: &[u8],
    ) -> Result<AnyHandle, AllocError> {
        check_length(dtype, shape, bytes)?;
        let mut array = self.builder(dtype, shape, order)?;
        copy_bytes(array.bytes_mut(), bytes);
        array.publish()
    }

    /// Leases an array for reading as [`read`](crate::HandleTable::read) does, with any element
    /// type.
    pub(crate) fn read_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<UntypedReadGuard<'_>, LeaseError> {
        let lease = self.lease_shared(handle.into())?;
        let located = self.locate_untyped(lease.slot, lease.handle)?;
        Ok(UntypedReadGuard::new(lease, located))
    }

    /// Leases an array for writing as [`write`](crate::HandleTable::write) does, with any element
    /// type.
    pub(crate) fn write_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<UntypedWriteGuard<'_>, LeaseError> {
        let lease = self.lease_exclusive(handle.into(), Purpose::Write)?;
        let located = self.locate_untyped(lease.slot, lease.handle)?;
        Ok(UntypedWriteGuard::new(lease, located))
    }

    /// Leases an array for reading, with any element type, and waits for its writers.
    pub(crate) fn read_untyped_timeout(
        &self,
        handle: AnyHandle,
        timeout: Duration,
    ) -> Result<UntypedReadGuard<'_>, LeaseError> {
        match self.read_untyped(handle) {
            Err(LeaseError::Busy { .. }) => {
                let (slot, shared) = self.wait_for(handle, Mode::Read, timeout)?;
                let lease = self.shared_lease(slot, handle, shared);
                let located = self.locate_untyped(slot, handle)?;
                Ok(UntypedReadGuard::new(lease, located))
            }
            taken => taken,
        }
    }

    /// Leases an array for writing, with any element type, and waits for its readers and writers.
    pub(crate) fn write_untyped_timeout(
        &self,
        handle: AnyHandle,
        timeout: Duration,
    ) -> Result<UntypedWriteGuard<'_>, LeaseError> {
        match self.write_untyped(handle) {
            Err(LeaseError::Busy { .. }) => {
                let (slot, _) = self.wait_for(handle, Mode::Write, timeout)?;
                let lease = self.exclusive_lease(slot, handle, Purpose::Write);
                let located = self.locate_untyped(slot, handle)?;
                Ok(UntypedWriteGuard::new(lease, located))
            }
            taken => taken,
        }
    }
}

/// Refuses bytes that are not as many as the shape needs.
pub(crate) fn check_length(dtype: &DType, shape: &[usize], bytes: &[u8]) -> Result<(), AllocError> {
    let axes = shape.iter().map(|&axis| axis as u64);
    match bytes_of(dtype.size(), axes) {
        Some(expected) if expected != bytes.len() as u64 => Err(AllocError::WrongLength {
            shape: shape.to_vec(),
            element: dtype.to_string(),
            size: dtype.size(),
            expected,
            found: bytes.len() as u64,
        }),
        // A shape that has no size is refused by the reservation, with its own error.
        _ => Ok(()),
    }
}

/// Copies bytes, several parts at once if they are many. `to` is as long as `from`.
pub(crate) fn copy_bytes(to: &mut [u8], from: &[u8]) {
    let parts = to.chunks_mut(PIECE).zip(from.chunks(PIECE)).collect();
    let Ok(()) = parallel::for_each(parts, usize::MAX, |(to, from): (&mut [u8], &[u8])| {
        to.copy_from_slice(from);
        Ok::<(), core::convert::Infallible>(())
    });
}

/// A live array's bytes, checked against its descriptor and its extent.
pub(crate) struct LocatedBytes {
    pub(super) offset: u64,
    pub(super) first: NonNull<u8>,
    pub(super) len: usize,
    pub(super) kind: ArrayKind,
}

impl Core {
    /// Locates the bytes of a leased or pinned array.
    pub(super) fn locate_untyped(
        &self,
        slot: Slot<'_>,
        handle: AnyHandle,
    ) -> Result<LocatedBytes, LeaseError> {
        let found = self.tables().measure_untyped(slot.index, handle)?;
        let (offset, size) = (found.extent.offset, found.extent.size());
        let first = self.segment.memory().data(offset, size).ok_or_else(|| {
            self.tables()
                .corrupt(handle, "the extent is not in the data region")
        })?;
        let shape = found.descriptor.shape();
        Ok(LocatedBytes {
            offset,
            first,
            len: found.bytes as usize,
            kind: ArrayKind {
                shape: shape.iter().map(|&len| len as usize).collect(),
                order: found.descriptor.order,
                dtype: found.dtype,
            },
        })
    }
}

/// The type and shape of an array that is leased, pinned or built as bytes.
#[derive(Clone, Debug)]
pub(super) struct ArrayKind {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) order: Order,
}

/// A shared lease of an array as bytes.
///
/// Dropping it releases the lease, as with a [`ReadGuard`](crate::ReadGuard).
///
/// ```
/// use ndshm::element::{Element, Order};
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.from_elem((2, 3), 1.5)?;
/// let lease = table.read_untyped(x)?;
/// assert_eq!((lease.dtype(), lease.order()), (&f64::dtype(), Order::C));
/// assert_eq!((lease.shape(), lease.bytes().len()), (&[2, 3][..], 48));
/// assert_eq!(lease.handle(), x.into());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the lease is given back when the guard is dropped"]
pub struct UntypedReadGuard<'t> {
    // A pointer, because a reference in a function's argument must stay valid until the function
    // returns, and `drop(guard)` releases the lease before that.
    bytes: NonNull<[u8]>,
    borrow: PhantomData<&'t [u8]>,
    kind: ArrayKind,
    // Before the lease: the access ends first.
    _access: Access,
    lease: SharedLease<'t>,
}

impl<'t> UntypedReadGuard<'t> {
    fn new(lease: SharedLease<'t>, located: LocatedBytes) -> Self {
        let memory = lease.table().segment().memory();
        let access = memory.track(located.offset, located.len as u64, false);
        UntypedReadGuard {
            bytes: NonNull::slice_from_raw_parts(located.first, located.len),
            borrow: PhantomData,
            kind: located.kind,
            _access: access,
            lease,
        }
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(2, 258_u16)?;
    /// assert_eq!(table.read_untyped(x)?.bytes(), [2, 1, 2, 1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are in the array's extent, which is mapped while the table lives
        // (`locate_untyped`), and they are initialised. Nobody writes them while the shared lease
        // lives; `self` keeps the lease, which outlives this borrow of `self`.
        unsafe { self.bytes.as_ref() }
    }
}

/// An exclusive lease of an array as bytes.
///
/// Dropping it releases the lease, as with a [`WriteGuard`](crate::WriteGuard). A drop by a panic
/// poisons the array.
///
/// ```
/// use ndshm::element::{Element, Order};
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<u8, _>(4)?;
/// let mut lease = table.write_untyped(x)?;
/// assert_eq!((lease.dtype(), lease.order()), (&u8::dtype(), Order::C));
/// assert_eq!((lease.shape(), lease.handle()), (&[4][..], x.into()));
/// lease.bytes_mut().copy_from_slice(b"text");
/// # Ok::<(), ndshm::Error>(())
/// ```
#[must_use = "the lease is given back when the guard is dropped"]
pub struct UntypedWriteGuard<'t> {
    // A pointer, as in `UntypedReadGuard`.
    bytes: NonNull<[u8]>,
    borrow: PhantomData<&'t mut [u8]>,
    kind: ArrayKind,
    // Before the lease: the access ends first.
    _access: Access,
    lease: ExclusiveLease<'t>,
}

impl<'t> UntypedWriteGuard<'t> {
    fn new(lease: ExclusiveLease<'t>, located: LocatedBytes) -> Self {
        let memory = lease.table().segment().memory();
        let access = memory.track(located.offset, located.len as u64, true);
        UntypedWriteGuard {
            bytes: NonNull::slice_from_raw_parts(located.first, located.len),
            borrow: PhantomData,
            kind: located.kind,
            _access: access,
            lease,
        }
    }

    /// Returns the bytes of the elements, in memory order.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(4, 7_u8)?;
    /// assert_eq!(table.write_untyped(x)?.bytes(), [7; 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are in the array's extent, which is mapped while the table lives
        // (`locate_untyped`), and they are initialised. Nobody else writes them while the exclusive
        // lease lives; `self` keeps the lease, which outlives this borrow of `self`.
        unsafe { self.bytes.as_ref() }
    }

    /// Returns the bytes of the elements, in memory order, to be written.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u8, _>(4)?;
    /// table.write_untyped(x)?.bytes_mut().copy_from_slice(b"text");
    /// assert_eq!(table.read(x)?.to_vec(), b"text");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed mutably, so no other borrow of the bytes lives.
        unsafe { self.bytes.as_mut() }
    }
}

/// Implements the methods that both guards have.
macro_rules! kind_of_array {
    ($guard:ident) => {
        impl $guard<'_> {
            /// Returns the type of the elements.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn dtype(&self) -> &DType {
                &self.kind.dtype
            }

            /// Returns the length of each axis.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn shape(&self) -> &[usize] {
                &self.kind.shape
            }

            /// Returns the order: the first or the last axis is contiguous.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn order(&self) -> Order {
                self.kind.order
            }

            /// Returns the array's handle.
            ///
            #[doc = concat!("[`", stringify!($guard), "`] has an example.")]
            pub fn handle(&self) -> AnyHandle {
                self.lease.handle
            }
        }

        impl core::fmt::Debug for $guard<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($guard))
                    .field("handle", &self.handle())
                    .field("dtype", self.dtype())
                    .field("shape", &self.shape())
                    .field("order", &self.order())
                    .finish_non_exhaustive()
            }
        }
    };
}

kind_of_array!(UntypedReadGuard);
kind_of_array!(UntypedWriteGuard);
