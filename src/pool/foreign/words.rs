//! The words of a foreign pool: a mailbox, the parent, and a place for each worker.

use super::ForeignHandle;
use crate::descriptor::{ControlKind, Descriptor};
use crate::handle::AnyHandle;
use crate::handle_table::HandleTable;
use crate::pool::mailbox::Mailbox;
use crate::seat;
use crate::segment::Segment;
use crate::span::{Extent, Spans};
use crate::sync::{Atom, Ordering};
use crate::table::error::LeaseError;
use crate::table::locked::{Mode, Ticket};
use crate::word::{Field, SeatId, word_type};

word_type! {
    /// A participant, or nobody: seat 12 | it has left 1 | epoch of the seat 51.
    #[derive(Debug)]
    Member
}

impl Member {
    const SEAT: Field = Field::first(SeatId::BITS);
    const LEFT: Field = Self::SEAT.then(1);
    const EPOCH: Field = Self::LEFT.then(51);

    /// Returns the table's participant.
    pub(super) fn of(table: &HandleTable) -> Member {
        let seat = table.core.own_seat();
        let epoch = seat::epoch(table.segment().memory(), seat);
        Member(Self::EPOCH.set(Self::SEAT.set(0, seat.field()), epoch))
    }

    pub(super) fn is_nobody(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_left(self) -> bool {
        Self::LEFT.get(self.0) == 1
    }

    pub(super) fn seat(self) -> SeatId {
        SeatId::from_field(Self::SEAT.get(self.0))
    }

    /// Returns `true` if both are the same participant, whether it has left or not.
    pub(super) fn is_same(self, other: Member) -> bool {
        self.left() == other.left()
    }

    /// Returns the participant with the flag that it has left.
    fn left(self) -> Member {
        Member(Self::LEFT.set(self.0, 1))
    }

    /// Returns `true` while the participant has its seat and lives. `me` is the caller's seat.
    pub(super) fn is_alive(self, segment: &Segment, me: SeatId) -> bool {
        let same = |epoch| Self::EPOCH.get(Self::EPOCH.set(0, epoch)) == Self::EPOCH.get(self.0);
        seat::is_alive(segment, me, self.seat(), same)
    }
}

/// Words beside the mailbox: the parent's.
const PARENT: usize = 0;
const PLACES: usize = 1;
/// Words of a place: its occupant, and the memory of an answer.
const PLACE_WORDS: usize = 2;

/// The position of the words in a segment.
#[derive(Clone, Copy)]
pub(in crate::pool) struct At {
    extent: Extent,
    pub(super) workers: usize,
}

impl At {
    /// Returns the number of words for `workers` workers.
    pub(super) fn words(workers: usize) -> usize {
        Mailbox::words(workers) + PLACES + PLACE_WORDS * workers
    }

    /// Returns the offset of the words in the data region.
    #[cfg(test)]
    pub(super) fn offset(&self) -> u64 {
        self.extent.offset
    }

    /// Returns the position in a slot that is RESERVED by the caller.
    pub(super) fn reserved(extent: Extent, workers: usize) -> At {
        At { extent, workers }
    }

    /// Finds the words that `handle` names, and leases them.
    pub(super) fn find(
        table: &HandleTable,
        handle: ForeignHandle,
    ) -> Result<(At, Ticket), LeaseError> {
        let lease = table.core.take(handle.into(), Mode::Read)?;
        match Self::find_in(table.segment(), handle) {
            Some(at) => Ok((at, lease)),
            None => {
                table.core.release(&lease, false)?;
                let tables = table.core.tables();
                Err(tables.corrupt(handle.into(), "not a foreign pool"))
            }
        }
    }

    /// Finds the words of a pool that somebody keeps in place.
    pub(in crate::pool) fn find_in(segment: &Segment, handle: ForeignHandle) -> Option<At> {
        let memory = segment.memory();
        let (slot, _) = AnyHandle::from(handle).unpack(segment.key());
        let extent = Spans::of(memory).extent(slot)?;
        let descriptor = Descriptor::load(memory.descriptor(slot))
            .filter(|descriptor| descriptor.is_control_of(ControlKind::Foreign))?;
        let at = At::of(&descriptor, extent)?;
        Words::of(segment, &at).map(|_| at)
    }

    /// Returns the position of the words that a descriptor describes, if they are a pool's.
    pub(super) fn of(descriptor: &Descriptor, extent: Extent) -> Option<At> {
        let bytes = descriptor.bytes(size_of::<u64>())?;
        let words = usize::try_from(bytes / size_of::<u64>() as u64).ok()?;
        let workers = Self::workers_in(words)?;
        (bytes <= extent.size()).then_some(At { extent, workers })
    }

    /// Returns the number of workers that have this number of words, if one has.
    fn workers_in(words: usize) -> Option<usize> {
        let (none, one) = (Self::words(0), Self::words(1));
        let workers = words.checked_sub(none)? / (one - none);
        (workers > 0 && Self::words(workers) == words).then_some(workers)
    }
}

/// The words of a foreign pool. The caller keeps their slot in place by a lease.
#[derive(Clone, Copy)]
pub(in crate::pool) struct Words<'m> {
    pub(in crate::pool) mailbox: Mailbox<'m>,
    beside: &'m [Atom],
}

impl<'m> Words<'m> {
    /// Returns the words at this position, or `None` if they are not in the segment.
    pub(in crate::pool) fn of(segment: &'m Segment, at: &At) -> Option<Words<'m>> {
        let words = At::words(at.workers);
        if (words * size_of::<u64>()) as u64 > at.extent.size() {
            return None;
        }
        let words = segment.memory().control(at.extent.offset, words)?;
        let (mailbox, beside) = words.split_at_checked(Mailbox::words(at.workers))?;
        Some(Words {
            mailbox: Mailbox::in_words(mailbox),
            beside,
        })
    }

    /// Clears the words of a new pool, and writes its parent. The slot is RESERVED by the caller.
    pub(super) fn clear(&self, parent: Member) {
        self.mailbox.clear();
        for word in self.beside {
            word.store(0, Ordering::Relaxed);
        }
        self.beside[PARENT].typed().store(parent, Ordering::Relaxed);
    }

    /// Returns the parent.
    pub(super) fn parent(&self) -> Member {
        // Relaxed: written before the words were published.
        self.beside[PARENT].typed().load(Ordering::Relaxed)
    }

    fn place(&self, worker: usize) -> &'m Atom<Member> {
        self.beside[PLACES + PLACE_WORDS * worker].typed()
    }

    /// Returns the word with the memory of a worker's answer. The answer's state publishes it.
    pub(super) fn answer(&self, worker: usize) -> &'m Atom {
        &self.beside[PLACES + PLACE_WORDS * worker + 1]
    }

    /// Returns the occupant of a place.
    pub(super) fn occupant(&self, worker: usize) -> Member {
        // Acquire: pairs with the Release in `leave`.
        self.place(worker).load(Ordering::Acquire)
    }

    /// Attempts FREE → taken by `me`.
    pub(super) fn take(&self, worker: usize, me: Member) -> bool {
        // Acquire: pairs with the Release in `free`.
        let taken = self.place(worker).compare_exchange(
            Member::default(),
            me,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        taken.is_ok()
    }

    /// Performs taken by `me` → left, and counts an event.
    pub(super) fn leave(&self, worker: usize, me: Member) {
        // Release: pairs with the Acquire in `occupant`. A failure means that somebody outside of
        // the protocol has changed the word.
        let place = self.place(worker);
        let _ = place.compare_exchange(me, me.left(), Ordering::Release, Ordering::Relaxed);
        self.mailbox.event();
    }

    /// Performs `gone` → FREE, after the state and the report were reset.
    pub(super) fn free(&self, worker: usize, gone: Member) {
        // Release: pairs with the Acquire in `take`.
        let place = self.place(worker);
        let free = Member::default();
        let _ = place.compare_exchange(gone, free, Ordering::Release, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[Member::SEAT, Member::LEFT, Member::EPOCH]);
    }

    #[test]
    fn only_the_length_of_a_pool_has_workers() {
        for workers in 1..300 {
            let words = At::words(workers);
            assert_eq!(At::workers_in(words), Some(workers));
            assert_eq!(At::workers_in(words + 1), None);
            assert_eq!(At::workers_in(words - 1), None);
        }
        for words in [0, 1, At::words(0), usize::MAX] {
            assert_eq!(At::workers_in(words), None, "{words}");
        }
    }
}
