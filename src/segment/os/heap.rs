//! The memory of a segment under Miri, which has no address space to reserve and no files to map.
//!
//! This module replaces `mapping.rs`. An in-process segment is one allocation of the heap, so Miri
//! knows its bounds. All other code of the segment is the same.

use std::alloc::{self, Layout};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::Advice;

use crate::segment::error::SegmentError;

/// The memory of a segment; freed on drop.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the struct is an address and a length. `Memory` and the leases decide which thread may
// access the bytes.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Refuses: Miri maps no files.
    pub(crate) fn of_file(_fd: BorrowedFd<'_>, _len: u64) -> Result<Mapping, Errno> {
        Err(Errno::NOSYS)
    }

    /// Refuses: Miri maps no files.
    pub(crate) fn of_file_parts<const N: usize>(
        _fd: BorrowedFd<'_>,
        _parts: [(u64, u64); N],
    ) -> Result<(Mapping, [u64; N]), Errno> {
        Err(Errno::NOSYS)
    }

    /// Allocates `len` zeroed bytes of this process's own memory.
    pub(crate) fn private(len: u64) -> Result<Mapping, Errno> {
        let len = usize::try_from(len).map_err(|_| Errno::NOMEM)?;
        let layout = Layout::from_size_align(len, page_size()).map_err(|_| Errno::NOMEM)?;
        if len == 0 {
            return Err(Errno::INVAL);
        }
        // SAFETY: `layout` has a size, checked above.
        let base = NonNull::new(unsafe { alloc::alloc_zeroed(layout) }).ok_or(Errno::NOMEM)?;
        Ok(Mapping { base, layout })
    }

    /// Refuses: Miri maps no files.
    pub(crate) fn rebind(&self, _fd: BorrowedFd<'_>) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    /// Refuses: Miri maps no files.
    pub(crate) fn make_private(&self, _fd: BorrowedFd<'_>) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Writes zeros over whole pages, as the kernel does when it takes their memory back.
    ///
    /// # Safety
    /// - `offset + len` is within the mapping, and both are multiples of the page size.
    /// - The contents of the bytes are no longer needed, and no other access happens meanwhile.
    pub(crate) unsafe fn discard(&self, offset: u64, len: u64, _advice: Advice) -> bool {
        // SAFETY: the range is within the allocation (first duty).
        let at = unsafe { self.base.add(offset as usize) };
        // SAFETY: as above; no other access happens meanwhile (second duty).
        unsafe { at.write_bytes(0, len as usize) };
        true
    }

    /// Does nothing: there are no huge pages.
    pub(crate) fn advise_huge(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// Refuses: there are no huge pages.
    pub(crate) fn collapse(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::INVAL)
    }

    /// Does nothing: all memory is allocated.
    pub(crate) fn populate(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `private` allocated the block with this layout, and has no users left.
        unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Returns the bytes of a page.
pub(crate) fn page_size() -> usize {
    4096
}

/// Returns `None`: nothing limits the address space.
pub(crate) fn address_space_limit() -> Option<u64> {
    None
}

/// Returns the error for a failed mapping.
pub(crate) fn map_error(errno: Errno, bytes: u64) -> SegmentError {
    match errno {
        Errno::NOMEM => SegmentError::AddressSpace { bytes, limit: None },
        errno => SegmentError::Os {
            call: "mmap",
            what: "the segment (under Miri only Segment::in_process can be made)".into(),
            source: errno.into(),
        },
    }
}
