//! Errors of the parallel primitives.

use thiserror::Error as ThisError;

use crate::handle::AnyHandle;
use crate::partition::PartitionError;
use crate::pool::PoolError;
use crate::seat::JoinError;
use crate::table::error::{AllocError, LeaseError};

/// Error of a primitive on a pool. Unless a variant says otherwise, no array was changed.
#[derive(ThisError)]
#[non_exhaustive]
pub enum PrimitiveError {
    /// The shapes of two arrays of a call do not fit together.
    #[error(
        "{operation}: {handle} has shape {found:?}, which does not fit {expected:?} of {other}: \
         {rule}"
    )]
    Shapes {
        /// The primitive.
        operation: &'static str,
        /// The array that does not fit.
        handle: AnyHandle,
        /// Its shape.
        found: Vec<usize>,
        /// The array it is compared with.
        other: AnyHandle,
        /// The shape of that array.
        expected: Vec<usize>,
        /// The rule that the shapes violate.
        rule: &'static str,
    },
    /// The same array is read and written, and the result would depend on the order of tiles.
    #[error(
        "{operation}: {handle} is both read and written; pass another array as the output of \
         {operation}"
    )]
    Aliased {
        /// The primitive.
        operation: &'static str,
        /// The array.
        handle: AnyHandle,
    },
    /// An index is out of range for the array that it points into. Output positions with such
    /// indices keep their old values; all others are gathered.
    #[error(
        "{handle} holds index {index} at position {position}, but {source_array} has {length} \
         indices along its first axis"
    )]
    Index {
        /// The array of indices.
        handle: AnyHandle,
        /// The first position with an index that is out of range.
        position: usize,
        /// The index.
        index: u64,
        /// The array that is gathered from.
        source_array: AnyHandle,
        /// The length of its first axis.
        length: usize,
    },
    /// An integer sum does not fit its type.
    #[error(
        "{operation}: the sum of {handle}{} does not fit into {dtype}; use a wider type",
        .position.map(|at| format!(" up to position {at}")).unwrap_or_default()
    )]
    Overflow {
        /// The primitive.
        operation: &'static str,
        /// The array.
        handle: AnyHandle,
        /// For a prefix sum, the first position with a sum that is out of range.
        position: Option<usize>,
        /// The type of the sum.
        dtype: &'static str,
    },
    /// The result is not defined for so few elements.
    #[error("{operation}: {handle} has {elements} elements, at least {needed} are needed")]
    TooFew {
        /// The primitive.
        operation: &'static str,
        /// The array.
        handle: AnyHandle,
        /// The elements it has.
        elements: usize,
        /// The smallest number for which the result is defined.
        needed: usize,
    },
    /// A weight is negative, infinite or not a number.
    #[error(
        "{handle} holds the weight {weight:?} at position {position}: weights must be finite and \
         not negative"
    )]
    Weight {
        /// The array of weights.
        handle: AnyHandle,
        /// The first position with such a weight.
        position: usize,
        /// The weight.
        weight: f64,
    },
    /// The logarithm of a weight is +∞ or not a number.
    #[error(
        "{handle} holds the log-weight {log_weight:?} at position {position}: log-weights must be \
         finite or -inf"
    )]
    LogWeight {
        /// The array of logarithms.
        handle: AnyHandle,
        /// The first position with such a logarithm.
        position: usize,
        /// The logarithm.
        log_weight: f64,
    },
    /// All weights are 0, or there are none.
    #[error(
        "the weights of {handle} are all 0, or there are none; products of many small factors \
         become 0: add their logarithms instead, and call normalize_log_weights"
    )]
    NoWeight {
        /// The array of weights.
        handle: AnyHandle,
    },
    /// The offset of a systematic grid is not in [0, 1).
    #[error("resample_systematic: the offset u is {u:?}: it must be at least 0 and below 1")]
    Offset {
        /// The offset.
        u: f64,
    },
    /// A systematic plan cannot be made of these sums, or cannot be expanded with these weights.
    #[error("systematic plan: {problem}")]
    Plan {
        /// The sum, range or length that does not fit, and the remedy.
        problem: String,
    },
    /// A call on the pool failed. The arrays that the primitive writes may be partly written, and
    /// are poisoned if a worker died. The rows in the error are positions in memory order.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// An array could not be divided into tiles.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// An array could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Working memory could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

impl From<JoinError> for PrimitiveError {
    fn from(error: JoinError) -> Self {
        PrimitiveError::Lease(error.into())
    }
}

crate::message::debug_is_display!(PrimitiveError);
