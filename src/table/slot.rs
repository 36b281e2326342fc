//! The rules of one slot: who may change its word, and who runs which check afterwards.
//!
//! `README.md` beside this file states the protocol and argues why these steps suffice.

use crate::segment::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::{Purpose, SeatId, SlotWord};

/// One slot of a segment: its word and its row of reader bits.
///
/// Passed by value: a call that is not inlined and took it by reference would have its four words
/// written to memory on the way of every lease.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'m> {
    pub(crate) index: usize,
    word: &'m Atom<SlotWord>,
    readers: &'m [Atom],
}

/// Why a lease was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Not LIVE in the handle's generation.
    Stale,
    /// A writer died or panicked; nobody has cleared the array since.
    Poisoned,
    /// Held by this seat: the writer, or one of the readers.
    Busy(SeatId),
    /// A control array, which nobody leases for writing.
    Control,
}

/// Whether a shared lease set the seat's bit, or found it set by an earlier lease of the same seat.
///
/// Only a seat's own thread sets its bit, so the count of its leases is private to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Shared {
    First,
    Again,
}

/// What giving back a lease led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Tail {
    /// The slot goes on as it is.
    Unchanged,
    /// RETIRED → FREE of the next generation: the caller enters the slot in the hints.
    Freed(SlotWord),
}

impl<'m> Slot<'m> {
    /// `None` if the segment has no such slot.
    #[inline]
    pub(crate) fn of(memory: &'m Memory, index: usize) -> Option<Self> {
        Some(Slot {
            index,
            word: memory.slots().get(index)?,
            readers: memory.readers(index),
        })
    }

    /// The word as it is now. Acquire: pairs with the Release of whichever transition it shows.
    #[inline]
    pub(crate) fn word(self) -> SlotWord {
        self.word.load(Ordering::Acquire)
    }

    // ---- allocation -------------------------------------------------------------------------

    /// FREE exactly as `seen` → RESERVED by `me`. The reserved word, or the word that was there.
    #[inline]
    pub(crate) fn reserve(self, seen: SlotWord, me: SeatId) -> Result<SlotWord, SlotWord> {
        let Some(reserved) = seen.reserve(me) else {
            return Err(seen);
        };
        // Release: a sweep that finds this slot taken finds what became free before. Who has looked
        // at `seen` has acquired all accesses under the last lease.
        self.word
            .compare_exchange(seen, reserved, Ordering::Release, Ordering::Relaxed)
            .map(|_| reserved)
    }

    /// RESERVED by `me` → LIVE. Pairs with the Acquire of every lease: descriptor and initial
    /// contents happen before it.
    #[inline]
    pub(crate) fn publish(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish(me));
    }

    /// As [`Slot::publish`], for a control array.
    pub(crate) fn publish_control(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish_control(me));
    }

    /// As [`Slot::publish`], for a record of names, or a bundle.
    pub(crate) fn publish_record(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish_record(me));
    }

    #[inline]
    fn publish_as(self, reserved: SlotWord, live: Option<SlotWord>) {
        if let Some(live) = live {
            self.word.publish_owned(reserved, live);
        }
    }

    /// RESERVED by `me` → FREE of the next generation, `clean` if the extent holds zeros.
    pub(crate) fn abandon(self, reserved: SlotWord, me: SeatId, clean: bool) -> SlotWord {
        let Some(free) = reserved.abandon(me, clean) else {
            return reserved;
        };
        self.word.publish_owned(reserved, free);
        free
    }

    /// LIVE in `generation`, last seen as `seen` → RETIRED by `me`. The handle is stale from here
    /// on; what comes of the bytes is for [`Slot::tail_after_retire`], which the caller runs next.
    #[inline]
    pub(crate) fn retire(
        self,
        mut seen: SlotWord,
        generation: u32,
        me: SeatId,
    ) -> Result<SlotWord, SlotWord> {
        while let Some(retired) = seen.retire(generation, me) {
            // AcqRel: comes either before a reader's validation, which then reports the array as
            // stale, or after it, and then the tail check sees the reader's bit. What the caller
            // has done to the array comes before its next owner, whoever runs the last check.
            match self
                .word
                .compare_exchange(seen, retired, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Ok(retired),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }

    // ---- leases -----------------------------------------------------------------------------

    /// Takes a shared lease for `me`.
    #[inline]
    pub(crate) fn lock_shared(
        self,
        generation: u32,
        me: SeatId,
    ) -> Result<Shared, (Refused, Tail)> {
        // A stale handle must not set bits: they would turn a stranger's write lease away.
        admit(self.word(), generation).map_err(|refused| (refused, Tail::Unchanged))?;
        let shared = self.set_bit(me);
        // The bit first, then the word: a writer or freer whose transition comes later in the
        // word's order sees our bit, an earlier one is what we read here.
        let word = self.word.read_modify_write(Ordering::AcqRel);
        admit(word, generation)
            .map(|()| shared)
            .map_err(|refused| (refused, self.undo(shared, me)))
    }

    /// Sets the bit of a participant of a round which `opener` holds, on an array that it writes.
    pub(crate) fn lock_tiles(
        self,
        generation: u32,
        opener: SeatId,
        me: SeatId,
    ) -> Result<Shared, (Refused, Tail)> {
        let admit = |word: SlotWord| match word {
            _ if !word.is_live(generation) => Err(Refused::Stale),
            _ if word.is_in_round() && word.writer() == opener => Ok(()),
            _ => Err(Refused::Busy(word.writer())),
        };
        // As in `lock_shared`: not a bit before the array looks as if it could be had.
        admit(self.word()).map_err(|refused| (refused, Tail::Unchanged))?;
        let shared = self.set_bit(me);
        admit(self.word.read_modify_write(Ordering::AcqRel))
            .map(|()| shared)
            .map_err(|refused| (refused, self.undo(shared, me)))
    }

    /// Sets the bit of one who is about to retire what is in the slot, and needs that to stay after it;
    /// given back as a shared lease. The retirement is its validation: who runs a tail check after that
    /// sees the bit.
    pub(crate) fn keep(self, generation: u32, me: SeatId) -> Option<Shared> {
        // As in `lock_shared`: not for a stale handle.
        self.word().is_live(generation).then(|| self.set_bit(me))
    }

    /// Gives back what [`Slot::lock_shared`] has just taken.
    pub(crate) fn undo(self, shared: Shared, me: SeatId) -> Tail {
        match shared {
            Shared::First => self.unlock_shared(me),
            Shared::Again => Tail::Unchanged,
        }
    }

    /// Gives the last shared lease (or place in a round) that `me` has here back.
    #[inline]
    pub(crate) fn unlock_shared(self, me: SeatId) -> Tail {
        self.clear_bit(me);
        self.tail()
    }

    /// Takes the exclusive lease for `me`. Control arrays are refused before anything is changed: a
    /// writer, even for a moment, would keep their readers out, and its death would poison them.
    #[inline]
    pub(crate) fn lock_exclusive(
        self,
        generation: u32,
        me: SeatId,
        purpose: Purpose,
    ) -> Result<(), (Refused, Tail)> {
        // Who finds a reader afterwards, and backs out, has turned other readers away meanwhile: so not
        // a step before the array looks as if it could be had. (Who opens a round asks but once.)
        let possible = || self.word().lock(generation, me, purpose).is_some();
        if purpose != Purpose::Round
            && let Some(reader) = self.any_reader()
            && possible()
        {
            return Err((Refused::Busy(reader), Tail::Unchanged));
        }
        // Acquire: pairs with the Release of a reader's validation, whose bit is then seen; on
        // failure with that of whoever poisoned the array, and has noted who wrote it.
        let outcome = self
            .word
            .update(Ordering::Acquire, Ordering::Acquire, |word| {
                word.lock(generation, me, purpose)
            });
        if let Err(word) = outcome {
            let refused = match admit(word, generation) {
                Err(refused) => refused,
                Ok(()) if word.is_control() => Refused::Control,
                Ok(()) => Refused::Busy(word.writer()),
            };
            return Err((refused, Tail::Unchanged));
        }
        match self.any_reader() {
            None => Ok(()),
            Some(reader) => {
                let tail = self.unlock_exclusive(me, false);
                Err((Refused::Busy(reader), tail))
            }
        }
    }

    /// Gives the exclusive lease of `me` back; `poison` if the bytes may be half-written.
    #[inline]
    pub(crate) fn unlock_exclusive(self, me: SeatId, poison: bool) -> Tail {
        // Release: pairs with the Acquire of the next lease. Acquire: pairs with the Release of a
        // reader that was turned away and has looked at the word before: its bit is seen to be clear.
        let unlocked = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                word.unlock(me, poison)
            });
        match unlocked {
            Ok((_, word)) => self.tail_of_lease(word),
            // `me` does not hold the lease: there is nothing to give back.
            Err(_) => Tail::Unchanged,
        }
    }

    /// Ends the round that `me` opened although participants may still hold tiles: the array has
    /// no opener from here on, and the last participant's tail check unlocks it.
    pub(crate) fn orphan(self, me: SeatId, poison: bool) -> Tail {
        // Release: pairs with the Acquire of the next lease.
        let _ = self
            .word
            .update(Ordering::Release, Ordering::Relaxed, |word| {
                word.orphan(me, poison)
            });
        self.tail()
    }

    /// Run by everyone who has cleared a bit or a writer, whether or not the lease had succeeded,
    /// and by who has retired the slot: finishes what the others could not.
    #[inline]
    pub(crate) fn tail(self) -> Tail {
        // A read-modify-write: were it a load, the freer could miss our cleared bit and we its
        // RETIRED (store buffering).
        self.tail_of_lease(self.word.read_modify_write(Ordering::AcqRel))
    }

    /// The tail check of who has given a lease back: there is nearly always nothing to do.
    #[inline(always)]
    fn tail_of_lease(self, word: SlotWord) -> Tail {
        match word.after_leases() {
            None => Tail::Unchanged,
            Some(_) => self.tail_after(word),
        }
    }

    /// The tail check of who has just retired the slot, by that word.
    #[inline(always)]
    pub(crate) fn tail_after_retire(self, retired: SlotWord) -> Tail {
        match retired.recycle() {
            None => Tail::Unchanged,
            Some(free) => match self.finish(retired, free) {
                Ok(tail) => tail,
                Err(now) => self.tail_after(now),
            },
        }
    }

    /// [`Slot::tail`] for one whose own read-modify-write has just made or found the word this.
    #[cold]
    fn tail_after(self, mut word: SlotWord) -> Tail {
        while let Some(next) = word.after_leases() {
            match self.finish(word, next) {
                Ok(tail) => return tail,
                Err(now) => word = now,
            }
        }
        Tail::Unchanged
    }

    /// `word` → `next`, what comes of it [after the last lease](SlotWord::after_leases), if there is
    /// none. The word that was there instead.
    #[inline(always)]
    fn finish(self, word: SlotWord, next: SlotWord) -> Result<Tail, SlotWord> {
        if self.any_reader().is_some() {
            // Whoever clears that bit runs this check after us.
            return Ok(Tail::Unchanged);
        }
        // Release: pairs with the Acquire of who looks at the free slot, or of the next lease.
        self.word
            .compare_exchange(word, next, Ordering::Release, Ordering::Relaxed)
            .map(|_| match next.is_free() {
                true => Tail::Freed(next),
                false => Tail::Unchanged,
            })
    }

    /// RETIRED and without leases → RESERVED by `me` in the next generation, for cleaning.
    pub(crate) fn recycle_reserved(self, retired: SlotWord, me: SeatId) -> Option<SlotWord> {
        let reserved = retired.recycle_reserved(me)?;
        if self.any_reader().is_some() {
            return None;
        }
        // Relaxed: `retired` and the bits were acquired, and `abandon` publishes what comes next.
        self.word
            .compare_exchange(retired, reserved, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| reserved)
    }

    // ---- other transitions ------------------------------------------------------------------

    /// Applies a transition that touches no bytes: ownership, poison.
    pub(crate) fn change(
        self,
        next: impl FnMut(SlotWord) -> Option<SlotWord>,
    ) -> Result<SlotWord, SlotWord> {
        // Release: what its actor did before, in a dead one's stead too, happens before what is done
        // by who sees it.
        self.word
            .update(Ordering::Release, Ordering::Relaxed, next)
            .map(|(_, new)| new)
    }

    /// The word by a read-modify-write: who changes it next has what happened before this.
    pub(crate) fn newest(self) -> SlotWord {
        self.word.read_modify_write(Ordering::AcqRel)
    }

    /// LIVE in `generation` → the same, owned by nobody.
    pub(crate) fn detach_record(self, generation: u32) {
        // Both pair with `newest`. Acquire: the next look at the bucket is not older than that of who
        // has found the record owned. Release: who finds it detached finds it in the bucket, or
        // what came there after it.
        let _ = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                word.own(generation, SeatId::NONE)
            });
    }

    // ---- reader bits ------------------------------------------------------------------------

    #[inline]
    fn bit(self, seat: SeatId) -> Option<(&'m Atom, u64)> {
        let index = seat.index()?;
        Some((self.readers.get(index / 64)?, 1 << (index % 64)))
    }

    #[inline]
    fn set_bit(self, seat: SeatId) -> Shared {
        // Relaxed: ordered before the validation that follows by the Release of that.
        match self.bit(seat) {
            Some((word, bit)) if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 => Shared::Again,
            _ => Shared::First,
        }
    }

    /// Clears the bit; whether it was set. The caller runs the tail check.
    #[inline]
    pub(crate) fn clear_bit(self, seat: SeatId) -> bool {
        let Some((word, bit)) = self.bit(seat) else {
            return false;
        };
        // Release: pairs with the Acquire in `any_reader`, so that all accesses under the shared
        // lease happen before those of the writer or of the next owner.
        word.fetch_and(!bit, Ordering::Release) & bit != 0
    }

    pub(crate) fn has_bit(self, seat: SeatId) -> bool {
        self.bit(seat)
            // Relaxed: a seat's own bit is asked for by who acts for the seat.
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// The seats whose bits are set.
    pub(crate) fn reader_seats(self) -> Vec<SeatId> {
        let mut seats = Vec::new();
        for (at, word) in self.readers.iter().enumerate() {
            // Relaxed: to be told of or waited for; what they did is acquired elsewhere.
            let bits = word.load(Ordering::Relaxed);
            let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
            seats.extend(set.map(|bit| SeatId::from_index(at * 64 + bit)));
        }
        seats
    }

    /// The first seat whose bit is set.
    #[inline(always)]
    pub(crate) fn any_reader(self) -> Option<SeatId> {
        // Pairs with the Release in `clear_bit`.
        let look = |word: &Atom| word.load(Ordering::Acquire);
        match self.readers {
            // The row of the default geometry: all of it by one branch.
            [a, b, c, d] => {
                let row = (look(a), look(b), look(c), look(d));
                match row.0 | row.1 | row.2 | row.3 {
                    0 => None,
                    _ => first_seat(row.0, row.1, row.2, row.3),
                }
            }
            row => {
                let mut words = row.iter().enumerate();
                words.find_map(|(at, word)| first_of(at, look(word)))
            }
        }
    }
}

/// The first seat among the bits of a row. In registers, lest all who find it clear write it to memory.
#[cold]
fn first_seat(a: u64, b: u64, c: u64, d: u64) -> Option<SeatId> {
    (0..)
        .zip([a, b, c, d])
        .find_map(|(at, bits)| first_of(at, bits))
}

/// The first seat among the bits of a row's word.
fn first_of(at: usize, bits: u64) -> Option<SeatId> {
    (bits != 0).then(|| SeatId::from_index(at * 64 + bits.trailing_zeros() as usize))
}

/// Whether a reader may enter, by the word alone.
#[inline]
fn admit(word: SlotWord, generation: u32) -> Result<(), Refused> {
    if !word.is_live(generation) {
        Err(Refused::Stale)
    } else if !word.writer().is_none() {
        Err(Refused::Busy(word.writer()))
    } else if word.is_poisoned() {
        Err(Refused::Poisoned)
    } else {
        Ok(())
    }
}
