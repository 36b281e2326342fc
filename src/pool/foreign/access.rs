//! The ways in which a foreign pool or worker holds its table.

use crate::handle_table::HandleTable;

mod sealed {
    pub trait Sealed {}
}

/// Holds a table: borrowed, or owned with a seat of its own.
///
/// A pool or worker uses its table for short calls. While it waits it does not use the table. The
/// crate implements the trait for `&HandleTable`, and for `HandleTable`: such a pool borrows
/// nothing, and can be sent to another thread.
///
/// ```
/// use ndshm::pool::foreign::ForeignPool;
/// use ndshm::{HandleTable, Segment};
///
/// let segment = Segment::anonymous()?;
/// let pool = ForeignPool::new(HandleTable::join(&segment)?, 2)?;
/// let handle = std::thread::spawn(move || pool.handle()).join().unwrap();
/// assert_ne!(handle.to_bits(), 0);
/// # Ok::<(), ndshm::Error>(())
/// ```
pub trait TableAccess: sealed::Sealed {
    /// Calls `run` with the table, which is always the same one and lives as long as `self`.
    #[doc(hidden)]
    fn with<R>(&self, run: impl FnOnce(&HandleTable) -> R) -> R;
}

impl sealed::Sealed for &HandleTable {}

impl TableAccess for &HandleTable {
    fn with<R>(&self, run: impl FnOnce(&HandleTable) -> R) -> R {
        run(self)
    }
}

impl sealed::Sealed for HandleTable {}

impl TableAccess for HandleTable {
    fn with<R>(&self, run: impl FnOnce(&HandleTable) -> R) -> R {
        run(self)
    }
}
