//! An append-only list in this process's memory.

#![expect(
    clippy::disallowed_types,
    reason = "no word of the segment, and no model has processes that fork"
)]

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicPtr;

use super::Ordering;

/// An append-only list. Its values live as long as the list: a static one for ever.
///
/// No operation waits for another thread. So a child that was forked while other threads used the
/// list can use its copy, although those threads do not exist there.
pub(crate) struct List<T> {
    first: AtomicPtr<Link<T>>,
    // The list owns the links.
    links: PhantomData<Link<T>>,
}

struct Link<T> {
    value: T,
    /// Set before the link is in the list, and never changed afterwards.
    next: AtomicPtr<Link<T>>,
}

impl<T: Send + Sync> List<T> {
    pub(crate) const fn new() -> List<T> {
        List {
            first: AtomicPtr::new(ptr::null_mut()),
            links: PhantomData,
        }
    }

    /// Adds a value at the front.
    pub(crate) fn push(&self, value: T) -> &T {
        let address = Box::into_raw(Box::new(Link {
            value,
            next: AtomicPtr::new(ptr::null_mut()),
        }));
        // SAFETY: the address is that of a valid link, which only the drop of the list frees. The
        // drop needs the list exclusively, and so comes after this borrow of it.
        let link = unsafe { &*address };
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let first = follow(&self.first);
        core::iter::successors(first, |link| follow(&link.next)).map(|link| &link.value)
    }
}

/// Returns the link at which a pointer of the list or of a link points.
fn follow<T>(pointer: &AtomicPtr<Link<T>>) -> Option<&Link<T>> {
    let address = pointer.load(Ordering::Acquire);
    // SAFETY: only `push` stores such pointers: null, or the address of a link of the list, which
    // the list's drop alone frees. `pointer` is borrowed from the list. The link was initialised
    // before its address was stored with Release in `first`, from which a later `push` may have
    // copied it into a `next`. The Acquire here, or the Acquire by which the caller reached that
    // `next`, orders this load after it.
    unsafe { address.as_ref() }
}

impl<T> Drop for List<T> {
    fn drop(&mut self) {
        let mut next = *self.first.get_mut();
        while let Some(address) = NonNull::new(next) {
            // SAFETY: `push` made the link as a box, and put its address into one place only. That
            // place was read above or in the last turn, and is not read again.
            let mut link = unsafe { Box::from_raw(address.as_ptr()) };
            next = *link.next.get_mut();
        }
    }
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

    #[test]
    fn a_list_drops_its_values_once() {
        let value = std::sync::Arc::new(());
        let list = List::new();
        for _ in 0..3 {
            list.push(value.clone());
        }
        assert_eq!(std::sync::Arc::strong_count(&value), 4);
        drop(list);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
    }
}
