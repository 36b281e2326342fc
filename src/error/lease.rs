//! Errors of whole-array leases, of partitions and of rounds.

use core::ops::Range;
use core::time::Duration;

use thiserror::Error as ThisError;

#[cfg(not(loom))]
use super::Bytes;
use super::utc::Utc;
use super::{AllocError, ForeignLock, JoinError, SegmentError};
use crate::descriptor::{HalfWritten, TypeMismatch};
use crate::element::InvalidElement;
use crate::handle::AnyHandle;

/// Error of freeing an array.
#[derive(ThisError)]
#[non_exhaustive]
pub enum FreeError {
    /// The array was freed before, by its handle or with its owner.
    #[error(
        "{handle} is stale: its array was freed before, by its handle or because its owner left, \
         or the handle belongs to another segment"
    )]
    Stale {
        /// The handle.
        handle: AnyHandle,
    },
    /// The handle names internal memory of the crate.
    #[error(
        "{handle} names {what}, which is internal to the crate: pass the handle of an array, an \
         object, a queue, a partition or a bundle"
    )]
    Internal {
        /// The handle.
        handle: AnyHandle,
        /// The internal memory that it names.
        what: &'static str,
    },
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Error of attaching or leasing an array.
#[derive(ThisError)]
#[non_exhaustive]
pub enum LeaseError {
    /// No live array has this handle. A freed slot does not record the reason: either the handle
    /// was passed to [`free`](crate::HandleTable::free), or the participant that owned the array
    /// has left or died. To make an array outlive its owner, [detach](crate::HandleTable::detach)
    /// it, or hand it over with [`push_owned`](crate::Queue::push_owned).
    #[error(
        "{handle} is stale: its array was freed, by its handle or because its owner left (detach \
         or a queue's push_owned lets an array outlive its owner), or the handle belongs to \
         another segment"
    )]
    Stale {
        /// The handle.
        handle: AnyHandle,
    },
    /// Another lease excludes this one.
    #[error(
        "{handle}{} is leased by process {pid}{}; try again when that lease is released",
        Called(.name),
        if *.pid == std::process::id() { " (this process)" } else { "" }
    )]
    Busy {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// A process that holds it; 0 for members of a round whose opener is gone.
        pid: u32,
    },
    /// The holder of the lease is dead, and a foreign lock prevents reclaiming the lease.
    #[error(
        "{handle}{} is leased by process {pid}, which is dead, and cannot be reclaimed: {lock}",
        Called(.name)
    )]
    Blocked {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The process that held it.
        pid: u32,
        /// The lock that prevents it.
        lock: ForeignLock,
    },
    /// A writer died or panicked.
    #[error(
        "{handle}{} is poisoned: process {pid} died or panicked while it wrote {what} (noticed \
         {}), and the contents may be half-written; inspect them and call recover or clear_poison, \
         or free the array",
        Called(.name), Utc(*unix_time)
    )]
    Poisoned {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The process that was writing.
        pid: u32,
        /// The time when this was noticed, in seconds since 1970.
        unix_time: u64,
        /// The part that it was writing.
        what: HalfWritten,
    },
    /// A queue owns the array: see [`push_owned`](crate::Queue::push_owned).
    #[error(
        "{handle} belongs to a queue, because its owner pushed it: call pop_owned on the queue, or \
         free it"
    )]
    Queued {
        /// The handle.
        handle: AnyHandle,
    },
    /// The array has another element type, or another number of axes.
    #[error(transparent)]
    TypeMismatch(#[from] TypeMismatch),
    /// The handle names internal memory of the crate.
    #[error(
        "{handle} names {what}, which is internal to the crate: pass the handle of an array, an \
         object, a queue, a partition or a bundle"
    )]
    Internal {
        /// The handle.
        handle: AnyHandle,
        /// The internal memory that it names.
        what: &'static str,
    },
    /// The bytes are not valid values of the element type.
    #[error("{handle}: {error}")]
    InvalidElement {
        /// The handle.
        handle: AnyHandle,
        /// The invalid byte and its place.
        error: InvalidElement,
    },
    /// The array's descriptor does not describe an array in its extent.
    #[error("{handle}: the segment is damaged at byte {offset:#x}: {what}")]
    Corrupt {
        /// The handle.
        handle: AnyHandle,
        /// The place of the damage, in bytes from the start of the segment.
        offset: u64,
        /// The check that failed.
        what: &'static str,
    },
    /// An observer could not map the array or its tables.
    #[error("the array cannot be mapped for reading: {0}")]
    Unmapped(#[source] SegmentError),
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Error of copying bytes of an array by an observer.
#[cfg(not(loom))]
#[derive(ThisError)]
#[non_exhaustive]
pub enum CopyError {
    /// There is no such array, or its descriptor is damaged.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The requested bytes extend beyond the array.
    #[error(
        "{handle} has {:#}: {:#} from byte {offset} on are out of range",
        Bytes(*bytes),
        Bytes(*len)
    )]
    Range {
        /// The handle.
        handle: AnyHandle,
        /// The first requested byte, from the start of the array.
        offset: u64,
        /// Number of requested bytes.
        len: u64,
        /// Bytes of the array.
        bytes: u64,
    },
    /// The system could not read the segment's file.
    #[error("{handle}: the segment's file cannot be read (was it truncated?): {source}")]
    Read {
        /// The handle.
        handle: AnyHandle,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Error of dividing arrays into tiles.
#[derive(ThisError)]
#[non_exhaustive]
pub enum PartitionError {
    /// The tile length is 0.
    #[error("a tile length of 0 is invalid: a tile covers at least one index")]
    EmptyTile,
    /// An array of the group does not have the axis.
    #[error(
        "{handle}{} has {axes} {}, so it cannot be divided along axis {axis}",
        Called(.name),
        if *.axes == 1 { "axis" } else { "axes" }
    )]
    NoSuchAxis {
        /// The array.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// Its number of axes.
        axes: usize,
        /// The requested axis.
        axis: usize,
    },
    /// The arrays of a group have different lengths along the axis.
    #[error(
        "{handle}{} has {found} indices along axis {axis}, the others of its group have {expected}",
        Called(.name)
    )]
    Lengths {
        /// The array that differs.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The axis.
        axis: usize,
        /// Its length.
        found: usize,
        /// The length of the arrays before it.
        expected: usize,
    },
    /// The grid is invalid for every array.
    #[error("invalid grid: {problem}")]
    Grid {
        /// The violated rule.
        problem: &'static str,
    },
    /// The bounds of a grid do not match the axis.
    #[error(
        "bounds from {first:?} to {last:?} along axis {axis}, which has {axis_len} indices: they \
         must start with 0 and end with {axis_len}"
    )]
    Bounds {
        /// The axis.
        axis: usize,
        /// Its length.
        axis_len: usize,
        /// The first bound, if there is one.
        first: Option<usize>,
        /// The last bound.
        last: Option<usize>,
    },
    /// The same array is in the group twice, and written.
    #[error(
        "{handle}{} is in the group twice and written: its tiles would overlap",
        Called(.name)
    )]
    Overlap {
        /// The array.
        handle: AnyHandle,
        /// A name that it has.
        name: Option<String>,
    },
    /// The group has more than 8 arrays.
    #[error("a group of {arrays} arrays is too large: at most {limit} can be divided together")]
    TooManyArrays {
        /// Arrays in the group.
        arrays: usize,
        /// The largest possible number.
        limit: usize,
    },
    /// The number of weights differs from the number of indices of the axis.
    #[error(
        "{weights} weight{} for {axis_len} {} along axis {axis}: give each index one weight",
        if *.weights == 1 { "" } else { "s" },
        if *.axis_len == 1 { "index" } else { "indices" }
    )]
    Weights {
        /// The axis.
        axis: usize,
        /// Its length.
        axis_len: usize,
        /// The number of weights.
        weights: usize,
    },
    /// The grid has more tiles than a partition can count.
    #[error(
        "{} tiles: at most {limit} are possible; use {remedy}",
        tiles.map_or_else(|| format!("more than {}", usize::MAX), |tiles| tiles.to_string())
    )]
    TooManyTiles {
        /// Number of tiles of the grid; `None` if it does not fit into a `usize`.
        tiles: Option<usize>,
        /// The largest possible number.
        limit: u64,
        /// A possible change of the grid, along each axis that needs one.
        remedy: String,
    },
    /// The handle does not name a partition of this group.
    #[error("{handle} is not a partition of this group of arrays")]
    NotThisGroup {
        /// The handle.
        handle: AnyHandle,
    },
    /// An array of the group could not be leased.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The claim words could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

/// Error of opening, entering or finishing a round.
#[derive(ThisError)]
#[non_exhaustive]
pub enum RoundError {
    /// A round of this partition is running.
    #[error("round {round} of this partition is running, opened by process {pid}")]
    Running {
        /// The round.
        round: u64,
        /// The process that opened it.
        pid: u32,
    },
    /// All rounds of the partition are used up.
    #[error("all {rounds} rounds of this partition are used up; create a new partition")]
    UsedUp {
        /// Rounds that a partition has.
        rounds: u64,
    },
    /// An array could not be leased for the round.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The round was opened by the process that this one was forked from.
    #[error(
        "this round belongs to the parent process, which must finish it; open a round in this \
         process"
    )]
    Forked,
    /// Tiles were torn: their holders died or panicked.
    #[error(
        "round {round}: {} tiles were left half-written, the first at rows {:?}; the arrays are \
         poisoned until recover or clear_poison", .rows.len(),
        .rows.first().cloned().unwrap_or_default()
    )]
    Torn {
        /// The round.
        round: u64,
        /// The torn tiles.
        tiles: Vec<usize>,
        /// The indices that each of them covers along the axis that the partition cuts first.
        rows: Vec<Range<usize>>,
    },
    /// Not all tiles were done in time.
    #[error(
        "round {round} was not over after {waited:?}: {done} of {tiles} tiles are done, {held} are \
         held"
    )]
    Deadline {
        /// The round.
        round: u64,
        /// The time that the caller waited.
        waited: Duration,
        /// Tiles that are done.
        done: usize,
        /// Tiles that a participant holds.
        held: usize,
        /// Number of all tiles.
        tiles: usize,
    },
}

/// A name of the array behind a handle, if it has one: ` ("weights")`.
struct Called<'e>(&'e Option<String>);

impl core::fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(name) => write!(f, " ({name:?})"),
            None => Ok(()),
        }
    }
}

impl From<JoinError> for RoundError {
    fn from(error: JoinError) -> Self {
        RoundError::Lease(error.into())
    }
}

impl From<JoinError> for PartitionError {
    fn from(error: JoinError) -> Self {
        PartitionError::Lease(error.into())
    }
}

crate::error::debug_is_display!(FreeError, LeaseError, PartitionError, RoundError);
#[cfg(not(loom))]
crate::error::debug_is_display!(CopyError);
