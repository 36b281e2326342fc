//! Leases of whole arrays.

use ndarray::{ArrayViewMut, Dimension};

use super::SharedTable;
use super::guards::{
    Held, SharedReadGuard, SharedUntypedReadGuard, SharedUntypedWriteGuard, SharedWriteGuard,
};
use crate::element::Element;
use crate::handle::{AnyHandle, Handle};
use crate::table::error::LeaseError;
use crate::table::locate::Located;
use crate::table::locked::{Locked, Mode, Ticket};

impl SharedTable {
    /// Leases an array for reading. Until the guard is dropped nobody writes the array, in any
    /// process, nor in another thread of this one.
    ///
    /// Any number of threads and processes may read at once.
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(1000, 0.5)?;
    /// let guard = table.read(x)?;
    /// // The guard borrows nothing, and another thread drops it.
    /// let sum = std::thread::spawn(move || guard.sum()).join().unwrap();
    /// assert_eq!(sum, 500.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::read`](crate::HandleTable::read). If another thread of this process writes
    /// the array, [`LeaseError::Busy`] has this process's pid.
    #[track_caller]
    pub fn read<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<SharedReadGuard<T, D>, LeaseError> {
        let (held, located) = self.take(handle, Mode::Read)?;
        Ok(SharedReadGuard::new(held, located))
    }

    /// Leases an array for writing. Until the guard is dropped nobody else reads or writes the
    /// array, in any process, nor in another thread of this one.
    ///
    /// The array is poisoned if a panic drops the guard, or if the process dies with it.
    ///
    /// ```
    /// use ndshm::{Segment, SharedTable};
    /// use ndshm::error::LeaseError;
    ///
    /// let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<f64, _>(3)?;
    /// let guard = table.write(x)?;
    /// let busy = std::thread::scope(|threads| {
    ///     threads.spawn(|| table.write(x).map(drop)).join().unwrap()
    /// });
    /// let Err(LeaseError::Busy { pid, .. }) = busy else { panic!("{busy:?}") };
    /// assert_eq!(pid, std::process::id());
    /// drop(guard);
    /// table.write(x)?.fill(1.0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](SharedTable::read). [`LeaseError::Busy`] also while the array has readers, other
    /// guards of this thread included.
    #[track_caller]
    pub fn write<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
    ) -> Result<SharedWriteGuard<T, D>, LeaseError> {
        let (held, located) = self.take(handle, Mode::Write)?;
        Ok(SharedWriteGuard::new(held, located))
    }

    /// Leases a poisoned array, passes it to `look`, which makes the contents good, and clears the
    /// poison. See [`HandleTable::recover`](crate::HandleTable::recover).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 1)?;
    /// std::thread::scope(|threads| {
    ///     let writer = threads.spawn(|| {
    ///         let _guard = table.write(x).unwrap();
    ///         std::panic::resume_unwind(Box::new("in the middle"));
    ///     });
    ///     assert!(writer.join().is_err());
    /// });
    /// assert!(table.read(x).is_err());                     // poisoned
    /// table.recover(x, |mut x| x.fill(0))?;
    /// assert_eq!(table.read(x)?.sum(), 0);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](SharedTable::write), but for `Poisoned`.
    ///
    /// # Panics
    /// If `look` panics; the array then stays poisoned.
    #[track_caller]
    pub fn recover<T: Element, D: Dimension, R>(
        &self,
        handle: Handle<T, D>,
        look: impl FnOnce(ArrayViewMut<'_, T, D>) -> R,
    ) -> Result<R, LeaseError> {
        let (held, located) = self.take(handle, Mode::Recover)?;
        let mut guard = SharedWriteGuard::new(held, located);
        let seen = look(guard.view_mut());
        guard.release_repaired();
        Ok(seen)
    }

    /// Declares the contents of a poisoned array good again. See
    /// [`HandleTable::clear_poison`](crate::HandleTable::clear_poison).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;
    /// table.unlock(&mut locked, true)?;                    // poisons
    /// assert!(table.read(x).is_err());
    /// table.clear_poison(x)?;
    /// assert!(table.read(x).is_ok());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn clear_poison(&self, handle: impl Into<AnyHandle>) -> Result<(), LeaseError> {
        let handle = handle.into();
        self.with(|core| core.clear_poison(handle))?
    }

    /// Leases an array for reading, with any element type. See
    /// [`HandleTable::read_untyped`](crate::HandleTable::read_untyped).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.from_elem(3, 1_u8)?;
    /// let guard = table.read_untyped(x)?;
    /// assert_eq!(std::thread::spawn(move || guard.bytes().len()).join().unwrap(), 3);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read`](SharedTable::read), but for `InvalidElement`.
    pub fn read_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<SharedUntypedReadGuard, LeaseError> {
        let locked = self.lock(handle, Mode::Read)?;
        Ok(SharedUntypedReadGuard::new(self, locked))
    }

    /// Leases an array for writing, with any element type. See
    /// [`HandleTable::write_untyped`](crate::HandleTable::write_untyped).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// let x = table.zeros::<u8, _>(3)?;
    /// let mut guard = table.write_untyped(x)?;
    /// std::thread::spawn(move || guard.bytes_mut()[0] = 1).join().unwrap();
    /// assert_eq!(table.read(x)?[0], 1);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](SharedTable::write), but for `InvalidElement`.
    pub fn write_untyped(
        &self,
        handle: impl Into<AnyHandle>,
    ) -> Result<SharedUntypedWriteGuard, LeaseError> {
        let locked = self.lock(handle, Mode::Write)?;
        Ok(SharedUntypedWriteGuard::new(self, locked))
    }

    /// Leases an array without a guard. Any thread of this process may
    /// [unlock](SharedTable::unlock) it. See [`HandleTable::lock`](crate::HandleTable::lock).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Write)?;
    /// assert!(table.read(x).is_err());                     // busy
    /// std::thread::scope(|threads| threads.spawn(|| table.unlock(&mut locked, false)).join().unwrap())?;
    /// assert!(table.read(x).is_ok());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HandleTable::lock`](crate::HandleTable::lock).
    pub fn lock(&self, handle: impl Into<AnyHandle>, mode: Mode) -> Result<Locked, LeaseError> {
        let handle = handle.into();
        self.with(|core| core.lock(handle, mode))?
    }

    /// Gives back a lease that [`lock`](SharedTable::lock) took. See
    /// [`HandleTable::unlock`](crate::HandleTable::unlock).
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndshm::untyped::Mode;
    ///
    /// let x = table.zeros::<f64, _>(3)?;
    /// let mut locked = table.lock(x, Mode::Read)?;
    /// table.unlock(&mut locked, false)?;
    /// assert!(table.unlock(&mut locked, false).is_err());  // once
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`] if the value was unlocked before, if another table locked it, or if
    /// the parent of this process did before the fork. Nothing is changed then.
    pub fn unlock(&self, locked: &mut Locked, poison: bool) -> Result<(), LeaseError> {
        self.with(|core| core.unlock(locked, poison))?
    }

    /// Returns a handle as one of an array of `T` with dimension `D`. See [`AnyHandle::downcast`].
    ///
    /// ```
    /// # use ndshm::{Segment, SharedTable};
    /// # let table = SharedTable::of(&Segment::anonymous()?)?;
    /// use ndarray::Ix2;
    ///
    /// let any: ndshm::AnyHandle = table.zeros::<f64, _>((10, 3))?.into();
    /// let x = table.downcast::<f64, Ix2>(any)?;
    /// assert_eq!(table.read(x)?.dim(), (10, 3));
    /// assert!(table.downcast::<u8, Ix2>(any).is_err());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`AnyHandle::downcast`].
    pub fn downcast<T: Element, D: Dimension>(
        &self,
        handle: AnyHandle,
    ) -> Result<Handle<T, D>, LeaseError> {
        self.with(|core| core.downcast(handle))?
    }

    /// Takes a lease, and looks for invalid elements without the lock. Until the caller says
    /// otherwise, a poisoned array stays so.
    fn take<T: Element, D: Dimension>(
        &self,
        handle: Handle<T, D>,
        mode: Mode,
    ) -> Result<(Held, Located<T, D>), LeaseError> {
        let handle = AnyHandle::from(handle);
        let (ticket, located) = self.with(|core| {
            let ticket = core.take(handle, mode)?;
            Ok::<_, LeaseError>((ticket, core.locate_leased(&ticket)))
        })??;
        self.hold(handle, ticket, located)
    }

    /// Makes a lease that was taken into one that a drop releases, and looks for invalid elements.
    pub(super) fn hold<T: Element, D: Dimension>(
        &self,
        handle: AnyHandle,
        ticket: Ticket,
        located: Result<Located<T, D>, LeaseError>,
    ) -> Result<(Held, Located<T, D>), LeaseError> {
        let held = Held::new(self, ticket.unrepaired());
        let located = located?;
        located.check(handle)?;
        Ok((held, located))
    }
}
