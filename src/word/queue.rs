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
    /// The seat reads the job, or puts it back.
    Taking,
    /// The job belongs to the seat until it is acknowledged.
    Bound,
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
    pub(crate) const LAST_LAP: u64 = Self::LAP.max();
    /// From this lap on a cell is used up. At 25 ns a job, a queue of one cell gets there in 160
    /// days. The laps beyond are for deaths, which take one lap each.
    pub(crate) const CLAIM_LIMIT: u64 = Self::LAST_LAP - 0xffff;

    fn new(lap: u64, state: CellState, seat: SeatId) -> CellWord {
        let code = match state {
            CellState::Empty => 0,
            CellState::Writing => 1,
            CellState::Full => 2,
            CellState::Taking => 3,
            CellState::Bound => 4,
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
            4 => CellState::Bound,
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
            // A death would put the job back, in the next lap at the earliest.
            CellState::Taking | CellState::Bound => self.lap() + 1,
            _ => self.lap(),
        }
    }

    /// Returns `true` if a search may move the cell to a later lap.
    #[inline]
    pub(crate) fn is_passable(self) -> bool {
        matches!(self.state(), CellState::Empty | CellState::Bound)
            && self.lap() < Self::CLAIM_LIMIT
    }

    pub(crate) fn is_bound_by(self, seat: SeatId) -> bool {
        self.state() == CellState::Bound && self.seat() == seat
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

    /// Attempts TAKING by `me` → BOUND by `me`.
    #[must_use]
    pub(crate) fn bind(self, me: SeatId) -> Option<Self> {
        (self.state() == CellState::Taking && self.seat() == me)
            .then(|| Self::new(self.lap(), CellState::Bound, me))
    }

    /// Attempts BOUND by `me` → EMPTY of the next lap.
    #[must_use]
    pub(crate) fn acknowledge(self, me: SeatId) -> Option<Self> {
        (self.is_bound_by(me) && self.lap() < Self::LAST_LAP)
            .then(|| Self::new(self.lap() + 1, CellState::Empty, SeatId::NONE))
    }

    /// Attempts BOUND by `seat` → TAKING by `seat` in the later lap `lap`. The job comes back in the
    /// lap after that.
    #[must_use]
    pub(crate) fn unbind(self, seat: SeatId, lap: u64) -> Option<Self> {
        (self.is_bound_by(seat) && self.lap() < lap && lap < Self::LAST_LAP)
            .then(|| Self::new(lap, CellState::Taking, seat))
    }

    /// Attempts FULL → EMPTY of the next lap, by the producer of a job that came after the close.
    #[must_use]
    pub(crate) fn withdraw(self) -> Option<Self> {
        self.is_full()
            .then(|| Self::new(self.lap() + 1, CellState::Empty, SeatId::NONE))
    }

    /// Attempts EMPTY or BOUND of a lap before `lap` → the same state in a later lap, so that the
    /// cell does not become FULL before `lap`.
    #[must_use]
    pub(crate) fn pass_over(self, lap: u64) -> Option<Self> {
        let to = match self.state() {
            CellState::Empty => lap,
            // It comes back in the next lap at the earliest.
            CellState::Bound => lap.checked_sub(1)?,
            _ => return None,
        };
        (self.lap() < to && to < Self::CLAIM_LIMIT)
            .then(|| Self::new(to, self.state(), self.seat()))
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
    /// The deliveries of a job that was bound before: count 15 | lap 49.
    ///
    /// In a BOUND cell the count is the job's. In other cells it is the job's if the lap is that in
    /// which the job is, or will be, FULL. So a push need not clear it.
    DeliveryWord
}

impl DeliveryWord {
    const COUNT: Field = Field::first(15);
    const LAP: Field = Self::COUNT.then(49);

    /// Returns the word of a job that was delivered `count` times. The count saturates.
    pub(crate) fn new(lap: u64, count: u64) -> Self {
        let count = Self::COUNT.set(0, count.min(Self::COUNT.max()));
        DeliveryWord(Self::LAP.set(count, lap))
    }

    pub(crate) fn count(self) -> u64 {
        Self::COUNT.get(self.0)
    }

    /// Returns the deliveries of the job that is FULL in `lap`.
    pub(crate) fn count_in(self, lap: u64) -> u64 {
        match Self::LAP.get(self.0) == lap {
            true => self.count(),
            false => 0,
        }
    }
}

impl fmt::Debug for DeliveryWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} deliveries in lap {}",
            self.count(),
            Self::LAP.get(self.0)
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
        crate::word::testing::assert_disjoint(&[DeliveryWord::COUNT, DeliveryWord::LAP]);
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
    fn the_life_of_a_bound_job() {
        let full = CellWord::from_bits(0).claim(3, OTHER).unwrap();
        let taking = full.publish(OTHER).unwrap().take(ME).unwrap();
        assert_eq!(taking.bind(OTHER), None);
        let bound = taking.bind(ME).unwrap();
        assert_eq!((bound.lap(), bound.next_full(), bound.seat()), (3, 4, ME));
        assert_eq!(
            [bound.release(ME), bound.undo(ME), bound.claim(4, ME)],
            [None; 3]
        );
        assert_eq!(
            [bound.acknowledge(OTHER), bound.unbind(OTHER, 9)],
            [None; 2]
        );
        assert_eq!(
            bound.pass_over(4),
            None,
            "it does not come back before lap 4"
        );
        let passed = bound.pass_over(7).unwrap();
        assert_eq!(
            (passed.lap(), passed.next_full(), passed.seat()),
            (6, 7, ME)
        );
        assert!(passed.is_bound_by(ME) && passed.is_passable() && !passed.is_claimable());
        let empty = passed.acknowledge(ME).unwrap();
        assert_eq!((empty.lap(), empty.state()), (7, CellState::Empty));
        assert_eq!(passed.unbind(ME, 6), None, "a lap is used once");
        let back = passed.unbind(ME, 8).unwrap().undo(ME).unwrap();
        assert_eq!((back.lap(), back.state()), (9, CellState::Full));
    }

    #[test]
    fn deliveries_count_in_their_lap_and_saturate() {
        let word = DeliveryWord::new(9, 3);
        assert_eq!(
            [word.count(), word.count_in(9), word.count_in(8)],
            [3, 3, 0]
        );
        let last = CellWord::LAST_LAP;
        let most = DeliveryWord::new(last, u64::MAX);
        assert_eq!(most.count_in(last), (1 << 15) - 1);
        assert_eq!(DeliveryWord::default().count_in(0), 0);
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
                word.withdraw(), word.pass_over(lap), word.undo(owner), word.bind(owner),
                word.acknowledge(owner), word.unbind(owner, lap),
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
