//! Typed `ndarray` buffers in shared memory, allocated without a lock and opened in any process by
//! an 8-byte handle.
//!
//! A [`Segment`] is one shared mapping. A [`HandleTable`] is one participant's seat in it: it
//! allocates arrays, gives out [`Handle`]s, and opens the handles of others as ndarray views, in
//! place. Nothing is pickled, copied or locked: who owns what is said by one 64-bit word an array,
//! and every change of it is one atomic step, so that a process may be killed at any instruction
//! and nobody waits for it.
//!
//! ```
//! use ndshm::{HandleTable, Segment, Pool};
//! use ndarray::Axis;
//!
//! # fn main() -> ndshm::Result<()> {
//! let table = HandleTable::join(&Segment::anonymous()?)?;
//! let x = table.zeros::<f64, _>((10_000, 3))?;         // Copy, 8 bytes, goes through any pipe
//!
//! let tiles = table.partition(x.write(), Axis(0), 512)?;
//! # // The test harness has threads, which a fork refuses.
//! # let round = tiles.begin()?;
//! if let Some(mut part) = tiles.enter()? {              // in as many processes as you like
//!     while let Some(mut tile) = part.claim()? {
//!         tile.views().fill(1.0);                       // nobody else has these rows
//!     }
//! }
//! # round.finish(std::time::Duration::from_secs(1))?;
//! assert_eq!(table.read(x)?.sum(), 30_000.0);           // the lease is an ndarray
//! # Ok(())
//! # }
//! ```
//!
//! # Words
//! - **handle**: slot index and generation, 64 bits. It goes stale when its array is freed, for
//!   good: [`LeaseError::Stale`].
//! - **lease**: the recorded right to read or write a whole array, [`HandleTable::read`] and
//!   [`HandleTable::write`]. Asking never waits: [`LeaseError::Busy`] names the holder.
//! - **partition, tile, round**: arrays divided into tiles that many participants write at once,
//!   each tile by one of them in each round: [`Partition`], and [`Pool`] to run it on workers.
//! - **queue**: small jobs from any participants to any others, each once and in order: [`Queue`]. A
//!   queue of [`OwnedArray`] owns the arrays in it, and hands them from owner to owner.
//! - **name**: a text by which any process finds an array: [`HandleTable::publish`] and
//!   [`HandleTable::find`]. It goes with the array.
//! - **bundle**: arrays by names of their own, under one handle: [`Bundle`].
//! - **seat**: one participant. What it holds is taken back when it leaves or dies.
//! - **owner**: the seat an array goes with, unless it is [detached](HandleTable::detach). Who
//!   [adopts](HandleTable::adopt) it takes it over.
//!
//! # Invariants
//! 1. One word is the truth about an array; a transition is one compare-and-swap that carries the
//!    actor's seat.
//! 2. All else is a hint: recomputed, and never believed for correctness.
//! 3. Zeroed memory is an empty table: there is no state in which someone could die while
//!    initialising.
//! 4. A stale handle is never accepted.
//! 5. Two live leases never overlap unless both are reads.
//! 6. All accesses under a lease happen before all accesses under the next lease of the same bytes.
//! 7. Nobody waits for another process without a deadline.
//! 8. Any bytes in the segment decode to a value or an error.
//! 9. Memory that cannot be had is an error at allocation, not a SIGBUS later.
//! 10. After the last process nothing is left behind, unless a name was asked to persist.
//!
//! The protocol, and why it keeps these, is in `src/table/README.md`; `cargo loom` checks it. How to
//! check a program of your own: [`guide::model_check`].
//!
//! # Fork
//! A table notices that it has crossed a fork: the child takes a seat of its own at its first use.
//! Guards, rounds and tiles that crossed are the parent's: dropping them in the child does nothing.
//! To *use* one there is to use the parent's lease without its knowledge; whoever calls `fork`
//! directly must not. [`Pool::fork`] makes sure of it: it refuses while the table holds leases.
//!
//! # Signals
//! Workers leave SIGINT and the other signals that end a program to their parent: one with a handler
//! finishes its step, without one Ctrl-C ends all processes at once. A named segment then keeps its
//! name until the next [`Segment::open_or_create`], which takes back what the dead held, or until
//! `ndshm gc --yes`: [`guide::faults`].
//!
//! # Trust
//! Processes that map the same segment trust each other not to write outside their leases: memory
//! has no other protection. What bytes a participant finds never makes it panic or leave the
//! segment, but a process with write access can falsify the contents of any array: [`guide::trust`].
//! What becomes of deaths, of full memory, and of damage: [`guide::faults`].

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(loom, allow(dead_code, reason = "a model has no header and no kernel"))]

#[cfg(all(not(loom), not(target_os = "linux")))]
compile_error!("ndshm needs Linux: memfd, open-file-description locks and MADV_WIPEONFORK");
#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("ndshm needs a 64-bit little-endian target: the segment's layout is fixed");

mod array;
#[cfg(all(feature = "arrow", not(loom)))]
mod arrow;
mod bundle;
mod descriptor;
mod element;
mod error;
pub mod guide;
mod handle;
mod layout;
#[cfg(loom)]
pub mod model;
mod names;
#[cfg(all(feature = "npy", not(loom)))]
mod npy;
#[cfg(all(feature = "serde", not(loom)))]
mod object;
#[cfg(not(loom))]
mod observer;
#[cfg(not(loom))]
mod parallel;
mod partition;
mod pool;
#[cfg(not(loom))]
mod primitives;
mod queue;
mod seat;
mod segment;
mod span;
mod sync;
mod table;
mod word;

pub use array::{Attached, ReadGuard, WriteGuard};
#[cfg(all(feature = "arrow", not(loom)))]
pub use arrow::{ArrowElement, ArrowError};
pub use bundle::{Bundle, BundleHandle};
pub use bytemuck;
pub use descriptor::{HalfWritten, Order, TypeMismatch};
pub use element::{
    Complex, DType, Element, Field, FieldType, InvalidElement, Kind, LayoutError, Record,
    RecordField, RecordLayout, ScalarType, Schema, SchemaError,
};
#[cfg(not(loom))]
pub use error::CopyError;
#[cfg(all(feature = "serde", not(loom)))]
pub use error::ObjectError;
pub use error::{
    AllocError, BarrierError, BundleError, Error, ForeignLock, FreeError, JoinError, LeaseError,
    NameError, NoMemory, PartitionError, PoolError, PrimitiveError, PushError, QueueError, Result,
    RoundError, SegmentError,
};
pub use handle::{AnyHandle, Handle, ParseHandleError};
pub use layout::{LAYOUT_VERSION, SEGMENT_MAGIC};
pub use names::NameInfo;
#[cfg(all(feature = "npy", not(loom)))]
pub use npy::{NpyError, NpzArray, NpzMember, PartialNpz, npz_members};
#[cfg(all(feature = "serde", not(loom)))]
pub use object::{ObjectGuard, ObjectHandle, Tensor};
#[cfg(not(loom))]
pub use observer::{Observer, SeatInfo};
pub use partition::{
    Grid, Group, Mode, Participant, Partition, PartitionHandle, Read, Round, RoundProgress, Side,
    Tile, Whole, Write,
};
#[cfg(feature = "rand")]
pub use pool::TileRng;
#[cfg(not(loom))]
pub use pool::become_worker;
pub use pool::{OnDeath, Pool, Ready, Running, TileContext, WorkerContext, WorkerStats};
#[cfg(not(loom))]
pub use primitives::{ArrayIndex, Number, Real};
pub use queue::{Job, OwnedArray, Queue, QueueHandle};
#[cfg(feature = "rand")]
pub use rand_core;
pub use seat::{ReapReport, TornTile};
#[cfg(not(loom))]
pub use segment::{HugePageReport, HugePages, Removal};
pub use segment::{Segment, SegmentOptions};
pub use table::{ArrayInfo, Damage, HandleTable, Owned, Verification};
#[cfg(not(loom))]
pub use table::{Census, ClassInfo};
#[cfg(not(loom))]
pub use table::{UntypedReadGuard, UntypedWriteGuard};
