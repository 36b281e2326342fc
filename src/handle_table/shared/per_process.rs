//! A value that each process has once, behind a lock, and that a fork cannot leave locked.
//!
//! A child that is forked while another thread holds a lock has a locked copy of it, and no thread
//! that could unlock it. So each process locks a value of its own: the lock of another process is
//! only tried. If it is free in the child, nobody was changing the value at the fork, and the child
//! takes it over. If it is locked, the value may be half-changed, and the child leaves it alone: it
//! is neither read nor dropped, and its memory stays until the child ends.

use core::mem::ManuallyDrop;
use std::sync::{PoisonError, TryLockError};

use crate::segment::fork::process_token;
use crate::sync::Mutex;
use crate::sync::list::List;

pub(crate) struct PerProcess<T> {
    /// The values of this process and of its ancestors.
    values: List<Value<T>>,
}

struct Value<T> {
    /// The process that locks it.
    token: u64,
    /// Behind the lock `None` until the first use, and after a child has taken the value over.
    locked: ManuallyDrop<Mutex<Option<T>>>,
}

impl<T: Send> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess {
            values: List::new(),
        }
    }

    /// Creates the places, with a value for this process.
    pub(crate) fn of(value: T) -> PerProcess<T> {
        let new = PerProcess::new();
        new.values.push(Value::new(Some(value)));
        new
    }

    /// Locks this process's value and passes it to `change`. The first call in a process passes the
    /// parent's value to `first`, unless the fork found it locked.
    ///
    /// Both run under the lock, so neither calls back into `self`. A panic of theirs does not lock
    /// others out.
    pub(crate) fn with<R, E>(
        &self,
        first: impl FnOnce(Option<T>) -> Result<T, E>,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, E> {
        let mut locked = self
            .own()
            .locked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let value = match &mut *locked {
            Some(value) => value,
            none => none.insert(first(self.inherited())?),
        };
        Ok(change(value))
    }

    /// Locks this process's value and passes it to `change`: `None` if there was no call of
    /// [`with`](PerProcess::with) in it.
    pub(crate) fn visit<R>(&self, change: impl FnOnce(Option<&mut T>) -> R) -> R {
        let mut locked = self
            .own()
            .locked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(locked.as_mut())
    }

    /// Returns this process's place.
    fn own(&self) -> &Value<T> {
        let token = process_token();
        // The list has the newest first, and grows at this end alone: its last place of a process
        // stays the last one. All threads agree on it, also if several add a place at once.
        let find = || {
            self.values
                .iter()
                .filter(|value| value.token == token)
                .last()
        };
        find().unwrap_or_else(|| {
            let added = self.values.push(Value::new(None));
            find().unwrap_or(added)
        })
    }

    /// Takes over the value of an ancestor, unless a thread had it locked at the fork.
    fn inherited(&self) -> Option<T> {
        let token = process_token();
        self.values
            .iter()
            .filter(|value| value.token != token)
            .find_map(|value| value.take_unless_locked())
    }
}

impl<T> Value<T> {
    fn new(value: Option<T>) -> Value<T> {
        Value {
            token: process_token(),
            locked: ManuallyDrop::new(Mutex::new(value)),
        }
    }

    fn take_unless_locked(&self) -> Option<T> {
        match self.locked.try_lock() {
            Ok(mut value) => value.take(),
            Err(TryLockError::Poisoned(value)) => value.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> Drop for Value<T> {
    fn drop(&mut self) {
        let is_locked = matches!(self.locked.try_lock(), Err(TryLockError::WouldBlock));
        // A lock that is held although nobody borrows it was copied by a fork: see the top.
        if !is_locked {
            // SAFETY: it is dropped here alone, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.locked) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::convert::Infallible;

    fn count(value: &PerProcess<u32>) -> u32 {
        let first = |inherited: Option<u32>| Ok::<_, Infallible>(inherited.unwrap_or(100));
        let Ok(count) = value.with(first, |count| {
            *count += 1;
            *count
        });
        count
    }

    /// Adds a place of another process, as a fork leaves it in the child.
    fn ancestor(value: &PerProcess<u32>, token: u64, count: u32) -> &Mutex<Option<u32>> {
        let place = Value {
            token,
            locked: ManuallyDrop::new(Mutex::new(Some(count))),
        };
        &value.values.push(place).locked
    }

    #[test]
    fn all_threads_of_a_process_have_one_value() {
        let value = PerProcess::new();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..100).for_each(|_| _ = count(&value)));
            }
        });
        assert_eq!(count(&value), 501);
        assert_eq!(count(&PerProcess::of(7)), 8);
    }

    #[test]
    fn a_child_takes_over_what_no_thread_had_locked() {
        let value = PerProcess::new();
        ancestor(&value, process_token() ^ 1, 7);
        assert_eq!((count(&value), count(&value)), (8, 9));
    }

    #[test]
    fn a_lock_that_crossed_a_fork_is_not_waited_for() {
        let value = PerProcess::new();
        let parent = ancestor(&value, process_token() ^ 1, 7);
        // The thread that holds it does not exist in the child.
        std::mem::forget(parent.lock().unwrap());
        assert_eq!((count(&value), count(&value)), (101, 102));
    }

    #[test]
    fn a_value_that_was_locked_at_the_fork_is_not_dropped() {
        let kept = std::sync::Arc::new(());
        for (locked, left) in [(true, 2), (false, 2)] {
            let value = PerProcess::of(kept.clone());
            if locked {
                std::mem::forget(value.own().locked.lock().unwrap());
            }
            drop(value);
            assert_eq!(std::sync::Arc::strong_count(&kept), left);
        }
    }

    #[test]
    fn the_oldest_place_of_a_process_counts() {
        let value = PerProcess::<u32>::new();
        // Two threads that added a place at once.
        let [first, second] = [(); 2].map(|()| value.values.push(Value::new(None)));
        assert!(core::ptr::eq(value.own(), first) && !core::ptr::eq(value.own(), second));
        assert_eq!(value.visit(|value| value.copied()), None);
        assert_eq!(count(&value), 101);
        assert_eq!(value.visit(|value| value.copied()), Some(101));
    }

    #[test]
    fn a_panic_locks_nobody_out() {
        let value = PerProcess::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let first = |_| Ok::<_, Infallible>(1);
            value.with(first, |_| std::panic::resume_unwind(Box::new(())))
        }));
        assert!(panicked.is_err());
        assert_eq!(count(&value), 2);
    }

    #[test]
    fn a_failed_first_use_is_tried_again() {
        let value = PerProcess::<u32>::new();
        assert_eq!(value.with(|_| Err("no seat"), |_| ()), Err("no seat"));
        assert_eq!(count(&value), 101);
    }
}
