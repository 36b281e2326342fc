//! The words of a partition: a claim per unit of tiles, the round word, and the count of done
//! tiles.

use core::fmt;

use super::{Field, SeatId, word_type};

/// The state of a [`Claim`] in its round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimState {
    /// Unclaimed in this round.
    Open,
    /// The seat holds the tile's views.
    Held,
    /// A tile that was released.
    Done,
    /// A tile with half-written rows: its holder died or panicked.
    Torn,
    /// Bits that no transition writes.
    Invalid,
}

word_type! {
    /// A claim word: state 4 | seat 12 | round 48.
    ///
    /// At a microsecond per round, 48 bits last nine years. 32 bits would wrap in 72 minutes behind
    /// a stalled process.
    Claim
}

impl Claim {
    const STATE: Field = Field::first(4);
    const SEAT: Field = Self::STATE.then(SeatId::BITS);
    const ROUND: Field = Self::SEAT.then(48);

    fn new(round: u64, state: ClaimState, seat: SeatId) -> Claim {
        let code = match state {
            ClaimState::Open => 0,
            ClaimState::Held => 1,
            ClaimState::Done => 2,
            ClaimState::Torn => 3,
            ClaimState::Invalid => Self::STATE.max(),
        };
        let word = Self::STATE.set(0, code);
        let word = Self::SEAT.set(word, seat.field());
        Claim(Self::ROUND.set(word, round))
    }

    pub(crate) fn round(self) -> u64 {
        Self::ROUND.get(self.0)
    }

    pub(crate) fn seat(self) -> SeatId {
        SeatId::from_field(Self::SEAT.get(self.0))
    }

    pub(crate) fn state(self) -> ClaimState {
        match Self::STATE.get(self.0) {
            0 => ClaimState::Open,
            1 => ClaimState::Held,
            2 => ClaimState::Done,
            3 => ClaimState::Torn,
            _ => ClaimState::Invalid,
        }
    }

    pub(crate) fn is_held_by(self, seat: SeatId) -> bool {
        self.state() == ClaimState::Held && self.seat() == seat
    }

    /// Attempts OPEN, DONE or TORN in an earlier round → HELD by `me` in `round`.
    #[must_use]
    #[inline]
    pub(crate) fn claim(self, round: u64, me: SeatId) -> Option<Self> {
        let free = matches!(
            self.state(),
            ClaimState::Open | ClaimState::Done | ClaimState::Torn
        );
        (free && self.round() < round).then(|| Self::new(round, ClaimState::Held, me))
    }

    /// Attempts HELD by `me` → DONE in the same round.
    #[must_use]
    #[inline]
    pub(crate) fn give_back(self, me: SeatId) -> Option<Self> {
        self.is_held_by(me)
            .then(|| Self::new(self.round(), ClaimState::Done, me))
    }

    /// Attempts DONE in `round` → HELD by the round's opener, which inspects the tile and may
    /// reopen it.
    #[must_use]
    pub(crate) fn retake(self, round: u64, opener: SeatId) -> Option<Self> {
        (self.state() == ClaimState::Done && self.round() == round)
            .then(|| Self::new(round, ClaimState::Held, opener))
    }

    /// Attempts TORN in `round` → HELD by the round's opener, which repairs the tile.
    #[must_use]
    pub(crate) fn retake_torn(self, round: u64, opener: SeatId) -> Option<Self> {
        (self.state() == ClaimState::Torn && self.round() == round)
            .then(|| Self::new(round, ClaimState::Held, opener))
    }

    /// Attempts HELD by the round's opener, or TORN, in `round` → OPEN of the round before. So the
    /// tile can be claimed in `round` again.
    #[must_use]
    pub(crate) fn reopen(self, round: u64, opener: SeatId) -> Option<Self> {
        let ours = self.is_held_by(opener) || self.state() == ClaimState::Torn;
        (ours && self.round() == round && round > 0)
            .then(|| Self::new(round - 1, ClaimState::Open, SeatId::NONE))
    }

    /// Attempts TORN in `round` → DONE by `me`, which has repaired the tiles.
    #[must_use]
    pub(crate) fn mend(self, round: u64, me: SeatId) -> Option<Self> {
        (self.state() == ClaimState::Torn && self.round() == round)
            .then(|| Self::new(round, ClaimState::Done, me))
    }

    /// Attempts HELD by `seat` → TORN in the same round. Keeps the seat in the word as the culprit.
    #[must_use]
    pub(crate) fn tear(self, seat: SeatId) -> Option<Self> {
        self.is_held_by(seat)
            .then(|| Self::new(self.round(), ClaimState::Torn, seat))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} by {:?} in round {}",
            self.state(),
            self.seat(),
            self.round()
        )
    }
}

/// The state of the round in a [`RoundWord`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RoundState {
    /// No round was opened yet, or all tiles of the last one are done.
    Whole,
    /// Its opener runs it.
    Running,
    /// Its opener dropped it, or died.
    GivenUp,
    /// Its opener ended it with torn tiles.
    Torn,
}

word_type! {
    /// A round word: state 2 | the partition is freed 1 | a participant sleeps 1 | seat 12 | round
    /// 48.
    ///
    /// The seat is the opener's. It stays in the word of a round that has ended until the opener
    /// has released the arrays. The fields that change lie in the low half, on which sleepers wait,
    /// with the low bits of the round.
    RoundWord
}

impl RoundWord {
    const STATE: Field = Field::first(2);
    const FREED: Field = Self::STATE.then(1);
    pub(crate) const ASLEEP: Field = Self::FREED.then(1);
    const SEAT: Field = Self::ASLEEP.then(SeatId::BITS);
    const ROUND: Field = Self::SEAT.then(48);
    /// The last round that a partition can run.
    pub(crate) const MAX_ROUND: u64 = Self::ROUND.max();

    fn new(round: u64, state: RoundState, seat: SeatId) -> RoundWord {
        let word = Self::STATE.set(0, state as u64);
        let word = Self::SEAT.set(word, seat.field());
        RoundWord(Self::ROUND.set(word, round))
    }

    pub(crate) fn round(self) -> u64 {
        Self::ROUND.get(self.0)
    }

    pub(crate) fn seat(self) -> SeatId {
        SeatId::from_field(Self::SEAT.get(self.0))
    }

    pub(crate) fn state(self) -> RoundState {
        match Self::STATE.get(self.0) {
            0 => RoundState::Whole,
            1 => RoundState::Running,
            2 => RoundState::GivenUp,
            _ => RoundState::Torn,
        }
    }

    pub(crate) fn is_running(self) -> bool {
        self.state() == RoundState::Running
    }

    /// Returns `true` if the owner is freeing the partition: no round opens any more.
    pub(crate) fn is_freed(self) -> bool {
        Self::FREED.get(self.0) == 1
    }

    /// Returns `true` if no round runs, and the opener of the last one has released its arrays.
    pub(crate) fn is_settled(self) -> bool {
        !self.is_running() && self.seat().is_none()
    }

    /// Returns `true` if `seat` runs the round, or has ended it and not released its arrays yet.
    pub(crate) fn is_held_by(self, seat: SeatId) -> bool {
        !seat.is_none() && self.seat() == seat
    }

    /// Returns `true` for bits that no transition writes.
    pub(crate) fn is_invalid(self) -> bool {
        (self.is_running() && self.seat().is_none())
            || (self.is_freed() && (self.is_running() || !self.seat().is_none()))
    }

    /// Returns `true` if both words are equal but for the sleepers' flag.
    pub(crate) fn is(self, other: RoundWord) -> bool {
        (self.0 ^ other.0) & !Self::ASLEEP.mask() == 0
    }

    /// Attempts to open the next round for `me`, if the last one is settled.
    #[must_use]
    pub(crate) fn open_next(self, me: SeatId) -> Option<Self> {
        (self.is_settled() && !self.is_freed() && self.round() < Self::MAX_ROUND)
            .then(|| Self::new(self.round() + 1, RoundState::Running, me))
    }

    /// Attempts RUNNING by `opener` → `state`, still with the opener's seat.
    #[must_use]
    pub(crate) fn close(self, opener: SeatId, state: RoundState) -> Option<Self> {
        (self.is_running() && self.is_held_by(opener))
            .then(|| Self::new(self.round(), state, opener))
    }

    /// Attempts RUNNING by `opener` → the next round, which `opener` runs with the same leases.
    #[must_use]
    pub(crate) fn go_on(self, opener: SeatId) -> Option<Self> {
        (self.is_running() && self.is_held_by(opener) && self.round() < Self::MAX_ROUND)
            .then(|| Self::new(self.round() + 1, RoundState::Running, opener))
    }

    /// Attempts to clear the seat of the `opener`, which has ended its round and released the
    /// arrays.
    #[must_use]
    pub(crate) fn settle(self, opener: SeatId) -> Option<Self> {
        (!self.is_running() && self.is_held_by(opener))
            .then(|| Self::new(self.round(), self.state(), SeatId::NONE))
    }

    /// Attempts to end the round of an `opener` that has died, or leaves.
    #[must_use]
    pub(crate) fn abandon(self, opener: SeatId) -> Option<Self> {
        self.is_held_by(opener)
            .then(|| Self::new(self.round(), RoundState::GivenUp, SeatId::NONE))
    }

    /// Returns `true` if the last round was ended with torn tiles, and its arrays were released.
    pub(crate) fn is_settled_torn(self) -> bool {
        self.state() == RoundState::Torn && self.is_settled()
    }

    /// Attempts settled in `round` with torn tiles → settled and whole: the tiles were repaired.
    #[must_use]
    pub(crate) fn mend(self, round: u64) -> Option<Self> {
        (self.is_settled_torn() && !self.is_freed() && self.round() == round)
            .then(|| Self::new(round, RoundState::Whole, SeatId::NONE))
    }

    /// Attempts to close the partition for good, if the last round is settled.
    #[must_use]
    pub(crate) fn free(self) -> Option<Self> {
        let awake = self.0 & !Self::ASLEEP.mask();
        self.is_settled()
            .then_some(RoundWord(awake | Self::FREED.mask()))
    }
}

impl fmt::Debug for RoundWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, seat) = (self.state(), self.seat());
        write!(f, "round {} {state:?} by {seat:?}", self.round())
    }
}

word_type! {
    /// The done tiles of a unit that is claimed as one: done 16 | round 48.
    ///
    /// The unit's holder alone writes it, after each tile. If the holder dies, or releases the unit
    /// half-way, the record shows which tiles are left.
    UnitRecord
}

impl UnitRecord {
    const DONE: Field = Field::first(16);
    const ROUND: Field = Self::DONE.then(48);
    /// Tiles that a unit can have.
    pub(crate) const MAX_TILES: usize = 16;

    pub(crate) fn new(round: u64, done: u16) -> UnitRecord {
        let word = Self::DONE.set(0, u64::from(done));
        UnitRecord(Self::ROUND.set(word, round))
    }

    /// Returns the tiles that are done in `round`, one bit each.
    pub(crate) fn done(self, round: u64) -> u16 {
        match Self::ROUND.get(self.0) == round {
            true => Self::DONE.get(self.0) as u16,
            false => 0,
        }
    }
}

impl fmt::Debug for UnitRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round = Self::ROUND.get(self.0);
        write!(f, "{:016b} done in round {round}", self.done(round))
    }
}

word_type! {
    /// The number of done tiles of a round: count 24 | low bits of the round 40.
    ///
    /// A tile adds itself at most once, and only to the count of its own round. So the count never
    /// exceeds the number of done tiles. A death may leave it short; then the claim words decide.
    DoneCount
}

impl DoneCount {
    const COUNT: Field = Field::first(24);
    const ROUND: Field = Self::COUNT.then(40);
    /// Tiles that a partition can have.
    pub(crate) const MAX_TILES: u64 = Self::COUNT.max();

    /// Returns the count of `round` with no tile done.
    pub(crate) fn start(round: u64) -> DoneCount {
        DoneCount(Self::ROUND.set(0, round))
    }

    pub(crate) fn is_of(self, round: u64) -> bool {
        Self::ROUND.get(self.0) == round & Self::ROUND.max()
    }

    pub(crate) fn count(self) -> u64 {
        Self::COUNT.get(self.0)
    }

    /// Returns the count of a round in which tiles are retaken: none. A tile may be retaken between
    /// DONE and being counted, and would be counted twice.
    pub(crate) fn given_up() -> DoneCount {
        Self::start(0)
    }

    /// Attempts to add `tiles` to the count of `round`. Returns `None` if the count is of another
    /// round.
    #[must_use]
    pub(crate) fn add(self, round: u64, tiles: u64) -> Option<Self> {
        let count = self.count().checked_add(tiles)?;
        (self.is_of(round) && count <= Self::COUNT.max())
            .then(|| DoneCount(Self::COUNT.set(self.0, count)))
    }
}

impl fmt::Debug for DoneCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} done in round {}",
            self.count(),
            Self::ROUND.get(self.0)
        )
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
        crate::word::testing::assert_disjoint(&[Claim::STATE, Claim::SEAT, Claim::ROUND]);
        let round = [RoundWord::STATE, RoundWord::FREED, RoundWord::ASLEEP];
        crate::word::testing::assert_disjoint(&round);
        crate::word::testing::assert_disjoint(&[
            RoundWord::ASLEEP,
            RoundWord::SEAT,
            RoundWord::ROUND,
        ]);
        crate::word::testing::assert_disjoint(&[DoneCount::COUNT, DoneCount::ROUND]);
        crate::word::testing::assert_disjoint(&[UnitRecord::DONE, UnitRecord::ROUND]);
    }

    #[test]
    fn a_record_is_of_its_round() {
        let record = UnitRecord::new(RoundWord::MAX_ROUND, 0b101);
        assert_eq!(record.done(RoundWord::MAX_ROUND), 0b101);
        assert_eq!(record.done(3), 0);
        assert_eq!(UnitRecord::MAX_TILES as u32, u16::BITS);
    }

    #[test]
    fn the_life_of_a_tile() {
        let open = Claim::from_bits(0);
        let held = open.claim(1, ME).unwrap();
        assert!(held.is_held_by(ME) && held.round() == 1);
        assert_eq!(held.claim(1, OTHER), None);
        assert_eq!(
            held.claim(2, OTHER),
            None,
            "a late holder keeps its tile in the next round"
        );
        assert_eq!(held.give_back(OTHER), None);
        let done = held.give_back(ME).unwrap();
        assert_eq!(done.claim(1, OTHER), None, "a tile is done once a round");
        assert!(done.claim(2, OTHER).unwrap().is_held_by(OTHER));
        let torn = held.tear(ME).unwrap();
        assert_eq!((torn.state(), torn.seat()), (ClaimState::Torn, ME));
    }

    #[test]
    fn a_tile_that_is_run_again() {
        let done = Claim::from_bits(0)
            .claim(3, OTHER)
            .and_then(|held| held.give_back(OTHER))
            .unwrap();
        assert_eq!(done.retake(2, ME), None);
        assert_eq!(done.reopen(3, ME), None, "its opener holds it first");
        let retaken = done.retake(3, ME).unwrap();
        assert!(retaken.is_held_by(ME));
        assert_eq!(retaken.reopen(3, OTHER), None);
        let open = retaken.reopen(3, ME).unwrap();
        assert!(open.claim(3, OTHER).unwrap().is_held_by(OTHER));
        let torn = open
            .claim(3, OTHER)
            .and_then(|held| held.tear(OTHER))
            .unwrap();
        assert!(torn.reopen(3, ME).unwrap().claim(3, ME).is_some());
        assert_eq!(done.retake_torn(3, ME), None);
        assert_eq!(torn.retake_torn(4, ME), None, "of an earlier round");
        let repaired = torn.retake_torn(3, ME).and_then(|held| held.give_back(ME));
        assert_eq!(repaired.unwrap().state(), ClaimState::Done);
        assert_eq!(torn.reopen(4, ME), None, "of an earlier round");
    }

    #[test]
    fn the_life_of_a_round() {
        let idle = RoundWord::from_bits(0);
        assert!(idle.is_settled());
        let running = idle.open_next(ME).unwrap();
        assert_eq!(running.round(), 1);
        assert_eq!(running.open_next(OTHER), None);
        assert_eq!(running.close(OTHER, RoundState::Whole), None);
        assert_eq!((running.free(), running.settle(ME)), (None, None));
        let next = running.go_on(ME).unwrap();
        assert!(next.is_running() && next.is_held_by(ME) && next.round() == 2);
        assert_eq!((running.go_on(OTHER), idle.go_on(ME)), (None, None));
        for state in [RoundState::Whole, RoundState::Torn, RoundState::GivenUp] {
            let ending = running.close(ME, state).unwrap();
            assert!(ending.is_held_by(ME) && !ending.is_settled());
            assert_eq!((ending.open_next(OTHER), ending.free()), (None, None));
            assert_eq!(ending.go_on(ME), None);
            assert_eq!(ending.settle(OTHER), None);
            let over = ending.settle(ME).unwrap();
            assert_eq!((over.state(), over.is_settled()), (state, true));
            assert_eq!(over.open_next(OTHER).unwrap().round(), 2);
            let freed = over.free().unwrap();
            assert_eq!((freed.state(), freed.is_freed()), (state, true));
            assert_eq!(freed.open_next(OTHER), None);
            let dead = ending.abandon(ME).unwrap();
            assert_eq!(
                (dead.state(), dead.is_settled()),
                (RoundState::GivenUp, true)
            );
        }
        assert!(running.abandon(ME).unwrap().is_settled());
        assert_eq!(idle.abandon(SeatId::NONE), None);
        let last = RoundWord::new(RoundWord::MAX_ROUND, RoundState::Whole, SeatId::NONE);
        assert_eq!(last.open_next(ME), None, "rounds do not wrap");
        let last = RoundWord::new(RoundWord::MAX_ROUND, RoundState::Running, ME);
        assert_eq!(last.go_on(ME), None, "rounds do not wrap");
    }

    #[test]
    fn every_transition_of_a_round_wakes_its_sleepers() {
        let asleep = |word: RoundWord| RoundWord(word.0 | RoundWord::ASLEEP.mask());
        let idle = asleep(RoundWord::from_bits(0));
        let running = idle.open_next(ME).unwrap();
        let next = asleep(running).go_on(ME).unwrap();
        let ending = asleep(running).close(ME, RoundState::Torn).unwrap();
        let settled = asleep(ending).settle(ME).unwrap();
        let freed = asleep(settled).free().unwrap();
        let dead = asleep(running).abandon(ME).unwrap();
        for word in [running, next, ending, settled, freed, dead] {
            assert_eq!(RoundWord::ASLEEP.get(word.0), 0, "{word:?}");
            assert!(word.is(asleep(word)) && !word.is(idle));
        }
    }

    #[test]
    fn a_late_count_does_not_reach_the_next_round() {
        let count = DoneCount::start(9).add(9, 1).unwrap();
        assert_eq!(count.count(), 1);
        assert_eq!(count.add(8, 1), None);
        assert_eq!(DoneCount::given_up().add(9, 1), None);
    }

    proptest! {
        #[test]
        fn decoding_is_total(bits: u64, round: u64) {
            let claim = Claim::from_bits(bits);
            let _ = (claim.state(), claim.seat(), claim.round(), claim.claim(round, ME));
            let _ = (claim.tear(OTHER), claim.give_back(OTHER));
            let word = RoundWord::from_bits(bits);
            let _ = (word.round(), word.seat(), word.state(), word.is_freed(), word.is_invalid());
            let _ = (word.open_next(ME), word.close(ME, RoundState::Whole), word.settle(ME));
            let _ = (word.abandon(ME), word.free(), word.go_on(ME));
            let _ = (claim.retake(round, ME), claim.reopen(round, ME));
            let _ = claim.retake_torn(round, ME);
            let count = DoneCount::from_bits(bits);
            let _ = count.add(round, round);
        }
    }
}
