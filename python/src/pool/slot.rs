//! A value that one thread uses at a time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::segment::lock;

/// A value that a thread takes out for its call, also if the call releases the interpreter. So no
/// lock is held meanwhile, and a second thread gets an exception instead of a deadlock.
pub(super) struct Slot<T>(Mutex<Inner<T>>);

struct Inner<T> {
    /// In a box: it is taken out and given back in each call, and a pool's state is large.
    value: Option<Box<T>>,
    /// `remove` was called: a value that is given back is dropped.
    is_removed: bool,
}

impl<T> Slot<T> {
    pub(super) fn new(value: T) -> Slot<T> {
        Slot(Mutex::new(Inner {
            value: Some(Box::new(value)),
            is_removed: false,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        lock(&self.0)
    }

    /// Takes the value out until the result is dropped.
    pub(super) fn take(&self) -> PyResult<Taken<'_, T>> {
        let value = self.inner().value.take().ok_or_else(|| {
            PyRuntimeError::new_err(
                "the pool is closed, or another thread uses it at this moment: make a pool for each \
                 thread, or take a lock around its calls",
            )
        })?;
        Ok(Taken {
            slot: self,
            value: Some(value),
        })
    }

    /// Takes the value out for good. Returns `None` while a thread uses it: then it is dropped when
    /// that thread is done.
    pub(super) fn remove(&self) -> Option<T> {
        let mut inner = self.inner();
        inner.is_removed = true;
        inner.value.take().map(|value| *value)
    }
}

/// A value that was taken out.
pub(super) struct Taken<'a, T> {
    slot: &'a Slot<T>,
    value: Option<Box<T>>,
}

const TAKEN: &str = "it is there until the value is dropped";

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect(TAKEN)
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect(TAKEN)
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let mut inner = self.slot.inner();
        if !inner.is_removed {
            inner.value = self.value.take();
        }
        // Its destructor runs without the lock.
        drop(inner);
    }
}
