//! The seat word, and the seat numbers that other words carry.

use core::fmt;

use super::{Field, word_type};

/// The number of a seat in other words: 1 for the first seat, 0 for nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeatId(u16);

impl SeatId {
    /// Nobody.
    pub(crate) const NONE: SeatId = SeatId(0);
    /// The writer of an array in a round without an opener, until the last participant of the round
    /// has left. No participant has this number.
    pub(crate) const ORPHAN: SeatId = SeatId(Self::FIELD_MAX as u16);
    /// Bits of a field that carries a seat.
    pub(crate) const BITS: u32 = 12;
    const FIELD_MAX: u64 = (1 << Self::BITS) - 1;
    /// Seats that a segment can have.
    pub(crate) const MAX_SEATS: u32 = 1 << 11;

    pub(crate) const fn from_index(index: usize) -> SeatId {
        assert!(index < Self::MAX_SEATS as usize);
        SeatId(index as u16 + 1)
    }

    /// Returns the seat in a word's field.
    pub(crate) const fn from_field(value: u64) -> SeatId {
        SeatId((value & Self::FIELD_MAX) as u16)
    }

    pub(crate) const fn field(self) -> u64 {
        self.0 as u64
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of the seat's bit in a row. For nobody, for the orphan and for numbers that
    /// no segment has, it is one that no row has.
    #[inline]
    pub(crate) const fn bit(self) -> usize {
        self.0.wrapping_sub(1) as usize
    }

    /// Returns the index in the table of seats. Returns `None` for nobody, for the orphan, and for
    /// numbers that no segment has.
    pub(crate) fn index(self) -> Option<usize> {
        let index = self.0.checked_sub(1)?;
        (u32::from(index) < Self::MAX_SEATS).then_some(usize::from(index))
    }
}

impl fmt::Debug for SeatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SeatId::NONE => f.write_str("nobody"),
            SeatId::ORPHAN => f.write_str("orphan"),
            SeatId(n) => write!(f, "seat {}", n - 1),
        }
    }
}

word_type! {
    /// The state of a seat and the number of times it was taken: taken 1 | epoch 63.
    SeatWord
}

impl SeatWord {
    const TAKEN: Field = Field::first(1);
    const EPOCH: Field = Self::TAKEN.then(63);

    pub(crate) fn is_taken(self) -> bool {
        Self::TAKEN.get(self.0) == 1
    }

    pub(crate) fn epoch(self) -> u64 {
        Self::EPOCH.get(self.0)
    }

    /// Attempts FREE → TAKEN of the next epoch.
    #[must_use]
    pub(crate) fn take(self) -> Option<Self> {
        (!self.is_taken()).then(|| {
            SeatWord(Self::TAKEN.set(Self::EPOCH.set(self.0, self.epoch().wrapping_add(1)), 1))
        })
    }

    /// Attempts TAKEN → FREE.
    #[must_use]
    pub(crate) fn leave(self) -> Option<Self> {
        self.is_taken()
            .then(|| SeatWord(Self::TAKEN.set(self.0, 0)))
    }
}

impl fmt::Debug for SeatWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_taken() { "TAKEN" } else { "FREE" };
        write!(f, "{state} epoch {}", self.epoch())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    #[test]
    fn fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[SeatWord::TAKEN, SeatWord::EPOCH]);
    }

    proptest! {
        #[test]
        fn a_seat_is_taken_and_left_in_turn(bits: u64) {
            let word = SeatWord::from_bits(bits);
            prop_assert_eq!(word.take().is_some(), !word.is_taken());
            prop_assert_eq!(word.leave().is_some(), word.is_taken());
            if let Some(taken) = word.take() {
                prop_assert!(taken.is_taken());
                prop_assert_ne!(taken.epoch(), word.epoch());
                prop_assert!(!taken.leave().unwrap().is_taken());
            }
        }

        #[test]
        fn any_field_value_is_a_seat(value: u64) {
            let seat = SeatId::from_field(value);
            prop_assert_eq!(seat.field(), value & 0xfff);
            if let Some(index) = seat.index() {
                prop_assert_eq!(SeatId::from_index(index), seat);
            }
            let bits = 0..SeatId::MAX_SEATS as usize;
            prop_assert_eq!(seat.index(), Some(seat.bit()).filter(|bit| bits.contains(bit)));
        }
    }
}
