//! Copies of arrays, made by the system while others may write them.

use std::io;

use super::Observer;
use crate::handle::AnyHandle;
use crate::table::error::LeaseError;
use crate::word::SlotIndex;

impl Observer {
    /// Copies bytes of an array into `out`, starting `offset` bytes after its first element.
    ///
    /// The bytes are read from the segment's file, in memory order (see
    /// [`ArrayInfo::order`](crate::inspect::ArrayInfo)). Concurrent writes are neither detected nor
    /// excluded: the copy may be torn anywhere, partly from before and partly from after a write.
    /// But all of it is from this array; if the array is freed meanwhile, the call fails.
    ///
    /// ```
    /// use ndshm::{HandleTable, Observer, Segment};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.from_elem::<u16, _>(100, 7)?;
    ///
    /// let observer = Observer::from_fd(segment.inheritable_fd()?)?;
    /// let mut last = [0; 2];
    /// observer.copy_bytes(x, 198, &mut last)?;
    /// assert_eq!(u16::from_ne_bytes(last), 7);
    /// assert!(observer.copy_bytes(x, 199, &mut last).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::OutOfRange`] beyond the array's last byte,
    /// [`LeaseError::Stale`], [`LeaseError::Corrupt`], or [`LeaseError::WrongKind`] if the
    /// handle names something other than an array (such as a queue); [`LeaseError::Unreadable`] if
    /// the system cannot read the file. After an error the contents of `out` are unspecified.
    pub fn copy_bytes(
        &self,
        handle: impl Into<AnyHandle>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), LeaseError> {
        let handle = handle.into();
        let (slot, generation) = self.found(|look| look.live(handle))?;
        let place = self.place(handle, slot.index, offset, out.len() as u64);
        let read = match &place {
            Ok(at) => self.observed.read(*at, out),
            Err(_) => Ok(()),
        };
        // Check the word again: if it is unchanged, the extent has been this array's until now, so
        // the bytes and the place are this array's too.
        if !slot.word().is_live(generation) {
            return Err(LeaseError::Stale { handle });
        }
        place?;
        read.map_err(|source: io::Error| LeaseError::Unreadable { handle, source })
    }

    /// Returns the offset in the file of `len` bytes from `offset` of the array in `slot`.
    fn place(
        &self,
        handle: AnyHandle,
        slot: SlotIndex,
        offset: u64,
        len: u64,
    ) -> Result<u64, LeaseError> {
        let look = self.tables();
        let memory = look.memory;
        let found = look.measure_untyped(slot, handle)?;
        let (bytes, extent) = (found.bytes, found.extent);
        match offset.checked_add(len) {
            Some(end) if end <= bytes => Ok(memory.layout().data + extent.offset + offset),
            _ => Err(LeaseError::OutOfRange {
                handle,
                offset,
                len,
                bytes,
            }),
        }
    }
}
