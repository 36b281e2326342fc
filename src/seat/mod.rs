//! Seats: joining a segment, leaving it, and taking back everything that a dead participant held.
//!
//! The holder of a seat's lock acts for the seat. A participant holds its own lock as long as it
//! lives, so another process gets the lock only after its death. Leaving and reaping are therefore
//! the same walk over the slots, [`Reclaim::reclaim`], and each of its steps may be repeated. A
//! reaper that dies loses the lock, and the next reaper starts over.
//!
//! A participant that leaves knows in private memory in which spans it may hold something, its
//! [`Footprint`], and walks over these alone.

pub(crate) mod error;
mod footprint;
mod peer;
mod report;

use core::time::Duration;

use crate::memory::Memory;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::word::SeatId;
pub(crate) use error::JoinError;
pub(crate) use footprint::Footprint;
pub use peer::Peer;
pub use report::{ReapReport, TornTile};

/// The longest sleep of a participant that waits for another. It then reaps, so this is the delay
/// after the death of the holder, or of the participant that would have woken it.
pub(crate) const REAP_INTERVAL: Duration = Duration::from_millis(20);

/// The walk that takes back everything that a seat holds. `reclaim.rs` implements it, on top of all
/// that a participant can hold.
pub(crate) trait Reclaim {
    /// Releases all that `seat` holds. The caller has the seat's lock, and so acts for the seat.
    ///
    /// `leaving` has the spans of the participant if it is the caller. Otherwise it is dead.
    fn reclaim(&self, segment: &Segment, seat: SeatId, leaving: Option<&Footprint>) -> ReapReport;
}

/// A participant's entry about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ParticipantInfo {
    /// Serves messages and tools, never a decision.
    pub(crate) pid: u32,
}

impl ParticipantInfo {
    const PID: usize = 0;
    /// 1 if the participant has pinned an array. If it is 0, the walk over the seat's slots skips
    /// the rows of pins, and so allocates none of their pages.
    const PINS: usize = 1;

    fn write(memory: &Memory, index: usize) {
        let card = memory.seat_card(index);
        card[Self::PID].store(u64::from(std::process::id()), Ordering::Relaxed);
        card[Self::PINS].store(0, Ordering::Relaxed);
    }

    /// Notes that `seat` pins arrays. The caller sets its first pin afterwards.
    pub(crate) fn note_pins(memory: &Memory, seat: SeatId) {
        if let Some(index) = seat.index() {
            // Relaxed: the lock of the seat orders it before the walk over what the seat held.
            memory.seat_card(index)[Self::PINS].store(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if `seat` may have pins.
    pub(crate) fn has_pins(memory: &Memory, seat: SeatId) -> bool {
        let card = |index| memory.seat_card(index)[Self::PINS].load(Ordering::Relaxed);
        seat.index().is_some_and(|index| card(index) != 0)
    }

    /// Returns the card of `seat`. ORPHAN and numbers without a seat have pid 0.
    pub(crate) fn of(memory: &Memory, seat: SeatId) -> ParticipantInfo {
        let seats = memory.layout().geometry.seats as usize;
        let pid = match seat.index().filter(|&index| index < seats) {
            Some(index) => memory.seat_card(index)[Self::PID].load(Ordering::Relaxed) as u32,
            None => 0,
        };
        ParticipantInfo { pid }
    }
}

/// Returns the epoch of `seat`: how often it was taken.
pub(crate) fn epoch(memory: &Memory, seat: SeatId) -> u64 {
    seat.index().map_or(0, |index| {
        memory.seat_word(index).load(Ordering::Relaxed).epoch()
    })
}

/// Returns `true` while the participant that took `seat` in its epoch lives. `is_its` tells that
/// epoch; `me` is the caller's seat. Takes nothing back, and no lock. While another participant reaps
/// the seat, the result may still be `true`.
pub(crate) fn is_alive(
    segment: &Segment,
    me: SeatId,
    seat: SeatId,
    is_its: impl Fn(u64) -> bool,
) -> bool {
    let memory = segment.memory();
    let seats = memory.layout().geometry.seats as usize;
    let Some(index) = seat.index().filter(|&index| index < seats) else {
        return false;
    };
    // Acquire: pairs with the Release in `mark_free`: the caller sees what a participant that has
    // left its seat did before. Pairs also with the Release in `join`: the caller sees the lock of a
    // participant whose word it sees.
    let has_it = || {
        let word = memory.seat_word(index).load(Ordering::Acquire);
        word.is_taken() && is_its(word.epoch())
    };
    if !has_it() || seat == me {
        return has_it();
    }
    // A foreign read lock excludes the participant's own lock, and does not count as one. Look at
    // the word again: the lock may be that of the next participant.
    segment.is_seat_locked(index).unwrap_or(true) && has_it()
}

/// Takes a free seat, or the seat of a dead participant.
pub(crate) fn join(segment: &Segment, above: &dyn Reclaim) -> Result<SeatId, JoinError> {
    let memory = segment.memory();
    let seats = memory.layout().geometry.seats as usize;
    // Try seats that look free first: reclaiming a dead one takes longer.
    let taken = |index: &usize| memory.seat_word(*index).load(Ordering::Relaxed).is_taken();
    let (dead_maybe, free_maybe): (Vec<usize>, Vec<usize>) = (0..seats).partition(taken);
    for index in free_maybe.into_iter().chain(dead_maybe) {
        if !segment.try_lock_seat(index, None)? {
            continue;
        }
        let seat = SeatId::from_index(index);
        let word = memory.seat_word(index);
        // Relaxed, here and in `reap`: the lock of the seat orders its holders.
        if word.load(Ordering::Relaxed).is_taken() {
            // Taken, but its lock was free: its holder is dead.
            let _ = above.reclaim(segment, seat, None);
            mark_free(memory, index);
        }
        ParticipantInfo::write(memory, index);
        // FREE → TAKEN of the next epoch. Only the holder of the lock gets here.
        // Release: pairs with the Acquire in `is_alive`.
        let _ = word.update(Ordering::Release, Ordering::Relaxed, |word| word.take());
        return Ok(seat);
    }
    let mut locked = (0..seats).filter(|&index| segment.is_foreign_locked(index));
    if let Some(lock) = locked.next().and_then(|index| segment.foreign_lock(index)) {
        return Err(JoinError::SeatLocked {
            seats,
            locked: 1 + locked.count(),
            lock,
        });
    }
    Err(JoinError::SeatsFull {
        seats,
        holders: (0..seats.min(8))
            .map(|index| ParticipantInfo::of(memory, SeatId::from_index(index)).pid)
            .collect(),
    })
}

/// Releases a seat of this process and all that it holds, which is in the spans of `footprint`.
pub(crate) fn leave(segment: &Segment, seat: SeatId, footprint: &Footprint, above: &dyn Reclaim) {
    let Some(index) = seat.index() else {
        return;
    };
    let _ = above.reclaim(segment, seat, Some(footprint));
    mark_free(segment.memory(), index);
    segment.unlock_seat(index);
}

/// Takes back everything that dead participants held. Waits for nobody: skips seats that their
/// living participant or another reaper has locked.
pub(crate) fn reap(
    segment: &Segment,
    me: SeatId,
    above: &dyn Reclaim,
) -> Result<ReapReport, JoinError> {
    let memory = segment.memory();
    let mut report = ReapReport::default();
    for index in 0..memory.layout().geometry.seats as usize {
        let word = memory.seat_word(index);
        if SeatId::from_index(index) == me || !word.load(Ordering::Relaxed).is_taken() {
            continue;
        }
        // Skip the living after one look: an attempt to lock needs a second one, which tells their
        // locks from foreign ones.
        if segment.shows_seat_lock(index)? {
            continue;
        }
        if !segment.try_lock_seat(index, me.index())? {
            // A foreign read lock excludes the participant's own lock: the participant is dead.
            // Reclaim nothing without a lock of our own, because another process could act for the
            // seat.
            report.locked += usize::from(segment.is_foreign_locked(index));
            continue;
        }
        // Check again under the lock: another reaper may have finished in between.
        if word.load(Ordering::Relaxed).is_taken() {
            report.add(above.reclaim(segment, SeatId::from_index(index), None));
            mark_free(memory, index);
            report.seats += 1;
        }
        segment.unlock_seat(index);
    }
    Ok(report)
}

/// Calls `act` with the lock of `seat`, if its participant is dead and nobody reaps it. Returns
/// `None` without a call if the participant lives, or another process acts for the seat.
///
/// What `act` does not take, a later reaper does: the seat stays TAKEN.
pub(crate) fn acting_for_the_dead<R>(
    segment: &Segment,
    seat: SeatId,
    me: SeatId,
    act: impl FnOnce() -> R,
) -> Result<Option<R>, JoinError> {
    let seats = segment.memory().layout().geometry.seats as usize;
    let Some(index) = seat.index().filter(|&index| index < seats) else {
        return Ok(None);
    };
    if seat == me || !segment.try_lock_seat(index, me.index())? {
        return Ok(None);
    }
    let outcome = act();
    segment.unlock_seat(index);
    Ok(Some(outcome))
}

/// Performs the transition TAKEN → FREE, under the seat's lock.
///
/// Release: a participant that finds the seat free, without its lock, finds nothing that it held.
fn mark_free(memory: &Memory, index: usize) {
    let _ = memory
        .seat_word(index)
        .update(Ordering::Release, Ordering::Relaxed, |word| word.leave());
}
