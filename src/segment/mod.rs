//! Segments: the source of the shared memory, and how a process joins and leaves it.
//!
//! [`Segment::anonymous`] suits a program with forked workers, [`Segment::open_or_create`] programs
//! that meet by a name, [`Segment::in_process`] threads and tests. [`SegmentOptions`] sets sizes,
//! permissions and [huge pages](HugePages).
//!
//! [`Segment`] asks an `Inner` for all that it does. There are two: in `mapped.rs` a mapping of the
//! kernel's, in `model.rs` words of a model checker, with the same methods.

pub(crate) mod error;
mod geometry;
pub(crate) mod huge_pages;
pub(crate) mod id;
mod in_process;
#[cfg(not(loom))]
mod lifecycle;
pub(crate) mod limits;
#[cfg(not(loom))]
mod mapped;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
pub(crate) mod observe;
mod options;
#[cfg(not(loom))]
pub(crate) mod os;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::{Arc, Weak};

pub(crate) use error::{ForeignLock, NoMemory, SegmentError};
pub use huge_pages::HugePages;
pub use id::{PeerAddress, SegmentId};
pub(crate) use imp::fork;
pub(crate) use options::RetainLimits;
pub use options::{Removal, SegmentOptions};

pub use crate::layout::{LAYOUT_VERSION, SEGMENT_MAGIC};

use crate::layout::Header;
use crate::memory::Memory;
use crate::sync::Ordering;
use imp::{Inner, address_space_limit};
#[cfg(not(loom))]
use mapped as imp;
#[cfg(loom)]
use model as imp;

/// One contiguous shared mapping that holds a table of arrays.
///
/// A clone is another reference to the same mapping; the mapping ends with the last reference. A
/// process usually has one segment, and every [`HandleTable`](crate::HandleTable) of it is a
/// participant.
///
/// The segment reserves address space, by default 16 TiB, but no memory: arrays take pages when
/// they need them.
///
/// | made by | shared with | limited by | ends with |
/// |---|---|---|---|
/// | [`anonymous`](Segment::anonymous) | forked children, and processes that receive the descriptor | the machine's memory | the last process that has it |
/// | [`create`](Segment::create) | processes of the same user that know the name | the size of `/dev/shm` | the last process, unless it persists |
/// | [`in_process`](Segment::in_process) | threads | the machine's memory | the process |
#[doc(alias("SharedMemory", "mmap", "shared_memory", "MPI_Win"))]
#[derive(Clone)]
pub struct Segment {
    inner: Arc<Inner>,
}

impl Segment {
    /// Returns the options for creating or opening a segment, set to their defaults.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().capacity(1 << 30).seats(64).anonymous()?;
    /// assert_eq!((segment.capacity(), segment.max_seats()), (1 << 30, 64));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn options() -> SegmentOptions {
        SegmentOptions::new()
    }

    /// Returns the bytes for the contents of all arrays together.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().capacity(1 << 30).anonymous()?;
    /// assert_eq!(segment.capacity(), 1 << 30);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn capacity(&self) -> u64 {
        self.memory().layout().geometry.capacity
    }

    /// Returns the maximum number of participants at one time.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().seats(100).anonymous()?;
    /// assert_eq!(segment.max_seats(), 128);                // a power of two
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn max_seats(&self) -> u32 {
        self.memory().layout().geometry.seats
    }

    /// Returns the maximum number of arrays at one time.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().arrays(1000).anonymous()?;
    /// assert!(segment.max_arrays() >= 1000);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn max_arrays(&self) -> u64 {
        self.memory().layout().geometry.slots() as u64
    }

    /// Sets whether the name stays when the last process leaves. Has no effect on a segment
    /// without a name.
    ///
    /// A persistent segment keeps its arrays, and their memory, until the machine restarts or a
    /// process in it calls `persist(false)` and leaves last.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// segment.persist(true);                               // from now on it outlives its processes
    /// assert!(segment.is_persistent());
    /// segment.persist(false);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn persist(&self, persistent: bool) {
        let word = &self.memory().header()[Header::PERSISTENT];
        // Relaxed: the last process to leave reads the word after it has taken the membership lock
        // exclusively. The kernel's lock orders that after our own leaving, and so after this
        // store.
        word.store(u64::from(persistent), Ordering::Relaxed);
    }

    /// Returns the name, if the segment has one.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// assert_eq!(Segment::create(name)?.name(), Some(name.as_str()));
    /// assert_eq!(Segment::anonymous()?.name(), None);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.inner.name()
    }

    /// Returns `true` if the name stays when the last process leaves.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// segment.persist(true);
    /// assert!(segment.is_persistent());
    /// # segment.persist(false);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_persistent(&self) -> bool {
        self.memory().header()[Header::PERSISTENT].load(Ordering::Relaxed) != 0
    }

    /// Returns the tables of the mapping.
    #[inline]
    pub(crate) fn memory(&self) -> &Memory {
        self.inner.memory()
    }

    /// Returns the random number that handles of this segment are xored with.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.inner.key()
    }

    /// Returns a number that no other mapping of this process has, or has had.
    pub(crate) fn mapping_number(&self) -> u64 {
        self.inner.mapping_number()
    }

    /// Returns `true` if both are references to the same mapping.
    pub(crate) fn is(&self, other: &Segment) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Returns the limit of bytes in free extents that keep their pages.
    pub(crate) fn retain_limits(&self) -> RetainLimits {
        self.inner.retain_limits()
    }

    /// Returns the token of the process that owns the mapped description. If that is not this
    /// process, call [`rebind`](Segment::rebind).
    #[inline]
    pub(crate) fn token(&self) -> u64 {
        self.inner.token()
    }

    /// Binds the inherited mapping to this process, once. Other threads wait for the thread that
    /// rebinds.
    pub(crate) fn rebind(&self) -> Result<(), SegmentError> {
        self.inner.rebind()
    }

    /// Attempts to take the lock that marks a seat as alive. The lock belongs to the seat's own
    /// participant, or to the participant of seat `by`, which reaps the seat. Returns `false` if
    /// the lock is held.
    pub(crate) fn try_lock_seat(
        &self,
        index: usize,
        by: Option<usize>,
    ) -> Result<bool, SegmentError> {
        self.inner.try_lock_seat(index, by)
    }

    /// Returns `true` if the lock that marks a seat as alive is held, by its participant or by a
    /// reaper. Takes no lock, so no reap beside it skips the seat.
    pub(crate) fn is_seat_locked(&self, index: usize) -> Result<bool, SegmentError> {
        self.inner.is_seat_locked(index)
    }

    /// Returns `true` if a look at the file's locks shows that a seat is locked, by its participant
    /// or by a reaper. A segment without a file shows none: there an attempt to lock costs no more.
    pub(crate) fn shows_seat_lock(&self, index: usize) -> Result<bool, SegmentError> {
        self.inner.shows_seat_lock(index)
    }

    /// Releases a lock that [`try_lock_seat`](Segment::try_lock_seat) took in this process. Does
    /// nothing in a forked child that has not rebound, because the lock is its parent's.
    pub(crate) fn unlock_seat(&self, index: usize) {
        self.inner.unlock_seat(index);
    }

    /// Returns the foreign lock on a seat, if there is one. Costs one system call if there is none.
    pub(crate) fn foreign_lock(&self, seat: usize) -> Option<ForeignLock> {
        self.inner.foreign_lock(seat)
    }

    /// Returns `true` if a foreign lock is on a seat. Does not search for its holder.
    pub(crate) fn is_foreign_locked(&self, seat: usize) -> bool {
        self.inner.is_foreign_locked(seat)
    }

    /// Leaves like `Segment::leave`, with the one seat that the process has: for other
    /// processes its participant has died. Copies the pages of the bytes in `kept`, each an offset
    /// in the data region and a length.
    pub(crate) fn leave_with_seat(&self, kept: &[(u64, u64)]) -> Result<(), SegmentError> {
        self.inner.leave(1, kept)
    }

    /// Returns `true` if the process has left the segment: its stores reach nobody.
    pub(crate) fn has_left(&self) -> bool {
        self.inner.has_left()
    }

    /// Releases all locks of a seat's participant, as the kernel does when its process ends.
    #[cfg(any(test, loom))]
    pub(crate) fn model_kill(&self, seat: usize) {
        self.inner.kill(seat);
    }

    /// Commits `len` bytes at `offset` of the data region: after this call they can be touched.
    pub(crate) fn commit(&self, offset: u64, len: u64) -> Result<(), NoMemory> {
        self.inner.commit(offset, len)
    }

    /// Returns `true` if a commit is a promise alone, which lasts as long as the extent keeps its
    /// pages: the pages come with the first touch.
    pub(crate) fn only_promises(&self) -> bool {
        self.inner.only_promises()
    }

    /// Commits the words of these slots. Runs before their span is appended.
    pub(crate) fn commit_slots(&self, first: usize, count: usize) -> Result<(), NoMemory> {
        self.inner.commit_slots(first, count)
    }

    /// Gives back the whole pages within `len` bytes at `offset` of the data region. Returns `true`
    /// if the whole range certainly reads as zeros now.
    ///
    /// The caller has exclusive access to the range, and no longer needs its contents.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> bool {
        self.inner.punch(offset, len)
    }

    /// Gives back the pages of `len` bytes at `offset` of the data region, from the end of an array to
    /// the end of the pages. Keeps the page that the array ends in, also a huge one.
    ///
    /// The caller has exclusive access to the range.
    pub(crate) fn punch_beyond(&self, offset: u64, len: u64) {
        self.inner.punch_beyond(offset, len);
    }
}

/// A reference to a segment that does not keep it mapped.
pub(crate) struct WeakSegment {
    inner: Weak<Inner>,
}

impl WeakSegment {
    pub(crate) fn of(segment: &Segment) -> WeakSegment {
        WeakSegment {
            inner: Arc::downgrade(&segment.inner),
        }
    }

    /// Returns the segment if it is still mapped.
    pub(crate) fn upgrade(&self) -> Option<Segment> {
        self.inner.upgrade().map(|inner| Segment { inner })
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name())
            .field("capacity", &self.capacity())
            .field("seats", &self.max_seats())
            .field("arrays", &self.max_arrays())
            .finish()
    }
}
