//! Promises: memory that was granted to allocations and has not been touched yet.
//!
//! The pages of a memfd are allocated at the first touch. This keeps a large array cheap if only
//! parts of it are used. But the memory that is free now may be promised to earlier requests.
//! Without a count of these promises, requests that are each below the limit would exceed it
//! together, and the kernel would kill the process that touches the first page too many.

use std::os::fd::BorrowedFd;

use super::commit::{Supply, tightest_supply};
use super::memory::Memory;
use crate::descriptor::Descriptor;
use crate::error::{Bytes, NoMemory};
use crate::span::{Span, Spans};
use crate::sync::{Atom, Ordering};
use crate::table::alloc::WHOLE_COMMIT;
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
pub(super) struct Forecast {
    /// Bytes that small requests may take without a check.
    budget: Atom<u64>,
    /// Bytes promised since the last count, plus the untouched bytes that it found.
    promised: Atom<u64>,
}

impl Forecast {
    pub(super) fn new() -> Forecast {
        let forecast = Forecast {
            budget: Atom::zero(),
            promised: Atom::zero(),
        };
        forecast.forget();
        forecast
    }

    /// Forgets all promises in a process that has inherited the segment, because those of its
    /// parent are unknown here.
    pub(super) fn forget(&self) {
        self.budget.store(0, Ordering::Relaxed);
        self.promised.store(u64::MAX, Ordering::Relaxed);
    }

    /// Refuses a request that exceeds the unpromised free memory of the machine, or of a memory
    /// cgroup of this process.
    ///
    /// `untouched` counts the promised and untouched bytes of the segment. It is called when this
    /// process has promised a good part of the free memory, so its own promises never exceed that
    /// memory. This is a forecast, not a reservation: two processes may be granted the same memory
    /// at once, and other programs may take it.
    pub(super) fn check(&self, len: u64, untouched: impl FnOnce() -> u64) -> Result<(), NoMemory> {
        let order = Ordering::Relaxed;
        if len < LARGE {
            let drawn = self
                .budget
                .update(order, order, |left| left.checked_sub(len));
            if drawn.is_ok() {
                return Ok(());
            }
        }
        let Some(supply) = tightest_supply() else {
            return Ok(());
        };
        let mut promised = self.promised.load(order);
        let counted = promised.saturating_add(len) > supply.have / UNCOUNTED;
        if counted {
            promised = untouched().saturating_add(self.budget.load(order));
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
            self.budget.store(grant, order);
        }
        Ok(())
    }
}

fn refusal(need: u64, have: u64, promised: u64, supply: Supply) -> NoMemory {
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
        let word = memory.slots().get(slot)?.load(Ordering::Relaxed);
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
    use std::cell::Cell;

    #[test]
    fn a_request_beyond_the_machine_is_refused_with_numbers() {
        let forecast = Forecast::new();
        let error = forecast.check(1 << 45, || 0).unwrap_err();
        assert_eq!(error.need, 1 << 45);
        assert!(error.have > 0 && error.have < 1 << 45);
        assert!(
            error.to_string().starts_with("need 32 TiB, the m"),
            "{error}"
        );
        assert_eq!(forecast.check(LARGE, || 0), Ok(()));
    }

    #[test]
    fn what_is_promised_is_not_promised_again() {
        let forecast = Forecast::new();
        let error = forecast.check(LARGE, || 1 << 50).unwrap_err();
        assert_eq!((error.need, error.have), (LARGE, 0));
        let text = error.to_string();
        assert!(text.contains("less 1 PiB promised to arrays"), "{text}");
        assert!(forecast.check(100, || 1 << 50).is_err());
        assert_eq!(forecast.check(LARGE, || 0), Ok(()));
    }

    #[test]
    fn small_shares_are_promised_without_a_count() {
        let forecast = Forecast::new();
        let counts = Cell::new(0);
        let count = || {
            counts.set(counts.get() + 1);
            0
        };
        for _ in 0..10 {
            assert_eq!(forecast.check(LARGE, count), Ok(()));
        }
        assert_eq!(counts.get(), 1, "the first one, for what others promised");
        // Two of them are more than an eighth, also if others take or free some memory meanwhile.
        let part = tightest_supply().unwrap().have / 10;
        for _ in 0..10 {
            assert_eq!(forecast.check(part, count), Ok(()));
        }
        assert!(counts.get() >= 5, "{}", counts.get());
        forecast.forget();
        let before = counts.get();
        assert_eq!(forecast.check(100, count), Ok(()));
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
}
