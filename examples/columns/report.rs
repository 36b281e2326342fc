//! The results, and checks of their plausibility.

use std::time::Duration;

use crate::Options;
use crate::common::{Digest, Result};
use crate::simhash::DIMENSIONS;

/// Results of the program, and the numbers by which they are checked.
#[derive(Debug)]
pub struct Found {
    /// Number of set bits, counted by columns and by rows.
    pub ones: [u64; 2],
    /// Difference of that number from one half of all bits, in standard errors.
    pub deviation: f64,
    /// Mean of the squared deviations of all distances from their expectations by the angles.
    pub spread: f64,
    /// Row most similar to the first, and both angles in radians: true, and estimated from bits.
    pub nearest: (usize, f64, f64),
    /// Number of recomputed columns that differ in any bit.
    pub wrong_columns: usize,
    pub digest: Digest,
    pub by_columns: Duration,
    pub by_rows: Duration,
}

impl Found {
    pub fn report(&self, options: &Options) {
        let all = (options.samples * options.columns) as f64;
        let rate = |time: Duration| all / time.as_secs_f64() / 1e6;
        let (nearest, true_angle, by_bits) = self.nearest;
        println!(
            "bits set           {} ({:.4} %)",
            self.ones[0],
            self.ones[0] as f64 / all * 100.0
        );
        println!("  from one half    {:.2} standard errors", self.deviation);
        println!("nearest to no. 0   no. {nearest}");
        println!(
            "  at an angle of   {:.2} degrees by the bits, {:.2} true",
            by_bits.to_degrees(),
            true_angle.to_degrees()
        );
        println!(
            "  squared errors   {:.3} times the expected, over all samples",
            self.spread
        );
        println!(
            "columns checked    {} of them differ from a plain reference",
            self.wrong_columns
        );
        println!();
        println!(
            "written by columns {:>8.1} ms  {:>6.0} million bits/s",
            self.by_columns.as_secs_f64() * 1e3,
            rate(self.by_columns)
        );
        println!(
            "read by rows       {:>8.1} ms  {:>6.0} million bits/s",
            self.by_rows.as_secs_f64() * 1e3,
            rate(self.by_rows)
        );
        println!("digest             {}", self.digest);
    }

    pub fn check(&self, options: &Options) -> Result<()> {
        let [by_columns, by_rows] = self.ones;
        if by_columns != by_rows {
            return Err(format!("{by_columns} bits by columns, but {by_rows} by rows").into());
        }
        if self.wrong_columns > 0 {
            return Err(format!("{} columns are wrong", self.wrong_columns).into());
        }
        if self.deviation.abs() > 5.0 {
            return Err("the share of ones is too far from one half to be chance".into());
        }
        // The variance of the mean of squares of so many standard normal numbers. They are slightly
        // correlated, because all distances share the hyperplanes: 0.4 / 64 is the mean square of
        // their correlations.
        let variance = 2.0 / (options.samples - 1) as f64 + 2.0 * 0.4 / DIMENSIONS as f64;
        if (self.spread - 1.0).abs() > 5.0 * variance.sqrt() {
            return Err("the distances do not agree with the angles".into());
        }
        Ok(())
    }
}
