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

/// Why an array could not be freed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum FreeError {
    /// Freed before, by its handle or with its owner.
    #[error(
        "{handle} is stale: its array was freed before, by its handle or because its owner has \
         left, or the handle is of another segment"
    )]
    Stale {
        /// The handle.
        handle: AnyHandle,
    },
    /// The handle names memory that the crate keeps for itself.
    #[error(
        "{handle} names {what}, which the crate makes and frees by itself: pass the handle of an \
         array, an object, a queue, a partition or a bundle"
    )]
    Internal {
        /// The handle.
        handle: AnyHandle,
        /// What it names.
        what: &'static str,
    },
    /// This process has crossed a fork and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Why an array could not be attached or leased.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum LeaseError {
    /// No live array has this handle. The slot of an array that was freed does not tell why: its
    /// handle was passed to [`free`](crate::HandleTable::free), or the participant that owned it has
    /// left or died. To make an array outlive its owner, [detach](crate::HandleTable::detach) it, or
    /// hand it over by [`push_owned`](crate::Queue::push_owned).
    #[error(
        "{handle} is stale: its array was freed, by its handle or because its owner has left \
         (detach, or a queue's push_owned, lets an array outlive its owner), or the handle is of another segment"
    )]
    Stale {
        /// The handle.
        handle: AnyHandle,
    },
    /// Somebody holds a lease that excludes this one.
    #[error(
        "{handle}{} is leased by process {pid}{}; try again when it has given its lease back",
        Called(.name),
        if *.pid == std::process::id() { " (this process)" } else { "" }
    )]
    Busy {
        /// The handle.
        handle: AnyHandle,
        /// A name that the array has.
        name: Option<String>,
        /// A process that holds it; 0 for the participants of a round whose opener is gone.
        pid: u32,
    },
    /// Whoever holds the lease is dead, and a foreign lock keeps others from taking it back.
    #[error(
        "{handle}{} is leased by process {pid}, which is dead, and is not taken back: {lock}",
        Called(.name)
    )]
    Blocked {
        /// The handle.
        handle: AnyHandle,
        /// A name that the array has.
        name: Option<String>,
        /// The process that held it.
        pid: u32,
        /// The lock that is in the way.
        lock: ForeignLock,
    },
    /// A writer died or panicked.
    #[error(
        "{handle}{} is poisoned: process {pid} died or panicked while it wrote {what} (noticed {}), the \
         contents may be half-written; look at them and call recover or clear_poison, or free the \
         array",
        Called(.name), Utc(*unix_time)
    )]
    Poisoned {
        /// The handle.
        handle: AnyHandle,
        /// A name that the array has.
        name: Option<String>,
        /// The process that was writing.
        pid: u32,
        /// When that was noticed, in seconds since 1970.
        unix_time: u64,
        /// What it was writing.
        what: HalfWritten,
    },
    /// A queue owns the array: see [`push_owned`](crate::Queue::push_owned).
    #[error(
        "{handle} belongs to a queue, to which its owner has pushed it: call pop_owned there, or free it"
    )]
    Queued {
        /// The handle.
        handle: AnyHandle,
    },
    /// The array has another element type, or another number of axes.
    #[error(transparent)]
    TypeMismatch(#[from] TypeMismatch),
    /// The handle names memory that the crate keeps for itself.
    #[error(
        "{handle} names {what}, which the crate makes and frees by itself: pass the handle of an \
         array, an object, a queue, a partition or a bundle"
    )]
    Internal {
        /// The handle.
        handle: AnyHandle,
        /// What it names.
        what: &'static str,
    },
    /// The bytes are not values of the element type.
    #[error("{handle}: {error}")]
    InvalidElement {
        /// The handle.
        handle: AnyHandle,
        /// Which byte, and what it holds.
        error: InvalidElement,
    },
    /// The array's descriptor does not describe an array in its extent.
    #[error("{handle}: the segment is damaged at byte {offset:#x}: {what}")]
    Corrupt {
        /// The handle.
        handle: AnyHandle,
        /// Where, in bytes from the start of the segment.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// An observer could not map the array or its tables.
    #[error("the array cannot be looked at: {0}")]
    Unmapped(#[source] SegmentError),
    /// This process has crossed a fork and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Why bytes of an array could not be copied by an observer.
#[cfg(not(loom))]
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum CopyError {
    /// There is no such array, or its descriptor is damaged.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// More bytes than the array has.
    #[error(
        "{handle} has {:#}: {:#} from byte {offset} on are not all in it",
        Bytes(*bytes),
        Bytes(*len)
    )]
    Range {
        /// The handle.
        handle: AnyHandle,
        /// The first byte asked for, from the start of the array.
        offset: u64,
        /// How many bytes were asked for.
        len: u64,
        /// Bytes of the array.
        bytes: u64,
    },
    /// The system could not read the segment's file.
    #[error("{handle}: the segment's file cannot be read (was it cut short?): {source}")]
    Read {
        /// The handle.
        handle: AnyHandle,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Why arrays could not be divided into tiles.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum PartitionError {
    /// A tile must have at least one index.
    #[error("a tile length of 0: a tile covers at least one index")]
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
        /// A name that it has.
        name: Option<String>,
        /// Its number of axes.
        axes: usize,
        /// The axis asked for.
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
        /// A name that it has.
        name: Option<String>,
        /// The axis.
        axis: usize,
        /// Its length.
        found: usize,
        /// The length of the arrays before it.
        expected: usize,
    },
    /// A grid that no array can be cut by.
    #[error("this grid cannot be: {problem}")]
    Grid {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The bounds of a grid are not those of the axis.
    #[error(
        "bounds from {first:?} to {last:?} along axis {axis}, which has {axis_len} indices: they \
         must begin with 0 and end with {axis_len}"
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
    /// A group has at most 8 arrays.
    #[error("a group of {arrays} arrays: at most {limit} can be divided together")]
    TooManyArrays {
        /// Arrays in the group.
        arrays: usize,
        /// The most there can be.
        limit: usize,
    },
    /// The number of weights is not the number of indices of the axis.
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
    /// More tiles than a partition can count.
    #[error(
        "{} tiles: at most {limit} are possible; use {remedy}",
        tiles.map_or_else(|| format!("more than {}", usize::MAX), |tiles| tiles.to_string())
    )]
    TooManyTiles {
        /// Tiles that the grid gives; `None` if they are more than a `usize` counts.
        tiles: Option<usize>,
        /// The most there can be.
        limit: u64,
        /// A change of the grid that makes it possible, along each axis that needs one.
        remedy: String,
    },
    /// The handle does not name a partition of this group.
    #[error("{handle} is not a partition of this group of arrays")]
    NotThisGroup {
        /// The handle.
        handle: AnyHandle,
    },
    /// An array of the group could not be looked at.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The claim words could not be allocated.
    #[error(transparent)]
    Alloc(#[from] AllocError),
}

/// Why a round could not be opened, entered or finished.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum RoundError {
    /// A round of this partition is running.
    #[error("round {round} of this partition is running, opened by process {pid}")]
    Running {
        /// The round.
        round: u64,
        /// Who opened it.
        pid: u32,
    },
    /// The partition's rounds are used up.
    #[error("all {rounds} rounds of this partition are used up; make a new partition")]
    UsedUp {
        /// Rounds that a partition has.
        rounds: u64,
    },
    /// An array could not be leased for the round.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The round was opened by the process that this one was forked from.
    #[error(
        "this round has crossed a fork: it is for the process that opened it to finish; open one \
         in this process"
    )]
    Forked,
    /// Tiles were torn: their holders died or panicked.
    #[error(
        "round {round}: {} tiles were left half-written, the first at rows {:?}; the arrays are \
         poisoned until recover or clear_poison", .rows.len(), .rows.first().cloned().unwrap_or_default()
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
        /// How long it was waited for.
        waited: Duration,
        /// Tiles that are done.
        done: usize,
        /// Tiles that somebody holds.
        held: usize,
        /// All tiles.
        tiles: usize,
    },
}

/// The name behind a handle, if there is one: ` ("weights")`.
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
