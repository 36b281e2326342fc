//! The bucket word: which record holds the names of a bucket.

use core::fmt;

use super::{Field, word_type};

word_type! {
    /// slot + 1 31 | frozen 1 | generation 32, least significant first; zero is a bucket without names.
    BucketWord
}

impl BucketWord {
    const SLOT: Field = Field::first(31);
    const FROZEN: Field = Self::SLOT.then(1);
    const GENERATION: Field = Self::FROZEN.then(32);
    /// A bucket without names.
    pub(crate) const EMPTY: BucketWord = BucketWord(0);

    /// The record in `slot`, of that generation. No two records ever have the same word.
    pub(crate) fn of(slot: usize, generation: u32) -> BucketWord {
        let word = Self::SLOT.set(0, slot as u64 + 1);
        BucketWord(Self::GENERATION.set(word, u64::from(generation)))
    }

    /// The same, and nothing is put there any more: of a bundle.
    pub(crate) fn frozen(self) -> BucketWord {
        BucketWord(Self::FROZEN.set(self.0, 1))
    }

    pub(crate) fn is_frozen(self) -> bool {
        Self::FROZEN.get(self.0) == 1
    }

    /// The same without a record, and as frozen as before.
    pub(crate) fn emptied(self) -> BucketWord {
        BucketWord(Self::FROZEN.set(0, Self::FROZEN.get(self.0)))
    }

    /// Without a record, frozen or not.
    pub(crate) fn is_empty(self) -> bool {
        Self::FROZEN.set(self.0, 0) == 0
    }

    /// Slot and generation of the record; `None` for an empty bucket, and for bits without a slot,
    /// which the caller tells apart.
    pub(crate) fn record(self) -> Option<(usize, u32)> {
        let slot = Self::SLOT.get(self.0).checked_sub(1)?;
        Some((slot as usize, Self::GENERATION.get(self.0) as u32))
    }
}

impl fmt::Debug for BucketWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record() {
            None => f.write_str("no record"),
            Some((slot, generation)) => write!(f, "slot {slot} generation {generation}"),
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
