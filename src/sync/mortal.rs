//! Words for the model checker, on which a thread can die between any two operations.
//!
//! Under loom all threads of a model are coroutines of one, so that a panic in any of them counts
//! as one everywhere: hence while one unwinds, operations do nothing. That is what a kill needs
//! (a killed process cleans nothing up), and a failed model comes to its report undisturbed.

use core::cell::Cell;
use core::panic::Location;
use core::sync::atomic::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::checker::{AtomicU64, thread_local};

use super::site::{Part, in_force};

thread_local! {
    /// Operations that this thread may still do; none of the model's own threads counts so far.
    static LEFT: Cell<u64> = Cell::new(u64::MAX);
}

/// What a dying thread unwinds with.
struct Death;

/// Runs `life` up to its operation number `steps` (0 is the first), which is not done any more.
/// `None` if it died.
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

/// Unwinds as a dying thread does: nothing on the way has an effect.
pub(crate) fn die() -> ! {
    // Without the panic hook: nothing is wrong.
    resume_unwind(Box::new(Death))
}

/// Whether the operation that is about to be done is left out. Dies if it is time.
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

/// An atomic of loom's. While its thread unwinds, reads give 0 and exchanges seem to succeed, so
/// that destructors come to their end.
///
/// loom reorders two operations only if they conflict, and of each atomic it keeps the last
/// operation alone. So a load by a thread that goes on to change the word hides an earlier load by
/// another thread, and that the change comes before that load is never tried (loom's issues 166
/// and 392): where one thread looks and another looks and then exchanges, loom 0.7 runs one
/// execution. Here every load also
/// touches `looks`, by an operation that conflicts with itself and orders nothing (Relaxed), so
/// that loom tries both orders of any two loads, and thereby of what follows them.
pub(super) struct MortalU64 {
    inner: AtomicU64,
    looks: AtomicU64,
}

impl MortalU64 {
    pub(super) fn new(value: u64) -> Self {
        MortalU64 {
            inner: AtomicU64::new(value),
            looks: AtomicU64::new(0),
        }
    }

    #[track_caller]
    pub(super) fn load(&self, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                self.looks.fetch_add(0, Ordering::Relaxed);
                let order = in_force(Location::caller(), Part::Look, order);
                self.inner.load(order)
            }
        }
    }

    /// As the kernel looks at a word for a thread that sleeps: no operation of the thread's own.
    pub(super) fn load_alive(&self, order: Ordering) -> u64 {
        self.inner.load(order)
    }

    #[track_caller]
    pub(super) fn store(&self, value: u64, order: Ordering) {
        if !is_gone() {
            let order = in_force(Location::caller(), Part::Change, order);
            self.inner.store(value, order);
        }
    }

    #[track_caller]
    pub(super) fn compare_exchange(
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
    pub(super) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_or(bits, order)
            }
        }
    }

    #[track_caller]
    pub(super) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_and(bits, order)
            }
        }
    }

    #[track_caller]
    pub(super) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_add(value, order)
            }
        }
    }

    #[track_caller]
    pub(super) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        match is_gone() {
            true => 0,
            false => {
                let order = in_force(Location::caller(), Part::Change, order);
                self.inner.fetch_max(value, order)
            }
        }
    }
}
