//! The handle table as users have it. Its methods call the core in `table/` and what is built on
//! it.

pub(crate) mod access;
mod arrays;
mod by_name;
mod leases;
mod names;
mod owned;
mod peers;
pub(crate) mod shared;
mod structures;
#[cfg(not(loom))]
mod system;
pub(crate) mod watch;

use crate::reclaim::Reclaimer;
use crate::seat::JoinError;
use crate::seat::ReapReport;
use crate::segment::ForeignLock;
use crate::segment::Segment;
use crate::table::core::Core;

/// A participant of a segment: allocates, leases and frees its arrays.
///
/// All participants of a segment see the same table; a table value is one *seat* in it. A seat
/// belongs to one thread: the value may be sent to another thread, but not shared. Another thread
/// joins for a seat of its own, which takes microseconds. A [`SharedTable`](crate::SharedTable) has
/// one seat for all threads of a process: for arrays that outlive the thread that made them, and
/// for guards that move between threads.
///
/// A table may cross a `fork`: the child's copy takes a seat of its own at its first use, and
/// dropping the guards that crossed with it does nothing.
///
/// | to | call |
/// |---|---|
/// | begin | [`global`](HandleTable::global), [`open_or_create`](HandleTable::open_or_create), [`open`](HandleTable::open), [`join`](HandleTable::join) |
/// | create an array | [`zeros`](HandleTable::zeros), [`from_elem`](HandleTable::from_elem), [`from_shape_fn`](HandleTable::from_shape_fn), [`from_array`](HandleTable::from_array), [`uninit`](HandleTable::uninit) |
/// | use it | [`read`](HandleTable::read), [`write`](HandleTable::write) |
/// | share it among workers | [`partition`](HandleTable::partition), [`partition_by`](HandleTable::partition_by), then a [`Pool`](crate::Pool) |
/// | let other programs find it | [`publish`](HandleTable::publish), [`find`](HandleTable::find), [`find_wait`](HandleTable::find_wait), [`get_or_create`](HandleTable::get_or_create), [`replace`](HandleTable::replace), [`names`](HandleTable::names) |
/// | end its life, or prolong it | [`free`](HandleTable::free), [`owned`](HandleTable::owned), [`detach`](HandleTable::detach), [`adopt`](HandleTable::adopt) |
/// | pass jobs on | [`queue`](HandleTable::queue), [`open_queue`](HandleTable::open_queue), [`find_queue`](HandleTable::find_queue) |
/// | keep arrays together | [`bundle`](HandleTable::bundle), [`open_bundle`](HandleTable::open_bundle), [`find_bundle`](HandleTable::find_bundle) |
/// | know the others | [`owner`](HandleTable::owner), [`is_alive`](HandleTable::is_alive), [`peers`](HandleTable::peers), [`watch`](HandleTable::watch) |
/// | repair the damage of a death | [`recover`](HandleTable::recover), [`clear_poison`](HandleTable::clear_poison), [`reap`](HandleTable::reap) |
/// | look around | [`info`](HandleTable::info), [`arrays`](HandleTable::arrays), [`verify`](HandleTable::verify) |
/// | manage memory | [`trim`](HandleTable::trim), [`prefault`](HandleTable::prefault) |
/// | handle types at run time | [`read_untyped`](HandleTable::read_untyped), [`write_untyped`](HandleTable::write_untyped), [`builder`](HandleTable::builder), [`zeros_untyped`](HandleTable::zeros_untyped) |
/// | serve other languages and devices | [`lock`](HandleTable::lock), [`pin`](HandleTable::pin), [`attach`](HandleTable::attach) |
///
/// Features add objects (`put_object`), numpy's files (`load_npy`) and Arrow (`lend_arrow`).
///
/// Partitions, pools, queues and guards borrow the table: [`guide::structs`](crate::guide) shows
/// how a struct keeps it together with them.
///
/// Dropping the table releases its seat and frees the arrays that it owns and has not
/// [detached](HandleTable::detach).
///
/// ```
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let x = table.zeros::<f64, _>((1000, 3))?;
/// table.write(x)?.fill(1.5);
/// assert_eq!(table.read(x)?.sum(), 4500.0);
/// table.free(x)?;
/// assert!(table.read(x).is_err());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[doc(alias(
    "SharedArray",
    "SharedMemory",
    "SharedMemoryManager",
    "multiprocessing",
    "Manager",
    "plasma",
    "allocator",
))]
pub struct HandleTable {
    pub(crate) core: Core,
}

impl HandleTable {
    /// Takes a seat in `segment`. Reaps the seats of participants that died.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::options().capacity(1 << 30).anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let other = HandleTable::join(&segment)?;            // another participant, for another thread
    /// assert_ne!(table.seat()?, other.seat()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`JoinError::SeatLocked`] if a process outside the crate locks seats.
    /// [`JoinError::SeatsFull`] if every seat belongs to a living participant, or is being reaped
    /// by another process.
    #[doc(alias("attach", "connect", "MPI_Comm_split_type"))]
    pub fn join(segment: &Segment) -> Result<HandleTable, JoinError> {
        let core = Core::join(segment, &Reclaimer)?;
        let table = HandleTable { core };
        table.reap()?;
        Ok(table)
    }

    /// Returns the segment.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert!(table.segment().name().is_none());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[inline]
    pub fn segment(&self) -> &Segment {
        self.core.segment()
    }

    /// Returns this participant's seat number, from 0. It is unique among the living participants.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let other = HandleTable::join(table.segment())?;
    /// assert_eq!((table.seat()?, other.seat()?), (0, 1));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seat(&self) -> Result<usize, JoinError> {
        self.core.seat()
    }

    /// Takes back everything that dead participants held: their arrays, leases and seats.
    ///
    /// Waits for nobody. Joining also reaps, and so does an allocation before it reports that the
    /// segment is full.
    ///
    /// A process that may read the segment's file can lock a seat, which then cannot be reaped.
    /// [`ReapReport::locked`] counts such seats, and [`foreign_locks`](HandleTable::foreign_locks)
    /// names the processes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let report = table.reap()?;
    /// println!("{} dead, {} arrays freed", report.seats, report.arrays_freed);
    /// assert!(report.poisoned.is_empty());                 // nobody died while writing
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("gc", "collect_garbage", "cleanup"))]
    pub fn reap(&self) -> Result<ReapReport, JoinError> {
        self.core.reap()
    }

    /// Returns the locks on seats that processes outside the crate hold; see [`ForeignLock`]. Reads
    /// `/proc` of all processes to name the holders.
    ///
    /// ```
    /// let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// assert!(table.foreign_locks().is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn foreign_locks(&self) -> Vec<ForeignLock> {
        self.core.foreign_locks()
    }
}

impl Drop for HandleTable {
    fn drop(&mut self) {
        self.core.leave();
    }
}

impl core::fmt::Debug for HandleTable {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HandleTable")
            .field("segment", self.segment())
            .field("seat", &self.core.own_seat())
            .finish_non_exhaustive()
    }
}
