//! The bucket word, which names the record of a bucket's names.

use super::SlotIndex;
use core::fmt;

use super::{Field, word_type};

word_type! {
    /// slot + 1 31 | frozen 1 | generation 32, least significant first. Zero is a bucket without
    /// names.
    BucketWord
}

impl BucketWord {
    const SLOT: Field = Field::first(31);
    const FROZEN: Field = Self::SLOT.then(1);
    const GENERATION: Field = Self::FROZEN.then(32);
    /// A bucket without names.
    pub(crate) const EMPTY: BucketWord = BucketWord(0);

    /// Returns the word of the record in `slot`. No two records ever have the same word.
    pub(crate) fn of(slot: SlotIndex, generation: u32) -> BucketWord {
        let word = Self::SLOT.set(0, slot.get() as u64 + 1);
        BucketWord(Self::GENERATION.set(word, u64::from(generation)))
    }

    /// Returns the same word, frozen: the record of a frozen bundle cannot be replaced.
    pub(crate) fn frozen(self) -> BucketWord {
        BucketWord(Self::FROZEN.set(self.0, 1))
    }

    pub(crate) fn is_frozen(self) -> bool {
        Self::FROZEN.get(self.0) == 1
    }

    /// Returns the word without a record. Keeps the frozen bit.
    pub(crate) fn emptied(self) -> BucketWord {
        BucketWord(Self::FROZEN.set(0, Self::FROZEN.get(self.0)))
    }

    /// Returns `true` if there is no record, frozen or not.
    pub(crate) fn is_empty(self) -> bool {
        Self::FROZEN.set(self.0, 0) == 0
    }

    /// Returns slot and generation of the record. Returns `None` for an empty bucket, and for
    /// invalid bits without a slot. The caller distinguishes them by [`BucketWord::is_empty`].
    pub(crate) fn record(self) -> Option<(SlotIndex, u32)> {
        let slot = Self::SLOT.get(self.0).checked_sub(1)?;
        Some((
            SlotIndex::new(slot as usize),
            Self::GENERATION.get(self.0) as u32,
        ))
    }
}

impl fmt::Debug for BucketWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record() {
            None => f.write_str("no record"),
            Some((slot, generation)) => write!(f, "slot {} generation {generation}", slot.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    #[test]
    fn fields_do_not_overlap_and_zero_is_empty() {
        crate::word::testing::assert_disjoint(&[
            BucketWord::SLOT,
            BucketWord::FROZEN,
            BucketWord::GENERATION,
        ]);
        assert_eq!(BucketWord::from_bits(0), BucketWord::EMPTY);
        assert_eq!(BucketWord::EMPTY.record(), None);
    }

    proptest! {
        #[test]
        fn round_trip(slot in 0usize..1 << 28, generation: u32) {
            let slot = SlotIndex::new(slot);
            let word = BucketWord::of(slot, generation);
            prop_assert_ne!(word, BucketWord::EMPTY);
            prop_assert_eq!(word.record(), Some((slot, generation)));
            prop_assert_eq!(word.frozen().record(), word.record());
            prop_assert_eq!(word.emptied(), BucketWord::EMPTY);
            prop_assert_eq!(word.frozen().emptied(), BucketWord::EMPTY.frozen());
            prop_assert!(word.frozen().is_frozen() && !word.is_frozen() && !word.frozen().is_empty());
        }
    }
}
