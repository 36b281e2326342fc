//! Inspects one segment: who may trust its file, and what is in it.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::SystemTime;

use ndshm::Observer;
use ndshm::error::SegmentError;
use ndshm::segment::SEGMENT_MAGIC;
use serde_json::{Value, json};

use crate::target::{self, Place};
use crate::truncation;

/// A segment that was found.
pub struct FoundSegment {
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
    Inspected(Contents),
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
pub struct Contents {
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
    fn to_json(&self) -> Value {
        match self {
            State::Inspected(contents) => json!([
                contents.arrays,
                contents.alive,
                contents.dead,
                contents.members,
                contents.persistent,
                contents.damage,
            ]),
            State::Version(problem) => json!({ "version": problem }),
            State::Foreign => json!({ "damaged": "not inspected" }),
            State::Damaged(problem) | State::Unreadable(problem) => json!({ "damaged": problem }),
        }
    }

    /// Parses the output of [`to_json`](State::to_json).
    fn from_json(json: &Value) -> Option<State> {
        if let Some(problem) = json.get("version") {
            return Some(State::Version(problem.as_str()?.into()));
        }
        if let Some(problem) = json.get("damaged") {
            return Some(State::Damaged(problem.as_str()?.into()));
        }
        let number = |at: usize| usize::try_from(json.get(at)?.as_u64()?).ok();
        Some(State::Inspected(Contents {
            arrays: number(0)?,
            alive: number(1)?,
            dead: number(2)?,
            members: json.get(3)?.as_bool()?,
            persistent: json.get(4)?.as_bool()?,
            damage: number(5)?,
        }))
    }
}

impl FoundSegment {
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
            State::Inspected(contents) => contents.damage == 0,
            State::Foreign | State::Version(_) | State::Unreadable(_) => true,
            State::Damaged(_) => false,
        }
    }
}

/// Inspects the file of a named or anonymous segment. Returns `None` if it is not a segment.
pub fn inspect(place: Place, file: File) -> Option<FoundSegment> {
    let trusted = matches!(place, Place::Descriptor { .. }) || is_own(&file.metadata().ok()?);
    inspect_file(place, file, trusted)
}

/// Inspects a file; if it is not `trusted`, only its first bytes.
pub(super) fn inspect_file(place: Place, file: File, trusted: bool) -> Option<FoundSegment> {
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, 0).ok()?;
    if u16::from_le_bytes(magic) != SEGMENT_MAGIC {
        return None;
    }
    Some(FoundSegment {
        place,
        metadata: file.metadata().ok()?,
        state: match trusted {
            true => inspect_observer(Observer::from_fd(file.into())),
            false => State::Foreign,
        },
    })
}

fn inspect_observer(observer: Result<Observer, SegmentError>) -> State {
    let observer = match observer {
        Ok(observer) => observer,
        Err(error @ SegmentError::Version { .. }) => return State::Version(error.to_string()),
        Err(error) => return State::Damaged(error.to_string()),
    };
    contents(&observer).map_or_else(|error| State::Damaged(error.to_string()), State::Inspected)
}

fn contents(observer: &Observer) -> Result<Contents, SegmentError> {
    let seats = observer.seats()?;
    let alive = seats.iter().filter(|seat| seat.alive).count();
    Ok(Contents {
        arrays: observer.arrays().count(),
        alive,
        dead: seats.len() - alive,
        members: observer.has_members()?,
        persistent: observer.is_persistent(),
        damage: observer.verify().damage.len(),
    })
}

/// Inspects a segment that another user may truncate meanwhile.
pub(super) fn inspect_in_child(place: Place, file: File) -> Option<FoundSegment> {
    let metadata = file.metadata().ok()?;
    // Reads only the header, and maps nothing.
    let found = inspect_file(place, file.try_clone().ok()?, false)?;
    let text = truncation::in_child(|| {
        let options = target::trusting(&metadata);
        let state = inspect_observer(options.observe_fd(file.into()));
        state.to_json().to_string()
    });
    let state = match text {
        Ok(Some(text)) => {
            let value = serde_json::from_str(&text).ok();
            let state = value.as_ref().and_then(State::from_json);
            state.unwrap_or_else(|| State::Damaged("the inspecting child sent no result".into()))
        }
        Ok(None) => State::Damaged(truncation::MESSAGE.into()),
        Err(failure) => State::Damaged(failure.to_string()),
    };
    Some(FoundSegment { state, ..found })
}

/// Returns `true` if this user owns the file and no other user may write it.
pub(super) fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}
