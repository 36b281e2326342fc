//! Accesses to payload bytes, for the model checker: refuses accesses that race, and names both
//! places.
//!
//! Each access has a clock, set when it begins and again when it ends. A later access to some of
//! the same bytes checks that the clock is in its past. So each byte is checked by itself, whatever
//! the element type, and bytes without accesses cost nothing.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::checker::{Thread, current, thread_local};
use crate::sync::clock::Clock;

thread_local! {
    /// The place attributed to accesses, if it is not that of the caller.
    static PLACE: Cell<Option<&'static Location<'static>>> = Cell::new(None);
}

/// Runs `open` and attributes its accesses to `place`.
pub fn put_down_to<R>(place: Option<&'static Location<'static>>, open: impl FnOnce() -> R) -> R {
    PLACE.with(|now| now.set(place));
    let result = open();
    PLACE.with(|now| now.set(None));
    result
}

/// The accesses of one execution, to one segment.
#[derive(Clone, Default)]
pub(super) struct Races {
    // Not a lock of the checker: its threads are coroutines, and never switch while they hold this
    // lock.
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// The accesses that later ones are checked against.
    list: Vec<Note>,
    /// Number of accesses so far.
    count: u64,
}

/// One access.
struct Note {
    number: u64,
    thread: Thread,
    place: &'static Location<'static>,
    bytes: Range<u64>,
    write: bool,
    clock: Clock,
    goes_on: bool,
}

impl Races {
    /// Notes an access to `bytes` of the data region, which lasts until the result is dropped.
    ///
    /// # Panics
    /// Panics if it races with another access, or overlaps one in progress, even of its own thread.
    #[track_caller]
    pub(super) fn access(&self, bytes: Range<u64>, write: bool) -> Access {
        let mut notes = self.lock();
        notes.count += 1;
        let note = Note {
            number: notes.count,
            thread: current(),
            place: PLACE.with(Cell::get).unwrap_or(Location::caller()),
            bytes,
            write,
            clock: Clock::now(),
            goes_on: true,
        };
        let refusal = notes.list.iter().find_map(|earlier| earlier.refuses(&note));
        if let Some(refusal) = refusal {
            drop(notes);
            panic!("{refusal}");
        }
        // Drop the notes that this one replaces: an access that comes after this one also comes
        // after them, and conflicts with this one if it conflicts with them.
        notes.list.retain(|earlier| !note.stands_for(earlier));
        notes.list.push(note);
        Access {
            number: notes.count,
            races: self.clone(),
        }
    }

    fn end(&self, number: u64) {
        let mut notes = self.lock();
        let Some(note) = notes.list.iter_mut().find(|note| note.number == number) else {
            return;
        };
        note.goes_on = false;
        // Advance again: the clock set at the beginning does not cover the steps up to the end.
        // Not while unwinding: the thread is at the end of its model, or is killed at an operation,
        // up to which every thread could see the access.
        if !std::thread::panicking() {
            note.clock.advance();
        }
        if !Clock::TELLS {
            notes.list.retain(|note| note.number != number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(|notes| notes.into_inner())
    }
}

impl Note {
    /// Returns the message if `later` conflicts with this access.
    fn refuses(&self, later: &Note) -> Option<String> {
        let overlap = self.bytes.start.max(later.bytes.start)..self.bytes.end.min(later.bytes.end);
        if overlap.is_empty() || !(self.write || later.write) {
            return None;
        }
        let how = match self.goes_on {
            true => "while the first one goes on",
            false if self.thread.id() == later.thread.id() || self.clock.is_past() => {
                return None;
            }
            false => "and nothing puts the first one before it",
        };
        let Range { start, end } = overlap;
        Some(format!(
            "race: two accesses to bytes {start}..{end} of the segment's data\n  {self}\n  \
             {later}, {how}"
        ))
    }

    /// Returns `true` if this access replaces `earlier` in the list.
    fn stands_for(&self, earlier: &Note) -> bool {
        let covers = self.bytes.start <= earlier.bytes.start && earlier.bytes.end <= self.bytes.end;
        let same_thread = self.thread.id() == earlier.thread.id();
        covers && !earlier.goes_on && (self.write || !earlier.write && same_thread)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.write { "writes" } else { "reads" };
        let Range { start, end } = self.bytes;
        write!(f, "{:?}", self.thread.id())?;
        if let Some(name) = self.thread.name() {
            write!(f, " ({name})")?;
        }
        write!(f, " {what} {start}..{end} at {}", self.place)
    }
}

/// An access to payload bytes in progress.
pub struct Access {
    number: u64,
    races: Races,
}

impl Drop for Access {
    fn drop(&mut self) {
        self.races.end(self.number);
    }
}
