//! Cells that notice accesses which exclude each other, for shuttle, which has none of its own.
//!
//! The same face as `loom::cell`. loom asks whether two accesses are *ordered*; here only whether
//! they go on at the same moment. That is less: an order that is missing shows when, in the schedule
//! at hand, the accesses meet.

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};

type Place = &'static Location<'static>;

/// The accesses that are going on, by the places that began them.
#[derive(Default)]
struct Open {
    writer: Option<Place>,
    readers: Vec<Place>,
}

type Shared = Arc<Mutex<Open>>;

/// The lock is never held across a switch of threads, so that the checker need not know of it.
fn lock(open: &Shared) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(|open| open.into_inner())
}

/// A place that accesses are announced for; it holds nothing.
pub(crate) struct UnsafeCell<T> {
    open: Shared,
    holds: PhantomData<T>,
}

impl UnsafeCell<()> {
    pub(crate) fn new((): ()) -> UnsafeCell<()> {
        UnsafeCell {
            open: Shared::default(),
            holds: PhantomData,
        }
    }

    /// Begins a read, which ends when the result is dropped.
    ///
    /// # Panics
    /// If somebody writes; names both places.
    #[track_caller]
    pub(crate) fn get(&self) -> ConstPtr<()> {
        let here = Location::caller();
        let mut open = lock(&self.open);
        if let Some(writer) = open.writer {
            panic!("read at {here} while it is written at {writer}");
        }
        open.readers.push(here);
        ConstPtr {
            open: self.open.clone(),
            here,
            holds: PhantomData,
        }
    }

    /// Begins a write, which ends when the result is dropped.
    ///
    /// # Panics
    /// If somebody writes or reads; names both places.
    #[track_caller]
    pub(crate) fn get_mut(&self) -> MutPtr<()> {
        let here = Location::caller();
        let mut open = lock(&self.open);
        if let Some(other) = open.writer.or(open.readers.first().copied()) {
            panic!("written at {here} while it is accessed at {other}");
        }
        open.writer = Some(here);
        MutPtr {
            open: self.open.clone(),
            holds: PhantomData,
        }
    }
}

/// A read that is going on.
pub(crate) struct ConstPtr<T> {
    open: Shared,
    here: Place,
    holds: PhantomData<T>,
}

impl<T> Drop for ConstPtr<T> {
    fn drop(&mut self) {
        let readers = &mut lock(&self.open).readers;
        if let Some(at) = readers.iter().position(|&place| place == self.here) {
            readers.swap_remove(at);
        }
    }
}

/// A write that is going on.
pub(crate) struct MutPtr<T> {
    open: Shared,
    holds: PhantomData<T>,
}

impl<T> Drop for MutPtr<T> {
    fn drop(&mut self) {
        lock(&self.open).writer = None;
    }
}
