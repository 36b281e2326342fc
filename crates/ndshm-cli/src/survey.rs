//! Finds all segments of the system that this user may inspect.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::SystemTime;

use ndshm::{Observer, SEGMENT_MAGIC, SegmentError};
use serde_json::{Value, json};

use crate::apart;
use crate::target::{self, Place};

/// A segment that was found.
pub struct Found {
    /// Its location.
    pub place: Place,
    /// Metadata of its file.
    pub metadata: Metadata,
    /// Its inspected contents, or the reason why there are none.
    pub state: State,
}

/// Result of inspecting a segment.
pub enum State {
    /// The segment was inspected.
    Seen(Inside),
    /// Another user owns it or may write it, and the caller asked not to inspect such segments.
    Foreign,
    /// The file may not be opened; it may be a segment.
    Unreadable(String),
    /// The segment was made by another release.
    Version(String),
    /// The file is a segment, but cannot be opened.
    Damaged(String),
}

/// Contents of a segment.
pub struct Inside {
    /// Live arrays.
    pub arrays: usize,
    /// Seats of live participants.
    pub alive: usize,
    /// Seats of dead participants.
    pub dead: usize,
    /// `true` if a process is in it; only named segments record that.
    pub members: bool,
    /// `true` if the name stays when the last process leaves.
    pub persistent: bool,
    /// Words that no participant writes.
    pub damage: usize,
}

impl State {
    /// Returns the state as JSON, for the pipe from a child to its parent.
    fn told(&self) -> Value {
        match self {
            State::Seen(inside) => json!([
                inside.arrays,
                inside.alive,
                inside.dead,
                inside.members,
                inside.persistent,
                inside.damage,
            ]),
            State::Version(problem) => json!({ "version": problem }),
            State::Foreign => json!({ "damaged": "not inspected" }),
            State::Damaged(problem) | State::Unreadable(problem) => json!({ "damaged": problem }),
        }
    }

    /// Parses the output of [`told`](State::told).
    fn of_told(told: &Value) -> Option<State> {
        if let Some(problem) = told.get("version") {
            return Some(State::Version(problem.as_str()?.into()));
        }
        if let Some(problem) = told.get("damaged") {
            return Some(State::Damaged(problem.as_str()?.into()));
        }
        let number = |at: usize| usize::try_from(told.get(at)?.as_u64()?).ok();
        Some(State::Seen(Inside {
            arrays: number(0)?,
            alive: number(1)?,
            dead: number(2)?,
            members: told.get(3)?.as_bool()?,
            persistent: told.get(4)?.as_bool()?,
            damage: number(5)?,
        }))
    }
}

impl Found {
    /// Returns the bytes of memory that the file takes.
    pub fn resident(&self) -> u64 {
        self.metadata.blocks().saturating_mul(512)
    }

    /// Returns the creation time of the file, if the kernel reports it.
    pub fn created(&self) -> Option<SystemTime> {
        self.metadata.created().ok()
    }

    /// Returns `true` unless damage was found.
    pub fn is_sound(&self) -> bool {
        match &self.state {
            State::Seen(inside) => inside.damage == 0,
            State::Foreign | State::Version(_) | State::Unreadable(_) => true,
            State::Damaged(_) => false,
        }
    }
}

/// Returns all segments, first the named ones. Looks into those of other users only if `foreign`.
pub fn all(foreign: bool) -> Vec<Found> {
    let mut found = named(foreign);
    found.sort_by_key(|found| found.place.to_string());
    found.extend(anonymous());
    found
}

/// Returns the named segments.
pub fn named(foreign: bool) -> Vec<Found> {
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
                        true => look_into(place, file, own),
                        false => look_apart(place, file),
                    }
                }
                Err(failure) => {
                    let metadata = entry.metadata().ok()?;
                    let large = metadata.len() > LEAST;
                    (foreign && large).then(|| Found {
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

/// Inspects a segment that another user may truncate meanwhile.
fn look_apart(place: Place, file: File) -> Option<Found> {
    let metadata = file.metadata().ok()?;
    // Reads only the header, and maps nothing.
    let found = look_into(place, file.try_clone().ok()?, false)?;
    let told = apart::run(|| {
        let options = target::trusting(&metadata);
        let state = see(options.observe_fd(file.into()));
        state.told().to_string()
    });
    let state = match told {
        Ok(Some(text)) => {
            let value = serde_json::from_str(&text).ok();
            let state = value.as_ref().and_then(State::of_told);
            state.unwrap_or_else(|| State::Damaged("the inspecting child sent no result".into()))
        }
        Ok(None) => State::Damaged(apart::CUT.into()),
        Err(failure) => State::Damaged(failure.to_string()),
    };
    Some(Found { state, ..found })
}

/// Counts the processes that do not let this user see their descriptors.
pub fn hidden_processes() -> usize {
    let is_hidden = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    numbers("/proc").iter().filter(|pid| is_hidden(pid)).count()
}

/// Returns `true` if this user owns the file and no other user may write it.
fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
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
fn anonymous() -> Vec<Found> {
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
                found.extend(look_into(place, file, true));
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

/// Inspects the file of a named or anonymous segment. Returns `None` if it is not a segment.
pub fn look(place: Place, file: File) -> Option<Found> {
    let trusted = matches!(place, Place::Descriptor { .. }) || is_own(&file.metadata().ok()?);
    look_into(place, file, trusted)
}

fn look_into(place: Place, file: File, trusted: bool) -> Option<Found> {
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, 0).ok()?;
    if u16::from_le_bytes(magic) != SEGMENT_MAGIC {
        return None;
    }
    Some(Found {
        place,
        metadata: file.metadata().ok()?,
        state: match trusted {
            true => see(Observer::from_fd(file.into())),
            false => State::Foreign,
        },
    })
}

fn see(observer: Result<Observer, SegmentError>) -> State {
    let observer = match observer {
        Ok(observer) => observer,
        Err(error @ SegmentError::Version { .. }) => return State::Version(error.to_string()),
        Err(error) => return State::Damaged(error.to_string()),
    };
    inside(&observer).map_or_else(|error| State::Damaged(error.to_string()), State::Seen)
}

fn inside(observer: &Observer) -> Result<Inside, SegmentError> {
    let seats = observer.seats()?;
    let alive = seats.iter().filter(|seat| seat.alive).count();
    Ok(Inside {
        arrays: observer.arrays().count(),
        alive,
        dead: seats.len() - alive,
        members: observer.has_members()?,
        persistent: observer.is_persistent(),
        damage: observer.verify().damage.len(),
    })
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
