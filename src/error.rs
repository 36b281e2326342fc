//! Error types: one per operation, with the values, the limit and the remedy.
//!
//! [`Error`] holds any of them, for programs that do not tell them apart. Its methods
//! [`is_stale`](Error::is_stale), [`is_busy`](Error::is_busy), [`is_poisoned`](Error::is_poisoned) and
//! [`is_wrong_kind`](Error::is_wrong_kind) answer the usual questions. A program that reacts to one
//! cause matches on the operation's own type, most often [`LeaseError`].

use thiserror::Error as ThisError;

#[cfg(feature = "arrow")]
pub use crate::arrow::ArrowError;
pub use crate::bundle::error::BundleError;
pub use crate::descriptor::{HalfWritten, WrongKind};
pub use crate::element::{InvalidElement, LayoutError};
pub use crate::handle::ParseHandleError;
pub use crate::memory::Corrupt;
pub use crate::names::error::NameError;
#[cfg(feature = "npy")]
pub use crate::npy::error::NpyError;
#[cfg(feature = "serde")]
pub use crate::object::error::ObjectError;
pub use crate::partition::error::{BlockError, PartitionError, RoundError};
pub use crate::pool::error::PoolError;
pub use crate::primitives::error::PrimitiveError;
pub use crate::queue::error::{PushError, QueueError};
pub use crate::seat::error::JoinError;
pub use crate::segment::error::{ForeignLock, NoMemory, SegmentError};
pub use crate::segment::id::ParseAddressError;
pub use crate::table::error::{AllocError, LeaseError};

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
    /// An array could not be attached, leased or freed.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Arrays could not be divided into tiles.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A tile has no block in an array, or no such halo.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A round could not be opened, entered or finished.
    #[error(transparent)]
    Round(#[from] RoundError),
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
    #[cfg(feature = "npy")]
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// An array could not be lent to Arrow.
    #[cfg(feature = "arrow")]
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    /// An object could not be stored, opened or read.
    #[cfg(feature = "serde")]
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A text is not a handle.
    #[error(transparent)]
    Parse(#[from] ParseHandleError),
    /// A text is not a segment's id or address.
    #[error(transparent)]
    Address(#[from] ParseAddressError),
}

impl Error {
    /// Returns the error of a lease that this error is, or that a call on a pool, a queue, a
    /// bundle, a name or a file ended with.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::error::LeaseError;
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
            #[cfg(feature = "npy")]
            Error::Npy(NpyError::Lease(error)) => Some(error),
            #[cfg(feature = "arrow")]
            Error::Arrow(ArrowError::Lease(error)) => Some(error),
            #[cfg(feature = "serde")]
            Error::Object(ObjectError::Lease(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns `true` if a handle was stale: the array was freed, or its owner has left.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.free(x)?;
    /// let error = ndshm::Error::from(table.read(x).map(drop).unwrap_err());
    /// assert!(error.is_stale());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_stale(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::Stale { .. }))
    }

    /// Returns `true` if a handle names something other than what the call needs, as an array of
    /// another type.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    ///
    /// let x: ndshm::AnyHandle = table.zeros::<f64, _>(3)?.into();
    /// let error = ndshm::Error::from(x.downcast::<u8, Ix1>(&table).unwrap_err());
    /// assert!(error.is_wrong_kind());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_wrong_kind(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::WrongKind(_)))
    }

    /// Returns `true` if another participant holds the array. A later attempt may succeed.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let _writer = table.write(x)?;
    /// let error = ndshm::Error::from(table.read(x).map(drop).unwrap_err());
    /// assert!(error.is_busy());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_busy(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::Busy { .. }))
    }

    /// Returns `true` if a dead or panicking writer left the array half-written.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;
    /// table.unlock(&mut locked, true)?;                    // poisons
    /// let error = ndshm::Error::from(table.read(x).map(drop).unwrap_err());
    /// assert!(error.is_poisoned());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_poisoned(&self) -> bool {
        matches!(self.lease(), Some(LeaseError::Poisoned { .. }))
    }
}

/// Drops the job.
impl<T> From<PushError<T>> for Error {
    fn from(refused: PushError<T>) -> Error {
        Error::Queue(refused.into())
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

crate::message::debug_is_display!(Error);

#[cfg(test)]
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
            NpyError::from(stale()).into(),
            #[cfg(feature = "arrow")]
            ArrowError::from(stale()).into(),
            #[cfg(feature = "serde")]
            ObjectError::from(stale()).into(),
        ];
        for error in errors {
            assert!(
                matches!(error.lease(), Some(LeaseError::Stale { .. })),
                "{error}"
            );
            assert!(error.is_stale() && !error.is_busy() && !error.is_poisoned());
            assert!(!error.is_wrong_kind());
        }
        let wrong = crate::descriptor::WrongKind::control(AnyHandle::from_bits(1));
        assert!(Error::from(QueueError::Lease(wrong.into())).is_wrong_kind());
    }
}
