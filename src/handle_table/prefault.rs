//! First touch ahead of time: creates an array's pages before their first use.

use super::HandleTable;
use crate::descriptor::{Descriptor, WrongKind};
use crate::error::Error;
use crate::handle::AnyHandle;
use crate::message::Bytes;
use crate::segment::SegmentError;
use crate::span::Spans;
use crate::table::error::LeaseError;

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
    /// # Errors
    /// - [`Error::Lease`] as for [`read_untyped`](crate::HandleTable::read_untyped): the array must not be
    ///   freed meanwhile.
    /// - [`SegmentError::Os`] if the system has no pages.
    pub fn prefault(&self, handle: impl Into<AnyHandle>) -> Result<(), Error> {
        let handle = handle.into();
        let lease = self.core.lease_shared(handle)?;
        let memory = self.segment().memory();
        let slot = lease.slot.index;
        let descriptor = Descriptor::load(memory.descriptor(slot));
        if descriptor.is_some_and(|descriptor| descriptor.is_control()) {
            return Err(LeaseError::from(WrongKind::control(handle)).into());
        }
        let bytes = descriptor.and_then(|descriptor| descriptor.bytes_in(memory));
        let place = Spans::of(memory).extent(slot).zip(bytes);
        let fits = place.filter(|(extent, bytes)| {
            let inside = memory.data(extent.offset, extent.size()).is_some();
            inside && *bytes <= extent.size()
        });
        let Some((extent, bytes)) = fits else {
            let what = "the shape does not fit into the extent";
            return Err(self.core.look().corrupt(handle, what).into());
        };
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
