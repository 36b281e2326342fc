//! The system's information on huge pages: its settings, their size, and their number in a mapping.

use std::fs;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// The setting for shared memory without a mount option of its own.
pub(super) const SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// The setting for a process's private memory.
pub(super) const PRIVATE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// A setting of the system.
#[derive(Clone, Default)]
pub(super) struct Setting {
    pub(super) value: Option<String>,
    pub(super) place: String,
}

impl Setting {
    /// Returns the setting for the file's file system, or for private memory if there is no file.
    pub(super) fn of(fd: Option<BorrowedFd<'_>>) -> Setting {
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

    pub(super) fn grants_advice(&self) -> bool {
        let value = self.value.as_deref();
        matches!(
            value,
            Some("always" | "advise" | "madvise" | "within_size" | "force")
        )
    }
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
pub(super) fn huge_page_size() -> u64 {
    const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    static KNOWN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let text = fs::read_to_string(SIZE).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    })
}

/// Returns the mapped bytes within a range of addresses, and their bytes in huge pages.
pub(super) fn pages_in(smaps: &str, range: Range<usize>) -> (u64, u64) {
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
}
