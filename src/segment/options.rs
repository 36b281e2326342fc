//! Options of a segment: the builder, and its defaults.

use std::time::Duration;

use super::huge_pages::HugePages;
use crate::layout::SCALE;

/// Options for creating or opening a segment. Start with
/// [`Segment::options`](crate::Segment::options).
///
/// Creating a segment fixes its geometry (`capacity`, `seats`, `arrays`). An existing segment keeps
/// its own geometry, regardless of these options.
///
/// ```no_run
/// let segment = ndshm::Segment::options()
///     .capacity(1 << 30)
///     .seats(64)
///     .open_or_create("filter")?;
/// # Ok::<(), ndshm::error::SegmentError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    pub(super) capacity: Option<u64>,
    pub(super) seats: u32,
    pub(super) arrays: Option<u64>,
    pub(super) retain: Option<u64>,
    pub(super) huge_pages: HugePages,
    pub(super) persistent: bool,
    pub(super) pinned: bool,
    pub(super) open_timeout: Duration,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
}

/// The limits of the bytes of freed arrays that keep their pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RetainLimits {
    /// For the arrays that one participant has freed and keeps for itself.
    pub(crate) own: u64,
    /// For the free arrays in the hint trees, which all participants share.
    pub(crate) shared: u64,
}

impl RetainLimits {
    /// Returns the limits for an option, or for the default of
    /// [`SegmentOptions::retain`]. By default a participant keeps less for itself, so that many
    /// participants together do not keep all of the machine's memory.
    pub(super) fn of(option: Option<u64>, default: impl FnOnce() -> u64) -> RetainLimits {
        let shared = option.unwrap_or_else(default);
        let own = option.unwrap_or(shared / 4);
        RetainLimits { own, shared }
    }
}

/// Default permission bits of a name: access for its user alone.
const PRIVATE: u32 = 0o600;

impl SegmentOptions {
    pub(super) fn new() -> SegmentOptions {
        SegmentOptions {
            capacity: None,
            seats: SCALE.default_seats,
            arrays: None,
            retain: None,
            huge_pages: HugePages::AsSystem,
            persistent: false,
            pinned: false,
            open_timeout: Duration::from_secs(2),
            mode: PRIVATE,
            owner: None,
        }
    }

    /// Sets the number of bytes for the contents of all arrays together, rounded up to 64 KiB.
    ///
    /// This is address space, not memory: arrays take pages when they need them. The default is 16
    /// TiB (64 GiB for an in-process segment, 1 MiB for one under Miri), halved until the segment
    /// can be mapped and leaves half of a limited address space (`ulimit -v`) to the rest of the
    /// program.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().capacity(1 << 30).anonymous()?;
    /// assert_eq!(segment.capacity(), 1 << 30);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("size", "ftruncate"))]
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the maximum number of participants at one time, rounded up to a power of two; 256 by
    /// default.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().seats(1000).anonymous()?;
    /// assert_eq!(segment.max_seats(), 1024);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seats(mut self, seats: u32) -> Self {
        self.seats = seats;
        self
    }

    /// Sets the maximum number of arrays at one time, rounded up to a power of two of at least
    /// 65,536 (fewer would save nothing, because the tables take memory only where they are used).
    ///
    /// The default is one for each 4 KiB of capacity, within 2^16 and 2^22.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let segment = Segment::options().arrays(1_000_000).anonymous()?;
    /// assert_eq!(segment.max_arrays(), 1 << 20);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn arrays(mut self, arrays: u64) -> Self {
        self.arrays = Some(arrays);
        self
    }

    /// Sets the number of bytes of freed arrays that keep their pages for reuse instead of giving
    /// them back to the system; by default a quarter of the machine's memory, or of the lowest
    /// limit of this process's cgroups.
    ///
    /// The limit holds for the free arrays that all participants share, and once more for each
    /// participant's own. By default a participant keeps only a quarter of it for itself. An
    /// allocation that finds no memory takes the kept pages
    /// of all participants.
    ///
    /// An array of more than 64 KiB may also have pages beyond its end, which belonged to a longer
    /// array in its place. An array takes the place whose pages fit it best. Pages beyond its end are
    /// given back if they are more than an eighth of the array, and more than an eighth of what its
    /// participant may still keep. If sizes vary at random, live arrays have about 1.1 times the
    /// memory that they asked for. [`HandleTable::trim`](crate::HandleTable::trim) gives back the kept
    /// pages, but not those beyond the end of live arrays.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// let segment = Segment::options().retain(0).anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// table.free(table.from_elem(1_000_000, 1.0)?)?;       // its pages go back to the system at once
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn retain(mut self, bytes: u64) -> Self {
        self.retain = Some(bytes);
        self
    }

    /// Keeps the name when the last process leaves. See
    /// [`Segment::persist`](crate::Segment::persist).
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// drop(Segment::options().persistent(true).create(name)?);
    /// let segment = Segment::open(name)?;                  // it was kept without a process in it
    /// segment.persist(false);                              // this process removes the name
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Keeps all pages of the new segment in place: no process gives one back before the segment
    /// ends. Has no effect on an existing segment, which has this property or not from its creation
    /// on ([`Segment::is_pinned`](crate::Segment::is_pinned)).
    ///
    /// For memory that a network card, a GPU or io_uring has registered. A page that is given back
    /// leaves such a registration behind: the device then writes to a page that no process sees.
    /// Freed arrays are reused, but neither a `free` nor [`trim`](crate::HandleTable::trim) nor a
    /// reap returns memory to the system, regardless of [`retain`](SegmentOptions::retain) and of
    /// the options of the process that calls them.
    /// [Huge pages](SegmentOptions::huge_pages) stay possible: the kernel moves no page that a
    /// device has registered.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::options().pinned(true).anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.from_elem(1 << 20, 1.0)?;
    /// table.free(x)?;
    /// assert!(segment.is_pinned());
    /// assert_eq!(table.trim()?, 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = pinned;
        self
    }

    /// Sets the time to wait for another process that is creating or removing the same name; 2 s by
    /// default.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// use std::time::Duration;
    ///
    /// let patient = Segment::options().open_timeout(Duration::from_secs(10));
    /// assert!(patient.open("no such segment").is_err());   // at once: nobody is creating it
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Sets the permission bits of a new name; `0o600` by default. They also limit an opened name:
    /// one that others may write is refused, unless these bits let them.
    ///
    /// A user with write permission can falsify everything in the segment. A user with only read
    /// permission changes nothing, but can use locks on the file to keep others from joining and
    /// from reclaiming what dead participants held. See [`guide::trust`](crate::guide::trust).
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::options().mode(0o660).create(name)?; // for the group as well
    /// # drop(segment);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn mode(mut self, bits: u32) -> Self {
        self.mode = bits & 0o777;
        self
    }

    /// Trusts another user, by number: names of this user may be opened besides one's own.
    ///
    /// Such a name stays if another user leaves last and the system lets only a file's owner remove
    /// it, as in `/dev/shm`.
    ///
    /// ```
    /// # use ndshm::Segment;
    /// let name = &format!("weather-{}", std::process::id());
    /// let segment = Segment::options().owner(1000).open_or_create(name)?; // own, or made by user 1000
    /// # drop(segment);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Asks for huge pages for the arrays; [`HugePages::AsSystem`] by default.
    ///
    /// The option applies to this process, to the children that it forks, and to the workers of its
    /// pools. Other processes that open the segment must ask too, but share the pages that are
    /// huge already. A refusal by the system is no error: see
    /// [`Segment::huge_pages`](crate::Segment::huge_pages).
    ///
    /// ```
    /// # use ndshm::Segment;
    /// use ndshm::segment::HugePages;
    ///
    /// let segment = Segment::options().huge_pages(HugePages::Collapse).anonymous()?;
    /// println!("{}", segment.huge_pages());                // what the system grants, or the remedy
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("madvise", "hugetlb", "MADV_HUGEPAGE"))]
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.huge_pages = pages;
        self
    }
}

/// Outcome of [`SegmentOptions::remove`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Removal {
    /// The name and its memory are gone.
    Removed,
    /// A process is in the segment.
    InUse,
    /// The segment is persistent; the option [`persistent`](SegmentOptions::persistent) removes it
    /// all the same.
    Persistent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permission_bits_of_a_mode_count() {
        assert_eq!(SegmentOptions::new().mode(0o7640).mode, 0o640);
        assert_eq!(SegmentOptions::new().mode, 0o600);
    }
}
