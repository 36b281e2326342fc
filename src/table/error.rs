//! Errors of allocating, leasing and freeing.

use core::ops::Range;
use core::time::Duration;

use thiserror::Error as ThisError;

use crate::descriptor::{HalfWritten, WrongKind};
use crate::element::{InvalidElement, LayoutError};
use crate::handle::AnyHandle;
use crate::memory::Corrupt;
use crate::message::{Bytes, Called, Rows, Utc};
use crate::seat::JoinError;
use crate::segment::{ForeignLock, NoMemory, SegmentError};

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
    /// The bytes are not as many as the shape needs.
    #[error(
        "shape {shape:?} of {element} ({size} bytes each) takes {expected} bytes, not {found}: pass \
         the bytes of all elements, or another shape"
    )]
    WrongLength {
        /// The shape asked for.
        shape: Vec<usize>,
        /// The element type.
        element: String,
        /// Bytes of an element.
        size: usize,
        /// Bytes that the shape needs.
        expected: u64,
        /// Bytes that were passed.
        found: u64,
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
    Layout(#[from] LayoutError),
    /// This process was forked while its parent created the array. The array belongs to the parent,
    /// which continues with it.
    #[error("this process was forked while its parent created the array: it is the parent's")]
    Forked,
    /// A [`SuspendedBuilder`](crate::untyped::SuspendedBuilder) was resumed with another table.
    #[error(
        "another table reserved the array, or this one has left the segment since: resume it with \
         the HandleTable whose builder() was called"
    )]
    OtherTable,
    /// The table of spans holds bytes that no participant writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Error of attaching, leasing or freeing an array.
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
        "{handle}{} is leased by {}",
        Called(.name),
        match *.pid {
            0 => "members of a round that has lost its opener; try again when they have left it"
                .to_owned(),
            pid if pid == std::process::id() => format!(
                "process {pid}, which is this process: drop the guard or unlock the lease first, \
                 or try again when the thread that has it has done so"
            ),
            pid => format!("process {pid}; try again when that lease is released"),
        }
    )]
    Busy {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// A process that holds it; 0 for members of a round without its opener.
        pid: u32,
    },
    /// The lease was not to be had within the time that the caller waits.
    #[error(
        "{handle}{} could not be leased within {waited:?}: it is leased by {}",
        Called(.name),
        match *.pid {
            0 => "members of a round that has lost its opener; wait until they have left it"
                .to_owned(),
            pid if pid == std::process::id() => format!(
                "process {pid}, which is this process: drop the guard or unlock the lease in the \
                 thread that has it, or pass a longer timeout"
            ),
            pid => format!("process {pid}; let it end its lease, or pass a longer timeout"),
        }
    )]
    TimedOut {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// A process that holds it, or waits to write it; 0 for members of a round without its
        /// opener.
        pid: u32,
        /// The time that the caller waited.
        waited: Duration,
    },
    /// The participant that waits for the lease holds the array itself.
    #[error(
        "{handle}{} is leased by this participant itself, so the call would wait for ever: drop the \
         guard, unlock the lease or end the round first",
        Called(.name)
    )]
    Deadlock {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
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
         {}), and {}", Called(.name), Utc(*unix_time),
        match .rows.is_empty() {
            true => "the contents may be half-written; inspect them and call recover or \
                     clear_poison, or free the array".to_owned(),
            false => format!(
                "{} may be half-written; call recover, clear_poison or read_rest of its partition, \
                 or recover or clear_poison of the table for all of the array, or free it",
                Rows(.rows)
            ),
        }
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
        /// The indices of each torn tile along the axis that its partition cuts first: nothing else
        /// is half-written. Empty if the poison is not that of torn tiles alone, or if the
        /// partition was freed.
        rows: Vec<Range<usize>>,
    },
    /// The lease or pin cannot be given back here: see [`unlock`](crate::HandleTable::unlock) and
    /// [`unpin`](crate::HandleTable::unpin).
    #[error("{handle} cannot be given back here: {why}")]
    NotHeld {
        /// The handle.
        handle: AnyHandle,
        /// The reason, with the remedy.
        why: &'static str,
    },
    /// A participant owns the array: it has not detached it, and it lives.
    ///
    /// Also returned to a participant that adopts its own array: of all calls that adopt an array,
    /// one succeeds.
    #[error(
        "{handle}{} is owned by {}",
        Called(.name),
        match is_own {
            true => "this participant: free or detach it without adopting it again".to_owned(),
            false => format!(
                "a participant of process {pid}, which lives or is being reaped: let it call \
                 detach, then call adopt, which gives the array to one participant"
            ),
        }
    )]
    Owned {
        /// The handle.
        handle: AnyHandle,
        /// A name of the array, if it has one.
        name: Option<String>,
        /// The owner's process.
        pid: u32,
        /// The participant that made the call is the owner.
        is_own: bool,
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
    WrongKind(#[from] WrongKind),
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
    #[error("{handle}: {error}")]
    Corrupt {
        /// The handle.
        handle: AnyHandle,
        /// The place and the check that failed.
        error: Corrupt,
    },
    /// The bytes that an observer was asked for extend beyond the array.
    #[error(
        "{handle} has {:#}: {:#} from byte {offset} on are out of range",
        Bytes(*bytes),
        Bytes(*len)
    )]
    OutOfRange {
        /// The handle.
        handle: AnyHandle,
        /// The first requested byte, from the start of the array.
        offset: u64,
        /// Number of requested bytes.
        len: u64,
        /// Bytes of the array.
        bytes: u64,
    },
    /// An observer could not read the segment's file.
    #[error("{handle}: the segment's file cannot be read (was it truncated?): {source}")]
    Unreadable {
        /// The handle.
        handle: AnyHandle,
        /// The system's error.
        source: std::io::Error,
    },
    /// An observer could not map the array or its tables.
    #[error("the array cannot be mapped for reading: {0}")]
    Unmapped(#[source] SegmentError),
    /// This process was forked and could not take a seat of its own.
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// A [`LeaseError`] inside the crate, as long as the call that fails is inlined into a hot path.
///
/// If an error is dropped, or written by a call that is not inlined, it has an address. A `Result`
/// that holds the error itself then lies in memory on every path, and so does its `Ok`. A `Result`
/// with this pointer stays in registers.
pub(crate) struct BoxedLeaseError(Box<LeaseError>);

impl From<LeaseError> for BoxedLeaseError {
    #[cold]
    fn from(error: LeaseError) -> Self {
        BoxedLeaseError(Box::new(error))
    }
}

impl From<JoinError> for BoxedLeaseError {
    #[cold]
    fn from(error: JoinError) -> Self {
        BoxedLeaseError(Box::new(error.into()))
    }
}

impl From<BoxedLeaseError> for LeaseError {
    #[cold]
    fn from(error: BoxedLeaseError) -> Self {
        *error.0
    }
}

crate::message::debug_is_display!(AllocError, LeaseError);
