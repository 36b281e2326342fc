//! Packed 64-bit words: their fields, total decoding, and pure transitions
//! `fn(self, ..) -> Option<Self>`.
//!
//! A transition returns the next word, or `None` if the word is in another state. Nothing here
//! touches memory, so every state change can be tested without a thread.

#[cfg(test)]
mod bits;
mod bucket;
mod claim;
mod hash;
mod index;
mod queue;
mod seat;
mod slot;
mod span;

pub(crate) use bucket::BucketWord;
pub(crate) use claim::{Claim, ClaimState, DoneCount, RoundState, RoundWord, UnitRecord};
pub(crate) use hash::fnv1a;
pub(crate) use index::{BucketIndex, SlotIndex, SpanIndex};
pub(crate) use queue::{CellState, CellWord, DeliveryWord, EndWord};
pub(crate) use seat::{SeatId, SeatWord};
pub(crate) use slot::{Lifecycle, Purpose, SlotWord};
pub(crate) use span::SpanWord;

/// Bits `shift .. shift + bits` of a word. Each field is declared after the one below it, so fields
/// cannot overlap.
#[derive(Clone, Copy)]
pub(crate) struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    /// Returns the least significant field.
    pub(crate) const fn first(bits: u32) -> Field {
        Field { shift: 0, bits }
    }

    /// Returns the field just above `self`.
    pub(crate) const fn then(self, bits: u32) -> Field {
        let shift = self.shift + self.bits;
        assert!(bits > 0 && shift + bits <= 64, "the fields exceed the word");
        Field { shift, bits }
    }

    /// Returns the largest value that the field holds.
    pub(crate) const fn max(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    pub(crate) const fn mask(self) -> u64 {
        self.max() << self.shift
    }

    pub(crate) const fn get(self, word: u64) -> u64 {
        (word >> self.shift) & self.max()
    }

    /// Returns `word` with this field replaced. Cuts a value that does not fit, so it never reaches
    /// a neighbour.
    pub(crate) const fn set(self, word: u64, value: u64) -> u64 {
        (word & !self.mask()) | ((value & self.max()) << self.shift)
    }
}

/// Declares a word type with its [`crate::sync::Word`] impl. Any bit pattern is a value of it.
macro_rules! word_type {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Default)]
        pub(crate) struct $name(u64);

        impl crate::sync::Word for $name {
            fn from_bits(bits: u64) -> Self {
                $name(bits)
            }
            fn bits(self) -> u64 {
                self.0
            }
        }
    };
}
pub(crate) use word_type;

#[cfg(test)]
pub(crate) mod testing {
    use super::Field;

    /// Panics if two of the fields share a bit.
    pub(crate) fn assert_disjoint(fields: &[Field]) {
        let mut seen = 0;
        for field in fields {
            assert_eq!(seen & field.mask(), 0, "a field overlaps its predecessors");
            seen |= field.mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_field_is_bounded_by_its_neighbours() {
        let low = Field::first(3);
        let middle = low.then(12);
        let high = middle.then(49);
        testing::assert_disjoint(&[low, middle, high]);
        assert_eq!(low.mask() | middle.mask() | high.mask(), u64::MAX);
    }

    proptest! {
        #[test]
        fn set_then_get_returns_the_value_and_spares_the_rest(word: u64, value: u64) {
            let field = Field::first(5).then(12);
            let changed = field.set(word, value);
            prop_assert_eq!(field.get(changed), value & field.max());
            prop_assert_eq!(changed & !field.mask(), word & !field.mask());
        }
    }
}
