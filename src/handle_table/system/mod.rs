//! Calls that need named or default segments, or the system's pages. A model has none of them.

mod global;
mod prefault;

use super::HandleTable;
use crate::error::Error;
use crate::segment::Segment;

impl HandleTable {
    /// Opens the named segment and takes a seat in it.
    #[doc(alias("shm_open", "attach", "connect"))]
    pub fn open(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open(name)?)?)
    }

    /// Opens the named segment, or creates it, and takes a seat in it.
    #[doc(alias("shm_open", "ray.init", "create"))]
    pub fn open_or_create(name: &str) -> Result<HandleTable, Error> {
        Ok(Self::join(&Segment::open_or_create(name)?)?)
    }
}
