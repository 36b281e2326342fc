//! A number that distinguishes results to the last bit.

/// A hash of a sequence of numbers: FNV-1a (Fowler, Noll and Vo) with words of 64 bits instead of
/// bytes. Not secure against adversaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Digest {
    pub const EMPTY: Digest = Digest(0xcbf2_9ce4_8422_2325);

    pub fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // Multiplication carries only upwards: mix the upper half into the lower one.
        self.0 ^= self.0 >> 32;
    }

    /// Returns the digest of these numbers.
    pub fn of(words: impl IntoIterator<Item = u64>) -> Digest {
        let mut digest = Digest::EMPTY;
        for word in words {
            digest.add(word);
        }
        digest
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_and_the_order_count() {
        let base = Digest::of([1, 2]);
        assert_ne!(base, Digest::of([2, 1]));
        assert_ne!(base, Digest::of([1, 2, 0]));
        for bit in 0..64 {
            assert_ne!(base, Digest::of([1 ^ (1 << bit), 2]));
            assert_ne!(base, Digest::of([1, 2 ^ (1 << bit)]));
        }
    }
}
