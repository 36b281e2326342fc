//! A segment for the model checker: no file, no kernel, and scripted deaths.

use core::cell::Cell;
use std::sync::Arc;

use super::Segment;
use super::geometry::IN_PROCESS_CAPACITY;
use super::in_process::PrivateSeats;
use super::options::{RetainLimits, SegmentOptions};
use crate::memory::Memory;
use crate::segment::error::{ForeignLock, NoMemory, SegmentError};
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

        pub(crate) fn is_plainly(self, token: u64) -> bool {
            self.is(token)
        }

        pub(crate) fn is(self, token: u64) -> bool {
            token == process_token()
        }
    }
}

/// Returns `None`: a model maps nothing.
pub(super) fn address_space_limit() -> Option<u64> {
    None
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
    retain: RetainLimits,
}

impl Inner {
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn key(&self) -> u64 {
        KEY
    }

    /// Returns the address: a model's segments live until its end.
    pub(super) fn mapping_number(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    pub(super) fn retain_limits(&self) -> RetainLimits {
        self.retain
    }

    /// Returns `None`: a model has no names of segments.
    pub(super) fn name(&self) -> Option<&str> {
        None
    }

    /// Returns `false`: a process of a model does not leave.
    pub(super) fn has_left(&self) -> bool {
        false
    }

    /// Refuses: a model maps nothing that could become private.
    pub(super) fn leave(&self, _seats: u64, _kept: &[(u64, u64)]) -> Result<(), SegmentError> {
        Err(SegmentError::NotShared)
    }

    pub(super) fn token(&self) -> u64 {
        fork::process_token()
    }

    pub(super) fn rebind(&self) -> Result<(), SegmentError> {
        Ok(())
    }

    pub(super) fn try_lock_seat(
        &self,
        index: usize,
        by: Option<usize>,
    ) -> Result<bool, SegmentError> {
        let locked = self.seats.try_lock(index, by);
        if locked && by.is_none() {
            JOINED.with(|joined| joined.set(Some(index)));
        }
        Ok(locked)
    }

    pub(super) fn is_seat_locked(&self, index: usize) -> Result<bool, SegmentError> {
        Ok(self.seats.is_locked(index))
    }

    /// Returns `false`: a model has no file.
    pub(super) fn shows_seat_lock(&self, _index: usize) -> Result<bool, SegmentError> {
        Ok(false)
    }

    pub(super) fn unlock_seat(&self, index: usize) {
        self.seats.unlock(index);
        // A dying participant unlocks nothing.
        if !std::thread::panicking() {
            JOINED.with(|joined| joined.set(joined.get().filter(|&seat| seat != index)));
        }
    }

    /// Returns `None`: a model has no file that could be locked.
    pub(super) fn foreign_lock(&self, _seat: usize) -> Option<ForeignLock> {
        None
    }

    pub(super) fn is_foreign_locked(&self, _seat: usize) -> bool {
        false
    }

    /// Releases all locks of a seat's participant, as the kernel does when its process ends.
    pub(super) fn kill(&self, seat: usize) {
        self.seats.kill(seat);
    }

    pub(super) fn commit(&self, _offset: u64, _len: u64) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(super) fn commit_slots(&self, _first: usize, _count: usize) -> Result<(), NoMemory> {
        Ok(())
    }

    pub(super) fn only_promises(&self) -> bool {
        false
    }

    /// Notes a write access to the range, because the pages may lose their contents. Returns
    /// `false`: the range is not reported as clean.
    pub(super) fn punch(&self, offset: u64, len: u64) -> bool {
        drop(self.memory.track(offset, len, true));
        false
    }

    pub(super) fn punch_beyond(&self, offset: u64, len: u64) {
        self.punch(offset, len);
    }
}

impl SegmentOptions {
    /// Creates a segment of the smallest geometry that the options allow.
    pub fn in_process(self) -> Result<Segment, SegmentError> {
        let geometries = self.geometries(IN_PROCESS_CAPACITY)?;
        let inner = Inner {
            memory: Memory::model(geometries[0]),
            seats: PrivateSeats::new(geometries[0].seats),
            retain: RetainLimits::of(self.retain, || RETAIN),
        };
        Ok(Segment {
            inner: Arc::new(inner),
        })
    }
}

impl Segment {
    /// Creates a segment of the smallest geometry that the default options allow.
    pub fn in_process() -> Result<Segment, SegmentError> {
        Segment::options().in_process()
    }

    /// Kills the participant of this thread, whatever seat it has joined by, as `model_kill` does.
    pub(crate) fn model_kill_joined(&self) {
        if let Some(seat) = JOINED.with(Cell::take) {
            self.model_kill(seat);
        }
    }
}
