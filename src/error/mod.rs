//! Error types: one per operation, with the values, the limit and the remedy. [`Error`] holds any
//! of them.

mod bundle;
mod foreign_lock;
mod lease;
mod name;
#[cfg(all(feature = "serde", not(loom)))]
mod object;
mod pool;
mod primitive;
mod queue;
mod segment;
mod utc;

use thiserror::Error as ThisError;

use crate::element::SchemaError;
pub use bundle::BundleError;
pub use foreign_lock::ForeignLock;
#[cfg(not(loom))]
pub use lease::CopyError;
pub use lease::{FreeError, LeaseError, PartitionError, RoundError};
pub use name::NameError;
#[cfg(all(feature = "serde", not(loom)))]
pub use object::ObjectError;
pub use pool::{BarrierError, PoolError};
pub use primitive::PrimitiveError;
pub use queue::{PushError, QueueError};
pub use segment::{Bytes, NoMemory, SegmentError};

/// Implements `Debug` by the text of `Display`.
///
/// Rust prints the `Debug` form of an error that `main` returns, or that meets an `unwrap`. Its
/// reader needs the values, the limit and the remedy, not the name of a variant.
macro_rules! debug_is_display {
    ($($error:ty),+) => {$(
        impl core::fmt::Debug for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    )+};
}
pub(crate) use debug_is_display;

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Any error of this crate, for `?` in programs that do not distinguish them.
#[derive(ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A segment could not be created or opened.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// No seat could be taken.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// An array could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
    /// An array could not be freed.
    #[error(transparent)]
    Free(#[from] FreeError),
    /// An array could not be attached or leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Arrays could not be divided into tiles.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A round could not be opened, entered or finished.
    #[error(transparent)]
    Round(#[from] RoundError),
    /// The workers of a call could not wait for each other.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// A pool could not be started, or a call on it failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A queue could not be created or opened, or a call on it failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A bundle could not be created, opened or changed.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A name could not be given, found or removed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A primitive on a pool failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveError),
    /// An array could not be loaded from a file or saved to one.
    #[cfg(all(feature = "npy", not(loom)))]
    #[error(transparent)]
    Npy(#[from] crate::npy::NpyError),
    /// An array could not be lent to Arrow.
    #[cfg(all(feature = "arrow", not(loom)))]
    #[error(transparent)]
    Arrow(#[from] crate::arrow::ArrowError),
    /// An object could not be stored, opened or read.
    #[cfg(all(feature = "serde", not(loom)))]
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A text is not a handle.
    #[error(transparent)]
    Parse(#[from] crate::handle::ParseHandleError),
}

impl Error {
    /// Returns the error of a lease that this error is, or that a call on a pool, a queue, a
    /// bundle, a name or a file ended with.
    ///
    /// ```
    /// use ndshm::{HandleTable, LeaseError, Segment};
    ///
    /// fn sum(table: &HandleTable, x: ndshm::Handle<f64, ndarray::Ix1>) -> ndshm::Result<f64> {
    ///     Ok(table.read(x)?.sum())
    /// }
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.free(x)?;
    /// let error = sum(&table, x).unwrap_err();
    /// assert!(matches!(error.lease(), Some(LeaseError::Stale { .. })));
    /// assert!(error.is_stale());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn lease(&self) -> Option<&LeaseError> {
        match self {
            Error::Lease(error) => Some(error),
            Error::Partition(error) => of_partition(error),
            Error::Round(error) => of_round(error),
            Error::Pool(error) => of_pool(error),
            Error::Queue(QueueError::Lease(error)) => Some(error),
            Error::Bundle(error) => of_bundle(error),
            Error::Name(NameError::Lease(error)) => Some(error),
            Error::Primitive(error) => match error {
                PrimitiveError::Lease(error) => Some(error),
                PrimitiveError::Partition(error) => of_partition(error),
                PrimitiveError::Pool(error) => of_pool(error),
                _ => None,
            },
            #[cfg(all(feature = "npy", not(loom)))]
            Error::Npy(
                crate::npy::NpyError::Lease(error)
                | crate::npy::NpyError::Copy(CopyError::Lease(error)),
            ) => Some(error),
            #[cfg(all(feature = "arrow", not(loom)))]
            Error::Arrow(crate::arrow::ArrowError::Lease(error)) => Some(error),
            #[cfg(all(feature = "serde", not(loom)))]
            Error::Object(ObjectError::Lease(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns `true` if a handle was stale: the array was freed, or its owner has left.
    pub fn is_stale(&self) -> bool {
        matches!(self, Error::Free(FreeError::Stale { .. }))
            || matches!(self.lease(), Some(LeaseError::Stale { .. }))
    }

    /// Returns `true` if another participant holds the array. A later attempt may succeed.
    pub fn is_busy(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::Busy { .. }))
    }

    /// Returns `true` if a dead or panicking writer left the array half-written.
    pub fn is_poisoned(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::Poisoned { .. }))
    }
}

fn of_partition(error: &PartitionError) -> Option<&LeaseError> {
    match error {
        PartitionError::Lease(error) => Some(error),
        _ => None,
    }
}

fn of_round(error: &RoundError) -> Option<&LeaseError> {
    match error {
        RoundError::Lease(error) => Some(error),
        _ => None,
    }
}

fn of_pool(error: &PoolError) -> Option<&LeaseError> {
    match error {
        PoolError::Lease(error) => Some(error),
        PoolError::Round(error) => of_round(error),
        _ => None,
    }
}

fn of_bundle(error: &BundleError) -> Option<&LeaseError> {
    match error {
        BundleError::Lease(error) => Some(error),
        BundleError::Name(NameError::Lease(error)) => Some(error),
        _ => None,
    }
}

/// Error of joining a table.
#[derive(ThisError)]
#[non_exhaustive]
pub enum JoinError {
    /// All seats are held by living participants.
    #[error(
        "all {seats} seats of the segment are taken (pids {holders:?} and others); let a \
         participant leave, or create the segment with SegmentOptions::seats({})", seats * 2
    )]
    SeatsFull {
        /// Seats of the segment.
        seats: usize,
        /// Pids of the first holders.
        holders: Vec<u32>,
    },
    /// No seat is free, and a seat that no living participant holds is locked by a process outside
    /// the crate.
    #[error("{locked} of the segment's {seats} seats cannot be taken: {lock}")]
    SeatLocked {
        /// Seats of the segment.
        seats: usize,
        /// Seats with a foreign lock.
        locked: usize,
        /// One of the locks.
        lock: ForeignLock,
    },
    /// The segment could not be opened for this participant.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

/// Error of allocating an array. The table is unchanged after it.
#[derive(ThisError)]
#[non_exhaustive]
pub enum AllocError {
    /// The shape has more than 8 axes.
    #[error(
        "an array of {axes} axes: at most {} axes are supported; join some of them",
        crate::descriptor::MAX_AXES
    )]
    TooManyAxes {
        /// Axes asked for.
        axes: usize,
    },
    /// The size of the shape in bytes exceeds `isize::MAX`.
    #[error(
        "shape {shape:?} of {element} ({size} bytes each) is too large: one array takes less \
         than {}",
        Bytes(isize::MAX as u64 + 1)
    )]
    TooLarge {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The element type.
        element: String,
        /// Bytes of an element.
        size: usize,
    },
    /// No extent of this size is free and none can be added.
    #[error(
        "no room for {:#}: {what} of the segment is used up (capacity {:#}, {arrays} slots); free \
         arrays, or create the segment with a larger SegmentOptions::{remedy}",
        Bytes(*bytes),
        Bytes(*capacity)
    )]
    Full {
        /// Bytes asked for.
        bytes: u64,
        /// The resource that ran out.
        what: &'static str,
        /// Capacity of the segment in bytes.
        capacity: u64,
        /// Slots of the segment.
        arrays: u64,
        /// The option that raises the limit.
        remedy: &'static str,
    },
    /// The machine does not have this much memory.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The record's layout could not be entered in the segment.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// This process was forked while its parent created the array. The array belongs to the parent,
    /// which continues with it.
    #[error("this process was forked while its parent created the array: it is the parent's")]
    Forked,
    /// The table of spans holds bytes that no participant writes.
    #[error("the segment is damaged at byte {offset:#x}: {what}")]
    Corrupt {
        /// The place of the damage, in bytes from the start of the segment.
        offset: u64,
        /// The check that failed.
        what: &'static str,
    },
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

crate::error::debug_is_display!(Error, JoinError, AllocError);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::handle::AnyHandle;

    fn stale() -> LeaseError {
        LeaseError::Stale {
            handle: AnyHandle::from_bits(1),
        }
    }

    #[test]
    fn a_stale_handle_is_found_in_all_errors_that_wrap_it() {
        let errors: Vec<Error> = vec![
            stale().into(),
            PartitionError::from(stale()).into(),
            RoundError::from(stale()).into(),
            PoolError::from(stale()).into(),
            PoolError::from(RoundError::from(stale())).into(),
            QueueError::from(stale()).into(),
            BundleError::from(stale()).into(),
            BundleError::Name(NameError::from(stale())).into(),
            NameError::from(stale()).into(),
            PrimitiveError::from(stale()).into(),
            PrimitiveError::from(PartitionError::from(stale())).into(),
            PrimitiveError::from(PoolError::from(stale())).into(),
            #[cfg(feature = "npy")]
            crate::npy::NpyError::from(stale()).into(),
            #[cfg(feature = "npy")]
            crate::npy::NpyError::from(CopyError::from(stale())).into(),
            #[cfg(feature = "arrow")]
            crate::arrow::ArrowError::from(stale()).into(),
            #[cfg(feature = "serde")]
            ObjectError::from(stale()).into(),
        ];
        for error in errors {
            assert!(
                matches!(error.lease(), Some(LeaseError::Stale { .. })),
                "{error}"
            );
            assert!(error.is_stale() && !error.is_busy() && !error.is_poisoned());
        }
        let handle = AnyHandle::from_bits(1);
        let freed = Error::from(FreeError::Stale { handle });
        assert!(freed.is_stale() && freed.lease().is_none());
    }
}
