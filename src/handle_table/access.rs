//! The kinds of tables that a call takes: a participant of one thread, or one of all threads.

use std::rc::Rc;

use super::HandleTable;
use super::shared::SharedTable;
use crate::seat::{JoinError, ReapReport};

mod sealed {
    pub trait Sealed {}

    /// An argument that only this crate can pass: no function of a user runs under a table's lock.
    pub struct Inside;
}

pub(crate) use sealed::Inside;

/// A table: a [`HandleTable`] of one thread, or a [`SharedTable`] of all threads of a process.
///
/// Two kinds of values take one:
/// - The calls of [`OwnedPartition`](crate::partition::OwnedPartition),
///   [`OwnedRound`](crate::partition::OwnedRound) and
///   [`OwnedMember`](crate::partition::OwnedMember) are given `&HandleTable` or `&SharedTable`.
/// - A [`ForeignPool`](crate::pool::foreign::ForeignPool) or
///   [`ForeignWorker`](crate::pool::foreign::ForeignWorker) keeps a `&HandleTable`, a `HandleTable`
///   or a `SharedTable`. With the last two it borrows nothing, and can be sent to another thread.
///
/// They use the table for short steps. While they wait they use no table, and so hold no lock of a
/// `SharedTable`. Only this crate implements the trait.
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

impl sealed::Sealed for Rc<HandleTable> {}

/// The result of [`HandleTable::global`].
impl TableAccess for Rc<HandleTable> {
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
