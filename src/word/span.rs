//! The entry of the span table.

use core::fmt;

use super::{Field, word_type};

word_type! {
    /// A span's size class and base: class + 1 in 8 bits, base in units of 64 bytes in 40 bits.
    /// Zero is an entry that was not appended yet.
    SpanWord
}

impl SpanWord {
    const CLASS: Field = Field::first(8);
    const BASE: Field = Self::CLASS.then(40);
    const UNIT: u64 = 64;

    pub(crate) fn new(class: u32, base: u64) -> SpanWord {
        debug_assert_eq!(base % Self::UNIT, 0);
        let word = Self::CLASS.set(0, u64::from(class) + 1);
        SpanWord(Self::BASE.set(word, base / Self::UNIT))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the size class. Returns `None` for an empty entry, and for invalid bytes. The caller
    /// distinguishes them by [`SpanWord::is_empty`].
    pub(crate) fn class(self) -> Option<u32> {
        Self::CLASS.get(self.0).checked_sub(1).map(|c| c as u32)
    }

    /// Returns the offset of the first extent in the data region, in bytes.
    pub(crate) fn base(self) -> u64 {
        Self::BASE.get(self.0) * Self::UNIT
    }
}

impl fmt::Debug for SpanWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            None => f.write_str("empty"),
            Some(class) => write!(f, "class {class} at {:#x}", self.base()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_do_not_overlap() {
        crate::word::testing::assert_disjoint(&[SpanWord::CLASS, SpanWord::BASE]);
    }

    proptest! {
        #[test]
        fn round_trip(class in 0u32..255, units in 0u64..1 << 40) {
            let word = SpanWord::new(class, units * 64);
            prop_assert!(!word.is_empty());
            prop_assert_eq!(word.class(), Some(class));
            prop_assert_eq!(word.base(), units * 64);
        }
    }
}
