//! The transitions of one slot, and the checks that follow them.
//!
//! `README.md` beside this file states the protocol and argues why these steps suffice.

use core::time::Duration;

use crate::memory::Memory;
use crate::seat::ParticipantInfo;
use crate::span::{Extent, Span, Spans};
use crate::sync::{Atom, Ordering, Word};
use crate::word::{Purpose, SeatId, SlotIndex, SlotWord};

/// One slot of a segment: its word and its row of reader bits.
///
/// Passed by value: a call that is not inlined and took a reference would spill its words to memory
/// for every lease. For the same reason it has no more words than a lease needs: calls that look at
/// the row of pins are given the memory.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'m> {
    pub(crate) index: SlotIndex,
    word: &'m Atom<SlotWord>,
    readers: &'m [Atom],
}

/// The reason for which a lease was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Not LIVE in the handle's generation.
    Stale,
    /// A writer died or panicked, and nobody has cleared the array since.
    Poisoned,
    /// Held by this seat, as the writer or as a reader.
    Busy(SeatId),
    /// A control array. Nobody leases it for writing, or pins it.
    Control,
}

/// The effect of a shared lease or a pin: it set the seat's bit, or an earlier one of the seat had
/// set it.
///
/// A seat's bits are set by one thread at a time: the threads of a `SharedTable` have a lock. So the
/// counts of its leases and pins are private to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Shared {
    First,
    Recursive,
}

/// An attempt to acquire a shared lease that a word has turned away, before or after the bit was set.
pub(crate) struct Turned {
    word: SlotWord,
    set: Option<Shared>,
}

/// The reason for which an attempt to acquire an exclusive lease stopped.
pub(crate) enum Hindered {
    /// A reader's bit is set.
    Reader(SeatId),
    /// A reader's bit is set, and the writer is already set, too.
    ReaderWithin(SeatId),
    /// The word does not admit a writer.
    Word(SlotWord),
}

/// The result of a release check. The caller passes it to [`freed`](ReleaseOutcome::freed).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum ReleaseOutcome {
    /// Other participants keep the slot, or it is not retired.
    Unchanged,
    /// The caller's own read-modify-write has read or written this word. It may be the last one of
    /// the array, so the check goes on.
    Unfinished(SlotWord),
    /// As `Unfinished`, and participants sleep on the word: they wait for the writing that the caller
    /// has ended.
    Waited(SlotWord),
    /// RETIRED → FREE of the next generation.
    Free(SlotWord),
}

impl ReleaseOutcome {
    /// Finishes the release check of `slot`. Returns the new word if this check has made the slot
    /// FREE. The caller enters the slot in the hints.
    #[inline]
    pub(crate) fn freed(self, memory: &Memory, slot: SlotIndex) -> Option<SlotWord> {
        match self {
            ReleaseOutcome::Unchanged => None,
            ReleaseOutcome::Unfinished(seen) => finish_from(memory, slot, seen),
            ReleaseOutcome::Waited(seen) => {
                if let Some(slot) = Slot::of(memory, slot) {
                    wake(slot.word);
                }
                finish_from(memory, slot, seen)
            }
            ReleaseOutcome::Free(word) => Some(word),
        }
    }
}

impl<'m> Slot<'m> {
    /// Returns all slots of the segment's spans with their extents, in order.
    pub(crate) fn all(memory: &'m Memory) -> impl Iterator<Item = (Slot<'m>, Extent)> {
        Spans::of(memory)
            .iter()
            .flat_map(move |span| Slot::in_span(memory, span))
    }

    /// Returns the slots of a span with their extents, in order.
    pub(crate) fn in_span(
        memory: &'m Memory,
        span: Span,
    ) -> impl Iterator<Item = (Slot<'m>, Extent)> {
        let geometry = &memory.layout().geometry;
        (0..span.count).filter_map(move |position| {
            let slot = Slot::of(memory, span.slot(geometry, position))?;
            Some((slot, span.extent(position)))
        })
    }

    /// Returns the slot at `index`, or `None` if the segment has no such slot.
    #[inline]
    pub(crate) fn of(memory: &'m Memory, index: SlotIndex) -> Option<Self> {
        Some(Slot {
            index,
            word: memory.slots().get(index.get())?,
            readers: memory.readers(index),
        })
    }

    /// Returns the current word. Acquire: pairs with the Release of the transition that wrote it.
    #[inline]
    pub(crate) fn word(self) -> SlotWord {
        self.word.load(Ordering::Acquire)
    }

    // ---- allocation -------------------------------------------------------------------------

    /// Attempts the transition FREE → RESERVED by `me`. Returns the new word, or the current word
    /// if it is not `seen` or `seen` is not FREE.
    #[inline]
    pub(crate) fn reserve(self, seen: SlotWord, me: SeatId) -> Result<SlotWord, SlotWord> {
        let Some(reserved) = seen.reserve(me) else {
            return Err(seen);
        };
        // Release: a sweep that finds this slot taken also finds slots that became free before. The
        // load of `seen` has acquired all accesses under the last lease.
        self.word
            .compare_exchange(seen, reserved, Ordering::Release, Ordering::Relaxed)
            .map(|_| reserved)
    }

    /// Performs the transition RESERVED by `me` → LIVE. Pairs with the Acquire of every lease:
    /// descriptor and initial contents happen before it.
    #[inline]
    pub(crate) fn publish(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish(me));
    }

    /// Publishes a control array; see [`Slot::publish`].
    pub(crate) fn publish_control(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish_control(me));
    }

    /// Publishes a record of names or a bundle; see [`Slot::publish`].
    pub(crate) fn publish_record(self, reserved: SlotWord, me: SeatId) {
        self.publish_as(reserved, reserved.publish_record(me));
    }

    #[inline]
    fn publish_as(self, reserved: SlotWord, live: Option<SlotWord>) {
        if let Some(live) = live {
            self.word.publish_owned(reserved, live);
        }
    }

    /// Performs the transition RESERVED by `me` → FREE of the next generation. `clean` says that
    /// the extent holds zeros.
    pub(crate) fn abandon(self, reserved: SlotWord, me: SeatId, clean: bool) -> SlotWord {
        let Some(free) = reserved.abandon(me, clean) else {
            return reserved;
        };
        self.word.publish_owned(reserved, free);
        free
    }

    /// Attempts the transition LIVE in `generation` → RETIRED by `me`, starting from `seen`. The
    /// handle is stale from here on. The caller runs [`Slot::release_after_retire`] next.
    #[inline]
    pub(crate) fn retire(
        self,
        mut seen: SlotWord,
        generation: u32,
        me: SeatId,
    ) -> Result<SlotWord, SlotWord> {
        while let Some(retired) = seen.retire(generation, me) {
            // AcqRel: comes before or after a reader's validation. If before, the validation
            // reports the array as stale; if after, the release check sees the reader's bit. The
            // caller's accesses to the array happen before those of its next owner, whichever
            // participant runs the last check.
            match self
                .word
                .compare_exchange(seen, retired, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    if retired.is_waited() {
                        wake(self.word);
                    }
                    return Ok(retired);
                }
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }

    // ---- leases -----------------------------------------------------------------------------

    /// Attempts to acquire a shared lease for `me`.
    pub(crate) fn lock_shared(
        self,
        generation: u32,
        me: SeatId,
    ) -> Result<Shared, (Refused, ReleaseOutcome)> {
        self.try_shared(generation, me)
            .map_err(|turned| self.turned_away(turned, generation, me))
    }

    /// Does the work of [`Slot::lock_shared`], but leaves what follows an attempt that was turned
    /// away to the caller: [`Slot::turned_away`].
    #[inline(always)]
    pub(crate) fn try_shared(self, generation: u32, me: SeatId) -> Result<Shared, Turned> {
        self.lock_if(me, |word| word.admits_reader(generation))
    }

    /// Attempts to acquire a shared lease for `me`, also of a poisoned array.
    pub(crate) fn lock_poisoned(
        self,
        generation: u32,
        me: SeatId,
    ) -> Result<Shared, (Refused, ReleaseOutcome)> {
        self.lock_if(me, |word| word.admits_reader_of_the_rest(generation))
            .map_err(|turned| self.turned_away(turned, generation, me))
    }

    #[inline(always)]
    fn lock_if(self, me: SeatId, admits: impl Fn(SlotWord) -> bool) -> Result<Shared, Turned> {
        // A stale handle must not set bits: they would refuse the writers of another array.
        let word = self.word();
        if !admits(word) {
            return Err(Turned { word, set: None });
        }
        let shared = self.set_bit(me);
        // First the bit, then the word: we read a writer's or freer's earlier transition, and
        // a writer or freer that comes later in the word's order sees our bit.
        let word = self.word.read_after_change(Ordering::AcqRel);
        match admits(word) {
            true => Ok(shared),
            false => Err(Turned {
                word,
                set: Some(shared),
            }),
        }
    }

    /// Finishes an attempt that was turned away. Returns the reason.
    #[cold]
    pub(crate) fn turned_away(
        self,
        turned: Turned,
        generation: u32,
        me: SeatId,
    ) -> (Refused, ReleaseOutcome) {
        let tail = match turned.set {
            Some(shared) => self.undo(shared, me),
            None => ReleaseOutcome::Unchanged,
        };
        (refuse_reader(turned.word, generation), tail)
    }

    /// Attempts to acquire a shared lease for `me`, which enters a round of `opener`: a writer that
    /// waits until the opener has read the array does not turn it away. The caller then looks if the
    /// round still runs.
    ///
    /// The bit of the opener protects the array until the bit of `me` does. Both are in one word of
    /// the row; otherwise the writer might look at the one before it is set, and at the other after
    /// it is cleared.
    pub(crate) fn lock_beside(
        self,
        generation: u32,
        opener: SeatId,
        me: SeatId,
    ) -> Result<Shared, (Refused, ReleaseOutcome)> {
        let admit = |word: SlotWord| match word {
            _ if !word.is_live(generation) => Err(Refused::Stale),
            // Another thread of the opener waits. The bit is its mark as well.
            _ if word.writer() == opener && me != opener => Err(Refused::Busy(opener)),
            _ if word.is_poisoned() => Err(Refused::Poisoned),
            _ => Ok(()),
        };
        let word = self.word();
        admit(word).map_err(|refused| (refused, ReleaseOutcome::Unchanged))?;
        if !self.has_one_word(me, opener) {
            return Err((Refused::Busy(word.writer()), ReleaseOutcome::Unchanged));
        }
        let shared = self.set_bit(me);
        // As in `lock_shared`.
        let word = self.newest();
        // Our bit continues the release sequence of the opener's `clear_bit`. If the opener has ended
        // the round and has set its bit again, this look acquires the first, and the caller sees the
        // end.
        let _ = self.any_reader();
        let is_covered = match me == opener {
            true => matches!(shared, Shared::Recursive),
            false => self.has_bit(opener),
        };
        let admitted = admit(word).and(match is_covered {
            false => Err(Refused::Busy(word.writer())),
            true => Ok(()),
        });
        admitted
            .map(|()| shared)
            .map_err(|refused| (refused, self.undo(shared, me)))
    }

    /// Returns `true` if one word of the row has the bits of both seats.
    fn has_one_word(self, one: SeatId, other: SeatId) -> bool {
        match (self.bit(one), self.bit(other)) {
            (Some((word, _)), Some((other, _))) => core::ptr::eq(word, other),
            _ => false,
        }
    }

    /// Sets the bit of a participant in a round of `opener`, on an array that the round writes.
    pub(crate) fn lock_tiles(
        self,
        generation: u32,
        opener: SeatId,
        me: SeatId,
    ) -> Result<Shared, (Refused, ReleaseOutcome)> {
        let admit = |word: SlotWord| match word {
            _ if !word.is_live(generation) => Err(Refused::Stale),
            _ if word.is_in_round() && word.writer() == opener => Ok(()),
            _ => Err(Refused::Busy(word.writer())),
        };
        // As in `lock_shared`: set no bit before the array looks available.
        admit(self.word()).map_err(|refused| (refused, ReleaseOutcome::Unchanged))?;
        let shared = self.set_bit(me);
        admit(self.word.read_modify_write(Ordering::AcqRel))
            .map(|()| shared)
            .map_err(|refused| (refused, self.undo(shared, me)))
    }

    /// Sets the caller's reader bit, so the slot is not reused after the retirement that the caller
    /// is about to do. Release it like a shared lease. The retirement validates it: every later
    /// release check sees the bit.
    pub(crate) fn hold_for_retire(self, generation: u32, me: SeatId) -> Option<Shared> {
        // As in `lock_shared`: a stale handle must not set bits.
        self.word().is_live(generation).then(|| self.set_bit(me))
    }

    /// Undoes a [`Slot::lock_shared`] that has just succeeded.
    pub(crate) fn undo(self, shared: Shared, me: SeatId) -> ReleaseOutcome {
        match shared {
            Shared::First => self.unlock_shared(me),
            Shared::Recursive => ReleaseOutcome::Unchanged,
        }
    }

    /// Releases the last shared lease (or place in a round) of `me` on this slot.
    #[inline]
    pub(crate) fn unlock_shared(self, me: SeatId) -> ReleaseOutcome {
        self.clear_bit(me);
        self.finish_release()
    }

    /// Attempts LIVE without a writer → LIVE, written by `me`. Returns the word before and after, or
    /// the current word.
    #[inline]
    fn set_writer(
        self,
        generation: u32,
        me: SeatId,
        purpose: Purpose,
    ) -> Result<(SlotWord, SlotWord), SlotWord> {
        // Acquire: pairs with the Release of a reader's validation; the reader's bit is then seen.
        // On failure it pairs with the Release of the poisoning transition, so the poison note is
        // seen.
        self.word
            .update(Ordering::Acquire, Ordering::Acquire, |word| {
                word.lock(generation, me, purpose)
            })
    }

    /// Attempts to acquire the exclusive lease for `me`. Refuses a control array before any change:
    /// a writer, even for a moment, would refuse its readers, and a dead writer would poison it.
    pub(crate) fn lock_exclusive(
        self,
        generation: u32,
        me: SeatId,
        purpose: Purpose,
    ) -> Result<(), (Refused, ReleaseOutcome)> {
        self.try_exclusive(generation, me, purpose)
            .map_err(|by| self.hindered(by, generation, me))
    }

    /// Does the work of [`Slot::lock_exclusive`], but leaves what follows an attempt that was
    /// hindered to the caller: [`Slot::hindered`].
    #[inline(always)]
    pub(crate) fn try_exclusive(
        self,
        generation: u32,
        me: SeatId,
        purpose: Purpose,
    ) -> Result<(), Hindered> {
        // Check for readers before setting the writer: an attempt that backs out makes concurrent
        // readers fail with `Busy`. Rounds skip the check because they are tried only once.
        let possible = || self.word().lock(generation, me, purpose).is_some();
        if purpose != Purpose::Round
            && let Some(reader) = self.any_reader()
            && possible()
        {
            return Err(Hindered::Reader(reader));
        }
        let outcome = self.set_writer(generation, me, purpose);
        if let Err(word) = outcome {
            return Err(Hindered::Word(word));
        }
        match self.any_reader() {
            None => Ok(()),
            Some(reader) => Err(Hindered::ReaderWithin(reader)),
        }
    }

    /// Finishes an attempt that was hindered. Returns the reason.
    #[cold]
    pub(crate) fn hindered(
        self,
        by: Hindered,
        generation: u32,
        me: SeatId,
    ) -> (Refused, ReleaseOutcome) {
        match by {
            Hindered::Reader(reader) => (Refused::Busy(reader), ReleaseOutcome::Unchanged),
            Hindered::ReaderWithin(reader) => {
                (Refused::Busy(reader), self.unlock_exclusive(me, false))
            }
            Hindered::Word(word) => (refuse_writer(word, generation), ReleaseOutcome::Unchanged),
        }
    }

    /// Releases the exclusive lease of `me`. `poison` says that the bytes may be half-written.
    #[inline]
    pub(crate) fn unlock_exclusive(self, me: SeatId, poison: bool) -> ReleaseOutcome {
        self.end_writing(|word| word.unlock(me, poison))
    }

    /// Releases the exclusive lease of `me`, and clears the poison: the bytes were repaired.
    pub(crate) fn mend(self, me: SeatId) -> ReleaseOutcome {
        self.end_writing(|word| word.mend(me))
    }

    #[inline(always)]
    fn end_writing(self, next: impl FnMut(SlotWord) -> Option<SlotWord>) -> ReleaseOutcome {
        // Release: pairs with the Acquire of the next lease. Acquire: pairs with the Release of a
        // refused reader's release check, if that came before: its bit is then seen to be clear.
        match self.word.update(Ordering::AcqRel, Ordering::Relaxed, next) {
            Ok((before, word)) if before.is_waited_if_written() => ReleaseOutcome::Waited(word),
            Ok((_, word)) => tail_of_lease(word),
            // The caller does not hold the lease.
            Err(_) => ReleaseOutcome::Unchanged,
        }
    }

    /// Sets the caller's bit, and then the writer: from here on no reader enters. Returns `false` if
    /// there is a writer already, or the array is not to be had. The caller has the bit in any case.
    ///
    /// The bit comes first: a writer with its own bit has not written yet, and its death does not
    /// poison the array.
    pub(crate) fn announce(self, generation: u32, me: SeatId, purpose: Purpose) -> (Shared, bool) {
        let mark = self.set_bit(me);
        let announced = self.set_writer(generation, me, purpose);
        (mark, announced.is_ok())
    }

    /// Sets WAITED. Returns the word on which the caller may [sleep](Slot::sleep), or `None` if it
    /// has no writer, or is not LIVE in `generation`.
    pub(crate) fn wait(self, generation: u32) -> Option<SlotWord> {
        let waited = self
            .word
            .update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                word.wait(generation)
            });
        // A reader's release check finds WAITED, or came before. Then its bit is seen to be clear.
        self.newest();
        waited.ok().map(|(_, word)| word)
    }

    /// Returns `true` if `me` has a shared lease of the array, and may have another one although a
    /// writer waits: while the bit is set, nobody writes the array unless it is in a round.
    pub(crate) fn reads_already(self, generation: u32, me: SeatId) -> bool {
        let word = self.word();
        self.has_bit(me)
            && word.is_live(generation)
            && !(word.is_in_round() || word.is_poisoned() || word.is_written_by(me))
    }

    /// Sleeps for at most `nap` while the word is `seen`, apart from its generation.
    pub(crate) fn sleep(self, seen: SlotWord, nap: Duration) {
        self.word.wait(seen.bits() as u32, nap);
    }

    /// Sleeps for at most `nap` while the half of the row that has the bit of `reader` is that of
    /// `seen`, the word of the row. Wakes up after a release check that finds WAITED.
    pub(crate) fn sleep_for(self, reader: SeatId, seen: u64, nap: Duration) {
        if let Some((word, bit)) = self.bit(reader) {
            match bit >> 32 {
                0 => word.wait(seen as u32, nap),
                _ => word.wait_high((seen >> 32) as u32, nap),
            }
        }
    }

    /// Wakes the writer that waits for readers.
    #[cold]
    fn wake_row(self) {
        for word in self.readers {
            word.wake_all();
            word.wake_high();
        }
    }

    /// Ends the round that `me` opened although participants may still hold tiles. The array is
    /// left without an opener, and the last participant's release check unlocks it.
    pub(crate) fn orphan(self, me: SeatId, poison: bool) -> ReleaseOutcome {
        // Release: pairs with the Acquire of the next lease.
        let _ = self
            .word
            .update(Ordering::Release, Ordering::Relaxed, |word| {
                word.orphan(me, poison)
            });
        self.finish_release()
    }

    /// Runs the release check. Every participant that clears a bit or a writer, or retires the
    /// slot, runs it, even if its lease was refused. It finishes transitions that the others could
    /// not.
    #[inline]
    pub(crate) fn finish_release(self) -> ReleaseOutcome {
        // More than a load: the freer could miss our cleared bit while we miss its RETIRED (store
        // buffering). What we change comes before, or what a dead participant changed.
        tail_of_lease(self.word.read_after_change(Ordering::AcqRel))
    }

    /// Runs the release check after the caller's own `retire`, which wrote `retired`.
    #[inline(always)]
    pub(crate) fn release_after_retire(self, retired: SlotWord) -> ReleaseOutcome {
        match retired.recycle() {
            Some(free) if retired.is_kept_by_readers_alone() => self.finish(retired, free),
            _ => ReleaseOutcome::Unfinished(retired),
        }
    }

    /// Attempts the transition `word` → `next`, the word [after the last
    /// lease](SlotWord::after_leases), unless a reader's bit is set. The caller has checked the
    /// pins. The check is not finished if the current word is not `word`.
    #[inline(always)]
    fn finish(self, word: SlotWord, next: SlotWord) -> ReleaseOutcome {
        if self.any_reader().is_some() {
            // The reader that clears this bit runs the release check after us.
            return ReleaseOutcome::Unchanged;
        }
        // Release: pairs with the Acquire of a look at the free slot, or of the next lease.
        // Acquire: pairs with `retire`. The slot may have passed through other hands since `word`
        // was read, and then the caller goes on with the word of a later array.
        let finished = self
            .word
            .compare_exchange(word, next, Ordering::Release, Ordering::Acquire);
        match finished {
            Ok(_) if next.is_free() => ReleaseOutcome::Free(next),
            Ok(_) => ReleaseOutcome::Unchanged,
            Err(now) => ReleaseOutcome::Unfinished(now),
        }
    }

    /// Attempts the transition RETIRED without leases → RESERVED by `me` in the next generation, to
    /// clean the extent.
    pub(crate) fn recycle_reserved(
        self,
        memory: &Memory,
        retired: SlotWord,
        me: SeatId,
    ) -> Option<SlotWord> {
        let reserved = retired.recycle_reserved(me)?;
        if self.any_reader().is_some() || is_kept_by_pins(memory, self.index, retired) {
            return None;
        }
        // Relaxed: `retired` and the bits were acquired, and the Release in `abandon` follows.
        self.word
            .compare_exchange(retired, reserved, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| reserved)
    }

    // ---- pins -------------------------------------------------------------------------------

    /// Attempts to pin the array of `generation` for `me`: its slot does not become FREE before the
    /// pin is released. Excludes nobody.
    pub(crate) fn pin(
        self,
        memory: &Memory,
        generation: u32,
        me: SeatId,
    ) -> Result<Shared, (Refused, ReleaseOutcome)> {
        // As in `lock_shared`: a stale handle must not set bits.
        let word = self.word();
        if word.pin(generation).is_none() {
            return Err((refuse_pin(word, generation), ReleaseOutcome::Unchanged));
        }
        ParticipantInfo::note_pins(memory, me);
        let pin = set(pin_bit(memory, self.index, me));
        // Release: a retirement that comes later in the word's order sees the bit. A load would not
        // do, even if it finds the word PINNED: the freer could miss our bit while we miss its
        // RETIRED.
        let pinned = self
            .word
            .update(Ordering::Release, Ordering::Relaxed, |word| {
                word.pin(generation)
            });
        match (pinned, pin) {
            (Ok(_), _) => Ok(pin),
            (Err(word), Shared::First) => {
                Err((refuse_pin(word, generation), self.unpin(memory, me)))
            }
            (Err(word), Shared::Recursive) => {
                Err((refuse_pin(word, generation), ReleaseOutcome::Unchanged))
            }
        }
    }

    /// Releases the last pin of `me` on this slot.
    pub(crate) fn unpin(self, memory: &Memory, me: SeatId) -> ReleaseOutcome {
        self.clear_pin(memory, me);
        self.finish_release()
    }

    /// Clears the pin of a seat. The caller runs the release check.
    pub(crate) fn clear_pin(self, memory: &Memory, seat: SeatId) {
        clear(pin_bit(memory, self.index, seat));
    }

    /// Returns `true` if the seat's pin is set.
    pub(crate) fn has_pin(self, memory: &Memory, seat: SeatId) -> bool {
        is_set(pin_bit(memory, self.index, seat))
    }

    /// Returns the seats with a pin set.
    pub(crate) fn pin_seats(self, memory: &Memory) -> Vec<SeatId> {
        seats_of(memory.pins(self.index))
    }

    // ---- other transitions ------------------------------------------------------------------

    /// Applies a transition that touches no bytes: ownership, poison.
    pub(crate) fn change(
        self,
        next: impl FnMut(SlotWord) -> Option<SlotWord>,
    ) -> Result<SlotWord, SlotWord> {
        // Release: the caller's earlier actions, also those on behalf of a dead seat, happen before
        // those of a participant that sees the new word.
        self.word
            .update(Ordering::Release, Ordering::Relaxed, next)
            .map(|(_, new)| new)
    }

    /// Reads the word by a read-modify-write. Our earlier actions happen before those of a
    /// participant that changes the word next.
    pub(crate) fn newest(self) -> SlotWord {
        self.word.read_modify_write(Ordering::AcqRel)
    }

    /// Clears the owner of a slot that is LIVE in `generation`, which `seat` owns.
    pub(crate) fn detach_record(self, generation: u32, seat: SeatId) {
        // Both pair with `newest`. Acquire: our next look at the bucket is at least as new as that
        // of a participant that found the record owned. Release: a participant that finds the
        // record detached finds it in the bucket, or finds a later entry there.
        let _ = self
            .word
            .update(Ordering::AcqRel, Ordering::Relaxed, |word| {
                word.detach(generation, seat)
            });
    }

    // ---- reader bits ------------------------------------------------------------------------

    #[inline]
    fn bit(self, seat: SeatId) -> Option<(&'m Atom, u64)> {
        bit_of(self.readers, seat)
    }

    #[inline]
    fn set_bit(self, seat: SeatId) -> Shared {
        set(self.bit(seat))
    }

    /// Clears the bit and returns `true` if it was set. The caller runs the release check.
    #[inline]
    pub(crate) fn clear_bit(self, seat: SeatId) -> bool {
        clear(self.bit(seat))
    }

    pub(crate) fn has_bit(self, seat: SeatId) -> bool {
        is_set(self.bit(seat))
    }

    /// Returns the seats with a bit set.
    pub(crate) fn reader_seats(self) -> Vec<SeatId> {
        seats_of(self.readers)
    }

    /// Returns the first seat with a bit set, other than `me`, and the word of the row that has it.
    pub(crate) fn any_other_reader(self, me: SeatId) -> Option<(SeatId, u64)> {
        let own = me.index();
        let mut words = self.readers.iter().enumerate();
        words.find_map(|(at, word)| {
            let own = own
                .filter(|own| own / 64 == at)
                .map_or(0, |own| 1 << (own % 64));
            // Acquire: pairs with the Release in `clear_bit`.
            let bits = word.load(Ordering::Acquire);
            Some((first_of(at, bits & !own)?, bits))
        })
    }

    /// Returns the first seat with a bit set.
    #[inline(always)]
    pub(crate) fn any_reader(self) -> Option<SeatId> {
        // Acquire: pairs with the Release in `clear_bit`.
        let look = |word: &Atom| word.load(Ordering::Acquire);
        match self.readers {
            // The row of the default geometry: one branch for all of it.
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

/// Returns the word and the bit of a seat in a row.
#[inline]
fn bit_of(row: &[Atom], seat: SeatId) -> Option<(&Atom, u64)> {
    let index = seat.bit();
    Some((row.get(index / 64)?, 1 << (index % 64)))
}

/// Sets a bit of a row, which nobody else changes.
#[inline]
fn set(bit: Option<(&Atom, u64)>) -> Shared {
    // Relaxed: the Release of the validation that follows orders it.
    match bit {
        Some((word, bit)) if word.set_owned(bit, Ordering::Relaxed) => Shared::Recursive,
        _ => Shared::First,
    }
}

/// Clears a bit of a row and returns `true` if it was set.
#[inline]
fn clear(bit: Option<(&Atom, u64)>) -> bool {
    // Release: pairs with the Acquire in `any_reader` and `any_pin`. All accesses under the shared
    // lease or the pin happen before those of the writer or of the next owner.
    bit.is_some_and(|(word, bit)| word.fetch_and(!bit, Ordering::Release) & bit != 0)
}

/// Returns `true` if a bit of a row is set.
fn is_set(bit: Option<(&Atom, u64)>) -> bool {
    // Relaxed: only a participant that acts for the seat asks for its bit.
    bit.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Returns the seats with a bit set in a row.
fn seats_of(row: &[Atom]) -> Vec<SeatId> {
    let mut seats = Vec::new();
    for (at, word) in row.iter().enumerate() {
        // Relaxed: callers report or await these seats; their accesses are acquired elsewhere.
        let bits = word.load(Ordering::Relaxed);
        let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
        seats.extend(set.map(|bit| SeatId::from_index(at * 64 + bit)));
    }
    seats
}

/// Returns the reason for which a slot with this word is not pinned.
fn refuse_pin(word: SlotWord, generation: u32) -> Refused {
    match word.is_live(generation) {
        true => Refused::Control,
        false => Refused::Stale,
    }
}

/// Returns the word and the bit of a seat in a slot's row of pins.
fn pin_bit(memory: &Memory, slot: SlotIndex, seat: SeatId) -> Option<(&Atom, u64)> {
    bit_of(memory.pins(slot), seat)
}

/// Returns `true` if a pin keeps a slot with this `word` from becoming FREE.
fn is_kept_by_pins(memory: &Memory, slot: SlotIndex, word: SlotWord) -> bool {
    word.is_retired() && word.is_pinned() && any_pin(memory, slot)
}

/// Returns `true` if a pin of the slot is set.
fn any_pin(memory: &Memory, slot: SlotIndex) -> bool {
    let mut pins = memory.pins(slot).iter();
    // Acquire: pairs with the Release in `clear_pin`.
    pins.any(|word| word.load(Ordering::Acquire) != 0)
}

/// Runs the release check after a released lease, where there is nearly always nothing to do.
#[inline(always)]
fn tail_of_lease(word: SlotWord) -> ReleaseOutcome {
    match word.may_change_after_leases() {
        false => ReleaseOutcome::Unchanged,
        true => ReleaseOutcome::Unfinished(word),
    }
}

/// Continues the release check of a slot from `seen`, which the caller's own read-modify-write has
/// read or written. Returns the new word if this check has made the slot FREE.
#[cold]
fn finish_from(memory: &Memory, index: SlotIndex, mut seen: SlotWord) -> Option<SlotWord> {
    let slot = Slot::of(memory, index)?;
    if seen.is_waited() {
        // The writer may wait for the bit that the caller has cleared.
        slot.wake_row();
    }
    while let Some(next) = seen.after_leases() {
        if is_kept_by_pins(memory, index, seen) {
            // The participant that clears the pin runs the release check after us.
            break;
        }
        let finished = slot.finish(seen, next);
        if seen.is_waited() {
            // `next` has no writer, if the word is that.
            wake(slot.word);
        }
        match finished {
            ReleaseOutcome::Unchanged => break,
            ReleaseOutcome::Unfinished(now) | ReleaseOutcome::Waited(now) => seen = now,
            ReleaseOutcome::Free(word) => return Some(word),
        }
    }
    None
}

/// Wakes the participants that sleep on a word.
#[cold]
fn wake(word: &Atom<SlotWord>) {
    word.wake_all();
}

/// Returns the first seat among the bits of a row. Takes the row in registers: callers that find it
/// clear must not write it to memory.
#[cold]
fn first_seat(a: u64, b: u64, c: u64, d: u64) -> Option<SeatId> {
    (0..)
        .zip([a, b, c, d])
        .find_map(|(at, bits)| first_of(at, bits))
}

/// Returns the first seat among the bits of one word of a row.
fn first_of(at: usize, bits: u64) -> Option<SeatId> {
    (bits != 0).then(|| SeatId::from_index(at * 64 + bits.trailing_zeros() as usize))
}

/// Returns the reason for which a word does not admit a reader.
#[cold]
fn refuse_reader(word: SlotWord, generation: u32) -> Refused {
    if !word.is_live(generation) {
        Refused::Stale
    } else if !word.writer().is_none() {
        Refused::Busy(word.writer())
    } else {
        Refused::Poisoned
    }
}

/// Returns the reason for which a word does not admit a writer.
#[cold]
fn refuse_writer(word: SlotWord, generation: u32) -> Refused {
    match word.admits_reader(generation) {
        false => refuse_reader(word, generation),
        true if word.is_control() => Refused::Control,
        true => Refused::Busy(word.writer()),
    }
}
