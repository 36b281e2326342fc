//! Finds all segments of the system that this user may inspect.

mod inspect;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::target::{self, Place};
pub use inspect::{FoundSegment, State, inspect};
use inspect::{inspect_file, inspect_in_child, is_own};

/// Returns all segments, first the named ones. Looks into those of other users only if `foreign`.
pub fn all(foreign: bool) -> Vec<FoundSegment> {
    let mut found = named(foreign);
    found.sort_by_key(|found| found.place.to_string());
    found.extend(anonymous());
    found
}

/// Returns the named segments.
pub fn named(foreign: bool) -> Vec<FoundSegment> {
    let Ok(entries) = fs::read_dir(target::SHM) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            if !entry.file_type().ok()?.is_file() {
                return None;
            }
            let place = Place::Named(entry.file_name().into_string().ok()?);
            match place.file() {
                Ok(file) => {
                    let own = is_own(&file.metadata().ok()?);
                    match own || !foreign {
                        true => inspect_file(place, file, own),
                        false => inspect_in_child(place, file),
                    }
                }
                Err(failure) => {
                    let metadata = entry.metadata().ok()?;
                    let large = metadata.len() > LEAST;
                    (foreign && large).then(|| FoundSegment {
                        place,
                        metadata,
                        state: State::Unreadable(failure.to_string()),
                    })
                }
            }
        })
        .collect()
}

/// A segment's file is never smaller.
const LEAST: u64 = 2 << 20;

/// Counts the processes that do not let this user see their descriptors.
pub fn hidden_processes() -> usize {
    let is_hidden = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    numbers("/proc").iter().filter(|pid| is_hidden(pid)).count()
}

/// Returns this user's files in /dev/shm that begin with zeros, and their bytes of memory.
pub fn unfinished() -> Vec<(Place, u64)> {
    let entries = fs::read_dir(target::SHM).into_iter().flatten();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            if !entry.file_type().ok()?.is_file() {
                return None;
            }
            let place = Place::Named(entry.file_name().into_string().ok()?);
            let file = place.file().ok()?;
            let metadata = file.metadata().ok()?;
            let mut first = [0; 8];
            let read = file.read_at(&mut first, 0).ok()?;
            let zeros = first[..read].iter().all(|&byte| byte == 0);
            (zeros && is_own(&metadata)).then(|| (place, metadata.blocks().saturating_mul(512)))
        })
        .collect()
}

/// Returns the anonymous segments, each with the first descriptor that was found.
fn anonymous() -> Vec<FoundSegment> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for pid in numbers("/proc") {
        for fd in numbers(&format!("/proc/{pid}/fd")) {
            let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
            if !link.is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"/memfd:")) {
                continue;
            }
            let place = Place::Descriptor { pid, fd };
            let Ok(file) = place.file() else {
                continue;
            };
            let Ok(metadata) = file.metadata() else {
                continue;
            };
            if seen.insert((metadata.dev(), metadata.ino())) {
                found.extend(inspect_file(place, file, true));
            }
        }
    }
    found
}

/// Returns the entries of a directory that are numbers, sorted; none if it may not be read.
fn numbers(path: &str) -> Vec<u32> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Returns the name of a user, or the number if it has no name.
pub fn user(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| uid.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn the_first_user_has_a_name_and_the_last_a_number() {
        assert_eq!(user(0), "root");
        assert_eq!(user(4_000_000_000), "4000000000");
    }

    #[test]
    fn a_process_has_descriptors_with_numbers() {
        assert!(numbers("/proc/self/fd").contains(&1));
        assert_eq!(numbers("/proc/self/none"), Vec::<u32>::new());
        assert!(File::open("/dev/null").is_ok_and(|file| !target::is_sealed(file.as_fd())));
    }
}
