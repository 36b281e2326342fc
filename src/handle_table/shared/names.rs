//! Names of arrays.

use core::time::Duration;

use ndarray::Dimension;

use super::super::by_name::wait;
use super::SharedTable;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::names::{NameError, NameInfo};

impl SharedTable {
    /// Gives an array a name, by which any process finds it. See
    /// [`HandleTable::publish`](crate::HandleTable::publish).
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("weights", x)?;
    /// assert_eq!(table.find::<f64, Ix1>("weights")?, x);
    /// assert_eq!(table.unpublish("weights")?, x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn publish(&self, name: &str, handle: impl Into<AnyHandle>) -> Result<(), NameError> {
        let handle = handle.into();
        self.with(|core| core.publish(name, handle))?
    }

    /// Returns the array of that name. See [`HandleTable::find`](crate::HandleTable::find).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    ///
    /// table.publish("weights", table.from_elem(4, 0.25)?)?;
    /// let x = table.find::<f64, Ix1>("weights")?;
    /// assert_eq!(table.read(x)?.sum(), 1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn find<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, NameError> {
        self.with(|core| core.find(name))?
    }

    /// Returns the handle of that name, of any type. See
    /// [`HandleTable::find_any`](crate::HandleTable::find_any).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("weights", x)?;
    /// assert_eq!(table.find_any("weights")?, x.into());
    /// assert!(table.find_any("nothing").is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.with(|core| core.find_any(name))?
    }

    /// Returns the array of that name, and waits for at most `timeout` until it has one. Other
    /// threads use the table meanwhile. See
    /// [`HandleTable::find_wait`](crate::HandleTable::find_wait).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    /// use std::time::Duration;
    ///
    /// std::thread::scope(|threads| {
    ///     let found = threads.spawn(|| table.find_wait::<f64, Ix1>("weights", Duration::from_secs(10)));
    ///     let x = table.zeros::<f64, _>(3)?;
    ///     table.publish("weights", x)?;                    // while the other thread waits
    ///     assert_eq!(found.join().unwrap()?, x);
    ///     Ok::<(), ndshm::Error>(())
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn find_wait<T: Element, D: Dimension>(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Handle<T, D>, NameError> {
        wait(name, timeout, || self.find(name))
    }

    /// Returns the handle of that name, of any type, and waits for at most `timeout` until
    /// something has the name. Other threads use the table meanwhile. See
    /// [`HandleTable::find_any_wait`](crate::HandleTable::find_any_wait).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use std::time::Duration;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("weights", x)?;
    /// assert_eq!(table.find_any_wait("weights", Duration::from_secs(10))?, x.into());
    /// assert!(table.find_any_wait("nothing", Duration::from_millis(1)).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn find_any_wait(&self, name: &str, timeout: Duration) -> Result<AnyHandle, NameError> {
        wait(name, timeout, || self.find_any(name))
    }

    /// Gives an array a name, and returns the array that had it before. See
    /// [`HandleTable::replace`](crate::HandleTable::replace).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let (old, new) = (table.zeros::<f64, _>(3)?, table.zeros::<f64, _>(3)?);
    /// table.publish("weights", old)?;
    /// let before = table.replace("weights", new)?;
    /// assert_eq!(before, Some(old.into()));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn replace(
        &self,
        name: &str,
        handle: impl Into<AnyHandle>,
    ) -> Result<Option<AnyHandle>, NameError> {
        let handle = handle.into();
        self.with(|core| core.replace(name, handle))?
    }

    /// Changes a name in one step. See [`HandleTable::rename`](crate::HandleTable::rename).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("draft", x)?;
    /// table.rename("draft", "final")?;
    /// assert_eq!(table.find_any("final")?, x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn rename(&self, old: &str, new: &str) -> Result<(), NameError> {
        self.with(|core| core.rename(old, new))?
    }

    /// Removes a name, and returns the handle that had it. See
    /// [`HandleTable::unpublish`](crate::HandleTable::unpublish).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("weights", x)?;
    /// assert_eq!(table.unpublish("weights")?, x.into());
    /// assert!(table.read(x).is_ok());                      // it lives without the name
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn unpublish(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.with(|core| core.unpublish(name))?
    }

    /// Returns all names that begin with `prefix`, sorted. See
    /// [`HandleTable::names`](crate::HandleTable::names).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// table.publish("layer/1", table.zeros::<f64, _>(3)?)?;
    /// table.publish("layer/2", table.zeros::<f64, _>(3)?)?;
    /// let names: Vec<_> = table.names("layer/")?.into_iter().map(|it| it.name).collect();
    /// assert_eq!(names, ["layer/1", "layer/2"]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        self.with(|core| core.names(prefix))?
    }
}
