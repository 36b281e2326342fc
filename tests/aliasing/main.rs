//! Each way in which safe code reaches the bytes of a segment, in programs small enough for Miri.
//!
//! `.ci/miri` runs this under Stacked Borrows and under Tree Borrows. Miri then reports an access
//! that another reference forbids, a race, or a value of the wrong type. As an ordinary test the
//! same programs check the values.

mod shared;
mod threads;
mod views;

use ndshm::{HandleTable, Segment};

/// Returns the first participant of a small segment in this process.
fn table() -> HandleTable {
    let options = Segment::options().capacity(1 << 20).seats(8);
    HandleTable::join(&options.in_process().unwrap()).unwrap()
}
