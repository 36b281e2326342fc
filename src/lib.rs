//! Typed `ndarray` buffers in shared memory, allocated without a lock and opened in any process by
//! an 8-byte handle.
//!
//! A [`Segment`] is one shared mapping. A [`HandleTable`] is one participant's seat in it: it
//! allocates arrays, hands out [`Handle`]s, and opens handles of other participants as ndarray
//! views in place. Nothing is pickled, copied or locked. One 64-bit word per array records the
//! owner and the writer, and every change of it is one atomic step. A process may be killed at any
//! instruction, and no other process waits for it.
//!
//! ```
//! use ndshm::{HandleTable, Pool, Segment};
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
//! # Terms
//! - **handle**: slot index and generation, 64 bits. After its array is freed it is stale for ever:
//!   [`LeaseError::Stale`](error::LeaseError::Stale).
//! - **lease**: the recorded right to read or write a whole array: [`HandleTable::read`] and
//!   [`HandleTable::write`]. These calls never wait: [`LeaseError::Busy`](error::LeaseError::Busy)
//!   names the holder. [`HandleTable::read_timeout`] and [`HandleTable::write_timeout`] wait.
//! - **partition, tile, round**: arrays divided into tiles that many participants write at once. In
//!   each round, each tile is written by one participant: [`Partition`], and [`Pool`] to run it on
//!   workers.
//! - **block, halo**: the ranges of a tile in the whole array, and the elements around it:
//!   [`TileContext::block`] and [`TileContext::around`].
//! - **queue**: small jobs from any participants to any others, each delivered once and in order, or
//!   at least once if consumers acknowledge them: [`Queue`]. A queue of
//!   [`OwnedArray`](queue::OwnedArray) owns the arrays in it, and hands them from owner to owner.
//! - **name**: a text by which any process finds an array: [`HandleTable::publish`] and
//!   [`HandleTable::find`]. It is removed when the array is freed.
//! - **bundle**: arrays with names of their own, under one handle: [`Bundle`].
//! - **seat**: the entry of one participant. When the participant leaves or dies, everything that
//!   it held is reclaimed.
//! - **owner**: the seat that an array is freed with, unless it is [detached](HandleTable::detach).
//!   Another participant can [adopt](HandleTable::adopt) the array.
//!
#![doc = include_str!("guide/picture.md")]
//!
//! # Where to begin
//! [`guide::getting_started`] takes ten minutes. Then there are chapters on [pools and
//! kernels](guide::pools), [environments](guide::environments), [names and
//! objects](guide::names_and_objects), [queues and data loaders](guide::queues_and_loaders), [moving a
//! program](guide::migrating) from multiprocessing, Ray, rayon or MPI, [ending
//! cleanly](guide::ending), and [measuring](guide::measuring).
//!
//! # Modules
//! The root has what most programs need. The rest lies in modules:
//!
//! | module | content |
//! |---|---|
//! | [`error`] | one error type for each operation; [`Error`] holds any of them |
//! | [`element`] | element types, records and their layouts at run time |
//! | [`partition`], [`pool`], [`queue`], [`segment`] | the types that methods of the root types take and return |
//! | [`primitives`] | sums, gather, prefix sums and resampling, as methods of [`Pool`] |
//! | [`shared`] | the guards of a [`SharedTable`], which all threads of a process use |
//! | [`untyped`] | arrays with an element type that is known only at run time |
//! | [`inspect`] | looks at a whole segment: arrays, participants, memory, damage |
//! | `object`, `npy`, `arrow` | serde values, numpy's files, Arrow arrays: by feature |
//! | [`guide`] | chapters on subjects that span several items |
//!
//! A struct that keeps a table together with partitions or a pool: [`guide::structs`](guide).
//!
//! # Invariants
//! 1. One word decides the state of an array. A transition is one compare-and-swap that carries the
//!    actor's seat.
//! 2. Everything else is a hint: it can be recomputed, and correctness never depends on it.
//! 3. Zeroed memory is an empty table. There is no initialising state in which a process could die.
//! 4. A stale handle is never accepted.
//! 5. Two live leases never overlap unless both are reads.
//! 6. All accesses under a lease happen before all accesses under the next lease of the same bytes.
//! 7. No call waits for another process without a deadline.
//! 8. Any bytes in the segment decode to a value or an error.
//! 9. Missing memory is an error at allocation, not a SIGBUS later.
//! 10. After the last process nothing is left behind, unless a name was asked to persist.
//!
//! The protocol, with the reasons why it keeps these invariants, is in `src/table/README.md`;
//! `cargo loom` checks it. To check a program of your own, see [`guide::model_check`].
//!
//! # Fork
//! A table detects that it has crossed a fork: at its first use the child takes a seat of its own.
//! Guards, rounds and tiles that crossed belong to the parent: dropping them in the child does
//! nothing. *Using* one in the child would use the parent's lease without its knowledge. A program
//! that calls `fork` directly must not do that. [`Pool::fork`] prevents it: it refuses to fork
//! while the table holds leases.
//!
//! # Signals
//! Workers leave SIGINT and the other signals that end a program to their parent. A parent with a
//! handler finishes its step; without a handler, Ctrl-C ends all processes at once. A named segment
//! then keeps its name until the next [`Segment::open_or_create`], which reclaims everything that
//! the dead held, or until `ndshm gc --yes`: [`guide::faults`].
//!
//! # Trust
//! Processes that map the same segment trust each other not to write outside their leases: memory
//! has no other protection. No bytes in the segment make a participant panic or access memory
//! outside it, but a process with write access can falsify the contents of any array:
//! [`guide::trust`]. For the consequences of deaths, of full memory and of damage, see
//! [`guide::faults`].

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(loom, allow(dead_code, reason = "a model has no header and no kernel"))]

#[cfg(all(not(loom), not(target_os = "linux")))]
compile_error!("ndshm needs Linux: memfd, open-file-description locks and MADV_WIPEONFORK");
#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("ndshm needs a 64-bit little-endian target: the segment's layout is fixed");

#[cfg(feature = "arrow")]
pub mod arrow;
mod bundle;
mod descriptor;
pub mod element;
pub mod error;
#[cfg(not(loom))]
pub mod guide;
mod handle;
mod handle_table;
pub mod inspect;
mod layout;
mod memory;
mod message;
#[cfg(loom)]
pub mod model;
mod names;
#[cfg(feature = "npy")]
pub mod npy;
#[cfg(feature = "serde")]
#[cfg_attr(loom, path = "object/model.rs")]
pub mod object;
mod parallel;
pub mod partition;

/// Pinned arrays, the results of [`HandleTable::pin`] and [`HandleTable::pin_raw`].
pub mod pin {
    pub use crate::table::pin::{Pinned, RawPin};
}

pub mod pool;
pub mod primitives;
pub mod queue;
mod reclaim;
mod seat;
pub mod segment;
mod span;
mod sync;
mod table;
mod word;

/// Arrays with an element type that is known only at run time: the builders of
/// [`HandleTable::builder`], and the leases of [`HandleTable::read_untyped`],
/// [`HandleTable::write_untyped`] and [`HandleTable::lock`].
pub mod untyped {
    pub use crate::table::builder::{ArrayBuilder, SuspendedBuilder};
    pub use crate::table::locked::{Locked, Mode};
    pub use crate::table::untyped::{UntypedReadGuard, UntypedWriteGuard};
}

/// The values of a [`SharedTable`]: guards and builders that share the table instead of borrowing
/// it.
pub mod shared {
    pub use crate::handle_table::shared::{
        SharedBuilder, SharedPin, SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard,
        SharedWriteGuard,
    };
}

pub use bundle::{Bundle, BundleHandle};
pub use bytemuck;
#[doc(inline)]
pub use element::{Complex, Element};
#[doc(inline)]
pub use error::{Error, Result};
pub use handle::{AnyHandle, Handle};
pub use handle_table::HandleTable;
pub use handle_table::access::TableAccess;
pub use handle_table::shared::SharedTable;
pub use handle_table::watch::{Gone, Watch};
#[cfg(not(loom))]
#[doc(inline)]
pub use inspect::Observer;
#[doc(inline)]
pub use partition::{
    Grid, Partition, PartitionHandle, Read, Round, RoundMember, Tile, WholeArray, Write,
};
#[doc(inline)]
pub use pool::{
    OnFailure, Pool, PoolBuilder, Steps, TileContext, UnitContext, WorkerContext, WorkerSteps,
    become_worker,
};
#[doc(inline)]
pub use queue::{Queue, QueueHandle};
#[cfg(feature = "rand")]
pub use rand_core;
pub use seat::Peer;
#[doc(inline)]
pub use segment::{Segment, SegmentOptions};
pub use table::create::Owned;
pub use table::guard::{Attached, ReadGuard, WriteGuard};
