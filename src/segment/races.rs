//! Who accesses which payload bytes, for the model checker: refuses accesses that race, and names
//! both places.
//!
//! Each access has a clock, which says when it began, and then when it ended; whoever accesses some
//! of the same bytes later looks whether that comes before. So bytes are told apart one by one,
//! whatever the elements are, and bytes that nobody accesses cost nothing.

use core::cell::Cell;
use core::fmt;
use core::ops::Range;
use core::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::checker::{Thread, current, thread_local};
use crate::sync::clock::Clock;

thread_local! {
    /// The place that accesses are put down to, if not that of the caller.
    static PLACE: Cell<Option<&'static Location<'static>>> = Cell::new(None);
}

/// Runs `open`, whose accesses are put down to `place`.
pub(crate) fn put_down_to<R>(
    place: Option<&'static Location<'static>>,
    open: impl FnOnce() -> R,
) -> R {
    PLACE.with(|now| now.set(place));
    let result = open();
    PLACE.with(|now| now.set(None));
    result
}

/// The accesses of one execution, to one segment.
#[derive(Clone, Default)]
pub(super) struct Races {
    // Not a lock of the checker's: its threads are coroutines, and none is left while it holds
    // this one.
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// Those that say what must come before a later access.
    list: Vec<Note>,
    /// How many accesses there were.
    count: u64,
}

/// An access.
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
    /// An access to `bytes` of the data region, until the result is dropped.
    ///
    /// # Panics
    /// If it races with another one, or overlaps one that goes on, be it of the same thread.
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
        // Whoever comes after this one comes after those, and conflicts with it if with them.
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
        // Again, for what the thread did meanwhile does not order the end of it. A thread that
        // unwinds is at the end of its model, or dies at an operation, until which all could see it.
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
    /// What is to be said if `later` must not be.
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

    /// Whether `earlier` need not be kept beside this access.
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

/// An access to payload bytes that is going on.
pub struct Access {
    number: u64,
    races: Races,
}

impl Drop for Access {
    fn drop(&mut self) {
        self.races.end(self.number);
    }
}
