//! Arrow arrays that borrow the shared bytes of an array and keep its lease.
//!
//! [`HandleTable::lend_arrow`] lends an array as a `PrimitiveArray`, and
//! [`HandleTable::lend_arrow_rows`] a matrix as a list of rows.
//!
//! An Arrow buffer lives until its last clone is dropped, on any thread. A lease belongs to a seat,
//! and a seat's table is used by one thread at a time. Therefore all lent arrays of a segment share
//! one additional table behind a lock. The table leases an array when it is lent, and releases the
//! lease when the last clone is dropped. Its seat is released with the last lent array.

use core::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
use crate::seat::JoinError;
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::table::error::LeaseError;
use crate::table::lease::PartedLease;

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
    /// No seat was free for the table of lent arrays.
    #[error("{handle} could not be lent, because lent arrays need a seat of their own: {error}")]
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
    /// write the array. All lent arrays of a process and a [`Segment`] share one
    /// [seat](crate::SegmentOptions::seats) in addition to the table's own. The first lent array
    /// takes the seat, and dropping the last one releases it.
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
        let (values, shape) = self.lend(handle)?;
        let (rows, columns) = shape.into_pattern();
        let length = i32::try_from(columns).map_err(|_| ArrowError::RowLength {
            handle: handle.into(),
            length: columns,
        })?;
        let item = Field::new_list_field(T::Arrow::DATA_TYPE, false);
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

    /// Returns all elements in memory order, and the shape.
    fn lend<T: ArrowElement, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<(PrimitiveArray<T::Arrow>, D), ArrowError> {
        let any = AnyHandle::from(handle);
        let lender =
            Lender::of(self.segment()).map_err(|error| ArrowError::Join { handle: any, error })?;
        let table = lender.lock();
        let guard = table.read(handle)?;
        if !guard.is_standard_layout() {
            return Err(ArrowError::Fortran { handle: any });
        }
        let shape = guard.raw_dim();
        let first = guard.as_ptr().cast_mut().cast::<u8>();
        let first = NonNull::new(first).unwrap_or(NonNull::dangling());
        let bytes = guard.len() * size_of::<T>();
        let lease = guard.into_lease().part();
        drop(table);
        let owner = Arc::new(Lent {
            lease: Some(lease),
            lender,
        });
        // SAFETY: the `bytes` from `first` belong to the array. It is mapped as long as a table of
        // its segment lives, and `owner` keeps the lender's table. Nobody writes the bytes while
        // that table's seat has its lease. Only the drop of `owner` releases it, after the last
        // clone of the buffer. The bytes are contiguous from `first` on, because the layout is the
        // standard one.
        let buffer = unsafe { Buffer::from_custom_allocation(first, bytes, owner) };
        let values = ScalarBuffer::<T>::from(buffer);
        Ok((PrimitiveArray::new(values, None), shape))
    }
}

/// The seat of all arrays that this process has lent from one opened segment.
///
/// A table is used by one thread at a time, but the last clone of a lent array may be dropped on
/// any thread: hence the lock. Only calls of this crate run under it.
struct Lender {
    table: Mutex<HandleTable>,
    token: u64,
}

/// The lenders of this process and of its ancestors, with their origins.
static LENDERS: Mutex<Vec<(Origin, Weak<Lender>)>> = Mutex::new(Vec::new());

/// The process and mapping of a lender.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Origin {
    token: u64,
    /// The address of the segment's tables. No other segment has it while the lender lives.
    memory: usize,
}

impl Lender {
    /// Returns the lender of this process for a segment. Joins the segment if there is none.
    fn of(segment: &Segment) -> Result<Arc<Lender>, JoinError> {
        let origin = Origin {
            token: process_token(),
            memory: core::ptr::from_ref(segment.memory()).addr(),
        };
        let mut lenders = LENDERS.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lenders.iter().find(|(known, _)| *known == origin);
        if let Some(lender) = known.and_then(|(_, lender)| lender.upgrade()) {
            return Ok(lender);
        }
        lenders.retain(|(_, lender)| lender.strong_count() > 0);
        let lender = Arc::new(Lender {
            table: Mutex::new(HandleTable::join(segment)?),
            token: origin.token,
        });
        lenders.push((origin, Arc::downgrade(&lender)));
        Ok(lender)
    }

    fn lock(&self) -> MutexGuard<'_, HandleTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner of a lent array's buffer. It is never read; dropping it releases the lease.
struct Lent {
    /// `None` after the lease was released.
    lease: Option<PartedLease>,
    // The last reference releases the seat.
    lender: Arc<Lender>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // In a forked child, lease and seat are the parent's, and the lock may be held for ever.
        if self.lender.token == process_token()
            && let Some(lease) = self.lease.take()
        {
            drop(self.lender.lock().core.resume(lease));
        }
    }
}

crate::message::debug_is_display!(ArrowError);
