//! The ways in which a foreign pool or worker holds its table.

use crate::handle_table::HandleTable;
use crate::handle_table::shared::SharedTable;
use crate::seat::{JoinError, ReapReport};

mod sealed {
    pub trait Sealed {}

    /// An argument that only this crate can pass: no function of a user runs under a table's lock.
    pub struct Inside;
}

pub(super) use sealed::Inside;

/// Holds a table: borrowed, shared by the process, or owned with a seat of its own.
///
/// A pool or worker uses its table for short calls. While it waits it uses no table, and so holds
/// no lock of a [`SharedTable`]. The crate implements the trait for `&HandleTable`, and for
/// [`SharedTable`] and `HandleTable`: with these two a pool borrows nothing, and can be sent to
/// another thread.
///
/// ```
/// use std::time::Duration;
/// use ndshm::pool::foreign::{Answer, ForeignPool, ForeignWorker};
/// use ndshm::{Segment, SharedTable};
///
/// let table = SharedTable::of(&Segment::anonymous()?)?;
/// let mut pool = ForeignPool::new(table.clone(), 1)?;
/// let second = Duration::from_secs(1);
/// let mut worker = ForeignWorker::attach(table.clone(), pool.handle(), None, second)?;
/// pool.call(1, b"a call")?;
/// let waiting = std::thread::spawn(move || {
///     while !pool.wait(second).unwrap() {}
///     pool.end().unwrap()
/// });
/// // The parent waits, and the table can be used.
/// let x = table.zeros::<u8, _>(3)?;
/// let call = worker.next(second)?.expect("it was opened");
/// worker.finish(&call.bytes)?;
/// let answers = waiting.join().unwrap();
/// assert_eq!(answers[0].outcome, Answer::Finished(b"a call".to_vec()));
/// # table.free(x)?;
/// # Ok::<(), ndshm::Error>(())
/// ```
pub trait TableAccess: sealed::Sealed {
    /// Calls `run` with the table, which lives as long as `self`: in each process the same one.
    #[doc(hidden)]
    fn with<R>(&self, inside: Inside, run: impl FnOnce(&HandleTable) -> R) -> Result<R, JoinError>;

    #[doc(hidden)]
    fn reap(&self, inside: Inside) -> Result<ReapReport, JoinError>;
}

impl sealed::Sealed for &HandleTable {}

impl TableAccess for &HandleTable {
    fn with<R>(&self, _: Inside, run: impl FnOnce(&HandleTable) -> R) -> Result<R, JoinError> {
        Ok(run(self))
    }

    fn reap(&self, _: Inside) -> Result<ReapReport, JoinError> {
        HandleTable::reap(self)
    }
}

impl sealed::Sealed for HandleTable {}

impl TableAccess for HandleTable {
    fn with<R>(&self, _: Inside, run: impl FnOnce(&HandleTable) -> R) -> Result<R, JoinError> {
        Ok(run(self))
    }

    fn reap(&self, _: Inside) -> Result<ReapReport, JoinError> {
        HandleTable::reap(self)
    }
}

impl sealed::Sealed for SharedTable {}

impl TableAccess for SharedTable {
    fn with<R>(&self, _: Inside, run: impl FnOnce(&HandleTable) -> R) -> Result<R, JoinError> {
        self.with_table(run)
    }

    fn reap(&self, _: Inside) -> Result<ReapReport, JoinError> {
        SharedTable::reap(self)
    }
}
