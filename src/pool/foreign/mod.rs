//! A pool of workers that this crate did not start: processes of multiprocessing, ranks of MPI,
//! other programs. A call is a number and bytes; each worker answers with bytes.
//!
//! [`ForeignPool`] is the parent's side, [`ForeignWorker`] the worker's. Both hold the table by any
//! [`TableAccess`]. The program gives the numbers and bytes their meaning. If a call's bytes contain
//! the handle of a [partition](crate::Partition), the workers can share a round of it.
//!
//! ```
//! use std::time::Duration;
//! use ndshm::pool::foreign::{Answer, ForeignHandle, ForeignPool, ForeignWorker};
//! use ndshm::{HandleTable, Segment};
//!
//! const SECOND: Duration = Duration::from_secs(1);
//!
//! /// A worker, in any process of the segment.
//! fn work(segment: &Segment, handle: ForeignHandle) -> ndshm::Result<()> {
//!     let table = HandleTable::join(segment)?;
//!     let mut worker = ForeignWorker::attach(&table, handle, None, SECOND)?;
//!     loop {
//!         match worker.next(SECOND) {
//!             Ok(None) => {}                                  // nothing to do so far
//!             Ok(Some(call)) if call.number == 7 => worker.finish(&[call.bytes.len() as u8])?,
//!             Ok(Some(_)) => worker.fail(b"no such function")?,
//!             Err(error) if error.is_gone() => return Ok(()), // the pool has ended
//!             Err(error) => return Err(error.into()),
//!         }
//!     }
//! }
//!
//! let segment = Segment::anonymous()?;
//! let table = HandleTable::join(&segment)?;
//! let mut pool = ForeignPool::new(&table, 2)?;
//! let handle = pool.handle();                                 // 8 bytes, sent by any means
//! std::thread::scope(|scope| {
//!     let workers = [(); 2].map(|()| scope.spawn(|| work(&segment, handle)));
//!     assert!(pool.wait_for_workers(2, 10 * SECOND)?);
//!
//!     pool.call(7, b"some bytes")?;
//!     while !pool.wait(SECOND)? {}                            // false: not over yet
//!     for answer in pool.end()? {
//!         assert_eq!(answer.outcome, Answer::Finished(vec![10]));
//!     }
//!     drop(pool);                                             // tells the workers to end
//!     workers.into_iter().try_for_each(|worker| worker.join().unwrap())
//! })?;
//! # Ok::<(), ndshm::Error>(())
//! ```

mod parent;
#[cfg(test)]
mod tests;
pub(super) mod words;
mod worker;

use bytemuck::{Pod, Zeroable};

use crate::descriptor::Descriptor;
use crate::handle::AnyHandle;
pub use crate::handle_table::access::TableAccess;
use crate::span::Extent;
pub use parent::{Answer, ForeignPool, WorkerAnswer};
pub use worker::{ForeignCall, ForeignWorker};

/// Names a [`ForeignPool`] in every process that has its segment. A plain number, like a
/// [`Handle`](crate::Handle).
///
/// ```
/// use ndshm::pool::foreign::{ForeignHandle, ForeignPool};
/// use ndshm::{HandleTable, Segment};
///
/// let table = HandleTable::join(&Segment::anonymous()?)?;
/// let pool = ForeignPool::new(&table, 2)?;
/// let bits = pool.handle().to_bits();                  // sent by any means
/// assert_eq!(ForeignHandle::from_bits(bits), pool.handle());
/// # Ok::<(), ndshm::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct ForeignHandle(u64);

impl ForeignHandle {
    /// Creates a handle from its bits. Its use checks if they name a pool.
    ///
    /// [`ForeignHandle`] has an example.
    pub const fn from_bits(bits: u64) -> Self {
        ForeignHandle(bits)
    }

    /// Returns the bits, to pass the handle on.
    ///
    /// [`ForeignHandle`] has an example.
    pub const fn to_bits(self) -> u64 {
        self.0
    }
}

/// The handle of the pool's control array. Only the crate itself can use or free that.
impl From<ForeignHandle> for AnyHandle {
    fn from(handle: ForeignHandle) -> AnyHandle {
        AnyHandle::from_bits(handle.0)
    }
}

/// Returns `true` if a foreign pool can have this descriptor, and has room.
pub(crate) fn is_sound(descriptor: &Descriptor, extent: Extent) -> bool {
    words::At::of(descriptor, extent).is_some()
}
