//! Arrow arrays that borrow the shared bytes of an array and keep its lease.
//!
//! [`HandleTable::lend_arrow`] lends an array as a `PrimitiveArray`, and
//! [`HandleTable::lend_arrow_rows`] a matrix as a list of rows.
//!
//! An Arrow buffer lives until its last clone is dropped, on any thread, and a [`HandleTable`] is
//! of one thread. Therefore the leases are those of the process's [`SharedTable`] of the segment. A
//! program that uses one anyway needs no further seat for lent arrays.

use core::ptr::NonNull;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{FixedSizeListArray, PrimitiveArray};
use arrow_buffer::{ArrowNativeType, Buffer, ScalarBuffer};
use arrow_schema::Field;
use ndarray::{Dimension, Ix1, Ix2};

use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::handle_table::HandleTable;
use crate::handle_table::shared::SharedTable;
use crate::seat::JoinError;
use crate::table::error::LeaseError;

/// Number types that Arrow has too: integers up to 64 bits, `f32` and `f64`.
///
/// `bool` is excluded because Arrow packs eight into a byte. Complex numbers and records are
/// excluded because Arrow stores each part as an array of its own.
pub trait ArrowElement: Element + ArrowNativeType {
    /// Arrow's name of the type.
    type Arrow: ArrowPrimitiveType<Native = Self>;
}

macro_rules! arrow_elements {
    ($($type:ty => $arrow:ty;)*) => {$(
        impl ArrowElement for $type {
            type Arrow = $arrow;
        }
    )*};
}

arrow_elements! {
    u8 => UInt8Type;
    i8 => Int8Type;
    u16 => UInt16Type;
    i16 => Int16Type;
    u32 => UInt32Type;
    i32 => Int32Type;
    u64 => UInt64Type;
    i64 => Int64Type;
    f32 => Float32Type;
    f64 => Float64Type;
}

/// Error of lending an array to Arrow.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ArrowError {
    /// No seat was free for the process's shared table.
    #[error("{handle} could not be lent, because the process's shared table needs a seat: {error}")]
    Join {
        /// The array.
        handle: AnyHandle,
        /// The reason.
        error: JoinError,
    },
    /// The array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Rows of an array in Fortran order are not contiguous.
    #[error(
        "{handle} is in Fortran order, but Arrow needs contiguous rows: make a copy in C order, as \
         by zeros and assign"
    )]
    Fortran {
        /// The array.
        handle: AnyHandle,
    },
    /// A row has more numbers than 31 bits can count.
    #[error(
        "{handle} has {length} numbers per row, but Arrow allows at most {}: divide the rows, or \
         lend it as an array of 1 axis",
        i32::MAX
    )]
    RowLength {
        /// The array.
        handle: AnyHandle,
        /// The length of its last axis.
        length: usize,
    },
}

impl HandleTable {
    /// Lends an array to Arrow, without a copy.
    ///
    /// The result may be cloned, sliced, kept for any time, and sent to other threads. It holds a
    /// read lease until its last clone is dropped: until then no participant in any process can
    /// write the array. The lease is that of the process's [`SharedTable`] of the segment, so all
    /// lent arrays share its [seat](crate::SegmentOptions::seats), and take one only if the program
    /// does not use that table anyway.
    ///
    /// While an array is lent, [`Pool::fork`](crate::Pool::fork) refuses to fork. In a child of any
    /// other fork, a lent array still belongs to the parent, and must not be used.
    ///
    /// ```
    /// use arrow_array::Array;
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::error::LeaseError;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(1000, 0.5)?;
    /// let lent = table.lend_arrow(x)?;
    /// let sum = std::thread::spawn(move || lent.values().iter().sum::<f64>());
    /// assert_eq!(sum.join().unwrap(), 500.0);
    ///
    /// // The thread has dropped it.
    /// table.write(x)?.fill(1.0);
    /// let lent = table.lend_arrow(x)?;
    /// assert!(matches!(table.write(x), Err(LeaseError::Busy { .. })));
    /// assert_eq!((lent.len(), lent.null_count()), (1000, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ArrowError::Lease`] as for [`read`](HandleTable::read), [`ArrowError::Join`] if all seats
    /// are taken.
    pub fn lend_arrow<T: ArrowElement>(
        &self,
        handle: Handle<T, Ix1>,
    ) -> Result<PrimitiveArray<T::Arrow>, ArrowError> {
        let (values, _) = self.lend(handle)?;
        Ok(values)
    }

    /// Does the same as [`lend_arrow`](HandleTable::lend_arrow) for an array of rows in C order.
    /// Each row is a list of fixed length, with numbers named `item`.
    ///
    /// ```
    /// use arrow_array::Array;
    /// use ndshm::{HandleTable, Segment};
    /// use ndarray::array;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_array(&array![[1i32, 2, 3], [4, 5, 6]])?;
    /// let lent = table.lend_arrow_rows(x)?;
    /// assert_eq!((lent.len(), lent.value_length()), (2, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`lend_arrow`](HandleTable::lend_arrow), [`ArrowError::Fortran`], and
    /// [`ArrowError::RowLength`].
    pub fn lend_arrow_rows<T: ArrowElement>(
        &self,
        handle: Handle<T, Ix2>,
    ) -> Result<FixedSizeListArray, ArrowError> {
        rows(self.lend(handle)?, handle.into())
    }

    /// Returns all elements in memory order, and the shape.
    fn lend<T: ArrowElement, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<(PrimitiveArray<T::Arrow>, D), ArrowError> {
        let any = AnyHandle::from(handle);
        let table = SharedTable::of(self.segment())
            .map_err(|error| ArrowError::Join { handle: any, error })?;
        table.lend(handle)
    }
}

impl SharedTable {
    /// Lends an array to Arrow, without a copy. See
    /// [`HandleTable::lend_arrow`](crate::HandleTable::lend_arrow).
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(1000, 0.5)?;
    /// assert_eq!(table.lend_arrow(x)?.values().iter().sum::<f64>(), 500.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ArrowError::Lease`] as for [`read`](SharedTable::read).
    pub fn lend_arrow<T: ArrowElement>(
        &self,
        handle: Handle<T, Ix1>,
    ) -> Result<PrimitiveArray<T::Arrow>, ArrowError> {
        let (values, _) = self.lend(handle)?;
        Ok(values)
    }

    /// Does the same for an array of rows in C order. See
    /// [`HandleTable::lend_arrow_rows`](crate::HandleTable::lend_arrow_rows).
    ///
    /// ```
    /// use ndarray::array;
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_array(&array![[1i32, 2, 3], [4, 5, 6]])?;
    /// assert_eq!(table.lend_arrow_rows(x)?.value_length(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::lend_arrow_rows`](crate::HandleTable::lend_arrow_rows).
    pub fn lend_arrow_rows<T: ArrowElement>(
        &self,
        handle: Handle<T, Ix2>,
    ) -> Result<FixedSizeListArray, ArrowError> {
        rows(self.lend(handle)?, handle.into())
    }

    /// Returns all elements in memory order, and the shape.
    fn lend<T: ArrowElement, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<(PrimitiveArray<T::Arrow>, D), ArrowError> {
        let any = AnyHandle::from(handle);
        let guard = self.read(handle)?;
        if !guard.is_standard_layout() {
            return Err(ArrowError::Fortran { handle: any });
        }
        let shape = guard.raw_dim();
        let first = guard.as_ptr().cast_mut().cast::<u8>();
        let first = NonNull::new(first).unwrap_or(NonNull::dangling());
        let bytes = guard.len() * size_of::<T>();
        let owner = Arc::new(guard.into_lease());
        // SAFETY: the `bytes` from `first` belong to the array. It is mapped as long as a table of
        // its segment lives, and `owner` keeps the table. Nobody writes the bytes while `owner` has
        // the lease. Only its drop releases it, after the last clone of the buffer. The bytes are
        // contiguous from `first` on, because the layout is the standard one.
        let buffer = unsafe { Buffer::from_custom_allocation(first, bytes, owner) };
        let values = ScalarBuffer::<T>::from(buffer);
        Ok((PrimitiveArray::new(values, None), shape))
    }
}

/// Divides the elements of a matrix into lists.
fn rows<T: ArrowPrimitiveType>(
    (values, shape): (PrimitiveArray<T>, Ix2),
    handle: AnyHandle,
) -> Result<FixedSizeListArray, ArrowError> {
    let (rows, columns) = shape.into_pattern();
    let length = i32::try_from(columns).map_err(|_| ArrowError::RowLength {
        handle,
        length: columns,
    })?;
    let item = Field::new_list_field(T::DATA_TYPE, false);
    let list = FixedSizeListArray::try_new_with_length(
        Arc::new(item),
        length,
        Arc::new(values),
        None,
        rows,
    );
    // There are `rows` times `length` values. They have the field's type, and none is null.
    Ok(list.expect("the parts of a list of rows fit together"))
}

crate::message::debug_is_display!(ArrowError);
