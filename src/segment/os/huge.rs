//! Huge pages of the system: its settings, their size, their number in a mapping, and the request
//! for them.

use std::fs;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::mapping::Mapping;
use crate::layout::Layout;
use crate::segment::huge_pages::{HugePages, PRIVATE, SHARED};
use crate::sync::{Atom, Ordering};

/// A setting of the system.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    pub(crate) value: Option<String>,
    pub(crate) place: String,
}

impl Setting {
    /// Returns the setting for the file's file system, or for private memory if there is no file.
    pub(crate) fn of(fd: Option<BorrowedFd<'_>>) -> Setting {
        let in_sysfs = |place: &str| Setting {
            value: fs::read_to_string(place)
                .ok()
                .and_then(|text| chosen(&text)),
            place: place.to_owned(),
        };
        let Some(fd) = fd else {
            return in_sysfs(PRIVATE);
        };
        let shared = in_sysfs(SHARED);
        if let Some("deny" | "force") = shared.value.as_deref() {
            return shared;
        }
        let device = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_dev);
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // A memfd is on an internal mount, which is not listed.
        mount_setting(&mounts, device).unwrap_or(shared)
    }

    pub(crate) fn grants_advice(&self) -> bool {
        let value = self.value.as_deref();
        matches!(
            value,
            Some("always" | "advise" | "madvise" | "within_size" | "force")
        )
    }
}

/// The request of this process, and the answer of the system.
pub(crate) struct HugeRequest {
    pub(crate) asked: HugePages,
    pub(crate) setting: Setting,
    /// Error numbers of the last advice, and of the last collapse that failed; 0 for none.
    pub(crate) advice: Atom<u64>,
    pub(crate) collapse: Atom<u64>,
}

impl HugeRequest {
    /// Asks for huge pages for the arrays of a mapping. `fd` is the descriptor of its file, which
    /// decides the setting that applies.
    pub(crate) fn ask(
        asked: HugePages,
        mapping: &Mapping,
        layout: &Layout,
        fd: Option<BorrowedFd<'_>>,
    ) -> HugeRequest {
        let huge = HugeRequest {
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
    pub(crate) fn advise(&self, mapping: &Mapping, layout: &Layout) {
        if self.asked == HugePages::AsSystem {
            return;
        }
        let capacity = layout.total - layout.data;
        let outcome = mapping.advise_huge(layout.data, capacity);
        self.advice.store(number(outcome), Ordering::Relaxed);
    }

    /// Returns `true` if the first touch of `len` bytes is likely to give huge pages. A range
    /// shorter than a huge page would take memory that was not asked for.
    pub(crate) fn is_granted_at_touch(&self, len: u64) -> bool {
        self.asked != HugePages::AsSystem
            && (1..=len).contains(&huge_page_size())
            && self.setting.grants_advice()
            && self.advice.load(Ordering::Relaxed) == 0
    }

    /// Returns the bytes of a huge page if this process asked for them, otherwise 0.
    pub(crate) fn page_to_keep(&self) -> u64 {
        match self.asked {
            HugePages::AsSystem => 0,
            _ => huge_page_size(),
        }
    }
}

fn number(outcome: Result<(), Errno>) -> u64 {
    outcome.map_or_else(|errno| errno.raw_os_error() as u64, |()| 0)
}

/// Returns the word in brackets.
fn chosen(setting: &str) -> Option<String> {
    Some(setting.split(['[', ']']).nth(1)?.to_owned())
}

/// Returns the option `huge` of the mount of a device.
fn mount_setting(mountinfo: &str, (major, minor): (u32, u32)) -> Option<Setting> {
    let device = format!("{major}:{minor}");
    let line = mountinfo
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (place, options) = (line.split(' ').nth(4)?, line.rsplit(' ').next()?);
    let huge = options
        .split(',')
        .find_map(|option| option.strip_prefix("huge="));
    Some(Setting {
        value: Some(huge.unwrap_or("never").to_owned()),
        place: format!("the mount {place}, option huge"),
    })
}

/// Returns the bytes of a huge page; 0 if there are none.
pub(crate) fn huge_page_size() -> u64 {
    const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    static KNOWN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let text = fs::read_to_string(SIZE).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    })
}

/// Returns the mapped bytes within a range of addresses, and their bytes in huge pages.
pub(crate) fn pages_in(smaps: &str, range: Range<usize>) -> (u64, u64) {
    let (mut mapped, mut huge, mut inside) = (0, 0, false);
    for line in smaps.lines() {
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        let size = || -> u64 {
            let kib = rest
                .split_whitespace()
                .next()
                .and_then(|kib| kib.parse().ok());
            kib.unwrap_or(0u64).saturating_mul(1024)
        };
        match head {
            "Rss:" if inside => mapped += size(),
            "AnonHugePages:" | "ShmemPmdMapped:" if inside => huge += size(),
            _ => {
                if let Some((start, _)) = head.split_once('-')
                    && let Ok(start) = usize::from_str_radix(start, 16)
                {
                    inside = range.contains(&start);
                }
            }
        }
    }
    (mapped, huge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::os::mapping::page_size;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_mount_of_a_device_says_its_option() {
        let text = "22 1 0:5 / /dev rw - devtmpfs dev rw,size=4096k\n\
                    30 22 0:27 / /dev/shm rw,nosuid shared:5 - tmpfs tmpfs rw,huge=advise,size=9k\n\
                    31 22 0:28 / /run rw - tmpfs tmpfs rw,size=9k\n";
        let of = |minor| mount_setting(text, (0, minor)).and_then(|setting| setting.value);
        assert_eq!(of(27).as_deref(), Some("advise"));
        assert_eq!(of(28).as_deref(), Some("never"));
        assert_eq!(of(1), None);
        let text = "always within_size advise [never] deny force\n";
        assert_eq!(chosen(text).as_deref(), Some("never"));
    }

    #[test]
    fn pages_are_counted_in_the_range_alone() {
        let text = "7f0000000000-7f0000200000 rw-s 0 00:01 7 /memfd:ndshm (deleted)\n\
                    Rss:                 100 kB\nShmemPmdMapped:       64 kB\nVmFlags: rd wr\n\
                    7f0000200000-7f0000400000 rw-s 0 00:01 7 /memfd:ndshm (deleted)\n\
                    Rss:                  10 kB\nAnonHugePages:        0 kB\n\
                    7f0000400000-7f0000500000 rw-p 0 00:00 0\nRss:                   5 kB\n\
                    AnonHugePages:     2048 kB\n";
        let range = 0x7f00_0000_0000..0x7f00_0040_0000;
        assert_eq!(pages_in(text, range), (110 << 10, 64 << 10));
    }

    #[test]
    fn the_size_of_a_huge_page_is_the_systems() {
        let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
        match fs::read_to_string(path) {
            Ok(text) => assert_eq!(text.trim(), huge_page_size().to_string()),
            Err(_) => assert_eq!(huge_page_size(), 0),
        }
    }

    #[test]
    fn advice_is_granted_by_some_settings() {
        let granted = |value: Option<&str>| {
            let setting = Setting {
                value: value.map(str::to_owned),
                place: String::new(),
            };
            setting.grants_advice()
        };
        for value in ["always", "advise", "madvise", "within_size", "force"] {
            assert!(granted(Some(value)), "{value}");
        }
        assert!(!granted(Some("never")) && !granted(Some("deny")) && !granted(None));
    }

    #[test]
    fn an_error_has_its_number() {
        assert_eq!((number(Ok(())), number(Err(Errno::NOMEM))), (0, 12));
    }

    #[test]
    fn a_touch_gives_huge_pages_where_all_agree() {
        let page = huge_page_size();
        let granted = |asked, value: &str, advice: u64, len| {
            let huge = HugeRequest {
                asked,
                setting: Setting {
                    value: Some(value.to_owned()),
                    place: String::new(),
                },
                advice: Atom::zero(),
                collapse: Atom::zero(),
            };
            huge.advice.store(advice, Ordering::Relaxed);
            huge.is_granted_at_touch(len)
        };
        let long = page.max(1);
        for asked in [HugePages::Advise, HugePages::Collapse] {
            assert_eq!(granted(asked, "advise", 0, long), page > 0);
            assert_eq!(granted(asked, "advise", 0, long + 1), page > 0);
            assert!(!granted(asked, "advise", 0, long - 1));
            assert!(!granted(asked, "never", 0, long));
            assert!(!granted(asked, "advise", 22, long));
        }
        assert!(!granted(HugePages::AsSystem, "always", 0, long));
    }

    #[test]
    fn a_collapse_that_succeeds_says_so() {
        let mapping = Mapping::private(4 * MIB).unwrap();
        mapping.populate(0, page_size() as u64).unwrap();
        let outcome = mapping.collapse(0, 2 * MIB);
        let start = mapping.base().addr().get();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, huge) = pages_in(&smaps, start..start + (4 << 20));
        assert_eq!(outcome.is_ok(), huge > 0, "{outcome:?}");
    }
}
