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
//! | `reap`, `trim`, `peers`, `is_alive`, the sleep of a `watch` | removing the names that a reap leaves |
//! | `arrays`; sleeping for a lease, for a round and for its end | leases, pins, names, owners |
//! | the changes of words in the drop of a participant, a round or a partition | claims of tiles, entering and ending rounds |
//!
//! Rare system calls are left inside: committing the words of a new span and of a record of names
//! (some pages); the search for pages after an allocation was refused memory; the reap before an
//! allocation reports that the segment is full; taking a seat; a look at the holder's seat for a
//! `Busy` error; waking those that sleep for a lease. The foreign pool allocates and copies its long messages there, too, and a partition
//! allocates its claim words. `verify` is inside because it takes brief leases without a count: outside
//! it could release the lease that another thread of the seat has just counted.
//!
//! A step outside concerns a slot that is RESERVED by the seat, and only the thread that reserved
//! it has the word. So two threads of one seat never take steps on one slot that exclude each
//! other.
//!
//! Two threads of one seat may take part in a round. Each member has private notes of the tiles that
//! it holds, and a claim word passes a tile to one of them. Their leases on the arrays are counted
//! behind the lock, as other leases of a seat are: the seat's bit stays set until the last member has
//! left. A member that is dropped tears its tile without the lock. That changes claim words that this
//! member alone holds, and poisons arrays. Its leases are released under the lock, at the next call
//! (`table/inbox.rs`).

mod arrays;
mod builder;
mod guards;
mod leases;
mod leave;
mod names;
mod partitions;
mod peers;
mod per_process;
mod pins;
mod waiting;

use std::sync::{Arc, Weak};

pub use builder::SharedBuilder;
pub use guards::{
    SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard, SharedWriteGuard,
};
pub(super) use per_process::PerProcess;
pub use pins::SharedPin;

use super::HandleTable;
use crate::handle::AnyHandle;
use crate::reclaim::Reclaimer;
use crate::seat::{self, JoinError, ReapReport};
use crate::segment::Segment;
use crate::segment::fork::process_token;
use crate::table::alloc::Cleaning;
use crate::table::core::Core;
use crate::table::trim::trim;
use crate::word::SeatId;
use pins::{Entries, Entry};

/// A participant of a segment that all threads of a process share: `Send`, `Sync`, and cheap to
/// clone.
///
/// A [`HandleTable`] is a seat for one thread, with the lowest cost: a lease takes some
/// nanoseconds. A `SharedTable` has one seat for all threads behind a lock, and its guards borrow
/// nothing: they may be kept in a struct, sent to other threads, and dropped there. Use it
///
/// - where arrays belong to the process and not to a thread: an array that a thread of a pool has
///   made lives on after the thread;
/// - behind an interface for another language, which drops its objects on any thread;
/// - where there may be more threads than [seats](crate::SegmentOptions::seats).
///
/// Both may be used in one process; they exclude each other as participants do.
///
/// Partitions are values that any thread uses and drops:
/// [`partition_untyped`](SharedTable::partition_untyped). Several threads may claim tiles of a round
/// at once, and a thread that waits for a round leaves the table to the others. A
/// [`ForeignPool`](crate::pool::foreign::ForeignPool) takes a shared table, too. Typed partitions,
/// queues, bundles and other pools need a `HandleTable` of the thread that uses them.
///
/// The lock is held only for the steps on the segment's words. While it is held, no function of the
/// caller runs, no array is filled or copied, and no pages of an array are committed or given back.
/// Two calls take longer with the number of tiles: creating a partition (8 bytes for each claim word
/// are committed), and asking for the progress of a round. [`verify`](SharedTable::verify) takes
/// longer with the number of arrays.
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
    seat: PerProcess<Seat>,
    pins: Entries,
}

/// What the lock protects.
struct Seat {
    table: HandleTable,
    /// The process that has the seat; 0 before the first call.
    token: u64,
    /// Entries of pins that are free.
    free: Vec<Arc<Entry>>,
    /// Arrays that were pinned at the fork, and that this process could not pin.
    lost: Vec<AnyHandle>,
}

impl Seat {
    fn of(table: HandleTable) -> Seat {
        table.core.defer_cleaning();
        Seat {
            table,
            token: 0,
            free: Vec::new(),
            lost: Vec::new(),
        }
    }
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
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = SharedTable::of(&segment)?;
    /// let same = std::thread::scope(|it| it.spawn(|| SharedTable::of(&segment)).join().unwrap())?;
    /// assert_eq!(same.seat()?, table.seat()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::join`]. [`JoinError::SeatsFull`] also while another thread drops the last
    /// clone and no other seat is free.
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
                        pins: Entries::new(),
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
        let inner = Inner {
            segment: table.segment().clone(),
            seat: PerProcess::of(Seat::of(table)),
            pins: Entries::new(),
        };
        SharedTable {
            inner: Arc::new(inner),
        }
    }

    /// Returns the segment.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// assert!(table.segment().name().is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn segment(&self) -> &Segment {
        &self.inner.segment
    }

    /// Returns this process's seat number, from 0. It is unique among the living participants.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let seats = std::thread::scope(|it| [it.spawn(|| table.seat()).join().unwrap(), table.seat()]);
    /// let [theirs, ours] = seats;
    /// assert_eq!(theirs?, ours?);                          // one for all threads
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seat(&self) -> Result<usize, JoinError> {
        self.with(Core::seat)?
    }

    /// Takes back everything that dead participants held: their arrays, leases and seats. See
    /// [`HandleTable::reap`].
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let report = table.reap()?;
    /// println!("{} dead, {} arrays freed", report.seats, report.arrays_freed);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn reap(&self) -> Result<ReapReport, JoinError> {
        let me = self.with(Core::enter)??;
        self.with(Core::empty_inbox)?;
        let report = seat::reap(self.segment(), me, &Reclaimer)?;
        self.with(|core| core.tidy_names(&report))?;
        Ok(report)
    }

    /// Gives the pages of all free extents back to the system. Returns the bytes of these extents.
    /// See [`HandleTable::trim`].
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(1 << 20)?;
    /// table.free(x)?;
    /// println!("{} bytes given back", table.trim()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn trim(&self) -> Result<u64, JoinError> {
        let me = self.with(|core| {
            let me = core.enter()?;
            core.share_cache();
            Ok::<_, JoinError>(me)
        })??;
        let bytes = trim(self.segment(), me);
        self.with(Core::forget_shared)?;
        Ok(bytes)
    }

    /// Takes a seat for a forked child, which otherwise does so at its first use of the table. Pins
    /// the arrays that the process had [pinned](SharedTable::pin) at the fork, and returns the arrays for
    /// which that is not possible, because they were freed: before, or since. What [`SharedPin`]s
    /// show of these may be another array's.
    ///
    /// For a hook that runs after each fork, as other languages have them. A child that never uses
    /// the table keeps its parent's seat alive until it ends or executes another program: others
    /// cannot reap the parent. The hook ends that. In the parent it does nothing.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// // In the child of a fork:
    /// for lost in table.after_fork()? {
    ///     eprintln!("the views of {lost} are not valid in this process");
    /// }
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError`] if no seat is free.
    pub fn after_fork(&self) -> Result<Vec<AnyHandle>, JoinError> {
        self.with_seat(|seat| core::mem::take(&mut seat.lost))
    }

    /// Calls `steps` under the lock; see [`with_seat`](SharedTable::with_seat).
    fn with<R>(&self, steps: impl FnOnce(&Core) -> R) -> Result<R, JoinError> {
        self.with_seat(|seat| steps(&seat.table.core))
    }

    /// Does the work of [`with`](SharedTable::with) for steps that take the table.
    pub(crate) fn with_table<R>(
        &self,
        steps: impl FnOnce(&HandleTable) -> R,
    ) -> Result<R, JoinError> {
        self.with_seat(|seat| steps(&seat.table))
    }

    /// Calls `steps` under the lock, then gives pages back to the system without it. In a child it
    /// first takes a seat.
    ///
    /// `steps` takes steps on words: see the top of this file.
    fn with_seat<R>(&self, steps: impl FnOnce(&mut Seat) -> R) -> Result<R, JoinError> {
        let first = |inherited: Option<Seat>| match inherited {
            Some(seat) => Ok(seat),
            None => HandleTable::join(&self.inner.segment).map(Seat::of),
        };
        let (result, after) = self.inner.seat.with(first, |seat| {
            if seat.token != process_token() {
                seat.cross(&self.inner.pins)?;
            }
            let result = steps(seat);
            Ok::<_, JoinError>((result, After::of(seat)))
        })??;
        after.run(self.segment());
        Ok(result)
    }

    /// Calls `steps` under the lock as [`with_seat`](SharedTable::with_seat) does, but takes no
    /// seat: passes `None` in a child that has none.
    fn visit(&self, steps: impl FnOnce(Option<&mut Seat>)) {
        let after = self.inner.seat.visit(|seat| match seat {
            Some(seat) => {
                steps(Some(&mut *seat));
                Some(After::of(seat))
            }
            None => {
                steps(None);
                None
            }
        });
        if let Some(after) = after {
            after.run(self.segment());
        }
    }
}

/// What is left to do after the lock is released.
struct After {
    deferred: Vec<Cleaning>,
    me: SeatId,
}

impl After {
    fn of(seat: &Seat) -> After {
        After {
            deferred: seat.table.core.take_deferred(),
            me: seat.table.core.own_seat(),
        }
    }

    fn run(self, segment: &Segment) {
        for cleaning in self.deferred {
            cleaning.run(segment, self.me);
        }
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
