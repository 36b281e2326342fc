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

    /// Gives an array a name, and returns the array that had it before. See
    /// [`HandleTable::replace`](crate::HandleTable::replace).
    pub fn replace(
        &self,
        name: &str,
        handle: impl Into<AnyHandle>,
    ) -> Result<Option<AnyHandle>, NameError> {
        let handle = handle.into();
        self.with(|core| core.replace(name, handle))?
    }

    /// Returns the array of that name. See [`HandleTable::find`](crate::HandleTable::find).
    pub fn find<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, NameError> {
        self.with(|core| core.find(name))?
    }

    /// Returns the handle of that name, of any type. See
    /// [`HandleTable::find_any`](crate::HandleTable::find_any).
    pub fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.with(|core| core.find_any(name))?
    }

    /// Returns the array of that name, and waits for at most `timeout` until it has one. Other
    /// threads use the table meanwhile. See
    /// [`HandleTable::find_wait`](crate::HandleTable::find_wait).
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
    pub fn find_any_wait(&self, name: &str, timeout: Duration) -> Result<AnyHandle, NameError> {
        wait(name, timeout, || self.find_any(name))
    }

    /// Changes a name in one step. See [`HandleTable::rename`](crate::HandleTable::rename).
    pub fn rename(&self, old: &str, new: &str) -> Result<(), NameError> {
        self.with(|core| core.rename(old, new))?
    }

    /// Removes a name, and returns the handle that had it. See
    /// [`HandleTable::unpublish`](crate::HandleTable::unpublish).
    pub fn unpublish(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.with(|core| core.unpublish(name))?
    }

    /// Returns all names that begin with `prefix`, sorted. See
    /// [`HandleTable::names`](crate::HandleTable::names).
    pub fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        self.with(|core| core.names(prefix))?
    }
}
