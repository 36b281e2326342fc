//! Sums of integers of up to 128 bits without overflow.

/// A signed number of 192 bits, which holds the sum of any array of integers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Wide {
    low: u128,
    high: i64,
}

impl Wide {
    /// Adds a signed number.
    pub fn add_signed(&mut self, value: i128) {
        self.add_unsigned(value as u128);
        // The cast of a negative value added 2^128 too much.
        self.high -= i64::from(value < 0);
    }

    /// Adds an unsigned number.
    pub fn add_unsigned(&mut self, value: u128) {
        let (low, carry) = self.low.overflowing_add(value);
        self.low = low;
        self.high += i64::from(carry);
    }

    /// Returns the nearest float, or one of the two nearest.
    pub fn to_f64(self) -> f64 {
        let float = |low: u128, high: u64| high as f64 * 2f64.powi(128) + low as f64;
        match self.high < 0 {
            false => float(self.low, self.high as u64),
            true => {
                let (low, carry) = (!self.low).overflowing_add(1);
                -float(low, (!self.high) as u64 + u64::from(carry))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_beyond_their_terms() {
        let mut sum = Wide::default();
        for _ in 0..4 {
            sum.add_unsigned(u128::MAX);
        }
        assert_eq!(sum.to_f64(), 2f64.powi(130));
        for _ in 0..8 {
            sum.add_signed(i128::MIN);
        }
        assert_eq!(
            sum,
            Wide {
                low: u128::MAX - 3,
                high: -1
            }
        );
        assert_eq!(sum.to_f64(), -4.0);
        sum.add_signed(4);
        assert_eq!(sum, Wide::default());
        sum.add_signed(-1);
        assert_eq!(sum.to_f64(), -1.0);
        sum.add_signed(i128::MIN);
        sum.add_signed(i128::MIN);
        assert_eq!(sum.to_f64(), -(2f64.powi(128)));
    }
}
