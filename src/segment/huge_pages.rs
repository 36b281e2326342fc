//! Huge pages: the request of a segment, and the report on the pages that the system has granted.

use std::fmt;
use std::io;

use crate::message::Bytes;

/// The setting for shared memory without a mount option of its own.
pub(super) const SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// The setting for a process's private memory.
pub(super) const PRIVATE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

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

/// The result of [`Segment::huge_pages`](crate::Segment::huge_pages). Its text contains all of it,
/// and the remedy.
///
/// ```
/// use ndshm::Segment;
/// use ndshm::segment::HugePages;
///
/// let segment = Segment::options().huge_pages(HugePages::Collapse).anonymous()?;
/// let report = segment.huge_pages();
/// if !report.is_granted() {
///     println!("{}", report.remedy().unwrap_or_default());
/// }
/// # Ok::<(), ndshm::Error>(())
/// ```
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
    ///
    /// [`HugePageReport`] has an example.
    pub fn is_granted(&self) -> bool {
        self.mapped_huge > 0
    }

    /// Returns advice for getting huge pages; `None` if there are some already.
    ///
    /// [`HugePageReport`] has an example.
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
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_the_system_has_its_remedy() {
        let report = |asked, setting: &str, place: &str, collapse: Option<i32>| HugePageReport {
            asked,
            page: 2 << 20,
            setting: Some(setting.to_owned()),
            place: place.to_owned(),
            advice_error: None,
            collapse_error: collapse.map(io::Error::from_raw_os_error),
            mapped: 8 << 20,
            mapped_huge: 0,
        };
        let says = |report: HugePageReport, what: &str| {
            let text = report.to_string();
            assert!(text.contains(what), "{text}");
            assert!(!report.is_granted());
        };
        let mount = "the mount /dev/shm, option huge";
        says(
            report(HugePages::AsSystem, "never", SHARED, None),
            "huge_pages(",
        );
        says(
            report(HugePages::AsSystem, "always", SHARED, None),
            "first touch",
        );
        says(
            report(HugePages::Advise, "never", SHARED, None),
            "write advise to /sys",
        );
        says(
            report(HugePages::Advise, "never", PRIVATE, None),
            "write madvise to /sys",
        );
        says(
            report(HugePages::Advise, "never", mount, None),
            "remount,huge=advise /dev/shm",
        );
        says(
            report(HugePages::Advise, "advise", mount, None),
            "first touch",
        );
        says(report(HugePages::Advise, "deny", SHARED, None), "says deny");
        says(
            report(HugePages::Collapse, "never", SHARED, None),
            "call prefault, of arrays of 2 MiB or more",
        );
        says(
            report(HugePages::Collapse, "never", SHARED, Some(12)),
            "compact_memory",
        );
        let none = HugePageReport {
            page: 0,
            ..report(HugePages::Advise, "never", SHARED, None)
        };
        says(none, "a kernel with");
        let granted = HugePageReport {
            mapped_huge: 2 << 20,
            ..report(HugePages::Advise, "advise", SHARED, None)
        };
        assert!(granted.is_granted() && granted.remedy().is_none());
        assert!(
            granted
                .to_string()
                .starts_with("2 MiB of 8 MiB in pages of 2 MiB; asked: advise")
        );
    }

    #[test]
    fn an_option_has_a_number_and_a_text() {
        let options = [
            (HugePages::AsSystem, "as the system"),
            (HugePages::Advise, "advise"),
            (HugePages::Collapse, "collapse"),
        ];
        for (option, text) in options {
            assert_eq!(HugePages::from_code(option.code()), option);
            assert_eq!(option.to_string(), text);
        }
        assert_eq!(HugePages::from_code(77), HugePages::AsSystem);
    }

    #[test]
    fn the_first_error_of_each_kind_is_kept() {
        let touched = |missing, small| Touched { missing, small };
        assert_eq!(touched(1, 0).and(touched(2, 3)), touched(1, 3));
        assert_eq!(touched(0, 4).and(touched(5, 6)), touched(5, 4));
    }
}
