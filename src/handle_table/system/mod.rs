//! Calls that need named or default segments, or the system's pages. A model has none of them.

mod global;
mod prefault;

use super::HandleTable;
use crate::error::Error;
use crate::segment::Segment;

impl HandleTable {
    /// Opens the named segment and takes a seat in it.
    ///
    /// ```
    /// use ndshm::HandleTable;
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let station = HandleTable::open_or_create(name)?;
    /// let reader = HandleTable::open(name)?;               // in any process
    /// drop((station, reader));                             // the last process removes the name
    /// assert!(HandleTable::open(name).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("shm_open", "attach", "connect"))]
    pub fn open(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open(name)?)?)
    }

    /// Opens the named segment, or creates it, and takes a seat in it.
    ///
    /// ```
    /// use ndarray::Ix1;
    /// use ndshm::HandleTable;
    ///
    /// let name = &format!("weather-{}", std::process::id());
    /// let table = HandleTable::open_or_create(name)?;      // every program begins with this line
    /// table.publish("degrees", table.from_elem(24, 20.5)?)?;
    /// assert_eq!(table.read(table.find::<f64, Ix1>("degrees")?)?[0], 20.5);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    #[doc(alias("shm_open", "ray.init", "create"))]
    pub fn open_or_create(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open_or_create(name)?)?)
    }
}
