//! A participant that all threads of a process share.
//!
//! The participant is a `HandleTable` behind a lock. The lock is held for the steps on words alone:
//! everything that takes long, may wait, or is the user's runs without it.
//!
//! | outside of the lock | inside |
//! |---|---|
//! | filling, copying and zeroing arrays; functions of the caller; looking for invalid bytes | reserving a slot, publishing it |
//! | committing the pages of an array | noting the commit |
//! | giving pages back after a free or the last lease: the slot is RESERVED meanwhile | retiring the slot, deciding that its pages go back |
//! | `reap`, `trim` | removing the names that a reap leaves |
//! | `arrays`; sleeping for a lease | leases, names, owners |
//!
//! Two system calls are left inside. Both are rare: committing the words of a new span and of a
//! record of names (some pages), and the search for pages after an allocation was refused memory.
//!
//! A step outside concerns a slot that is RESERVED by the seat, and only the thread that reserved it
//! has the word. So two threads of one seat never take steps on one slot that exclude each other.

mod arrays;
mod builder;
mod guards;
mod leases;
mod names;
mod per_process;

use std::sync::{Arc, Weak};

pub use builder::SharedBuilder;
pub use guards::{
    SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard, SharedWriteGuard,
};
pub(super) use per_process::PerProcess;

use super::HandleTable;
use crate::reclaim::Reclaimer;
use crate::seat::{self, JoinError, ReapReport};
use crate::segment::Segment;
use crate::table::core::Core;
use crate::table::trim::trim;

/// A participant of a segment that all threads of a process share: `Send`, `Sync`, and cheap to
/// clone.
///
/// A [`HandleTable`] is a seat for one thread, with the lowest cost: a lease takes some
/// nanoseconds. A `SharedTable` has one seat for all threads behind a lock, and its guards borrow
/// nothing: they may be kept in a struct, sent to other threads, and dropped there. Use it
///
/// - where arrays belong to the process and not to a thread: an array that a thread of a pool has
///   made lives on after the thread;
/// - behind an interface for another language, whose objects are dropped on any thread;
/// - where there may be more threads than [seats](crate::SegmentOptions::seats).
///
/// Both may be used in one process; they exclude each other as participants do. Partitions, queues,
/// bundles and pools need a `HandleTable` of the thread that uses them.
///
/// The lock is held only for the steps on the segment's words. While it is held, no function of the
/// caller runs, no array is filled or copied, and no pages are committed or given back.
///
/// A table may cross a `fork`, at any moment, whatever other threads do with it: the child takes a
/// seat of its own at its first use, or in [`after_fork`](SharedTable::after_fork). Guards that
/// crossed belong to the parent.
///
/// Dropping the last clone (and the last guard) releases the seat and frees the arrays that it owns
/// and that are not [detached](SharedTable::detach).
///
/// ```
/// use ndshm::{Segment, SharedTable};
///
/// let table = SharedTable::of(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>((1000, 3))?;
/// std::thread::scope(|threads| {
///     threads.spawn(|| table.write(x).unwrap().fill(1.5));
/// });
/// let guard = table.read(x)?;
/// let sum = std::thread::spawn(move || guard.sum()).join().unwrap();
/// assert_eq!(sum, 4500.0);
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone)]
pub struct SharedTable {
    inner: Arc<Inner>,
}

struct Inner {
    segment: Segment,
    seat: PerProcess<HandleTable>,
}

/// A shared table, and the address of its segment's tables. No other segment has it while the
/// shared table lives.
type Known = (usize, Weak<Inner>);

/// The tables that [`SharedTable::of`] has returned.
static SHARED: PerProcess<Vec<Known>> = PerProcess::new();

impl SharedTable {
    /// Returns this process's shared table of a segment. The first call takes a seat; later calls
    /// share it, as long as a clone of it or a guard is left.
    ///
    /// # Errors
    /// As [`HandleTable::join`].
    pub fn of(segment: &Segment) -> Result<SharedTable, JoinError> {
        let address = core::ptr::from_ref(segment.memory()).addr();
        let first =
            |inherited: Option<Vec<Known>>| Ok::<_, JoinError>(inherited.unwrap_or_default());
        let inner = SHARED.with(first, |known| {
            known.retain(|(_, inner)| inner.strong_count() > 0);
            let found = known.iter().find(|(other, _)| *other == address);
            found
                .and_then(|(_, inner)| inner.upgrade())
                .unwrap_or_else(|| {
                    let inner = Arc::new(Inner {
                        segment: segment.clone(),
                        seat: PerProcess::new(),
                    });
                    known.push((address, Arc::downgrade(&inner)));
                    inner
                })
        })?;
        let table = SharedTable { inner };
        table.seat()?;
        Ok(table)
    }

    /// Makes a participant of one thread into one of all threads. [`of`](SharedTable::of) does not
    /// know it: the process may have several shared tables of a segment.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment, SharedTable};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let table = SharedTable::new(table);
    /// std::thread::spawn(move || table.write(x).unwrap().fill(1.0)).join().unwrap();
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn new(table: HandleTable) -> SharedTable {
        table.core.defer_cleaning();
        let inner = Inner {
            segment: table.segment().clone(),
            seat: PerProcess::of(table),
        };
        SharedTable {
            inner: Arc::new(inner),
        }
    }

    /// Returns the segment.
    pub fn segment(&self) -> &Segment {
        &self.inner.segment
    }

    /// Returns this process's seat number, from 0. It is unique among the living participants.
    pub fn seat(&self) -> Result<usize, JoinError> {
        self.with(Core::seat)?
    }

    /// Takes back everything that dead participants held: their arrays, leases and seats. See
    /// [`HandleTable::reap`].
    pub fn reap(&self) -> Result<ReapReport, JoinError> {
        let me = self.with(Core::enter)??;
        let report = seat::reap(self.segment(), me, &Reclaimer)?;
        self.with(|core| core.tidy_names(&report))?;
        Ok(report)
    }

    /// Gives the pages of all free extents back to the system. Returns the bytes of these extents.
    /// See [`HandleTable::trim`].
    pub fn trim(&self) -> Result<u64, JoinError> {
        let me = self.with(|core| {
            let me = core.enter()?;
            core.share_cache();
            Ok::<_, JoinError>(me)
        })??;
        Ok(trim(self.segment(), me))
    }

    /// Takes a seat for a forked child, which otherwise does so at its first use of the table.
    ///
    /// For a hook that runs after each fork, as other languages have them. A child that never uses
    /// the table keeps its parent's seat alive until it ends or executes another program: others
    /// cannot reap the parent. The hook ends that. In the parent, and at a second call in the
    /// child, it does nothing.
    ///
    /// # Errors
    /// [`JoinError`] if no seat is free.
    pub fn after_fork(&self) -> Result<(), JoinError> {
        self.with(Core::enter)??;
        Ok(())
    }

    /// Calls `steps` under the lock, then gives pages back to the system without it.
    ///
    /// `steps` takes steps on words: see the top of this file.
    fn with<R>(&self, steps: impl FnOnce(&Core) -> R) -> Result<R, JoinError> {
        self.with_table(|table| steps(&table.core))
    }

    /// Does the work of [`with`](SharedTable::with) for steps that take the table.
    pub(crate) fn with_table<R>(
        &self,
        steps: impl FnOnce(&HandleTable) -> R,
    ) -> Result<R, JoinError> {
        let first = |inherited: Option<HandleTable>| match inherited {
            Some(table) => Ok(table),
            None => {
                let table = HandleTable::join(&self.inner.segment)?;
                table.core.defer_cleaning();
                Ok::<_, JoinError>(table)
            }
        };
        let (result, deferred, me) = self.inner.seat.with(first, |table| {
            let result = steps(table);
            (result, table.core.take_deferred(), table.core.own_seat())
        })?;
        for cleaning in deferred {
            cleaning.run(self.segment(), me);
        }
        Ok(result)
    }
}

// No function of the caller runs under the lock, so an unwinding one leaves nothing half-changed.
impl core::panic::UnwindSafe for SharedTable {}
impl core::panic::RefUnwindSafe for SharedTable {}

impl core::fmt::Debug for SharedTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SharedTable")
            .field("segment", self.segment())
            .finish_non_exhaustive()
    }
}
