//! Observation of a segment without taking part in it.

mod bundles;
mod copy;
#[cfg(feature = "serde")]
mod objects;

pub use bundles::BundleInfo;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use ndarray::{Dimension, RawArrayView};

use super::verify::{self, Verification};
use super::{Census, ClassInfo};
use crate::element::{Element, schema};
use crate::handle::{AnyHandle, Handle};
use crate::layout::Header;
use crate::names::NameError;
use crate::names::NameInfo;
use crate::names::look::LookAtNames;
use crate::partition::RoundProgress;
use crate::seat::ParticipantInfo;
use crate::segment::observe::{self, Observed};
use crate::segment::{Segment, SegmentError, SegmentOptions};
use crate::sync::Ordering;
use crate::table::error::LeaseError;
use crate::table::info::ArrayInfo;
use crate::table::locate::TableView;
use crate::word::SeatId;

/// An observed segment. It is mapped read-only: nothing in this process can change a byte of it.
///
/// An observer has no seat and takes no lease. Participants do not notice it, and it keeps no name
/// alive. Its results describe one moment, and may be outdated at the next. It needs read
/// permission for the file.
///
/// It takes address space for the tables as far as they are in use (some MiB in a segment of the
/// default size), and for the arrays given to [`attach`](Observer::attach). So it works under
/// `ulimit -v` and under sanitizers. [`reach`](Observer::reach) fails if the tables have outgrown
/// the address space of this process.
///
/// Reading unused pages of the tables takes memory, because the kernel allocates such pages of
/// shared memory: some MiB at most in a segment of the default size.
///
/// # Trust
/// The owner of a named segment can truncate its file. An access to a removed page then ends this
/// process with SIGBUS, as in every program that maps a file. An anonymous segment is sealed.
///
/// ```
/// use ndshm::{HandleTable, Observer, Segment};
///
/// let segment = Segment::anonymous()?;
/// let table = HandleTable::join(&segment)?;
/// let x = table.zeros::<f64, _>((3, 4))?;
///
/// let observer = Observer::from_fd(segment.inheritable_fd()?)?;
/// assert_eq!(observer.info(x)?.shape, [3, 4]);
/// assert_eq!(observer.seats()?[0].pid, std::process::id());
/// assert!(observer.verify().is_clean());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[doc(alias("readonly", "inspect", "debug"))]
pub struct Observer {
    observed: Observed,
}

/// A taken seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SeatInfo {
    /// The number of the seat, from 0.
    pub seat: usize,
    /// The pid of its process, as seen by that process.
    pub pid: u32,
    /// `true` if the participant is alive. The next reap takes back all that a dead one held.
    pub alive: bool,
}

impl SegmentOptions {
    /// Observes a segment by its name; see [`Observer::open`](Observer::open).
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let name = &format!("observed-{}", std::process::id());
    /// let table = HandleTable::open_or_create(name)?;
    /// // Segments of the user with the number 1000 are trusted, too.
    /// let observer = Segment::options().owner(1000).observe(name)?;
    /// assert_eq!(observer.arrays().count(), 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn observe(self, name: &str) -> Result<Observer, SegmentError> {
        observe::by_name(name, &self).map(Observer::new)
    }

    /// Observes the segment behind a descriptor; see
    /// [`Observer::from_fd`](Observer::from_fd).
    ///
    /// ```
    /// use ndshm::Segment;
    ///
    /// let segment = Segment::anonymous()?;
    /// let fd = segment.inheritable_fd()?;
    /// let observer = Segment::options().owner(1000).observe_fd(fd)?;
    /// assert_eq!(observer.capacity(), segment.capacity());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn observe_fd(self, fd: OwnedFd) -> Result<Observer, SegmentError> {
        observe::by_descriptor(fd, &self).map(Observer::new)
    }
}

impl Observer {
    pub(crate) fn new(observed: Observed) -> Observer {
        Observer { observed }
    }

    /// Observes the segment of this name.
    ///
    /// ```
    /// use ndshm::{HandleTable, Observer};
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let table = HandleTable::open_or_create(name)?;
    /// table.publish("x", table.zeros::<f64, _>((3, 4))?)?;
    ///
    /// let observer = Observer::open(name)?;                // in any process
    /// let x = observer.find("x")?;
    /// assert_eq!(observer.info(x)?.shape, [3, 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Segment::open`].
    pub fn open(name: &str) -> Result<Observer, SegmentError> {
        Segment::options().observe(name)
    }

    /// Observes the segment behind a descriptor, which is closed. A read-only descriptor is enough.
    ///
    /// ```
    /// use ndshm::{HandleTable, Observer, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// table.zeros::<f64, _>(3)?;
    /// assert_eq!(observer.arrays().count(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::NotOurs`] if it is not a segment. As [`Segment::from_fd`] it refuses a file
    /// with bytes that could disappear: [`SegmentError::NotSealed`] for a memfd without a sealed
    /// size, [`SegmentError::Hugetlb`], and [`SegmentError::PermissionMismatch`] for another user's
    /// name (trust that user by [`SegmentOptions::owner`](crate::SegmentOptions::owner) and
    /// [`SegmentOptions::observe_fd`](crate::SegmentOptions::observe_fd)).
    pub fn from_fd(fd: OwnedFd) -> Result<Observer, SegmentError> {
        Segment::options().observe_fd(fd)
    }

    /// Checks that the observer sees all arrays.
    ///
    /// The check fails only if this process has no address space left for tables that have grown
    /// since the observer was made. Then [`arrays`](Observer::arrays),
    /// [`classes`](Observer::classes), [`census`](Observer::census), [`rounds`](Observer::rounds)
    /// and [`verify`](Observer::verify) leave out the newest arrays, and calls for one of these
    /// arrays return this error.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// observer.reach()?;                                   // the counts below are complete
    /// assert_eq!(observer.arrays().count(), 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SegmentError::AddressSpace`], [`SegmentError::Mappings`].
    pub fn reach(&self) -> Result<(), SegmentError> {
        self.observed.reach().map(drop)
    }

    /// Returns the bytes for the contents of all arrays together.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// assert_eq!(observer.capacity(), segment.capacity());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn capacity(&self) -> u64 {
        self.observed.memory().layout().geometry.capacity
    }

    /// Returns `true` if the name stays when the last process leaves; see
    /// [`Segment::persist`](crate::Segment::persist).
    ///
    /// ```
    /// use ndshm::{Observer, Segment};
    ///
    /// let name = &format!("persistent-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// let observer = Observer::open(name)?;
    /// assert!(!observer.is_persistent());
    /// segment.persist(true);
    /// assert!(observer.is_persistent());
    /// # segment.persist(false);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_persistent(&self) -> bool {
        self.observed.memory().header()[Header::PERSISTENT].load(Ordering::Relaxed) != 0
    }

    /// Returns `true` if nobody gives pages of the segment back; see
    /// [`SegmentOptions::pinned`].
    ///
    /// ```
    /// use ndshm::{Observer, Segment};
    ///
    /// let segment = Segment::options().pinned(true).anonymous()?;
    /// assert!(Observer::from_fd(segment.inheritable_fd()?)?.is_pinned());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn is_pinned(&self) -> bool {
        Header::is_pinned(self.observed.memory().header()[Header::ALIVE].load(Ordering::Relaxed))
    }

    /// Returns `true` if a process is in the segment of a name, in a seat or not. If none is, and
    /// the segment is not persistent, a crash has left it behind; see
    /// [`SegmentOptions::remove`](crate::SegmentOptions::remove).
    ///
    /// An anonymous segment does not record its members: look at its [seats](Observer::seats)
    /// instead.
    ///
    /// ```
    /// use ndshm::{Observer, Segment};
    ///
    /// let name = &format!("members-{}", std::process::id());
    /// let segment = Segment::create(name)?;
    /// assert!(Observer::open(name)?.has_members()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn has_members(&self) -> Result<bool, SegmentError> {
        self.observed.has_members()
    }

    /// Returns the taken seats.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let seats = observer.seats()?;
    /// assert_eq!(seats.len(), 1);                          // an observer takes none
    /// assert_eq!(seats[0].pid, std::process::id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seats(&self) -> Result<Vec<SeatInfo>, SegmentError> {
        let memory = self.observed.memory();
        let seats = 0..memory.layout().geometry.seats as usize;
        seats
            .filter(|&seat| memory.seat_word(seat).load(Ordering::Relaxed).is_taken())
            .map(|seat| {
                Ok(SeatInfo {
                    seat,
                    pid: ParticipantInfo::of(memory, SeatId::from_index(seat)).pid,
                    alive: self.observed.is_alive(seat)?,
                })
            })
            .collect()
    }

    /// Returns all live arrays, as [`HandleTable::arrays`](crate::HandleTable::arrays) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// table.zeros::<f64, _>((3, 4))?;
    /// for array in observer.arrays() {
    ///     println!("{} of {:?}", array.dtype, array.shape);
    /// }
    /// assert_eq!(observer.arrays().count(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn arrays(&self) -> impl Iterator<Item = ArrayInfo> + '_ {
        self.tables().arrays()
    }

    /// Returns the memory of the live and freed arrays by size class. Lists only classes that have
    /// slots, the smallest extents first.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let _x = table.zeros::<u8, _>(100)?;
    ///
    /// let classes = Observer::from_fd(segment.inheritable_fd()?)?.classes();
    /// assert_eq!((classes[0].extent, classes[0].live), (128, 1));
    /// assert_eq!((classes[0].asked, classes[0].taken), (100, 128));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn classes(&self) -> Vec<ClassInfo> {
        self.seen(TableView::classes)
    }

    /// Returns the number of arrays, and how many were created and freed so far.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.zeros::<f64, _>(3)?;
    /// table.free(x)?;
    /// let census = observer.census();
    /// assert_eq!((census.live, census.made, census.freed), (1, 2, 1));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn census(&self) -> Census {
        self.seen(TableView::census)
    }

    /// Returns the progress of the current or last round of each partition.
    ///
    /// Leaves out a partition with inconsistent words, which [`verify`](Observer::verify) reports.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let x = table.zeros::<f64, _>(100)?;
    /// let tiles = table.partition(x.write(), ndarray::Axis(0), 10)?;
    /// let round = tiles.begin()?;
    /// let (partition, progress) = &observer.rounds()[0];
    /// assert_eq!(*partition, tiles.handle().into());
    /// assert_eq!((progress.running, progress.done, progress.tiles), (true, 0, 10));
    /// # drop(round);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn rounds(&self) -> Vec<(AnyHandle, RoundProgress)> {
        let copy = |offset, out: &mut [u8]| self.observed.read(offset, out).is_ok();
        self.seen(|look| look.rounds(copy))
    }

    /// Returns information on the array that a handle names.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let x = table.zeros::<f64, _>((3, 4))?;
    /// let writer = table.write(x)?;
    /// assert_eq!(observer.info(x)?.writer, Some(std::process::id()));
    /// # drop(writer);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if it names none.
    pub fn info(&self, handle: impl Into<AnyHandle>) -> Result<ArrayInfo, LeaseError> {
        let handle = handle.into();
        self.found(|look| look.info(handle))
    }

    /// Returns all names that begin with `prefix`, sorted; with `""` all names. See
    /// [`HandleTable::names`](crate::HandleTable::names).
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// table.publish("x", table.zeros::<f64, _>(3)?)?;
    /// assert_eq!(observer.names("")?[0].name, "x");
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError::Corrupt`] with the damaged bucket.
    pub fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        self.found(|look| self.at_names(look).names(prefix))
    }

    /// Returns the handle with this name.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("x", x)?;
    /// assert_eq!(observer.find("x")?, x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError::NotFound`], [`NameError::Corrupt`].
    pub fn find(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.found(|look| self.at_names(look).find(name))
    }

    fn at_names<'m>(
        &'m self,
        look: TableView<'m>,
    ) -> LookAtNames<'m, impl Fn(u64, &mut [u8]) -> bool> {
        LookAtNames {
            look,
            copy: |offset, out: &mut [u8]| self.observed.read(offset, out).is_ok(),
        }
    }

    /// Returns pointers for reading an array.
    ///
    /// A participant may write or free the array meanwhile, and another array may take its place.
    /// Read through the pointers only if you know by other means that this does not happen. They
    /// stay valid for as long as the observer lives.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let x = table.from_elem(3, 1.0)?;
    /// let view = observer.attach(x)?;
    /// // SAFETY: no process writes or frees the array meanwhile.
    /// assert_eq!(unsafe { view.deref_into_view() }.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] and [`LeaseError::WrongKind`].
    pub fn attach<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<RawArrayView<T, D>, LeaseError> {
        self.found(|look| self.attach_by(look, handle))
    }

    fn attach_by<T: Element, D: Dimension>(
        &self,
        look: TableView<'_>,
        handle: Handle<T, D>,
    ) -> Result<RawArrayView<T, D>, LeaseError> {
        let handle = AnyHandle::from(handle);
        let (slot, generation) = look.live(handle)?;
        let same_schema = |index, text| schema::schema_index_matches(look.memory, index, text);
        let measured = look.measure::<T, D>(slot, handle, same_schema);
        // Check the word again, as a participant does: if it is unchanged, the descriptor read
        // above is this array's.
        if !slot.word().is_live(generation) {
            return Err(LeaseError::Stale { handle });
        }
        let (shape, bytes, extent) = measured?;
        // Ask for at least one byte, which every extent has: an empty array needs an address too.
        let start = self.observed.contents(extent.offset, bytes.max(1));
        let start: NonNull<T> = start.map_err(LeaseError::Unmapped)?.cast();
        // SAFETY: the address is non-null and aligned (an extent starts at a multiple of 64 in the
        // file, its mapping at a page, and 64 is the largest alignment of an element). The shape's
        // `bytes` are mapped from there on, at most `isize::MAX` (`Descriptor::bytes`).
        Ok(unsafe { RawArrayView::from_shape_ptr(shape, start.as_ptr()) })
    }

    /// Checks every word of the segment's tables; see
    /// [`HandleTable::verify`](crate::HandleTable::verify). Leaves out the contents of partitions
    /// and queues, because an observer cannot keep them in place.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Observer, Segment};
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// # let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let found = observer.verify();
    /// assert!(found.damage.is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn verify(&self) -> Verification {
        self.seen(|look| verify::verify(look.memory, None))
    }

    /// Returns the result of `look`. Repeats it if spans beyond the mapped tables were appended
    /// meanwhile.
    fn seen<'o, R>(&'o self, look: impl Fn(TableView<'o>) -> R) -> R {
        loop {
            let seen = self.tables();
            let result = look(seen);
            // This loop ends: the tables are mapped anew at most as often as the span table can
            // double.
            if std::ptr::eq(seen.memory, self.tables().memory) {
                return result;
            }
        }
    }

    /// Returns the result of `look`, like [`seen`](Observer::seen). If the observer cannot see all
    /// arrays, an error of [`reach`](Observer::reach) replaces that of `look`.
    fn found<'o, R, E: From<LeaseError>>(
        &'o self,
        look: impl Fn(TableView<'o>) -> Result<R, E>,
    ) -> Result<R, E> {
        self.seen(look).map_err(|error| match self.reach() {
            Ok(()) => error,
            Err(unmapped) => LeaseError::Unmapped(unmapped).into(),
        })
    }

    fn tables(&self) -> TableView<'_> {
        TableView {
            memory: self.observed.memory(),
            key: self.observed.key(),
        }
    }
}

impl core::fmt::Debug for Observer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Observer")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
