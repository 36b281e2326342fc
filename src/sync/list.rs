//! An append-only list in this process's memory.

#![expect(
    clippy::disallowed_types,
    reason = "no word of the segment, and no model has processes that fork"
)]

use core::ptr;
use core::sync::atomic::AtomicPtr;

use super::Ordering;

/// An append-only list. Its values live until the process ends.
///
/// No operation waits for another thread. So a child that was forked while other threads used the
/// list can use its copy, although those threads do not exist there.
pub(crate) struct List<T: 'static> {
    first: AtomicPtr<Link<T>>,
}

struct Link<T: 'static> {
    value: T,
    /// Set before the link is in the list, and never changed afterwards.
    next: AtomicPtr<Link<T>>,
}

impl<T: Send + Sync + 'static> List<T> {
    pub(crate) const fn new() -> List<T> {
        List {
            first: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Adds a value at the front.
    pub(crate) fn push(&self, value: T) -> &'static T {
        let link: &'static Link<T> = Box::leak(Box::new(Link {
            value,
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        let address = ptr::from_ref(link).cast_mut();
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            link.next.store(first, Ordering::Relaxed);
            // Release: pairs with the Acquire in `follow`, which then sees the value and `next`.
            match self
                .first
                .compare_exchange(first, address, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return &link.value,
                Err(now) => first = now,
            }
        }
    }

    /// Iterates over the current values of the list, the newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static T> + use<T> {
        let first = follow(&self.first);
        core::iter::successors(first, |link| follow(&link.next)).map(|link| &link.value)
    }
}

/// Returns the link at which a pointer of the list or of a link points.
fn follow<T: Sync>(pointer: &AtomicPtr<Link<T>>) -> Option<&'static Link<T>> {
    let address = pointer.load(Ordering::Acquire);
    // SAFETY: only `push` stores such pointers: null, or the address of a link that it has leaked,
    // so the link lives and is shared for ever. The link was initialised before its address was
    // stored with Release in `first`, from which a later `push` may have copied it into a `next`.
    // The Acquire here, or the Acquire by which the caller reached that `next`, orders this load
    // after it.
    unsafe { address.as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn values_of_all_threads_are_in_the_list_once() {
        static LIST: List<usize> = List::new();
        assert_eq!(LIST.iter().count(), 0);
        std::thread::scope(|threads| {
            for thread in 0..4 {
                threads.spawn(move || {
                    for at in 0..100 {
                        let value = thread * 100 + at;
                        assert_eq!(*LIST.push(value), value);
                        assert!(LIST.iter().any(|&there| there == value));
                    }
                });
            }
        });
        let values: BTreeSet<usize> = LIST.iter().copied().collect();
        assert_eq!(LIST.iter().count(), 400);
        assert!(values.into_iter().eq(0..400));
    }
}
