//! Leaving a segment while there are pins and other values of the table.

use super::{SharedPin, SharedTable};
use crate::seat::JoinError;
use crate::segment::fork::process_token;

impl SharedTable {
    /// Leaves the segment, for the whole process, with all that this table has in it. The memory
    /// stays readable: see [`Segment::leave`](crate::Segment::leave).
    ///
    /// `Segment::leave` needs the tables dropped before it, and with them their pins. Between the
    /// two calls a thread may write through an address that it has from a pin, into bytes that
    /// another process uses by then. Here the pins are given back after the last store of this
    /// process has reached the segment. After an error of opening or mapping nothing has changed;
    /// after another one the process has left.
    ///
    /// For other processes the participant has died: the next one that joins or
    /// [reaps](SharedTable::reap) takes back its arrays, pins and leases. An array that was leased
    /// for writing is poisoned. A forked child that has not used the segment yet keeps the
    /// seat alive until it does, or ends. Every later call on a clone of the table returns
    /// [`SegmentError::Left`](crate::error::SegmentError::Left).
    ///
    /// The pages of the arrays in `kept` are copied: they show the same until the segment is
    /// dropped. All other views show the current bytes of the segment, which may be another array by
    /// then. So do views of `kept` without memory for a copy.
    ///
    /// # Safety
    /// Pages that this process has not written show the segment's bytes, which other processes may
    /// use from now on. So after this call nothing of the table may be used that gives references to
    /// an array:
    /// - No guard of a lease, no Arrow array that the table has lent, no part of a tile and no
    ///   builder of the table is used any more. They may be dropped.
    /// - No other thread is in a call on the table, or on a partition, a round, a member or a
    ///   foreign pool of it.
    ///
    /// Pins are no part of it: reading through a pin has its own duties.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = SharedTable::of(&segment)?;
    /// let pin = table.pin(table.from_elem(3, 7u8)?)?;
    /// // SAFETY: there are no guards and no builders, and this is the only thread.
    /// unsafe { table.leave([&pin])? };
    /// // SAFETY: nobody writes the array.
    /// assert_eq!(unsafe { pin.bytes() }, [7, 7, 7]);
    /// assert!(table.zeros::<f64, _>(3).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`SegmentError::Joined`](crate::error::SegmentError::Joined) if the process has other seats
    ///   in the segment, as of a [`HandleTable`](crate::HandleTable).
    /// - [`SegmentError::NotShared`](crate::error::SegmentError::NotShared) for an in-process
    ///   segment.
    /// - The errors of `Segment::leave`.
    pub unsafe fn leave<'p>(
        &self,
        kept: impl IntoIterator<Item = &'p SharedPin>,
    ) -> Result<(), JoinError> {
        let kept: Vec<_> = kept.into_iter().map(|pin| pin.range()).collect();
        self.with_seat(|seat| {
            let outcome = self.inner.segment.leave_with_seat(&kept);
            if self.inner.segment.has_left() {
                // No process has this token: the next call finds that the process has left.
                seat.token = !process_token();
            }
            Ok(outcome?)
        })?
    }
}
