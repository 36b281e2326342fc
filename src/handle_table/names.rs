//! Names of arrays.

use ndarray::Dimension;

use super::HandleTable;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::names::NameError;
use crate::names::NameInfo;

impl HandleTable {
    /// Gives an array a name, by which any process finds it.
    ///
    /// Of several participants that give one name at once, one succeeds. Freeing the array removes
    /// its names. An array may have several. Everything with a handle can have one, for instance a
    /// queue.
    ///
    /// A name is 1 to 255 bytes of UTF-8. There are no further rules; `/` is a custom, as in
    /// `layer/1/bias`.
    ///
    /// ```
    /// use ndarray::Ix2;
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::error::NameError;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((3, 4))?;
    /// table.publish("positions", x)?;
    ///
    /// // In any process:
    /// let found = table.find::<f64, Ix2>("positions")?;
    /// assert_eq!(found, x);
    ///
    /// let y = table.zeros::<f64, _>((3, 4))?;
    /// assert!(matches!(table.publish("positions", y), Err(NameError::Taken { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::Taken`] if the name exists. The error has its array and the process that
    ///   named it.
    /// - [`NameError::Lease`] if the handle is stale, or names memory of the crate.
    /// - [`NameError::Length`] if the name has 0 or more than 255 bytes.
    /// - [`NameError::Alloc`] or [`NameError::Crowded`] if there is no room for the record of
    ///   names.
    #[doc(alias("register", "bind", "set", "insert"))]
    #[inline]
    pub fn publish(&self, name: &str, handle: impl Into<AnyHandle>) -> Result<(), NameError> {
        self.core.publish(name, handle)
    }

    /// Returns the array of that name.
    ///
    /// It may be renamed, replaced or freed at any later moment. To be sure of the name, take a
    /// lease and look it up again.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::{Ix1, Ix2};
    ///
    /// table.publish("weights", table.from_elem(4, 0.25)?)?;
    ///
    /// // In any process:
    /// let weights = table.find::<f64, Ix1>("weights")?;
    /// assert_eq!(table.read(weights)?.sum(), 1.0);
    /// assert!(table.find::<f64, Ix2>("weights").is_err()); // it has one axis
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// A table remembers the names that it has found, which makes the next lookup of each faster. This takes
    /// private memory: up to 16 MiB for some 260,000 names, and up to 4 MiB and the texts for names of more
    /// than 27 bytes.
    ///
    /// # Errors
    /// - [`NameError::NotFound`] if no array has the name; [`NameError::Length`].
    /// - [`NameError::Lease`] with [`WrongKind`](crate::error::LeaseError::WrongKind) if it has
    ///   another type.
    #[doc(alias("get", "lookup", "attach", "shm_open", "MPI_Win_shared_query"))]
    #[inline]
    pub fn find<T: Element, D: Dimension>(&self, name: &str) -> Result<Handle<T, D>, NameError> {
        self.core.find(name)
    }

    /// Returns the handle of that name, of any type: an array, a queue or a partition.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// table.publish("weights", table.from_elem(4, 0.25)?)?;
    /// let handle = table.find_any("weights")?;
    /// println!("{} of {:?}", table.info(handle)?.dtype, table.info(handle)?.shape);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NameError::NotFound`] if nothing has the name; [`NameError::Length`].
    #[inline]
    pub fn find_any(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.core.find_any(name)
    }

    /// Gives an array a name, and returns the array that had it before. A lookup finds the old or
    /// the new array at every moment.
    ///
    /// Does not free the old array: other participants may just have found it, and can lease it
    /// until the program frees it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// table.publish("state", table.from_elem(3, 1.0)?)?;
    /// let next = table.from_elem(3, 2.0)?;
    /// if let Some(before) = table.replace("state", next)? {
    ///     table.free(before)?;
    /// }
    /// assert_eq!(table.find_any("state")?, next.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// See [`publish`](HandleTable::publish), except `Taken`.
    #[doc(alias("swap", "overwrite", "set"))]
    #[inline]
    pub fn replace(
        &self,
        name: &str,
        handle: impl Into<AnyHandle>,
    ) -> Result<Option<AnyHandle>, NameError> {
        self.core.replace(name, handle)
    }

    /// Renames `old` to `new` in one step: at every moment the array has one of the two names, and
    /// never both.
    ///
    /// If the caller is killed, the array has the old or the new name. The next participant that
    /// wants the new name, or that [reaps](HandleTable::reap), decides which.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("draft", x)?;
    /// table.rename("draft", "final")?;
    /// assert!(table.find_any("draft").is_err());
    /// assert_eq!(table.find_any("final")?, x.into());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::NotFound`] if nothing is called `old`.
    /// - [`NameError::Taken`] if something else is called `new`.
    /// - [`NameError::Length`], [`NameError::Alloc`] and [`NameError::Crowded`] as for
    ///   [`publish`](HandleTable::publish).
    #[inline]
    pub fn rename(&self, old: &str, new: &str) -> Result<(), NameError> {
        self.core.rename(old, new)
    }

    /// Removes a name, and returns the handle that had it. The array stays.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.publish("x", x)?;
    /// assert_eq!(table.unpublish("x")?, x.into());
    /// assert!(table.read(x).is_ok());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`NameError::NotFound`] if nothing has the name.
    /// - [`NameError::Alloc`] if the other names of the bucket need a new record and there is no
    ///   memory.
    #[inline]
    pub fn unpublish(&self, name: &str) -> Result<AnyHandle, NameError> {
        self.core.unpublish(name)
    }

    /// Returns all names that begin with `prefix`, sorted. With `""`, returns all names.
    ///
    /// A name that is given or removed meanwhile may be missing. A renamed one may appear under
    /// both names, or none.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// for name in ["model/2", "model/1", "log"] {
    ///     table.publish(name, table.zeros::<f64, _>(3)?)?;
    /// }
    /// let models = table.names("model/")?;
    /// let models: Vec<_> = models.iter().map(|info| info.name.as_str()).collect();
    /// assert_eq!(models, ["model/1", "model/2"]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("list", "keys", "ls"))]
    #[inline]
    pub fn names(&self, prefix: &str) -> Result<Vec<NameInfo>, NameError> {
        self.core.names(prefix)
    }
}
