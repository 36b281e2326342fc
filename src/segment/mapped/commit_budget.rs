//! Commit accounting: memory that was promised to allocations and has not been touched yet.
//!
//! The pages of a memfd are allocated at the first touch. This keeps a large array cheap if only
//! parts of it are used. But the memory that is free now may be promised to earlier requests.
//! Without a count of these promises, requests that are each below the limit would exceed it
//! together, and the kernel would kill the process that touches the first page too many.

use std::os::fd::BorrowedFd;

use crate::descriptor::Descriptor;
use crate::memory::Memory;
use crate::message::Bytes;
use crate::segment::error::NoMemory;
use crate::segment::os::commit::{AvailableMemory, tightest_supply};
use crate::span::{Span, Spans, WHOLE_COMMIT};
use crate::sync::{Atom, Ordering};
use crate::word::Lifecycle;

/// A request of at least this size is checked against the machine's memory at once.
pub(super) const LARGE: u64 = 1 << 20;

/// Smaller requests draw on a budget of at most this size, refilled at each check of the machine's
/// memory.
const SMALL_BUDGET: u64 = 64 << 20;

/// Untouched memory is counted again only if the promises of this process exceed 1/8 of the free
/// memory. Until then all promised memory is assumed to be untouched.
const UNCOUNTED: u64 = 8;

/// The part of the free memory that this process has promised.
pub(super) struct CommitBudget {
    /// Bytes that small requests may take without a check.
    small: Atom<u64>,
    /// Bytes promised since the last count, plus the untouched bytes that it found.
    promised: Atom<u64>,
}

impl CommitBudget {
    pub(super) fn new() -> CommitBudget {
        let budget = CommitBudget {
            small: Atom::zero(),
            promised: Atom::zero(),
        };
        budget.forget();
        budget
    }

    /// Forgets all promises in a process that has inherited the segment, because those of its
    /// parent are unknown here.
    pub(super) fn forget(&self) {
        self.small.store(0, Ordering::Relaxed);
        self.promised.store(u64::MAX, Ordering::Relaxed);
    }

    /// Returns the bytes that are promised, as far as is known.
    #[cfg(test)]
    pub(super) fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Refuses a request that exceeds the unpromised free memory of the machine, or of a memory
    /// cgroup of this process.
    ///
    /// `untouched` counts the promised and untouched bytes of the segment. It is called when this
    /// process has promised a good part of the free memory, so its own promises never exceed that
    /// memory. This is a forecast, not a reservation: two processes may be granted the same memory
    /// at once, and other programs may take it.
    pub(super) fn check(&self, len: u64, untouched: impl FnOnce() -> u64) -> Result<(), NoMemory> {
        if len < LARGE && self.draw(len) {
            return Ok(());
        }
        match tightest_supply() {
            Some(supply) => self.promise(len, supply, untouched),
            None => Ok(()),
        }
    }

    /// Takes the bytes from the budget of small requests. Returns `false` if too few are left.
    fn draw(&self, len: u64) -> bool {
        let order = Ordering::Relaxed;
        let drawn = self
            .small
            .update(order, order, |left| left.checked_sub(len));
        drawn.is_ok()
    }

    /// Promises the bytes out of a supply, and fills the budget up for a small request.
    fn promise(
        &self,
        len: u64,
        supply: AvailableMemory,
        untouched: impl FnOnce() -> u64,
    ) -> Result<(), NoMemory> {
        let order = Ordering::Relaxed;
        let mut promised = self.promised.load(order);
        let counted = promised.saturating_add(len) > supply.have / UNCOUNTED;
        if counted {
            promised = untouched().saturating_add(self.small.load(order));
        }
        let free = supply.have.saturating_sub(promised);
        let Some(rest) = free.checked_sub(len) else {
            return Err(refusal(len, free, promised, supply));
        };
        // Grant only a part of the rest, because other processes draw on it too.
        let grant = match len {
            LARGE.. => 0,
            _ => (rest / 4).min(SMALL_BUDGET),
        };
        if counted {
            self.promised.store(promised + len + grant, order);
        } else {
            self.promised.fetch_add(len + grant, order);
        }
        if len < LARGE {
            self.small.store(grant, order);
        }
        Ok(())
    }
}

fn refusal(need: u64, have: u64, promised: u64, supply: AvailableMemory) -> NoMemory {
    let what = match promised {
        0 => supply.what,
        promised => format!(
            "{}, less {} promised to arrays that were not written yet,",
            supply.what,
            Bytes(promised)
        ),
    };
    NoMemory {
        need,
        have,
        what,
        remedy: supply.remedy,
    }
}

/// Returns the bytes promised to the arrays and tables of the segment behind `fd` that have no page
/// yet.
///
/// Free extents that keep their pages count as arrays, because an allocation that reuses them asks
/// for no memory. A request in progress does not count yet: while another process fills its new
/// array, the pages of that array are taken for pages of existing arrays.
pub(super) fn untouched(memory: &Memory, fd: BorrowedFd<'_>) -> u64 {
    // `st_blocks` has units of 512 bytes and includes swapped pages. If `fstat` fails, assume that
    // all pages exist.
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return 0;
    };
    let there = (stat.st_blocks as u64).saturating_mul(512);
    let layout = memory.layout();
    // Tables that are touched regardless of the arrays, and the words of each span's slots.
    let fixed = layout.slots + (layout.data - layout.schemas);
    let words = (layout.schemas - layout.slots) / layout.geometry.spans as u64;
    let spans = Spans::of(memory).iter();
    let promised = spans.fold(fixed, |sum: u64, span| {
        sum.saturating_add(words + promised_in(memory, &span))
    });
    promised.saturating_sub(there)
}

/// Returns the committed bytes of a span's extents.
fn promised_in(memory: &Memory, span: &Span) -> u64 {
    let size = span.extent(0).size();
    let committed = |position| {
        let slot = span.slot(&memory.layout().geometry, position);
        // Relaxed: a concurrent change of the word may be counted or not.
        let word = memory.slots().get(slot.get())?.load(Ordering::Relaxed);
        let counts = match word.lifecycle() {
            Lifecycle::Live | Lifecycle::Retired => true,
            Lifecycle::Free => !word.is_clean(),
            _ => false,
        };
        counts.then(|| match size {
            // Small extents are committed whole; reading their descriptors is not worth the cost.
            ..=WHOLE_COMMIT => size,
            _ => Descriptor::committed(memory.descriptor(slot)).min(size),
        })
    };
    (0..span.count).filter_map(committed).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use std::cell::Cell;

    #[test]
    fn a_request_beyond_the_machine_is_refused_with_numbers() {
        let budget = CommitBudget::new();
        let error = budget.check(1 << 45, || 0).unwrap_err();
        assert_eq!(error.need, 1 << 45);
        assert!(error.have > 0 && error.have < 1 << 45);
        assert!(
            error.to_string().starts_with("need 32 TiB, the m"),
            "{error}"
        );
        assert_eq!(budget.check(LARGE, || 0), Ok(()));
    }

    #[test]
    fn what_is_promised_is_not_promised_again() {
        let budget = CommitBudget::new();
        let error = budget.check(LARGE, || 1 << 50).unwrap_err();
        assert_eq!((error.need, error.have), (LARGE, 0));
        let text = error.to_string();
        assert!(text.contains("less 1 PiB promised to arrays"), "{text}");
        assert!(budget.check(100, || 1 << 50).is_err());
        assert_eq!(budget.check(LARGE, || 0), Ok(()));
    }

    /// Returns a budget that has counted, and has promised this many bytes.
    fn promising(promised: u64) -> CommitBudget {
        let budget = CommitBudget::new();
        budget.promised.store(promised, Ordering::Relaxed);
        budget
    }

    fn supply(have: u64) -> AvailableMemory {
        AvailableMemory {
            have,
            what: "the test".into(),
            remedy: "none",
        }
    }

    /// Returns the bytes that are promised, and the budget of small requests.
    fn state(budget: &CommitBudget) -> (u64, u64) {
        (
            budget.promised.load(Ordering::Relaxed),
            budget.small.load(Ordering::Relaxed),
        )
    }

    #[test]
    fn a_large_request_is_promised_alone() {
        let budget = promising(0);
        let not_asked = || -> u64 { panic!("an eighth is promised without a count") };
        let eighth = 8 * LARGE + 7;
        assert_eq!(budget.promise(LARGE, supply(eighth), not_asked), Ok(()));
        assert_eq!(state(&budget), (LARGE, 0));
        // One byte more than an eighth is counted.
        let count = || 3 * LARGE;
        assert_eq!(budget.promise(1, supply(eighth), count), Ok(()));
        let grant = (eighth - 3 * LARGE - 1) / 4;
        assert_eq!(state(&budget), (3 * LARGE + 1 + grant, grant));
        // The budget is for small requests, and is promised: it counts as untouched.
        assert_eq!(budget.promise(2 * LARGE, supply(10 * LARGE), count), Ok(()));
        assert_eq!(state(&budget), (5 * LARGE + grant, grant));
    }

    #[test]
    fn all_that_is_left_can_be_promised_and_no_more() {
        let budget = promising(u64::MAX);
        let most = budget.promise(9 * LARGE, supply(10 * LARGE), || LARGE);
        assert_eq!((most, state(&budget)), (Ok(()), (10 * LARGE, 0)));
        let refused = budget.promise(9 * LARGE + 1, supply(10 * LARGE), || LARGE);
        let error = refused.unwrap_err();
        assert_eq!((error.need, error.have), (9 * LARGE + 1, 9 * LARGE));
        assert_eq!(
            error.what,
            "the test, less 1 MiB promised to arrays that were not written yet,"
        );
        assert_eq!(state(&budget), (10 * LARGE, 0), "as before");
        let refused = budget.promise(2 * LARGE, supply(LARGE), || 0);
        assert_eq!(refused.unwrap_err().what, "the test");
    }

    #[test]
    fn small_requests_draw_on_a_budget() {
        let budget = promising(0);
        let plenty = 1 << 40;
        let not_asked = || -> u64 { panic!("an eighth is promised without a count") };
        assert_eq!(budget.promise(100, supply(plenty), not_asked), Ok(()));
        let most = 64 << 20;
        assert_eq!(state(&budget), (100 + most, most));
        assert_eq!(budget.check(1000, not_asked), Ok(()));
        assert_eq!(state(&budget), (100 + most, most - 1000));
        // A large one leaves the budget alone.
        let tight = budget.check(1 << 20, || 0);
        assert_eq!((tight, state(&budget).1), (Ok(()), most - 1000));
        assert!(!budget.draw(most) && budget.draw(most - 1000));
        assert_eq!(state(&budget).1, 0);
    }

    #[test]
    fn small_shares_are_promised_without_a_count() {
        let budget = CommitBudget::new();
        let counts = Cell::new(0);
        let count = || {
            counts.set(counts.get() + 1);
            0
        };
        for _ in 0..10 {
            assert_eq!(budget.check(LARGE, count), Ok(()));
        }
        assert_eq!(counts.get(), 1, "the first one, for what others promised");
        // Two of them are more than an eighth, also if others take or free some memory meanwhile.
        let part = tightest_supply().unwrap().have / 10;
        for _ in 0..10 {
            assert_eq!(budget.check(part, count), Ok(()));
        }
        assert!(counts.get() >= 5, "{}", counts.get());
        budget.forget();
        let before = counts.get();
        assert_eq!(budget.check(100, count), Ok(()));
        assert_eq!(counts.get(), before + 1);
    }

    #[test]
    fn what_arrays_may_have_and_have_not_is_counted() {
        let segment = crate::Segment::options()
            .capacity(1 << 30)
            .anonymous()
            .unwrap();
        let table = crate::HandleTable::join(&segment).unwrap();
        let count = || untouched(segment.memory(), segment.fd().unwrap());
        let near = |bytes: u64| {
            let counted = count();
            assert!(
                counted >= bytes && counted < bytes + (3 << 20),
                "{counted} for {bytes}"
            );
        };
        near(0);
        let large = table.zeros::<u8, _>(20 << 20).unwrap();
        let small: Vec<_> = (0..100)
            .map(|_| table.zeros::<u8, _>(60 << 10).unwrap())
            .collect();
        let both = (20 << 20) + 100 * (60 << 10);
        near(both);
        table.write(large).unwrap().fill(1);
        near(100 * (60 << 10));
        // An allocation that reuses kept pages does not ask for memory.
        table.free(large).unwrap();
        near(100 * (60 << 10));
        for array in small {
            table.free(array).unwrap();
        }
        table.trim().unwrap();
        near(0);
    }

    #[test]
    fn the_tables_are_promised_as_far_as_arrays_need_them() {
        let segment = crate::Segment::options()
            .capacity(1 << 30)
            .anonymous()
            .unwrap();
        let fd = segment.fd().unwrap();
        let layout = segment.memory().layout();
        // Whatever pages are there already.
        let promised = || {
            let there = rustix::fs::fstat(fd).unwrap().st_blocks as u64 * 512;
            untouched(segment.memory(), fd) + there
        };
        let fixed = promised();
        assert_eq!(fixed, layout.slots + layout.data - layout.schemas);
        let table = crate::HandleTable::join(&segment).unwrap();
        assert_eq!(promised(), fixed, "no span is appended");
        let words = 1 + 2 * layout.geometry.row_words() + Layout::DESCRIPTOR_WORDS;
        let span = 64 * words as u64 * 8;
        let small = table.zeros::<u8, _>(100).unwrap();
        assert_eq!(promised(), fixed + span + 128, "an extent of 128 bytes");
        let large = table.zeros::<u8, _>(100 << 10).unwrap();
        let committed = promised() - (fixed + 2 * span + 128);
        assert!(
            (100 << 10..=128 << 10).contains(&committed),
            "{committed} bytes"
        );
        // A freed extent that was never written has no page to keep.
        table.free(large).unwrap();
        table.free(small).unwrap();
        table.trim().unwrap();
        assert_eq!(promised(), fixed + 2 * span);
    }
}
