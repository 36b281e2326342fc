//! Huge pages: what a segment asks for, what the system grants of it, and what helps.

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
use crate::error::Bytes;
use crate::layout::Layout;
use crate::sync::{Atom, Ordering};
use system::{PRIVATE, SHARED, Setting, huge_page_size, pages_in};

/// Which pages a segment's arrays are to have in this process: an option of a segment, see
/// [`SegmentOptions::huge_pages`](crate::SegmentOptions::huge_pages).
///
/// A huge page (2 MiB on most machines) takes one fault instead of 512 and one entry of the
/// processor's address cache. Memory is then had, and given back, by such pages; see
/// [`guide::memory`](crate::guide::memory).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum HugePages {
    /// What the system's setting gives to who does not ask.
    #[default]
    AsSystem,
    /// Asked for (`MADV_HUGEPAGE`): granted at the first touch, if the system's setting is `advise`,
    /// `within_size` or `always`.
    Advise,
    /// As `Advise`; and `prefault` of an array ([`HandleTable::prefault`](crate::HandleTable::prefault),
    /// [`Pool::prefault`](crate::Pool::prefault)) has its pages made huge whatever the setting
    /// (`MADV_COLLAPSE`, Linux 6.1 and later), unless that is `deny`.
    Collapse,
}

impl HugePages {
    /// As a number, for a worker's order.
    pub(crate) fn code(self) -> u64 {
        self as u64
    }

    /// From its number; what is unknown asks for nothing.
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

/// What a process has asked for, and how the system has answered.
pub(super) struct Huge {
    asked: HugePages,
    setting: Setting,
    /// Errors of the last advice and of the last collapse that failed; 0 if none has.
    advice: Atom<u64>,
    collapse: Atom<u64>,
}

impl Huge {
    /// Asks for huge pages for the arrays of a mapping. `fd` is that of its file, and says which
    /// setting holds.
    pub(super) fn ask(
        asked: HugePages,
        mapping: &Mapping,
        layout: &Layout,
        fd: Option<BorrowedFd<'_>>,
    ) -> Huge {
        let huge = Huge {
            asked,
            // Known only to who asks: to read it takes longer than to open a segment.
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

    /// Asks anew, for a mapping that was exchanged.
    pub(super) fn advise(&self, mapping: &Mapping, layout: &Layout) {
        if self.asked == HugePages::AsSystem {
            return;
        }
        let capacity = layout.total - layout.data;
        let outcome = mapping.advise_huge(layout.data, capacity);
        self.advice.store(number(outcome), Ordering::Relaxed);
    }

    /// Whether the first touch of so many bytes is likely to give huge pages. Less than one would
    /// take memory that nobody asked for.
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

/// What became of a prefault: error numbers, 0 where all went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Touched {
    /// Why pages are not there.
    pub(crate) missing: i32,
    /// Why pages that are there are not huge.
    pub(crate) small: i32,
}

impl Touched {
    /// The outcome of two parts, the first of which went first.
    pub(crate) fn and(self, next: Touched) -> Touched {
        let first = |first, next| if first == 0 { next } else { first };
        Touched {
            missing: first(self.missing, next.missing),
            small: first(self.small, next.small),
        }
    }
}

impl Segment {
    /// What huge pages this process has asked for, and what it was granted.
    ///
    /// For people, tests and logs: it reads the list of the process's mappings, in which the system
    /// counts every page that there is (some milliseconds for each GiB in small pages).
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

    /// The option by which the segment was made or opened.
    pub(crate) fn asked_huge_pages(&self) -> HugePages {
        self.inner.huge.asked
    }

    /// Has the pages of a part of an array made and mapped, as this process would by writing to
    /// it: huge ones, as far as the options and the system allow. No byte changes.
    ///
    /// Both are ranges of bytes of the data region. A huge page that begins in the part and ends
    /// in the array counts to the part. The caller has a lease of the array, or a tile of it.
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

    /// As [`touch`](Segment::touch): `collapse` makes a page of `huge` bytes at an offset, of the
    /// pages that are there. With 0 for `huge` there are small pages alone.
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
                // A huge page is made out of at least one that is there; holes cost nothing.
                touched = touched.and(self.populate(block..block + page));
                at = block;
                let is_busy = |errno| matches!(errno, Errno::AGAIN | Errno::BUSY);
                // Others may use pages of it just now: once more, and then the next one may do.
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

    /// Keeps why pages are not huge, here or in a worker, for the report.
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

/// What [`Segment::huge_pages`] tells. Its text says it all, the remedy included.
#[derive(Debug)]
#[non_exhaustive]
pub struct HugePageReport {
    /// What the segment was made or opened with.
    pub asked: HugePages,
    /// Bytes of a huge page; 0 where the system has none.
    pub page: u64,
    /// The system's setting for such a segment: `never`, `advise`, `always` and so on; none where it
    /// cannot be read.
    pub setting: Option<String>,
    /// Where that is set.
    pub place: String,
    /// Why the segment's memory could not be advised.
    pub advice_error: Option<io::Error>,
    /// Why pages could not be made huge, the last time that some could not.
    pub collapse_error: Option<io::Error>,
    /// Bytes of the segment that this process has mapped: touched, by itself.
    pub mapped: u64,
    /// Bytes of those that are in huge pages.
    pub mapped_huge: u64,
}

impl HugePageReport {
    /// Whether anything that this process has touched is in huge pages.
    pub fn is_granted(&self) -> bool {
        self.mapped_huge > 0
    }

    /// What to do to get huge pages; `None` where there are some.
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

/// Where the setting is good, and nothing was granted.
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
