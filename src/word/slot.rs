//! The slot word, which alone decides a slot's state.

use core::fmt;

use super::{Field, SeatId, word_type};

/// The phase of a slot's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lifecycle {
    /// Has no owner and can be reserved.
    Free,
    /// The owner is writing the descriptor, or cleaning the extent.
    Reserved,
    /// Has an array. Its handle is valid.
    Live,
    /// Freed while leased or pinned. The handle is stale, and the last holder frees the bytes.
    Retired,
    /// The generations are used up. Never used again.
    Exhausted,
    /// Bits that no transition writes.
    Invalid,
}

/// The purpose of an exclusive lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The holder alone writes.
    Write,
    /// The participants of a round write.
    Round,
    /// The holder alone writes, and repairs half-written bytes. The array stays poisoned until
    /// then.
    Recover,
    /// The holder alone writes, and writes only torn tiles of one partition.
    Mend,
}

word_type! {
    /// state 2 | PINNED 1 | flags 5 | writer seat 12 | owner seat 12 | generation 32, least
    /// significant first.
    SlotWord
}

impl SlotWord {
    const STATE: Field = Field::first(2);
    /// States of words that may be PINNED.
    const LIVE: u64 = 2;
    const RETIRED: u64 = 3;
    /// Means PINNED in a LIVE or RETIRED word, and EXHAUSTED if the state is 0.
    const PINNED: Field = Self::STATE.then(1);
    /// The state with PINNED: one number for each lifecycle of a slot that was never pinned.
    const LIFECYCLE: Field = Field::first(3);
    const POISONED: Field = Self::PINNED.then(1);
    const DETACHED: Field = Self::POISONED.then(1);
    const CLEAN: Field = Self::DETACHED.then(1);
    const ROUND: Field = Self::CLEAN.then(1);
    const NAMED: Field = Self::ROUND.then(1);
    /// The same bit as CLEAN: only a FREE slot can be clean, only a LIVE or RETIRED one has
    /// contents. A control array has no writer.
    const CONTROL: Field = Self::CLEAN;
    /// The same bit in a word with a writer.
    const WAITED: Field = Self::CLEAN;
    const WRITER: Field = Self::NAMED.then(SeatId::BITS);
    const OWNER: Field = Self::WRITER.then(SeatId::BITS);
    const GENERATION: Field = Self::OWNER.then(32);
    /// The fields that make an array LIVE in its generation.
    const LIVENESS: u64 = Self::STATE.mask() | Self::GENERATION.mask();

    #[inline]
    pub(crate) fn lifecycle(self) -> Lifecycle {
        match Self::LIFECYCLE.get(self.0) {
            0 => Lifecycle::Free,
            1 => Lifecycle::Reserved,
            4 => Lifecycle::Exhausted,
            5 => Lifecycle::Invalid,
            code if code & Self::STATE.max() == Self::LIVE => Lifecycle::Live,
            _ => Lifecycle::Retired,
        }
    }

    #[inline]
    fn with_lifecycle(self, lifecycle: Lifecycle) -> Self {
        let code = match lifecycle {
            Lifecycle::Free => 0,
            Lifecycle::Reserved => 1,
            Lifecycle::Live => Self::LIVE,
            Lifecycle::Retired => Self::RETIRED,
            Lifecycle::Exhausted => 4,
            Lifecycle::Invalid => 5,
        };
        SlotWord(Self::LIFECYCLE.set(self.0, code))
    }

    #[inline]
    fn with(self, field: Field, value: u64) -> Self {
        SlotWord(field.set(self.0, value))
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        Self::GENERATION.get(self.0) as u32
    }

    #[inline]
    pub(crate) fn writer(self) -> SeatId {
        SeatId::from_field(Self::WRITER.get(self.0))
    }

    #[inline]
    pub(crate) fn owner(self) -> SeatId {
        SeatId::from_field(Self::OWNER.get(self.0))
    }

    /// Returns `true` if a writer died or panicked and the bytes were not checked since.
    #[inline]
    pub(crate) fn is_poisoned(self) -> bool {
        Self::POISONED.get(self.0) == 1
    }

    /// Returns `true` if the array outlives its owner.
    #[inline]
    pub(crate) fn is_detached(self) -> bool {
        Self::DETACHED.get(self.0) == 1
    }

    /// Returns `true` if the writer holds the array for a round: participants write disjoint tiles.
    #[inline]
    pub(crate) fn is_in_round(self) -> bool {
        Self::ROUND.get(self.0) == 1
    }

    /// Returns `true` for an array that was given a name, and for a record of names or a bundle.
    #[inline]
    pub(crate) fn is_named(self) -> bool {
        Self::NAMED.get(self.0) == 1
    }

    /// Returns `true` if the extent of this FREE slot holds zeros: it was never used, or was
    /// returned to the system since.
    #[inline]
    pub(crate) fn is_clean(self) -> bool {
        Self::CLEAN.get(self.0) == 1 || self.generation() == 0
    }

    /// Returns `true` for a control array. Its words are the crate's own; participants may hold
    /// parts of it.
    #[inline]
    pub(crate) fn is_control(self) -> bool {
        self.is_live_or_retired() && Self::CONTROL.get(self.0) == 1 && self.writer().is_none()
    }

    /// Returns `true` if a participant sleeps until this word changes, or is about to. There is a
    /// writer then.
    #[inline]
    pub(crate) fn is_waited(self) -> bool {
        self.is_live_or_retired() && self.is_waited_if_written() && !self.writer().is_none()
    }

    /// Does the work of [`is_waited`](SlotWord::is_waited) for a word that has a writer.
    #[inline]
    pub(crate) fn is_waited_if_written(self) -> bool {
        Self::WAITED.get(self.0) == 1
    }

    #[inline]
    pub(crate) fn is_free(self) -> bool {
        self.lifecycle() == Lifecycle::Free
    }

    /// Returns `true` if this array was pinned since its slot was last FREE: before the slot
    /// becomes FREE again, the row of pins must be clear.
    #[inline]
    pub(crate) fn is_pinned(self) -> bool {
        self.is_live_or_retired() && Self::PINNED.get(self.0) == 1
    }

    #[inline]
    pub(crate) fn is_retired(self) -> bool {
        Self::STATE.get(self.0) == Self::RETIRED
    }

    /// Returns `true` if the word is LIVE or RETIRED. Only these two states use the higher bit.
    #[inline]
    fn is_live_or_retired(self) -> bool {
        Self::STATE.get(self.0) >= Self::LIVE
    }

    /// Returns `true` for the word of zeroed memory, which was never written.
    #[inline]
    pub(crate) fn is_never_used(self) -> bool {
        self.0 == 0
    }

    /// Returns the reason why no transition makes this word. Returns `None` for a valid word.
    pub(crate) fn fault(self) -> Option<&'static str> {
        let flags = [Self::POISONED, Self::DETACHED, Self::ROUND, Self::NAMED];
        let unflagged = flags.iter().all(|flag| flag.get(self.0) == 0);
        let (owner, writer) = (self.owner(), self.writer());
        let unwritten = writer.is_none() && !self.is_in_round();
        let plain = unwritten && !self.is_pinned();
        let cleaned = Self::CLEAN.get(self.0) == 1;
        let fits = match self.lifecycle() {
            Lifecycle::Invalid => return Some("the state of the slot is invalid"),
            Lifecycle::Free => owner.is_none() && writer.is_none() && unflagged,
            Lifecycle::Reserved => !owner.is_none() && writer.is_none() && unflagged && !cleaned,
            Lifecycle::Live | Lifecycle::Retired if self.is_control() && !plain => false,
            Lifecycle::Live => {
                let orphan = writer != SeatId::ORPHAN || self.is_in_round();
                let written = self.is_in_round() <= !writer.is_none();
                // Both an owner and DETACHED: the array is in a queue.
                owner.is_none() <= self.is_detached() && written && orphan
            }
            Lifecycle::Retired => !owner.is_none(),
            Lifecycle::Exhausted => {
                owner.is_none() && unwritten && unflagged && self.generation() == u32::MAX
            }
        };
        // ORPHAN is a writer, and never an owner.
        (!fits || owner == SeatId::ORPHAN).then_some("the fields of the slot contradict each other")
    }

    /// Returns `true` if the slot is LIVE in this generation.
    #[inline]
    pub(crate) fn is_live(self, generation: u32) -> bool {
        // Compare both fields at once: every call on an array asks this.
        self.0 & Self::LIVENESS == Self::live(generation)
    }

    /// Returns the fields of [`LIVENESS`](Self::LIVENESS) in a word that is LIVE in `generation`.
    #[inline]
    fn live(generation: u32) -> u64 {
        let word = SlotWord(0).with(Self::GENERATION, u64::from(generation));
        word.with(Self::STATE, Self::LIVE).0
    }

    /// Returns `true` if the slot is LIVE in this generation without a writer, and is not poisoned.
    #[inline]
    pub(crate) fn admits_reader(self, generation: u32) -> bool {
        // As in `is_live`: one comparison of four fields.
        let all = Self::LIVENESS | Self::WRITER.mask() | Self::POISONED.mask();
        self.0 & all == Self::live(generation)
    }

    /// Does the work of [`admits_reader`](SlotWord::admits_reader) for a reader that does not look at
    /// half-written elements: POISONED does not turn it away.
    #[inline]
    pub(crate) fn admits_reader_of_the_rest(self, generation: u32) -> bool {
        self.0 & (Self::LIVENESS | Self::WRITER.mask()) == Self::live(generation)
    }

    #[inline]
    pub(crate) fn is_reserved_by(self, seat: SeatId) -> bool {
        self.lifecycle() == Lifecycle::Reserved && self.owner() == seat
    }

    /// Attempts FREE → RESERVED by `me`, in the same generation.
    #[must_use]
    #[inline]
    pub(crate) fn reserve(self, me: SeatId) -> Option<Self> {
        self.is_free().then(|| {
            SlotWord(0)
                .with(Self::GENERATION, u64::from(self.generation()))
                .with(Self::OWNER, me.field())
                .with_lifecycle(Lifecycle::Reserved)
        })
    }

    /// Attempts RESERVED by `me` → LIVE.
    #[must_use]
    #[inline]
    pub(crate) fn publish(self, me: SeatId) -> Option<Self> {
        self.is_reserved_by(me)
            .then(|| self.with_lifecycle(Lifecycle::Live))
    }

    /// Attempts RESERVED by `me` → LIVE, CONTROL.
    #[must_use]
    #[inline]
    pub(crate) fn publish_control(self, me: SeatId) -> Option<Self> {
        self.publish(me).map(|word| word.with(Self::CONTROL, 1))
    }

    /// Attempts RESERVED by `me` → LIVE, CONTROL, NAMED: a record of names, or a bundle.
    #[must_use]
    #[inline]
    pub(crate) fn publish_record(self, me: SeatId) -> Option<Self> {
        self.publish_control(me)
            .map(|word| word.with(Self::NAMED, 1))
    }

    /// Attempts LIVE in `generation` → LIVE, NAMED.
    #[must_use]
    #[inline]
    pub(crate) fn name(self, generation: u32) -> Option<Self> {
        self.is_live(generation).then(|| self.with(Self::NAMED, 1))
    }

    /// Attempts RESERVED by `seat` → FREE of the next generation, or EXHAUSTED.
    #[must_use]
    #[inline]
    pub(crate) fn abandon(self, seat: SeatId, clean: bool) -> Option<Self> {
        self.is_reserved_by(seat).then(|| self.next_free(clean))
    }

    /// Attempts LIVE in `generation` → LIVE, PINNED. A word that is PINNED stays as it is. Refuses
    /// control arrays.
    #[must_use]
    #[inline]
    pub(crate) fn pin(self, generation: u32) -> Option<Self> {
        (self.is_live(generation) && !self.is_control()).then(|| self.with(Self::PINNED, 1))
    }

    /// Attempts LIVE in `generation` → RETIRED by `me`. Keeps the writer, and PINNED.
    #[must_use]
    #[inline]
    pub(crate) fn retire(self, generation: u32, me: SeatId) -> Option<Self> {
        self.is_live(generation).then(|| {
            self.with(Self::OWNER, me.field())
                .with(Self::STATE, Self::RETIRED)
        })
    }

    /// Attempts RETIRED without a writer → FREE of the next generation, or EXHAUSTED. The writer
    /// ORPHAN counts as none: the caller has checked that no participant is left, and if the word
    /// is PINNED, that the row of pins is clear.
    #[must_use]
    #[inline]
    pub(crate) fn recycle(self) -> Option<Self> {
        self.is_recyclable().then(|| self.next_free(false))
    }

    /// Attempts the transition after the last lease: RETIRED → FREE, or LIVE in a round without an
    /// opener → LIVE. Returns `None` if the slot stays as it is, or has a writer.
    #[must_use]
    #[inline]
    pub(crate) fn after_leases(self) -> Option<Self> {
        match Self::STATE.get(self.0) {
            Self::RETIRED => self.recycle(),
            Self::LIVE => self.unlock(SeatId::ORPHAN, false),
            _ => None,
        }
    }

    /// Returns `false` if [`after_leases`](SlotWord::after_leases) returns `None` and the word is not
    /// WAITED, for most words of which that is so.
    #[inline]
    pub(crate) fn may_change_after_leases(self) -> bool {
        // A writer may be ORPHAN, or wait for readers.
        self.is_retired() || !self.writer().is_none()
    }

    /// Returns `true` if a RETIRED word has no writer, and never had a pin: nothing but a reader
    /// keeps the slot.
    #[inline]
    pub(crate) fn is_kept_by_readers_alone(self) -> bool {
        self.0 & (Self::WRITER.mask() | Self::PINNED.mask()) == 0
    }

    /// Attempts RETIRED without a writer → RESERVED by `me` in the next generation, to clean the
    /// extent first. Returns `None` if no generation is left.
    #[must_use]
    #[inline]
    pub(crate) fn recycle_reserved(self, me: SeatId) -> Option<Self> {
        if !self.is_recyclable() {
            return None;
        }
        self.next_free(false).reserve(me)
    }

    #[inline]
    fn is_recyclable(self) -> bool {
        self.is_retired() && matches!(self.writer(), SeatId::NONE | SeatId::ORPHAN)
    }

    #[inline]
    fn next_free(self, clean: bool) -> Self {
        match self.generation().checked_add(1) {
            Some(next) => SlotWord(0)
                .with(Self::GENERATION, u64::from(next))
                .with(Self::CLEAN, u64::from(clean)),
            None => SlotWord(0)
                .with(Self::GENERATION, u64::from(u32::MAX))
                .with_lifecycle(Lifecycle::Exhausted),
        }
    }

    /// Attempts LIVE without a writer → LIVE, written by `me`. The array is not a control array,
    /// and not poisoned unless it is to be recovered.
    #[must_use]
    #[inline]
    pub(crate) fn lock(self, generation: u32, me: SeatId, purpose: Purpose) -> Option<Self> {
        let good = !self.is_poisoned() || matches!(purpose, Purpose::Recover | Purpose::Mend);
        let data = Self::CONTROL.get(self.0) == 0;
        (self.is_live(generation) && self.writer().is_none() && good && data).then(|| {
            self.with(Self::WRITER, me.field())
                .with(Self::ROUND, u64::from(purpose == Purpose::Round))
        })
    }

    /// Attempts to remove the writer `seat`, and WAITED. With `poison`, the bytes may be half-written,
    /// and the array is poisoned.
    #[must_use]
    #[inline]
    pub(crate) fn unlock(self, seat: SeatId, poison: bool) -> Option<Self> {
        self.is_written_by(seat).then(|| {
            self.with(Self::WRITER, 0)
                .with(Self::WAITED, 0)
                .with(Self::ROUND, 0)
                .with_poison(poison)
        })
    }

    /// Attempts to remove the writer `seat`, and the poison: the writer has repaired the bytes.
    #[must_use]
    pub(crate) fn mend(self, seat: SeatId) -> Option<Self> {
        let unlocked = self.unlock(seat, false)?;
        Some(unlocked.with(Self::POISONED, 0))
    }

    /// Attempts LIVE in `generation` with a writer → the same, WAITED.
    #[must_use]
    #[inline]
    pub(crate) fn wait(self, generation: u32) -> Option<Self> {
        (self.is_live(generation) && !self.writer().is_none()).then(|| self.with(Self::WAITED, 1))
    }

    /// Attempts to remove the opener `seat` of a round. The array stays in the round, with the
    /// writer ORPHAN.
    #[must_use]
    #[inline]
    pub(crate) fn orphan(self, seat: SeatId, poison: bool) -> Option<Self> {
        (self.is_written_by(seat) && self.is_in_round()).then(|| {
            self.with(Self::WRITER, SeatId::ORPHAN.field())
                .with_poison(poison)
        })
    }

    #[inline]
    pub(crate) fn is_written_by(self, seat: SeatId) -> bool {
        self.is_live_or_retired() && self.writer() == seat
    }

    #[inline]
    fn with_poison(self, poison: bool) -> Self {
        match poison {
            true => self.with(Self::POISONED, 1),
            false => self,
        }
    }

    /// Attempts LIVE in `generation` → LIVE, POISONED.
    #[must_use]
    #[inline]
    pub(crate) fn poison(self, generation: u32) -> Option<Self> {
        self.is_live(generation).then(|| self.with_poison(true))
    }

    /// Attempts LIVE, POISONED, without a writer → LIVE, not POISONED.
    #[must_use]
    #[inline]
    pub(crate) fn clear_poison(self, generation: u32) -> Option<Self> {
        (self.is_live(generation) && self.writer().is_none()).then(|| self.with(Self::POISONED, 0))
    }

    /// Attempts LIVE, POISONED, written by `holder` → the same, not POISONED. The holder has
    /// repaired the bytes, or has the torn tiles of its round run again.
    #[must_use]
    #[inline]
    pub(crate) fn heal(self, generation: u32, holder: SeatId) -> Option<Self> {
        let ours = self.is_live(generation) && self.writer() == holder;
        (ours && self.is_poisoned()).then(|| self.with(Self::POISONED, 0))
    }

    /// Returns `true` if `seat` owns the array, which is then freed with that seat.
    #[inline]
    pub(crate) fn is_owned_by(self, seat: SeatId) -> bool {
        self.owner() == seat && !self.is_detached()
    }

    /// Returns `true` if neither a seat nor a queue owns the array.
    pub(crate) fn is_unowned(self) -> bool {
        self.owner().is_none() && self.is_detached()
    }

    /// Returns `true` if the array belongs to a queue. The owner is the seat that pushed it.
    #[inline]
    pub(crate) fn is_queued(self) -> bool {
        self.lifecycle() == Lifecycle::Live && self.is_detached() && !self.owner().is_none()
    }

    /// Returns `true` if the array belongs to a queue, and `seat` pushed it.
    pub(crate) fn is_queued_by(self, seat: SeatId) -> bool {
        self.is_queued() && self.owner() == seat
    }

    /// Attempts LIVE in `generation`, owned by `seat` → QUEUED by `seat`.
    #[must_use]
    pub(crate) fn enqueue(self, generation: u32, seat: SeatId) -> Option<Self> {
        (self.is_live(generation) && self.is_owned_by(seat)).then(|| self.with(Self::DETACHED, 1))
    }

    /// Attempts QUEUED by any seat → owned by `seat`.
    #[must_use]
    pub(crate) fn dequeue(self, generation: u32, seat: SeatId) -> Option<Self> {
        (self.is_live(generation) && self.is_queued())
            .then(|| self.with(Self::OWNER, seat.field()).with(Self::DETACHED, 0))
    }

    /// Attempts QUEUED by `seat` → owned by `seat`.
    #[must_use]
    pub(crate) fn withdraw(self, generation: u32, seat: SeatId) -> Option<Self> {
        (self.is_live(generation) && self.is_queued_by(seat)).then(|| self.with(Self::DETACHED, 0))
    }

    /// Attempts LIVE in `generation`, owned by `from` or by nobody → owned by `me`. With
    /// `SeatId::NONE`, `from` is nobody.
    #[must_use]
    pub(crate) fn adopt(self, generation: u32, from: SeatId, me: SeatId) -> Option<Self> {
        (self.is_live(generation) && (self.is_unowned() || self.is_owned_by(from)))
            .then(|| self.with(Self::OWNER, me.field()).with(Self::DETACHED, 0))
    }

    /// Attempts LIVE in `generation`, owned by `seat` or by nobody → owned by nobody.
    #[must_use]
    pub(crate) fn detach(self, generation: u32, seat: SeatId) -> Option<Self> {
        (self.is_live(generation) && (self.is_unowned() || self.is_owned_by(seat))).then(|| {
            self.with(Self::OWNER, SeatId::NONE.field())
                .with(Self::DETACHED, 1)
        })
    }
}

impl fmt::Debug for SlotWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} generation {}", self.lifecycle(), self.generation())?;
        write!(f, ", owner {:?}, writer {:?}", self.owner(), self.writer())?;
        for (set, name) in [
            (self.is_poisoned(), "poisoned"),
            (self.is_detached(), "detached"),
            (self.is_free() && self.is_clean(), "clean"),
            (self.is_control(), "control"),
            (self.is_in_round(), "in a round"),
            (self.is_named(), "named"),
            (self.is_queued(), "queued"),
            (self.is_pinned(), "pinned"),
            (self.is_waited(), "waited for"),
        ] {
            if set {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    const ME: SeatId = SeatId::from_index(0);
    const OTHER: SeatId = SeatId::from_index(SeatId::MAX_SEATS as usize - 1);

    fn live(generation: u32) -> SlotWord {
        let free = SlotWord(0).with(SlotWord::GENERATION, u64::from(generation));
        free.reserve(ME).unwrap().publish(ME).unwrap()
    }

    #[test]
    fn fields_do_not_overlap_and_fill_the_word() {
        let fields = [
            SlotWord::STATE,
            SlotWord::PINNED,
            SlotWord::POISONED,
            SlotWord::DETACHED,
            SlotWord::CLEAN,
            SlotWord::ROUND,
            SlotWord::NAMED,
            SlotWord::WRITER,
            SlotWord::OWNER,
            SlotWord::GENERATION,
        ];
        crate::word::testing::assert_disjoint(&fields);
        assert_eq!(fields.iter().fold(0, |all, f| all | f.mask()), u64::MAX);
        let lifecycle = SlotWord::STATE.mask() | SlotWord::PINNED.mask();
        assert_eq!(SlotWord::LIFECYCLE.mask(), lifecycle);
    }

    #[test]
    fn zero_is_a_free_clean_slot() {
        let zero = SlotWord::from_bits(0);
        assert!(zero.is_free() && zero.is_clean());
        assert!(zero.owner().is_none() && zero.writer().is_none());
    }

    #[test]
    fn the_life_of_a_slot() {
        let word = live(3);
        assert!(word.is_live(3) && !word.is_live(2));
        let written = word.lock(3, OTHER, Purpose::Write).unwrap();
        assert_eq!(written.lock(3, ME, Purpose::Write), None);
        let retired = written.retire(3, ME).unwrap();
        assert_eq!(retired.recycle(), None, "the writer still holds the bytes");
        assert_eq!(retired.retire(3, ME), None, "freed once");
        let free = retired.unlock(OTHER, false).unwrap().recycle().unwrap();
        assert!(free.is_free() && free.generation() == 4 && !free.is_clean());
    }

    #[test]
    fn a_control_array_says_so_until_it_is_free() {
        let free = SlotWord(0).with(SlotWord::GENERATION, 3);
        let control = free.reserve(ME).unwrap().publish_control(ME).unwrap();
        assert!(control.is_control() && !live(3).is_control());
        for purpose in [Purpose::Write, Purpose::Round, Purpose::Recover] {
            let locked = control.lock(control.generation(), OTHER, purpose);
            assert_eq!(locked, None, "it has no writer");
        }
        let retired = control.retire(3, OTHER).unwrap();
        assert!(retired.is_control());
        let free = retired.recycle().unwrap();
        assert!(!free.is_control() && !free.is_clean());
        let reserved = free.reserve(ME).unwrap();
        let clean = reserved.abandon(ME, true).unwrap();
        assert!(clean.is_clean() && !clean.is_control());
        let record = clean.reserve(ME).unwrap().publish_record(ME).unwrap();
        assert!(record.is_control() && record.is_named());
    }

    #[test]
    fn an_array_in_a_queue_is_owned_by_no_seat() {
        let queued = live(3).enqueue(3, ME).unwrap();
        assert!(queued.is_queued() && !queued.is_owned_by(ME) && queued.fault().is_none());
        assert_eq!(queued.owner(), ME, "the word says who pushed it");
        assert_eq!(live(3).enqueue(3, OTHER), None, "only the owner pushes");
        assert_eq!(live(3).enqueue(2, ME), None);
        assert_eq!(queued.enqueue(3, ME), None, "it is pushed once");
        assert_eq!(queued.adopt(3, SeatId::NONE, OTHER), None);
        assert_eq!(
            queued.adopt(3, ME, OTHER),
            None,
            "adopt does not take it out"
        );
        assert_eq!(queued.detach(3, ME), None, "nor does detach");
        let popped = queued.dequeue(3, OTHER).unwrap();
        assert!(popped.is_owned_by(OTHER) && !popped.is_queued());
        assert_eq!(queued.dequeue(2, OTHER), None, "of another array");
        assert_eq!(queued.withdraw(3, ME), Some(live(3)));
        assert_eq!(queued.withdraw(3, OTHER), None, "another one pushed it");
        assert_eq!(queued.withdraw(2, ME), None);
        assert_eq!(popped.withdraw(3, ME), None, "somebody popped it");
        assert_eq!(popped.dequeue(3, ME), None, "it is popped once");
        let detached = live(3).detach(3, ME).unwrap();
        assert!(!detached.is_queued() && detached.dequeue(3, ME).is_none());
        assert!(detached.is_unowned() && !queued.is_unowned() && !live(3).is_unowned());
        assert!(queued.retire(3, OTHER).unwrap().recycle().is_some());
    }

    #[test]
    fn every_transition_of_a_pinned_array_keeps_the_flag_until_the_slot_is_free() {
        let pinned = live(3).pin(3).unwrap();
        assert!(pinned.is_pinned() && pinned.is_live(3) && !live(3).is_pinned());
        assert_eq!(pinned.pin(3), Some(pinned), "by several seats");
        assert_eq!(
            (live(3).pin(2), live(3).retire(3, ME).unwrap().pin(3)),
            (None, None)
        );
        let free = SlotWord(0).with(SlotWord::GENERATION, 3);
        assert_eq!(free.pin(3), None);
        let control = free.reserve(ME).unwrap().publish_control(ME).unwrap();
        assert_eq!(control.pin(3), None);
        let written = pinned.lock(3, OTHER, Purpose::Write).unwrap();
        let round = pinned.lock(3, OTHER, Purpose::Round).unwrap();
        let poisoned = written.unlock(OTHER, true).unwrap();
        let recovered = poisoned.lock(3, ME, Purpose::Recover).unwrap();
        let queued = pinned.enqueue(3, ME).unwrap();
        let held = [
            written,
            round,
            poisoned,
            recovered,
            queued,
            round.orphan(OTHER, true).unwrap(),
            round.orphan(OTHER, true).unwrap().after_leases().unwrap(),
            recovered.heal(3, ME).unwrap(),
            poisoned.clear_poison(3).unwrap(),
            pinned.name(3).unwrap(),
            pinned.adopt(3, ME, OTHER).unwrap(),
            pinned.detach(3, ME).unwrap(),
            queued.dequeue(3, OTHER).unwrap(),
            queued.withdraw(3, ME).unwrap(),
            written.pin(3).unwrap(),
        ];
        for word in held {
            assert!(word.is_pinned() && word.is_live(3), "{word:?}");
            assert_eq!(word.fault(), None, "{word:?}");
            let retired = word.retire(3, ME).unwrap();
            assert!(retired.is_pinned() && retired.is_retired(), "{retired:?}");
        }
        let retired = written.retire(3, ME).unwrap();
        assert_eq!(retired.after_leases(), None, "it has a writer");
        let unlocked = retired.unlock(OTHER, false).unwrap();
        assert!(unlocked.is_pinned());
        let free = unlocked.after_leases().unwrap();
        assert!(free.is_free() && free.generation() == 4 && !free.is_pinned());
        let reserved = unlocked.recycle_reserved(ME).unwrap();
        assert!(!reserved.is_pinned() && reserved.is_reserved_by(ME));
        assert_eq!(free.reserve(ME).unwrap().publish(ME), Some(live(4)));
        let last = live(u32::MAX).pin(u32::MAX).unwrap();
        let end = last.retire(u32::MAX, ME).unwrap().recycle().unwrap();
        assert!(end.lifecycle() == Lifecycle::Exhausted && end.fault().is_none());
    }

    #[test]
    fn an_array_is_adopted_from_nobody_or_from_the_owner_that_was_seen() {
        let mine = live(3);
        assert_eq!(mine.adopt(3, SeatId::NONE, OTHER), None, "it is owned");
        assert_eq!(mine.adopt(3, OTHER, OTHER), None);
        let taken = mine.adopt(3, ME, OTHER).unwrap();
        assert!(taken.is_owned_by(OTHER) && taken.fault().is_none());
        assert_eq!(taken.detach(3, ME), None, "another one owns it");
        let nobodys = mine.detach(3, ME).unwrap();
        assert!(nobodys.is_unowned() && nobodys.fault().is_none());
        assert_eq!(nobodys.detach(3, OTHER), Some(nobodys));
        assert_eq!(nobodys.adopt(3, SeatId::NONE, OTHER), Some(taken));
        assert_eq!(
            nobodys.adopt(2, SeatId::NONE, OTHER),
            None,
            "of another array"
        );
        assert_eq!(mine.detach(2, ME), None);
    }

    #[test]
    fn the_last_generation_is_never_reused() {
        let last = live(u32::MAX).retire(u32::MAX, ME).unwrap();
        let end = last.recycle().unwrap();
        assert_eq!(end.lifecycle(), Lifecycle::Exhausted);
        assert_eq!(end.reserve(ME), None);
        assert_eq!(last.recycle_reserved(ME), None);
    }

    #[test]
    fn poison_stops_writers_until_it_is_cleared() {
        let written = live(1).lock(1, ME, Purpose::Write).unwrap();
        let poisoned = written.unlock(ME, true).unwrap();
        assert_eq!(poisoned.lock(1, OTHER, Purpose::Write), None);
        assert_eq!(poisoned.lock(1, OTHER, Purpose::Round), None);
        let recovered = poisoned.lock(1, OTHER, Purpose::Recover).unwrap();
        assert!(recovered.is_poisoned() && recovered.is_written_by(OTHER));
        assert_eq!(recovered.heal(1, ME), None);
        let healed = recovered
            .heal(1, OTHER)
            .and_then(|word| word.unlock(OTHER, false));
        assert_eq!(healed, Some(live(1)));
        assert!(
            poisoned
                .clear_poison(1)
                .unwrap()
                .lock(1, OTHER, Purpose::Write)
                .is_some()
        );
    }

    #[test]
    fn an_orphaned_round_keeps_readers_out_and_can_be_recycled() {
        let round = live(1).lock(1, OTHER, Purpose::Round).unwrap();
        let orphan = round.orphan(OTHER, true).unwrap();
        assert_eq!(orphan.writer(), SeatId::ORPHAN);
        assert_eq!(orphan.unlock(OTHER, false), None);
        assert!(orphan.retire(1, ME).unwrap().recycle().is_some());
        assert_eq!(
            live(1)
                .lock(1, OTHER, Purpose::Write)
                .unwrap()
                .orphan(OTHER, true),
            None
        );
    }

    proptest! {
        #[test]
        fn decoding_is_total_and_transitions_hold_their_guards(bits: u64, generation: u32) {
            let word = SlotWord::from_bits(bits);
            let _ = format!("{word:?}");
            prop_assert_eq!(word.reserve(ME).is_some(), word.is_free());
            for word in [word, word.with(SlotWord::WRITER, 0)] {
                for generation in [generation, word.generation()] {
                    let open = word.is_live(generation) && word.writer().is_none();
                    prop_assert_eq!(word.admits_reader_of_the_rest(generation), open);
                    let whole = open && !word.is_poisoned();
                    prop_assert_eq!(word.admits_reader(generation), whole);
                }
            }
            if let Some(next) = word.retire(generation, ME) {
                prop_assert_eq!(next.generation(), generation);
                prop_assert_eq!(next.writer(), word.writer());
            }
            if let Some(next) = word.recycle() {
                prop_assert!(
                    next.lifecycle() == Lifecycle::Exhausted
                        || next.generation() == word.generation() + 1
                );
            }
            if let Some(next) = word.lock(generation, ME, Purpose::Round) {
                prop_assert_eq!(next.unlock(ME, false), Some(word.with(SlotWord::ROUND, 0)));
            }
        }
    }
}
