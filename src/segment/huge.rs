//! Huge pages: the request of a segment, the answer of the system, and remedies.

mod system;

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::Segment;
use super::commit;
use super::mapping::{Mapping, page_size};
use crate::layout::Layout;
use crate::message::Bytes;
use crate::sync::{Atom, Ordering};
use system::{PRIVATE, SHARED, Setting, huge_page_size, pages_in};

/// The pages that a segment's arrays should have in this process: an option of a segment, see
/// [`SegmentOptions::huge_pages`](crate::SegmentOptions::huge_pages).
///
/// A huge page (2 MiB on most machines) takes one fault instead of 512, and one entry of the
/// processor's address cache. Memory is then allocated and given back in such pages; see
/// [`guide::memory`](crate::guide::memory).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum HugePages {
    /// Uses the pages that the system's setting gives without a request.
    #[default]
    AsSystem,
    /// Asks for huge pages (`MADV_HUGEPAGE`): granted at the first touch, if the system's setting
    /// is `advise`, `within_size` or `always`.
    Advise,
    /// As `Advise`, and `prefault` of an array
    /// ([`HandleTable::prefault`](crate::HandleTable::prefault),
    /// [`Pool::prefault`](crate::Pool::prefault)) makes its pages huge under every setting but
    /// `deny` (`MADV_COLLAPSE`, Linux 6.1 and later).
    Collapse,
}

impl HugePages {
    /// Returns the number of the option in a worker's order.
    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    /// Returns the option with this number; unknown numbers give `AsSystem`.
    pub(crate) fn from_code(code: u64) -> HugePages {
        match code {
            1 => HugePages::Advise,
            2 => HugePages::Collapse,
            _ => HugePages::AsSystem,
        }
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePages::AsSystem => "as the system",
            HugePages::Advise => "advise",
            HugePages::Collapse => "collapse",
        })
    }
}

/// The request of this process, and the answer of the system.
pub(super) struct Huge {
    asked: HugePages,
    setting: Setting,
    /// Error numbers of the last advice, and of the last collapse that failed; 0 for none.
    advice: Atom<u64>,
    collapse: Atom<u64>,
}

impl Huge {
    /// Asks for huge pages for the arrays of a mapping. `fd` is the descriptor of its file, which
    /// decides the setting that applies.
    pub(super) fn ask(
        asked: HugePages,
        mapping: &Mapping,
        layout: &Layout,
        fd: Option<BorrowedFd<'_>>,
    ) -> Huge {
        let huge = Huge {
            asked,
            // Read the setting only if we ask: reading takes longer than opening a segment.
            setting: match asked {
                HugePages::AsSystem => Setting::default(),
                _ => Setting::of(fd),
            },
            advice: Atom::zero(),
            collapse: Atom::zero(),
        };
        huge.advise(mapping, layout);
        huge
    }

    /// Repeats the request on a replaced mapping.
    pub(super) fn advise(&self, mapping: &Mapping, layout: &Layout) {
        if self.asked == HugePages::AsSystem {
            return;
        }
        let capacity = layout.total - layout.data;
        let outcome = mapping.advise_huge(layout.data, capacity);
        self.advice.store(number(outcome), Ordering::Relaxed);
    }

    /// Returns `true` if the first touch of `len` bytes is likely to give huge pages. A range
    /// shorter than a huge page would take memory that was not asked for.
    pub(super) fn is_granted_at_touch(&self, len: u64) -> bool {
        self.asked != HugePages::AsSystem
            && (1..=len).contains(&huge_page_size())
            && self.setting.grants_advice()
            && self.advice.load(Ordering::Relaxed) == 0
    }
}

fn number(outcome: Result<(), Errno>) -> u64 {
    outcome.map_or_else(|errno| errno.raw_os_error() as u64, |()| 0)
}

/// Outcome of a prefault: error numbers, 0 for success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Touched {
    /// Error that left pages missing.
    pub(crate) missing: i32,
    /// Error that left pages small.
    pub(crate) small: i32,
}

impl Touched {
    /// Combines the outcomes of two parts and keeps the first error of each kind.
    pub(crate) fn and(self, next: Touched) -> Touched {
        let first = |first, next| if first == 0 { next } else { first };
        Touched {
            missing: first(self.missing, next.missing),
            small: first(self.small, next.small),
        }
    }
}

impl Segment {
    /// Returns the huge pages that this process has asked for and was granted.
    ///
    /// Meant for people, tests and logs: it reads the list of the process's mappings, and to write
    /// this list the system counts every existing page (some milliseconds for each GiB in small
    /// pages).
    ///
    /// ```
    /// use ndshm::{HandleTable, HugePages, Segment};
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
        let fd = self.fd_to_allocate();
        if let Err(errno) = commit::populate(fd, &self.inner.mapping, at, len) {
            touched.missing = errno.raw_os_error();
        }
        touched
    }
}

/// The result of [`Segment::huge_pages`]. Its text contains all of it, and the remedy.
#[derive(Debug)]
#[non_exhaustive]
pub struct HugePageReport {
    /// The option with which the segment was created or opened.
    pub asked: HugePages,
    /// Bytes of a huge page; 0 if the system has none.
    pub page: u64,
    /// The system's setting for such a segment (`never`, `advise`, `always` and so on); `None` if
    /// it cannot be read.
    pub setting: Option<String>,
    /// The place of that setting.
    pub place: String,
    /// Error of the advice (`MADV_HUGEPAGE`) on the segment's memory.
    pub advice_error: Option<io::Error>,
    /// Error of the last failed attempt to make pages huge (`MADV_COLLAPSE`).
    pub collapse_error: Option<io::Error>,
    /// Bytes of the segment that this process itself has touched, and so has mapped.
    pub mapped: u64,
    /// Bytes of `mapped` in huge pages.
    pub mapped_huge: u64,
}

impl HugePageReport {
    /// Returns `true` if this process has touched any memory in huge pages.
    pub fn is_granted(&self) -> bool {
        self.mapped_huge > 0
    }

    /// Returns advice for getting huge pages; `None` if there are some already.
    pub fn remedy(&self) -> Option<String> {
        if self.is_granted() {
            return None;
        }
        let place = &self.place;
        let setting = self.setting.as_deref().unwrap_or("never");
        let permit = match place.as_str() {
            SHARED => format!("write advise to {place}"),
            PRIVATE => format!("write madvise to {place}"),
            _ => "mount -o remount,huge=advise /dev/shm".to_owned(),
        };
        Some(match (self.asked, setting) {
            _ if self.page == 0 => "use a kernel with transparent huge pages".to_owned(),
            (_, "deny") => format!("write advise to {SHARED}, which says deny"),
            (HugePages::AsSystem, "always" | "force" | "within_size") => TOUCH.to_owned(),
            (HugePages::AsSystem, _) => {
                "ask for them: SegmentOptions::huge_pages(HugePages::Collapse)".to_owned()
            }
            (HugePages::Advise, "never") => {
                format!("{permit}, or ask for HugePages::Collapse and call prefault")
            }
            (HugePages::Collapse, _) if self.collapse_error.is_some() => format!(
                "{permit}, and free memory in large pieces: write 1 to /proc/sys/vm/compact_memory"
            ),
            (HugePages::Collapse, "never") => {
                "call prefault, of arrays of 2 MiB or more".to_owned()
            }
            _ => TOUCH.to_owned(),
        })
    }
}

/// The remedy if the setting allows huge pages, and none was granted.
const TOUCH: &str = "they come with the first touch of 2 MiB or more, where memory is not too scattered: \
                     call prefault of a large array";

impl fmt::Display for HugePageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (huge, mapped) = (Bytes(self.mapped_huge), Bytes(self.mapped));
        write!(f, "{huge} of {mapped} in pages of {}", Bytes(self.page))?;
        let setting = self.setting.as_deref().unwrap_or("not told");
        write!(f, "; asked: {}; {}: {setting}", self.asked, self.place)?;
        if let Some(error) = &self.advice_error {
            write!(f, "; MADV_HUGEPAGE: {error}")?;
        }
        if let Some(error) = &self.collapse_error {
            write!(f, "; MADV_COLLAPSE: {error}")?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
