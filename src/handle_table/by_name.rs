//! Values by name: opens what has a name, waits for a name, and makes what nothing has made yet.

use core::time::Duration;
use std::thread;

use ndarray::{ArrayViewMut, Dimension, ShapeBuilder};

use super::HandleTable;
use crate::bundle::{Bundle, BundleError};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::names::NameError;
use crate::partition::{Group, Partition, PartitionError};
use crate::queue::{Job, Queue, QueueError};
use crate::sync::time::Instant;
use crate::table::error::LeaseError;

/// The pauses between two looks for a name: short at first, for a program that starts beside
/// another, and never so long that a name seems late.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

impl HandleTable {
    /// Returns the array of that name, and waits for at most `timeout` until it has one.
    ///
    /// A new name is noticed within 10 ms. With a timeout of zero this is
    /// [`find`](HandleTable::find) with another error.
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use ndshm::{HandleTable, Segment};
    /// use std::time::Duration;
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let other = std::thread::spawn(move || -> Result<_, ndshm::Error> {
    ///     let table = HandleTable::join(&segment)?;
    ///     let x = table.find_wait::<f64, Ix1>("weights", Duration::from_secs(10))?;
    ///     Ok(table.read(x)?.sum())
    /// });
    /// table.publish("weights", table.from_elem(4, 0.25)?)?;
    /// assert_eq!(other.join().unwrap()?, 1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::NotGiven`] if nothing got the name in time.
    /// - See [`find`](HandleTable::find).
    #[doc(alias("wait_for", "get_blocking"))]
    pub fn find_wait<T: Element, D: Dimension>(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Handle<T, D>, NameError> {
        wait(name, timeout, || self.find(name))
    }

    /// Returns the handle of that name, of any type, and waits for at most `timeout` until
    /// something has the name.
    ///
    /// Use it before [`find_queue`](HandleTable::find_queue) and its likes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use std::time::Duration;
    ///
    /// let jobs = table.queue::<u64>(8)?;
    /// table.publish("jobs", jobs.handle())?;
    ///
    /// // In any process:
    /// table.find_any_wait("jobs", Duration::from_secs(10))?;
    /// let jobs = table.find_queue::<u64>("jobs")?;
    /// assert!(jobs.is_empty());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::NotGiven`] if nothing got the name in time.
    /// - See [`find_any`](HandleTable::find_any).
    pub fn find_any_wait(&self, name: &str, timeout: Duration) -> Result<AnyHandle, NameError> {
        wait(name, timeout, || self.find_any(name))
    }

    /// Opens the queue of that name.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let jobs = table.queue::<u64>(8)?;
    /// table.publish("jobs", jobs.handle())?;
    /// jobs.push(7)?;
    ///
    /// // In any process:
    /// assert_eq!(table.find_queue::<u64>("jobs")?.pop()?, Some(7));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`QueueError::Name`] if nothing has the name.
    /// - See [`open_queue`](HandleTable::open_queue).
    pub fn find_queue<T: Job>(&self, name: &str) -> Result<Queue<'_, T>, QueueError> {
        self.core
            .find_with(name, |handle| self.open_queue(handle.into()))
    }

    /// Opens the partition of that name.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::{Axis, Ix1};
    /// use ndshm::Write;
    ///
    /// let x = table.zeros::<f64, _>(100)?;
    /// let tiles = table.partition(x.write(), Axis(0), 10)?;
    /// table.publish("tiles", tiles.handle())?;
    ///
    /// // In any process:
    /// let tiles = table.find_partition::<Write<f64, Ix1>>("tiles")?;
    /// assert_eq!(tiles.tiles(), 10);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`PartitionError::Name`] if nothing has the name.
    /// - See [`open_partition`](HandleTable::open_partition).
    pub fn find_partition<G: Group>(&self, name: &str) -> Result<Partition<'_, G>, PartitionError> {
        self.core
            .find_with(name, |handle| self.open_partition(handle.into()))
    }

    /// Opens the bundle of that name.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let model = table.bundle()?;
    /// model.insert("bias", table.zeros::<f32, _>(10)?)?;
    /// table.publish("model", model.handle())?;
    ///
    /// // In any process:
    /// let model = table.find_bundle("model")?;
    /// assert_eq!(model.parts()?.len(), 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`BundleError::Name`] if nothing has the name.
    /// - See [`open_bundle`](HandleTable::open_bundle).
    pub fn find_bundle(&self, name: &str) -> Result<Bundle<'_>, BundleError> {
        self.core
            .find_with(name, |handle| self.open_bundle(handle.into()))
    }

    /// Returns the array of that name, or creates it and gives it the name. Returns `true` beside
    /// it if this call has created it.
    ///
    /// Of several participants that call this at once, one gives the name, and the others get its
    /// array. `init` fills the zeros of a new array before it has the name, so nobody finds a half
    /// written one. A participant that comes too late may have called `init` in vain; its array is
    /// freed.
    ///
    /// The array belongs to the participant that created it, and ends with it.
    /// [Detach](HandleTable::detach) it if it has to live longer. An array whose owner has died is
    /// freed first, and not returned.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let (ones, is_new) = table.get_or_create("ones", (2, 3), |mut x| x.fill(1.0_f64))?;
    /// assert!(is_new);
    ///
    /// // In any process:
    /// let (same, is_new) = table.get_or_create("ones", (2, 3), |mut x| x.fill(1.0_f64))?;
    /// assert!(!is_new && same == ones);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::Shape`] if the array that has the name has another shape.
    /// - [`NameError::Lease`] with [`WrongKind`](crate::error::LeaseError::WrongKind) if it has
    ///   another type or number of axes.
    /// - [`NameError::Alloc`] if there is no memory.
    /// - See [`publish`](HandleTable::publish), except `Taken`.
    #[doc(alias("entry", "get_or_insert", "get_or_init"))]
    pub fn get_or_create<T: Element, Sh: ShapeBuilder>(
        &self,
        name: &str,
        shape: Sh,
        init: impl FnOnce(ArrayViewMut<'_, T, Sh::Dim>),
    ) -> Result<(Handle<T, Sh::Dim>, bool), NameError> {
        self.reap()?;
        let shape = shape.into_shape_with_order();
        let lengths = shape.raw_dim().slice();
        let found = |handle| {
            let found = self.info(handle)?.shape;
            same_shape(name, handle, found, lengths)
        };
        if let Some(handle) = unless_new(self.find(name).and_then(found))? {
            return Ok((handle, false));
        }
        let made = self.owned(self.zeros(shape.clone())?);
        init(self.write(made.handle())?.view_mut());
        loop {
            match self.publish(name, made.handle()) {
                Ok(()) => return Ok((made.into_handle(), true)),
                Err(NameError::Taken { .. }) => {
                    // The one that has the name may have died meanwhile.
                    self.reap()?;
                }
                Err(error) => return Err(error),
            }
            if let Some(handle) = unless_new(self.find(name).and_then(found))? {
                return Ok((handle, false));
            }
        }
    }
}

/// Returns `None` if nothing has the name, or only an array that was freed since it was found.
fn unless_new<R>(found: Result<R, NameError>) -> Result<Option<R>, NameError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(NameError::NotFound { .. } | NameError::Lease(LeaseError::Stale { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_shape<T, D>(
    name: &str,
    handle: Handle<T, D>,
    found: Vec<usize>,
    expected: &[usize],
) -> Result<Handle<T, D>, NameError> {
    match found == expected {
        true => Ok(handle),
        false => Err(NameError::Shape {
            name: name.into(),
            handle: handle.into(),
            found,
            expected: expected.into(),
        }),
    }
}

/// Calls `find` until something has the name. Sleeps in between, and holds nothing then.
pub(super) fn wait<R>(
    name: &str,
    timeout: Duration,
    find: impl Fn() -> Result<R, NameError>,
) -> Result<R, NameError> {
    let start = Instant::now();
    let mut pause = SHORTEST_PAUSE;
    loop {
        // Before the name is looked up: it is looked up once more at the end.
        let left = timeout.saturating_sub(start.elapsed());
        match find() {
            Err(NameError::NotFound { .. }) if left.is_zero() => {
                return Err(NameError::NotGiven {
                    name: name.into(),
                    waited: timeout,
                });
            }
            Err(NameError::NotFound { .. }) => {}
            outcome => return outcome,
        }
        thread::sleep(pause.min(left));
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
