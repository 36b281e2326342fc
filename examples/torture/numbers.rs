//! Pseudo-random numbers from a seed: each process has its own stream.

use std::time::Duration;

/// A generator with one word of state: xorshift with multiplied output.
pub struct Numbers(u64);

impl Numbers {
    /// Creates the stream of process number `incarnation` in the run with this seed.
    pub fn new(seed: u64, incarnation: u64) -> Numbers {
        let mixed = mix(mix(seed) ^ incarnation);
        // The state must not be zero: the generator never leaves zero.
        Numbers(mixed | 1)
    }

    pub fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.any()) * end as u128) >> 64) as usize
    }

    /// Returns `true` with probability 1 / `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Sleeps for less than `micros` microseconds.
    pub fn nap(&mut self, micros: usize) {
        std::thread::sleep(Duration::from_micros(self.below(micros) as u64));
    }
}

/// Returns a number that depends on every bit of `x`.
#[inline]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 32).wrapping_mul(0x9e6c_63d0_876a_68ef);
    let x = (x ^ x >> 29).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}
