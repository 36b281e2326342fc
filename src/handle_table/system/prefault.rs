//! First touch ahead of time: creates an array's pages before their first use.

use crate::error::Error;
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::message::Bytes;
use crate::segment::SegmentError;

impl HandleTable {
    /// Creates the pages of an array and maps them into this process, as a write to the whole array
    /// would. Its contents stay. On NUMA machines the pages are on this thread's node. They are
    /// huge as far as [`SegmentOptions::huge_pages`](crate::SegmentOptions::huge_pages) and the
    /// system allow.
    ///
    /// Fresh pages cost a fault each at their first use; a recycled array has its pages already.
    /// [`Pool::prefault`](crate::Pool::prefault) has the pages created by the workers that will use
    /// them, all at once.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((1000, 1000))?;
    /// table.prefault(x)?;                                  // from here on the pages are there
    /// table.write(x)?.fill(1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Lease`] as for [`read_untyped`](crate::HandleTable::read_untyped): the array must
    ///   not be freed meanwhile.
    /// - [`SegmentError::Os`] if the system has no pages.
    pub fn prefault(&self, handle: impl Into<AnyHandle>) -> Result<(), Error> {
        let handle = handle.into();
        let lease = self.core.lease_shared(handle)?;
        let memory = self.segment().memory();
        let found = self
            .core
            .tables()
            .measure_untyped(lease.slot.index, handle)?;
        let (extent, bytes) = (found.extent, found.bytes);
        if memory.data(extent.offset, extent.size()).is_none() {
            let what = "the extent is not in the data region";
            return Err(self.core.tables().corrupt(handle, what).into());
        }
        let array = extent.offset..extent.offset + bytes;
        let touched = self.segment().touch(array.clone(), array);
        match touched.missing {
            0 => Ok(()),
            errno => Err(Error::Segment(SegmentError::Os {
                call: "madvise(MADV_POPULATE_WRITE)",
                what: format!("{} of array {handle}", Bytes(bytes)),
                source: std::io::Error::from_raw_os_error(errno),
            })),
        }
    }
}
