//! The words of a queue: one per cell, and one per end.

use core::fmt;

use super::{Field, SeatId, word_type};

/// The state of a cell in its lap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CellState {
    /// Has no job.
    Empty,
    /// The seat writes a job.
    Writing,
    /// Has a job.
    Full,
    /// The seat reads the job.
    Taking,
    /// Bits that no transition writes.
    Invalid,
}

word_type! {
    /// A cell's word: seat 12 | state 3 | lap 49.
    ///
    /// Every transition increases the word as a number: the lap lies above the state, the states
    /// are numbered in their order, and an undo goes to the next lap. So a word that is read twice
    /// with the same value has not changed in between.
    CellWord
}

impl CellWord {
    const SEAT: Field = Field::first(SeatId::BITS);
    const STATE: Field = Self::SEAT.then(3);
    const LAP: Field = Self::STATE.then(49);
    const LAST_LAP: u64 = Self::LAP.max();
    /// From this lap on a cell is used up. At 25 ns a job, a queue of one cell gets there in 160
    /// days. The laps beyond are for deaths, which take one lap each.
    pub(crate) const CLAIM_LIMIT: u64 = Self::LAST_LAP - 0xffff;

    fn new(lap: u64, state: CellState, seat: SeatId) -> CellWord {
        let code = match state {
            CellState::Empty => 0,
            CellState::Writing => 1,
            CellState::Full => 2,
            CellState::Taking => 3,
            CellState::Invalid => Self::STATE.max(),
        };
        let word = Self::SEAT.set(0, seat.field());
        let word = Self::STATE.set(word, code);
        CellWord(Self::LAP.set(word, lap))
    }

    pub(crate) fn lap(self) -> u64 {
        Self::LAP.get(self.0)
    }

    pub(crate) fn seat(self) -> SeatId {
        SeatId::from_field(Self::SEAT.get(self.0))
    }

    pub(crate) fn state(self) -> CellState {
        match Self::STATE.get(self.0) {
            0 => CellState::Empty,
            1 => CellState::Writing,
            2 => CellState::Full,
            3 => CellState::Taking,
            _ => CellState::Invalid,
        }
    }

    pub(crate) fn is_full(self) -> bool {
        self.state() == CellState::Full && self.lap() < Self::LAST_LAP
    }

    /// Returns `true` if a producer may claim the cell, in this lap or a later one.
    pub(crate) fn is_claimable(self) -> bool {
        self.state() == CellState::Empty && self.lap() < Self::CLAIM_LIMIT
    }

    /// Returns the first lap in which the cell may still become FULL.
    pub(crate) fn next_full(self) -> u64 {
        match self.state() {
            // A death would put the job back, in the next lap.
            CellState::Taking => self.lap() + 1,
            _ => self.lap(),
        }
    }

    /// Attempts EMPTY → WRITING by `me` in `lap`, which is this lap or a later one.
    #[must_use]
    #[inline]
    pub(crate) fn claim(self, lap: u64, me: SeatId) -> Option<Self> {
        (self.is_claimable() && self.lap() <= lap && lap < Self::CLAIM_LIMIT)
            .then(|| Self::new(lap, CellState::Writing, me))
    }

    /// Attempts WRITING by `me` → FULL.
    #[must_use]
    #[inline]
    pub(crate) fn publish(self, me: SeatId) -> Option<Self> {
        (self.state() == CellState::Writing && self.seat() == me)
            .then(|| Self::new(self.lap(), CellState::Full, SeatId::NONE))
    }

    /// Attempts FULL → TAKING by `me`.
    #[must_use]
    #[inline]
    pub(crate) fn take(self, me: SeatId) -> Option<Self> {
        self.is_full()
            .then(|| Self::new(self.lap(), CellState::Taking, me))
    }

    /// Attempts TAKING by `me` → EMPTY of the next lap.
    #[must_use]
    #[inline]
    pub(crate) fn release(self, me: SeatId) -> Option<Self> {
        (self.state() == CellState::Taking && self.seat() == me && self.lap() < Self::LAST_LAP)
            .then(|| Self::new(self.lap() + 1, CellState::Empty, SeatId::NONE))
    }

    /// Attempts FULL → EMPTY of the next lap, by the producer of a job that came after the close.
    #[must_use]
    pub(crate) fn withdraw(self) -> Option<Self> {
        self.is_full()
            .then(|| Self::new(self.lap() + 1, CellState::Empty, SeatId::NONE))
    }

    /// Attempts EMPTY → EMPTY of the later lap `lap`. Nobody will push in the laps between.
    #[must_use]
    pub(crate) fn pass_over(self, lap: u64) -> Option<Self> {
        (self.is_claimable() && self.lap() < lap && lap < Self::CLAIM_LIMIT)
            .then(|| Self::new(lap, CellState::Empty, SeatId::NONE))
    }

    /// Attempts the undo after the death of `seat`: WRITING → EMPTY (nothing was pushed), TAKING →
    /// FULL (no consumer has received the job). Both go to the next lap.
    #[must_use]
    pub(crate) fn undo(self, seat: SeatId) -> Option<Self> {
        let left = match self.state() {
            CellState::Writing => CellState::Empty,
            CellState::Taking => CellState::Full,
            _ => return None,
        };
        (self.seat() == seat && self.lap() < Self::LAST_LAP)
            .then(|| Self::new(self.lap() + 1, left, SeatId::NONE))
    }
}

impl fmt::Debug for CellWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} by {:?} in lap {}",
            self.state(),
            self.seat(),
            self.lap()
        )
    }
}

word_type! {
    /// One end of a queue: asleep 1 | closed 1 | position 62.
    ///
    /// The flags lie in the half that the kernel compares before it lets a thread sleep. Every
    /// participant that may have to wake sleepers changes this word.
    EndWord
}

impl EndWord {
    const ASLEEP: Field = Field::first(1);
    const CLOSED: Field = Self::ASLEEP.then(1);
    const POSITION: Field = Self::CLOSED.then(62);
    pub(crate) const LAST_POSITION: u64 = Self::POSITION.max();

    pub(crate) fn position(self) -> u64 {
        Self::POSITION.get(self.0)
    }

    /// Returns `true` if a participant may be asleep until this word changes.
    pub(crate) fn is_awaited(self) -> bool {
        Self::ASLEEP.get(self.0) == 1
    }

    pub(crate) fn is_closed(self) -> bool {
        Self::CLOSED.get(self.0) == 1
    }

    /// Advances to at least `position`, and clears ASLEEP. The caller then wakes the sleepers.
    #[must_use]
    #[inline]
    pub(crate) fn advance_to(self, position: u64) -> Self {
        let position = position.max(self.position()).min(Self::LAST_POSITION);
        EndWord(Self::ASLEEP.set(Self::POSITION.set(self.0, position), 0))
    }

    /// Sets ASLEEP for a participant that is about to sleep.
    #[must_use]
    pub(crate) fn mark_sleeper(self) -> Self {
        EndWord(Self::ASLEEP.set(self.0, 1))
    }

    /// Sets CLOSED for ever, and clears ASLEEP.
    #[must_use]
    pub(crate) fn close(self) -> Self {
        EndWord(Self::ASLEEP.set(Self::CLOSED.set(self.0, 1), 0))
    }
}

impl fmt::Debug for EndWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if self.is_closed() { ", closed" } else { "" };
        let awaited = if self.is_awaited() { ", awaited" } else { "" };
        write!(f, "at {}{closed}{awaited}", self.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    const ME: SeatId = SeatId::from_index(6);
    const OTHER: SeatId = SeatId::from_index(7);

    #[test]
    fn fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[CellWord::SEAT, CellWord::STATE, CellWord::LAP]);
        crate::word::testing::assert_disjoint(&[
            EndWord::ASLEEP,
            EndWord::CLOSED,
            EndWord::POSITION,
        ]);
    }

    #[test]
    fn the_life_of_a_job() {
        let empty = CellWord::from_bits(0);
        let writing = empty.claim(3, ME).unwrap();
        assert_eq!((writing.lap(), writing.seat()), (3, ME));
        assert_eq!(writing.claim(4, OTHER), None);
        assert_eq!(writing.publish(OTHER), None);
        let full = writing.publish(ME).unwrap();
        assert!(full.is_full());
        let taking = full.take(OTHER).unwrap();
        assert_eq!(taking.take(ME), None, "a job is taken once");
        assert_eq!(taking.release(ME), None);
        let empty = taking.release(OTHER).unwrap();
        assert_eq!((empty.lap(), empty.state()), (4, CellState::Empty));
        assert_eq!(empty.claim(3, ME), None, "a lap is used once");
    }

    #[test]
    fn what_a_death_leaves() {
        let writing = CellWord::from_bits(0).claim(0, ME).unwrap();
        assert_eq!(writing.undo(OTHER), None);
        let empty = writing.undo(ME).unwrap();
        assert_eq!((empty.lap(), empty.state()), (1, CellState::Empty));
        let full = writing.publish(ME).unwrap();
        assert_eq!(full.undo(ME), None, "it was pushed");
        let back = full.take(OTHER).unwrap().undo(OTHER).unwrap();
        assert_eq!((back.lap(), back.state()), (1, CellState::Full));
    }

    #[test]
    fn laps_do_not_wrap() {
        let at = |lap, state, seat| CellWord::new(lap, state, seat);
        let used_up = at(CellWord::CLAIM_LIMIT, CellState::Empty, SeatId::NONE);
        assert!(!used_up.is_claimable());
        assert_eq!(used_up.claim(CellWord::CLAIM_LIMIT, ME), None);
        let last = CellWord::CLAIM_LIMIT - 1;
        let full = at(last, CellState::Empty, SeatId::NONE)
            .claim(last, ME)
            .and_then(|writing| writing.publish(ME))
            .unwrap();
        let back = full.take(ME).unwrap().undo(ME).unwrap();
        assert!(
            back.take(OTHER).is_some(),
            "a job that was put back is not lost"
        );
        let damaged = at(CellWord::LAST_LAP, CellState::Full, SeatId::NONE);
        assert_eq!((damaged.is_full(), damaged.take(ME)), (false, None));
    }

    proptest! {
        #[test]
        fn every_transition_increases_the_word(bits: u64, lap in 0..=CellWord::LAST_LAP) {
            let word = CellWord::from_bits(bits);
            let owner = word.seat();
            for next in [
                word.claim(lap, ME), word.publish(owner), word.take(ME), word.release(owner),
                word.withdraw(), word.pass_over(lap), word.undo(owner),
            ].into_iter().flatten() {
                // A lower state of the same lap may have any seat: compare only state and lap.
                prop_assert!(next.bits() >> SeatId::BITS > word.bits() >> SeatId::BITS);
                prop_assert!(next.next_full() >= word.next_full());
            }
        }

        #[test]
        fn an_end_only_advances(bits: u64, position in 0..=EndWord::LAST_POSITION) {
            let end = EndWord::from_bits(bits);
            let reached = end.advance_to(position);
            prop_assert_eq!(reached.position(), end.position().max(position));
            prop_assert_eq!(reached.is_closed(), end.is_closed());
            prop_assert!(!reached.is_awaited() && end.mark_sleeper().is_awaited());
            prop_assert!(end.close().is_closed() && !end.close().is_awaited());
            prop_assert_eq!(end.close().position(), end.position());
        }
    }
}
