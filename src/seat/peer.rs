//! Participants as others see them.

use core::hash::{Hash, Hasher};

use super::{ParticipantInfo, is_alive};
use crate::memory::Memory;
use crate::segment::Segment;
use crate::sync::Ordering;
use crate::word::{SeatId, SeatWord};

/// A participant of a segment, as others see it: its seat, and how often the seat was taken.
///
/// A seat that is taken again has another `Peer`. The value may be sent to other processes, as a job
/// of a queue or in an array. Asking for a value that nobody sent is safe: its participant is not
/// alive.
///
/// [`HandleTable::peer`](crate::HandleTable::peer) returns that of the caller,
/// [`HandleTable::owner`](crate::HandleTable::owner) that of an array's owner, and
/// [`HandleTable::peers`](crate::HandleTable::peers) all that live.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Peer {
    seat: u32,
    pid: u32,
    epoch: u64,
}

/// The pid is not compared: seat and epoch tell which participant it is.
impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        (self.seat, self.epoch) == (other.seat, other.epoch)
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seat, self.epoch).hash(state);
    }
}

impl Peer {
    /// Returns the number of its seat, from 0.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert_eq!(table.peer()?.seat(), table.seat()?);
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn seat(self) -> usize {
        self.seat as usize
    }

    /// Returns the pid of its process, as that process sees it. In another pid namespace
    /// (container) the number may be that of another process.
    ///
    /// ```
    /// # use ndshm::{HandleTable, Segment};
    /// # let table = HandleTable::join(&Segment::anonymous()?)?;
    /// assert_eq!(table.peer()?.pid(), std::process::id());
    /// # Ok::<(), ndshm::Error>(())
    /// ```
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Returns the participant that has the seat. Returns `None` for a free seat.
    pub(crate) fn of(memory: &Memory, seat: SeatId) -> Option<Peer> {
        let index = seat.index()?;
        let word = word(memory, index)?;
        word.is_taken().then(|| Peer {
            seat: index as u32,
            pid: ParticipantInfo::of(memory, seat).pid,
            epoch: word.epoch(),
        })
    }

    /// Returns the living participants in the order of their seats. `me` is the caller's seat.
    pub(crate) fn all(segment: &Segment, me: SeatId) -> Vec<Peer> {
        let memory = segment.memory();
        let seats = 0..memory.layout().geometry.seats as usize;
        let taken = seats.filter_map(|index| Peer::of(memory, SeatId::from_index(index)));
        taken.filter(|peer| peer.is_alive(segment, me)).collect()
    }

    /// Returns `true` while the participant has not left its seat, and its process has not ended.
    pub(crate) fn is_alive(self, segment: &Segment, me: SeatId) -> bool {
        let seat = self.seat_id();
        seat.is_some_and(|seat| is_alive(segment, me, seat, |now| now == self.epoch))
    }

    /// Returns `true` if the participant is dead, and was reaped or cannot be.
    pub(crate) fn is_over(self, segment: &Segment, me: SeatId) -> bool {
        let memory = segment.memory();
        match self.seat_id().and_then(|seat| Peer::of(memory, seat)) {
            Some(holder) if holder == self => {
                // A process outside the crate that locks the seat keeps every reaper out.
                segment.is_foreign_locked(self.seat()) && !self.is_alive(segment, me)
            }
            _ => true,
        }
    }

    /// Returns its seat, or `None` for a number that no segment has.
    fn seat_id(self) -> Option<SeatId> {
        let is_seat = self.seat < SeatId::MAX_SEATS;
        is_seat.then(|| SeatId::from_index(self.seat as usize))
    }
}

fn word(memory: &Memory, index: usize) -> Option<SeatWord> {
    let seats = memory.layout().geometry.seats as usize;
    // Acquire: pairs with the Release in `mark_free`. A participant that finds the next epoch also
    // finds that the one before owns nothing.
    (index < seats).then(|| memory.seat_word(index).load(Ordering::Acquire))
}
