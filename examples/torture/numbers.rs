//! Numbers that look random and follow from a seed: each process has a stream of its own.

use std::time::Duration;

/// A generator whose state is one word: xorshift, its output multiplied.
pub struct Numbers(u64);

impl Numbers {
    /// The stream of process number `incarnation` in the run with this seed.
    pub fn new(seed: u64, incarnation: u64) -> Numbers {
        let mixed = mix(mix(seed) ^ incarnation);
        // Zero is the one state that it never leaves.
        Numbers(mixed | 1)
    }

    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.any()) * end as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Sleeps for less than so many microseconds.
    pub fn nap(&mut self, micros: usize) {
        std::thread::sleep(Duration::from_micros(self.below(micros) as u64));
    }
}

/// A number that depends on every bit of `x`.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e6c_63d0_876a_68ef);
    let x = (x ^ x >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}
