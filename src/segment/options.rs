//! Options of a segment: the builder, its defaults, and the resulting geometry.

use std::time::Duration;

#[cfg(not(loom))]
use super::HugePages;
use super::Segment;
use crate::layout::{Geometry, SCALE};
#[cfg(not(loom))]
use crate::layout::Layout;
use crate::segment::error::SegmentError;
use crate::word::SeatId;

/// Options for creating or opening a segment. Start with [`Segment::options`].
///
/// Creating a segment fixes its geometry (`capacity`, `seats`, `arrays`). An existing segment keeps
/// its own geometry, regardless of these options.
///
/// ```no_run
/// let segment = ndshm::Segment::options()
///     .capacity(1 << 30)
///     .seats(64)
///     .open_or_create("filter")?;
/// # Ok::<(), ndshm::SegmentError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    capacity: Option<u64>,
    seats: u32,
    arrays: Option<u64>,
    pub(super) retain: Option<u64>,
    #[cfg(not(loom))]
    pub(super) huge_pages: HugePages,
    pub(super) persistent: bool,
    pub(super) open_timeout: Duration,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
}

/// Default permission bits of a name: access for its user alone.
const PRIVATE: u32 = 0o600;

/// The default capacity of a shared segment. It is halved until the segment can be mapped.
#[cfg(not(loom))]
pub(super) const SHARED_CAPACITY: u64 = 16 << 40;

/// The default capacity of an in-process segment.
pub(super) const IN_PROCESS_CAPACITY: u64 = SCALE.in_process_capacity;

const LEAST_CAPACITY: u64 = 16 << 20;
const MOST_DEFAULT_ARRAYS: u64 = 1 << 22;

impl SegmentOptions {
    pub(super) fn new() -> SegmentOptions {
        SegmentOptions {
            capacity: None,
            seats: SCALE.default_seats,
            arrays: None,
            retain: None,
            #[cfg(not(loom))]
            huge_pages: HugePages::AsSystem,
            persistent: false,
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
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Sets the maximum number of participants at one time, rounded up to a power of two; 256 by
    /// default.
    pub fn seats(mut self, seats: u32) -> Self {
        self.seats = seats;
        self
    }

    /// Sets the maximum number of arrays at one time, rounded up to a power of two of at least
    /// 65,536 (fewer would save nothing, because the tables take memory only where they are used).
    ///
    /// The default is one for each 4 KiB of capacity, within 2^16 and 2^22.
    pub fn arrays(mut self, arrays: u64) -> Self {
        self.arrays = Some(arrays);
        self
    }

    /// Sets the number of bytes of freed arrays that keep their pages for reuse instead of giving
    /// them back to the system; a sixteenth of the machine's memory by default.
    ///
    /// The limit holds for each participant's own free arrays, and once more for those that all
    /// participants share. An array of more than 64 KiB may also have pages beyond its end, up to
    /// the size of the previous array in its place: if sizes vary at random, live arrays have about
    /// 1.3 times the memory that they asked for. [`HandleTable::trim`](crate::HandleTable::trim)
    /// gives back the kept pages, but not those beyond the end of live arrays.
    pub fn retain(mut self, bytes: u64) -> Self {
        self.retain = Some(bytes);
        self
    }

    /// Keeps the name when the last process leaves. See [`Segment::persist`].
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Sets the time to wait for another process that is creating or removing the same name; 2 s by
    /// default.
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
    pub fn mode(mut self, bits: u32) -> Self {
        self.mode = bits & 0o777;
        self
    }

    /// Trusts another user, by number: names of this user may be opened besides one's own.
    ///
    /// Such a name stays if another user leaves last and the system lets only a file's owner remove
    /// it, as in `/dev/shm`.
    pub fn owner(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Creates a segment in this process's memory; see [`Segment::in_process`].
    pub fn in_process(self) -> Result<Segment, SegmentError> {
        Segment::make_in_process(&self)
    }

    /// Returns the geometries to try, the preferred one first.
    pub(super) fn geometries(&self, largest: u64) -> Result<Vec<Geometry>, SegmentError> {
        self.geometries_within(address_space_limit(), largest)
    }

    /// Returns the geometries to try where the address space has this limit.
    fn geometries_within(
        &self,
        limit: Option<u64>,
        largest: u64,
    ) -> Result<Vec<Geometry>, SegmentError> {
        let shape = |capacity| self.geometry(capacity);
        if let Some(capacity) = self.capacity {
            return Ok(vec![shape(capacity)?]);
        }
        // Leave half of a limited address space to the rest of the program.
        let largest = limit
            .and_then(|limit| (limit / 2).checked_ilog2())
            .map_or(largest, |log2| largest.min(LEAST_CAPACITY.max(1 << log2)));
        let least = LEAST_CAPACITY.min(largest);
        std::iter::successors(Some(largest), |capacity| Some(capacity / 2))
            .take_while(|&capacity| capacity >= least)
            .map(shape)
            .collect()
    }

    /// Returns the geometry of a segment of which only the size is known.
    #[cfg(not(loom))]
    pub(super) fn geometry_of_size(&self, size: u64) -> Result<Option<Geometry>, SegmentError> {
        let candidates = self.geometries(SHARED_CAPACITY)?;
        Ok(candidates
            .into_iter()
            .find(|&geometry| Layout::new(geometry).total == size))
    }

    fn geometry(&self, capacity: u64) -> Result<Geometry, SegmentError> {
        if capacity == 0 || capacity > Geometry::MAX_CAPACITY {
            return Err(SegmentError::Capacity {
                capacity,
                max: Geometry::MAX_CAPACITY,
            });
        }
        if self.seats == 0 || self.seats > SeatId::MAX_SEATS {
            return Err(SegmentError::Seats {
                seats: self.seats,
                max: SeatId::MAX_SEATS,
            });
        }
        let arrays = self.arrays.unwrap_or_else(|| {
            (capacity >> 12).clamp(SCALE.min_default_arrays, MOST_DEFAULT_ARRAYS)
        });
        if arrays > Geometry::MAX_SLOTS {
            return Err(SegmentError::Arrays {
                arrays,
                max: Geometry::MAX_SLOTS,
            });
        }
        let spans = arrays
            .next_power_of_two()
            .div_ceil(u64::from(Geometry::SPAN_SLOTS)) as u32;
        Ok(Geometry {
            capacity: capacity.next_multiple_of(Geometry::CAPACITY_UNIT),
            seats: self.seats.next_power_of_two(),
            spans: spans.max(Geometry::MIN_SPANS),
            span_slots: Geometry::SPAN_SLOTS,
        })
    }
}

/// Returns the limit of this process's address space, if there is one.
fn address_space_limit() -> Option<u64> {
    #[cfg(not(any(loom, miri)))]
    return rustix::process::getrlimit(rustix::process::Resource::As).current;
    #[cfg(any(loom, miri))]
    return None;
}

#[cfg(not(loom))]
impl SegmentOptions {
    /// Asks for huge pages for the arrays; [`HugePages::AsSystem`] by default.
    ///
    /// The option applies to this process, to the children that it forks, and to the workers of its
    /// pools. Other processes that open the segment must ask too, but share the pages that are
    /// huge already. A refusal by the system is no error: see [`Segment::huge_pages`].
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.huge_pages = pages;
        self
    }

    /// Creates a segment without a name; see [`Segment::anonymous`].
    pub fn anonymous(self) -> Result<Segment, SegmentError> {
        Segment::make_anonymous(&self)
    }

    /// Creates a segment under a new name; see [`Segment::create`].
    pub fn create(self, name: &str) -> Result<Segment, SegmentError> {
        Segment::attach_named(name, super::named::Wish::Create, &self)
    }

    /// Opens a segment by its name; see [`Segment::open`].
    pub fn open(self, name: &str) -> Result<Segment, SegmentError> {
        Segment::attach_named(name, super::named::Wish::Open, &self)
    }

    /// Opens a segment by its name, or creates it; see [`Segment::open_or_create`].
    pub fn open_or_create(self, name: &str) -> Result<Segment, SegmentError> {
        Segment::attach_named(name, super::named::Wish::OpenOrCreate, &self)
    }

    /// Observes a segment by its name; see [`Observer::open`](crate::Observer::open).
    pub fn observe(self, name: &str) -> Result<crate::Observer, SegmentError> {
        super::observe::by_name(name, &self).map(crate::Observer::new)
    }

    /// Observes the segment behind a descriptor; see
    /// [`Observer::from_fd`](crate::Observer::from_fd).
    pub fn observe_fd(self, fd: std::os::fd::OwnedFd) -> Result<crate::Observer, SegmentError> {
        super::observe::by_descriptor(fd, &self).map(crate::Observer::new)
    }

    /// Removes the name of a segment without members, which a crash has left behind. A
    /// [persistent](SegmentOptions::persistent) one is removed only if these options are persistent
    /// too.
    ///
    /// The removal follows the same rule, under the same lock, as that of the last process to
    /// leave. A process that is just opening the name either is a member already, or no longer
    /// finds the name.
    ///
    /// ```
    /// use ndshm::{Removal, Segment};
    ///
    /// let name = format!("ndshm-doc-remove-{}", std::process::id());
    /// let segment = Segment::options().persistent(true).create(&name)?;
    /// assert_eq!(Segment::options().remove(&name)?, Removal::InUse);
    /// drop(segment);
    /// assert_eq!(Segment::options().remove(&name)?, Removal::Persistent);
    /// assert_eq!(Segment::options().persistent(true).remove(&name)?, Removal::Removed);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NotFound`], [`SegmentError::Foreign`], [`SegmentError::NotOurs`];
    /// [`SegmentError::Unfinished`] for a file that begins with zeros, see
    /// [`remove_unfinished`](SegmentOptions::remove_unfinished).
    pub fn remove(self, name: &str) -> Result<super::Removal, SegmentError> {
        super::remove::deserted(name, &self)
    }

    /// Removes the name of a file that begins with zeros, and still does after the open timeout: a
    /// segment left by a creator that died before initializing it.
    ///
    /// Nothing in the file shows that it is a segment: a file of any program may begin with zeros.
    ///
    /// # Errors
    /// Returns the errors of [`remove`](SegmentOptions::remove), and [`SegmentError::NotOurs`] if
    /// the file does not begin with zeros.
    pub fn remove_unfinished(self, name: &str) -> Result<super::Removal, SegmentError> {
        super::remove::unfinished(name, &self)
    }

    /// Opens a segment by a descriptor; see [`Segment::from_fd`].
    pub fn from_fd(self, fd: std::os::fd::OwnedFd) -> Result<Segment, SegmentError> {
        Segment::attach_passed(fd, &self)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn one(options: SegmentOptions) -> Geometry {
        let geometries = options.geometries(SHARED_CAPACITY).unwrap();
        assert_eq!(geometries.len(), 1);
        geometries[0]
    }

    #[test]
    fn the_default_is_halved_down_to_the_least() {
        let geometries = SegmentOptions::new().geometries(SHARED_CAPACITY).unwrap();
        let first = geometries[0];
        assert_eq!((first.capacity, first.seats), (16 << 40, 256));
        assert_eq!((first.slots(), first.span_slots), (1 << 22, 64));
        let last = geometries[geometries.len() - 1];
        assert_eq!((last.capacity, last.slots()), (16 << 20, 1 << 16));
        let halved = geometries
            .windows(2)
            .all(|two| two[0].capacity == 2 * two[1].capacity);
        assert!(halved);
    }

    #[test]
    fn half_of_a_limited_address_space_is_left_to_the_program() {
        let capacities = |limit, largest| -> Vec<u64> {
            let options = SegmentOptions::new();
            let geometries = options.geometries_within(limit, largest).unwrap();
            geometries.iter().map(|one| one.capacity).collect()
        };
        let mib = |count: u64| count << 20;
        assert_eq!(capacities(None, mib(64)), [mib(64), mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(64)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(65)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(127)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(128)), mib(64)).len(), 3);
        assert_eq!(capacities(Some(mib(1024)), mib(64)).len(), 3);
        assert_eq!(capacities(Some(mib(20)), mib(64)), [mib(16)], "the least");
        assert_eq!(capacities(Some(2), mib(64)), [mib(16)]);
        assert_eq!(capacities(None, mib(8)), [mib(8)], "the least, or less");
    }

    #[test]
    fn the_default_of_an_in_process_segment_is_smaller() {
        let options = SegmentOptions::new();
        let geometries = options.geometries_within(None, IN_PROCESS_CAPACITY);
        assert_eq!(geometries.unwrap()[0].capacity, 64 << 30);
    }

    #[test]
    fn only_permission_bits_of_a_mode_count() {
        assert_eq!(SegmentOptions::new().mode(0o7640).mode, 0o640);
        assert_eq!(SegmentOptions::new().mode, 0o600);
    }

    #[test]
    fn explicit_numbers_are_rounded_up_and_kept() {
        let options = SegmentOptions::new().capacity(1).seats(5).arrays(65_537);
        let geometry = one(options);
        assert_eq!(
            (geometry.capacity, geometry.seats, geometry.slots()),
            (65536, 8, 1 << 17)
        );
        let geometry = one(SegmentOptions::new().capacity(65537).seats(1).arrays(0));
        assert_eq!(
            (geometry.capacity, geometry.seats, geometry.slots()),
            (131072, 1, 1 << 16)
        );
        let geometry = one(SegmentOptions::new().capacity(5 << 30));
        assert_eq!(geometry.slots(), 1 << 21, "1.25 million rounded up");
    }

    #[test]
    fn the_largest_geometry_survives_the_header() {
        use crate::layout::Header;
        let options = SegmentOptions::new()
            .capacity(Geometry::MAX_CAPACITY)
            .seats(SeatId::MAX_SEATS)
            .arrays(Geometry::MAX_SLOTS);
        let geometry = one(options);
        assert_eq!(Header::decode(Header::encode(&geometry)), Ok(geometry));
    }

    #[test]
    fn numbers_out_of_range_are_named_with_their_limit() {
        let refused =
            |options: SegmentOptions| options.geometries(SHARED_CAPACITY).unwrap_err().to_string();
        let text = refused(SegmentOptions::new().capacity(0));
        assert!(
            text.contains("capacity of 0 bytes") && text.contains("TiB"),
            "{text}"
        );
        let text = refused(SegmentOptions::new().capacity(Geometry::MAX_CAPACITY + 1));
        assert!(
            text.contains(&(Geometry::MAX_CAPACITY + 1).to_string()),
            "{text}"
        );
        let text = refused(SegmentOptions::new().seats(0));
        assert!(text.contains("0 seats") && text.contains("2048"), "{text}");
        let text = refused(SegmentOptions::new().capacity(1 << 20).seats(2049));
        assert!(text.contains("2049 seats"), "{text}");
        let text = refused(SegmentOptions::new().arrays(Geometry::MAX_SLOTS + 1));
        assert!(text.contains("268435457 arrays"), "{text}");
    }

    #[test]
    fn a_size_tells_the_geometry() {
        let options = SegmentOptions::new();
        let geometry = options.geometry(1 << 30).unwrap();
        let size = Layout::new(geometry).total;
        assert_eq!(options.geometry_of_size(size).unwrap(), Some(geometry));
        assert_eq!(options.geometry_of_size(size + 1).unwrap(), None);
        assert_eq!(
            options.capacity(1 << 20).geometry_of_size(size).unwrap(),
            None
        );
    }
}
