//! Leases of whole arrays, and looks without a lease.

use core::time::Duration;

use ndarray::{ArrayViewMut, Dimension};

use super::HandleTable;
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::table::error::LeaseError;
use crate::table::guard::{Attached, ReadGuard, WriteGuard};
use crate::table::locked::{Locked, Mode};
use crate::table::pin::{Pinned, RawPin};
use crate::table::untyped::{UntypedReadGuard, UntypedWriteGuard};

impl HandleTable {
    /// Leases an array for reading. Until the guard is dropped nobody writes the array, in any
    /// process.
    ///
    /// Any number of participants may read at once, and a participant may hold several guards.
    /// Arrays of `bool` are scanned for invalid bytes.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::error::LeaseError;
    ///
    /// let x = table.from_shape_fn((3, 4), |(row, _)| row as f64)?;
    /// let lease = table.read(x)?;                          // an ndarray
    /// assert_eq!(lease.row(2).sum(), 8.0);
    /// assert!(table.read(x).is_ok());                      // readers share
    /// assert!(matches!(table.write(x), Err(LeaseError::Busy { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`LeaseError::Stale`], [`LeaseError::WrongKind`].
    /// - [`LeaseError::Busy`] while the array has a writer, or a participant waits to write it; the
    ///   call does not wait ([`read_timeout`](HandleTable::read_timeout) does). If some participants
    ///   try to read and one tries to write at the same moment, all may get `Busy`. So may a
    ///   participant that reads already and asks again while another tries to write.
    /// - [`LeaseError::Poisoned`] after a writer has died or panicked.
    #[doc(alias("get", "lock", "borrow", "view", "get_lock", "RwLock"))]
    #[inline(always)]
    #[track_caller]
    pub fn read<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<ReadGuard<'_, T, D>, LeaseError> {
        self.core.read(handle)
    }

    /// Leases an array for writing. Until the guard is dropped nobody else reads or writes the
    /// array.
    ///
    /// The array is poisoned if a panic drops the guard, or if the process dies with it.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>((3, 4))?;
    /// {
    ///     let mut lease = table.write(x)?;
    ///     lease.row_mut(1).fill(1.5);
    ///     lease[[0, 0]] = 1.0;
    /// }                                                    // from here on others can read
    /// assert_eq!(table.read(x)?.sum(), 7.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](HandleTable::read). [`LeaseError::Busy`] also while the array has readers, this
    /// participant included.
    #[doc(alias(
        "get_mut",
        "lock",
        "borrow_mut",
        "view_mut",
        "get_lock",
        "RwLock",
        "Mutex",
        "MPI_Win_lock"
    ))]
    #[inline(always)]
    #[track_caller]
    pub fn write<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<WriteGuard<'_, T, D>, LeaseError> {
        self.core.write(handle)
    }

    /// Leases an array for reading as [`read`](HandleTable::read) does, and waits for its writers,
    /// for at most `timeout`.
    ///
    /// Spins briefly, then sleeps until the writer has gone. Looks for dead holders at least every 20
    /// ms, and ends their leases. Participants that wait to write come first. With
    /// `Duration::MAX` it waits without end. A participant that reads the array already gets its
    /// lease at once.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use std::time::Duration;
    ///
    /// let segment = Segment::anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut lease = table.write(x)?;
    /// std::thread::scope(|threads| {
    ///     let reader = threads.spawn(|| {
    ///         let other = HandleTable::join(&segment)?;
    ///         let sum = other.read_timeout(x, Duration::from_secs(10))?.sum();
    ///         Ok::<_, ndshm::Error>(sum)
    ///     });
    ///     lease.fill(1.5);
    ///     drop(lease);                                     // the reader wakes up
    ///     assert_eq!(reader.join().unwrap()?, 4.5);
    ///     Ok::<_, ndshm::Error>(())
    /// })?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](HandleTable::read), but instead of `Busy`
    /// - [`LeaseError::TimedOut`] after `timeout`, with a holder,
    /// - [`LeaseError::Deadlock`] at once if this participant itself writes the array.
    ///
    /// [`LeaseError::Poisoned`] also if the writer dies during the wait, and [`LeaseError::Stale`] if
    /// the array is freed.
    #[doc(alias("acquire", "lock", "wait"))]
    #[track_caller]
    pub fn read_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<ReadGuard<'_, T, D>, LeaseError> {
        self.core.read_timeout(handle, timeout)
    }

    /// Leases an array for writing as [`write`](HandleTable::write) does, and waits for its readers
    /// and writers, for at most `timeout`.
    ///
    /// Waits as [`read_timeout`](HandleTable::read_timeout) does. While it waits for readers to
    /// leave, it turns new ones away, so a stream of readers does not hold it off: they get `Busy`
    /// from `read`, and sleep in `read_timeout`. If this process is killed while it waits, the array
    /// is not poisoned.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # use std::time::Duration;
    /// # let segment = Segment::anonymous()?;
    /// # let table = HandleTable::join(&segment)?;
    /// use ndshm::error::LeaseError;
    ///
    /// let other = HandleTable::join(&segment)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// table.write_timeout(x, Duration::from_secs(10))?.fill(1.0);
    ///
    /// let lease = other.read(x)?;
    /// let refused = table.write_timeout(x, Duration::from_millis(5));
    /// assert!(matches!(refused, Err(LeaseError::TimedOut { .. })));
    /// // A participant does not wait for itself.
    /// let refused = other.write_timeout(x, Duration::MAX);
    /// assert!(matches!(refused, Err(LeaseError::Deadlock { .. })));
    /// # drop(lease);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_timeout`](HandleTable::read_timeout). [`LeaseError::Deadlock`] also if this
    /// participant reads the array, or takes part in a round on it.
    #[doc(alias("acquire", "lock", "wait"))]
    #[track_caller]
    pub fn write_timeout<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        timeout: Duration,
    ) -> Result<WriteGuard<'_, T, D>, LeaseError> {
        self.core.write_timeout(handle, timeout)
    }

    /// Leases a poisoned array, passes it to `look`, which makes the contents good, and clears the
    /// poison. Nobody else gets the array in between. An array that is not poisoned is passed as
    /// well.
    ///
    /// If the contents need no look, use [`clear_poison`](HandleTable::clear_poison). If torn tiles
    /// have poisoned the array, [`Partition::recover`](crate::Partition::recover) repairs these tiles
    /// in all arrays of their group.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # use ndshm::error::LeaseError;
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # let x = table.zeros::<f64, _>(3)?;
    /// # let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
    /// #     let mut half = table.write(x).unwrap();
    /// #     half[0] = f64::NAN;
    /// #     std::panic::resume_unwind(Box::new(()));
    /// # }));
    /// if let Err(LeaseError::Poisoned { pid, what, .. }) = table.read(x) {
    ///     eprintln!("process {pid} was writing {what}");
    ///     let repaired = table.recover(x, |mut view| {
    ///         let bad = view.iter_mut().filter(|x| x.is_nan());
    ///         bad.map(|x| *x = 0.0).count()
    ///     })?;
    ///     assert_eq!(repaired, 1);
    /// }
    /// assert_eq!(table.read(x)?.sum(), 0.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](HandleTable::write), but for `Poisoned`. [`LeaseError::InvalidElement`] if
    /// bytes are not values of `T`: the array then stays as it is, and can only be freed.
    ///
    /// # Panics
    /// If `look` panics; the array then stays poisoned.
    #[doc(alias("repair", "PoisonError"))]
    #[inline]
    #[track_caller]
    pub fn recover<T: Element, D: Dimension, R>(
        &self,
        handle: Handle<T, D>,
        look: impl FnOnce(ArrayViewMut<'_, T, D>) -> R,
    ) -> Result<R, LeaseError> {
        self.core.recover(handle, look)
    }

    /// Declares the contents of a poisoned array good again. The caller has checked them (see
    /// [`attach`](HandleTable::attach)) or is about to overwrite them. Use
    /// [`recover`](HandleTable::recover) for exclusive access meanwhile.
    ///
    /// A poisoned array may still have readers: a participant that died while it tried to write,
    /// before it checked for readers, counts as a writer.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::error::LeaseError;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let torn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
    ///     let _lease = table.write(x).unwrap();
    ///     panic!("half-written");
    /// }));
    /// assert!(torn.is_err());
    /// assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    /// table.clear_poison(x)?;                              // zeros are good
    /// assert_eq!(table.read(x)?.sum(), 0.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Busy`] while a round still has participants after the death of its opener.
    #[inline]
    pub fn clear_poison(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        self.core.clear_poison(handle)
    }

    /// Leases an array for reading as [`read`](HandleTable::read) does, with any element type.
    ///
    /// Arrays of `bool` are not checked: the bytes may be any.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 1_u16)?;
    /// let lease = table.read_untyped(x)?;
    /// assert_eq!(lease.shape(), [3]);
    /// assert_eq!(lease.bytes(), [1, 0, 1, 0, 1, 0]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](HandleTable::read), but for `InvalidElement`. [`LeaseError::WrongKind`] if
    /// the handle names a control array: a partition, a queue, a bundle, or memory of the crate
    /// itself.
    #[inline]
    pub fn read_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<UntypedReadGuard<'_>, LeaseError> {
        self.core.read_untyped(handle)
    }

    /// Leases an array for writing as [`write`](HandleTable::write) does, with any element type.
    ///
    /// The bytes are not checked: the next typed lease refuses a `bool` that is neither 0 nor 1.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u16, _>(2)?;
    /// table.write_untyped(x)?.bytes_mut().copy_from_slice(&[1, 0, 2, 0]);
    /// assert_eq!(table.read(x)?.sum(), 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_untyped`](HandleTable::read_untyped). [`LeaseError::Busy`] also while the array
    /// has readers, this participant included.
    #[inline]
    pub fn write_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<UntypedWriteGuard<'_>, LeaseError> {
        self.core.write_untyped(handle)
    }

    /// Leases an array for reading as [`read_untyped`](HandleTable::read_untyped) does, and waits as
    /// [`read_timeout`](HandleTable::read_timeout) does.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// # use std::time::Duration;
    /// let x = table.from_elem(2, 258_u16)?;
    /// let lease = table.read_untyped_timeout(x, Duration::from_secs(10))?; // waits for a writer
    /// assert_eq!(lease.bytes(), [2, 1, 2, 1]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_timeout`](HandleTable::read_timeout), but for `InvalidElement`.
    pub fn read_untyped_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        timeout: Duration,
    ) -> Result<UntypedReadGuard<'_>, LeaseError> {
        self.core.read_untyped_timeout(handle.into(), timeout)
    }

    /// Leases an array for writing as [`write_untyped`](HandleTable::write_untyped) does, and waits
    /// as [`write_timeout`](HandleTable::write_timeout) does.
    ///
    /// ```
    /// # let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// # use std::time::Duration;
    /// let x = table.zeros::<u16, _>(2)?;
    /// let patience = Duration::from_secs(10);
    /// table.write_untyped_timeout(x, patience)?.bytes_mut().fill(1);
    /// assert_eq!(table.read_untyped_timeout(x, patience)?.bytes(), [1; 4]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write_timeout`](HandleTable::write_timeout), but for `InvalidElement`.
    pub fn write_untyped_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        timeout: Duration,
    ) -> Result<UntypedWriteGuard<'_>, LeaseError> {
        self.core.write_untyped_timeout(handle.into(), timeout)
    }

    /// Leases an array without a borrow of the table: for languages with garbage collection. The
    /// array stays leased until [`unlock`](HandleTable::unlock).
    ///
    /// [`Locked::bytes`](crate::untyped::Locked::bytes) has the address, and an example.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;        // borrows nothing
    /// assert!(table.read(x).is_err());
    /// table.unlock(&mut locked, false)?;
    /// assert!(table.read(x).is_ok());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_untyped`](HandleTable::read_untyped) or
    /// [`write_untyped`](HandleTable::write_untyped), by the mode. [`Mode::Recover`] leases
    /// poisoned arrays, too.
    pub fn lock(&self, handle: impl Into<AnyHandle>, mode: Mode) -> Result<Locked, LeaseError> {
        self.core.lock(handle.into(), mode)
    }

    /// Leases an array as [`lock`](HandleTable::lock) does, and waits as
    /// [`read_timeout`](HandleTable::read_timeout) or [`write_timeout`](HandleTable::write_timeout)
    /// does, by the mode.
    ///
    /// ```
    /// # let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// # use std::time::Duration;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock_timeout(x, Mode::Write, Duration::from_secs(10))?;
    /// table.unlock(&mut locked, false)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lock`](HandleTable::lock), but [`LeaseError::TimedOut`] or [`LeaseError::Deadlock`]
    /// instead of `Busy`.
    pub fn lock_timeout(
        &self,
        handle: impl Into<AnyHandle>,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Locked, LeaseError> {
        self.core.lock_timeout(handle.into(), mode, timeout)
    }

    /// Gives back a lease that this table's [`lock`](HandleTable::lock) took. `poison` says that
    /// the bytes may be half-written, as after an exception: an array that was locked for writing
    /// is then poisoned, as by a guard that a panic drops.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`] if the value was unlocked before, if another table locked it, or if
    /// the parent of this process did before the fork. Nothing is changed then.
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::error::LeaseError;
    /// use ndshm::untyped::Mode;
    ///
    /// let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;
    /// table.unlock(&mut locked, true)?;
    /// assert!(matches!(table.read(x), Err(LeaseError::Poisoned { .. })));
    /// assert!(matches!(table.unlock(&mut locked, false), Err(LeaseError::NotHeld { .. })));
    ///
    /// let mut locked = table.lock(x, Mode::Recover)?;
    /// table.unlock(&mut locked, false)?;
    /// assert_eq!(table.read(x)?.sum(), 0.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn unlock(&self, locked: &mut Locked, poison: bool) -> Result<(), LeaseError> {
        self.core.unlock(locked, poison)
    }

    /// Pins an array: until the guard is dropped, its bytes stay this array's, also after the array
    /// is freed. A freed array's handle is stale at once, but its memory is reused only after the
    /// last pin.
    ///
    /// A pin excludes nobody: the array can be read, written, recovered and freed meanwhile, and an
    /// array that has a writer, or is poisoned, can be pinned. So nothing orders what is read
    /// through a pin, and reading is unsafe. A participant may pin an array several times. What a
    /// dead participant had pinned is given back by the next reap.
    ///
    /// ```
    /// # use ndarray::{Ix1, array};
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 7u64)?;
    /// let pinned = table.pin(x)?;
    /// table.free(x)?;
    /// assert!(table.read(x).is_err() && table.pin(x).is_err());
    /// // SAFETY: the program does not write the array any more.
    /// let view = unsafe { pinned.view::<u64, Ix1>() }?;
    /// assert_eq!(view, array![7, 7, 7]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`LeaseError::Stale`]; never `Busy` or `Poisoned`.
    /// - [`LeaseError::WrongKind`] if the handle names a control array: a partition, a queue, a
    ///   bundle, or memory of the crate itself.
    pub fn pin(&self, handle: impl Into<AnyHandle>) -> Result<Pinned<'_>, LeaseError> {
        self.core.pin(handle.into())
    }

    /// Pins an array as [`pin`](HandleTable::pin) does, until [`unpin`](HandleTable::unpin) or
    /// until the table is dropped. For programs that cannot borrow the table.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 1.0)?;
    /// let mut pin = table.pin_raw(x)?;                     // borrows nothing
    /// table.free(x)?;
    /// assert_eq!(pin.len(), 24);                           // its bytes are still in place
    /// table.unpin(&mut pin)?;
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`pin`](HandleTable::pin).
    pub fn pin_raw(&self, handle: impl Into<AnyHandle>) -> Result<RawPin, LeaseError> {
        self.core.pin_raw(handle.into())
    }

    /// Gives back a pin that this table's [`pin_raw`](HandleTable::pin_raw) took.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`] if the value was unpinned before, if another table pinned the array,
    /// or if the parent of this process did before the fork. Nothing is changed then.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment, error::LeaseError};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f32, _>((2, 3))?;
    /// let mut pin = table.pin_raw(x)?;
    /// assert_eq!((pin.shape(), pin.len()), (&[2, 3][..], 24));
    /// table.free(x)?;
    /// table.unpin(&mut pin)?;
    /// assert!(matches!(table.unpin(&mut pin), Err(LeaseError::NotHeld { .. })));
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn unpin(&self, pin: &mut RawPin) -> Result<(), LeaseError> {
        self.core.unpin(pin)
    }

    /// Returns the arrays that this participant has pinned, and the number of its pins of each.
    /// Some may have been freed.
    ///
    /// In a child that a fork has made they are those of its parent until the child first uses the
    /// table, so that it can pin the arrays for itself.
    ///
    /// ```
    /// # let table = ndshm::HandleTable::join(&ndshm::Segment::anonymous()?)?;
    /// let x = table.zeros::<f32, _>(3)?;
    /// let (_first, _second) = (table.pin(x)?, table.pin(x)?);
    /// assert_eq!(table.pins(), [(x.into(), 2)]);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pins(&self) -> Vec<(AnyHandle, usize)> {
        self.core.pins()
    }

    /// Looks up an array without a lease. Returns its shape, and a pointer for callers that
    /// synchronise by other means. Unlike a [pin](HandleTable::pin), it does not keep the bytes
    /// from becoming those of another array.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// let x = table.from_elem((3, 4), 1.0)?;
    /// let attached = table.attach(x)?;
    /// assert_eq!(attached.shape(), [3, 4]);
    /// // SAFETY: the array is this program's alone, and it is not freed meanwhile.
    /// assert_eq!(unsafe { *attached.as_ptr() }, 1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] and [`LeaseError::WrongKind`]; never `Busy` or `Poisoned`.
    #[doc(alias("get_unchecked", "data_ptr", "from_raw_parts"))]
    #[inline]
    pub fn attach<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<Attached<'_, T, D>, LeaseError> {
        self.core.attach(handle)
    }
}

impl AnyHandle {
    /// Returns the handle as one of an array of `T` with dimension `D`.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// use ndarray::Ix1;
    ///
    /// let any = ndshm::AnyHandle::from(table.from_elem(3, 1.0_f32)?);
    /// assert!(any.downcast::<f64, Ix1>(&table).is_err());
    /// let x = any.downcast::<f32, Ix1>(&table)?;
    /// assert_eq!(table.read(x)?.sum(), 3.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::Stale`] if it names none. [`LeaseError::WrongKind`] names both types if
    /// they differ.
    pub fn downcast<T: Element, D: Dimension>(
        self,
        table: &HandleTable,
    ) -> Result<Handle<T, D>, LeaseError> {
        table.core.downcast(self)
    }
}
