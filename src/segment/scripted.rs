//! A segment for the model checker: no file, no kernel, and scripted deaths.

use core::cell::Cell;
use std::sync::Arc;

use super::Segment;
use super::in_process::PrivateSeats;
use super::options::{IN_PROCESS_CAPACITY, SegmentOptions};
use crate::layout::Geometry;
use crate::memory::Memory;
use crate::segment::error::{NoMemory, SegmentError};
use crate::sync::checker::thread_local;

/// Stands in for the module `fork`: a model has one process.
pub(crate) mod fork {
    pub(crate) fn process_token() -> u64 {
        1
    }

    /// Returns a constant: a model must not depend on the system, because it is replayed.
    pub(crate) fn random_nonzero() -> u64 {
        1
    }

    /// Stands in for the token word of a process that may fork.
    #[derive(Clone, Copy)]
    pub(crate) struct TokenWord;

    impl TokenWord {
        pub(crate) fn of_this_process() -> TokenWord {
            TokenWord
        }

        pub(crate) fn is(self, token: u64) -> bool {
            token == process_token()
        }
    }
}

/// Any key works in a model; this one shows where it is forgotten.
const KEY: u64 = 0x5eed_0000_0000_5eed;

/// The limit of retained pages: all, because a model has none to give back.
const RETAIN: u64 = u64::MAX >> 1;

thread_local! {
    /// The seat that this thread of the model has taken and not released.
    static JOINED: Cell<Option<usize>> = Cell::new(None);
}

pub(super) struct Inner {
    memory: Memory,
    seats: PrivateSeats,
    retain: u64,
}

impl Inner {
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn key(&self) -> u64 {
        KEY
    }

    pub(super) fn retain_limit(&self) -> u64 {
        self.retain
    }
}

impl Segment {
    /// Creates a segment of the smallest geometry that the options allow.
    pub fn in_process() -> Result<Segment, SegmentError> {
        Segment::options().in_process()
    }

    pub(super) fn make_in_process(options: &SegmentOptions) -> Result<Segment, SegmentError> {
        let geometries = options.geometries(IN_PROCESS_CAPACITY)?;
        let mut segment = Segment::with_geometry(geometries[0]);
        if let (Some(retain), Some(inner)) = (options.retain, Arc::get_mut(&mut segment.inner)) {
            inner.retain = retain;
        }
        Ok(segment)
    }

    /// Creates a segment of exactly this geometry, even if a header cannot hold it.
    pub(crate) fn with_geometry(geometry: Geometry) -> Segment {
        let inner = Inner {
            memory: Memory::model(geometry),
            seats: PrivateSeats::new(geometry.seats),
            retain: RETAIN,
        };
        Segment {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn token(&self) -> u64 {
        fork::process_token()
    }

    pub(crate) fn rebind(&self) -> Result<(), SegmentError> {
        Ok(())
    }

    pub(crate) fn try_lock_seat(
        &self,
        index: usize,
        by: Option<usize>,
    ) -> Result<bool, SegmentError> {
        let locked = self.inner.seats.try_lock(index, by);
        if locked && by.is_none() {
            JOINED.with(|joined| joined.set(Some(index)));
        }
        Ok(locked)
    }

    /// Returns `None`: a model has no file that could be locked.
    pub(crate) fn foreign_lock(&self, _seat: usize) -> Option<crate::segment::ForeignLock> {
        None
    }

    pub(crate) fn is_foreign_locked(&self, _seat: usize) -> bool {
        false
    }

    pub(crate) fn unlock_seat(&self, index: usize) {
        self.inner.seats.unlock(index);
        // A dying participant unlocks nothing.
        if !std::thread::panicking() {
            JOINED.with(|joined| joined.set(joined.get().filter(|&seat| seat != index)));
        }
    }

    /// Releases all locks of a seat's participant, as the kernel does when its process ends.
    pub(crate) fn model_kill(&self, seat: usize) {
        self.inner.seats.kill(seat);
    }

    /// Kills the participant of this thread, whatever seat it has joined by, as `model_kill` does.
    pub(crate) fn model_kill_joined(&self) {
        if let Some(seat) = JOINED.with(Cell::take) {
            self.model_kill(seat);
        }
    }

    pub(crate) fn commit(&self, _offset: u64, _len: u64) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(crate) fn commit_slots(&self, _first: usize, _count: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    /// Notes a write access to the range, because the pages may lose their contents. Returns
    /// `false`: the range is not reported as clean.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> bool {
        drop(self.memory().track(offset, len, true));
        false
    }
}
