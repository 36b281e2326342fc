//! Words for the model checker, on which a thread can die between any two operations.
//!
//! Under loom all threads of a model are coroutines of one thread, so a panic in any of them counts
//! for all. Operations therefore do nothing while a thread unwinds. A kill needs exactly that (a
//! killed process cleans nothing up), and a failed model reaches its report undisturbed.

use core::cell::Cell;
use core::panic::Location;
use core::sync::atomic::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::checker::{AtomicU64, thread_local};

use super::site::{Part, in_force};

thread_local! {
    /// Operations that this thread may still do. `u64::MAX`: not counted, as in a model's threads.
    static LEFT: Cell<u64> = Cell::new(u64::MAX);
}

/// The payload with which a dying thread unwinds.
struct Death;

/// Runs `life` until just before its operation number `steps`, from 0. Returns `None` if it died.
pub(crate) fn until_death<R>(steps: u64, life: impl FnOnce() -> R) -> Option<R> {
    LEFT.with(|left| left.set(steps));
    let outcome = catch_unwind(AssertUnwindSafe(life));
    LEFT.with(|left| left.set(u64::MAX));
    match outcome {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Death>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// Unwinds like a dying thread: no operation on the way has an effect.
pub(crate) fn die() -> ! {
    // Skip the panic hook, because nothing is wrong.
    resume_unwind(Box::new(Death))
}

/// Returns `true` if the next operation must have no effect. Counts the operation. If none
/// is left, the thread dies instead.
pub(super) fn is_gone() -> bool {
    if std::thread::panicking() {
        return true;
    }
    let left = LEFT.with(|left| {
        let now = left.get();
        left.set(now.saturating_sub(u64::from(now != u64::MAX)));
        now
    });
    if left == 0 {
        die();
    }
    false
}

/// An atomic of the model checker. While its thread unwinds, reads give 0 and exchanges seem to
/// succeed, so destructors finish.
///
/// loom reorders two operations only if they conflict, and remembers only the last operation of
/// each atomic. So a load by a thread that then changes the word hides an earlier load by another
/// thread, and loom never tries the change before that load (loom's issues 166 and 392): if one
/// thread loads, and another loads and then exchanges, loom 0.7 runs one execution. Here every load
/// also touches `looks`, by an operation that conflicts with itself and orders nothing (Relaxed).
/// loom then tries both orders of any two loads, and of the operations after them.
pub(crate) struct MortalU64 {
    inner: AtomicU64,
    looks: AtomicU64,
}

impl MortalU64 {
    pub(in crate::sync) fn new(value: u64) -> Self {
        MortalU64 {
            inner: AtomicU64::new(value),
            looks: AtomicU64::new(0),
        }
    }

    #[track_caller]
    pub(in crate::sync) fn load(&self, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                self.looks.fetch_add(0, Ordering::Relaxed);
                let order = in_force(Location::caller(), Part::Look, order);
                self.inner.load(order)
            }
        }
    }

    /// Loads the word as the kernel does for a sleeping thread: not an operation of the thread.
    pub(in crate::sync) fn load_alive(&self, order: Ordering) -> u64 {
        self.inner.load(order)
    }

    #[track_caller]
    pub(in crate::sync) fn store(&self, value: u64, order: Ordering) {
        if !is_gone() {
            let order = in_force(Location::caller(), Part::Change, order);
            self.inner.store(value, order);
        }
    }

    #[track_caller]
    pub(in crate::sync) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        match is_gone() {
            true => Ok(current),
            false => {
                let success = in_force(Location::caller(), Part::Change, success);
                let failure = in_force(Location::caller(), Part::Look, failure);
                self.inner.compare_exchange(current, new, success, failure)
            }
        }
    }

    #[track_caller]
    pub(in crate::sync) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_or(bits, order)
            }
        }
    }

    #[track_caller]
    pub(in crate::sync) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_and(bits, order)
            }
        }
    }

    #[track_caller]
    pub(in crate::sync) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_add(value, order)
            }
        }
    }

    #[track_caller]
    pub(in crate::sync) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_max(value, order)
            }
        }
    }
}
