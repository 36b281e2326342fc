//! Pages of arrays, allocated and mapped before their first use, and the report on huge ones.

use std::fs;
use std::io;
use std::ops::Range;

use rustix::io::Errno;

use crate::segment::Segment;
use crate::segment::huge_pages::{HugePageReport, HugePages, Touched};
use crate::segment::os::commit;
use crate::segment::os::huge::{Setting, huge_page_size, pages_in};
use crate::segment::os::mapping::page_size;
use crate::sync::{Atom, Ordering};

impl Segment {
    /// Returns the huge pages that this process has asked for and was granted.
    ///
    /// Meant for people, tests and logs: it reads the list of the process's mappings, and to write
    /// this list the system counts every existing page (some milliseconds for each GiB in small
    /// pages).
    ///
    /// ```
    /// use ndshm::{HandleTable, Segment};
    /// use ndshm::segment::HugePages;
    ///
    /// let segment = Segment::options().huge_pages(HugePages::Collapse).anonymous()?;
    /// let table = HandleTable::join(&segment)?;
    /// let x = table.zeros::<f64, _>(1 << 20)?;
    /// table.prefault(x)?;
    /// let report = segment.huge_pages();
    /// println!("{report}");         // "8 MiB of 8 MiB in pages of 2 MiB", or why not, and what helps
    /// assert_eq!(report.asked, HugePages::Collapse);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn huge_pages(&self) -> HugePageReport {
        let huge = &self.inner.huge;
        let failed = |error: &Atom<u64>| match error.load(Ordering::Relaxed) {
            0 => None,
            number => Some(io::Error::from_raw_os_error(number as i32)),
        };
        let setting = match huge.asked {
            HugePages::AsSystem => Setting::of(self.fd()),
            _ => huge.setting.clone(),
        };
        let start = self.inner.mapping.base().addr().get();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let layout = self.memory().layout();
        let (mapped, mapped_huge) = pages_in(&smaps, start..start + layout.total as usize);
        HugePageReport {
            asked: huge.asked,
            page: huge_page_size(),
            setting: setting.value,
            place: setting.place,
            advice_error: failed(&huge.advice),
            collapse_error: failed(&huge.collapse),
            mapped,
            mapped_huge,
        }
    }

    /// Returns the option with which the segment was created or opened.
    pub(crate) fn asked_huge_pages(&self) -> HugePages {
        self.inner.huge.asked
    }

    /// Allocates and maps the pages of a part of an array, as a write by this process would: huge
    /// ones, as far as the options and the system allow. No byte changes.
    ///
    /// Both arguments are byte ranges of the data region. A huge page that begins in the part and
    /// ends in the array belongs to the part. The caller holds a lease of the array, or a tile of
    /// it.
    pub(crate) fn touch(&self, part: Range<u64>, array: Range<u64>) -> Touched {
        let huge = match self.inner.huge.asked {
            HugePages::Collapse => huge_page_size(),
            _ => 0,
        };
        let data = self.memory().layout().data;
        self.touch_by(part, array, huge, |block| {
            self.inner.mapping.collapse(data + block, huge)
        })
    }

    /// Touches pages like [`touch`](Segment::touch). `collapse` makes a page of `huge` bytes at an
    /// offset out of the small pages there. With 0 for `huge` there are only small pages.
    fn touch_by(
        &self,
        part: Range<u64>,
        array: Range<u64>,
        huge: u64,
        collapse: impl Fn(u64) -> Result<(), Errno>,
    ) -> Touched {
        let mut touched = Touched::default();
        if part.is_empty() {
            return touched;
        }
        let page = page_size() as u64;
        let mut at = part.start - part.start % page;
        let end = part.end.next_multiple_of(page).min(self.capacity());
        if huge != 0 {
            let mut block = part.start.next_multiple_of(huge);
            while block < part.end && block + huge <= array.end {
                touched = touched.and(self.populate(at..block));
                // A collapse needs at least one existing page; it fills the holes itself.
                touched = touched.and(self.populate(block..block + page));
                at = block;
                let is_busy = |errno| matches!(errno, Errno::AGAIN | Errno::BUSY);
                // Another process may be using these pages: retry once, then go on with the next
                // huge page.
                let outcome = match collapse(block) {
                    Err(errno) if is_busy(errno) => collapse(block),
                    outcome => outcome,
                };
                match outcome {
                    Ok(()) => at += huge,
                    Err(errno) => {
                        touched.small = errno.raw_os_error();
                        if !is_busy(errno) {
                            break;
                        }
                    }
                }
                block += huge;
            }
            self.note_small_pages(touched);
        }
        touched.and(self.populate(at..end.max(at)))
    }

    /// Stores the error that left pages small, here or in a worker. The report shows it.
    pub(crate) fn note_small_pages(&self, touched: Touched) {
        if let Ok(errno @ 1..) = u64::try_from(touched.small) {
            self.inner.huge.collapse.store(errno, Ordering::Relaxed);
        }
    }

    fn populate(&self, range: Range<u64>) -> Touched {
        let mut touched = Touched::default();
        if range.is_empty() {
            return touched;
        }
        let at = self.memory().layout().data + range.start;
        let len = range.end - range.start;
        let fd = self.inner.checked_fd();
        if let Err(errno) = commit::populate(fd, &self.inner.mapping, at, len) {
            touched.missing = errno.raw_os_error();
        }
        touched
    }
}

#[cfg(test)]
mod tests;
